//! What the choice is held to: ratios that the study's best algorithm reached in the same model, with
//! a margin, and the promises made beyond it.

use ottla_benches::steering::{Figures, Rule, Scenario, Setup};

/// The rules that a bound's "best" is among.
const OTHERS: [Rule; 4] = [Rule::Uniform, Rule::Threshold, Rule::TwoChoices, Rule::Vq3];

/// What a figure is measured against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Against {
    /// The p99 of this rule.
    Rule(Rule),
    /// The least p99 of all other rules.
    Best,
    /// Nothing: the mean wait itself, in seconds.
    Mean,
}

impl Against {
    fn name(self) -> &'static str {
        match self {
            Self::Rule(rule) => rule.name(),
            Self::Best => "the best other",
            Self::Mean => "mean, in seconds",
        }
    }

    /// The rules that must run to tell.
    pub(crate) fn rules(self) -> Vec<Rule> {
        let mut rules = vec![Rule::LagAware];
        match self {
            Self::Rule(rule) => rules.push(rule),
            Self::Best => rules.extend(OTHERS),
            Self::Mean => {}
        }
        rules
    }
}

/// In this setting, not more than this.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bound {
    pub(crate) setup: Setup,
    pub(crate) against: Against,
    pub(crate) most: f64,
}

/// A bound and what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Checked {
    pub(crate) bound: Bound,
    pub(crate) measured: f64,
}

impl Checked {
    pub(crate) fn holds(&self) -> bool {
        self.measured <= self.bound.most
    }

    /// One line for a person.
    pub(crate) fn line(&self) -> String {
        let Bound {
            setup,
            against,
            most,
        } = &self.bound;
        format!(
            "{:7} {:<62} {:>8.4} (at most {most}) of {}",
            if self.holds() { "holds" } else { "MISSED" },
            crate::table::name_of(setup),
            self.measured,
            against.name(),
        )
    }
}

impl Bound {
    /// Measures; `None` if one of the rules did not run.
    pub(crate) fn check(&self, of: impl Fn(&Setup, Rule) -> Option<Figures>) -> Option<Checked> {
        let steered = of(&self.setup, Rule::LagAware)?;
        let p99 = |rule| of(&self.setup, rule).map(|figures| figures.p99);
        let measured = match self.against {
            Against::Rule(rule) => steered.p99 / p99(rule)?,
            Against::Best => {
                let others = OTHERS.into_iter().filter_map(p99);
                steered.p99 / others.reduce(f64::min)?
            }
            Against::Mean => steered.mean,
        };
        Some(Checked {
            bound: *self,
            measured,
        })
    }
}

/// The commit intervals of the study's table.
pub(crate) const COMMITS: [f64; 3] = [0.1, 5.0, 30.0];

/// A scenario and for each commit interval the most against uniform, the threshold and the best.
type Row = (Scenario, [[f64; 3]; 3]);

const TABLE: [Row; 7] = [
    (
        Scenario::Healthy,
        [[0.65, 0.65, 1.3], [0.65, 0.65, 0.65], [0.65, 0.02, 0.65]],
    ),
    (
        Scenario::Slow,
        [[0.002, 0.0125, 0.8], [0.015, 0.11, 0.9], [0.18, 0.23, 3.4]],
    ),
    (
        Scenario::Stall,
        [[0.005, 0.4, 1.25], [0.005, 0.6, 0.6], [0.01, 0.01, 0.05]],
    ),
    (
        Scenario::Random,
        [[0.06, 0.12, 1.25], [0.33, 0.8, 1.2], [0.9, 1.1, 1.2]],
    ),
    (
        Scenario::Mixed,
        [[0.005, 0.035, 1.4], [0.025, 0.35, 1.2], [0.3, 0.57, 1.4]],
    ),
    (
        Scenario::Greedy,
        [[0.9, 0.9, 1.1], [0.9, 0.9, 0.9], [0.9, 0.02, 0.9]],
    ),
    (
        Scenario::GreedyOutage,
        [[1.3, 1.3, 1.35], [1.3, 1.3, 1.3], [1.5, 1.3, 1.5]],
    ),
];

/// The table of the study's section 11: producers that look every second.
pub(crate) fn of_table() -> Vec<Bound> {
    let mut bounds = Vec::new();
    for (scenario, row) in TABLE {
        for (commit, [uniform, threshold, best]) in COMMITS.into_iter().zip(row) {
            let setup = Setup::new(scenario, commit);
            let mut add = |against, most| {
                bounds.push(Bound {
                    setup,
                    against,
                    most,
                });
            };
            add(Against::Rule(Rule::Uniform), uniform);
            add(Against::Rule(Rule::Threshold), threshold);
            add(Against::Best, best);
        }
    }
    bounds
}

/// A healthy group must not pay for steering, whoever steers and however rarely it commits.
pub(crate) fn of_healthy_groups() -> Vec<Bound> {
    let mut bounds = Vec::new();
    for (producers, synchronised) in [(1, false), (4, false), (20, false), (20, true)] {
        for commit in [0.1, 5.0, 10.0, 30.0, 60.0] {
            for refresh in [1.0, 5.0] {
                let most = match (refresh, commit) {
                    (1.0, _) => 1.15,
                    (_, 5.0) => 1.65,
                    _ => 1.05,
                };
                bounds.push(Bound {
                    setup: Setup {
                        producers,
                        synchronised,
                        refresh,
                        ..Setup::new(Scenario::Healthy, commit)
                    },
                    against: Against::Rule(Rule::Uniform),
                    most,
                });
            }
        }
    }
    bounds.push(Bound {
        setup: Setup {
            producers: 20,
            synchronised: true,
            refresh: 5.0,
            ..Setup::new(Scenario::Healthy, 0.1)
        },
        against: Against::Mean,
        most: 0.1,
    });
    bounds
}

/// Producers that look every five seconds only.
pub(crate) fn of_rare_looks() -> Vec<Bound> {
    let rare = |scenario, commit| Setup {
        refresh: 5.0,
        ..Setup::new(scenario, commit)
    };
    let often = [
        (Scenario::Slow, 0.15),
        (Scenario::Mixed, 0.4),
        (Scenario::Stall, 1.3),
        (Scenario::Random, 1.6),
    ];
    let mut bounds: Vec<Bound> = often
        .into_iter()
        .map(|(scenario, most)| Bound {
            setup: rare(scenario, 0.1),
            against: Against::Best,
            most,
        })
        .collect();
    for commit in [5.0, 30.0] {
        for (scenario, _) in TABLE.into_iter().skip(1) {
            bounds.push(Bound {
                setup: rare(scenario, commit),
                against: Against::Rule(Rule::Uniform),
                most: 1.0,
            });
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_missed_by_more_and_unknown_without_its_rules() {
        let bound = Bound {
            setup: Setup::new(Scenario::Slow, 5.0),
            against: Against::Best,
            most: 0.5,
        };
        let p99 = |steered: f64| {
            let of = move |_: &Setup, rule| {
                let p99 = match rule {
                    Rule::LagAware => steered,
                    Rule::Vq3 => 2.0,
                    _ => 10.0,
                };
                Some(Figures {
                    p99,
                    ..Figures::default()
                })
            };
            bound.check(of).unwrap()
        };
        assert!(p99(1.0).holds() && !p99(1.01).holds());
        assert_eq!(bound.check(|_, _| None), None);
    }

    #[test]
    fn the_table_holds_what_was_promised_of_a_slow_consumer() {
        let slow = Setup::new(Scenario::Slow, 0.1);
        let most = |rule| {
            let bounds = of_table();
            let is = |bound: &&Bound| bound.setup == slow && bound.against == Against::Rule(rule);
            bounds.iter().find(is).unwrap().most
        };
        assert_eq!(most(Rule::Threshold), 1.0 / 80.0);
        assert_eq!(most(Rule::Uniform), 1.0 / 500.0);
    }
}
