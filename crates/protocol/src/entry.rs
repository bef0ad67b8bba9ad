//! One slot of the replicated log.

use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Index, Term};
use crate::time::ClusterTime;

/// Names an entry. Orders by term, then index: of two logs the one with the greater last id is more up to date (§3.6.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId {
    /// Term of the leader that created the entry.
    pub term: Term,
    /// Its position.
    pub index: Index,
}

impl EntryId {
    /// Before the first entry.
    pub const ZERO: EntryId = EntryId { term: Term(0), index: Index(0) };

    /// From its parts.
    #[must_use]
    pub const fn new(term: Term, index: Index) -> Self {
        EntryId { term, index }
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What an entry's payload is. Numbers are part of the wire and file formats and only grow at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// The first entry of a leader's term; empty payload (R1).
    NoOp = 1,
    /// A [`Configuration`](crate::Configuration), encoded by [`codec::to_bytes`](crate::codec::to_bytes).
    Configuration = 2,
    /// A [`SessionEntry`](crate::session::SessionEntry); opaque to consensus.
    Session = 3,
}

impl EntryKind {
    /// From its number; `None` for a kind this version does not know (a replica stops on one, M2).
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(EntryKind::NoOp),
            2 => Some(EntryKind::Configuration),
            3 => Some(EntryKind::Session),
            _ => None,
        }
    }
}

/// One slot of the replicated log. Cloning shares the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Term and index.
    pub id: EntryId,
    /// Cluster time at which the leader appended it. Invariant: not before that of the entry before (T1).
    pub time: ClusterTime,
    /// What the payload is.
    pub kind: EntryKind,
    /// Opaque to consensus unless `kind` is a configuration.
    pub payload: Bytes,
}

impl Entry {
    /// Bytes this entry counts for in every byte bound: its payload and a flat charge for its header.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.payload.len() as u64 + 64
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?} {}B", self.id, self.kind, self.time, self.payload.len())
    }
}
