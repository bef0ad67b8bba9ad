//! What sessions write into the log (S1–S9, T2, E2, M3).
//!
//! The bytes of a [`SessionEntry`] are made once, by the client core for commands and by the leader for the rest. They are
//! the tail of the client's frame, the payload of the log entry and what every replica applies: never re-encoded.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::ids::{ClientId, Index, Sequence, SessionId, SessionKey, Term};

/// One entry of the log, as the session table understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEntry {
    /// Opens a session (S1).
    Open(Open),
    /// A command of a session.
    Command(CommandHeader, Bytes),
    /// Takes the place of a command that was refused before the log (S4): consumes its sequence, does nothing.
    Skip(CommandHeader),
    /// Ends a session at its client's wish.
    Close(Close),
    /// Ends a session whose client fell silent (S7).
    Expire(Expire),
    /// Moves cluster time, so that timers fire and clean-up goes on (T2, S9).
    Time,
    /// Trims what clients have acknowledged outside the log (E2).
    Acknowledge(Vec<Acknowledged>),
    /// Raises the level of a kind of resource (M3).
    RaiseLevel(RaiseLevel),
    /// Gives up a session whose client leaves its events unacknowledged (E3): they are dropped, and no more are kept. Silence ends it.
    Overflow(Overflow),
}

/// Opens a session. Its id is the index of the entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The client.
    pub client: ClientId,
    /// Drawn per attempt to open: a retry with the same one returns the same session.
    pub attempt: u64,
    /// The secret of the session.
    pub key: SessionKey,
    /// Who the client was authenticated as; empty for nobody in particular.
    pub principal: String,
    /// After this much silence, in milliseconds, the leader ends the session (τ).
    pub timeout_ms: u64,
}

impl core::fmt::Debug for Open {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Open")
            .field("client", &self.client)
            .field("attempt", &self.attempt)
            .field("principal", &self.principal)
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}

/// What travels with every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandHeader {
    /// The session.
    pub session: SessionId,
    /// The command's place in it (S2, S3).
    pub sequence: Sequence,
    /// The lowest sequence whose reply the client has not got: replies below may be dropped (S4).
    pub lowest_unanswered: Sequence,
    /// The last event that the client has acknowledged (E2).
    pub acknowledged_event: Index,
}

/// Ends a session at its client's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The session.
    pub session: SessionId,
}

/// Ends a session whose client fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expire {
    /// The session.
    pub session: SessionId,
    /// The term in which that was decided (R8).
    pub decided_in: Term,
}

/// Gives up a session whose outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflow {
    /// The session.
    pub session: SessionId,
    /// The term in which that was decided (R8).
    pub decided_in: Term,
}

/// What one client has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The session.
    pub session: SessionId,
    /// The last event acknowledged.
    pub event: Index,
    /// The lowest sequence whose reply the client has not got.
    pub lowest_unanswered: Sequence,
}

/// Raises the level of a kind of resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseLevel {
    /// The kind, by name.
    pub kind: String,
    /// The highest operation number that may be used from here on.
    pub level: u16,
    /// The term in which that was decided (R8).
    pub decided_in: Term,
}

const OPEN: u8 = 1;
const COMMAND: u8 = 2;
const SKIP: u8 = 3;
const CLOSE: u8 = 4;
const EXPIRE: u8 = 5;
const TIME: u8 = 6;
const ACKNOWLEDGE: u8 = 7;
const RAISE_LEVEL: u8 = 8;
const OVERFLOW: u8 = 9;

impl SessionEntry {
    /// The bytes that go into the frame and the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            SessionEntry::Open(open) => codec::tagged(OPEN, open, &[]),
            SessionEntry::Command(header, body) => codec::tagged(COMMAND, header, body),
            SessionEntry::Skip(header) => codec::tagged(SKIP, header, &[]),
            SessionEntry::Close(close) => codec::tagged(CLOSE, close, &[]),
            SessionEntry::Expire(expire) => codec::tagged(EXPIRE, expire, &[]),
            SessionEntry::Time => codec::tagged(TIME, &(), &[]),
            SessionEntry::Acknowledge(list) => codec::tagged(ACKNOWLEDGE, list, &[]),
            SessionEntry::RaiseLevel(raise) => codec::tagged(RAISE_LEVEL, raise, &[]),
            SessionEntry::Overflow(overflow) => codec::tagged(OVERFLOW, overflow, &[]),
        }
    }

    /// Reads it back. A command's body shares `bytes`.
    ///
    /// # Errors
    /// If the bytes are not exactly one session entry of a kind that this version knows.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (tag, rest) = codec::split_tag(bytes)?;
        match tag {
            OPEN => codec::from_bytes(&rest).map(SessionEntry::Open),
            COMMAND => {
                let (header, body) = codec::take_from_bytes(&rest)?;
                Ok(SessionEntry::Command(header, body))
            }
            SKIP => codec::from_bytes(&rest).map(SessionEntry::Skip),
            CLOSE => codec::from_bytes(&rest).map(SessionEntry::Close),
            EXPIRE => codec::from_bytes(&rest).map(SessionEntry::Expire),
            TIME => codec::from_bytes::<()>(&rest).map(|()| SessionEntry::Time),
            ACKNOWLEDGE => codec::from_bytes(&rest).map(SessionEntry::Acknowledge),
            RAISE_LEVEL => codec::from_bytes(&rest).map(SessionEntry::RaiseLevel),
            OVERFLOW => codec::from_bytes(&rest).map(SessionEntry::Overflow),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}
