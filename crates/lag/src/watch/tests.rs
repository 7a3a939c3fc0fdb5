//! What one watch makes of what rounds find.

use super::*;
use crate::joint::Steered;
use ottla_partitioner::{
    KeyChoice, KeyPolicy, LagAware, Method, NoQueues, Partitioner, PlanReader, TopicView,
    java_partition, plan_channel,
};

const SECOND: Duration = Duration::from_secs(1);

struct Fixture {
    watch: Watch,
    plan: PlanReader,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    growths: Growths,
    start: Instant,
}

fn fixture() -> Fixture {
    fixtures(1).remove(0)
}

/// So many groups that one plan goes by.
fn fixtures(groups: usize) -> Vec<Fixture> {
    let start = Instant::now();
    let (publisher, plan) = plan_channel();
    let shares = Joint::shares(publisher, SECOND, &Steered::default(), groups);
    let fixture = |share| {
        let group: Arc<str> = "billing".into();
        let wanted = Wanted::new(vec!["orders".into()], &[]).unwrap();
        let empty = Snapshot::new(Arc::clone(&group), start, &[], None);
        let (sender, snapshots) = watch::channel(Arc::new(empty));
        Fixture {
            watch: Watch::new(group, wanted, SECOND, share, sender),
            plan: plan.clone(),
            snapshots,
            growths: Growths::default(),
            start,
        }
    };
    shares.into_iter().map(fixture).collect()
}

fn found(standing: Standing, id: u8, offsets: &[(Committed, i64)]) -> Found {
    let partitions = offsets.iter().map(|(committed, end)| Offsets {
        committed: *committed,
        end: End::At {
            high_watermark: *end,
            log_start: Some(0),
            last_stable: None,
        },
    });
    Found {
        group: "billing".into(),
        standing,
        taken_at: Instant::now(),
        origin: Origin::Asked,
        topics: vec![TopicOffsets {
            topic: "orders".into(),
            id: Some(TopicId([id; 16])),
            refused: None,
            partitions: partitions.collect(),
        }],
    }
}

impl Fixture {
    fn take(&mut self, seconds: u32, found: &Found) {
        let taken_at = self.start + seconds * SECOND;
        let found = Found {
            taken_at,
            ..found.clone()
        };
        self.growths.note(std::slice::from_ref(&found));
        self.watch.take(taken_at, &found, &self.growths);
    }

    fn method(&self) -> Method {
        self.plan.explain("orders").unwrap().method
    }
}

#[test]
fn a_group_that_commits_is_steered_by_drain_time() {
    let fixture = learnt();
    let snapshot = Arc::clone(&fixture.snapshots.borrow());
    assert_eq!(snapshot.lag(), Some(30));
    let explained = fixture.plan.explain("orders").unwrap();
    assert_eq!(explained.partitions.len(), 3);
    assert!(explained.partitions[0].rate.is_some());
}

#[test]
fn a_topic_made_anew_is_learnt_anew() {
    let mut fixture = fixture();
    for second in 0..6u32 {
        let offset = i64::from(second) * 100;
        fixture.take(
            second,
            &found(Standing::Told, 1, &[(Committed::At(offset), offset)]),
        );
    }
    assert_eq!(fixture.method(), Method::Drain);
    fixture.take(6, &found(Standing::Told, 2, &[(Committed::At(0), 5)]));
    assert_eq!(fixture.method(), Method::Uniform(Fallback::NoRates));
}

#[test]
fn a_group_that_refuses_us_is_placed_uniformly_and_asked_less_and_less() {
    let mut fixture = fixture();
    let offsets = [(
        Committed::Unknown(Some(Code::GROUP_AUTHORIZATION_FAILED)),
        10,
    )];
    let denied = found(Standing::Denied, 1, &offsets);
    fixture.take(0, &denied);
    assert_eq!(fixture.method(), Method::Uniform(Fallback::Denied));
    let start = fixture.start;
    assert!(fixture.watch.question(start + SECOND).is_none());
    assert!(fixture.watch.question(start + 2 * SECOND).is_some());
    fixture.take(2, &denied);
    assert!(fixture.watch.question(start + 5 * SECOND).is_none());
    for round in 0..20 {
        fixture.take(100 * round, &denied);
    }
    assert!(
        fixture.watch.question(start + 1_961 * SECOND).is_some(),
        "a minute at most"
    );
    fixture.take(2_000, &found(Standing::Told, 1, &[(Committed::At(1), 10)]));
    assert!(fixture.watch.question(start + 2_000 * SECOND).is_some());
}

#[test]
fn a_coordinator_that_is_away_is_no_refusal() {
    let mut fixture = fixture();
    let offsets = [(Committed::Unknown(None), 10)];
    fixture.take(0, &found(Standing::Unknown(None), 1, &offsets));
    assert!(fixture.watch.question(fixture.start).is_some());
    assert_eq!(fixture.method(), Method::Uniform(Fallback::NoRates));
}

#[test]
fn a_topic_that_refuses_us_is_placed_uniformly() {
    let mut fixture = fixture();
    let denied = Committed::Unknown(Some(Code::TOPIC_AUTHORIZATION_FAILED));
    fixture.take(0, &found(Standing::Told, 1, &[(denied, 10)]));
    assert_eq!(fixture.method(), Method::Uniform(Fallback::Denied));
    let mut refused = found(Standing::Told, 1, &[]);
    refused.topics[0].refused = Some(Code::TOPIC_AUTHORIZATION_FAILED);
    fixture.take(1, &refused);
    assert_eq!(fixture.method(), Method::Uniform(Fallback::Denied));
}

#[test]
fn a_watch_is_wanted_while_a_producer_reads_its_plan() {
    let Fixture {
        watch,
        plan,
        snapshots,
        ..
    } = fixture();
    drop(snapshots);
    assert!(watch.is_wanted());
    drop(plan);
    assert!(!watch.is_wanted());
}

/// A group that keeps up with 100 records a second in each of three partitions, for six looks.
fn learnt() -> Fixture {
    let mut fixture = fixture();
    for second in 0..6u32 {
        fixture.take(second, &kept_up(second));
    }
    assert_eq!(fixture.method(), Method::Drain);
    fixture
}

/// What is found of it then.
fn kept_up(second: u32) -> Found {
    let offset = i64::from(second) * 100;
    found(
        Standing::Told,
        1,
        &[(Committed::At(offset), offset + 10); 3],
    )
}

#[test]
fn a_plan_that_nothing_was_heard_since_ages_and_ends_as_uniform() {
    let mut fixture = learnt();
    let fresh = fixture.plan.explain("orders").unwrap();
    let unknown = [(Committed::Unknown(None), 600); 3];
    let silence = found(Standing::Unknown(None), 1, &unknown);
    for second in 6..=65 {
        fixture.take(second, &silence);
    }
    let old = fixture.plan.explain("orders").unwrap();
    assert_eq!(old.taken_at, fixture.start + 5 * SECOND);
    assert_eq!(
        (old.method, old.partitions),
        (fresh.method, fresh.partitions)
    );
    fixture.take(66, &silence);
    let old = fixture.plan.explain("orders").unwrap();
    assert_eq!(old.method, Method::Uniform(Fallback::TooOld));
    assert_eq!(old.taken_at, fixture.start + 5 * SECOND);
    assert_eq!(
        (old.partitions[0].rate, old.partitions[0].lag),
        (None, None)
    );
    fixture.take(
        3_000,
        &found(Standing::Told, 1, &[(Committed::At(600), 610); 3]),
    );
    assert_eq!(fixture.method(), Method::Drain, "the rates are known still");
}

fn three_partitions() -> TopicView<'static> {
    TopicView {
        topic: "orders",
        partition_count: 3,
        available: &[0, 1, 2],
        queued: &NoQueues,
        batch_bytes: 1_000_000,
        stripe: 0,
    }
}

/// Sends a run at each of thirty looks; says whether three partitions that are alike took turns by
/// what was sent to them, and not by chance.
fn takes_turns(plan: PlanReader, at: Instant, mut look: impl FnMut(u32)) -> bool {
    let steer = LagAware::new(plan);
    let view = three_partitions();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut runs: Vec<i32> = (0..30)
        .map(|number| {
            let run = steer.begin_run(&view, at, rng.u64(..), None);
            steer.end_run(&view, run, run.records);
            look(number);
            run.partition
        })
        .collect();
    runs.chunks_mut(3).all(|turn| {
        turn.sort_unstable();
        turn == [0, 1, 2]
    })
}

#[test]
fn silence_does_not_forget_what_was_sent_since_the_last_plan() {
    let mut fixture = learnt();
    let silence = found(
        Standing::Unknown(None),
        1,
        &[(Committed::Unknown(None), 600); 3],
    );
    let (plan, at) = (fixture.plan.clone(), fixture.start + 5 * SECOND);
    assert!(takes_turns(plan, at, |number| fixture.take(6 + number, &silence)));
}

#[test]
fn silence_of_one_topic_does_not_forget_what_was_sent_to_it_when_another_is_heard() {
    let mut fixture = learnt();
    let silence = found(Standing::Told, 1, &[(Committed::Unknown(None), 600); 3]);
    let (plan, at) = (fixture.plan.clone(), fixture.start + 5 * SECOND);
    let look = |number: u32| {
        let mut found = silence.clone();
        let mut clicks = kept_up(number);
        clicks.topics[0].topic = "clicks".into();
        found.topics.insert(0, clicks.topics.remove(0));
        fixture.take(6 + number, &found);
    };
    assert!(takes_turns(plan, at, look));
}

#[test]
fn silence_of_one_group_does_not_forget_what_was_sent_when_another_is_heard() {
    let mut groups = fixtures(2);
    for second in 0..6 {
        for group in &mut groups {
            group.take(second, &kept_up(second));
        }
    }
    let silence = found(
        Standing::Unknown(None),
        1,
        &[(Committed::Unknown(None), 600); 3],
    );
    let (plan, at) = (groups[0].plan.clone(), groups[0].start + 5 * SECOND);
    let look = |number: u32| {
        groups[0].take(6 + number, &kept_up(6 + number));
        groups[1].take(6 + number, &silence);
    };
    assert!(takes_turns(plan.clone(), at, look));
    let explained = plan.explain("orders").unwrap();
    assert_eq!((explained.taken_at, explained.method), (at, Method::Drain));
}

#[test]
fn figures_that_are_too_old_send_no_key_away() {
    let mut fixture = fixture();
    for second in 0..10u32 {
        let end = i64::from(second) * 100;
        let well = (Committed::At(end), end);
        let slow = (Committed::At(end / 10), end);
        let offsets = [slow, well, well];
        fixture.take(second, &found(Standing::Told, 1, &offsets));
    }
    let steer = LagAware::new(fixture.plan.clone()).keys(KeyPolicy::STICKY);
    let mut keys = (0..).map(|number: u32| format!("key-{number}"));
    let mut leaves_home = || {
        let at_0 = |key: &String| java_partition(key.as_bytes(), 3) == 0;
        let key = keys.find(at_0).unwrap();
        let choice = steer.keyed(&three_partitions(), key.as_bytes());
        choice != KeyChoice::Partition(0)
    };
    assert!(leaves_home());
    let silence = found(
        Standing::Unknown(None),
        1,
        &[(Committed::Unknown(None), 900); 3],
    );
    for second in 10..70 {
        fixture.take(second, &silence);
        assert!(
            leaves_home(),
            "a short silence sends keys neither away nor back"
        );
    }
    fixture.take(70, &silence);
    assert!(!leaves_home());
}

/// As from Prometheus, whose figures are some seconds old when they come.
#[test]
fn figures_that_were_on_their_way_while_a_look_heard_nothing_count() {
    let mut fixture = learnt();
    let silence = found(Standing::Unknown(None), 1, &[]);
    fixture.take(12, &silence);
    let offsets = [(Committed::At(700), 720); 3];
    fixture.take(8, &found(Standing::Told, 1, &offsets));
    assert_eq!(fixture.snapshots.borrow().lag(), Some(60));
    // What is older than what was heard last is no news.
    fixture.take(
        7,
        &found(Standing::Told, 1, &[(Committed::At(600), 700); 3]),
    );
    assert_eq!(fixture.snapshots.borrow().lag(), Some(60));
}

#[test]
fn a_source_that_fails_takes_nothing_from_what_was_learnt() {
    let mut fixture = learnt();
    let asked = Asked {
        group: "billing".into(),
        topics: vec!["orders".into()],
    };
    let nothing = Found::nothing(&asked, Standing::Unknown(None), fixture.start);
    fixture.take(6, &nothing);
    assert_eq!(fixture.method(), Method::Drain);
    let lag = |fixture: &Fixture| {
        let snapshot = Arc::clone(&fixture.snapshots.borrow());
        let lag = snapshot.partition("orders", 2).unwrap();
        (lag.lag, lag.age(snapshot.taken_at))
    };
    assert_eq!(lag(&fixture), (Some(10), SECOND));
    fixture.take(2_005, &nothing);
    assert_eq!(lag(&fixture), (None, 2_000 * SECOND));
    assert_eq!(fixture.method(), Method::Uniform(Fallback::TooOld));
    fixture.take(
        2_006,
        &found(Standing::Told, 1, &[(Committed::At(600), 610); 3]),
    );
    assert_eq!(fixture.method(), Method::Drain);
    assert_eq!(lag(&fixture), (Some(10), Duration::ZERO));
    // What answers that there is no such topic is believed.
    fixture.take(
        2_007,
        &Found::nothing(&asked, Standing::Told, fixture.start),
    );
    assert!(fixture.snapshots.borrow().topics[0].partitions.is_empty());
}

#[test]
fn one_topic_that_is_silent_ages_beside_another_that_is_not() {
    let mut fixture = fixture();
    fixture.watch.asked.topics = vec!["audit".into(), "orders".into()];
    for second in 0..10u32 {
        let offset = i64::from(second) * 100;
        let both = [(Committed::At(offset), offset + 10); 3];
        let mut round = found(Standing::Told, 1, &both);
        let mut audit = round.topics[0].clone();
        audit.topic = "audit".into();
        if second > 6 {
            let silent = |offsets: &mut Offsets| offsets.end = End::Unknown(None);
            audit.partitions.iter_mut().for_each(silent);
        }
        round.topics.insert(0, audit);
        fixture.take(second, &round);
    }
    let taken_at = |topic| fixture.plan.explain(topic).unwrap().taken_at;
    assert_eq!(taken_at("audit"), fixture.start + 6 * SECOND);
    assert_eq!(taken_at("orders"), fixture.start + 9 * SECOND);
}

#[test]
fn a_refusal_that_silence_follows_is_as_old_as_it_is() {
    let mut fixture = learnt();
    let nothing = [(Committed::Unknown(None), 600); 3];
    fixture.take(20, &found(Standing::Denied, 1, &nothing));
    fixture.take(50, &found(Standing::Unknown(None), 1, &nothing));
    let explained = fixture.plan.explain("orders").unwrap();
    assert_eq!(explained.method, Method::Uniform(Fallback::Denied));
    assert_eq!(explained.taken_at, fixture.start + 20 * SECOND);
    fixture.take(70, &found(Standing::Unknown(None), 1, &nothing));
    assert_eq!(fixture.method(), Method::Uniform(Fallback::Denied));
}

#[test]
fn a_topic_is_let_go_when_three_listings_in_a_row_miss_it() {
    let mut fixture = fixture();
    fixture.watch.wanted = Wanted::new(Vec::new(), &[".*".to_owned()]).unwrap();
    let mut topics = |names: &[&str]| {
        let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
        fixture.watch.choose(Some(&names), None);
        fixture.watch.topics().to_vec()
    };
    assert_eq!(topics(&["audit", "orders"]).len(), 2);
    for _ in 0..10 {
        assert_eq!(topics(&["audit"]).len(), 2);
        assert_eq!(topics(&["audit"]).len(), 2);
        assert_eq!(topics(&["audit", "orders"]).len(), 2);
    }
    topics(&[]);
    topics(&["audit"]);
    assert_eq!(topics(&["audit"]), [Arc::<str>::from("audit")]);
}

#[test]
fn a_topic_that_may_not_be_seen_is_not_gone_when_no_listing_tells_of_it() {
    let mut fixture = fixture();
    let wanted = Wanted::new(Vec::new(), &[]).unwrap();
    fixture.watch.wanted = wanted.and_committed(true);
    fixture.watch.asked.topics.clear();
    let listed = |names: &[&str]| Some(names.iter().map(|name| Arc::from(*name)).collect());
    fixture.watch.choose(None, listed(&["gone", "orders"]));
    let mut refused = found(Standing::Told, 1, &[]);
    refused.topics[0].refused = Some(Code::TOPIC_AUTHORIZATION_FAILED);
    fixture.take(1, &refused);
    for _ in 0..2 * LISTINGS_MISSED_MAX {
        fixture.watch.choose(None, listed(&[]));
    }
    assert_eq!(*fixture.watch.topics(), [Arc::<str>::from("orders")]);
    let told = Arc::clone(&fixture.snapshots.borrow());
    let why = told.topic("orders").unwrap().refused;
    assert_eq!(why, Some(Code::TOPIC_AUTHORIZATION_FAILED));
}
