//! A group's offsets in the transaction.

use super::*;

pub(super) fn offsets(numbers: &[u32]) -> BTreeMap<TopicPartition, Committed> {
    let offsets = numbers.iter();
    offsets
        .map(|number| (partition(*number), Committed::at(10)))
        .collect()
}

#[test]
fn offsets_go_with_their_group_and_only_what_failed_is_sent_again() {
    let mut bench = Bench::open(LEVEL_ONE);
    let group = GroupMetadata::outside("billing");
    bench
        .core
        .commit_offsets(group.clone(), offsets(&[0, 1]))
        .unwrap();
    let added = Request::AddOffsets {
        identity: FIRST,
        group: "billing".into(),
    };
    assert_eq!(bench.answer(Answer::Added(Code::NOT_COORDINATOR)), added);
    assert_eq!(bench.answer(Answer::Added(Code::NONE)), added);
    bench.answer(codes(&[(0, Code::NONE), (1, Code::NOT_COORDINATOR)]));
    let told = "find coordinator; find coordinator of billing";
    assert_eq!(bench.told(), told);
    let again = bench.answer(codes(&[(1, Code::NONE)]));
    let wanted = Request::CommitOffsets {
        identity: FIRST,
        protocol: Protocol::One,
        group: group.clone(),
        offsets: offsets(&[1]),
    };
    assert_eq!(again, wanted);
    assert_eq!(bench.told(), "offsets");
    bench.core.commit_offsets(group, offsets(&[2])).unwrap();
    let second = bench.answer(codes(&[(2, Code::NONE)]));
    assert!(
        matches!(second, Request::CommitOffsets { .. }),
        "the group is added once"
    );
}

#[test]
fn offsets_of_the_newer_protocol_need_no_group_added() {
    let mut bench = Bench::open(LEVEL_TWO);
    let group = GroupMetadata::outside("billing");
    bench.core.commit_offsets(group, offsets(&[0])).unwrap();
    let request = bench.answer(codes(&[(0, Code::NONE)]));
    assert!(matches!(request, Request::CommitOffsets { .. }));
    bench.core.end(Decision::Commit).unwrap();
    let request = bench.ended(Code::NONE, Some(NEXT));
    assert_eq!(request, end(FIRST, Protocol::Two, Decision::Commit));
    assert_eq!(bench.told(), "offsets; ended Commit; identified 7/1");
}

#[test]
fn offsets_of_a_member_that_was_put_out_break_the_transaction() {
    let mut bench = Bench::open(LEVEL_TWO);
    let group = GroupMetadata::outside("billing");
    bench.core.commit_offsets(group, offsets(&[0])).unwrap();
    bench.answer(codes(&[(0, Code::ILLEGAL_GENERATION)]));
    assert_eq!(bench.told(), "no offsets; broken until the abort");
}

#[test]
fn no_code_that_only_breaks_the_transaction_is_told_as_the_end_of_the_producer() {
    let breaks =
        |code| transaction_verdict(Api::TxnOffsetCommit, code) == TransactionVerdict::Abort;
    let mut seen = 0;
    for code in (-1..200).map(Code).filter(|code| breaks(*code)) {
        let mut bench = Bench::open(LEVEL_TWO);
        let group = GroupMetadata::outside("billing");
        bench.core.commit_offsets(group, offsets(&[0])).unwrap();
        bench.answer(codes(&[(0, code)]));
        let told = bench.told();
        assert_eq!(told, "no offsets; broken until the abort", "{code}");
        seen += usize::from(code == Code::FENCED_INSTANCE_ID);
    }
    assert_eq!(seen, 1);
}

#[test]
fn a_commit_waits_for_offsets_whose_caller_has_left() {
    let mut bench = Bench::open(LEVEL_TWO);
    let group = GroupMetadata::outside("billing");
    bench.core.commit_offsets(group, offsets(&[0])).unwrap();
    bench.core.end(Decision::Commit).unwrap();
    let request = bench.answer(codes(&[(0, Code::NONE)]));
    assert!(matches!(request, Request::CommitOffsets { .. }));
    let request = bench.ended(Code::NONE, Some(NEXT));
    assert!(matches!(request, Request::End { .. }));
}

#[test]
fn callers_that_keep_leaving_cannot_pile_up_offsets() {
    let mut bench = Bench::open(LEVEL_TWO);
    let mut add = || {
        let group = GroupMetadata::outside("billing");
        bench.core.commit_offsets(group, offsets(&[0]))
    };
    for _ in 0..OFFSETS_MAX {
        add().unwrap();
    }
    assert_eq!(add().unwrap_err().kind(), &ErrorKind::State);
}

#[test]
fn a_wait_that_a_broken_transaction_leaves_behind_is_due_once() {
    let mut bench = Bench::open(LEVEL_TWO);
    let group = GroupMetadata::outside("billing");
    bench.core.commit_offsets(group, offsets(&[0])).unwrap();
    bench.lose();
    let expired = Error::new(ErrorKind::Timeout, "a record expired");
    bench.core.fail(expired);
    // Nothing is asked until the caller aborts, and until then nothing wakes the driver.
    assert_eq!(bench.request(), None);
    assert_eq!(bench.core.poll_timeout(), None);
}

#[test]
fn an_answer_that_names_one_partition_twice_has_passed_the_other_over() {
    let twice = || codes(&[(0, Code::NONE), (0, Code::NONE)]);
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.want(1);
    bench.answer(twice());
    // Asked at once, a broker that keeps to it would be asked without an end.
    assert!(bench.core.poll_timeout().is_some());
    bench.answer(codes(&[(1, Code::NONE)]));
    assert_eq!(bench.told(), "admitted 0; admitted 1");
    assert_eq!(bench.core.poll_timeout(), None);

    let mut bench = Bench::open(LEVEL_TWO);
    let group = GroupMetadata::outside("billing");
    let offsets = offsets(&[0, 1]);
    bench.core.commit_offsets(group, offsets).unwrap();
    bench.answer(twice());
    assert!(bench.core.poll_timeout().is_some());
    bench.answer(codes(&[(1, Code::NONE)]));
    assert_eq!(bench.told(), "offsets");
    assert_eq!(bench.core.poll_timeout(), None);
}

#[test]
fn another_epoch_that_is_asked_for_comes_with_the_end_of_the_next_transaction() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.answer(codes(&[(0, Code::NONE)]));
    bench.core.end(Decision::Commit).unwrap();
    bench.ended(Code::NONE, None);
    bench.core.renew_epoch();
    assert_eq!(bench.request(), None, "nothing is open");
    bench.core.begin().unwrap();
    bench.answer(LEVEL_ONE);
    bench.core.end(Decision::Commit).unwrap();
    assert_eq!(bench.answer(Answer::Identity(NEXT)), identify(FIRST));
    let told = "admitted 0; ended Commit; begun; ended Commit; identified 7/1";
    assert_eq!(bench.told(), told);
}
