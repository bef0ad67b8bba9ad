//! What can be asked of a lock, and what it tells. Wire format: numbers and variants are only ever added, a released one never changes.

use atomix_resource::{Index, Sequence, SessionId, operations};
use serde::{Deserialize, Serialize};

/// Wants the lock. Whoever has to wait is told by a [`LockEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// How long to wait for it.
    pub wait: Wait,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Not at all.
    No,
    /// So many milliseconds of cluster time (L4).
    Milliseconds(u64),
    /// Until granted.
    Forever,
}

/// Gives a grant back. Replies whether there was such a grant (L5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its token.
    pub token: Index,
}

/// Wants the lock no more: neither to wait for it nor to have it (L4, L5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Which [`Acquire`] of this instance.
    pub contender: Sequence,
}

/// How the lock is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspect;

operations! {
    /// What can be asked of a lock.
    pub struct LockOperations;
    commands {
        1: Acquire -> Acquired,
        2: Release -> bool,
        3: Cancel -> (),
    }
    queries {
        32: Inspect -> Inspection,
    }
}

/// The reply to [`Acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acquired {
    /// Granted at once.
    Granted {
        /// The index of this very command (L1).
        token: Index,
    },
    /// Not yet.
    Waiting,
    /// No: somebody has it, and there was no time to wait.
    Held,
    /// No: too many wait already.
    QueueFull,
    /// No: the lock is being deleted.
    Deleting,
}

/// The reply to [`Inspect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Who has it, and the token.
    pub holder: Option<(SessionId, Index)>,
    /// How many wait.
    pub waiting: u64,
}

/// What a contender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockEvent {
    /// It has the lock.
    Granted {
        /// Which [`Acquire`].
        contender: Sequence,
        /// The index of the event (L1).
        token: Index,
    },
    /// Its time was up before it was granted (L4).
    TimedOut {
        /// Which [`Acquire`].
        contender: Sequence,
    },
    /// The lock is being deleted: it waits no more.
    Deleted {
        /// Which [`Acquire`].
        contender: Sequence,
    },
    /// The lock is being deleted: the grant counts no more, and is to be given back (L3).
    Revoked {
        /// Which grant.
        token: Index,
    },
}
