//! What a transaction asks of the sender.

use super::*;

fn transactional() -> Many {
    many(
        2,
        Config {
            transactional: true,
            ..config()
        },
    )
}

fn asked(many: &mut Many) -> Vec<u32> {
    many.take_events();
    let asked = |event: &Event<u32>| match event {
        Event::NeedAdmission(index) => Some(index.0),
        _ => None,
    };
    many.events.iter().filter_map(asked).collect()
}

fn broken(many: &mut Many) -> usize {
    many.take_events();
    let broken = |event: &&Event<u32>| matches!(event, Event::TransactionBroken(_));
    many.events.iter().filter(broken).count()
}

#[test]
fn nothing_is_sent_to_a_partition_before_it_is_part_of_the_transaction() {
    let mut many = transactional();
    many.push(1, 1, 1);
    many.push(1, 2, 1);
    assert!(many.sender.poll_transmit(many.now).is_none());
    assert_eq!(asked(&mut many), [1], "asked for once");
    many.sender.admit(many.now, PartitionIndex(1));
    let sent = many.sent();
    let attributes = &sent.batches[0].header[21..23];
    assert_eq!(
        attributes[1] & 0x10,
        0x10,
        "the batch says that it is transactional"
    );
    many.answer(&sent, Code::NONE);
    many.sender.close_admissions();
    many.events.clear();
    many.push(1, 3, 1);
    while let Some(sent) = many.sender.poll_transmit(many.now) {
        many.answer(&sent, Code::NONE);
    }
    assert_eq!(asked(&mut many), [1], "and again in the next transaction");
}

#[test]
fn a_partition_left_in_its_leaders_list_waits_for_the_next_transaction_to_take_it() {
    let mut many = transactional();
    many.sender.admit(many.now, PartitionIndex(0));
    many.sender.set_connected(LEADER, Lane::Main, false);
    many.push(0, 1, 1);
    many.pass(121 * SECOND); // it expires, listed for a connection
    many.sender.close_admissions();
    many.events.clear();
    many.push(0, 2, 1);
    many.sender.set_connected(LEADER, Lane::Main, true);
    assert!(many.sender.poll_transmit(many.now).is_none());
    assert_eq!(asked(&mut many), [0]);
}

#[test]
fn bug_8_the_epoch_is_never_bumped_in_the_middle_of_a_transaction() {
    let mut many = transactional();
    many.sender.admit(many.now, PartitionIndex(0));
    let mut many = many.proven(1);
    many.push(0, 1, 1);
    many.push(0, 2, 1);
    let [first, second] = [many.sent(), many.sent()];
    many.answer(&first, Code::INVALID_RECORD);
    many.answer(&second, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    many.push(0, 3, 1);
    for _ in 0..20 {
        if let Some(sent) = many.sender.poll_transmit(many.now) {
            assert_eq!(
                stamp(&sent).0,
                0,
                "a new epoch would begin another transaction"
            );
            many.answer(&sent, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        many.pass(SECOND);
    }
    assert_eq!(broken(&mut many), 1, "told once");
    let aborted = Error::new(ErrorKind::State, "the transaction was aborted");
    many.sender.fail_waiting(&aborted, false);
    assert!(!many.sender.is_in_flight());
    many.sender.close_admissions();
    many.sender.begin_epoch(
        many.now,
        Identity {
            producer_id: 9,
            epoch: 1,
        },
    );
    many.push(0, 4, 1);
    many.sender.admit(many.now, PartitionIndex(0));
    assert_eq!(stamp(&many.sent()), (1, 0));
}

fn rooms(many: &mut Many) -> usize {
    many.take_events();
    let room = |event: &&Event<u32>| matches!(event, Event::Room(_));
    let count = many.events.iter().filter(room).count();
    many.events.clear();
    count
}

#[test]
fn an_abort_of_what_was_never_sent_breaks_nothing_and_is_carried_out_once() {
    let mut many = transactional();
    let aborted = Error::new(ErrorKind::State, "the transaction was aborted");
    many.push(0, 1, 1);
    many.sender.fail_waiting(&aborted, false);
    assert!(!many.sender.is_in_flight());
    assert_eq!(broken(&mut many), 0);
    assert_eq!(rooms(&mut many), 1);
    // It is asked for at each turn while the abort waits.
    many.sender.fail_waiting(&aborted, false);
    assert_eq!(rooms(&mut many), 0);
    // The sequences of what was sent are missing from its epoch.
    many.sender.admit(many.now, PartitionIndex(0));
    many.push(0, 2, 1);
    let sent = many.sent();
    many.answer(&sent, Code::NOT_ENOUGH_REPLICAS);
    many.sender.fail_waiting(&aborted, false);
    assert_eq!(broken(&mut many), 1);
}

#[test]
fn a_partition_is_forgotten_once_its_sequences_end_with_their_epoch() {
    let mut many = transactional();
    let [used, other] = [PartitionIndex(0), PartitionIndex(1)];
    many.sender.admit(many.now, used);
    many.push(0, 1, 1);
    let sent = many.sent();
    assert!(!many.sender.is_idle(used), "in flight");
    many.answer(&sent, Code::NONE);
    assert!(!many.sender.is_idle(used) && !many.sender.needs_epoch(used));
    many.sender.close_admissions();
    // The next transaction may share the epoch, and its sequences go on.
    assert!(!many.sender.forget(used) && many.sender.needs_epoch(used));
    assert!(many.sender.is_idle(other), "it has used nothing");
    let next = Identity {
        producer_id: 9,
        epoch: 1,
    };
    many.sender.begin_epoch(many.now, next);
    assert!(!many.sender.needs_epoch(used) && many.sender.forget(used));
    let again = many.sender.add_partition(TopicPartition::new("t", 0));
    many.sender
        .set_leader(many.now, again, Some(LEADER), Some(1), None);
    many.sender.admit(many.now, again);
    many.push(again.0, 2, 1);
    assert_eq!(stamp(&many.sent()), (1, 0), "the epoch stays everybody's");
}
