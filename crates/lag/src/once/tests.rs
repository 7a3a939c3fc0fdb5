//! What rows a single look shows.

use super::*;
use crate::snapshot::LagStatus;
use bytes::Bytes;
use ottla_proto::TopicPartition;
use ottla_wire::api::describe_groups::Member;
use ottla_wire::api::offset_fetch::PartitionAnswer;

fn member(id: &str, assignment: Bytes) -> Member {
    Member {
        member_id: id.into(),
        instance_id: None,
        client_id: "client".into(),
        host: "/10.0.0.1".into(),
        metadata: Bytes::new(),
        assignment,
    }
}

fn group(state: &str, members: Vec<Member>) -> Group {
    Group {
        state: state.into(),
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        members,
    }
}

fn assigned(partitions: &[i32]) -> Bytes {
    let partitions = partitions.iter().map(|p| TopicPartition::new("orders", *p));
    let assignment = Assignment {
        partitions: partitions.collect(),
        user_data: None,
    };
    assignment.encode().into()
}

fn committed(offsets: &[(i32, Option<i64>)]) -> CommitsByTopic {
    let answers = offsets
        .iter()
        .map(|(partition, committed)| PartitionAnswer {
            partition: *partition,
            code: Code::NONE,
            committed: *committed,
            leader_epoch: None,
            metadata: None,
        });
    commits_by_topic(&GroupAnswer {
        topics: vec![("orders".into(), answers.collect())],
        ..nothing("billing")
    })
}

fn ends(count: usize) -> Vec<End> {
    let end = End::At {
        high_watermark: 15,
        log_start: Some(0),
        last_stable: None,
    };
    vec![end; count]
}

fn rows(commits: &CommitsByTopic, ends: &[End], owners: &Owners, every: bool) -> Vec<GroupRow> {
    let known = Known {
        committed: commits.get("orders"),
        ends,
        owners,
        refused: None,
    };
    known.rows(&"orders".into(), std::time::Instant::now(), every)
}

fn numbers(rows: &[GroupRow]) -> Vec<i32> {
    rows.iter().map(|row| row.lag.partition).collect()
}

#[test]
fn partitions_with_a_commit_or_an_owner_are_shown_and_no_others() {
    let owners = owners(&group("Stable", vec![member("a", assigned(&[1]))]));
    let commits = committed(&[(0, Some(10)), (2, None)]);
    let rows = rows(&commits, &ends(4), &owners, false);
    assert_eq!(numbers(&rows), [0, 1]);
    assert_eq!((rows[0].lag.lag, &rows[0].owner), (Some(5), &None));
    let waiting = &rows[1];
    assert_eq!((waiting.lag.committed, waiting.lag.lag), (None, None));
    assert_eq!(waiting.lag.end, Some(15));
    assert_eq!(waiting.lag.status, LagStatus::NoCommit);
    assert_eq!(&*waiting.owner.as_ref().unwrap().member_id, "a");
}

#[test]
fn a_named_topic_shows_every_partition() {
    let rows = rows(&committed(&[(1, Some(10))]), &ends(3), &Owners::new(), true);
    assert_eq!(numbers(&rows), [0, 1, 2]);
    assert_eq!(rows[0].lag.status, LagStatus::NoCommit);
}

#[test]
fn a_commit_that_outlived_its_partition_has_no_end() {
    let commits = committed(&[(9, Some(10)), (-4, Some(10))]);
    let rows = rows(&commits, &ends(1), &Owners::new(), false);
    assert_eq!(numbers(&rows), [9]);
    assert_eq!((rows[0].lag.committed, rows[0].lag.end), (Some(10), None));
    assert_eq!(rows[0].lag.lag, None);
}

#[test]
fn a_member_whose_assignment_cannot_be_read_owns_nothing() {
    let garbage = Bytes::from_static(&[0, 1, 0x7f, 0xff, 0xff, 0xff]);
    let members = vec![member("a", garbage), member("b", assigned(&[0, 2]))];
    let owners = owners(&group("Stable", members));
    assert_eq!(owners.len(), 2);
    assert!(owners.values().all(|owner| &*owner.member_id == "b"));
}

#[test]
fn a_dead_group_and_one_that_is_not_found_are_the_same() {
    let fine = existing(Ok(Some(group("Empty", vec![])))).unwrap();
    assert_eq!(&*fine.unwrap().state, "Empty");
    assert_eq!(existing(Ok(Some(group("Dead", vec![])))), Ok(None));
    let error = |code| ItemError {
        code,
        message: None,
    };
    assert_eq!(existing(Err(error(Code::GROUP_ID_NOT_FOUND))), Ok(None));
    let denied = error(Code::GROUP_AUTHORIZATION_FAILED);
    assert_eq!(existing(Err(denied.clone())), Err(denied));
}

#[test]
fn a_group_whose_members_may_not_be_seen_is_told_by_its_commits() {
    let error = |code| ItemError {
        code,
        message: None,
    };
    let answered = |code| visible::<()>(Err(error(code)));
    assert_eq!(answered(Code::TOPIC_AUTHORIZATION_FAILED), Ok(None));
    assert_eq!(answered(Code::UNSUPPORTED_VERSION), Ok(None));
    assert!(answered(Code::NOT_COORDINATOR).is_err(), "that passes");
}
