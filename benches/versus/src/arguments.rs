//! The command lines: the parent's, and those of the processes that it starts.

use std::path::PathBuf;

use crate::job::{Codec, Job, Tuning};
use crate::peers::{self, PEERS, Peer};

/// What the parent compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// The cells that the other arguments name.
    Named,
    /// A minute's look.
    Quick,
    /// Everything that the targets speak of.
    Full,
}

#[derive(Debug, Clone)]
pub struct Arguments {
    pub plan: Plan,
    pub sizes: Vec<usize>,
    pub codecs: Vec<Codec>,
    pub peers: Vec<String>,
    /// By default as many as make a cell last about as long as any other.
    pub records: Option<usize>,
    /// By default three, five when the cells are named.
    pub runs: Option<usize>,
    pub callers: usize,
    pub partitions: i32,
    /// Milliseconds that an answer waits; each is a cell of its own.
    pub rtts: Vec<usize>,
    pub keyed: bool,
    pub tuning: Tuning,
    /// A real Kafka instead of the null broker.
    pub bootstrap: Option<String>,
    pub json: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments {
            plan: Plan::Named,
            sizes: vec![10, 100, 1000, 10_000],
            codecs: Codec::ALL.to_vec(),
            peers: PEERS.iter().map(|peer| peer.name.to_owned()).collect(),
            records: None,
            runs: None,
            callers: 1,
            partitions: 12,
            rtts: vec![0],
            keyed: false,
            tuning: Tuning::Same,
            bootstrap: None,
            json: None,
            markdown: None,
        };
        while let Some(flag) = words.next() {
            let mut value = || words.next().ok_or(format!("{flag} wants a value"));
            match flag.as_str() {
                "--quick" => arguments.plan = Plan::Quick,
                "--full" => arguments.plan = Plan::Full,
                "--size" => arguments.sizes = list(&value()?, number)?,
                "--codec" => arguments.codecs = list(&value()?, Codec::parse)?,
                "--peers" => arguments.peers = list(&value()?, peer)?,
                "--records" => arguments.records = Some(number(&value()?)?.max(1)),
                "--runs" => arguments.runs = Some(number(&value()?)?.max(1)),
                "--callers" => arguments.callers = number(&value()?)?.max(1),
                "--partitions" => arguments.partitions = partitions(&value()?)?,
                "--rtt" => arguments.rtts = list(&value()?, number)?,
                "--keyed" => arguments.keyed = true,
                "--defaults" => arguments.tuning = Tuning::OwnDefaults,
                "--bootstrap" => arguments.bootstrap = Some(value()?),
                "--json" => arguments.json = Some(value()?.into()),
                "--markdown" => arguments.markdown = Some(value()?.into()),
                _ => return Err(format!("unknown argument {flag}; see the head of main.rs")),
            }
        }
        Ok(arguments)
    }

    pub fn runs(&self) -> usize {
        self.runs.unwrap_or(match self.plan {
            Plan::Named => 5,
            Plan::Quick | Plan::Full => 3,
        })
    }
}

/// What a broker process is told.
pub struct BrokerArguments {
    pub partitions: i32,
    pub rtt_ms: u64,
}

impl BrokerArguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<BrokerArguments, String> {
        let (mut partitions_given, mut rtt_ms) = (1, 0);
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--partitions" => partitions_given = partitions(&value)?,
                "--rtt" => rtt_ms = number(&value)? as u64,
                _ => return Err(format!("unknown argument {flag} of a broker")),
            }
        }
        Ok(BrokerArguments {
            partitions: partitions_given,
            rtt_ms,
        })
    }

    pub fn words(&self) -> [String; 4] {
        [
            "--partitions".to_owned(),
            self.partitions.to_string(),
            "--rtt".to_owned(),
            self.rtt_ms.to_string(),
        ]
    }
}

/// What a client process is told, in whatever language it is written.
#[derive(Debug, Clone)]
pub struct ClientArguments {
    pub peer: String,
    /// The file that values are cut from.
    pub text: PathBuf,
    pub bootstrap: String,
    pub topic: String,
    pub size: usize,
    pub records: usize,
    pub warm_up: usize,
    pub codec: Codec,
    pub callers: usize,
    pub partitions: i32,
    pub keyed: bool,
    pub tuning: Tuning,
    /// Only the Rust clients are told to.
    pub count_allocations: bool,
}

impl ClientArguments {
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = [
            ("--peers", self.peer.clone()),
            ("--text", self.text.display().to_string()),
            ("--bootstrap", self.bootstrap.clone()),
            ("--topic", self.topic.clone()),
            ("--size", self.size.to_string()),
            ("--records", self.records.to_string()),
            ("--warm-up", self.warm_up.to_string()),
            ("--codec", self.codec.name().to_owned()),
            ("--callers", self.callers.to_string()),
            ("--partitions", self.partitions.to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        let flags = [
            (self.keyed, "--keyed"),
            (self.tuning == Tuning::OwnDefaults, "--defaults"),
            (self.count_allocations, "--count-allocations"),
        ];
        words.extend(
            flags
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, flag)| (*flag).to_owned()),
        );
        words
    }

    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<ClientArguments, String> {
        let mut arguments = ClientArguments {
            peer: String::new(),
            text: PathBuf::new(),
            bootstrap: String::new(),
            topic: String::new(),
            size: 100,
            records: 0,
            warm_up: 0,
            codec: Codec::None,
            callers: 1,
            partitions: 1,
            keyed: false,
            tuning: Tuning::Same,
            count_allocations: false,
        };
        while let Some(flag) = words.next() {
            let mut value = || words.next().ok_or(format!("{flag} wants a value"));
            match flag.as_str() {
                "--peers" => arguments.peer = value()?,
                "--text" => arguments.text = value()?.into(),
                "--bootstrap" => arguments.bootstrap = value()?,
                "--topic" => arguments.topic = value()?,
                "--size" => arguments.size = number(&value()?)?,
                "--records" => arguments.records = number(&value()?)?,
                "--warm-up" => arguments.warm_up = number(&value()?)?,
                "--codec" => arguments.codec = Codec::parse(&value()?)?,
                "--callers" => arguments.callers = number(&value()?)?,
                "--partitions" => arguments.partitions = partitions(&value()?)?,
                "--keyed" => arguments.keyed = true,
                "--defaults" => arguments.tuning = Tuning::OwnDefaults,
                "--count-allocations" => arguments.count_allocations = true,
                _ => return Err(format!("unknown argument {flag} of a client")),
            }
        }
        Ok(arguments)
    }

    pub fn peer(&self) -> Result<&'static Peer, String> {
        peers::find(&self.peer).ok_or(format!("no peer {}", self.peer))
    }

    pub fn job(&self) -> Result<Job, String> {
        let text = std::fs::read(&self.text)
            .map_err(|error| format!("{}: {error}", self.text.display()))?;
        Ok(Job {
            text: text.leak(),
            bootstrap: self.bootstrap.clone(),
            topic: self.topic.clone().leak(),
            size: self.size,
            records: self.records,
            warm_up: self.warm_up,
            codec: self.codec,
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

fn partitions(word: &str) -> Result<i32, String> {
    i32::try_from(number(word)?.max(1)).map_err(|_| format!("{word} is too many partitions"))
}

fn peer(name: &str) -> Result<String, String> {
    let names: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
    match peers::find(name) {
        Some(peer) => Ok(peer.name.to_owned()),
        None => Err(format!("no peer {name}: {}", names.join(", "))),
    }
}
