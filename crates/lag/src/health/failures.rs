//! The study's failure table, a test a row, named as the row.

use super::tests::{Group, REFRESH, drain};
use super::*;
use ottla_partitioner::{LagAware, NoQueues, Partitioner, Run, Steering, TopicView, plan_channel};

/// How many of 12,000 runs go to each of so many partitions, when these have a leader.
fn placed(steer: &LagAware, count: i32, available: &[i32], now: Instant) -> Vec<u32> {
    placed_by(steer, count, available, now, |_| 1)
}

/// What those runs have of records.
fn placed_records(steer: &LagAware, count: i32, available: &[i32], now: Instant) -> Vec<u32> {
    placed_by(steer, count, available, now, |run| run.records)
}

fn placed_by(
    steer: &LagAware,
    count: i32,
    available: &[i32],
    now: Instant,
    counted: impl Fn(&Run) -> u32,
) -> Vec<u32> {
    let view = TopicView {
        topic: "orders",
        partition_count: count,
        available,
        queued: &NoQueues,
        batch_bytes: 1_000_000,
        stripe: 0,
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut placed = vec![0; usize::try_from(count).unwrap()];
    for _ in 0..12_000 {
        let run = steer.begin_run(&view, now, rng.u64(..), None);
        // Not one of them is sent: the choice is as by the plan alone.
        steer.end_run(&view, run, 0);
        placed[usize::try_from(run.partition).unwrap()] += counted(&run);
    }
    placed
}

/// A partitioner by the health of a group of 12, of which partition 3 is read at a fifth, and when it
/// was looked at.
fn beside_a_slow_partition() -> (LagAware, Instant) {
    let mut group = Group::of(12);
    let mut read = [100; 12];
    read[3] = 20;
    for _ in 0..40 {
        group.second(80, &read);
    }
    let health = group.second(80, &read);
    let at = group.start + 41 * REFRESH;
    let (mut publisher, reader) = plan_channel();
    publisher.publish(vec![health.into_plan("orders".into(), at, REFRESH)]);
    (LagAware::new(reader).run_drain(Duration::ZERO), at)
}

const ALL: [i32; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

#[test]
fn committed_unknown_for_one_partition() {
    let mut group = Group::of(5);
    group.committed[4] = None;
    // Nothing is written to it for now.
    for _ in 0..20 {
        let end = group.ends[4];
        group.second(80, &[100; 5]);
        group.ends[4] = end;
    }
    let health = group.look();
    assert_eq!(drain(&health).partitions[4].backlog, 0.0);
    assert!(health.partitions[4].weight > 0.1);
    assert_eq!(health.partitions[4].lag, None);
    for _ in 0..20 {
        group.second(80, &[100; 5]);
    }
    let health = group.second(80, &[100; 5]);
    assert!(drain(&health).partitions[4].backlog > 1_000.0);
    assert_eq!(health.partitions[4].weight, 0.0);
}

/// A second in which all consumers keep up, and one partition's leader says nothing.
fn look_without(group: &mut Group, partition: usize) -> Health {
    for (end, committed) in group.ends.iter_mut().zip(&mut group.committed) {
        *end += 80;
        *committed = committed.map(|committed| committed + 80);
    }
    let mut seen = group.seen();
    seen[partition] = Observed::Missing;
    group.look_at(&seen)
}

/// A partition whose leader says nothing is drained on from its last figures, for a minute; then it
/// is taken as one that has no commit is.
#[test]
fn one_partition_not_heard_of() {
    let mut group = Group::of(5);
    for _ in 0..40 {
        group.second(80, &[100, 100, 100, 20, 100]);
    }
    let mut health = group.look();
    assert!(health.partitions[3].backlog.unwrap() > 2_000.0);
    for _ in 0..25 {
        health = look_without(&mut group, 3);
    }
    let silent = &health.partitions[3];
    assert!(
        silent.rate.unwrap() < 40.0 && silent.weight == 0.0,
        "{silent:?}"
    );
    for _ in 0..40 {
        health = look_without(&mut group, 3);
    }
    let silent = &health.partitions[3];
    assert_eq!((silent.rate, silent.status), (None, Status::Unknown));
    assert!(silent.reason.contains("middle of the others"), "{silent:?}");
    assert!((0.1..0.3).contains(&silent.weight), "{silent:?}");
}

#[test]
fn all_unknown() {
    let mut group = Group::of(3);
    group.committed = vec![None; 3];
    for _ in 0..30 {
        let health = group.second(80, &[0; 3]);
        assert_eq!(health.choice, Err(Fallback::NoCommits));
        assert_eq!(health.partitions[0].status, Status::NoCommit);
        assert_eq!(health.partitions[0].lag, None);
    }
}

#[test]
fn all_lagging() {
    let mut group = Group::of(4);
    for _ in 0..60 {
        group.second(150, &[100, 100, 100, 50]);
    }
    let health = group.second(150, &[100, 100, 100, 50]);
    let weights: Vec<f64> = health.partitions.iter().map(|p| p.weight).collect();
    assert!(
        weights[..3].iter().all(|w| (0.25..0.45).contains(w)),
        "{weights:?}"
    );
}

#[test]
fn committed_goes_back() {
    let mut group = Group::of(5);
    for _ in 0..20 {
        group.second(80, &[100; 5]);
    }
    group.committed[2] = Some(0);
    let health = group.look();
    assert_eq!(health.partitions[2].status, Status::Rewound);
    assert!(health.partitions[2].rate.unwrap() > 50.0);
    assert!(health.partitions[2].backlog.unwrap() > 1_000.0);
    assert_eq!(health.partitions[2].weight, 0.0);
}

#[test]
fn new_partition() {
    let mut group = Group::of(4);
    for _ in 0..20 {
        group.second(80, &[100; 4]);
    }
    group.ends.push(0);
    group.committed.push(Some(0));
    let health = group.look();
    assert_eq!(health.partitions.len(), 5);
    let new = drain(&health).partitions[4];
    assert_eq!(new.backlog, 0.0);
    assert!((70.0..=110.0).contains(&new.rate), "{new:?}");
}

#[test]
fn transaction_markers() {
    let mut group = Group::of(4);
    for _ in 0..40 {
        // A transaction's marker takes an offset that no consumer commits past until the next
        // record comes.
        for at in 0..4 {
            group.ends[at] += 80;
            group.committed[at] = Some(group.ends[at] - 1);
        }
        group.look();
    }
    for _ in 0..40 {
        let health = group.look();
        for partition in &health.partitions {
            assert_eq!(partition.backlog, Some(0.0), "{partition:?}");
        }
    }
}

#[test]
fn transaction_markers_after_a_reset() {
    let mut group = Group::of(4);
    for _ in 0..20 {
        group.second(80, &[100; 4]);
    }
    // Set back by one, to a marker: the time between commits is not known any more.
    group.committed[0] = Some(group.ends[0] - 1);
    for _ in 0..5 {
        let health = group.look();
        assert_eq!(health.partitions[0].lag, Some(1));
        assert_eq!(health.partitions[0].backlog, Some(0.0));
    }
}

#[test]
fn group_missing_or_refused() {
    let health = Health {
        partitions: Vec::new(),
        choice: Err(Fallback::Denied),
    };
    let now = Instant::now();
    let (mut publisher, reader) = plan_channel();
    publisher.publish(vec![health.into_plan("orders".into(), now, REFRESH)]);
    let steer = LagAware::new(reader);
    let counts = placed(&steer, 12, &ALL, now);
    assert!(counts.iter().all(|n| n.abs_diff(1_000) < 200), "{counts:?}");
    let counters = steer.counters();
    assert!(counters.fallbacks.contains(&(Fallback::Denied, 12_000)));
}

#[test]
fn snapshot_old() {
    let (steer, at) = beside_a_slow_partition();
    let fresh = placed(&steer, 12, &ALL, at);
    assert_eq!(fresh[3], 0, "its backlog is minutes long");
    // The backlog is not believed any more, the rates are: of three candidates the slow one loses.
    let stale = placed(&steer, 12, &ALL, at + 4 * REFRESH);
    assert!(stale[3] < 20, "{stale:?}");
    assert_eq!(steer.counters().stale_runs, 12_000);
    let too_old = placed(&steer, 12, &ALL, at + 61 * REFRESH);
    assert!(too_old[3] > 800, "{too_old:?}");
}

#[test]
fn new_partition_gets_at_most_twice_its_fair_share() {
    let (steer, at) = beside_a_slow_partition();
    let all: Vec<i32> = (0..13).collect();
    let counts = placed(&steer, 13, &all, at);
    assert!(
        counts[12] > 100 && counts[12] < 2 * 12_000 / 13,
        "{counts:?}"
    );
}

#[test]
fn consumer_rebalance() {
    let mut group = Group::of(4);
    for _ in 0..20 {
        group.second(80, &[100, 100, 100, 100]);
    }
    // Nobody reads for ten seconds: all are behind alike, so all share alike.
    for _ in 0..10 {
        group.second(80, &[0; 4]);
    }
    let health = group.second(80, &[0; 4]);
    for partition in &health.partitions {
        assert!((partition.weight - 0.25).abs() < 0.05, "{partition:?}");
    }
}

/// Nobody is known to be better off than another, however long they all stand still; what was learnt
/// of the consumers holds when they come back.
#[test]
fn group_without_members() {
    let mut group = Group::of(4);
    for _ in 0..30 {
        group.second(80, &[100, 100, 100, 100]);
    }
    for _ in 0..600 {
        let health = group.second(80, &[0; 4]);
        for partition in &health.partitions {
            assert!((partition.weight - 0.25).abs() < 0.05, "{partition:?}");
        }
    }
    let alone = group.look();
    let stalled = |one: &PartitionHealth| one.status == Status::Stalled && one.rate > Some(50.0);
    assert!(alone.partitions.iter().all(stalled), "{alone:?}");
    // One of them comes back: it alone is read, and gets more than the others as soon as that shows.
    for _ in 0..60 {
        group.second(80, &[5_000, 0, 0, 0]);
    }
    let health = group.second(80, &[5_000, 0, 0, 0]);
    assert!(health.partitions[0].weight > 0.9, "{health:?}");
}

/// Not a row of the table: what a person is told must be what happens, however few are well.
#[test]
fn told_shares_are_those_that_the_choice_makes() {
    for well in [1, 2, 6, 9, 11, 12] {
        let mut group = Group::of(12);
        for _ in 0..30 {
            group.second(80, &[100; 12]);
        }
        let read: Vec<i64> = (0..12).map(|at| if at < well { 100 } else { 0 }).collect();
        for _ in 0..30 {
            group.second(80, &read);
        }
        let health = group.second(80, &read);
        let at = group.start + 61 * REFRESH;
        let (mut publisher, reader) = plan_channel();
        publisher.publish(vec![health.into_plan("orders".into(), at, REFRESH)]);
        let told = reader.explain("orders").unwrap().partitions;
        let steer = LagAware::new(reader).run_drain(Duration::ZERO);
        let placed = placed(&steer, 12, &ALL, at);
        for (told, placed) in told.iter().zip(placed) {
            let placed = f64::from(placed) / 12_000.0;
            assert!(
                (told.weight - placed).abs() < 0.015,
                "{well}: {placed} {told:?}"
            );
        }
    }
}

/// The same where all partitions are candidates, and one run in ten goes by chance. Runs have their
/// usual length here, which is shorter to a slow partition.
#[test]
fn told_shares_of_two_or_three_partitions_know_of_chance() {
    let cases: [&[i64]; 3] = [&[100, 0], &[100, 0, 0], &[100, 20, 20]];
    for read in cases {
        let mut group = Group::of(read.len());
        for _ in 0..30 {
            group.second(80, read);
        }
        let health = group.second(80, read);
        let at = group.start + 31 * REFRESH;
        let (mut publisher, reader) = plan_channel();
        publisher.publish(vec![health.into_plan("orders".into(), at, REFRESH)]);
        let told = reader.explain("orders").unwrap().partitions;
        let steer = LagAware::new(reader);
        let count = i32::try_from(read.len()).unwrap();
        let records = placed_records(&steer, count, &ALL[..read.len()], at);
        let all: u32 = records.iter().sum();
        for (told, records) in told.iter().zip(&records) {
            let placed = f64::from(*records) / f64::from(all);
            assert!(told.weight > 0.0 && *records > 0, "{read:?}: {told:?}");
            assert!(
                (told.weight - placed).abs() < 0.006,
                "{read:?}: {placed} {told:?}"
            );
        }
    }
}

#[test]
fn several_groups() {
    let (mut fast, mut slow) = (Group::of(4), Group::of(4));
    for _ in 0..30 {
        fast.second(80, &[100; 4]);
        slow.second(80, &[100, 20, 100, 100]);
    }
    let (fast, slow) = (
        fast.second(80, &[100; 4]),
        slow.second(80, &[100, 20, 100, 100]),
    );
    let both = Health::of_groups(vec![fast, slow.clone()]);
    assert_eq!(both.partitions[1].backlog, slow.partitions[1].backlog);
    assert_eq!(both.partitions[1].weight, 0.0, "the slower group counts");
    let shares: f64 = drain(&both).partitions.iter().map(|p| p.share).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    let refused = Health {
        choice: Err(Fallback::Denied),
        ..both.clone()
    };
    let choice = Health::of_groups(vec![both.clone(), refused]).choice;
    assert_eq!(
        choice,
        Err(Fallback::Denied),
        "one that is not known may be the slowest"
    );
    assert_eq!(both.partitions[0].status, Status::CaughtUp);
}

#[test]
fn only_few_partitions_eligible() {
    let (steer, at) = beside_a_slow_partition();
    let two = placed(&steer, 12, &[3, 7], at);
    // Half of one in ten goes there by chance, or the other would get everything.
    assert!((500..700).contains(&two[3]), "{two:?}");
    assert_eq!(two[3] + two[7], 12_000);
    let one = placed(&steer, 12, &[3], at);
    assert_eq!(one[3], 12_000, "no other has a leader");
    let none = placed(&steer, 12, &[], at);
    assert!(none.iter().all(|count| *count > 0), "{none:?}");
}

#[test]
fn kill_switch() {
    let (steer, at) = beside_a_slow_partition();
    for mode in [Steering::Off, Steering::Watch] {
        steer.set_steering(mode);
        let counts = placed(&steer, 12, &ALL, at);
        assert!(counts[3] > 800, "{mode:?}: {counts:?}");
    }
    let runs = &steer.counters().topics[0].runs;
    assert_eq!(
        runs.iter().sum::<u64>(),
        12_000,
        "what is watched is counted"
    );
    steer.set_steering(Steering::On);
    assert_eq!(placed(&steer, 12, &ALL, at)[3], 0);
}

#[test]
fn a_scorer_that_nobody_can_ask_is_not_replaced_by_drain_time() {
    let scored = |look: fn(&mut Group) -> Vec<Observed>| {
        let mut group = Group::of(3);
        group.observer = Observer::new(REFRESH).with_scorer(Arc::new(Threshold::default()));
        for _ in 0..10 {
            let health = group.second(80, &[100, 100, 10]);
            assert!(matches!(health.choice, Ok(Placing::Weights(_))));
        }
        let seen = look(&mut group);
        group.look_at(&seen).choice
    };
    let missing = scored(|_| vec![Observed::Missing; 3]);
    assert_eq!(missing, Err(Fallback::NoRates));
    let uncommitted = scored(|group| {
        group.committed = vec![None; 3];
        group.seen()
    });
    assert_eq!(uncommitted, Err(Fallback::NoCommits));
}

/// Offsets do not tell what compaction took away: it counts as unread, and as read when a consumer
/// passes over it. Both alike, so the time to read what is left is as it is.
#[test]
fn compaction() {
    let mut group = Group::of(4);
    for _ in 0..20 {
        group.second(80, &[100; 4]);
    }
    // Two are as far behind. Of ten records in partition 0 one is left, so its consumer, which is as
    // fast as the others, reads 1,000 offsets a second.
    group.ends[0] += 50_000;
    group.ends[1] += 50_000;
    let seconds = |health: &Health, at: usize| {
        let left = health.partitions[at].drain_time.unwrap();
        left.as_secs_f64()
    };
    for second in 1..40 {
        let health = group.second(80, &[1_000, 100, 100, 100]);
        if second >= 10 {
            let (compacted, whole) = (seconds(&health, 0), seconds(&health, 1));
            let left = 50_000.0 / 920.0 - f64::from(second);
            assert!(
                (compacted - left).abs() < 5.0,
                "{second}: {compacted} {left}"
            );
            assert!((450.0..550.0).contains(&whole), "{second}: {whole}");
        }
    }
    for _ in 0..30 {
        group.second(80, &[1_000, 100, 100, 100]);
    }
    // It is up with the end, where nothing is compacted yet. A rate that is too high by then earns it
    // no more than what the other two have.
    for _ in 0..60 {
        let health = group.second(80, &[100; 4]);
        let [first, _, third, _] = &health.partitions[..] else {
            panic!("{health:?}");
        };
        assert!((first.weight - third.weight).abs() < 0.1, "{health:?}");
    }
}

/// Consumers that work on many keys at once commit up to the oldest record at work, so that a commit
/// comes late, jumps far and does not reach what is read.
#[test]
fn commits_held_back() {
    let mut group = Group::of(6);
    let mut second_of = |second: usize, still: Option<usize>| {
        for end in &mut group.ends {
            *end += 80;
        }
        let jumps = |at: &usize| second % 20 == at * 3 && still != Some(*at);
        for at in (0..6).filter(jumps) {
            group.committed[at] = Some(group.ends[at] - 160);
        }
        group.look().partitions
    };
    for second in 0..200 {
        let partitions = second_of(second, None);
        for partition in partitions.iter().filter(|_| second >= 40) {
            assert!(
                (partition.weight - 1.0 / 6.0).abs() < 0.02,
                "{second}: {partition:?}"
            );
            assert!(partition.backlog < Some(100.0), "{second}: {partition:?}");
        }
    }
    // One of them stands still: that shows a while after a commit was due, and harms no other.
    for second in 200..300 {
        let partitions = second_of(second, Some(2));
        if second >= 240 {
            assert_eq!(partitions[2].status, Status::Stalled, "{second}");
            assert_eq!(partitions[2].weight, 0.0, "{second}");
            assert!((partitions[5].weight - 0.2).abs() < 0.02, "{partitions:?}");
        }
    }
}
