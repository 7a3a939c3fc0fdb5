//! Clients for Python: kafka-python, which is Python throughout, and confluent-kafka, which is
//! librdkafka. Each is a short program that prints records as kcat does.

use tokio::process::Command;

/// A run of a program with these arguments, by the Python that has the clients.
pub(crate) fn python(program: &str, arguments: &[&str]) -> Command {
    let python = std::env::var_os("OTTLA_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg("-u").args(["-c", program]).args(arguments);
    command
}

/// A member of a group until Ctrl-C: brokers, topic, group.
pub(crate) const KAFKA_PYTHON_MEMBER: &str = r#"
import signal, sys
from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
brokers, topic, group = sys.argv[1:]
ending = []
signal.signal(signal.SIGINT, lambda *_: ending.append(True))
consumer = KafkaConsumer(
    topic, bootstrap_servers=brokers.split(","), group_id=group, auto_offset_reset="earliest",
    auto_commit_interval_ms=500, partition_assignment_strategy=[RangePartitionAssignor])
while not ending:
    for records in consumer.poll(timeout_ms=200).values():
        for r in records:
            sys.stdout.write("%d\t%d\t\t%s\n" % (r.partition, r.offset, r.value.decode()))
consumer.close()
"#;

/// A member of a group until Ctrl-C: brokers, topic, group.
pub(crate) const CONFLUENT_MEMBER: &str = r#"
import signal, sys
from confluent_kafka import Consumer
brokers, topic, group = sys.argv[1:]
ending = []
signal.signal(signal.SIGINT, lambda *_: ending.append(True))
consumer = Consumer({
    "bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest",
    "auto.commit.interval.ms": 500, "partition.assignment.strategy": "cooperative-sticky"})
consumer.subscribe([topic])
while not ending:
    for r in consumer.consume(1000, 0.2):
        assert r.error() is None, r.error()
        sys.stdout.write("%d\t%d\t\t%s\n" % (r.partition(), r.offset(), r.value().decode()))
consumer.close()
"#;
