//! Newtypes for every number that is said aloud, so that no two of them are ever mixed up.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::ADDRESS_BYTES;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        number! { $(#[$doc])* $name(u64) }

        impl $name {
            /// The value before the first.
            pub const ZERO: $name = $name(0);

            /// The next value. Stays at the greatest value rather than wrapping, so that hostile input cannot turn it back.
            #[must_use]
            pub const fn next(self) -> $name {
                $name(self.0.saturating_add(1))
            }

            /// The value before, or zero.
            #[must_use]
            pub const fn previous(self) -> $name {
                $name(self.0.saturating_sub(1))
            }

            /// The value `n` further on, saturating.
            #[must_use]
            pub const fn plus(self, n: u64) -> $name {
                $name(self.0.saturating_add(n))
            }

            /// How far this value is past `other`; zero if it is not.
            #[must_use]
            pub const fn since(self, other: $name) -> u64 {
                self.0.saturating_sub(other.0)
            }
        }
    };
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

counter! {
    /// A term of Raft (§3.3): at most one leader each. Zero is before the first election.
    Term
}
counter! {
    /// A position in the replicated log, counted from one. Zero is before the first entry.
    Index
}
counter! {
    /// The place of a command in its session, counted from one (S2).
    Sequence
}
counter! {
    /// A numbered quorum round of one leader (Q3, S6). Rounds of different terms do not compare.
    Round
}
number! {
    /// A server of a cluster; given once from a counter in the configuration, never again (I3).
    ServerId(u64)
}
number! {
    /// A Raft group. Always [`GroupId::DEFAULT`] today; on the wire and on disk from the first version (I6).
    GroupId(u32)
}
number! {
    /// A session, named by the index of the entry that opened it (S1).
    SessionId(u64)
}
number! {
    /// One session's opening of a resource, named by the index of the entry that opened it (M1).
    InstanceId(u64)
}
number! {
    /// A resource, named by the index of the entry that created it. Never reused: a later one at the same path is another (M1).
    ResourceId(u64)
}
number! {
    /// A connection, named by the driver that owns it; never reused within a process, never on the wire.
    LinkId(u64)
}
number! {
    /// Drawn anew at each start of a server process (I5): two live ones for one server id are a duplicate.
    BootNonce(u64)
}
token! {
    /// A cluster, drawn at its bootstrap (I2).
    ClusterId
}
token! {
    /// A data directory, drawn when it was first used (I1). A wiped directory has another one.
    Incarnation
}
token! {
    /// A client, as it names itself across its sessions (S1, S10).
    ClientId
}
token! {
    /// The secret that each connection of a session presents (S1). Never printed: `Debug` hides it where it is held.
    SessionKey
}

impl GroupId {
    /// The only group there is today.
    pub const DEFAULT: GroupId = GroupId(0);
}

/// Where a server is reached, in whatever form its transport understands (`host:port` over TCP).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address(pub String);

impl Address {
    /// An address from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Address(text.into())
    }

    /// The text as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has more than [`ADDRESS_BYTES`] bytes: the members' addresses are in every configuration.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.0.len() > ADDRESS_BYTES
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Address(text.into())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Address(text)
    }
}
