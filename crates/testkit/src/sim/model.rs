//! The sequential twin: sessions and resources as plain containers, told each committed entry once.
//!
//! Knows nothing of the real table, registry, map or lock: what they say is compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use atomix_protocol::client::EndReason;
use atomix_protocol::session::{CommandHeader, Open, SessionEntry};
use atomix_protocol::{
    ClientId, ClusterTime, Entry, EntryKind, Index, InstanceId, ResourceId, Sequence, SessionId, SessionKey,
};
use bytes::Bytes;

use super::checker::{Broken, Check, hold};
use super::coverage::Mark;
use super::operation::{Command, Query};
use super::twin::{Moment, Resources, Who};
use super::twin_lock::LockTwin;

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
    /// What it must be told, in order.
    pub(super) events: Vec<Told>,
    /// It gets no more (E3).
    pub(super) given_up: bool,
}

/// What became of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) index: Index,
    /// `None` if a skip consumed it.
    pub(super) reply: Option<Bytes>,
}

/// An event.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) index: Index,
    pub(super) instance: InstanceId,
    pub(super) body: Bytes,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { index, instance, body } = self;
        write!(f, "{}B at {index} for {instance} ({:?})", body.len(), body.slice(..body.len().min(12)))
    }
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
    time: ClusterTime,
    session_limit: usize,
    window: u64,
    sessions: BTreeMap<SessionId, Twin>,
    open: BTreeMap<ClientId, SessionId>,
    submitted: BTreeMap<(SessionId, Sequence), (InstanceId, Command)>,
    not_done: BTreeSet<(SessionId, Sequence)>,
    pub(super) resources: Resources,
    marks: Vec<Mark>,
}

/// Something that an entry did which others want to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    /// A session is over.
    pub(super) ended: Option<(SessionId, EndReason)>,
    /// A lock has another holder, or none.
    pub(super) passed: bool,
}

impl Model {
    pub(super) fn new(session_limit: usize, window: u64) -> Self {
        Model {
            applied: Index::ZERO,
            time: ClusterTime::default(),
            session_limit,
            window,
            sessions: BTreeMap::new(),
            open: BTreeMap::new(),
            submitted: BTreeMap::new(),
            not_done: BTreeSet::new(),
            resources: Resources::default(),
            marks: Vec::new(),
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

    /// The sessions that were open behind an index.
    pub(super) fn open_at(&self, index: Index) -> impl Iterator<Item = SessionId> + '_ {
        let by_then = self.sessions.range(..=SessionId(index.0)).map(|(session, _)| *session);
        by_then.filter(move |session| self.was_open(*session, index))
    }

    /// The lock with that name.
    pub(super) fn lock(&self, resource: ResourceId) -> Option<&LockTwin> {
        self.resources.lock(resource)
    }

    /// Situations met since the last call.
    pub(super) fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// A client submitted a command to an instance.
    pub(super) fn submitted(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        instance: InstanceId,
        command: Command,
    ) {
        self.submitted.insert((session, sequence), (instance, command));
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
        self.time = self.time.max(entry.time);
        let moment = Moment { index: entry.id.index, time: self.time, term: entry.id.term };
        self.resources.pass_time(moment);
        let mut happened = Happened::default();
        if entry.kind == EntryKind::Session
            && let Ok(decoded) = SessionEntry::decode(&entry.payload)
        {
            happened.ended = self.apply_decoded(moment, decoded)?;
        }
        self.put_out();
        self.marks.extend(self.resources.take_refused().then_some(Mark::LevelRefused));
        happened.passed = self.resources.take_passed();
        Ok(happened)
    }

    fn apply_decoded(
        &mut self,
        moment: Moment,
        entry: SessionEntry,
    ) -> Result<Option<(SessionId, EndReason)>, Broken> {
        match entry {
            SessionEntry::Open(open) => Ok(self.open(moment, open)),
            SessionEntry::Command(header, _) => self.command(moment, &header, false).map(|()| None),
            SessionEntry::Skip(header) => self.command(moment, &header, true).map(|()| None),
            SessionEntry::Close(close) => Ok(self.end(moment, close.session, EndReason::Closed)),
            SessionEntry::Expire(expire) if expire.decided_in == moment.term => {
                Ok(self.end(moment, expire.session, EndReason::Expired))
            }
            SessionEntry::Acknowledge(list) => {
                self.marks.extend((!list.is_empty()).then_some(Mark::AcknowledgeFolded));
                for acknowledged in list {
                    if let Some(twin) = self.sessions.get_mut(&acknowledged.session) {
                        twin.lowest = twin.lowest.max(acknowledged.lowest_unanswered.min(twin.last().next()));
                    }
                }
                Ok(None)
            }
            SessionEntry::Overflow(overflow) if overflow.decided_in == moment.term => {
                if let Some(twin) = self.sessions.get_mut(&overflow.session)
                    && twin.ended.is_none()
                    && !std::mem::replace(&mut twin.given_up, true)
                {
                    self.marks.push(Mark::OutboxOverflow);
                }
                Ok(None)
            }
            SessionEntry::RaiseLevel(raise) if raise.decided_in == moment.term => {
                let more = self.resources.levels.raise(moment.index, &raise);
                self.marks.extend(more.then_some(Mark::LevelRaised));
                Ok(None)
            }
            SessionEntry::Expire(_)
            | SessionEntry::Overflow(_)
            | SessionEntry::Time
            | SessionEntry::RaiseLevel(_) => Ok(None),
        }
    }

    /// What was published goes to the sessions that are open and take events.
    fn put_out(&mut self) {
        for (to, body) in self.resources.take_published() {
            for (session, instance) in to {
                if let Some(twin) = self.sessions.get_mut(&session)
                    && twin.ended.is_none()
                    && !twin.given_up
                {
                    twin.events.push(Told { index: self.applied, instance, body: body.clone() });
                }
            }
        }
    }

    fn open(&mut self, moment: Moment, open: Open) -> Option<(SessionId, EndReason)> {
        let mut predecessor = None;
        let mut ended = None;
        if let Some(session) = self.open.get(&open.client).copied() {
            let twin = &self.sessions[&session];
            let retry = twin.attempt == open.attempt && twin.key == open.key;
            if retry || twin.predecessor == Some(open.attempt) {
                return None;
            }
            predecessor = Some(twin.attempt);
            ended = self.end(moment, session, EndReason::TakenOver);
        } else if self.open.len() >= self.session_limit {
            return None;
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
            events: Vec::new(),
            given_up: false,
        };
        self.sessions.insert(session, twin);
        ended
    }

    fn end(
        &mut self,
        moment: Moment,
        session: SessionId,
        reason: EndReason,
    ) -> Option<(SessionId, EndReason)> {
        let twin = self.sessions.get_mut(&session).filter(|twin| twin.ended.is_none())?;
        twin.ended = Some((self.applied, reason));
        self.open.remove(&twin.client);
        let (held, waited) = self.resources.contends(session);
        match reason {
            EndReason::Expired => {
                self.marks.extend(held.then_some(Mark::ExpiredWhileHolding));
                self.marks.extend(waited.then_some(Mark::ExpiredWhileWaiting));
            }
            EndReason::TakenOver => self.marks.extend((held || waited).then_some(Mark::GhostTakenOver)),
            _ => {}
        }
        self.resources.session_ended(moment, session);
        Some((session, reason))
    }

    fn command(&mut self, moment: Moment, header: &CommandHeader, skip: bool) -> Check {
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
            let Some((instance, command)) = self.submitted.remove(&(session, sequence)) else {
                return Err(Broken {
                    name: "I7",
                    detail: format!("command {sequence} of session {session} was never submitted"),
                });
            };
            let who = Who { session, instance, sequence };
            Some(self.resources.apply(moment, who, &command))
        };
        let index = self.applied;
        if let Some(twin) = self.sessions.get_mut(&session) {
            twin.effects.push(Effect { index, reply });
        }
        Ok(())
    }

    /// What a query must answer behind an index.
    pub(super) fn answer(&self, instance: InstanceId, query: &Query, index: Index) -> Bytes {
        self.resources.answer(instance, query, index)
    }

    /// Somebody who had a lock open behind an index, for each lock that was there.
    pub(super) fn visitors(&self, index: Index) -> BTreeMap<ResourceId, (SessionId, InstanceId)> {
        let openings = self.resources.openings(index);
        let locks = openings.filter(|(resource, ..)| self.lock(*resource).is_some());
        let open = locks.filter(|(_, session, _)| self.was_open(*session, index));
        open.map(|(resource, session, instance)| (resource, (session, instance))).collect()
    }
}
