//! Serves an embedded cluster until it is killed: `serve [nodes] [first port] [seconds]`. With
//! seconds, one node after the other stops for a second, each time after so long.

use ottla_broker::Cluster;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let nodes = args.next().map_or(Ok(3), |n| n.parse())?;
    let port = args.next().map_or(Ok(19092), |n| n.parse())?;
    let pause = args.next().map(|n| n.parse()).transpose()?;
    let cluster = Cluster::builder()
        .nodes(nodes)
        .replication(i16::try_from(nodes.min(3))?)
        .auto_create_topics(true)
        .default_partitions(3)
        .topic("orders", 12)
        .election_delay(Duration::from_millis(200))
        .port(port)
        .start()
        .await?;
    println!("{}", cluster.bootstrap());
    let Some(pause) = pause else {
        return std::future::pending().await;
    };
    for node in (0..i32::from(nodes)).cycle() {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        cluster.stop_node(node).await?;
        println!("node {node} is down");
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.start_node(node).await?;
        println!("node {node} is up");
    }
    Ok(())
}
