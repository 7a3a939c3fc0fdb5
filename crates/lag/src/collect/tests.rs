//! The failure rules of a round, against a cluster in memory.

use super::ends::{Answers, take_ends};
use super::*;
use crate::fake::Fake;
use crate::snapshot::{Committed, End};
use ottla_proto::{BrokerId, Code, Error, ErrorKind};
use ottla_wire::api::list_offsets;

pub(super) fn billing() -> Vec<Asked> {
    vec![Asked {
        group: "billing".into(),
        topics: vec!["orders".into()],
    }]
}

pub(super) async fn round(source: &mut Collected<Fake>, asked: &[Asked]) -> Vec<Found> {
    let pace = Pace {
        began: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(10),
        refresh: Duration::from_secs(1),
    };
    source.look(asked, pace).await
}

async fn first_round(fake: &Fake) -> Found {
    round(&mut Collected::new(fake.clone()), &billing())
        .await
        .remove(0)
}

const KNOWN: Offsets = Offsets {
    committed: Committed::At(10),
    end: End::At {
        high_watermark: 15,
        log_start: Some(0),
        last_stable: Some(15),
    },
};

#[tokio::test(start_paused = true)]
async fn commits_are_asked_before_ends_and_each_broker_once() {
    let fake = Fake::with_topic("orders", 6);
    let found = first_round(&fake).await;
    assert_eq!(found.standing, Standing::Told);
    assert_eq!(found.topics[0].partitions, [KNOWN; 6]);
    let calls = fake.calls();
    assert_eq!(calls[0], "commits 1 1");
    let mut rest = calls[1..].to_vec();
    rest.sort();
    assert_eq!(
        rest,
        [
            "ends 0",
            "ends 1",
            "ends 2",
            "stables 0",
            "stables 1",
            "stables 2",
            "starts 0",
            "starts 1",
            "starts 2"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn many_groups_of_a_coordinator_share_a_request_and_all_share_the_ends() {
    let fake = Fake::with_topic("orders", 3);
    let mut asked = Vec::new();
    for number in 0..150 {
        let group = format!("group-{number}");
        fake.0
            .lock()
            .coordinators
            .insert(group.clone(), BrokerId(2));
        let group = group.into();
        let topics = vec!["orders".into()];
        asked.push(Asked { group, topics });
    }
    let found = round(&mut Collected::new(fake.clone()), &asked).await;
    assert_eq!(found.len(), 150);
    assert_eq!(
        found[149].topics[0].partitions[0].committed,
        Committed::Nothing
    );
    let calls = fake.calls();
    let commits: Vec<_> = calls
        .iter()
        .filter(|call| call.starts_with("commits"))
        .collect();
    assert_eq!(commits, ["commits 2 100", "commits 2 50"]);
    assert_eq!(
        calls.iter().filter(|call| call.starts_with("ends")).count(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_watched_twice_is_asked_about_once_and_told_to_both() {
    let fake = Fake::with_topic("orders", 1);
    let audit = Fake::with_topic("audit", 1);
    let topics = audit.0.lock().view.topics.clone();
    fake.0.lock().view.topics.extend(topics);
    fake.0.lock().ends.insert(("audit".into(), 0), 9);
    let place = ("billing".into(), "audit".into(), 0);
    fake.0.lock().committed.insert(place, 4);
    let watch = |topics: &[&str]| Asked {
        group: "billing".into(),
        topics: topics.iter().map(|topic| (*topic).into()).collect(),
    };
    let asked = [
        watch(&["orders"]),
        watch(&["orders"]),
        watch(&["audit", "orders"]),
    ];
    let found = round(&mut Collected::new(fake.clone()), &asked).await;
    assert_eq!(fake.count("commits"), 1);
    for (found, asked) in found.iter().zip(&asked) {
        assert_eq!(found.standing, Standing::Told);
        let names: Vec<_> = found.topics.iter().map(|topic| &topic.topic).collect();
        assert_eq!(names, asked.topics.iter().collect::<Vec<_>>());
        assert_eq!(found.topics.last().unwrap().partitions, [KNOWN]);
    }
    let audit = found[2].topics[0].partitions[0];
    assert_eq!(audit.committed, Committed::At(4));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moved_is_forgotten_and_the_group_asked_again() {
    for code in [Code::NOT_COORDINATOR, Code::COORDINATOR_NOT_AVAILABLE] {
        let fake = Fake::with_topic("orders", 1);
        fake.0.lock().group_codes.push_back(code);
        let found = first_round(&fake).await;
        assert_eq!(found.topics[0].partitions, [KNOWN]);
        let calls = fake.calls();
        assert_eq!(
            calls[..3],
            ["commits 1 1", "forget billing 1", "commits 1 1"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_loads_is_asked_again_and_not_forgotten() {
    let fake = Fake::with_topic("orders", 1);
    fake.0
        .lock()
        .group_codes
        .push_back(Code::COORDINATOR_LOAD_IN_PROGRESS);
    let found = first_round(&fake).await;
    assert_eq!(found.topics[0].partitions, [KNOWN]);
    assert_eq!(fake.count("forget"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_out_of_reach_is_forgotten() {
    let fake = Fake::with_topic("orders", 3);
    fake.0.lock().down.insert(BrokerId(1));
    let found = first_round(&fake).await;
    assert_eq!(found.standing, Standing::Unknown(None));
    assert_eq!(
        found.topics[0].partitions[0].committed,
        Committed::Unknown(None)
    );
    assert!(fake.count("forget") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_hangs_leaves_the_leaders_time_to_answer() {
    let fake = Fake::with_topic("orders", 3);
    fake.0
        .lock()
        .coordinators
        .insert("billing".into(), BrokerId(9));
    fake.0.lock().hung.insert(BrokerId(9));
    let mut source = Collected::new(fake.clone());
    for (waited, forgotten) in [(1, 2), (0, 1)] {
        let began = Instant::now();
        let found = round(&mut source, &billing()).await.remove(0);
        let answered = began.elapsed().as_secs();
        assert_eq!(answered, waited, "it is waited for once");
        assert_eq!(found.standing, Standing::Unknown(None));
        assert_eq!(found.topics[0].partitions[0].end, KNOWN.end);
        assert_eq!(
            found.topics[0].partitions[0].committed,
            Committed::Unknown(None)
        );
        assert_eq!(fake.count("forget billing 9"), forgotten);
    }
    fake.0
        .lock()
        .coordinators
        .insert("billing".into(), BrokerId(1));
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.topics[0].partitions, [KNOWN; 3], "it moved");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_apart_from_an_outage() {
    let fake = Fake::with_topic("orders", 1);
    let denied = Code::GROUP_AUTHORIZATION_FAILED;
    fake.0.lock().group_codes.push_back(denied);
    assert_eq!(first_round(&fake).await.standing, Standing::Denied);
    fake.0.lock().coordinator_error = Some(Error::broker(denied, "FindCoordinator"));
    let found = first_round(&fake).await;
    assert_eq!(found.standing, Standing::Denied);
    assert_eq!(
        found.topics[0].partitions[0].committed,
        Committed::Unknown(Some(denied))
    );
    fake.0.lock().coordinator_error = Some(Error::new(ErrorKind::Closed, "closed"));
    assert_eq!(first_round(&fake).await.standing, Standing::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_does_not_exist_has_no_commits() {
    let fake = Fake::with_topic("orders", 1);
    fake.0
        .lock()
        .group_codes
        .push_back(Code::GROUP_ID_NOT_FOUND);
    let found = first_round(&fake).await;
    assert_eq!(found.standing, Standing::Told);
    assert_eq!(found.topics[0].partitions[0].committed, Committed::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moved_makes_the_view_stale_and_only_its_partition_unknown() {
    let fake = Fake::with_topic("orders", 3);
    let code = Code::NOT_LEADER_OR_FOLLOWER;
    fake.0
        .lock()
        .end_codes
        .insert(("orders".into(), 2), [code].into());
    let found = first_round(&fake).await;
    assert_eq!(found.topics[0].partitions[2].end, End::Unknown(Some(code)));
    assert_eq!(found.topics[0].partitions[..2], [KNOWN; 2]);
    assert_eq!(fake.count("stale 4"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_available_yet_is_asked_again() {
    let fake = Fake::with_topic("orders", 6);
    let code = Code::OFFSET_NOT_AVAILABLE;
    fake.0
        .lock()
        .end_codes
        .insert(("orders".into(), 4), [code].into());
    let found = first_round(&fake).await;
    assert_eq!(found.topics[0].partitions, [KNOWN; 6]);
    let calls = fake.calls();
    let ends: Vec<_> = calls
        .iter()
        .filter(|call| call.starts_with("ends"))
        .collect();
    assert_eq!(ends, ["ends 0", "ends 1", "ends 2", "ends 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_holds_up_one_round_and_rests_until_it_answers() {
    let fake = Fake::with_topic("orders", 3);
    fake.0.lock().hung.insert(BrokerId(2));
    let mut source = Collected::new(fake.clone());
    let began = Instant::now();
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(found.topics[0].partitions[..2], [KNOWN; 2]);
    assert_eq!(found.topics[0].partitions[2].end, End::Unknown(None));
    assert!(
        fake.count("stale") > 0,
        "its partitions may have another leader by now"
    );
    for _ in 0..100 {
        let began = Instant::now();
        let found = round(&mut source, &billing()).await.remove(0);
        assert_eq!(began.elapsed(), Duration::ZERO, "it is not waited for");
        assert_eq!(found.topics[0].partitions[..2], [KNOWN; 2]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let probes = fake.count("probe 2");
    assert!((5..=10).contains(&probes), "ten seconds each: {probes}");
    fake.0.lock().hung.clear();
    for _ in 0..21 {
        round(&mut source, &billing()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.topics[0].partitions, [KNOWN; 3], "a probe answered");
}

/// It hangs with commits and is well as a leader: other groups need what it leads.
#[tokio::test(start_paused = true)]
async fn a_coordinator_that_hangs_is_asked_as_a_leader_all_the_same() {
    let fake = Fake::with_topic("orders", 3);
    fake.0
        .lock()
        .coordinators
        .insert("audit".into(), BrokerId(2));
    fake.0.lock().hung_commits.insert(BrokerId(1));
    let mut asked = billing();
    asked.push(Asked {
        group: "audit".into(),
        ..asked[0].clone()
    });
    let mut source = Collected::new(fake.clone());
    let mut waited = 0;
    for _ in 0..60 {
        let began = Instant::now();
        let found = round(&mut source, &asked).await;
        waited += began.elapsed().as_secs();
        assert_eq!(found[0].standing, Standing::Unknown(None));
        assert_eq!(found[1].standing, Standing::Told);
        for partition in &found[1].topics[0].partitions {
            assert_eq!(partition.end, KNOWN.end);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        waited < 15,
        "it answers probes, and is asked less and less: {waited}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_broke_costs_one_round() {
    let fake = Fake::with_topic("orders", 3);
    let mut source = Collected::new(fake.clone());
    fake.0.lock().down.insert(BrokerId(2));
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.topics[0].partitions[2].end, End::Unknown(None));
    fake.0.lock().down.clear();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.topics[0].partitions, [KNOWN; 3]);
}

/// A second is the least that a broker has. One that takes longer is found out by a probe, which
/// waits longer, and its figures are had from then on.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_slow_is_not_one_that_is_gone() {
    let fake = Fake::with_topic("orders", 3);
    let mut source = Collected::new(fake.clone());
    fake.0.lock().takes = Duration::from_millis(700);
    for _ in 0..3 {
        let found = round(&mut source, &billing()).await.remove(0);
        assert_eq!(found.topics[0].partitions, [KNOWN; 3]);
    }
    fake.0.lock().takes = Duration::from_millis(2_000);
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.topics[0].partitions, [KNOWN; 3], "four times 0.7 s");

    let mut source = Collected::new(fake.clone());
    let found = round(&mut source, &billing()).await.remove(0);
    assert_ne!(found.topics[0].partitions, [KNOWN; 3]);
    round(&mut source, &billing()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    round(&mut source, &billing()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.topics[0].partitions, [KNOWN; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_is_unknown_and_nobody_is_asked() {
    let fake = Fake::with_topic("orders", 1);
    {
        let mut state = fake.0.lock();
        let topic = state.view.topics.get_mut("orders").unwrap();
        Arc::make_mut(topic).partitions[0].leader = None;
    }
    let found = first_round(&fake).await;
    let end = End::Unknown(Some(Code::LEADER_NOT_AVAILABLE));
    assert_eq!(found.topics[0].partitions[0].end, end);
    assert_eq!(fake.count("ends"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_known_has_no_partitions() {
    let fake = Fake::with_topic("orders", 1);
    let mut asked = billing();
    asked[0].topics.push("other".into());
    let found = round(&mut Collected::new(fake.clone()), &asked)
        .await
        .remove(0);
    assert_eq!(found.topics.len(), 2);
    assert!(found.topics[1].partitions.is_empty());
}

#[test]
fn answers_about_what_was_not_asked_are_not_listened_to() {
    let mut ends = Ends::from([("orders".into(), vec![End::Unknown(None)])]);
    let answer = |partition| list_offsets::PartitionAnswer {
        partition,
        code: Code::NONE,
        offset: Some(3),
        timestamp: None,
        leader_epoch: None,
    };
    let response = list_offsets::Response {
        topics: vec![
            (
                "orders".into(),
                vec![answer(-1), answer(1), answer(i32::MAX)],
            ),
            ("other".into(), vec![answer(0)]),
        ],
        ..list_offsets::Response::default()
    };
    let answers = Answers {
        high_watermarks: response.clone(),
        log_starts: response.clone(),
        last_stables: response,
    };
    assert!(!take_ends(&mut ends, &answers));
    assert_eq!(ends["orders"], [End::Unknown(None)]);
    assert_eq!(ends.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_shows_in_the_last_stable_offset_and_not_in_the_end() {
    let fake = Fake::with_topic("orders", 2);
    fake.0.lock().stable.insert(("orders".into(), 1), 10);
    let found = first_round(&fake).await;
    assert_eq!(found.topics[0].partitions[0], KNOWN);
    let held = End::At {
        high_watermark: 15,
        log_start: Some(0),
        last_stable: Some(10),
    };
    assert_eq!(found.topics[0].partitions[1].end, held);
}

/// Trap: OffsetFetch for a share group answers "no commit" for every partition, without an error.
#[tokio::test(start_paused = true)]
async fn a_share_group_is_named_as_such_and_looked_up_once_a_minute() {
    let fake = Fake::with_topic("orders", 1);
    {
        let mut state = fake.0.lock();
        state.committed.clear();
        state.shares.insert("billing".into());
    }
    let mut source = Collected::new(fake.clone());
    // At the second look its own API is asked: no member was given the partition yet.
    for told in [
        Committed::Unknown(None),
        Committed::Nothing,
        Committed::Nothing,
    ] {
        let found = round(&mut source, &billing()).await.remove(0);
        assert_eq!(found.standing, Standing::Share);
        assert_eq!(found.topics[0].partitions[0].committed, told);
    }
    assert_eq!(fake.count("groups 1"), 1);
    // Made anew as a group that commits.
    let key = ("billing".to_owned(), "orders".to_owned(), 0);
    fake.0.lock().committed.insert(key, 10);
    round(&mut source, &billing()).await;
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.standing, Standing::Told);
}

#[tokio::test(start_paused = true)]
async fn a_share_group_has_figures_from_its_own_api() {
    let fake = Fake::with_topic("orders", 2);
    {
        let mut state = fake.0.lock();
        state.committed.clear();
        state.shares.insert("billing".into());
        let key = ("billing".to_owned(), "orders".to_owned(), 0);
        state.share_starts.insert(key, 12);
    }
    let mut source = Collected::new(fake.clone());
    round(&mut source, &billing()).await;
    let found = round(&mut source, &billing()).await.remove(0);
    assert_eq!(found.standing, Standing::Share);
    let committed = found.topics[0].partitions.iter().map(|one| one.committed);
    let committed: Vec<Committed> = committed.collect();
    let nothing = Committed::Nothing;
    assert_eq!(
        committed,
        [Committed::At(12), nothing],
        "no member was given the other yet"
    );
    // Its topics are those it reads.
    let deadline = Instant::now() + Duration::from_secs(1);
    let told = source.committed_topics(&["billing".into()], deadline).await;
    assert_eq!(told, [Some(vec!["orders".into()])]);
    // Where it reads on is asked before the ends, as commits are.
    fake.calls();
    round(&mut source, &billing()).await;
    let calls = fake.calls();
    let at = |begin: &str| {
        calls
            .iter()
            .position(|call| call.starts_with(begin))
            .unwrap()
    };
    assert!(at("shares 1 1") < at("ends"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_share_group_of_brokers_without_that_api_stays_unknown_and_its_coordinator_known() {
    let fake = Fake::with_topic("orders", 1);
    {
        let mut state = fake.0.lock();
        state.committed.clear();
        state.shares.insert("billing".into());
        state.knows_no_share_offsets = true;
    }
    let mut source = Collected::new(fake.clone());
    for _ in 0..3 {
        let found = round(&mut source, &billing()).await.remove(0);
        let committed = found.topics[0].partitions[0].committed;
        assert_eq!(committed, Committed::Unknown(None));
    }
    assert_eq!(fake.count("forget"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_has_not_committed_yet_is_no_share_group() {
    let fake = Fake::with_topic("orders", 1);
    fake.0.lock().committed.clear();
    let found = first_round(&fake).await;
    assert_eq!(found.standing, Standing::Told);
    assert_eq!(found.topics[0].partitions[0].committed, Committed::Nothing);
}

/// One partition that we may not see leaves the others of its topic and the other topics as they are.
#[tokio::test(start_paused = true)]
async fn a_topic_that_refuses_us_leaves_the_others_known() {
    let fake = Fake::with_topic("orders", 2);
    let denied = Code::TOPIC_AUTHORIZATION_FAILED;
    fake.0.lock().view.refused.insert("secret".into(), denied);
    let mut asked = billing();
    asked[0].topics.push("secret".into());
    let found = round(&mut Collected::new(fake.clone()), &asked)
        .await
        .remove(0);
    assert_eq!(found.topics[0].partitions, [KNOWN; 2]);
    assert_eq!(found.topics[1].refused, Some(denied));
}

/// What one OffsetFetch asks about is bounded by partitions too; the requests do not wait for each
/// other.
#[tokio::test(start_paused = true)]
async fn many_partitions_are_asked_about_in_portions() {
    let fake = Fake::with_topic("orders", 30_000);
    let mut asked = billing();
    for group in ["b", "c"] {
        fake.0.lock().coordinators.insert(group.into(), BrokerId(1));
        asked.push(Asked {
            group: group.into(),
            ..asked[0].clone()
        });
    }
    round(&mut Collected::new(fake.clone()), &asked).await;
    assert_eq!(fake.count("commits 1 1"), 3);
}
