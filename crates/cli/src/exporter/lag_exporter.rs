//! Topics and groups under the names of kafka-lag-exporter, for its dashboards and alerts.
//!
//! As it has them, with one difference: what is unknown is left out, where it says NaN. A group's
//! partition that no member reads, or several, has empty labels for the member.

use super::sight::{Edges, GroupSight, Sight};
use super::text::{Family, Page};
use ottla::GroupMember;
use ottla::lag::{PartitionLag, Snapshot};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Labels of one partition of a group.
const OF_PARTITION: &[&str] = &[
    "cluster_name",
    "group",
    "topic",
    "partition",
    "member_host",
    "consumer_id",
    "client_id",
];
const OF_GROUP: &[&str] = &["cluster_name", "group"];
const OF_LOG: &[&str] = &["cluster_name", "topic", "partition"];

static LATEST: Family = Family::gauge(
    "kafka_partition_latest_offset",
    OF_LOG,
    "Where the log ends: the next record's offset.",
);
static EARLIEST: Family = Family::gauge(
    "kafka_partition_earliest_offset",
    OF_LOG,
    "The first offset that is still there.",
);
static OFFSET: Family = Family::gauge(
    "kafka_consumergroup_group_offset",
    OF_PARTITION,
    "The group's committed offset.",
);
static LAG: Family = Family::gauge(
    "kafka_consumergroup_group_lag",
    OF_PARTITION,
    "Records between the committed offset and the end of the log.",
);
static LAG_SECONDS: Family = Family::gauge(
    "kafka_consumergroup_group_lag_seconds",
    OF_PARTITION,
    "How long ago the record that the group reads next was written.",
);
static MAX_LAG: Family = Family::gauge(
    "kafka_consumergroup_group_max_lag",
    OF_GROUP,
    "The largest known lag among the group's partitions.",
);
static MAX_LAG_SECONDS: Family = Family::gauge(
    "kafka_consumergroup_group_max_lag_seconds",
    OF_GROUP,
    "The largest known lag in seconds among the group's partitions.",
);
static SUM_LAG: Family = Family::gauge(
    "kafka_consumergroup_group_sum_lag",
    OF_GROUP,
    "The sum of the known lags of the group's partitions.",
);
static TOPIC_SUM_LAG: Family = Family::gauge(
    "kafka_consumergroup_group_topic_sum_lag",
    &["cluster_name", "group", "topic"],
    "The sum of the known lags of the topic's partitions.",
);

/// Writes all of it; the cluster is called by its own id unless it has a name.
pub(super) fn write(page: &mut Page, sight: &Sight, cluster_name: Option<&str>) {
    let cluster = cluster_name.or(sight.view.cluster_id.as_deref());
    let cluster = cluster.unwrap_or_default();
    by_log(page, sight, cluster, &LATEST, |edges| edges.end);
    by_log(page, sight, cluster, &EARLIEST, |edges| edges.start);
    by_partition(page, sight, cluster, &OFFSET, |lag| lag.committed);
    by_partition(page, sight, cluster, &LAG, |lag| lag.lag);
    by_partition(page, sight, cluster, &LAG_SECONDS, lag_seconds);
    by_group(page, sight, cluster, &MAX_LAG, |snapshot| {
        partitions(snapshot).filter_map(|lag| lag.lag).max()
    });
    by_group(page, sight, cluster, &MAX_LAG_SECONDS, |snapshot| {
        let seconds = partitions(snapshot).filter_map(lag_seconds);
        seconds.reduce(f64::max)
    });
    by_group(page, sight, cluster, &SUM_LAG, Snapshot::lag);
    let mut sums = page.begin(&TOPIC_SUM_LAG);
    for group in &sight.groups {
        for topic in &group.snapshot.topics {
            sums.put_known(&[cluster, &group.group, &topic.topic], topic.lag());
        }
    }
}

fn by_log(
    page: &mut Page,
    sight: &Sight,
    cluster: &str,
    family: &'static Family,
    figure: impl Fn(&Edges) -> Option<i64>,
) {
    let mut samples = page.begin(family);
    for (topic, edges) in &sight.ends {
        for (number, edges) in edges.iter().enumerate() {
            samples.put_known(&[cluster, topic, &number.to_string()], figure(edges));
        }
    }
}

fn partitions(snapshot: &Snapshot) -> impl Iterator<Item = &PartitionLag> {
    let topics = snapshot.topics.iter();
    topics.flat_map(|topic| &topic.partitions)
}

fn lag_seconds(lag: &PartitionLag) -> Option<f64> {
    lag.time_lag.map(|time| time.duration().as_secs_f64())
}

fn by_group<F: Display>(
    page: &mut Page,
    sight: &Sight,
    cluster: &str,
    family: &'static Family,
    figure: impl Fn(&Snapshot) -> Option<F>,
) {
    let mut samples = page.begin(family);
    for group in &sight.groups {
        samples.put_known(&[cluster, &group.group], figure(&group.snapshot));
    }
}

fn by_partition<F: Display>(
    page: &mut Page,
    sight: &Sight,
    cluster: &str,
    family: &'static Family,
    figure: impl Fn(&PartitionLag) -> Option<F>,
) {
    let mut samples = page.begin(family);
    for group in &sight.groups {
        let readers = readers(group);
        for topic in &group.snapshot.topics {
            for lag in &topic.partitions {
                let reader = readers.get(&(&*topic.topic, lag.partition));
                let reader = reader.copied().flatten();
                let [host, id, client] = reader.map_or([""; 3], |member| {
                    [&*member.host, &*member.member_id, &*member.client_id]
                });
                let number = lag.partition.to_string();
                let labels = [
                    cluster,
                    &group.group,
                    &topic.topic,
                    &number,
                    host,
                    id,
                    client,
                ];
                samples.put_known(&labels, figure(lag));
            }
        }
    }
}

/// Who reads which partition; nobody where several do, as in a share group.
fn readers(group: &GroupSight) -> BTreeMap<(&str, i32), Option<&GroupMember>> {
    let mut readers = BTreeMap::new();
    for member in group.members.iter().flatten() {
        for at in &member.assigned {
            let reader = readers.entry((&*at.topic, at.partition));
            reader.and_modify(|one| *one = None).or_insert(Some(member));
        }
    }
    readers
}
