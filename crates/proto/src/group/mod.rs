//! The classic consumer group, seen by one member: who is in, who reads what, what is committed.
//!
//! [`Membership`] is a state machine in quinn's manner: `handle_*(now, ...)` takes input,
//! [`Membership::poll_transmit`], [`Membership::poll_event`] and [`Membership::poll_timeout`] give
//! output. It reads no clock and opens no socket.

mod assignor;
mod codec;
mod membership;
mod offsets;
mod sticky;

pub use assignor::{Assignor, GroupMember, RebalanceProtocol, TopicCounts};
pub use codec::{Assignment, Subscription};
pub use membership::{
    Event, Identity, JoinAnswer, JoinRequest, JoinedMember, Membership, MembershipConfig, Outcome,
    SyncAnswer, SyncRequest, Ticket, Transmit,
};
pub use offsets::{CommitVerdict, Committed, GroupMetadata, OffsetLedger, commit_verdict};
