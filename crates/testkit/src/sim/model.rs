//! The sequential twin: sessions and a map as plain containers, told each committed entry once.
//!
//! Knows nothing of the real table, registry or map: what they say is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::client::EndReason;
use atomix_protocol::session::{CommandHeader, Open, SessionEntry};
use atomix_protocol::{ClientId, Entry, EntryKind, Index, InstanceId, Sequence, SessionId, SessionKey, Term};
use bytes::Bytes;

use super::checker::{Broken, Check, hold};
use super::operation::{Command, Query, Stored};

/// A session of the twin.
#[derive(Debug)]
pub(super) struct Twin {
    pub(super) client: ClientId,
    attempt: u64,
    key: SessionKey,
    predecessor: Option<u64>,
    pub(super) opened: Index,
    pub(super) ended: Option<(Index, EndReason)>,
    lowest: Sequence,
    effects: Vec<Effect>,
    instance: Option<InstanceId>,
}

/// What became of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) index: Index,
    /// `None` if a skip consumed it.
    pub(super) reply: Option<Bytes>,
}

impl Twin {
    pub(super) fn effect(&self, sequence: Sequence) -> Option<&Effect> {
        self.effects.get(usize::try_from(sequence.0.checked_sub(1)?).ok()?)
    }

    fn last(&self) -> Sequence {
        Sequence(self.effects.len() as u64)
    }
}

/// The twin of everything that is replicated.
#[derive(Debug)]
pub(super) struct Model {
    applied: Index,
    session_limit: usize,
    window: u64,
    sessions: BTreeMap<SessionId, Twin>,
    open: BTreeMap<ClientId, SessionId>,
    submitted: BTreeMap<(SessionId, Sequence), Command>,
    not_done: BTreeSet<(SessionId, Sequence)>,
    values: BTreeMap<u64, Vec<(Index, Option<Stored>)>>,
}

/// Something that an entry did which others want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Nothing,
    Opened,
    Ended(SessionId, EndReason),
}

impl Model {
    pub(super) fn new(session_limit: usize, window: u64) -> Self {
        Model {
            applied: Index::ZERO,
            session_limit,
            window,
            sessions: BTreeMap::new(),
            open: BTreeMap::new(),
            submitted: BTreeMap::new(),
            not_done: BTreeSet::new(),
            values: BTreeMap::new(),
        }
    }

    pub(super) fn applied(&self) -> Index {
        self.applied
    }

    pub(super) fn session(&self, session: SessionId) -> Option<&Twin> {
        self.sessions.get(&session)
    }

    /// Sessions that are open now.
    pub(super) fn open_sessions(&self) -> impl Iterator<Item = (ClientId, SessionId)> + '_ {
        self.open.iter().map(|(client, session)| (*client, *session))
    }

    /// Whether a session was open behind an index.
    pub(super) fn was_open(&self, session: SessionId, index: Index) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|twin| twin.opened <= index && twin.ended.is_none_or(|(ended, _)| ended > index))
    }

    /// How many sessions were open behind an index.
    pub(super) fn count_open(&self, index: Index) -> usize {
        self.sessions
            .keys()
            .take_while(|session| session.0 <= index.0)
            .filter(|s| self.was_open(**s, index))
            .count()
    }

    /// A client submitted a command.
    pub(super) fn submitted(&mut self, session: SessionId, sequence: Sequence, command: Command) {
        self.submitted.insert((session, sequence), command);
    }

    /// A client was told that a command was not done. It must not have been, and never be.
    pub(super) fn not_done(&mut self, session: SessionId, sequence: Sequence) -> Check {
        let effect = self.sessions.get(&session).and_then(|twin| twin.effect(sequence));
        hold("I7", effect.is_none_or(|effect| effect.reply.is_none()), || {
            format!("command {sequence} of session {session} was called not done and has {effect:?}")
        })?;
        self.not_done.insert((session, sequence));
        Ok(())
    }

    /// The next committed entry means nothing to sessions.
    pub(super) fn skip(&mut self, index: Index) {
        self.applied = index;
    }

    /// The next committed entry.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<Happened, Broken> {
        self.applied = entry.id.index;
        if entry.kind != EntryKind::Session {
            return Ok(Happened::Nothing);
        }
        match SessionEntry::decode(&entry.payload) {
            Ok(SessionEntry::Open(open)) => Ok(self.open(open)),
            Ok(SessionEntry::Command(header, _)) => self.command(&header, false).map(|()| Happened::Nothing),
            Ok(SessionEntry::Skip(header)) => self.command(&header, true).map(|()| Happened::Nothing),
            Ok(SessionEntry::Close(close)) => Ok(self.end(close.session, EndReason::Closed)),
            Ok(SessionEntry::Expire(expire)) => {
                Ok(self.expire(expire.session, expire.decided_in, entry.id.term))
            }
            Ok(SessionEntry::Acknowledge(list)) => {
                for acknowledged in list {
                    if let Some(twin) = self.sessions.get_mut(&acknowledged.session) {
                        twin.lowest = twin.lowest.max(acknowledged.lowest_unanswered.min(twin.last().next()));
                    }
                }
                Ok(Happened::Nothing)
            }
            Ok(SessionEntry::Time | SessionEntry::RaiseLevel(_)) | Err(_) => Ok(Happened::Nothing),
        }
    }

    fn open(&mut self, open: Open) -> Happened {
        let mut predecessor = None;
        let mut ended = Happened::Opened;
        if let Some(session) = self.open.get(&open.client).copied() {
            let twin = &self.sessions[&session];
            let retry = twin.attempt == open.attempt && twin.key == open.key;
            if retry || twin.predecessor == Some(open.attempt) {
                return Happened::Nothing;
            }
            predecessor = Some(twin.attempt);
            ended = self.end(session, EndReason::TakenOver);
        } else if self.open.len() >= self.session_limit {
            return Happened::Nothing;
        }
        let session = SessionId(self.applied.0);
        self.open.insert(open.client, session);
        let twin = Twin {
            client: open.client,
            attempt: open.attempt,
            key: open.key,
            predecessor,
            opened: self.applied,
            ended: None,
            lowest: Sequence(1),
            effects: Vec::new(),
            instance: None,
        };
        self.sessions.insert(session, twin);
        ended
    }

    fn expire(&mut self, session: SessionId, decided_in: Term, term: Term) -> Happened {
        if decided_in == term { self.end(session, EndReason::Expired) } else { Happened::Nothing }
    }

    fn end(&mut self, session: SessionId, reason: EndReason) -> Happened {
        match self.sessions.get_mut(&session) {
            Some(twin) if twin.ended.is_none() => {
                twin.ended = Some((self.applied, reason));
                self.open.remove(&twin.client);
                Happened::Ended(session, reason)
            }
            _ => Happened::Nothing,
        }
    }

    fn command(&mut self, header: &CommandHeader, skip: bool) -> Check {
        let (session, sequence) = (header.session, header.sequence);
        let Some(twin) = self.sessions.get_mut(&session).filter(|twin| twin.ended.is_none()) else {
            return Ok(());
        };
        twin.lowest = twin.lowest.max(header.lowest_unanswered.min(twin.last().next()));
        if sequence != twin.last().next() || sequence.since(twin.lowest) >= self.window {
            return Ok(());
        }
        let reply = if skip {
            None
        } else {
            hold("I8", !self.not_done.contains(&(session, sequence)), || {
                format!("command {sequence} of session {session} was called not done, now it is done")
            })?;
            let Some(command) = self.submitted.remove(&(session, sequence)) else {
                return Err(Broken {
                    name: "I7",
                    detail: format!("command {sequence} of session {session} was never submitted"),
                });
            };
            Some(self.carry_out(session, &command))
        };
        let index = self.applied;
        if let Some(twin) = self.sessions.get_mut(&session) {
            twin.effects.push(Effect { index, reply });
        }
        Ok(())
    }

    fn carry_out(&mut self, session: SessionId, command: &Command) -> Bytes {
        let index = self.applied;
        if matches!(command, Command::Open) {
            let instance =
                self.sessions.get_mut(&session).map(|twin| *twin.instance.get_or_insert(InstanceId(index.0)));
            return Command::opened(instance.unwrap_or_default());
        }
        let before = command.key().and_then(|key| self.value(key, index)).cloned();
        let (after, reply) = command.effect(before.as_ref(), index);
        if let Some(after) = after {
            if let Some(key) = command.key() {
                self.values.entry(key).or_default().push((index, after));
            } else {
                let full: Vec<u64> = self.entries(index).map(|(key, _)| key).collect();
                for key in full {
                    self.values.entry(key).or_default().push((index, None));
                }
            }
        }
        reply
    }

    /// What a key held behind an index.
    pub(super) fn value(&self, key: u64, index: Index) -> Option<&Stored> {
        let history = self.values.get(&key)?;
        let count = history.partition_point(|(at, _)| *at <= index);
        history.get(count.checked_sub(1)?)?.1.as_ref()
    }

    /// All that the map held behind an index.
    pub(super) fn entries(&self, index: Index) -> impl Iterator<Item = (u64, &Stored)> + '_ {
        self.values.keys().filter_map(move |key| Some((*key, self.value(*key, index)?)))
    }

    /// What a query must answer behind an index.
    pub(super) fn answer(&self, query: &Query, index: Index) -> Bytes {
        query.answer(|key| self.value(key, index), || self.entries(index).collect())
    }
}
