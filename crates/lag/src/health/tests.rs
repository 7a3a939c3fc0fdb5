//! What the observer makes of what it sees.

use super::*;
use proptest::prelude::*;

pub(super) const REFRESH: Duration = Duration::from_secs(1);

/// A group whose partitions are fed by hand, a second at a time.
pub(super) struct Group {
    pub(super) observer: Observer,
    pub(super) start: Instant,
    seconds: u32,
    pub(super) ends: Vec<i64>,
    pub(super) committed: Vec<Option<i64>>,
}

impl Group {
    pub(super) fn of(partitions: usize) -> Self {
        Self {
            observer: Observer::new(REFRESH),
            start: Instant::now(),
            seconds: 0,
            ends: vec![1_000; partitions],
            committed: vec![Some(1_000); partitions],
        }
    }

    /// A second passes: each partition receives `arrived` and commits up to `read` of what waits.
    pub(super) fn second(&mut self, arrived: i64, read: &[i64]) -> Health {
        for ((end, committed), read) in self.ends.iter_mut().zip(&mut self.committed).zip(read) {
            *end += arrived;
            *committed = committed.map(|c| (c + read).min(*end));
        }
        self.look()
    }

    pub(super) fn seen(&self) -> Vec<Observed> {
        let partitions = self.ends.iter().zip(&self.committed);
        let seen = partitions.map(|(end, committed)| match *committed {
            None => Observed::NoCommit { end: *end },
            Some(committed) if committed > *end => Observed::BeyondEnd { end: *end },
            Some(committed) => Observed::Lag {
                end: *end,
                committed,
                lag: (end - committed) as u64,
                lost: 0,
            },
        });
        seen.collect()
    }

    pub(super) fn look(&mut self) -> Health {
        let seen = self.seen();
        self.look_at(&seen)
    }

    pub(super) fn look_at(&mut self, seen: &[Observed]) -> Health {
        self.seconds += 1;
        let at = self.start + self.seconds * REFRESH;
        self.observer.observe(at, seen, 0)
    }
}

pub(super) fn drain(health: &Health) -> &Drain {
    match &health.choice {
        Ok(Placing::Drain(drain)) => drain,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slow_consumer_shows_its_rate_its_backlog_and_no_share() {
    let mut group = Group::of(6);
    let mut read = [100; 6];
    read[2] = 20;
    for _ in 0..40 {
        group.second(80, &read);
    }
    let health = group.second(80, &read);
    let slow = &health.partitions[2];
    assert_eq!(slow.status, Status::Lagging);
    assert!((15.0..30.0).contains(&slow.rate.unwrap()), "{slow:?}");
    assert!(slow.backlog.unwrap() > 2_000.0, "{slow:?}");
    assert_eq!(slow.weight, 0.0);
    assert!(slow.drain_time.unwrap() > Duration::from_secs(60));
    let fast = &health.partitions[0];
    assert_eq!((fast.status, fast.backlog), (Status::CaughtUp, Some(0.0)));
    assert!((drain(&health).arrival_rate - 480.0).abs() < 1.0);
}

/// Consumers that keep up read what is written: first rates that were taken too low must not leave
/// the few that were not with more than their share.
#[test]
fn rates_taken_too_low_at_first_come_up_to_what_is_written() {
    let mut group = Group::of(6);
    for _ in 0..3 {
        group.second(80, &[80; 6]);
    }
    for (lane, rate) in group
        .observer
        .lanes
        .iter_mut()
        .zip([65.0; 4].iter().chain(&[85.0; 2]))
    {
        lane.rate = Some(*rate);
    }
    for _ in 0..20 {
        group.second(80, &[80; 6]);
    }
    let health = group.second(80, &[80; 6]);
    for partition in &health.partitions {
        let rate = partition.rate.unwrap();
        assert!((78.0..=86.0).contains(&rate), "{partition:?}");
    }
}

#[test]
fn rare_commits_alone_are_no_lag() {
    let mut group = Group::of(6);
    for second in 0..120usize {
        for end in &mut group.ends {
            *end += 80;
        }
        // Every 10 s, each partition at its own time, everything is committed.
        for at in (0..6).filter(|at| second % 10 == *at) {
            group.committed[at] = Some(group.ends[at] - 5);
        }
        let health = group.look();
        if second > 60 {
            for partition in &health.partitions {
                assert_eq!(
                    partition.status,
                    Status::CaughtUp,
                    "{second}: {partition:?}"
                );
            }
        }
    }
}

#[test]
fn a_consumer_that_stands_still_is_stalled_and_gets_nothing() {
    let mut group = Group::of(6);
    for _ in 0..20 {
        group.second(80, &[100; 6]);
    }
    let mut read = [100; 6];
    read[1] = 0;
    for _ in 0..10 {
        group.second(80, &read);
    }
    let health = group.second(80, &read);
    assert_eq!(health.partitions[1].status, Status::Stalled);
    assert_eq!(health.partitions[1].weight, 0.0);
    // It comes back and is forgiven.
    read[1] = 1_000;
    for _ in 0..10 {
        group.second(80, &read);
    }
    let health = group.second(80, &[100; 6]);
    assert_eq!(health.partitions[1].status, Status::CaughtUp);
    assert!(
        health.partitions[1].weight > 0.1,
        "{:?}",
        health.partitions[1]
    );
}

#[test]
fn before_any_rate_is_known_the_choice_is_uniform() {
    let mut group = Group::of(3);
    let health = group.second(80, &[50; 3]);
    assert_eq!(health.choice, Err(Fallback::NoRates));
    assert_eq!(health.partitions[0].lag, Some(30));
    assert_eq!(health.partitions[0].rate, None);
    assert_eq!(health.partitions[0].status, Status::Measuring);
}

#[test]
fn without_lag_a_partition_is_well_before_its_rate_is_known() {
    let mut group = Group::of(2);
    let health = group.second(0, &[0; 2]);
    assert_eq!(health.choice, Err(Fallback::NoRates));
    assert_eq!(health.partitions[0].status, Status::CaughtUp);
}

#[test]
fn with_rare_commits_the_first_one_already_tells_who_is_behind() {
    let mut group = Group::of(6);
    let mut health = group.look();
    for second in 1..=26usize {
        for end in &mut group.ends {
            *end += 80;
        }
        // A commit every 30 s, at its own time; the second partition is read at a quarter.
        for at in (0..6).filter(|at| second % 30 == 5 * at + 1) {
            let read = if at == 1 {
                second as i64 * 20
            } else {
                second as i64 * 80
            };
            group.committed[at] = Some(1_000 + read);
        }
        health = group.look();
    }
    let behind = &health.partitions[1];
    assert_eq!(behind.rate, None, "it committed only once");
    assert_eq!(
        (behind.status, behind.weight),
        (Status::Lagging, 0.0),
        "{behind:?}"
    );
    for at in [0, 2, 3, 4, 5] {
        assert!(
            health.partitions[at].weight > 0.15,
            "{:?}",
            health.partitions[at]
        );
    }
}

#[test]
fn frequent_commits_give_rates_at_the_second_look() {
    let mut group = Group::of(6);
    let health = group.second(80, &[80; 6]);
    assert_eq!(health.choice, Err(Fallback::NoRates));
    let health = group.second(80, &[78; 6]);
    let rates: Vec<f64> = drain(&health).partitions.iter().map(|p| p.rate).collect();
    // And a little more, as far as what is written is more.
    let near = |rate: &f64| (78.0..=80.0).contains(rate);
    assert!(rates.len() == 6 && rates.iter().all(near), "{rates:?}");
}

/// Nearly all committed between the first two looks, by the chance of when we looked: what moved is
/// no rate, for nobody knows when it began.
#[test]
fn commits_about_as_rare_as_looks_give_no_rates_at_the_second_look() {
    let mut group = Group::of(6);
    group.second(80, &[0; 6]);
    // Two committed just before the look, the others up to a second before it.
    let health = group.second(80, &[155, 158, 40, 60, 90, 110]);
    assert_eq!(
        group
            .observer
            .lanes
            .iter()
            .filter_map(|lane| lane.rate)
            .count(),
        0
    );
    for partition in &health.partitions {
        assert_eq!(partition.rate, None);
    }
}

#[test]
fn when_commits_are_missed_a_refresh_of_lag_is_explained() {
    let mut group = Group::of(6);
    for _ in 0..30 {
        group.second(100, &[100; 6]);
    }
    // The commits of one partition in six fail to show for two looks: they come late, no more.
    let mut read = [100; 6];
    read[0] = 0;
    group.second(90, &read);
    let health = group.second(90, &read);
    assert_eq!(health.partitions[0].lag, Some(180));
    assert_eq!(health.partitions[0].backlog, Some(0.0));
    // Three in a row are not explained.
    let health = group.second(90, &read);
    assert!(health.partitions[0].backlog.unwrap() > 0.0);
}

#[test]
fn a_commit_beyond_the_end_is_neutral() {
    let mut group = Group::of(5);
    group.committed[0] = Some(1_000_000);
    for _ in 0..30 {
        for at in 1..5 {
            group.ends[at] += 80;
            group.committed[at] = Some(group.ends[at]);
        }
        group.look();
    }
    let health = group.look();
    assert_eq!(health.partitions[0].status, Status::BeyondEnd);
    assert_eq!(health.partitions[0].lag, None);
    assert_eq!(drain(&health).partitions[0].backlog, 0.0);
}

#[test]
fn a_partition_that_cannot_be_asked_drains_on_from_its_last_figures() {
    let mut group = Group::of(5);
    let mut read = [100; 5];
    read[0] = 20;
    for _ in 0..40 {
        group.second(80, &read);
    }
    let known = group.second(80, &read).partitions[0].backlog.unwrap();
    let mut seen = group.seen();
    seen[0] = Observed::Missing;
    let health = group.look_at(&seen);
    let partition = &health.partitions[0];
    assert_eq!((partition.status, partition.lag), (Status::Unknown, None));
    let drained = known - partition.backlog.unwrap();
    assert!(
        (5.0..20.0).contains(&drained),
        "half of its rate for a second: {drained}"
    );
    assert_eq!(partition.weight, 0.0);
}

#[test]
fn partitions_that_vanish_are_forgotten() {
    let mut group = Group::of(4);
    for _ in 0..10 {
        group.second(80, &[100; 4]);
    }
    group.ends.truncate(2);
    group.committed.truncate(2);
    assert_eq!(group.look().partitions.len(), 2);
    let none = group.look_at(&[]);
    assert!(none.partitions.is_empty());
}

proptest! {
    /// Whatever the brokers tell: finite figures, shares that sum to one, never a panic.
    #[test]
    fn any_history_gives_a_sane_plan(
        history in proptest::collection::vec(
            proptest::collection::vec((0u8..6, any::<i64>(), any::<i64>(), 0u64..1_000_000), 4),
            1..12,
        ),
        millis in 0u64..5_000,
    ) {
        let mut observer = Observer::new(REFRESH);
        let start = Instant::now();
        let mut sent = 0u64;
        for (round, partitions) in history.iter().enumerate() {
            let seen: Vec<Observed> = partitions
                .iter()
                .map(|(kind, end, committed, lag)| match kind {
                    0 => Observed::Missing,
                    1 => Observed::NoCommit { end: *end },
                    2 => Observed::BeyondEnd { end: *end },
                    _ => Observed::Lag { end: *end, committed: *committed, lag: *lag, lost: lag % 3 },
                })
                .collect();
            sent = sent.wrapping_add(partitions[0].3);
            let at = start + Duration::from_millis(millis * round as u64);
            let health = observer.observe(at, &seen, sent);
            if let Ok(Placing::Drain(drain)) = &health.choice {
                let shares: f64 = drain.partitions.iter().map(|p| p.share).sum();
                prop_assert!((shares - 1.0).abs() < 1e-6, "{shares}");
                for partition in &drain.partitions {
                    prop_assert!(partition.rate > 0.0 && partition.rate.is_finite());
                    prop_assert!(partition.backlog >= 0.0 && partition.backlog.is_finite());
                }
                prop_assert!(drain.arrival_rate.is_finite() && drain.own_rate.is_finite());
            }
        }
    }
}
