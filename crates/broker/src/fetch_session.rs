//! Fetch sessions (KIP-227): the broker remembers what a client fetches, so that neither side
//! repeats what has not changed.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How many sessions the cluster keeps; the one that was used longest ago goes first. Kafka's
/// `max.incremental.fetch.session.cache.slots`, there for each node.
const SESSIONS_MAX: usize = 1000;

/// How many partitions one session may hold: as many as a cluster can have.
const PARTITIONS_MAX: usize = 100_000;

/// How a request names a topic: by id from version 13 on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Id([u8; 16]),
}

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicKey,
    pub(crate) index: i32,
    pub(crate) offset: i64,
    pub(crate) bytes_max: usize,
    /// The leader epoch the client believes in; -1 for none.
    pub(crate) leader_epoch: i32,
    /// The epoch of the last record it has; -1 for none.
    pub(crate) last_epoch: i32,
}

type Key = (TopicKey, i32);

#[derive(Debug, Clone)]
struct Entry {
    wanted: Wanted,
    /// Its place in the order in which partitions are served.
    turn: u64,
    /// What the client was told last: high watermark and log start.
    told: Option<(i64, i64)>,
}

#[derive(Debug)]
struct Session {
    node: i32,
    next_epoch: i32,
    used: u64,
    next_turn: u64,
    partitions: BTreeMap<Key, Entry>,
}

impl Session {
    fn want(&mut self, wanted: Vec<Wanted>) {
        for wanted in wanted {
            let key = (wanted.topic.clone(), wanted.index);
            if let Some(entry) = self.partitions.get_mut(&key) {
                entry.wanted = wanted;
            } else if self.partitions.len() < PARTITIONS_MAX {
                let entry = Entry {
                    wanted,
                    turn: self.next_turn,
                    told: None,
                };
                self.next_turn += 1;
                self.partitions.insert(key, entry);
            }
        }
    }
}

/// Every session.
#[derive(Debug, Default)]
pub(crate) struct FetchSessions {
    by_id: BTreeMap<i32, Session>,
    uses: u64,
    next_id: i32,
}

/// Why a session request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionError {
    /// There is no such session at this node.
    Unknown,
    /// It is not the session's next epoch.
    WrongEpoch,
    /// The session names topics by name and the request by id, or the other way round.
    WrongTopicKind,
}

impl FetchSessions {
    /// Begins a session with these partitions; its id.
    pub(crate) fn begin(&mut self, node: i32, wanted: Vec<Wanted>) -> i32 {
        if self.by_id.len() >= SESSIONS_MAX {
            let oldest = self.by_id.iter().min_by_key(|(_, s)| s.used);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.by_id.remove(&id);
            }
        }
        self.uses += 1;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1).max(1);
        let mut session = Session {
            node,
            next_epoch: 1,
            used: self.uses,
            next_turn: 0,
            partitions: BTreeMap::new(),
        };
        session.want(wanted);
        self.by_id.insert(self.next_id, session);
        self.next_id
    }

    /// Ends a session, if it is there.
    pub(crate) fn end(&mut self, id: i32) {
        self.by_id.remove(&id);
    }

    /// Ends every session of a node.
    pub(crate) fn end_node(&mut self, node: i32) {
        self.by_id.retain(|_, session| session.node != node);
    }

    /// Takes the next request of a session: what it adds and forgets; gives all it now wants.
    ///
    /// # Errors
    /// The session is unknown or the request does not continue it.
    pub(crate) fn go_on(
        &mut self,
        node: i32,
        id: i32,
        epoch: i32,
        wanted: Vec<Wanted>,
        forgotten: &[Key],
    ) -> Result<Vec<Wanted>, SessionError> {
        let session = self.by_id.get_mut(&id).filter(|s| s.node == node);
        let session = session.ok_or(SessionError::Unknown)?;
        if session.next_epoch != epoch {
            return Err(SessionError::WrongEpoch);
        }
        let by_id = |key: &TopicKey| matches!(key, TopicKey::Id(_));
        if let (Some((held, _)), Some(new)) = (session.partitions.keys().next(), wanted.first())
            && by_id(held) != by_id(&new.topic)
        {
            return Err(SessionError::WrongTopicKind);
        }
        self.uses += 1;
        session.used = self.uses;
        session.next_epoch = epoch.checked_add(1).unwrap_or(1);
        for key in forgotten {
            session.partitions.remove(key);
        }
        session.want(wanted);
        let mut entries: Vec<&Entry> = session.partitions.values().collect();
        entries.sort_by_key(|entry| entry.turn);
        Ok(entries.into_iter().map(|e| e.wanted.clone()).collect())
    }

    /// Says whether an answer for a partition tells the client anything new, and remembers it as
    /// told. A partition with records goes to the end of the order, so that a full answer does
    /// not always leave out the same ones.
    pub(crate) fn tell(&mut self, id: i32, key: &Key, told: Told) -> bool {
        let Some(session) = self.by_id.get_mut(&id) else {
            return true;
        };
        let Some(entry) = session.partitions.get_mut(key) else {
            return true;
        };
        let (now, news) = match told {
            // An error is told until it is gone, and what was told before is void.
            Told::Error => (None, true),
            Told::Records(marks) => (Some(marks), true),
            Told::Nothing(marks) => (Some(marks), entry.told != Some(marks)),
        };
        entry.told = now;
        if matches!(told, Told::Records(_)) {
            entry.turn = session.next_turn;
            session.next_turn += 1;
        }
        news
    }
}

/// What the answer for one partition holds; the pair is high watermark and log start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Error,
    Records((i64, i64)),
    Nothing((i64, i64)),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(index: i32, offset: i64) -> Wanted {
        Wanted {
            topic: TopicKey::Name("t".into()),
            index,
            offset,
            bytes_max: 100,
            leader_epoch: -1,
            last_epoch: -1,
        }
    }

    fn key(index: i32) -> Key {
        (TopicKey::Name("t".into()), index)
    }

    fn places(wanted: &[Wanted]) -> Vec<(i32, i64)> {
        wanted.iter().map(|w| (w.index, w.offset)).collect()
    }

    #[test]
    fn a_session_adds_changes_and_forgets_partitions() {
        let mut sessions = FetchSessions::default();
        let id = sessions.begin(0, vec![wanted(0, 5), wanted(1, 6)]);
        let all = sessions.go_on(0, id, 1, vec![wanted(1, 9), wanted(2, 0)], &[]);
        assert_eq!(places(&all.unwrap()), [(0, 5), (1, 9), (2, 0)]);
        let all = sessions.go_on(0, id, 2, vec![], &[key(0)]);
        assert_eq!(places(&all.unwrap()), [(1, 9), (2, 0)]);
    }

    #[test]
    fn epochs_nodes_and_kinds_must_fit() {
        let mut sessions = FetchSessions::default();
        let id = sessions.begin(0, vec![wanted(0, 5)]);
        let mut next = |node, id, epoch, wanted| {
            let all = sessions.go_on(node, id, epoch, wanted, &[]);
            all.map(|all| all.len())
        };
        assert_eq!(next(0, id + 1, 1, vec![]), Err(SessionError::Unknown));
        assert_eq!(next(1, id, 1, vec![]), Err(SessionError::Unknown));
        assert_eq!(next(0, id, 2, vec![]), Err(SessionError::WrongEpoch));
        let by_id = Wanted {
            topic: TopicKey::Id([1; 16]),
            ..wanted(0, 0)
        };
        assert_eq!(
            next(0, id, 1, vec![by_id]),
            Err(SessionError::WrongTopicKind)
        );
        assert_eq!(next(0, id, 1, vec![]), Ok(1));
        sessions.end(id);
        assert!(sessions.go_on(0, id, 2, vec![], &[]).is_err());
    }

    #[test]
    fn only_news_is_told_and_who_had_records_waits_for_the_others() {
        let mut sessions = FetchSessions::default();
        let id = sessions.begin(0, vec![wanted(0, 5), wanted(1, 6)]);
        let marks = (10, 0);
        assert!(
            sessions.tell(id, &key(0), Told::Nothing(marks)),
            "never told before"
        );
        assert!(!sessions.tell(id, &key(0), Told::Nothing(marks)));
        assert!(
            sessions.tell(id, &key(0), Told::Nothing((11, 0))),
            "the watermark moved"
        );
        assert!(sessions.tell(id, &key(0), Told::Error));
        assert!(
            sessions.tell(id, &key(0), Told::Nothing((11, 0))),
            "the error is gone"
        );
        assert!(sessions.tell(id, &key(0), Told::Records((11, 0))));
        let all = sessions.go_on(0, id, 1, vec![], &[]).unwrap();
        assert_eq!(places(&all), [(1, 6), (0, 5)]);
    }

    #[test]
    fn the_least_used_session_makes_room() {
        let mut sessions = FetchSessions::default();
        let first = sessions.begin(0, vec![]);
        let second = sessions.begin(0, vec![]);
        sessions.go_on(0, first, 1, vec![], &[]).unwrap();
        for _ in 0..SESSIONS_MAX - 1 {
            sessions.begin(0, vec![]);
        }
        assert_eq!(sessions.by_id.len(), SESSIONS_MAX);
        assert!(sessions.by_id.contains_key(&first));
        assert!(!sessions.by_id.contains_key(&second));
    }
}
