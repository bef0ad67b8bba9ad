//! How a command or query ends for its caller (S5): done, not done, or unknown. They never mix.

use atomix_protocol::Index;
use bytes::Bytes;
use thiserror::Error;

/// A command that was done, or a query that was answered: what the state machine replied, which may be a refusal of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The index at which it took effect, or whose state was read.
    pub index: Index,
    /// The state machine's reply.
    pub body: Bytes,
}

/// Why there is no [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It was not done, and never will be.
    #[error("not done: {0}")]
    NotDone(NotDone),
    /// It may have been done, or may yet be.
    #[error("unknown whether it was done: {0}")]
    Unknown(String),
}

/// Why a command was certainly not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotDone {
    /// Too much is in flight, here or at the server; try later.
    #[error("busy")]
    Busy,
    /// The servers' disks are full: only what needs no room is done until there is some again (D5).
    #[error("the servers' disks are full")]
    Full,
    /// Larger than the limit.
    #[error("too large")]
    TooLarge,
    /// Not allowed.
    #[error("forbidden")]
    Forbidden,
    /// The server could not read it.
    #[error("malformed")]
    Malformed,
    /// It would create a resource of a kind that not all servers are known to have, yet (M3).
    #[error("not all servers know that kind of resource")]
    UnknownKind,
    /// The session was over before it was sent.
    #[error("the session has ended")]
    SessionEnded,
    /// A query whose deadline passed: queries change nothing.
    #[error("timed out")]
    TimedOut,
}
