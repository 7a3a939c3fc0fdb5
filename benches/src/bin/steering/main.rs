//! The steering benchmark: this project's choice of partitions against others, in a model of
//! producers and consumers, held to its bounds.
//!
//! `cargo run --release -p ottla-benches --bin steering -- --quick` takes about a minute, `--full`
//! plays everything. Both end with 1 when a bound is missed; the same seeds give the same figures.

mod bounds;
mod plot;
mod runs;
mod table;

use ottla_benches::steering::Scenario;
use runs::{Extent, Results, Section};
use std::process::ExitCode;

/// The first seed of a report. Constants were tuned with the seeds from 1 on and from 7,001 to 9,206,
/// the slow-downs of the random scenario were set with those from 30,001 on, tests use some below
/// 1,000; these were used for nothing else.
const FIRST_SEED: u64 = 50_001;

const USAGE: &str = "steering [--quick | --full | --scenario NAME] [--seed FIRST] [--seeds COUNT] [--plot FILE.svg]";

struct Arguments {
    extent: Extent,
    first_seed: u64,
    seeds: Option<u64>,
    plot: Option<String>,
    change: Change,
}

/// How the settings of one scenario differ from the usual ones.
#[derive(Default)]
struct Change {
    refresh: Option<f64>,
    producers: Option<usize>,
    together: bool,
}

impl Change {
    fn apply(&self, sections: &mut [Section]) {
        for section in sections {
            for setup in &mut section.setups {
                setup.refresh = self.refresh.unwrap_or(setup.refresh);
                setup.producers = self.producers.unwrap_or(setup.producers);
                setup.synchronised = self.together;
            }
        }
    }
}

fn number<T: std::str::FromStr>(word: &str, value: &str) -> Result<T, String> {
    let fault = |_| format!("{word} wants a number, not {value}");
    value.parse().map_err(fault)
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        extent: Extent::Quick,
        first_seed: FIRST_SEED,
        seeds: None,
        plot: None,
        change: Change::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--quick" => arguments.extent = Extent::Quick,
            "--full" => arguments.extent = Extent::Full,
            "--scenario" => {
                let name = value()?;
                let scenario = Scenario::ALL.into_iter().find(|s| s.name() == name);
                let names = Scenario::ALL.map(Scenario::name).join(", ");
                let unknown = format!("no scenario {name}; there are {names}");
                arguments.extent = Extent::Of(scenario.ok_or(unknown)?);
            }
            "--seed" => {
                arguments.first_seed = number(&word, &value()?)?;
            }
            "--seeds" => arguments.seeds = Some(number(&word, &value()?)?),
            "--refresh" => arguments.change.refresh = Some(number(&word, &value()?)?),
            "--producers" => arguments.change.producers = Some(number(&word, &value()?)?),
            "--together" => arguments.change.together = true,
            "--plot" => arguments.plot = Some(value()?),
            _ => return Err(format!("{word} is not understood")),
        }
    }
    Ok(arguments)
}

/// Prints every bound; gives how many are missed.
fn print_bounds(sections: &[Section], results: &Results) -> usize {
    println!("\n## Bounds: p99 as a ratio\n");
    let bounds = sections.iter().flat_map(|section| &section.bounds);
    let checked: Vec<_> = bounds
        .filter_map(|bound| bound.check(|setup, rule| results.figures(setup, rule)))
        .collect();
    for checked in &checked {
        println!("{}", checked.line());
    }
    let missed = checked.iter().filter(|checked| !checked.holds()).count();
    println!(
        "\n{} bounds hold, {missed} are missed",
        checked.len() - missed
    );
    missed
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(fault) => {
            eprintln!("{fault}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let seeds = arguments.seeds.unwrap_or(match arguments.extent {
        Extent::Quick => 3,
        _ => 6,
    });
    let mut sections = runs::sections(arguments.extent);
    if matches!(arguments.extent, Extent::Of(_)) {
        arguments.change.apply(&mut sections);
    }
    let results = runs::play_all(&sections, arguments.first_seed, seeds);
    for section in &sections {
        table::print(section, &results);
    }
    if let Some(section) = sections.first() {
        table::print_lag(section, &results);
    }
    let missed = print_bounds(&sections, &results);
    if let Some(path) = arguments.plot
        && let Err(error) = std::fs::write(&path, plot::svg(&results))
    {
        eprintln!("{path}: {error}");
        return ExitCode::FAILURE;
    }
    match arguments.extent {
        Extent::Quick | Extent::Full if missed > 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
