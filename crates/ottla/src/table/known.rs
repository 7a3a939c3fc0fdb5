//! The names that users bring with them from other clients are all known here.

use crate::properties::Properties;

/// What the Java client and librdkafka call their properties, with the values that they default to
/// or that their users write most.
const BROUGHT: &[(&str, &[&str])] = &[
    ("bootstrap.servers", &["a:9092,b:9092"]),
    ("metadata.broker.list", &["a:9092"]),
    ("client.id", &["rdkafka"]),
    ("acks", &["all", "-1", "1", "0"]),
    ("request.required.acks", &["-1"]),
    ("enable.idempotence", &["true", "false"]),
    (
        "max.in.flight.requests.per.connection",
        &["5", "1", "1000000"],
    ),
    ("max.in.flight", &["1000000"]),
    ("retries", &["2147483647", "0"]),
    ("message.send.max.retries", &["2147483647"]),
    ("delivery.timeout.ms", &["120000"]),
    ("message.timeout.ms", &["300000"]),
    ("request.timeout.ms", &["30000"]),
    ("socket.timeout.ms", &["60000"]),
    ("linger.ms", &["5", "0"]),
    ("queue.buffering.max.ms", &["5"]),
    ("batch.size", &["16384", "1000000"]),
    ("batch.num.messages", &["10000"]),
    ("buffer.memory", &["33554432"]),
    ("queue.buffering.max.kbytes", &["1048576"]),
    ("queue.buffering.max.messages", &["100000"]),
    ("max.block.ms", &["60000"]),
    ("max.request.size", &["1048576"]),
    ("message.max.bytes", &["1000000"]),
    (
        "compression.type",
        &["none", "gzip", "snappy", "lz4", "zstd"],
    ),
    ("compression.codec", &["none"]),
    ("compression.gzip.level", &["-1"]),
    ("compression.lz4.level", &["9"]),
    ("compression.zstd.level", &["3"]),
    ("compression.level", &["-1"]),
    (
        "partitioner.class",
        &[
            "",
            "org.apache.kafka.clients.producer.RoundRobinPartitioner",
        ],
    ),
    ("partitioner", &["consistent_random"]),
    ("partitioner.adaptive.partitioning.enable", &["true"]),
    ("partitioner.availability.timeout.ms", &["0"]),
    ("partitioner.ignore.keys", &["false"]),
    ("sticky.partitioning.linger.ms", &["10"]),
    ("transactional.id", &["", "billing-1"]),
    ("transaction.timeout.ms", &["60000"]),
    ("transaction.two.phase.commit.enable", &["false"]),
    ("retry.backoff.ms", &["100"]),
    ("retry.backoff.max.ms", &["1000"]),
    ("reconnect.backoff.ms", &["50", "100"]),
    ("reconnect.backoff.max.ms", &["1000", "10000"]),
    ("socket.connection.setup.timeout.ms", &["10000", "30000"]),
    ("socket.connection.setup.timeout.max.ms", &["30000"]),
    ("connections.max.idle.ms", &["540000", "-1", "0"]),
    ("metadata.max.age.ms", &["300000", "900000"]),
    ("topic.metadata.refresh.interval.ms", &["300000"]),
    ("metadata.max.idle.ms", &["300000"]),
    ("metadata.recovery.strategy", &["rebootstrap", "none"]),
    ("metadata.recovery.rebootstrap.trigger.ms", &["300000"]),
    ("send.buffer.bytes", &["131072", "-1"]),
    ("receive.buffer.bytes", &["32768", "65536", "-1"]),
    ("socket.send.buffer.bytes", &["0"]),
    ("socket.receive.buffer.bytes", &["0"]),
    ("enable.metrics.push", &["true", "false"]),
    (
        "client.dns.lookup",
        &[
            "use_all_dns_ips",
            "resolve_canonical_bootstrap_servers_only",
        ],
    ),
    ("security.protocol", &["PLAINTEXT", "SASL_SSL"]),
    ("sasl.mechanism", &["GSSAPI"]),
    ("sasl.mechanisms", &["GSSAPI"]),
    ("group.id", &["billing"]),
    ("group.instance.id", &["i1"]),
    ("group.protocol", &["classic", "consumer"]),
    ("group.remote.assignor", &["uniform"]),
    (
        "partition.assignment.strategy",
        &[
            "range,roundrobin",
            "org.apache.kafka.clients.consumer.RangeAssignor",
        ],
    ),
    ("session.timeout.ms", &["45000"]),
    ("heartbeat.interval.ms", &["3000"]),
    ("max.poll.interval.ms", &["300000"]),
    ("max.poll.records", &["500"]),
    ("enable.auto.commit", &["true"]),
    ("auto.commit.interval.ms", &["5000"]),
    ("enable.auto.offset.store", &["true"]),
    ("auto.offset.reset", &["latest", "largest", "earliest"]),
    ("isolation.level", &["read_uncommitted", "read_committed"]),
    ("fetch.min.bytes", &["1"]),
    ("fetch.max.wait.ms", &["500"]),
    ("fetch.wait.max.ms", &["500"]),
    ("fetch.max.bytes", &["52428800"]),
    ("max.partition.fetch.bytes", &["1048576"]),
    ("check.crcs", &["true", "false"]),
    ("allow.auto.create.topics", &["true", "false"]),
    ("exclude.internal.topics", &["true"]),
    ("client.rack", &["", "a"]),
    ("default.api.timeout.ms", &["60000"]),
    ("queued.min.messages", &["100000"]),
    ("queued.max.messages.kbytes", &["65536"]),
    ("interceptor.classes", &["", "com.example.Tracing"]),
    ("metric.reporters", &["", "com.example.Reporter"]),
    ("metrics.num.samples", &["2"]),
    ("metrics.sample.window.ms", &["30000"]),
    ("metrics.recording.level", &["INFO"]),
    ("key.serializer", &["com.example.Text"]),
    ("value.serializer", &["com.example.Text"]),
    ("key.deserializer", &["com.example.Text"]),
    ("value.deserializer", &["com.example.Text"]),
];

/// Those that are only listed in a warning.
const LISTED: &[&str] = &[
    "batch.num.messages",
    "enable.auto.offset.store",
    "enable.metrics.push",
    "exclude.internal.topics",
    "group.remote.assignor",
    "interceptor.classes",
    "key.deserializer",
    "key.serializer",
    "max.poll.records",
    "metric.reporters",
    "metrics.num.samples",
    "metrics.recording.level",
    "metrics.sample.window.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queued.min.messages",
    "sasl.mechanism",
    "socket.connection.setup.timeout.max.ms",
    "sticky.partitioning.linger.ms",
    "transaction.two.phase.commit.enable",
    "value.deserializer",
    "value.serializer",
];

/// Values of what is not there yet: silence would be wrong.
const REFUSED: &[(&str, &str)] = &[
    (
        "client.dns.lookup",
        "resolve_canonical_bootstrap_servers_only",
    ),
    ("security.protocol", "SASL_SSL"),
    ("group.protocol", "consumer"),
];

#[test]
fn each_property_of_other_clients_is_taken_or_listed_or_refused_with_what_would_do() {
    let mut all = Properties::new();
    let mut refused = Vec::new();
    for (name, values) in BROUGHT {
        for value in *values {
            let listed_before = all.ignored();
            match all.set(name, *value) {
                Ok(()) if all.get(name) == Some(value) => {}
                Ok(()) => {
                    let row = super::find(name).unwrap().name;
                    assert!(all.ignored().contains(&row), "{name}={value} is nowhere");
                }
                Err(error) => {
                    let wanted = format!("{name} must be one of ");
                    assert!(error.to_string().starts_with(&wanted), "{error}");
                    assert_eq!(all.ignored(), listed_before);
                    refused.push((*name, *value));
                }
            }
        }
    }
    assert_eq!(all.ignored(), LISTED);
    assert_eq!(refused, REFUSED);
    // Those whose settings they are take them too.
    let mut wire = ottla_wire::Settings::default();
    all.apply(ottla_wire::SETTINGS, |name, value| wire.set(name, value))
        .unwrap();
    let mut producer = ottla_producer::Config::default();
    all.apply(ottla_producer::SETTINGS, |name, value| {
        producer.set(name, value)
    })
    .unwrap();
    let mut consumer = ottla_consumer::Config::default();
    all.apply(ottla_consumer::SETTINGS, |name, value| {
        consumer.set(name, value)
    })
    .unwrap();
    crate::placement::by_properties(&all).unwrap();
}
