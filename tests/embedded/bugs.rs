//! The bugs that other clients have had, each as a test that bears its name.

mod flow;
mod hostile;
mod sequences;
mod topics;
mod transactions;

use ottla::{Delivery, ProducerBuilder};
use ottla_broker::Cluster;

/// Three nodes and the topic `orders`.
async fn orders(partitions: i32) -> Cluster {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    builder.topic("orders", partitions).start().await.unwrap()
}

async fn connect(cluster: &Cluster) -> ProducerBuilder {
    let client = ottla_tests::client(cluster).connect().await.unwrap();
    client.producer()
}

/// Waits until every record is acknowledged.
async fn settle(deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

/// A value that begins with a number, and whose every byte follows from it.
fn value(number: u32, bytes: usize) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.extend((4..bytes).map(|at| (at as u32 / 9 + number).to_le_bytes()[0]));
    value
}

/// The numbers that a partition of `orders` holds, in their order.
fn numbers(cluster: &Cluster, partition: i32) -> Vec<u32> {
    let log = cluster.log("orders", partition).into_iter();
    log.map(|record| u32::from_be_bytes(record.value.unwrap()[..4].try_into().unwrap()))
        .collect()
}
