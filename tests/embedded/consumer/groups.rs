//! Members that share a topic.

use super::{PATIENCE, SECOND, broker, client, earliest, next, take, tp, write};
use ottla::TopicPartition;
use ottla::consumer::{Assignor, Builder, Config, OffsetReset, Rebalance};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// A member that reads on its own task until it is told to close.
struct Member {
    stop: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

/// What members say: who, and the record or the change.
#[derive(Debug)]
enum Said {
    Read(usize, TopicPartition, i64),
    Change(usize, Rebalance),
    Leaves(usize),
}

impl Member {
    async fn join(builder: Builder, who: usize, says: mpsc::UnboundedSender<Said>) -> Self {
        let tells = says.clone();
        let mut consumer = builder
            .on_rebalance(move |change| {
                tells.send(Said::Change(who, change.clone())).unwrap();
            })
            .build()
            .await
            .unwrap();
        let (stop, mut stopped) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    _ = stopped.recv() => break,
                    record = consumer.next() => {
                        let record = record.unwrap().unwrap();
                        let place = record.topic_partition().clone();
                        says.send(Said::Read(who, place, record.offset)).unwrap();
                    }
                }
            }
            says.send(Said::Leaves(who)).unwrap();
            consumer.close().await.unwrap();
        });
        Self { stop, task }
    }

    async fn leave(self) {
        self.stop.send(()).await.unwrap();
        self.task.await.unwrap();
    }
}

/// Three members come and go while records are written; every record is read exactly once, and no
/// member reads a partition that another one holds.
async fn members_come_and_go(assignors: &[Assignor]) {
    const PARTITIONS: i32 = 6;
    let broker = broker(PARTITIONS).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    let (says, mut said) = mpsc::unbounded_channel();
    let builder = || {
        let config = Config {
            assignors: assignors.to_vec(),
            group: Some("g".into()),
            auto_offset_reset: OffsetReset::Earliest,
            ..Config::default()
        };
        client.consumer().unwrap().config(config).topics(["t"])
    };
    let mut members = Vec::new();
    for who in 0..3 {
        members.push(Member::join(builder(), who, says.clone()).await);
        for round in 0..20 {
            for partition in 0..PARTITIONS {
                write(&producer, partition, [round]).await;
            }
            tokio::time::sleep(SECOND).await;
        }
    }
    members.remove(0).leave().await;
    for partition in 0..PARTITIONS {
        write(&producer, partition, 0..20).await;
    }
    tokio::time::sleep(60 * SECOND).await;
    for member in members {
        member.leave().await;
    }
    drop(says);
    let offsets = read_once(&mut said).await;
    for partition in 0..PARTITIONS {
        let of_one = &offsets[&tp(partition)];
        assert_eq!(of_one, &(0..80).collect::<Vec<_>>(), "{partition}");
    }
}

/// The offsets that were read of each partition, always by the member that held it.
async fn read_once(said: &mut mpsc::UnboundedReceiver<Said>) -> BTreeMap<TopicPartition, Vec<i64>> {
    let mut holders: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    let mut offsets: BTreeMap<TopicPartition, Vec<i64>> = BTreeMap::new();
    let (mut moved, mut lost) = (0, 0);
    while let Some(said) = said.recv().await {
        match said {
            Said::Read(who, partition, offset) => {
                assert_eq!(
                    holders.get(&partition),
                    Some(&who),
                    "{partition} is not {who}'s"
                );
                offsets.entry(partition).or_default().push(offset);
            }
            Said::Change(who, Rebalance::Assigned(partitions)) => {
                for partition in partitions {
                    let before = holders.insert(partition.clone(), who);
                    assert_eq!(before, None, "{partition} has two holders");
                }
            }
            Said::Change(who, Rebalance::Revoked(partitions)) => {
                for partition in partitions {
                    moved += 1;
                    assert_eq!(holders.remove(&partition), Some(who));
                }
            }
            Said::Change(_, Rebalance::Lost(_)) => lost += 1,
            Said::Leaves(who) => holders.retain(|_, holder| *holder != who),
        }
    }
    assert!(moved > 0);
    assert_eq!(lost, 0);
    offsets
}

#[tokio::test(start_paused = true)]
async fn cooperative_members_share_out_without_reading_anything_twice() {
    members_come_and_go(&[Assignor::CooperativeSticky]).await;
}

#[tokio::test(start_paused = true)]
async fn eager_members_share_out_without_reading_anything_twice() {
    members_come_and_go(&[Assignor::Range, Assignor::RoundRobin]).await;
}

/// Two consumers of one client must not wait for each other on one connection.
#[tokio::test(start_paused = true)]
async fn a_rebalance_of_two_consumers_of_one_client_takes_seconds_not_minutes() {
    let broker = broker(2).await;
    let client = client(&broker).await;
    let builder = || earliest(&client).group("g").topics(["t"]);
    let mut first = builder().build().await.unwrap();
    while first.assignment().len() < 2 {
        first.poll(1, SECOND).await.unwrap();
    }
    let began = Instant::now();
    let mut second = builder().build().await.unwrap();
    while first.assignment().len() != 1 || second.assignment().len() != 1 {
        first.poll(1, SECOND).await.unwrap();
        second.poll(1, SECOND).await.unwrap();
        assert!(
            began.elapsed() < 30 * SECOND,
            "the members wait for each other"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_who_does_not_come_back_loses_the_partitions_to_another() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    write(&producer, 0, 0..10).await;
    let (says, mut said) = mpsc::unbounded_channel();
    let builder = || {
        let config = Config {
            max_poll_interval: 20 * SECOND,
            ..Config::default()
        };
        let builder = client.consumer().unwrap().config(config);
        builder
            .group("g")
            .topics(["t"])
            .auto_offset_reset(OffsetReset::Earliest)
    };
    let slow = builder().on_rebalance(move |change| says.send(change.clone()).unwrap());
    let mut slow = slow.build().await.unwrap();
    assert_eq!(take(&mut slow, 2).await, [0, 1]);
    let mut quick = builder().build().await.unwrap();
    let taken_over = take(&mut quick, 9).await;
    assert_eq!(
        taken_over,
        (1..10).collect::<Vec<_>>(),
        "record 0 was done with, 1 was not"
    );
    assert_eq!(said.recv().await, Some(Rebalance::Assigned(vec![tp(0)])));
    quick.close().await.unwrap();
    write(&producer, 0, [10]).await;
    assert_eq!(take(&mut slow, 1).await, [10], "the slow one comes back");
    assert_eq!(said.recv().await, Some(Rebalance::Lost(vec![tp(0)])));
    assert_eq!(said.recv().await, Some(Rebalance::Assigned(vec![tp(0)])));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_dropped_leaves_the_group_and_commits_nothing() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    write(&client.producer().build().unwrap(), 0, 0..3).await;
    let builder = || earliest(&client).group("g").topics(["t"]);
    let mut first = builder().build().await.unwrap();
    assert_eq!(take(&mut first, 3).await, [0, 1, 2]);
    drop(first);
    let began = Instant::now();
    let mut second = builder().build().await.unwrap();
    assert_eq!(next(&mut second).await.offset, 0);
    assert!(
        began.elapsed() < 30 * SECOND,
        "the group waited for the session's end"
    );
}

/// A static member that comes back within its session finds its partitions, and nobody rebalances.
#[tokio::test(start_paused = true)]
async fn a_static_member_comes_back_without_a_rebalance() {
    let broker = broker(2).await;
    let client = client(&broker).await;
    let (says, mut said) = mpsc::unbounded_channel();
    let builder = |name: &str| {
        let says = says.clone();
        let builder = earliest(&client).group("g").instance(name).topics(["t"]);
        builder.on_rebalance(move |change| says.send(change.clone()).unwrap())
    };
    let mut one = builder("one").build().await.unwrap();
    let mut two = builder("two").build().await.unwrap();
    let began = Instant::now();
    while one.assignment().len() != 1 || two.assignment().len() != 1 {
        one.poll(1, SECOND).await.unwrap();
        two.poll(1, SECOND).await.unwrap();
        assert!(began.elapsed() < PATIENCE);
    }
    let before = two.assignment();
    two.close().await.unwrap();
    while said.try_recv().is_ok() {}
    let mut two = builder("two").build().await.unwrap();
    let back = timeout(PATIENCE, async {
        while two.assignment().is_empty() {
            two.poll(1, SECOND).await.unwrap();
            one.poll(1, SECOND).await.unwrap();
        }
    });
    back.await.unwrap();
    assert_eq!(two.assignment(), before);
    two.poll(1, SECOND).await.unwrap();
    assert_eq!(said.try_recv().ok(), Some(Rebalance::Assigned(before)));
    assert!(said.try_recv().is_err(), "the other member was disturbed");
}
