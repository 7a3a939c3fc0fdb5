//! ConsumerGroupDescribe: the state and the members of KIP-848's groups, which DescribeGroups does
//! not know (brokers from 4.0, where the feature `group.version` is on).

use super::describe_groups::Request;
use super::{ItemError, from_millis, shared, shared_option, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId,
};
use ottla_proto::{Result, TopicPartition};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=1;

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The static member's name.
    pub instance_id: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub host: Arc<str>,
    /// What it reads now, which may still change to what it is to read.
    pub assigned: Vec<TopicPartition>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Kafka's word for its state.
    pub state: Arc<str>,
    /// The assignor in force.
    pub assignor: Arc<str>,
    /// The members.
    pub members: Vec<Member>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each group by its id: what it is, or why not. GROUP_ID_NOT_FOUND: it does not exist, or is of
    /// another type.
    pub groups: Vec<(Arc<str>, Result<Group, ItemError>)>,
}

/// Asks the groups' coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each group has
/// its own code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let api = ApiKey::ConsumerGroupDescribe;
    let version = connection.version(api, OURS)?;
    let groups = request.groups.iter().map(|group| GroupId(text(group)));
    let body = ConsumerGroupDescribeRequest::default().with_group_ids(groups.collect());
    let timeout = connection.request_timeout();
    let answer: ConsumerGroupDescribeResponse =
        super::call(connection, api, version, &body, timeout).await?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        groups: answer.groups.iter().map(described).collect(),
    })
}

fn described(group: &DescribedGroup) -> (Arc<str>, Result<Group, ItemError>) {
    let message = shared_option(group.error_message.as_ref()).filter(|text| !text.is_empty());
    let described = ItemError::check(group.error_code, message).map(|()| Group {
        state: shared(&group.group_state),
        assignor: shared(&group.assignor_name),
        members: group.members.iter().map(member).collect(),
    });
    (shared(&group.group_id), described)
}

fn member(member: &DescribedMember) -> Member {
    Member {
        member_id: shared(&member.member_id),
        instance_id: shared_option(member.instance_id.as_ref()),
        client_id: shared(&member.client_id),
        host: shared(&member.client_host),
        assigned: assigned(&member.assignment),
    }
}

fn assigned(assignment: &Assignment) -> Vec<TopicPartition> {
    let topics = assignment.topic_partitions.iter().flat_map(|topic| {
        let name = shared(&topic.topic_name);
        let at = move |number: &i32| TopicPartition::new(Arc::clone(&name), *number);
        topic.partitions.iter().map(at)
    });
    topics.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::consumer_group_describe_response::TopicPartitions;

    #[test]
    fn a_member_has_what_it_reads_now_and_not_what_it_is_to_read() {
        let topic = |name: &str, partitions: &[i32]| {
            TopicPartitions::default()
                .with_topic_name(TopicName(text(name)))
                .with_partitions(partitions.to_vec())
        };
        let of = |topics| Assignment::default().with_topic_partitions(topics);
        let told = DescribedMember::default()
            .with_member_id(text("a"))
            .with_assignment(of(vec![topic("orders", &[2, 0]), topic("audit", &[1])]))
            .with_target_assignment(of(vec![topic("orders", &[5])]));
        let read = [("orders", 2), ("orders", 0), ("audit", 1)];
        let read = read.map(|(name, number)| TopicPartition::new(name, number));
        assert_eq!(member(&told).assigned, read);
    }

    #[test]
    fn a_group_that_is_not_there_has_its_code() {
        let none = DescribedGroup::default().with_error_code(69);
        let (_, told) = described(&none);
        assert_eq!(
            told.unwrap_err().code,
            ottla_proto::Code::GROUP_ID_NOT_FOUND
        );
    }
}
