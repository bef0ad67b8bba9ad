//! What a server makes durable, as consensus asks for it and storage writes it (D1).

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, EntryId};
use crate::ids::{GroupId, Incarnation, Index, ServerId, Term};
use crate::member::Configuration;

/// A data directory's name, drawn when it was first used (I1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The incarnation.
    pub incarnation: Incarnation,
}

/// Term and vote (Figure 3.1: persistent state). Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Who got this server's vote in that term.
    pub voted_for: Option<ServerId>,
}

/// Everything that one write makes durable, all or a prefix, in the order of the fields (D1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// The group meant.
    pub group: GroupId,
    /// Written once, on a fresh directory.
    pub identity: Option<Identity>,
    /// The configuration in use: its latest in the log, or the initial one.
    pub configuration: Option<Configuration>,
    /// Set (`Some(Some)`) or cleared (`Some(None)`) the index until which the server abstains (D4), or [`REACH_UNKNOWN`].
    pub abstention: Option<Option<Index>>,
    /// Term and vote. Never later than the entries of that term.
    pub hard_state: Option<HardState>,
    /// The log ends with this entry from here on. Where it lies beyond the log's end, or the log holds another entry there
    /// (a snapshot was installed), the log is empty and goes on right after it.
    pub truncate_after: Option<EntryId>,
    /// Consecutive entries right behind the log's end.
    pub entries: Vec<Entry>,
}

/// An abstention until here: nobody knows how far the log reached that was lost. So it lasts until the log is as long as a leader's (D4).
pub const REACH_UNKNOWN: Index = Index(u64::MAX);

impl WriteBatch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identity.is_none()
            && self.configuration.is_none()
            && self.abstention.is_none()
            && self.hard_state.is_none()
            && self.truncate_after.is_none()
            && self.entries.is_empty()
    }
}
