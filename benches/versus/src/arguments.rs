//! The command line, the same for the parent and for the processes it starts.

use crate::job::{Codec, Job, Tuning};
use crate::peers::{self, PEERS, Peer};
use crate::text;

/// A cell moves about this much, so that every cell takes about as long.
const CELL_BYTES: usize = 256 << 20;

#[derive(Debug, Clone)]
pub struct Arguments {
    pub sizes: Vec<usize>,
    pub codecs: Vec<Codec>,
    pub peers: Vec<String>,
    /// By default as many as make `CELL_BYTES`, 100,000 at least and 2,000,000 at most.
    pub records: Option<usize>,
    pub runs: usize,
    pub callers: usize,
    pub partitions: i32,
    /// Milliseconds that an answer waits; each is a table of its own.
    pub rtts: Vec<usize>,
    pub keyed: bool,
    pub tuning: Tuning,
    /// For a client process.
    pub bootstrap: String,
    /// For a client process.
    pub count_allocations: bool,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments {
            sizes: vec![10, 100, 1000, 10_000],
            codecs: vec![Codec::None, Codec::Lz4, Codec::Zstd],
            peers: PEERS.iter().map(|peer| peer.name.to_owned()).collect(),
            records: None,
            runs: 5,
            callers: 1,
            partitions: 12,
            rtts: vec![0],
            keyed: false,
            tuning: Tuning::Same,
            bootstrap: String::new(),
            count_allocations: false,
        };
        while let Some(flag) = words.next() {
            let mut value = || words.next().ok_or(format!("{flag} wants a value"));
            match flag.as_str() {
                "--quick" => {
                    (arguments.sizes, arguments.codecs, arguments.runs) =
                        (vec![100, 1000], vec![Codec::None], 3);
                }
                "--size" => arguments.sizes = list(&value()?, number)?,
                "--codec" => arguments.codecs = list(&value()?, Codec::parse)?,
                "--peers" => arguments.peers = list(&value()?, peer)?,
                "--records" => arguments.records = Some(number(&value()?)?),
                "--runs" => arguments.runs = number(&value()?)?.max(1),
                "--callers" => arguments.callers = number(&value()?)?.max(1),
                "--partitions" => arguments.partitions = number(&value()?)?.max(1) as i32,
                "--rtt" => arguments.rtts = list(&value()?, number)?,
                "--keyed" => arguments.keyed = true,
                "--defaults" => arguments.tuning = Tuning::OwnDefaults,
                "--bootstrap" => arguments.bootstrap = value()?,
                "--count-allocations" => arguments.count_allocations = true,
                _ => return Err(format!("unknown argument {flag}; see the head of main.rs")),
            }
        }
        Ok(arguments)
    }

    pub fn records_of(&self, size: usize) -> usize {
        self.records
            .unwrap_or((CELL_BYTES / size).clamp(100_000, 2_000_000))
    }

    pub fn warm_up_of(&self, size: usize) -> usize {
        self.records_of(size) / 10
    }

    /// The arguments of a client process for one cell.
    pub fn of_client(&self, peer: &str, size: usize, codec: Codec, bootstrap: &str) -> Vec<String> {
        let mut words: Vec<String> = [
            ("--peers", peer.to_owned()),
            ("--size", size.to_string()),
            ("--codec", codec.name().to_owned()),
            ("--records", self.records_of(size).to_string()),
            ("--callers", self.callers.to_string()),
            ("--partitions", self.partitions.to_string()),
            ("--bootstrap", bootstrap.to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        words.extend(self.keyed.then(|| "--keyed".to_owned()));
        words.extend((self.tuning == Tuning::OwnDefaults).then(|| "--defaults".to_owned()));
        words
    }

    pub fn single_peer(&self) -> Result<&'static Peer, String> {
        let name = self.peers.first().ok_or("no peer")?;
        peers::find(name).ok_or(format!("no peer {name}"))
    }

    pub fn job(&self) -> Result<Job, String> {
        let size = *self.sizes.first().ok_or("no size")?;
        let codec = *self.codecs.first().ok_or("no codec")?;
        Ok(Job {
            text: text::text(codec),
            bootstrap: self.bootstrap.clone(),
            size,
            records: self.records_of(size),
            warm_up: self.warm_up_of(size),
            codec,
            tuning: self.tuning,
            keyed: self.keyed,
            callers: self.callers,
            partitions: self.partitions,
        })
    }
}

fn list<T>(words: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    words.split(',').map(parse).collect()
}

fn number(word: &str) -> Result<usize, String> {
    word.replace('_', "")
        .parse()
        .map_err(|_| format!("{word} is not a number"))
}

fn peer(name: &str) -> Result<String, String> {
    let names: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
    match peers::find(name) {
        Some(peer) => Ok(peer.name.to_owned()),
        None => Err(format!("no peer {name}: {}", names.join(", "))),
    }
}
