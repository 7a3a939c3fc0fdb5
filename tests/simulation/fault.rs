//! What can go wrong, and how it is brought about.

use crate::plan::Promise;
use crate::transactions;
use crate::world::World;
use ottla_broker::{ApiKey, Cluster, Code, Fault, FaultRule};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Codes that a broker can refuse a batch with and that are worth another attempt.
pub(crate) const RETRIABLE: [Code; 17] = [
    Code::NOT_LEADER_OR_FOLLOWER,
    Code::UNKNOWN_TOPIC_OR_PARTITION,
    Code::KAFKA_STORAGE_ERROR,
    Code::LEADER_NOT_AVAILABLE,
    Code::REPLICA_NOT_AVAILABLE,
    Code::UNKNOWN_TOPIC_ID,
    Code::INCONSISTENT_TOPIC_ID,
    Code::FENCED_LEADER_EPOCH,
    Code::UNKNOWN_LEADER_EPOCH,
    Code::NETWORK_EXCEPTION,
    Code::REQUEST_TIMED_OUT,
    Code::NOT_ENOUGH_REPLICAS,
    Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    Code::CORRUPT_MESSAGE,
    Code::COORDINATOR_LOAD_IN_PROGRESS,
    Code::CONCURRENT_TRANSACTIONS,
    Code::THROTTLING_QUOTA_EXCEEDED,
];

/// Codes that a broker can answer although the batch is in its log.
pub(crate) const AFTER_APPEND: [Code; 7] = [
    Code::NOT_LEADER_OR_FOLLOWER,
    Code::UNKNOWN_TOPIC_OR_PARTITION,
    Code::KAFKA_STORAGE_ERROR,
    Code::REQUEST_TIMED_OUT,
    Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    Code::NETWORK_EXCEPTION,
    Code::UNKNOWN_SERVER_ERROR,
];

/// Codes that end a batch, and the one that splits it.
pub(crate) const FINAL: [Code; 6] = [
    Code::INVALID_RECORD,
    Code::INVALID_TIMESTAMP,
    Code::POLICY_VIOLATION,
    Code::TOPIC_AUTHORIZATION_FAILED,
    Code::UNKNOWN_SERVER_ERROR,
    Code::MESSAGE_TOO_LARGE,
];

/// Codes by which a broker says that it expects another sequence.
pub(crate) const SEQUENCE: [Code; 3] = [
    Code::OUT_OF_ORDER_SEQUENCE_NUMBER,
    Code::UNKNOWN_PRODUCER_ID,
    Code::INVALID_PRODUCER_EPOCH,
];

/// Codes that InitProducerId can be answered with; the last two are final.
pub(crate) const IDENTITY: [Code; 8] = [
    Code::COORDINATOR_NOT_AVAILABLE,
    Code::NOT_COORDINATOR,
    Code::COORDINATOR_LOAD_IN_PROGRESS,
    Code::CONCURRENT_TRANSACTIONS,
    Code::REQUEST_TIMED_OUT,
    Code::NETWORK_EXCEPTION,
    Code::CLUSTER_AUTHORIZATION_FAILED,
    Code::UNKNOWN_SERVER_ERROR,
];

/// What a coordinator is asked in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    AddPartitions,
    AddOffsets,
    CommitOffsets,
    End,
}

impl Step {
    const ALL: [Self; 4] = [
        Self::AddPartitions,
        Self::AddOffsets,
        Self::CommitOffsets,
        Self::End,
    ];

    fn api(self) -> ApiKey {
        match self {
            Self::AddPartitions => ApiKey::AddPartitionsToTxn,
            Self::AddOffsets => ApiKey::AddOffsetsToTxn,
            Self::CommitOffsets => ApiKey::TxnOffsetCommit,
            Self::End => ApiKey::EndTxn,
        }
    }
}

/// What becomes of what a coordinator is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// The connection ends before it is done.
    NotDone,
    /// It is done, the answer lost with the connection.
    AnswerLost,
    /// It is refused with a code that is worth another attempt.
    Refused(Code),
}

impl Trouble {
    /// Every trouble.
    pub(crate) const ALL: [Self; 6] = [
        Self::NotDone,
        Self::AnswerLost,
        Self::Refused(Code::NOT_COORDINATOR),
        Self::Refused(Code::COORDINATOR_NOT_AVAILABLE),
        Self::Refused(Code::COORDINATOR_LOAD_IN_PROGRESS),
        Self::Refused(Code::CONCURRENT_TRANSACTIONS),
    ];
}

/// One kind of fault. The comments say what a broker, a network or an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The connection ends before the batch is applied.
    DisconnectBefore,
    /// The batch is applied, the answer lost with the connection.
    AnswerLost,
    /// The answer breaks off in the middle.
    AnswerCut,
    /// A request waits at the broker.
    Delay,
    /// Refused with a code that is worth another attempt.
    Refused(Code),
    /// Applied, and answered with a code all the same.
    AfterAppend(Code),
    /// Refused for good.
    Final(Code),
    /// The broker says that it expects another sequence.
    Sequence(Code),
    /// Appended, and lost to a new leader.
    Truncated,
    /// The broker asks us to stay away for a while.
    Throttle,
    /// A partition gets another leader.
    LeaderMoves,
    /// A node stops and starts again.
    NodeStops,
    /// A node answers nothing for a while.
    NodeFreezes,
    /// A partition's followers copy nothing for a while.
    FollowersFreeze,
    /// Leaders move while metadata goes on to name the old ones.
    StaleMetadata,
    /// Metadata is refused.
    MetadataRefused,
    /// A connection for metadata ends.
    MetadataLost,
    /// New connections are refused.
    DialRefused,
    /// InitProducerId is answered with a code.
    Identity(Code),
    /// The answer to InitProducerId is lost.
    IdentityLost,
    /// The topic gets more partitions.
    PartitionsAdded,
    /// The topic is deleted and made anew: its records are gone by design.
    TopicRemade,
    /// Another node coordinates the transactional id, or the group.
    CoordinatorMoves,
    /// The cluster changes the protocol of transactions.
    ProtocolChanges,
    /// Something befalls what a coordinator is asked in a transaction.
    Coordinator(Step, Trouble),
}

impl Kind {
    /// Every kind.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![
            Self::DisconnectBefore,
            Self::AnswerLost,
            Self::AnswerCut,
            Self::Delay,
            Self::Truncated,
            Self::Throttle,
            Self::LeaderMoves,
            Self::NodeStops,
            Self::NodeFreezes,
            Self::FollowersFreeze,
            Self::StaleMetadata,
            Self::MetadataRefused,
            Self::MetadataLost,
            Self::DialRefused,
            Self::IdentityLost,
            Self::PartitionsAdded,
            Self::TopicRemade,
            Self::CoordinatorMoves,
            Self::ProtocolChanges,
        ];
        all.extend(Self::of_coordinators());
        all.extend(RETRIABLE.map(Self::Refused));
        all.extend(AFTER_APPEND.map(Self::AfterAppend));
        all.extend(FINAL.map(Self::Final));
        all.extend(SEQUENCE.map(Self::Sequence));
        all.extend(IDENTITY.map(Self::Identity));
        all
    }

    /// What can befall a coordinator's requests. No group is refused for a transaction's sake.
    pub(crate) fn of_coordinators() -> Vec<Self> {
        let befalls = |step| Trouble::ALL.map(|trouble| Self::Coordinator(step, trouble));
        Step::ALL.into_iter().flat_map(befalls).collect()
    }

    /// Its name in the census.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Refused(code) => format!("refused with {code}"),
            Self::AfterAppend(code) => format!("applied, answered {code}"),
            Self::Final(code) => format!("refused for good with {code}"),
            Self::Sequence(code) => format!("sequence refused with {code}"),
            Self::Identity(code) => format!("no producer id: {code}"),
            Self::Coordinator(step, trouble) => format!("{step:?}: {trouble:?}"),
            kind => format!("{kind:?}"),
        }
    }

    /// Whether it may come under this promise: without sequences, a batch that a broker finds in its
    /// queue after the client gave it up changes the order, and with acks=1 a leader's word is all
    /// there is.
    pub(crate) fn fits(self, promise: Promise) -> bool {
        let late = matches!(self, Self::NodeFreezes | Self::FollowersFreeze);
        let after = matches!(self, Self::AfterAppend(_) | Self::Truncated);
        let of_transactions = matches!(
            self,
            Self::CoordinatorMoves | Self::ProtocolChanges | Self::Coordinator(..)
        );
        if of_transactions && promise != Promise::Transactions {
            return false;
        }
        match promise {
            Promise::Transactions => !matches!(self, Self::Sequence(_) | Self::TopicRemade),
            Promise::ExactlyOnce => !matches!(self, Self::Sequence(_)),
            Promise::AtLeastOnce => !late && !matches!(self, Self::Sequence(_)),
            Promise::LeaderOnly | Promise::Nothing => {
                !late && !after && !matches!(self, Self::Sequence(_))
            }
            Promise::ExactlyOnceUndoubted => self.leaves_no_doubt(),
        }
    }

    /// Whether an unanswered batch was certainly not applied. Only among such faults can a broker be
    /// made to say that it expects another sequence: it says so of no batch that it holds.
    fn leaves_no_doubt(self) -> bool {
        match self {
            Self::DisconnectBefore | Self::Throttle | Self::LeaderMoves | Self::Sequence(_) => true,
            Self::MetadataRefused | Self::MetadataLost | Self::PartitionsAdded => true,
            Self::Refused(_) | Self::Identity(_) | Self::IdentityLost => true,
            Self::Final(code) => code != Code::UNKNOWN_SERVER_ERROR,
            _ => false,
        }
    }
}

/// What refuses connections.
#[derive(Debug, Default, Clone)]
pub(crate) struct Gate(Arc<AtomicU32>);

impl Gate {
    /// Refuses so many of the next connections.
    fn refuse(&self, connections: u32) {
        self.0.store(connections, Ordering::Relaxed);
    }

    /// Lets everything pass.
    pub(crate) fn open(&self) {
        self.refuse(0);
    }

    /// Whether the next connection may be made.
    pub(crate) fn pass(&self) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.0.store(left - 1, Ordering::Relaxed);
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

/// A rule of the broker with the kind it belongs to.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) kind: Kind,
    fault: Option<Fault>,
}

impl Ordered {
    /// Whether it has struck.
    pub(crate) fn struck(&self) -> bool {
        self.fault.as_ref().is_none_or(|fault| fault.fired() > 0)
    }
}

impl World {
    /// Brings a fault about. What ends by itself is left to a task.
    pub(crate) async fn strike(&self, dice: &mut fastrand::Rng, kind: Kind) {
        self.trace.note(format_args!("fault {kind:?}"));
        let ordered = match self.order(dice, kind) {
            Some(fault) => Some(Some(fault)),
            None => self.act(dice, kind).await.then_some(None),
        };
        if let Some(fault) = ordered {
            self.ordered.lock().unwrap().push(Ordered { kind, fault });
        }
    }

    /// Faults that are a rule at the broker.
    fn order(&self, dice: &mut fastrand::Rng, kind: Kind) -> Option<Fault> {
        let on = |api| self.cluster.faults().on(api);
        let times = dice.u64(1..3);
        let partition = dice.i32(0..self.plan.partitions);
        let one = dice.bool();
        let produce = on(ApiKey::Produce).times(times).after(dice.u64(0..2));
        let scoped = |rule: FaultRule| if one { rule.partition(partition) } else { rule };
        let longest = self.plan.delay_millis_max;
        let wait = Duration::from_millis(dice.u64(1..longest));
        Some(match kind {
            Kind::DisconnectBefore => produce.disconnect_before_apply(),
            Kind::AnswerLost => produce.apply_then_lose_answer(),
            Kind::AnswerCut => produce.cut_answer(dice.usize(1..60)),
            Kind::Delay => produce.delay(wait),
            Kind::Refused(code) => scoped(produce).error(code),
            Kind::AfterAppend(code) => scoped(produce).append_then_error(code),
            Kind::Final(code) => {
                if one && self.plan.promise == Promise::ExactlyOnce {
                    // The limits were lowered while an answer was under way.
                    let _ = on(ApiKey::Produce).apply_then_lose_answer();
                }
                scoped(produce.times(1)).error(code)
            }
            Kind::Sequence(code) => scoped(produce).error(code),
            Kind::Truncated => scoped(produce).append_then_truncate(),
            Kind::Throttle => produce.throttle(wait.min(Duration::from_secs(3))),
            Kind::MetadataRefused => on(ApiKey::Metadata)
                .times(times)
                .error(Code::LEADER_NOT_AVAILABLE),
            Kind::MetadataLost => on(ApiKey::Metadata).times(times).apply_then_lose_answer(),
            Kind::Identity(code) => on(ApiKey::InitProducerId).times(times).error(code),
            Kind::IdentityLost => on(ApiKey::InitProducerId).apply_then_lose_answer(),
            Kind::Coordinator(step, trouble) => {
                let rule = on(step.api()).times(times);
                match trouble {
                    Trouble::NotDone => rule.disconnect_before_apply(),
                    Trouble::AnswerLost => rule.apply_then_lose_answer(),
                    Trouble::Refused(code) => rule.error(code),
                }
            }
            _ => return None,
        })
    }

    /// Faults that are a deed. Tells whether anything was done.
    async fn act(&self, dice: &mut fastrand::Rng, kind: Kind) -> bool {
        let cluster = self.cluster.clone();
        let topic = self.plan.topic;
        let partition = dice.i32(0..self.plan.partitions);
        let node = dice.i32(0..self.plan.nodes);
        let other = dice.i32(0..self.plan.nodes);
        let wait = Duration::from_millis(dice.u64(1..self.plan.outage_millis_max));
        match kind {
            Kind::LeaderMoves => cluster.move_leader(topic, partition, node).is_ok(),
            Kind::NodeStops => {
                cluster.stop_node(node).await.unwrap();
                self.later(wait, move || async move {
                    cluster.start_node(node).await.unwrap();
                });
                true
            }
            Kind::NodeFreezes => {
                cluster.freeze_node(node).unwrap();
                for led in 0..self.plan.partitions {
                    // The controller elects another leader after a while, or not in time.
                    if dice.bool() && cluster.leader(topic, led) == Some(node) {
                        let _ = cluster.move_leader(topic, led, other);
                    }
                }
                self.later(
                    wait,
                    move || async move { cluster.thaw_node(node).unwrap() },
                );
                true
            }
            Kind::FollowersFreeze => {
                let frozen = cluster.freeze_follower(topic, partition).is_ok();
                self.later(wait, move || async move {
                    let _ = cluster.thaw(topic, partition);
                });
                frozen
            }
            Kind::StaleMetadata => {
                cluster.freeze_metadata();
                for led in 0..self.plan.partitions {
                    let _ = cluster.move_leader(topic, led, dice.i32(0..self.plan.nodes));
                }
                self.later(wait, move || async move { cluster.thaw_metadata() });
                true
            }
            Kind::DialRefused => {
                self.gate.refuse(dice.u32(1..4));
                let leader = cluster.leader(topic, partition).unwrap_or(node);
                // Connections are only made anew when old ones end.
                cluster.stop_node(leader).await.unwrap();
                cluster.start_node(leader).await.unwrap();
                true
            }
            Kind::PartitionsAdded => {
                let count = self.plan.partitions + dice.i32(1..3);
                cluster.add_partitions(topic, count).is_ok()
            }
            Kind::TopicRemade => self.remake(wait),
            Kind::CoordinatorMoves => {
                let key = match dice.bool() {
                    true => transactions::ID,
                    false => transactions::GROUP,
                };
                cluster.move_coordinator(key, node).is_ok()
            }
            Kind::ProtocolChanges => {
                cluster.set_transaction_version(dice.i16(1..3));
                true
            }
            _ => false,
        }
    }

    /// Deletes the topic, keeping what its logs held, and makes it again after a while.
    fn remake(&self, wait: Duration) -> bool {
        let topic = self.plan.topic;
        if self.cluster.leader_epoch(topic, 0).is_none() {
            return false;
        }
        self.keep_logs();
        self.cluster.delete_topic(topic).unwrap();
        let (cluster, partitions) = (self.cluster.clone(), self.plan.partitions);
        self.later(wait, move || async move {
            make_again(&cluster, topic, partitions).await
        });
        true
    }
}

async fn make_again(cluster: &Cluster, topic: &str, partitions: i32) {
    // Too few nodes may run at the moment for the replicas it needs.
    while cluster.create_topic(topic, partitions).is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
