use super::*;
use ottla_proto::Result;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

const CHUNK: usize = CHUNK_BYTES_MAX;

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A pool of so many chunks, and the accounts of so many leaders.
fn pool<const LEADERS: usize>(chunks: usize) -> (Arc<Pool>, [Arc<Account>; LEADERS]) {
    let pool = Pool::new(chunks * CHUNK);
    let leader = |at: usize| Some(BrokerId(i32::try_from(at).unwrap()));
    let accounts = std::array::from_fn(|at| pool.account(leader(at)));
    (pool, accounts)
}

/// One chunk.
fn take(
    account: &Arc<Account>,
    bytes: usize,
    reservation: Option<&mut Reservation>,
) -> Option<Vec<u8>> {
    let mut taken = None;
    let done = account.take(bytes, 0, 0, reservation, |chunk| taken = Some(chunk));
    assert_eq!(done, taken.is_some());
    taken
}

/// Takes large chunks until it is refused.
fn fill(account: &Arc<Account>) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| take(account, CHUNK, None)).collect()
}

fn give_back(account: &Arc<Account>, chunks: impl IntoIterator<Item = Vec<u8>>) {
    chunks
        .into_iter()
        .for_each(|chunk| drop(account.share(chunk, 0)));
}

fn reserve(
    accounts: &[&Arc<Account>],
    bytes: usize,
) -> impl Future<Output = Result<Option<Reservation>>> + use<> {
    let accounts: Vec<_> = accounts
        .iter()
        .map(|&account| Arc::clone(account))
        .collect();
    async move {
        let pool = Arc::clone(&accounts[0].pool);
        pool.reserve(&accounts, bytes, || false).await
    }
}

fn served<F>(future: Pin<&mut F>) -> Reservation
where
    F: Future<Output = Result<Option<Reservation>>>,
{
    match poll(future) {
        Poll::Ready(Ok(Some(reservation))) => reservation,
        other => panic!("not served: {other:?}"),
    }
}

#[test]
fn a_chunk_comes_back_only_when_the_last_holder_lets_go() {
    let (pool, [account]) = pool(32);
    let mut chunk = take(&account, 100, None).unwrap();
    assert_eq!(pool.used(), CHUNK_BYTES_MIN);
    chunk.extend_from_slice(b"abc");
    let batch = account.share(chunk, 0);
    let in_flight = batch.clone();
    drop(batch);
    assert_eq!(pool.used(), CHUNK_BYTES_MIN);
    assert_eq!(&in_flight[..], b"abc");
    drop(in_flight);
    assert_eq!(pool.used(), 0);
}

#[test]
fn those_who_wait_are_served_in_order_and_before_newcomers() {
    let (_pool, [account]) = pool(3);
    let mut full = fill(&account);
    assert_eq!(full.len(), 3);
    let mut first = pin!(reserve(&[&account], 2 * CHUNK));
    let mut second = pin!(reserve(&[&account], 100));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    give_back(&account, full.pop());
    assert!(
        poll(second.as_mut()).is_pending(),
        "what is free would do for the second, but the first has waited longer"
    );
    assert!(
        take(&account, 1, None).is_none(),
        "a newcomer must not take what the first waits for"
    );
    give_back(&account, full.pop());
    let reservation = served(first.as_mut());
    assert!(poll(second.as_mut()).is_pending());
    give_back(&account, full.pop());
    drop((served(second.as_mut()), reservation));
    assert!(take(&account, 1, None).is_some(), "nobody waits any more");
}

#[test]
fn a_full_pool_serves_all_that_fit_once_a_sixteenth_is_free_and_not_one_a_chunk() {
    let (pool, [account]) = pool(64);
    let mut full = fill(&account);
    let mut callers: Vec<_> = (0..5)
        .map(|_| Box::pin(reserve(&[&account], 100)))
        .collect();
    let mut pending = || {
        let pending = callers.iter_mut().filter_map(|caller| {
            let still = poll(caller.as_mut()).is_pending();
            still.then_some(())
        });
        pending.count()
    };
    assert_eq!(pending(), 5);
    for _ in 0..3 {
        give_back(&account, full.pop());
        assert_eq!(pool.waiting(), 5);
    }
    give_back(&account, full.pop());
    assert_eq!(pool.waiting(), 1, "four chunks are free: four are served");
}

#[test]
fn a_waiter_that_leaves_holds_nothing_and_lets_those_behind_go_first() {
    let (pool, [account]) = pool(2);
    let mut full = fill(&account);
    {
        let mut gone = Box::pin(reserve(&[&account], 2 * CHUNK));
        let mut behind = pin!(reserve(&[&account], 100));
        assert!(poll(gone.as_mut()).is_pending());
        assert!(poll(behind.as_mut()).is_pending());
        give_back(&account, full.pop());
        assert!(poll(behind.as_mut()).is_pending());
        drop(gone);
        drop(served(behind.as_mut()));
    }
    give_back(&account, full.pop());
    assert_eq!((pool.used(), pool.waiting()), (0, 0));
    assert!(take(&account, 1, None).is_some());
}

#[test]
fn a_granted_reservation_that_is_not_used_up_goes_back() {
    let (pool, [account]) = pool(4);
    let mut waiting = pin!(reserve(&[&account], 10));
    let mut reservation = served(waiting.as_mut());
    assert_eq!(pool.used(), CHUNK);
    let chunk = take(&account, 1, Some(&mut reservation)).unwrap();
    drop(reservation);
    assert_eq!(pool.used(), chunk.capacity());
}

#[test]
fn those_who_wait_hear_of_the_end_and_nobody_waits_after_it() {
    let (pool, [account]) = pool(1);
    let _full = fill(&account);
    let mut before = pin!(reserve(&[&account], 10));
    assert!(poll(before.as_mut()).is_pending());
    pool.close();
    assert!(matches!(poll(before.as_mut()), Poll::Ready(Err(_))));
    assert_eq!(pool.waiting(), 0);
    let mut after = pin!(reserve(&[&account], 10));
    assert!(matches!(poll(after.as_mut()), Poll::Ready(Err(_))));
}

#[test]
fn one_account_may_take_all_but_one_of_several_at_most_two_thirds() {
    let (_pool, [alone]) = pool(30);
    assert_eq!(fill(&alone).len(), 30);
    let (_pool, [dead, living, other]) = pool(30);
    let stuck = fill(&dead);
    assert_eq!(stuck.len(), 20);
    let first = fill(&living);
    let second = fill(&other);
    assert!(
        first.len() >= 4 && second.len() >= 2,
        "{first:?} {second:?}"
    );
    assert!(take(&dead, 1, None).is_none());
}

#[test]
fn an_account_without_partitions_or_chunks_is_none_of_those_who_share() {
    let (pool, [first, second]) = pool(9);
    let chunk = take(&second, CHUNK, None).unwrap();
    let in_flight = second.share(chunk, 0);
    drop(second);
    let held = fill(&first);
    assert_eq!(held.len(), 5, "its chunk is still on its way");
    drop(in_flight);
    assert_eq!(fill(&first).len(), 4);
    let again = pool.account(Some(BrokerId(0)));
    assert!(Arc::ptr_eq(&again, &first), "one account a leader");
}

#[test]
fn who_waits_for_one_leader_does_not_hold_up_those_of_others() {
    let (_pool, [dead, living]) = pool(30);
    let _stuck = fill(&dead);
    let mut behind_dead = pin!(reserve(&[&dead], 100));
    assert!(poll(behind_dead.as_mut()).is_pending());
    let mut busy = fill(&living);
    assert!(!busy.is_empty(), "newcomers");
    let mut waiting = pin!(reserve(&[&living], 100));
    assert!(poll(waiting.as_mut()).is_pending());
    give_back(&living, busy.drain(..));
    drop(served(waiting.as_mut()));
    assert!(poll(behind_dead.as_mut()).is_pending());
}

#[test]
fn a_caller_without_a_fixed_leader_is_served_by_the_first_that_has_room() {
    let (pool, [dead, living]) = pool(30);
    let _stuck = fill(&dead);
    let busy = fill(&living);
    let mut any = pin!(reserve(&[&dead, &living], 100));
    assert!(poll(any.as_mut()).is_pending());
    let mut behind = pin!(reserve(&[&dead], 100));
    assert!(poll(behind.as_mut()).is_pending());
    give_back(&living, busy);
    let mut reservation = served(any.as_mut());
    assert!(
        !reservation.serves(&dead),
        "the bytes are the living leader's"
    );
    assert!(take(&dead, 1, Some(&mut reservation)).is_none());
    assert!(take(&living, 1, Some(&mut reservation)).is_some());
    drop(reservation);
    assert_eq!(pool.waiting(), 1);
    assert!(
        take(&living, 1, None).is_some(),
        "nobody waits for the living leader"
    );
}

#[test]
fn a_reservation_can_be_spent_on_another_leader_that_has_room() {
    let (_pool, [one, two]) = pool(8);
    let mut waiting = pin!(reserve(&[&one], 100));
    let mut reservation = served(waiting.as_mut());
    let chunk = take(&two, CHUNK, Some(&mut reservation)).unwrap();
    assert_eq!((one.used(), two.used()), (0, CHUNK));
    give_back(&two, [chunk]);
    assert_eq!(two.used(), 0);
}

#[test]
fn those_who_wait_for_a_partition_that_moves_look_again() {
    let (pool, [old, new]) = pool(30);
    let _stuck = fill(&old);
    let mut waiting = pin!(reserve(&[&old, &new], 100));
    let mut fixed = pin!(reserve(&[&old], 100));
    drop(served(waiting.as_mut()));
    assert!(poll(fixed.as_mut()).is_pending());
    old.dismiss();
    assert!(matches!(poll(fixed.as_mut()), Poll::Ready(Ok(None))));
    let accounts = [Arc::clone(&old)];
    let mut late = pin!(pool.reserve(&accounts, 100, || true));
    assert!(
        matches!(poll(late.as_mut()), Poll::Ready(Ok(None))),
        "it moved between the refusal and the wait"
    );
    assert_eq!(pool.waiting(), 0);
}

#[test]
fn open_batches_are_wanted_where_someone_waits_and_where_more_is_held() {
    let (pool, [less, more, asked]) = pool(16);
    let _held = (take(&less, CHUNK, None), take(&more, CHUNK, None));
    let _more = take(&more, CHUNK, None);
    let wanted = || {
        pool.heed();
        [&less, &more, &asked].map(|account| account.is_wanted())
    };
    assert_eq!(wanted(), [false; 3]);
    more.mark();
    assert_eq!(wanted(), [false, true, false]);
    assert_eq!(wanted(), [false; 3], "asked once, heeded once");
    less.mark();
    assert_eq!(wanted(), [true, true, false]);
    let _full = fill(&more);
    let mut waiting = pin!(reserve(&[&more], 100));
    assert!(poll(waiting.as_mut()).is_pending());
    assert_eq!(wanted(), [false, true, false]);
    assert_eq!(wanted(), [false, true, false], "as long as someone waits");
}

#[test]
fn a_large_record_takes_all_its_chunks_or_none() {
    let (pool, [account, _other]) = pool(4);
    let mut chunks = Vec::new();
    assert!(
        account.take(3 * CHUNK - 10, 0, 0, None, |chunk| chunks.push(chunk)),
        "beyond the threshold, but it is the account's first"
    );
    assert_eq!(chunks.len(), 3);
    assert!(!account.take(2 * CHUNK, 0, 0, None, |chunk| chunks.push(chunk)));
    assert_eq!((chunks.len(), pool.used()), (3, 3 * CHUNK));
}

#[test]
fn chunks_grow_with_the_batch() {
    let (_pool, [account]) = pool(256);
    let mut sizes = Vec::new();
    for expected in [0, 3_000, 20_000, 50_000, 700_000, 1_000_000] {
        assert!(account.take(100, expected, 0, None, |chunk| sizes.push(chunk.capacity())));
    }
    assert_eq!(
        sizes,
        [1 << 10, 1 << 12, 1 << 15, 1 << 15, 1 << 19, 1 << 20]
    );
}

#[test]
fn larger_chunks_of_open_batches_take_a_quarter_of_the_memory_at_most() {
    let (pool, [account]) = pool(256);
    let take = || {
        let mut taken = Vec::new();
        assert!(account.take(100, 1 << 20, 0, None, |chunk| taken.push(chunk)));
        taken
    };
    let size = |chunks: &[Vec<u8>]| chunks[0].capacity();
    let (first, second, third) = (take(), take(), take());
    assert_eq!((size(&first), size(&second)), (1 << 20, 1 << 20));
    assert_eq!(size(&third), CHUNK);
    give_back(&account, first);
    assert_eq!(size(&take()), 1 << 20);
    assert!(!account.take(pool.limit(), 0, 0, None, |_| unreachable!()));
}

#[test]
fn what_a_codec_made_is_counted_by_its_chunks_until_it_is_dropped() {
    let (pool, [account]) = pool(256);
    let made: Vec<u8> = (0..700_000).map(|at| at as u8).collect();
    let kept = account.adopt([&made[..300_000], &made[300_000..]], 1_500_000);
    assert_eq!(kept.concat(), made);
    assert_eq!(kept.len(), 2, "each costs an allocation");
    assert!(pool.used() * 2 <= made.len() * 3, "two thirds full");
    assert_eq!(account.used(), pool.used());
    drop(kept);
    assert_eq!((account.used(), pool.used()), (0, 0));
    // What hardly compresses takes not much more than it did before.
    let kept = account.adopt([&made[..]], made.len() + 500);
    assert!(
        pool.used() * 7 <= made.len() * 8 + 7 * CHUNK,
        "{}",
        pool.used()
    );
    drop(kept);
}

#[test]
fn what_a_codec_made_is_one_chunk_of_which_it_fills_two_thirds() {
    for bytes in (1..LARGE_BYTES_MAX).step_by(997) {
        let chunk = whole_chunk_bytes(bytes);
        assert!(class(chunk).is_some(), "{chunk} bytes are given back");
        assert!(bytes <= chunk, "{chunk} for {bytes}");
        let most = if bytes <= CHUNK {
            (2 * bytes).max(CHUNK_BYTES_MIN)
        } else {
            bytes + bytes / 2
        };
        assert!(chunk <= most, "{chunk} for {bytes}");
    }
    assert_eq!(whole_chunk_bytes(3 * LARGE_BYTES_MAX), LARGE_BYTES_MAX);
}

#[test]
fn each_size_of_chunk_has_a_list_of_its_own() {
    let sizes: Vec<_> = (0..=2 * LARGE_BYTES_MAX)
        .filter(|&bytes| class(bytes).is_some())
        .collect();
    assert_eq!(
        (sizes[0], sizes[CLASSES - 1]),
        (CHUNK_BYTES_MIN, LARGE_BYTES_MAX)
    );
    let places: Vec<_> = sizes.iter().filter_map(|&bytes| class(bytes)).collect();
    assert_eq!(places, (0..CLASSES).collect::<Vec<_>>());
}

#[test]
fn a_leader_refuses_from_the_first_ready_batch_until_it_takes_one() {
    let (_pool, [account]) = pool(1);
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(account.refused_for(now), Duration::ZERO);
    account.offer(now);
    account.offer(later(5));
    assert_eq!(account.refused_for(later(9)), Duration::from_secs(9));
    account.accept();
    assert_eq!(account.refused_for(later(9)), Duration::ZERO);
    account.offer(later(9));
    assert_eq!(account.refused_for(later(10)), Duration::from_secs(1));
}

#[test]
fn as_batches_fail_the_next_one_that_waits_is_found_without_a_look_at_all_that_failed() {
    const PLACES: usize = 10_000;
    let (_pool, [account]) = pool(1);
    let orders: [&dyn Fn(usize) -> usize; 3] = [&|nth| nth, &|nth| PLACES - 1 - nth, &|nth| {
        (nth * 7_919) % PLACES
    }];
    for fails in orders {
        let (mut waits, mut looks) = (vec![true; PLACES], 0);
        for nth in 0..PLACES {
            waits[fails(nth)] = false;
            let is_awaited = account.is_awaited(PLACES, |&at| {
                looks += 1;
                waits[at]
            });
            assert_eq!(is_awaited, nth + 1 < PLACES);
        }
        assert!(looks <= 4 * PLACES, "{looks}");
    }
    assert!(account.is_awaited(PLACES, |&at| at == 3_000));
    assert!(
        account.is_awaited(2_000, |&at| at == 0),
        "some are forgotten"
    );
    assert!(!account.is_awaited(0, |_| true));
}

#[test]
fn a_pool_that_ends_keeps_no_free_chunks() {
    let (pool, [account]) = pool(4);
    let mut chunks = fill(&account);
    give_back(&account, chunks.pop());
    assert_eq!(pool.free[class(CHUNK).unwrap()].lock().len(), 1);
    pool.close();
    give_back(&account, chunks);
    assert!(pool.free.iter().all(|class| class.lock().is_empty()));
}

#[test]
fn free_chunks_and_used_ones_are_never_more_than_the_limit_and_a_little() {
    let (pool, [account]) = pool(4);
    let most = pool.limit() + pool.limit() / FREE_SHARE;
    let holds = || pool.free_bytes.load(Ordering::Relaxed) + pool.used() <= most;
    // At first as many as there is room for of one size, then of another.
    for bytes in [CHUNK, CHUNK_BYTES_MIN, CHUNK] {
        let chunks: Vec<_> = std::iter::from_fn(|| take(&account, bytes, None)).collect();
        assert_eq!((pool.used(), holds()), (pool.limit(), true));
        give_back(&account, chunks);
        let free = pool.free_bytes.load(Ordering::Relaxed);
        assert_eq!(pool.used(), 0);
        assert!((pool.limit()..=most).contains(&free), "{free} are kept");
    }
}

#[test]
fn a_compressed_section_does_not_cost_a_full_buffer_a_large_chunk() {
    let (pool, [account]) = pool(64);
    let free = || pool.free[class(CHUNK).unwrap()].lock().len();
    let mut full = fill(&account);
    let mut sections = Vec::new();
    for round in 1..=4 {
        give_back(&account, full.pop());
        sections.push(account.adopt([&[0; 100][..]], 0));
        assert_eq!(free(), round);
    }
}
