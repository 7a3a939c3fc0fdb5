//! What the exporter tells, metric by metric.
//!
//! By default names and labels that begin with `kafka_` are those of kafka_exporter, so that its dashboards and
//! alerts work, with two differences in what is told: a partition without a committed offset has no
//! lag and no current offset, where kafka_exporter says -1, and an unknown figure is left out, never
//! 0. The names of kafka-lag-exporter stand in their place where they are asked for. What begins with `ottla_` is ours.
//!
//! There is one series a partition and metric, and one a partition, group and metric: a group has a
//! series in every partition of the topics it commits in.

use super::lag_exporter;
use super::published::{Names, Own};
use super::sight::{GroupSight, Sight};
use super::text::{Family, Format, Page};
use ottla::cluster::Partition;
use ottla::lag::{PartitionLag, Progress, Snapshot, TopicLag};
use ottla::partitioner::PartitionHealth;
use std::fmt::Display;
use std::time::{Duration, Instant};

macro_rules! gauges {
    ($($constant:ident = $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(static $constant: Family = Family::gauge($name, &[$($label),*], $help);)*

        /// The names of all gauges.
        #[cfg(test)]
        pub(super) const GAUGES: &[&str] = &[$($name),*];
    };
}

gauges! {
    BROKERS = "kafka_brokers", [], "Brokers in the cluster.";
    BROKER_INFO = "kafka_broker_info", ["id", "address"], "A broker's address; always 1.";
    PARTITIONS = "kafka_topic_partitions", ["topic"], "Partitions of the topic.";
    END = "kafka_topic_partition_current_offset", ["topic", "partition"],
        "Where the log ends: the next record's offset.";
    START = "kafka_topic_partition_oldest_offset", ["topic", "partition"],
        "The first offset that is still there.";
    IN_SYNC = "kafka_topic_partition_in_sync_replica", ["topic", "partition"],
        "Copies that are in step.";
    LEADER = "kafka_topic_partition_leader", ["topic", "partition"], "The leader's broker id.";
    PREFERRED = "kafka_topic_partition_leader_is_preferred", ["topic", "partition"],
        "1 if the first of its copies leads the partition.";
    REPLICAS = "kafka_topic_partition_replicas", ["topic", "partition"],
        "Copies of the partition.";
    UNDER_REPLICATED = "kafka_topic_partition_under_replicated_partition",
        ["topic", "partition"], "1 if not all copies are in step.";
    COMMITTED = "kafka_consumergroup_current_offset", ["consumergroup", "topic", "partition"],
        "The group's committed offset.";
    COMMITTED_SUM = "kafka_consumergroup_current_offset_sum", ["consumergroup", "topic"],
        "The sum of the group's committed offsets in the topic.";
    LAG = "kafka_consumergroup_lag", ["consumergroup", "topic", "partition"],
        "Records between the committed offset and the end of the log.";
    LAG_SUM = "kafka_consumergroup_lag_sum", ["consumergroup", "topic"],
        "The sum of the known lags of the topic's partitions.";
    MEMBERS = "kafka_consumergroup_members", ["consumergroup"], "Members of the group.";
    LAG_SECONDS = "kafka_consumergroup_lag_seconds", ["consumergroup", "topic", "partition"],
        "How long ago the record that the group reads next was written; at least so long while \
         that record is older than the exporter's memory.";
    GROUP_STATUS = "ottla_group_status", ["consumergroup", "status"],
        "1 for the worst status of the group's partitions, 0 for the others: Burrow's words where \
         it has one, with STOP and STALL as one.";
    PARTITION_STATUS = "ottla_group_partition_status",
        ["consumergroup", "topic", "partition", "status"],
        "1 for how the group gets on in the partition, in Burrow's words where it has one.";
    LOST = "ottla_group_messages_lost", ["consumergroup", "topic", "partition"],
        "Records that were deleted from the log before the group read them.";
    RETENTION = "ottla_group_retention_margin", ["consumergroup", "topic", "partition"],
        "Records between the log's start and the committed offset: 0 when some are lost.";
    STABLE_LAG = "ottla_group_stable_lag", ["consumergroup", "topic", "partition"],
        "The lag up to the first open transaction, for groups that read committed records only.";
    RATE = "ottla_group_consumption_rate", ["consumergroup", "topic", "partition"],
        "Records a second that the partition's consumer reads.";
    DRAIN = "ottla_group_drain_seconds", ["consumergroup", "topic", "partition"],
        "What the consumer needs for its backlog: lag that commits do not explain, over its rate.";
    WEIGHT = "ottla_partition_weight", ["consumergroup", "topic", "partition"],
        "The share of new keyless records that the partition gets from a lag-aware producer, 0 to 1.";
    GROUP_AGE = "ottla_group_age_seconds", ["consumergroup"],
        "How old the oldest of the group's figures are that are told: those of a broker that is \
         silent are carried on.";
    REFUSED = "ottla_group_refused", ["consumergroup", "topic", "error"],
        "1 for a topic of the group that may not be seen; without a topic for its offsets or its \
         members, also where they are not told because of one of its topics.";
    BUILD = "ottla_exporter_build_info", ["version"], "The exporter's version; always 1.";
    UP = "ottla_exporter_up", [], "1 while the last look at the cluster and what was heard of lag are fresh.";
    GROUPS = "ottla_exporter_groups", [], "Groups that are watched.";
    LEFT_OUT = "ottla_exporter_groups_left_out", [],
        "Groups that are not watched because there are too many.";
    MISSING = "ottla_exporter_brokers_missing", [],
        "Brokers that did not list their groups at the last look.";
    LOOK_SECONDS = "ottla_exporter_look_seconds", [], "What the last look took.";
    LOOK_AGE = "ottla_exporter_look_age_seconds", [], "How long ago the last good look began.";
}

static LOOKS: Family = Family::counter("ottla_exporter_looks", "Looks at the cluster.");
static FAILURES: Family = Family::counter("ottla_exporter_look_failures", "Looks that failed.");

/// The names of all counters, as they are told.
#[cfg(test)]
pub(super) const COUNTERS: &[&str] = &[
    "ottla_exporter_looks_total",
    "ottla_exporter_look_failures_total",
];

/// Writes what was seen, which is the same for all scrapers until the next look.
pub(super) fn write_seen(sight: &Sight, names: &Names, format: Format) -> String {
    let mut page = Page::new(format);
    match names {
        Names::KafkaExporter => {
            write_cluster(&mut page, sight);
            write_topics(&mut page, sight);
            write_groups(&mut page, sight);
        }
        Names::LagExporter { cluster_name } => {
            lag_exporter::write(&mut page, sight, cluster_name.as_deref());
        }
    }
    write_ours(&mut page, sight);
    page.part()
}

/// Writes what goes on to change while nothing new is seen, and ends the page: how old what was seen
/// is, and how the exporter itself does. `sight` is the last good look unless that is too old to tell.
pub(super) fn write_now(sight: Option<&Sight>, own: &Own, now: Instant, format: Format) -> String {
    let mut page = Page::new(format);
    if let Some(sight) = sight {
        let mut ages = page.begin(&GROUP_AGE);
        for group in &sight.groups {
            ages.put(&[&group.group], seconds(now, told_at(&group.snapshot)));
        }
    }
    write_own(&mut page, sight, own, now);
    page.finish()
}

fn write_own(page: &mut Page, sight: Option<&Sight>, own: &Own, now: Instant) {
    page.begin(&BUILD).put(&[env!("CARGO_PKG_VERSION")], 1);
    page.begin(&UP)
        .put(&[], u8::from(own.trouble(now).is_none()));
    page.begin(&LOOKS).put(&[], own.looks);
    page.begin(&FAILURES).put(&[], own.failures);
    let took = own.took.map(|took| took.as_secs_f64());
    page.begin(&LOOK_SECONDS).put_known(&[], took);
    let age = own.good_at.map(|at| seconds(now, at));
    page.begin(&LOOK_AGE).put_known(&[], age);
    page.begin(&GROUPS)
        .put_known(&[], sight.map(|sight| sight.groups.len()));
    page.begin(&LEFT_OUT)
        .put_known(&[], sight.map(|sight| sight.groups_left_out));
    page.begin(&MISSING)
        .put_known(&[], sight.map(|sight| sight.brokers_missing));
}

fn write_cluster(page: &mut Page, sight: &Sight) {
    let brokers = &sight.view.brokers;
    page.begin(&BROKERS).put(&[], brokers.len());
    let mut info = page.begin(&BROKER_INFO);
    for (id, broker) in brokers {
        let address = format!("{}:{}", broker.host, broker.port);
        info.put(&[&id.0.to_string(), &address], 1);
    }
}

fn write_topics(page: &mut Page, sight: &Sight) {
    let mut counts = page.begin(&PARTITIONS);
    for (name, edges) in &sight.ends {
        let known = sight.view.topic(name);
        let count = known.map_or(edges.len(), |topic| topic.partitions.len());
        // Of a topic that is gone, or may no longer be seen, it is not known.
        counts.put_known(&[name], Some(count).filter(|count| *count > 0));
    }
    type Edge = fn(&super::sight::Edges) -> Option<i64>;
    let edges: [(_, Edge); 2] = [(&END, |edges| edges.end), (&START, |edges| edges.start)];
    for (family, figure) in edges {
        let mut samples = page.begin(family);
        for (name, edges) in &sight.ends {
            for (number, edges) in edges.iter().enumerate() {
                samples.put_known(&[name, &number.to_string()], figure(edges));
            }
        }
    }
    type Figure = fn(&Partition) -> Option<i64>;
    let figures: [(_, Figure); 5] = [
        (&IN_SYNC, |partition| {
            i64::try_from(partition.in_sync.len()).ok()
        }),
        (&LEADER, |partition| {
            partition.leader.map(|leader| i64::from(leader.0))
        }),
        (&PREFERRED, |partition| {
            let first = partition.replicas.first();
            Some(i64::from(
                first.is_some() && partition.leader.as_ref() == first,
            ))
        }),
        (&REPLICAS, |partition| {
            i64::try_from(partition.replicas.len()).ok()
        }),
        (&UNDER_REPLICATED, |partition| {
            Some(i64::from(
                partition.in_sync.len() < partition.replicas.len(),
            ))
        }),
    ];
    for (family, figure) in figures {
        let mut samples = page.begin(family);
        for name in sight.ends.keys() {
            let partitions = sight.view.topic(name).map(|topic| &topic.partitions);
            for (number, partition) in partitions.into_iter().flatten().enumerate() {
                samples.put_known(&[name, &number.to_string()], figure(partition));
            }
        }
    }
}

fn write_groups(page: &mut Page, sight: &Sight) {
    let mut members = page.begin(&MEMBERS);
    for group in &sight.groups {
        let count = group.members.as_ref().map(Vec::len);
        members.put_known(&[&group.group], count);
    }
    type Sum = fn(&TopicLag) -> Option<u64>;
    let sums: [(_, Sum); 2] = [
        (&COMMITTED_SUM, |topic| {
            let committed = topic.partitions.iter().filter_map(|lag| lag.committed);
            committed
                .filter_map(|offset| u64::try_from(offset).ok())
                .reduce(u64::saturating_add)
        }),
        (&LAG_SUM, TopicLag::lag),
    ];
    for (family, figure) in sums {
        let mut samples = page.begin(family);
        for group in &sight.groups {
            for topic in &group.snapshot.topics {
                samples.put_known(&[&group.group, &topic.topic], figure(topic));
            }
        }
    }
    by_partition(page, sight, &COMMITTED, |lag, _| lag.committed);
    by_partition(page, sight, &LAG, |lag, _| lag.lag);
    by_partition(page, sight, &LAG_SECONDS, |lag, _| {
        lag.time_lag.map(|time| time.duration().as_secs_f64())
    });
}

/// When the oldest figure was taken that is told: those of a broker that is silent are carried on.
pub(super) fn told_at(snapshot: &Snapshot) -> Instant {
    let partitions = snapshot.topics.iter().flat_map(|topic| &topic.partitions);
    let told = partitions.filter(|partition| partition.committed.is_some());
    let oldest = told.map(|partition| partition.taken_at).min();
    oldest.unwrap_or(snapshot.taken_at)
}

fn write_ours(page: &mut Page, sight: &Sight) {
    let mut refused = page.begin(&REFUSED);
    for group in &sight.groups {
        for (topic, code) in &group.refused {
            refused.put(&[&group.group, topic, &code.to_string()], 1);
        }
    }
    write_status(page, sight);
    by_partition(page, sight, &LOST, |lag, _| lag.lag.map(|_| lag.lost));
    by_partition(page, sight, &RETENTION, |lag, _| lag.retention_margin());
    by_partition(page, sight, &STABLE_LAG, |lag, _| lag.stable_lag());
    by_partition(page, sight, &RATE, |_, health| health?.rate);
    by_partition(page, sight, &DRAIN, |_, health| {
        health?.drain_time.map(|time| time.as_secs_f64())
    });
    by_partition(page, sight, &WEIGHT, |_, health| Some(health?.weight));
}

fn write_status(page: &mut Page, sight: &Sight) {
    let mut samples = page.begin(&GROUP_STATUS);
    for group in &sight.groups {
        let status = group.snapshot.progress();
        for one in Progress::ALL {
            samples.put(&[&group.group, one.name()], u8::from(one == status));
        }
    }
    let mut samples = page.begin(&PARTITION_STATUS);
    each(sight, |group, topic, number, lag, _| {
        samples.put(&[group, topic, number, lag.progress.name()], 1);
    });
}

/// One metric of every group's partitions.
fn by_partition<F: Display>(
    page: &mut Page,
    sight: &Sight,
    family: &'static Family,
    figure: impl Fn(&PartitionLag, Option<&PartitionHealth>) -> Option<F>,
) {
    let mut samples = page.begin(family);
    each(sight, |group, topic, number, lag, health| {
        samples.put_known(&[group, topic, number], figure(lag, health));
    });
}

/// Calls with every group's partitions: group, topic, number, figures, and why it has its share.
fn each(
    sight: &Sight,
    mut call: impl FnMut(&str, &str, &str, &PartitionLag, Option<&PartitionHealth>),
) {
    for GroupSight {
        group,
        snapshot,
        explained,
        ..
    } in &sight.groups
    {
        for (topic, explained) in snapshot.topics.iter().zip(explained) {
            let health = explained.as_ref().map_or(&[][..], |one| &one.partitions);
            for (at, lag) in topic.partitions.iter().enumerate() {
                let number = lag.partition.to_string();
                call(group, &topic.topic, &number, lag, health.get(at));
            }
        }
    }
}

fn seconds(now: Instant, then: Instant) -> f64 {
    let age: Duration = now.saturating_duration_since(then);
    age.as_secs_f64()
}
