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
    # Long enough for a join on a busy machine: one that ends just when the time is up is forgotten.
    for records in consumer.poll(timeout_ms=2000).values():
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

/// Writes and reads a topic whole: brokers, topic, codec, how many. Exits with 0 when each record came
/// back as it was, with its headers, in its partition's order.
pub(crate) const KAFKA_PYTHON_ROUND: &str = r#"
import sys
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
brokers, topic, codec, count = sys.argv[1:]
brokers, count = brokers.split(","), int(count)
producer = KafkaProducer(
    bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=20,
    compression_type=None if codec == "none" else codec)
headers = [("h", b"1"), ("h", b"2"), ("empty", b"")]
sent = [producer.send(topic, key=b"k%d" % (i % 50), value=b"v%d" % i, headers=headers) for i in range(count)]
producer.flush()
places = {(s.get(30).partition, s.get(30).offset): i for i, s in enumerate(sent)}
assert len(places) == count, len(places)
producer.close()
consumer = KafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", consumer_timeout_ms=20000)
partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
consumer.assign(partitions)
ends = consumer.end_offsets(partitions)
assert sum(ends.values()) == count, ends
consumer.seek_to_beginning()
for n, r in zip(range(count), consumer):
    i = places.pop((r.partition, r.offset))
    assert (r.key, r.value, list(r.headers)) == (b"k%d" % (i % 50), b"v%d" % i, headers), r
assert not places, "%d were not read" % len(places)
consumer.close()
"#;

/// The same with librdkafka.
pub(crate) const CONFLUENT_ROUND: &str = r#"
import sys
from confluent_kafka import Consumer, Producer, TopicPartition
brokers, topic, codec, count = sys.argv[1:]
count, places = int(count), {}
def delivered(i):
    def tell(error, r):
        assert error is None, error
        places[(r.partition(), r.offset())] = i
    return tell
producer = Producer({
    "bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 20, "compression.type": codec})
headers = [("h", b"1"), ("h", b"2"), ("null", None)]
for i in range(count):
    producer.produce(topic, b"v%d" % i, b"k%d" % (i % 50), headers=headers, on_delivery=delivered(i))
    producer.poll(0)
assert producer.flush(30) == 0
assert len(places) == count, len(places)
consumer = Consumer({
    "bootstrap.servers": brokers, "group.id": "none", "auto.offset.reset": "earliest", "check.crcs": True,
    "enable.auto.commit": False})
known = consumer.list_topics(topic, 10).topics[topic].partitions
ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in known]
assert sum(ends) == count, ends
consumer.assign([TopicPartition(topic, p, 0) for p in known])
while places:
    read = consumer.consume(1000, 20)
    assert read, "%d were not read" % len(places)
    for r in read:
        assert r.error() is None, r.error()
        i = places.pop((r.partition(), r.offset()))
        assert (r.key(), r.value(), r.headers()) == (b"k%d" % (i % 50), b"v%d" % i, headers), i
consumer.close()
"#;

/// Four transactions of a hundred records, every other one aborted: brokers, topic.
pub(crate) const TRANSACTIONS: &str = r#"
import sys
from confluent_kafka import Producer
brokers, topic = sys.argv[1:]
producer = Producer({"bootstrap.servers": brokers, "transactional.id": topic, "linger.ms": 1})
producer.init_transactions(60)
for round in range(4):
    producer.begin_transaction()
    for number in range(100):
        producer.produce(topic, b"%d-%d" % (round, number), partition=0)
        if number % 30 == 0:
            producer.flush(30)
    assert producer.flush(30) == 0
    producer.abort_transaction(60) if round % 2 else producer.commit_transaction(60)
"#;

/// Copies what is committed of partition 0, up to ten records a transaction, each third transaction first
/// aborted and done again; at last a second producer fences the first: brokers, topic, copy, group.
pub(crate) const TRANSACTIONAL_COPY: &str = r#"
import sys
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
brokers, topic, copy, group = sys.argv[1:]
def begun():
    producer = Producer({"bootstrap.servers": brokers, "transactional.id": group, "linger.ms": 1})
    producer.init_transactions(60)
    return producer
producer = begun()
consumer = Consumer({
    "bootstrap.servers": brokers, "group.id": group, "isolation.level": "read_committed",
    "auto.offset.reset": "earliest", "enable.auto.commit": False})
consumer.subscribe([topic])
rounds = 0
while True:
    read = consumer.consume(10, 20 if rounds == 0 else 2)
    if not read:
        break
    for abort in [True, False] if rounds % 3 == 0 else [False]:
        producer.begin_transaction()
        for r in read:
            assert r.error() is None, r.error()
            producer.produce(copy, r.value(), partition=0)
        assert producer.flush(30) == 0
        next = [TopicPartition(topic, 0, read[-1].offset() + 1)]
        producer.send_offsets_to_transaction(next, consumer.consumer_group_metadata(), 60)
        producer.abort_transaction(60) if abort else producer.commit_transaction(60)
    rounds += 1
consumer.close()
second = begun()
try:
    producer.begin_transaction()
    producer.produce(copy, b"zombie", partition=0)
    producer.commit_transaction(60)
except KafkaException as error:
    assert error.args[0].fatal(), error
else:
    assert False, "the first producer was not fenced"
"#;
