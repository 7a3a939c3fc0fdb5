//! Each limit, and each thing that must be said, alone.

use super::hard::{self, STALL, many, stalling};
use super::*;
use crate::error::{Error, ErrorKind};

#[test]
fn partitions_that_stood_ready_when_their_lane_was_given_up_get_a_new_connection() {
    let config = Config {
        requests_max: 1,
        ..stalling()
    };
    let mut many = many(2, config).proven(2);
    many.push(0, 10, 1);
    let stuck = many.sent();
    many.push(1, 11, 1);
    many.pass(STALL * 2);
    let asked = |event: &Event<u32>| matches!(event, Event::Connect(LEADER, Lane::Main));
    assert!(many.events.iter().any(asked), "{stuck:?} {:?}", many.events);
}

#[test]
fn a_producer_id_that_is_refused_says_that_the_windows_are_open_again() {
    let mut sender: Sender<u32> = Sender::new(config());
    let now = Instant::now();
    let partition = sender.add_partition(TopicPartition::new("t", 0));
    sender.set_leader(now, partition, Some(LEADER), Some(1), None);
    let batch = Batch::new(1, 1, now + SECOND, Some(hard::records(1)));
    sender.push(now, partition, batch);
    assert!(!sender.has_room(partition));
    let events = |sender: &mut Sender<u32>| {
        std::iter::from_fn(|| sender.poll_event())
            .filter(|event| matches!(event, Event::Room(_)))
            .count()
    };
    assert_eq!(events(&mut sender), 0);
    let error = Error::new(ErrorKind::State, "no producer id");
    sender.refuse_identity(&error);
    // An open batch that lingered meanwhile waits for this word alone.
    assert!(sender.has_room(partition));
    assert_eq!(events(&mut sender), 1);
}
