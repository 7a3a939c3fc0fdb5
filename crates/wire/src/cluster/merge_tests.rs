use super::*;
use ottla_proto::BrokerId;
use ottla_proto::topic::TopicId;

const ID: Option<TopicId> = Some(TopicId([1; 16]));
const OTHER_ID: Option<TopicId> = Some(TopicId([2; 16]));

fn led(leader: i32, epoch: i32) -> Partition {
    Partition {
        leader: (leader >= 0).then_some(BrokerId(leader)),
        leader_epoch: Some(epoch),
        replicas: vec![BrokerId(1)],
        ..Partition::default()
    }
}

fn told(id: Option<TopicId>, partitions: Vec<Partition>) -> Response {
    answer(TopicAnswer {
        name: "orders".into(),
        id,
        code: None,
        internal: false,
        partitions,
    })
}

fn refused(code: Code) -> Response {
    let name = "orders".into();
    let partitions = Vec::new();
    answer(TopicAnswer {
        name,
        id: None,
        code: Some(code),
        internal: false,
        partitions,
    })
}

fn answer(topic: TopicAnswer) -> Response {
    let broker = Broker {
        id: BrokerId(1),
        host: "one".into(),
        port: 9092,
        rack: None,
    };
    Response {
        brokers: vec![broker],
        topics: vec![topic],
        ..Response::default()
    }
}

fn after(answers: impl IntoIterator<Item = Response>) -> ClusterView {
    let mut doubts = Doubts::default();
    let empty = ClusterView::default();
    answers.into_iter().fold(empty, |view, answer| {
        merge(&view, &answer, |_| true, &mut doubts)
    })
}

fn leaders(view: &ClusterView) -> Vec<(Option<i32>, Option<i32>)> {
    let topic = view.topic("orders").unwrap();
    topic
        .partitions
        .iter()
        .map(|p| (p.leader.map(|b| b.0), p.leader_epoch))
        .collect()
}

#[test]
fn leader_epochs_never_go_backwards_within_a_topic_id() {
    let fresh = told(ID, vec![led(1, 5), led(2, 5)]);
    let stale = told(ID, vec![led(3, 4), led(3, 6)]);
    let view = after([fresh.clone(), stale.clone()]);
    assert_eq!(leaders(&view), [(Some(1), Some(5)), (Some(3), Some(6))]);
    // However often it is said.
    let view = after(std::iter::once(fresh).chain(vec![stale; 20]));
    assert_eq!(leaders(&view)[0], (Some(1), Some(5)));
}

#[test]
fn a_topic_made_anew_begins_its_epochs_again() {
    let view = after([told(ID, vec![led(1, 5)]), told(OTHER_ID, vec![led(2, 0)])]);
    assert_eq!(leaders(&view), [(Some(2), Some(0))]);
    assert_eq!(view.topic("orders").unwrap().id, OTHER_ID);
}

#[test]
fn without_ids_an_older_epoch_is_believed_when_it_insists() {
    let stubborn = |times| {
        let first = told(None, vec![led(1, 5)]);
        after(std::iter::once(first).chain(vec![told(None, vec![led(2, 0)]); times]))
    };
    assert_eq!(leaders(&stubborn(4)), [(Some(1), Some(5))]);
    assert_eq!(leaders(&stubborn(5)), [(Some(2), Some(0))]);
}

#[test]
fn a_partition_without_a_leader_is_taken_and_comes_back() {
    let lost = told(ID, vec![led(-1, 5)]);
    let view = after([told(ID, vec![led(1, 5)]), lost.clone()]);
    assert_eq!(leaders(&view), [(None, Some(5))]);
    assert!(view.topic("orders").unwrap().available.is_empty());
    let view = after([told(ID, vec![led(1, 5)]), lost, told(ID, vec![led(2, 6)])]);
    assert_eq!(leaders(&view), [(Some(2), Some(6))]);
}

#[test]
fn partitions_never_shrink_within_a_topic_id() {
    let view = after([
        told(ID, vec![led(1, 1), led(2, 1)]),
        told(ID, vec![led(1, 1)]),
    ]);
    assert_eq!(leaders(&view).len(), 2);
    let view = after([
        told(ID, vec![led(1, 1), led(2, 1)]),
        told(OTHER_ID, vec![led(1, 1)]),
    ]);
    assert_eq!(leaders(&view).len(), 1);
}

#[test]
fn a_known_topic_is_gone_only_when_several_answers_say_so() {
    let unknown = || refused(Code::UNKNOWN_TOPIC_OR_PARTITION);
    let known = || told(ID, vec![led(1, 1)]);
    assert!(
        after([known(), unknown(), unknown()])
            .topic("orders")
            .is_some()
    );
    assert!(
        after([known(), unknown(), unknown(), known(), unknown()])
            .topic("orders")
            .is_some()
    );
    let view = after([known(), unknown(), unknown(), unknown()]);
    assert!(view.topic("orders").is_none());
    assert_eq!(
        view.refused.get("orders"),
        Some(&Code::UNKNOWN_TOPIC_OR_PARTITION)
    );
    // And back again.
    let view = after([known(), unknown(), unknown(), unknown(), known()]);
    assert!(view.topic("orders").is_some() && view.refused.is_empty());
}

#[test]
fn a_passing_error_keeps_a_known_topic_and_a_final_one_drops_it() {
    let known = || told(ID, vec![led(1, 1)]);
    assert!(
        after([known(), refused(Code::LEADER_NOT_AVAILABLE)])
            .topic("orders")
            .is_some()
    );
    let view = after([known(), refused(Code::TOPIC_AUTHORIZATION_FAILED)]);
    assert!(view.topic("orders").is_none());
    assert_eq!(
        view.refused.get("orders"),
        Some(&Code::TOPIC_AUTHORIZATION_FAILED)
    );
}

#[test]
fn topics_nobody_wants_leave_the_view() {
    let view = after([told(ID, vec![led(1, 1)])]);
    let empty = Response::default();
    let mut doubts = Doubts::default();
    assert!(
        merge(&view, &empty, |_| true, &mut doubts)
            .topic("orders")
            .is_some()
    );
    let next = merge(&view, &empty, |_| false, &mut doubts);
    assert!(next.topic("orders").is_none());
    assert_eq!(
        next.brokers, view.brokers,
        "an answer without brokers keeps them"
    );
}

#[test]
fn the_same_answer_changes_nothing() {
    let answers = || told(ID, vec![led(1, 1)]);
    let view = after([answers()]);
    let again = merge(&view, &answers(), |_| true, &mut Doubts::default());
    assert!(!differ(&view, &again));
    let known = view.topic("orders").unwrap();
    assert!(Arc::ptr_eq(known, again.topic("orders").unwrap()));
}

#[test]
fn a_leader_hint_counts_only_when_its_epoch_is_newer() {
    let view = after([told(ID, vec![led(1, 5)])]);
    let place = TopicPartition::new("orders", 0);
    let hint = |leader_epoch| LeaderHint {
        leader: BrokerId(9),
        leader_epoch,
    };
    assert!(apply_leader(&view, &place, None, hint(5)).is_none());
    assert!(apply_leader(&view, &TopicPartition::new("orders", 7), None, hint(6)).is_none());
    assert!(apply_leader(&view, &TopicPartition::new("orders", -1), None, hint(6)).is_none());
    let next = apply_leader(&view, &place, None, hint(6)).unwrap();
    assert_eq!(leaders(&next), [(Some(9), Some(6))]);
    // Metadata that has not heard of it yet does not take it back.
    let next = merge(
        &next,
        &told(ID, vec![led(1, 5)]),
        |_| true,
        &mut Doubts::default(),
    );
    assert_eq!(leaders(&next), [(Some(9), Some(6))]);
}

/// A view after `hinted` was believed, and then these answers.
fn hinted(id: Option<TopicId>, hinted: LeaderHint, answers: Vec<Response>) -> ClusterView {
    let view = after([told(id, vec![led(1, 5), led(2, 5)])]);
    let place = TopicPartition::new("orders", 0);
    let view = apply_leader(&view, &place, None, hinted).unwrap();
    let mut doubts = Doubts::default();
    answers.into_iter().fold(view, |view, answer| {
        merge(&view, &answer, |_| true, &mut doubts)
    })
}

#[test]
fn bug_12_a_hint_that_lied_of_a_high_epoch_is_given_up_when_metadata_insists() {
    let lied = LeaderHint {
        leader: BrokerId(9),
        leader_epoch: i32::MAX,
    };
    let truth = || told(ID, vec![led(1, 5), led(2, 5)]);
    let first = |answers| leaders(&hinted(ID, lied, answers))[0];
    assert_eq!(first(vec![truth(); 4]), (Some(9), Some(i32::MAX)));
    assert_eq!(first(vec![truth(); 5]), (Some(1), Some(5)));
    // In a row, and each partition for itself.
    let shown = told(ID, vec![led(9, i32::MAX), led(2, 5)]);
    let mut answers = vec![truth(); 4];
    answers.push(shown);
    answers.extend(vec![truth(); 4]);
    assert_eq!(first(answers), (Some(9), Some(i32::MAX)));
    let mut view = hinted(ID, lied, vec![truth(); 3]);
    let other = TopicPartition::new("orders", 1);
    view = apply_leader(&view, &other, None, lied).unwrap();
    let mut doubts = Doubts::default();
    doubts.rewinds.insert(TopicPartition::new("orders", 0), 4);
    view = merge(&view, &truth(), |_| true, &mut doubts);
    let both = [(Some(1), Some(5)), (Some(9), Some(i32::MAX))];
    assert_eq!(leaders(&view), both);
}

#[test]
fn bug_12_a_hint_that_metadata_has_shown_is_not_taken_back() {
    let hint = LeaderHint {
        leader: BrokerId(9),
        leader_epoch: 6,
    };
    let mut answers = vec![told(ID, vec![led(9, 6), led(2, 5)])];
    answers.extend(vec![told(ID, vec![led(1, 5), led(2, 5)]); 20]);
    let view = hinted(ID, hint, answers);
    assert_eq!(leaders(&view)[0], (Some(9), Some(6)));
}

#[test]
fn bug_07_a_late_hint_of_a_topic_that_was_made_anew_is_not_believed() {
    let late = LeaderHint {
        leader: BrokerId(9),
        leader_epoch: 40,
    };
    let place = TopicPartition::new("orders", 0);
    let view = after([told(ID, vec![led(1, 39)]), told(OTHER_ID, vec![led(2, 0)])]);
    assert!(apply_leader(&view, &place, ID, late).is_none());
    assert!(apply_leader(&view, &place, OTHER_ID, late).is_some());
    assert!(apply_leader(&view, &place, None, late).is_some());
}

#[test]
fn bug_13_old_news_give_a_partition_no_leader_back() {
    let lost = told(ID, vec![led(-1, 5)]);
    let view = after([lost, told(ID, vec![led(1, 4)])]);
    assert_eq!(leaders(&view), [(None, Some(5))]);
    assert!(view.topic("orders").unwrap().available.is_empty());
}

#[test]
fn addresses_are_learnt_when_they_are_news() {
    let view = after([told(ID, vec![led(1, 5)])]);
    let broker = |port| Broker {
        id: BrokerId(1),
        host: "one".into(),
        port,
        rack: None,
    };
    assert!(learn(&view, &[broker(9092)]).is_none());
    let next = learn(&view, &[broker(9093)]).unwrap();
    assert_eq!(next.brokers[&BrokerId(1)].port, 9093);
}

#[test]
fn a_leader_that_metadata_does_not_name_yet_stays_in_reach_while_it_leads() {
    let hint = LeaderHint {
        leader: BrokerId(9),
        leader_epoch: 6,
    };
    let place = TopicPartition::new("orders", 0);
    let new = Broker {
        id: BrokerId(9),
        host: "nine".into(),
        port: 9092,
        rack: None,
    };
    let view = after([told(ID, vec![led(1, 5)])]);
    let view = learn(&view, &[new]).unwrap();
    let view = apply_leader(&view, &place, None, hint).unwrap();
    let mut doubts = Doubts::default();
    let old_news = told(ID, vec![led(1, 5)]);
    let view = merge(&view, &old_news, |_| true, &mut doubts);
    assert_eq!(leaders(&view), [(Some(9), Some(6))]);
    assert_eq!(&*view.brokers[&BrokerId(9)].host, "nine");
    let moved_back = told(ID, vec![led(1, 7)]);
    let view = merge(&view, &moved_back, |_| true, &mut doubts);
    assert!(!view.brokers.contains_key(&BrokerId(9)));
}
