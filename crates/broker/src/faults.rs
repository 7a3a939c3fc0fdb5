//! Faults to order: what is to go wrong, for which API, when and how often.

use crate::state::Shared;
use kafka_protocol::messages::ApiKey;
use ottla_proto::Code;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing is done, and this code is answered.
    Error(Code),
    /// The answer comes later.
    Delay(Duration),
    /// The connection ends and nothing is done.
    Disconnect,
    /// It is done, and the connection ends instead of an answer.
    LoseAnswer,
    /// It is done, and this code is answered.
    ApplyThenError(Code),
    /// Nothing is done; the answer is `NOT_LEADER_OR_FOLLOWER` and names this leader and epoch.
    NameLeader(i32, i32),
    /// Appended, lost to a new leader, and answered `NOT_LEADER_OR_FOLLOWER`.
    AppendThenTruncate,
    /// It is done, and the connection ends after so many bytes of the answer.
    CutAnswer(usize),
    /// A fetched batch comes with one byte changed.
    CorruptRecords,
    /// It is done, and the answer asks the client to stay away for so long, as the broker does too.
    Throttle(Duration),
}

#[derive(Debug)]
struct Rule {
    api: i16,
    node: Option<i32>,
    partition: Option<i32>,
    after: u64,
    times: u64,
    action: Action,
    fired: Arc<AtomicU64>,
}

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct FaultTable {
    rules: Mutex<Vec<Rule>>,
}

/// What the rules have for one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) delay: Duration,
    pub(crate) action: Option<Action>,
    /// The only partition that the action concerns; `None` for all of the request.
    pub(crate) partition: Option<i32>,
}

impl FaultTable {
    /// Counts one request against the rules and says what is due for it. Delays add up; of the
    /// other actions the oldest rule's is taken, and the later rules do not count the request.
    pub(crate) fn take(&self, node: i32, api: i16) -> Due {
        let mut rules = self.rules.lock();
        let mut due = Due::default();
        for rule in rules.iter_mut() {
            let concerns = rule.api == api && rule.node.is_none_or(|only| only == node);
            let delays = matches!(rule.action, Action::Delay(_));
            if !concerns || (due.action.is_some() && !delays) {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
                continue;
            }
            rule.times = rule.times.saturating_sub(1);
            rule.fired.fetch_add(1, Ordering::Relaxed);
            match rule.action {
                Action::Delay(delay) => due.delay += delay,
                action => {
                    due.action = Some(action);
                    due.partition = rule.partition;
                }
            }
        }
        rules.retain(|rule| rule.times > 0);
        due
    }
}

/// Orders faults; see [`crate::Cluster::faults`].
#[derive(Debug, Clone)]
pub struct Faults {
    pub(crate) shared: Arc<Shared>,
}

impl Faults {
    /// Begins a fault for one API: once, from the next request on, at any node, unless told
    /// otherwise. Nothing is in force before the last word says what goes wrong.
    pub fn on(&self, api: ApiKey) -> FaultRule {
        FaultRule {
            shared: self.shared.clone(),
            api: api as i16,
            node: None,
            partition: None,
            after: 0,
            times: 1,
        }
    }

    /// Ends every fault in force.
    pub fn clear(&self) {
        self.shared.faults.rules.lock().clear();
    }
}

/// A fault that is being ordered.
#[derive(Debug, Clone)]
#[must_use = "a fault is in force only after its last word"]
pub struct FaultRule {
    shared: Arc<Shared>,
    api: i16,
    node: Option<i32>,
    partition: Option<i32>,
    after: u64,
    times: u64,
}

impl FaultRule {
    /// How many requests it strikes.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// It strikes every request until [`Faults::clear`].
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// How many requests it lets pass first.
    pub fn after(mut self, requests: u64) -> Self {
        self.after = requests;
        self
    }

    /// It strikes at this node only.
    pub fn node(mut self, id: i32) -> Self {
        self.node = Some(id);
        self
    }

    /// Produce only: of the codes answered and the batches lost it concerns this partition's alone,
    /// of whatever topic; the rest of the request goes well. A request without it counts as struck.
    pub fn partition(mut self, index: i32) -> Self {
        self.partition = Some(index);
        self
    }

    fn order(self, action: Action) -> Fault {
        let fired = Arc::new(AtomicU64::new(0));
        self.shared.faults.rules.lock().push(Rule {
            api: self.api,
            node: self.node,
            partition: self.partition,
            after: self.after,
            times: self.times,
            action,
            fired: fired.clone(),
        });
        Fault { fired }
    }

    /// Nothing is done, and every part of the answer carries this code.
    pub fn error(self, code: Code) -> Fault {
        self.order(Action::Error(code))
    }

    /// The request waits before it is handled, and with it all behind it on its connection.
    pub fn delay(self, delay: Duration) -> Fault {
        self.order(Action::Delay(delay))
    }

    /// The connection ends, and the request was not done.
    pub fn disconnect_before_apply(self) -> Fault {
        self.order(Action::Disconnect)
    }

    /// The request is done, and the connection ends before the answer.
    pub fn apply_then_lose_answer(self) -> Fault {
        self.order(Action::LoseAnswer)
    }

    /// The request is done, and every part of the answer carries this code: what Kafka does when
    /// a leader appended a batch and lost its leadership before the followers had it.
    pub fn append_then_error(self, code: Code) -> Fault {
        self.order(Action::ApplyThenError(code))
    }

    /// Produce only: nothing is done, the answer is `NOT_LEADER_OR_FOLLOWER`, and beside it this
    /// leader is named with this epoch (KIP-951), whatever the truth.
    pub fn name_leader(self, node: i32, epoch: i32) -> Fault {
        self.order(Action::NameLeader(node, epoch))
    }

    /// Produce only: the batch is appended, another replica takes over without it, and the answer
    /// is `NOT_LEADER_OR_FOLLOWER`.
    pub fn append_then_truncate(self) -> Fault {
        self.order(Action::AppendThenTruncate)
    }

    /// The request is done, and the connection ends after so many bytes of the answer (its length
    /// field included).
    pub fn cut_answer(self, bytes: usize) -> Fault {
        self.order(Action::CutAnswer(bytes))
    }

    /// Fetch only: the first batch of the answer has its last byte changed, so that its checksum
    /// fails. The log stays whole.
    pub fn corrupt_records(self) -> Fault {
        self.order(Action::CorruptRecords)
    }

    /// Produce, InitProducerId and Metadata: the request is done, its answer carries this throttle
    /// time, and the broker reads nothing further from the connection meanwhile (KIP-219).
    pub fn throttle(self, time: Duration) -> Fault {
        self.order(Action::Throttle(time))
    }
}

/// A fault that was ordered.
#[derive(Debug, Clone)]
pub struct Fault {
    fired: Arc<AtomicU64>,
}

impl Fault {
    /// How many requests it has struck.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &[(i16, Option<i32>, u64, u64, Action)]) -> FaultTable {
        let table = FaultTable::default();
        for (api, node, after, times, action) in rules {
            table.rules.lock().push(Rule {
                api: *api,
                node: *node,
                partition: None,
                after: *after,
                times: *times,
                action: *action,
                fired: Arc::default(),
            });
        }
        table
    }

    #[test]
    fn a_fault_strikes_its_api_after_so_many_and_so_often() {
        let table = table(&[(0, None, 2, 2, Action::Disconnect)]);
        let struck = |api| table.take(0, api).action.is_some();
        assert!(!struck(1));
        let produce: Vec<bool> = (0..6).map(|_| struck(0)).collect();
        assert_eq!(produce, [false, false, true, true, false, false]);
        assert!(table.rules.lock().is_empty());
    }

    #[test]
    fn delays_add_to_the_first_other_fault_and_nodes_are_told_apart() {
        let second = Duration::from_secs(1);
        let table = table(&[
            (0, None, 0, 9, Action::Delay(second)),
            (0, Some(1), 0, 9, Action::LoseAnswer),
            (0, None, 0, 1, Action::Error(Code::NOT_LEADER_OR_FOLLOWER)),
            (0, None, 0, 9, Action::Delay(second)),
        ]);
        let lost = Some(Action::LoseAnswer);
        let due = |node| {
            let due = table.take(node, 0);
            (due.delay.as_secs(), due.action)
        };
        assert_eq!(due(1), (2, lost));
        let error = Some(Action::Error(Code::NOT_LEADER_OR_FOLLOWER));
        assert_eq!(
            due(0),
            (2, error),
            "the error rule was not used up by node 1"
        );
        assert_eq!(due(0), (2, None));
    }
}
