//! Writes to two topics in one transaction: readers of committed records see both records or none.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --example transaction`

use ottla::{Client, Record};

#[tokio::main]
async fn main() -> ottla::Result<()> {
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    let mut producer = client.transactional_producer("billing-1").build().await?;
    for (customer, amount) in [("ada", 3), ("grace", 0), ("linus", 5)] {
        let transaction = producer.begin().await?;
        let paid = amount.to_string();
        let order = Record::to("orders").key(customer).value("coffee");
        drop(transaction.enqueue(order).await?);
        let payment = Record::to("payments").key(customer).value(&paid);
        drop(transaction.enqueue(payment).await?);
        if amount == 0 {
            transaction.abort().await?;
            println!("{customer} did not pay: no order either");
        } else {
            transaction.commit().await?;
            println!("{customer} paid {amount}");
        }
    }
    producer.close().await
}
