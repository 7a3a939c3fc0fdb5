//! A real Kafka cluster: a fresh topic for each run, whose end offsets tell what arrived.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::peers::Failure;

const TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

pub struct Cluster {
    pub bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
    topics: usize,
}

impl Cluster {
    pub fn connect(bootstrap: &str) -> Result<Cluster, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        let consumer: BaseConsumer = config.create()?;
        consumer.fetch_metadata(None, TIMEOUT)?;
        Ok(Cluster {
            bootstrap: bootstrap.to_owned(),
            admin: config.create()?,
            consumer,
            topics: 0,
        })
    }

    /// Makes a topic with the cluster's own replication factor and waits until all partitions are led.
    pub fn create_topic(&mut self, partitions: i32) -> Result<String, Failure> {
        self.topics += 1;
        let name = format!("versus-{}-{}", std::process::id(), self.topics);
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for result in wait(self.admin.create_topics([&topic], &options))?? {
            result.map_err(|(topic, code)| format!("topic {topic} was not created: {code}"))?;
        }
        let deadline = Instant::now() + TIMEOUT;
        while !self.is_led(&name, partitions)? {
            if Instant::now() >= deadline {
                return Err(format!("not all partitions of {name} are led").into());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(name)
    }

    fn is_led(&self, topic: &str, partitions: i32) -> Result<bool, Failure> {
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        Ok(metadata.topics().iter().any(|topic| {
            topic.partitions().len() == partitions as usize
                && topic.partitions().iter().all(|p| p.leader() >= 0)
        }))
    }

    /// How many records the topic holds.
    pub fn records(&self, topic: &str, partitions: i32) -> Result<u64, Failure> {
        let mut records = 0;
        for partition in 0..partitions {
            let (low, high) = self.consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
            records += (high - low) as u64;
        }
        Ok(records)
    }

    pub fn delete_topic(&self, topic: &str) -> Result<(), Failure> {
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for result in wait(self.admin.delete_topics(&[topic], &options))?? {
            result.map_err(|(topic, code)| format!("topic {topic} was not deleted: {code}"))?;
        }
        Ok(())
    }
}

/// librdkafka's own threads finish the future; it has only to be looked at from time to time.
fn wait<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let mut future = Box::pin(future);
    let deadline = Instant::now() + 2 * TIMEOUT;
    loop {
        if let Some(value) = future.as_mut().now_or_never() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err("the cluster does not answer".into());
        }
        std::thread::sleep(PAUSE / 10);
    }
}
