//! ShareGroupDescribe: the state and the members of share groups (KIP-932, brokers from 4.1).
//!
//! In the words of [`consumer_group_describe`]: several members may read the same partition.

use super::consumer_group_describe::{self, Group, Response};
use super::describe_groups::Request;
use super::{ItemError, from_millis, shared, shared_option, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember,
};
use kafka_protocol::messages::{GroupId, ShareGroupDescribeRequest, ShareGroupDescribeResponse};
use ottla_proto::{Result, TopicPartition};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Version 0 was 4.0's early access.
const OURS: RangeInclusive<i16> = 1..=1;

/// Asks the groups' coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each group has
/// its own code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let api = ApiKey::ShareGroupDescribe;
    let version = connection.version(api, OURS)?;
    let groups = request.groups.iter().map(|group| GroupId(text(group)));
    let body = ShareGroupDescribeRequest::default().with_group_ids(groups.collect());
    let timeout = connection.request_timeout();
    let answer: ShareGroupDescribeResponse =
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

fn member(member: &DescribedMember) -> consumer_group_describe::Member {
    consumer_group_describe::Member {
        member_id: shared(&member.member_id),
        // Share groups have no static members.
        instance_id: None,
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
    use kafka_protocol::messages::share_group_describe_response::TopicPartitions;

    #[test]
    fn members_are_told_with_what_they_read() {
        let topic = TopicPartitions::default()
            .with_topic_name(TopicName(text("orders")))
            .with_partitions(vec![1, 0]);
        let reads = Assignment::default().with_topic_partitions(vec![topic]);
        let told = |name: &str| {
            DescribedMember::default()
                .with_member_id(text(name))
                .with_assignment(reads.clone())
        };
        let group = DescribedGroup::default().with_members(vec![told("a"), told("b")]);
        let (_, group) = described(&group);
        let members = group.unwrap().members;
        let read = [1, 0].map(|number| TopicPartition::new("orders", number));
        let names: Vec<_> = members.iter().map(|member| &*member.member_id).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(members.iter().all(|member| member.assigned == read));
    }

    #[test]
    fn a_group_that_is_refused_has_its_code() {
        let none = DescribedGroup::default().with_error_code(30);
        let (_, told) = described(&none);
        let code = ottla_proto::Code::GROUP_AUTHORIZATION_FAILED;
        assert_eq!(told.unwrap_err().code, code);
    }
}
