//! Membership of consumer groups: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, FindCoordinator.

use super::{Context, Outcome};
use crate::frame::Malformed;
use crate::groups::group::{JoinAnswer, Sync, SyncAnswer};
use crate::groups::join::Join;
use bytes::BytesMut;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;
use std::time::Duration;

/// The kinds of coordinators: for groups, and for transactions. A node is both for a key.
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// What every group API checks first. Kafka keeps offsets under an empty name too.
pub(super) fn check_group(ctx: &Context<'_>, group: &str) -> Result<(), Code> {
    match ctx.forced() {
        Some(code) => Err(code),
        None => coordinates(ctx, group),
    }
}

/// As [`check_group`], where members and transactions are: these need a name.
pub(super) fn check_named(ctx: &Context<'_>, group: &str) -> Result<(), Code> {
    if group.is_empty() {
        return Err(ctx.forced().unwrap_or(Code::INVALID_GROUP_ID));
    }
    check_group(ctx, group)
}

/// Whether this node coordinates a group or a transactional id.
pub(super) fn coordinates(ctx: &Context<'_>, key: &str) -> Result<(), Code> {
    match ctx.shared().coordinator(key) {
        Some(node) if node.id == ctx.node() => Ok(()),
        _ => Err(Code::NOT_COORDINATOR),
    }
}

pub(super) fn find_coordinator(
    ctx: &Context<'_>,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let one = |key: &StrBytes| coordinator(ctx, key, request.key_type);
    if ctx.version >= 4 {
        let all = request.coordinator_keys.iter().map(one);
        return FindCoordinatorResponse::default().with_coordinators(all.collect());
    }
    let found = one(&request.key);
    let message = found.error_message.filter(|_| ctx.version >= 1);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn coordinator(ctx: &Context<'_>, key: &StrBytes, kind: i8) -> Coordinator {
    let found = match ctx.forced() {
        Some(code) => Err((code, "a fault was ordered")),
        None if ![GROUP_KEY, TRANSACTION_KEY].contains(&kind) => Err((
            Code::INVALID_REQUEST,
            "there are coordinators of groups and of transactions here",
        )),
        None => ctx
            .shared()
            .coordinator(key)
            .ok_or((Code::COORDINATOR_NOT_AVAILABLE, "no node is up")),
    };
    let answer = Coordinator::default().with_key(key.clone());
    match found {
        Ok(node) => answer
            .with_node_id(BrokerId(node.id))
            .with_host(text(&node.host))
            .with_port(i32::from(node.port)),
        Err((code, reason)) => answer
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.0)
            .with_error_message(Some(StrBytes::from_static_str(reason))),
    }
}

fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(ToString::to_string)
}

pub(super) async fn join(ctx: &Context<'_>, body: BytesMut) -> Result<Outcome, Malformed> {
    let request: JoinGroupRequest = ctx.decode(body)?;
    let settings = &ctx.shared().settings;
    let session_timeout = millis(request.session_timeout_ms);
    let sessions = settings.session_timeout_min..=settings.session_timeout_max;
    let checked = match check_named(ctx, &request.group_id) {
        Ok(()) if !sessions.contains(&session_timeout) => Err(Code::INVALID_SESSION_TIMEOUT),
        checked => checked,
    };
    let answer = match checked {
        Err(code) => JoinAnswer::refused(code, &request.member_id),
        Ok(()) => {
            let join = join_words(ctx, &request, session_timeout);
            ctx.shared().groups.join(&request.group_id, join).await
        }
    };
    ctx.reply(&join_response(ctx, answer))
}

fn join_words(ctx: &Context<'_>, request: &JoinGroupRequest, session_timeout: Duration) -> Join {
    // Version 0 has one timeout for both.
    let rebalance_timeout = match ctx.version {
        0 => session_timeout,
        _ => millis(request.rebalance_timeout_ms),
    };
    let instance = owned(request.group_instance_id.as_ref());
    let prefix = instance.as_deref().unwrap_or(&ctx.client_id);
    let id = uuid::Builder::from_random_bytes(ctx.shared().random_id()).into_uuid();
    let protocols = request.protocols.iter();
    let protocols = protocols.map(|p| (p.name.to_string(), p.metadata.clone()));
    Join {
        member_id: request.member_id.to_string(),
        new_id: format!("{prefix}-{id}"),
        instance,
        client_id: ctx.client_id.clone(),
        client_host: ctx.connection.client_host.clone(),
        session_timeout,
        rebalance_timeout,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        ticket: 0,
        must_know_id: ctx.version >= 4,
        may_skip_assignment: ctx.version >= 9,
    }
}

fn join_response(ctx: &Context<'_>, answer: JoinAnswer) -> JoinGroupResponse {
    let members = answer.members.into_iter().map(|(id, instance, metadata)| {
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(id))
            .with_group_instance_id(
                instance
                    .filter(|_| ctx.version >= 5)
                    .map(StrBytes::from_string),
            )
            .with_metadata(metadata)
    });
    let protocol_type = answer.protocol_type.filter(|_| ctx.version >= 7);
    // Only version 7 and newer can leave the protocol's name out.
    let protocol = match (answer.protocol, ctx.version) {
        (None, ..7) => Some(String::new()),
        (protocol, _) => protocol,
    };
    JoinGroupResponse::default()
        .with_error_code(answer.code.0)
        .with_generation_id(answer.generation)
        .with_protocol_type(protocol_type.map(StrBytes::from_string))
        .with_protocol_name(protocol.map(StrBytes::from_string))
        .with_leader(StrBytes::from_string(answer.leader))
        .with_skip_assignment(answer.skip_assignment)
        .with_member_id(StrBytes::from_string(answer.member_id))
        .with_members(members.collect())
}

pub(super) async fn sync(ctx: &Context<'_>, body: BytesMut) -> Result<Outcome, Malformed> {
    let request: SyncGroupRequest = ctx.decode(body)?;
    let answer = match check_named(ctx, &request.group_id) {
        Err(code) => SyncAnswer::refused(code),
        Ok(()) => {
            let assignments = request.assignments.into_iter();
            let assignments = assignments.map(|a| (a.member_id.to_string(), a.assignment));
            let sync = Sync {
                member_id: request.member_id.to_string(),
                instance: owned(request.group_instance_id.as_ref()),
                generation: request.generation_id,
                protocol_type: owned(request.protocol_type.as_ref()),
                protocol: owned(request.protocol_name.as_ref()),
                assignments: assignments.collect(),
                ticket: 0,
            };
            ctx.shared().groups.sync(&request.group_id, sync).await
        }
    };
    let named = ctx.version >= 5;
    let response = SyncGroupResponse::default()
        .with_error_code(answer.code.0)
        .with_protocol_type(
            answer
                .protocol_type
                .filter(|_| named)
                .map(StrBytes::from_string),
        )
        .with_protocol_name(answer.protocol.filter(|_| named).map(StrBytes::from_string))
        .with_assignment(answer.assignment);
    ctx.reply(&response)
}

pub(super) fn heartbeat(ctx: &Context<'_>, request: &HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_deref();
    let done = check_named(ctx, &request.group_id).and_then(|()| {
        let groups = &ctx.shared().groups;
        groups.heartbeat(
            &request.group_id,
            &request.member_id,
            instance,
            request.generation_id,
        )
    });
    HeartbeatResponse::default().with_error_code(done.err().unwrap_or(Code::NONE).0)
}

pub(super) fn leave(ctx: &Context<'_>, request: &LeaveGroupRequest) -> LeaveGroupResponse {
    let checked = check_named(ctx, &request.group_id);
    let response = LeaveGroupResponse::default();
    if let Err(code) = checked {
        return response.with_error_code(code.0);
    }
    let groups = &ctx.shared().groups;
    if ctx.version < 3 {
        let left = groups.leave(&request.group_id, &request.member_id, None);
        return response.with_error_code(left.err().unwrap_or(Code::NONE).0);
    }
    let members = request.members.iter().map(|member| {
        let instance = member.group_instance_id.as_deref();
        let left = groups.leave(&request.group_id, &member.member_id, instance);
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(left.err().unwrap_or(Code::NONE).0)
    });
    response.with_members(members.collect())
}
