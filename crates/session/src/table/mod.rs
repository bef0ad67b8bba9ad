//! The replicated half of sessions: who is open, what was applied, which replies and events are kept (S1–S5, S9, E1, E2).
//!
//! Lives on every replica, is changed by log entries only, and is part of the snapshot (M4).

mod apply;
mod events;
mod outbox;
mod record;
mod snapshot;

use std::fmt;
use std::time::Duration;

use atomix_protocol::client::{EndReason, ReplyHeader};
use atomix_protocol::{ClientId, ClusterTime, Index, InstanceId, Sequence, SessionId, SessionKey};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::levels::Levels;
use crate::state_machine::Published;
use crate::timers::Timers;

pub use snapshot::Restored;

/// Limits of the table. Part of what every replica must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most open sessions.
    pub sessions: usize,
    /// Most replies kept per session: the window of S4 with its reserve.
    pub window: u64,
}

/// The sessions of a cluster, as of one index.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    state: State,
    /// What the state machine has published and is not in the outboxes yet. Invariant: empty between entries.
    published: Published,
    /// The session that ended last, and where. Only for the mutant B28.
    last_ended: Option<(Index, SessionId)>,
    /// Entries through this one were applied by an earlier process too. Only for the mutant B28.
    replays_through: Index,
}

/// What is replicated. Persistent maps throughout: a snapshot is a clone (M4).
#[derive(Clone, Debug, Default)]
struct State {
    /// The last entry applied.
    index: Index,
    /// Cluster time. Invariant: never runs back (T1).
    time: ClusterTime,
    /// Open sessions.
    sessions: OrdMap<SessionId, record::Record>,
    /// Invariant: the same sessions, by client; a client has one at most (S10).
    by_client: OrdMap<ClientId, SessionId>,
    /// Sessions that ended and still own something, by the index that ended them. Invariant: none of them is open (S9).
    cleaning: OrdMap<Index, SessionId>,
    /// Committed levels (M3). Invariant: they only rise.
    levels: Levels,
    /// The state machine's.
    timers: Timers,
    /// Sessions that were sent atomic events and have not acknowledged them, by the index of these (E6). Invariant: exactly what
    /// their outboxes say.
    awaited: OrdSet<(Index, SessionId)>,
}

/// What applying one entry meant to clients. The leader tells them; the other replicas drop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A session was opened, or a retry found it open.
    Opened {
        /// The session.
        session: SessionId,
        /// Its client.
        client: ClientId,
        /// The attempt.
        attempt: u64,
        /// Its timeout as committed.
        timeout: Duration,
        /// Whether this entry opened it.
        new: bool,
    },
    /// An open was refused: too many sessions, or a late copy of an attempt that was taken over.
    OpenRefused {
        /// The client.
        client: ClientId,
        /// The attempt.
        attempt: u64,
    },
    /// Events of this entry are in a session's outbox. Comes before the reply of the entry (E5).
    Published {
        /// The session.
        session: SessionId,
        /// Whether a reply waits until it has acknowledged them (E6).
        atomic: bool,
    },
    /// A session was given up because its outbox was full (E3): it has no events any more, and is to be left to fall silent.
    GivenUp {
        /// The session.
        session: SessionId,
    },
    /// Acknowledgements that were logged for their own sake dropped events or replies of so many sessions (E2).
    Trimmed {
        /// How many.
        sessions: u64,
    },
    /// A command has its reply, by this entry or kept from an earlier one.
    Reply {
        /// The session.
        session: SessionId,
        /// Index, sequence and outcome.
        header: ReplyHeader,
        /// The state machine's reply.
        body: Bytes,
        /// Whether it was kept from an earlier entry (S3).
        kept: bool,
        /// Whether it is to be held while [`Table::awaited`] names somebody who has not acknowledged (E6).
        atomic: bool,
    },
    /// A command came out of sequence; nothing was consumed (S3).
    Gap {
        /// The session.
        session: SessionId,
        /// The sequence that would be applied.
        expected: Sequence,
    },
    /// A session ended, or a command came for one that is over.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        reason: EndReason,
        /// Whether this entry ended it.
        new: bool,
    },
}

/// What the table knows of a command before it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Not applied yet.
    New,
    /// Applied: this is its reply, kept, or that it is gone (S3). The flag is that of [`Effect::Reply`]: it may have to wait (E6).
    Kept(ReplyHeader, Bytes, bool),
    /// No such session is open.
    NoSession(EndReason),
}

/// The events of one index for one session. Clones share the bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where the events before them were published; zero for none (E1).
    pub previous: Index,
    /// Whether a reply waits for them (E6).
    pub atomic: bool,
    /// The different bodies.
    pub bodies: Vec<Bytes>,
    /// For which instance each event is, and which body it has.
    pub parts: Vec<(InstanceId, u32)>,
}

/// So many events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Indexes with events.
    pub events: u64,
    /// Bytes of their different bodies, and a flat charge for each index, body and part.
    pub bytes: u64,
}

/// What is known of an open session.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its client.
    pub client: ClientId,
    /// Its secret.
    pub key: SessionKey,
    /// Its timeout as committed (τ).
    pub timeout: Duration,
    /// The last sequence applied.
    pub last_sequence: Sequence,
    /// Its last event; zero for none.
    pub event_index: Index,
    /// Whether it was given up (E3): it has no events, and its contacts do not count.
    pub given_up: bool,
    /// How many replies are kept for it (S4).
    pub replies: usize,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Table {
            limits,
            state: State::default(),
            published: Published::default(),
            last_ended: None,
            replays_through: Index::ZERO,
        }
    }

    /// The same with levels that need no entry: for a table that is the only one there is, as in tests without a cluster.
    #[must_use]
    pub fn with_levels(mut self, levels: Levels) -> Self {
        self.state.levels = levels;
        self
    }

    /// What is known of a command before it is logged.
    #[must_use]
    pub fn lookup(&self, session: SessionId, sequence: Sequence) -> Lookup {
        match self.state.sessions.get(&session) {
            None => Lookup::NoSession(EndReason::Unknown),
            Some(record) if sequence > record.last_sequence => Lookup::New,
            Some(record) => {
                let (header, body, atomic) = record.answer(sequence);
                Lookup::Kept(header, body, atomic)
            }
        }
    }

    /// An open session.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<SessionInfo> {
        self.state.sessions.get(&session).map(|record| SessionInfo {
            client: record.client,
            key: record.key,
            timeout: record.timeout(),
            last_sequence: record.last_sequence,
            event_index: record.outbox.last(),
            given_up: record.given_up,
            replies: record.replies.len(),
        })
    }

    /// The session that an attempt of a client opened, if it is open. Whoever binds a link to it compares the key first.
    #[must_use]
    pub fn opened_by(&self, client: ClientId, attempt: u64) -> Option<SessionId> {
        let (session, record) = self.state.session_of(client)?;
        (record.attempt == attempt).then_some(session)
    }

    /// Open sessions with their timeouts, ascending.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Duration)> + '_ {
        self.state.sessions.iter().map(|(session, record)| (*session, record.timeout()))
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.sessions.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.sessions.is_empty()
    }

    /// The committed levels (M3).
    #[must_use]
    pub fn levels(&self) -> &Levels {
        &self.state.levels
    }

    /// The last index applied, and its time.
    #[must_use]
    pub fn applied(&self) -> (Index, ClusterTime) {
        (self.state.index, self.state.time)
    }

    /// The earliest timer of the state machine: the leader appends a time entry when cluster time reaches it (T2).
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        self.state.timers.next_deadline()
    }

    /// Whether clean-ups are pending: the leader appends time entries until they are done (S9).
    #[must_use]
    pub fn is_cleaning(&self) -> bool {
        !self.state.cleaning.is_empty()
    }

    /// Forgets every kept reply. Only for the mutant B26.
    #[doc(hidden)]
    pub fn drop_replies(&mut self) {
        let sessions =
            self.state.sessions.iter().map(|(session, record)| {
                (*session, record::Record { replies: OrdMap::new(), ..record.clone() })
            });
        self.state.sessions = sessions.collect();
    }

    /// Removes a session without any entry of the log. Only for the mutant B27.
    #[doc(hidden)]
    pub fn drop_session(&mut self, session: SessionId) {
        self.state.remove(session);
    }

    /// Entries through `index` were applied by an earlier process too. Only for the mutant B28.
    #[doc(hidden)]
    pub fn replays_through(&mut self, index: Index) {
        self.replays_through = index;
    }

    /// Whether this entry follows the end of that session, and no earlier process applied it. Only for the mutant B28.
    fn goes_on_after_its_end(&self, session: SessionId) -> bool {
        let index = self.state.index;
        self.last_ended == Some((index.previous(), session)) && index > self.replays_through
    }
}

impl State {
    /// Takes a session out, and what is kept of it (S9, E6).
    fn remove(&mut self, session: SessionId) -> Option<()> {
        let mut record = self.sessions.remove(&session)?;
        self.by_client.remove(&record.client);
        let (_, atomic) = record.outbox.trim(record.outbox.last());
        self.await_no_more(session, &atomic);
        Some(())
    }

    fn session_of(&self, client: ClientId) -> Option<(SessionId, &record::Record)> {
        let session = *self.by_client.get(&client)?;
        Some((session, self.sessions.get(&session)?))
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("client", &self.client)
            .field("timeout", &self.timeout)
            .field("last_sequence", &self.last_sequence)
            .field("event_index", &self.event_index)
            .field("replies", &self.replies)
            .finish_non_exhaustive()
    }
}
