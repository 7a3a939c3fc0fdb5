use super::*;

const LIMIT: usize = 4_000;

fn shop(buffer_bytes: usize) -> Shop {
    Shop {
        pool: Pool::new(buffer_bytes),
        inbox: Inbox::default(),
        serials: AtomicU64::new(0),
        delivery_timeout: Duration::from_secs(120),
        batch_bytes_max: 1 << 20,
        compresses: false,
        pressed: AtomicBool::new(false),
    }
}

fn slot(shop: &Shop) -> Slot {
    Slot::new(PartitionIndex(7), "orders".into(), 3, LIMIT, &shop.pool)
}

fn append(shop: &Shop, slot: &Slot, bytes: usize) -> Result<Delivery, Refused> {
    let value = vec![b'v'; bytes];
    let record = Record::to("orders").value(&value);
    slot.append(shop, &record, || 0, None, Instant::now, |_| {})
}

/// What the driver hears: the serials of opened and of sealed batches.
fn heard(shop: &Shop) -> Vec<(&'static str, u64)> {
    let name = |message| match message {
        Message::Opened { serial, .. } => ("opened", serial),
        Message::Sealed { parcel, .. } => ("sealed", parcel.serial),
        _ => ("other", 0),
    };
    shop.inbox.drain(Vec::new()).into_iter().map(name).collect()
}

#[test]
fn a_batch_is_sealed_when_it_is_full_and_the_next_one_opened_after_it() {
    let shop = shop(1 << 20);
    let slot = slot(&shop);
    for _ in 0..3 {
        drop(append(&shop, &slot, 1_500).unwrap());
    }
    assert_eq!(heard(&shop), [("opened", 0), ("sealed", 0), ("opened", 1)]);
    slot.set_limit(1 << 20);
    for _ in 0..3 {
        drop(append(&shop, &slot, 1_500).unwrap());
    }
    assert_eq!(heard(&shop), [], "it may grow");
    assert!(slot.seal(0).is_none(), "the driver means an older batch");
    assert_eq!(slot.seal(1).unwrap().contents.count(), 4);
}

#[test]
fn a_closed_slot_gives_what_is_open_and_takes_nothing_more() {
    let shop = shop(1 << 20);
    let slot = slot(&shop);
    let delivery = append(&shop, &slot, 100).unwrap();
    assert_eq!(slot.close().unwrap().contents.count(), 1);
    assert!(slot.close().is_none());
    assert_eq!(append(&shop, &slot, 100).unwrap_err(), Refused::Closed);
    assert!(delivery.outcome().is_none());
    assert_eq!(shop.pool.used(), 0);
}

#[test]
fn a_refused_record_opens_no_batch() {
    let shop = shop(64 << 10);
    let slot = slot(&shop);
    let refused = append(&shop, &slot, 70_000).unwrap_err();
    assert!(matches!(refused, Refused::Full(bytes) if bytes > 70_000));
    assert_eq!(heard(&shop), []);
    assert_eq!(shop.pool.used(), 0);
}

#[test]
fn the_memory_of_an_open_batch_follows_its_leader_and_sealed_ones_keep_theirs() {
    let shop = shop(1 << 20);
    let slot = slot(&shop);
    let (one, two) = (Some(BrokerId(1)), Some(BrokerId(2)));
    slot.set_leader(one);
    let old = slot.account();
    drop(append(&shop, &slot, 1_500).unwrap());
    let sealed = slot.seal(0).unwrap();
    drop(append(&shop, &slot, 100).unwrap());
    let before = shop.pool.used();
    slot.set_leader(two);
    let new = slot.account();
    assert!(new.leader() == two && old.used() > 0 && new.used() > 0);
    let open = slot.close().unwrap();
    assert_eq!(shop.pool.used(), before);
    drop(sealed);
    assert_eq!((old.used(), new.used()), (0, shop.pool.used()));
    drop(open);
    assert_eq!((shop.pool.used(), old.used(), new.used()), (0, 0, 0));
}

#[test]
fn a_batch_that_is_to_be_compressed_gives_its_memory_back_to_its_leader_s_account() {
    let shop = Shop {
        compresses: true,
        ..shop(16 << 20)
    };
    let slot = slot(&shop);
    slot.set_limit(8 << 20);
    slot.set_leader(Some(BrokerId(1)));
    let account = slot.account();
    for bytes in [100, 300_000, 200_000] {
        drop(append(&shop, &slot, bytes).unwrap());
    }
    let parcel = slot.seal(0).unwrap();
    assert_eq!(parcel.contents.count(), 3);
    assert!(parcel.contents.raw_size_bytes() > 500_100);
    slot.set_leader(Some(BrokerId(2)));
    let used = account.used();
    assert!(used > 500_000 && used == shop.pool.used());
    drop(parcel);
    assert_eq!((account.used(), shop.pool.used()), (0, 0));
}

#[test]
fn what_waits_is_told_in_bytes() {
    let shop = shop(1 << 20);
    let slot = slot(&shop);
    assert_eq!(slot.waiting_bytes(), 0);
    drop(append(&shop, &slot, 1_500).unwrap());
    let open = slot.waiting_bytes();
    let sealed = slot.seal(0).unwrap().contents.raw_size_bytes() as u64;
    // The chunk that it is in may be much larger.
    assert_eq!((open, slot.waiting_bytes()), (sealed, 0));
    slot.set_queued(3);
    assert_eq!(slot.waiting_bytes(), 3 * sealed);
}

fn append_shared(shop: &Shop, slot: &Slot, value: &Bytes) -> Result<Delivery, Refused> {
    let record = Record::to("orders").value_bytes(value);
    slot.append(shop, &record, || 0, None, Instant::now, |_| {})
}

#[test]
fn a_kept_value_counts_until_its_batch_is_dropped() {
    let shop = shop(1 << 20);
    let slot = slot(&shop);
    slot.set_limit(1 << 20);
    let value = Bytes::from(vec![b'v'; 100_000]);
    for _ in 0..2 {
        drop(append_shared(&shop, &slot, &value).unwrap());
    }
    let used = shop.pool.used();
    assert!((200_000..210_000).contains(&used), "{used}");
    assert!(slot.waiting_bytes() > 200_000);
    slot.set_leader(Some(BrokerId(1)));
    assert_eq!(slot.account().used(), used);
    let sealed = slot.seal(0).unwrap();
    assert_eq!(shop.pool.used(), used);
    let on_its_way = segments(&sealed).to_vec();
    drop(sealed);
    assert_eq!(shop.pool.used(), used);
    drop(on_its_way);
    assert_eq!((shop.pool.used(), slot.account().used()), (0, 0));
}

#[test]
fn kept_values_are_refused_beyond_the_memory_like_copied_ones() {
    let shop = shop(256 << 10);
    let slot = slot(&shop);
    slot.set_limit(1 << 20);
    let value = Bytes::from(vec![b'v'; 60_000]);
    let mut taken = 0;
    let refused = loop {
        match append_shared(&shop, &slot, &value) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refused::Full(bytes) if bytes > 60_000 + CHUNK_BYTES_MAX));
    assert_eq!(taken, 4);
    assert!(shop.pool.used() <= 256 << 10);
    assert_eq!(slot.seal(0).unwrap().contents.count(), 4);
    assert_eq!(shop.pool.used(), 0, "nothing is left of the one refused");
}

#[test]
fn a_kept_value_that_finds_no_room_opens_no_batch() {
    let shop = shop(256 << 10);
    let (slot, other) = (slot(&shop), slot(&shop));
    other.set_limit(1 << 20);
    let small = Bytes::from(vec![b'v'; 30_000]);
    while append_shared(&shop, &other, &small).is_ok() {}
    let used = shop.pool.used();
    heard(&shop);
    // Neither when there is none at all, nor when there is just too little for a chunk beside it.
    for length in [60_000, shop.pool.limit() - used - 500] {
        let value = Bytes::from(vec![b'v'; length]);
        append_shared(&shop, &slot, &value).unwrap_err();
        assert_eq!((heard(&shop), shop.pool.used()), (vec![], used));
    }
}

#[test]
fn a_value_that_takes_much_of_the_memory_is_copied() {
    let shop = shop(256 << 10);
    let slot = slot(&shop);
    slot.set_limit(1 << 20);
    let value = Bytes::from(vec![b'v'; 100_000]);
    drop(append_shared(&shop, &slot, &value).unwrap());
    let sealed = slot.seal(0).unwrap();
    let pieces = segments(&sealed);
    assert!(pieces.iter().all(|piece| piece.as_ptr() != value.as_ptr()));
}

/// What a caller waited for is enough for its record, whatever the chunks beside it.
#[tokio::test]
async fn a_reservation_has_room_for_a_kept_value_and_its_chunk() {
    let shop = shop(1 << 20);
    let (slot, other) = (slot(&shop), slot(&shop));
    for each in [&slot, &other] {
        each.set_limit(2 << 20);
    }
    // The slot expects large batches from now on.
    for _ in 0..40 {
        drop(append(&shop, &slot, 5_000).unwrap());
    }
    drop(slot.seal(0).unwrap());
    let small = Bytes::from(vec![b'v'; 30_000]);
    while append_shared(&shop, &other, &small).is_ok() {}
    let value = Bytes::from(vec![b'v'; 32_000]);
    let refused = append_shared(&shop, &slot, &value).unwrap_err();
    let Refused::Full(wanted) = refused else {
        panic!("{refused:?}");
    };
    let accounts = [slot.account()];
    let (reserved, _) = tokio::join!(shop.pool.reserve(&accounts, wanted, || false), async {
        drop(other.seal(1).unwrap());
    });
    let mut reservation = reserved.unwrap().unwrap();
    while append_shared(&shop, &other, &small).is_ok() {}
    let record = Record::to("orders").value_bytes(&value);
    let reservation = Some(&mut reservation);
    let taken = slot.append(&shop, &record, || 0, reservation, Instant::now, |_| {});
    drop(taken.unwrap());
}

#[test]
fn a_leader_that_holds_nothing_gets_a_kept_value_and_its_chunk_of_what_is_free() {
    let shop = shop(1 << 20);
    let (stuck, idle) = (slot(&shop), slot(&shop));
    stuck.set_leader(Some(BrokerId(1)));
    idle.set_leader(Some(BrokerId(2)));
    stuck.set_limit(1 << 20);
    let small = Bytes::from(vec![b'v'; 20_000]);
    while append_shared(&shop, &stuck, &small).is_ok() {}
    let free = shop.pool.limit() - shop.pool.used();
    let value = Bytes::from(vec![b'v'; free - 10_000]);
    drop(append_shared(&shop, &idle, &value).unwrap());
}

/// What a refused record would have needed is not held back for it.
#[test]
fn a_record_that_is_refused_leaves_nothing_behind_in_an_open_batch() {
    let shop = shop(256 << 10);
    let slot = slot(&shop);
    slot.set_limit(1 << 20);
    let value = Bytes::from(vec![b'v'; 50_000]);
    drop(append_shared(&shop, &slot, &value).unwrap());
    let key = vec![b'k'; 200_000];
    let record = Record::to("orders").key(&key).value_bytes(&value);
    let used = shop.pool.used();
    let refused = slot.append(&shop, &record, || 0, None, Instant::now, |_| {});
    refused.unwrap_err();
    assert_eq!(shop.pool.used(), used);
}

fn segments(parcel: &Parcel) -> &[Bytes] {
    match &parcel.contents {
        Contents::Final(records) => records.segments(),
        Contents::Raw(_) => panic!("it is to be compressed"),
    }
}
