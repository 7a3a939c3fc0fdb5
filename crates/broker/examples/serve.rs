//! Serves an embedded cluster until it is killed: `serve [nodes] [first port]`.

use ottla_broker::Cluster;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let nodes = args.next().map_or(Ok(3), |n| n.parse())?;
    let port = args.next().map_or(Ok(19092), |n| n.parse())?;
    let cluster = Cluster::builder()
        .nodes(nodes)
        .replication(i16::try_from(nodes.min(3))?)
        .auto_create_topics(true)
        .default_partitions(3)
        .topic("orders", 12)
        .port(port)
        .start()
        .await?;
    println!("{}", cluster.bootstrap());
    std::future::pending::<()>().await;
    Ok(())
}
