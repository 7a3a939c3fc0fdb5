//! The tables that are printed.

use crate::bounds::COMMITS;
use crate::runs::{Results, Section};
use ottla_benches::steering::{Scenario, Setup};

/// Seconds between two columns of lag over time.
const LAG_EVERY: usize = 20;

/// A setting in a few words: what is not as usual.
pub(crate) fn name_of(setup: &Setup) -> String {
    let usual = Setup::new(setup.scenario, setup.commit);
    let mut name = format!(
        "{}, commits {} s, looks {} s",
        setup.scenario.name(),
        setup.commit,
        setup.refresh
    );
    let mut add = |differs: bool, what: String| {
        if differs {
            name.push_str(", ");
            name.push_str(&what);
        }
    };
    add(
        setup.producers != usual.producers,
        format!("{} producers", setup.producers),
    );
    add(setup.synchronised, "together".to_owned());
    add(
        setup.load != usual.load,
        format!("load {:.0} %", setup.load * 100.0),
    );
    add(
        setup.partitions != usual.partitions,
        format!("{} partitions", setup.partitions),
    );
    add(setup.run != usual.run, format!("runs of {}", setup.run));
    add(setup.lost > 0.0, "half lost".to_owned());
    name
}

/// All figures of a section.
pub(crate) fn print(section: &Section, results: &Results) {
    println!("\n## {}\n", section.title);
    println!(
        "{:12} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9} {:>11}",
        "rule", "mean s", "p50 s", "p99 s", "p99.9 s", ">10 s %", "unread", "oscillation"
    );
    for setup in &section.setups {
        println!("{}", name_of(setup));
        for rule in &section.rules {
            if let Some(figures) = results.figures(setup, *rule) {
                println!(
                    "  {:10} {:9.3} {:9.3} {:9.3} {:9.3} {:8.3} {:9.0} {:11.1}",
                    rule.name(),
                    figures.mean,
                    figures.p50,
                    figures.p99,
                    figures.p999,
                    100.0 * figures.late,
                    figures.lag,
                    figures.oscillation,
                );
            }
        }
    }
}

/// Unread records over time, of the settings with a commit every five seconds.
pub(crate) fn print_lag(section: &Section, results: &Results) {
    println!("\n## Unread records over time\n");
    print!("{:12}", "seconds");
    for at in (0..=300).step_by(LAG_EVERY).skip(1) {
        print!("{at:>7}");
    }
    println!();
    let one = section.setups.len() <= COMMITS.len();
    let shown = |setup: &&Setup| {
        let tells = setup.commit == 5.0 && setup.scenario != Scenario::Healthy;
        one || tells
    };
    for setup in section.setups.iter().filter(shown) {
        println!("{}", name_of(setup));
        for rule in &section.rules {
            let Some(played) = results.of(setup, *rule) else {
                continue;
            };
            print!("  {:10}", rule.name());
            for lag in played.lag.iter().step_by(LAG_EVERY).skip(1) {
                print!("{lag:7.0}");
            }
            println!();
        }
    }
}
