//! The replicated half of sessions: who is open, what was applied, which replies are kept (S1–S5, S9).
//!
//! Lives on every replica, is changed by log entries only, and is part of the snapshot (M4).

use std::time::Duration;

use atomix_protocol::client::{EndReason, ReplyHeader};
use atomix_protocol::{ClientId, ClusterTime, Entry, Index, Sequence, SessionId, SessionKey};
use bytes::Bytes;

use crate::state_machine::{RestoreError, SnapshotSource, StateMachine};

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
pub struct Table {}

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
    /// An open was refused: too many sessions.
    OpenRefused {
        /// The client.
        client: ClientId,
        /// The attempt.
        attempt: u64,
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
    /// Applied: this is its reply, kept.
    Kept(ReplyHeader, Bytes),
    /// No such session is open.
    NoSession(EndReason),
}

/// What is known of an open session.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(_limits: Limits) -> Self {
        unimplemented!()
    }

    /// Applies one entry of any kind: fires the timers that its time passes (T2), runs a slice of pending clean-ups (S9), then the
    /// entry itself. A payload that does not decode is a deterministic no-op (M2).
    pub fn apply(&mut self, _entry: &Entry, _machine: &mut dyn StateMachine) -> Vec<Effect> {
        unimplemented!()
    }

    /// What is known of a command before it is logged.
    #[must_use]
    pub fn lookup(&self, _session: SessionId, _sequence: Sequence) -> Lookup {
        unimplemented!()
    }

    /// An open session.
    #[must_use]
    pub fn session(&self, _session: SessionId) -> Option<SessionInfo> {
        unimplemented!()
    }

    /// The session that an attempt of a client opened, if it is open.
    #[must_use]
    pub fn opened_by(&self, _client: ClientId, _attempt: u64) -> Option<SessionId> {
        unimplemented!()
    }

    /// Open sessions with their timeouts, ascending.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Duration)> + '_ {
        core::iter::empty()
    }

    /// The last index applied, and its time.
    #[must_use]
    pub fn applied(&self) -> (Index, ClusterTime) {
        unimplemented!()
    }

    /// The earliest timer of the state machine: the leader appends a time entry when cluster time reaches it (T2).
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        unimplemented!()
    }

    /// Whether clean-ups are pending: the leader appends time entries until they are done (S9).
    #[must_use]
    pub fn is_cleaning(&self) -> bool {
        unimplemented!()
    }

    /// The table and the state machine as they are, as one source of named, length-prefixed, versioned parts (M4).
    #[must_use]
    pub fn snapshot(&self, _machine: &dyn StateMachine) -> Box<dyn SnapshotSource> {
        unimplemented!()
    }

    /// Replaces both by those of a snapshot.
    ///
    /// # Errors
    /// If the bytes are not such a snapshot. Both are then unspecified.
    pub fn restore(&mut self, _snapshot: &Bytes, _machine: &mut dyn StateMachine) -> Result<(), RestoreError> {
        unimplemented!()
    }
}
