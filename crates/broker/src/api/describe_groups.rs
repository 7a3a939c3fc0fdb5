//! Looking at groups and deleting them: ListGroups, DescribeGroups, DeleteGroups.

use super::Context;
use super::groups::{check_group, coordinates, text};
use crate::groups::group::Group;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;

/// The only type of group there is here.
const CLASSIC: &str = "classic";

pub(super) fn list(ctx: &Context<'_>, request: &ListGroupsRequest) -> ListGroupsResponse {
    if let Some(code) = ctx.forced() {
        return ListGroupsResponse::default().with_error_code(code.0);
    }
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
    };
    let all = ctx.shared().groups.list().into_iter();
    let groups = all.filter(|group| {
        coordinates(ctx, &group.id).is_ok()
            && wanted(&request.states_filter, group.state)
            && wanted(&request.types_filter, CLASSIC)
    });
    let groups = groups.map(|group| {
        let state = if ctx.version >= 4 { group.state } else { "" };
        let kind = if ctx.version >= 5 { CLASSIC } else { "" };
        ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(group.id)))
            .with_protocol_type(StrBytes::from_string(group.protocol_type))
            .with_group_state(StrBytes::from_static_str(state))
            .with_group_type(StrBytes::from_static_str(kind))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn describe(
    ctx: &Context<'_>,
    request: &DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let groups = request.groups.iter().map(|id| {
        let described = match check_group(ctx, id) {
            Err(code) => DescribedGroup::default().with_error_code(code.0),
            Ok(()) => {
                let groups = &ctx.shared().groups;
                let found = groups.look(id, |group| described(ctx, group));
                found.unwrap_or_else(|| unknown(ctx, id))
            }
        };
        described.with_group_id(id.clone())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

/// Before version 6 an unknown group was a dead one.
fn unknown(ctx: &Context<'_>, id: &str) -> DescribedGroup {
    let dead = DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"));
    if ctx.version < 6 {
        return dead;
    }
    let reason = format!("Group {id} not found.");
    dead.with_error_code(Code::GROUP_ID_NOT_FOUND.0)
        .with_error_message(Some(StrBytes::from_string(reason)))
}

fn described(ctx: &Context<'_>, group: &Group) -> DescribedGroup {
    let protocol = group.protocol.as_deref();
    let members = group.members.iter().map(|(id, member)| {
        let instance = member.instance.as_deref().filter(|_| ctx.version >= 4);
        DescribedGroupMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata(protocol))
            .with_member_assignment(member.assignment.clone())
    });
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_protocol_type(text(group.protocol_type.as_deref().unwrap_or_default()))
        .with_protocol_data(text(protocol.unwrap_or_default()))
        .with_members(members.collect())
}

pub(super) fn delete(ctx: &Context<'_>, request: &DeleteGroupsRequest) -> DeleteGroupsResponse {
    let results = request.groups_names.iter().map(|id| {
        let done = check_group(ctx, id).and_then(|()| ctx.shared().groups.delete(id));
        DeletableGroupResult::default()
            .with_group_id(id.clone())
            .with_error_code(done.err().unwrap_or(Code::NONE).0)
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
