//! What can be asked of a map. Wire format: numbers are only ever added, a released operation never changes.
//!
//! Keys and values are opaque bytes here: what they encode is between the handles.

use std::fmt;

use atomix_resource::{Index, Sequence, operations};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most watches of one map.
pub const MOST_WATCHES: usize = 10_000;

/// Sets a key. Replies what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
}

/// Sets a key that holds nothing. Replies what it holds, if it does: nothing changed then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutIfAbsent {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
}

/// Sets a key that holds something. Replies what it held; if nothing, nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replace {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
}

/// Sets a key whose entry has this version. Replies whether it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceIf {
    /// The key.
    pub key: Bytes,
    /// The version that its entry must have.
    pub version: Index,
    /// Its new value.
    pub value: Bytes,
}

/// Removes a key. Replies what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The key.
    pub key: Bytes,
}

/// Removes a key whose entry has this version. Replies whether it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveIf {
    /// The key.
    pub key: Bytes,
    /// The version that its entry must have.
    pub version: Index,
}

/// Removes all keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clear;

/// Wants to be told of changes from here on, by [`MapEvent`]s. Replies what the key holds, if it is about one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Of which.
    pub scope: Scope,
}

/// Wants to be told no more. There need be no such watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwatch {
    /// Which [`Watch`] of this instance.
    pub watch: Sequence,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The key.
    pub key: Bytes,
}

/// Whether a key holds something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainsKey {
    /// The key.
    pub key: Bytes,
}

/// How many keys there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Len;

/// Entries in order of keys, as many as fit into one reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// Behind this key; `None` from the first on.
    pub after: Option<Bytes>,
}

operations! {
    /// What can be asked of a map.
    pub struct MapOperations;
    commands {
        1: Put -> Result<Option<Entry>, MapRefusal>,
        2: PutIfAbsent -> Result<Option<Entry>, MapRefusal>,
        3: Replace -> Option<Entry>,
        4: ReplaceIf -> bool,
        5: Remove -> Option<Entry>,
        6: RemoveIf -> bool,
        7: Clear -> (),
        8: Watch -> Result<Option<Entry>, MapRefusal>,
        9: Unwatch -> (),
    }
    queries {
        32: Get -> Option<Entry>,
        33: ContainsKey -> bool,
        34: Len -> u64,
        35: Entries -> Page,
    }
    fenced {
        64: Put,
        65: PutIfAbsent,
        66: Replace,
        67: ReplaceIf,
        68: Remove,
        69: RemoveIf,
        70: Clear,
    }
}

/// What a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// All keys.
    All,
    /// One key.
    Key(Bytes),
}

/// What changed, at the index of the event. To an instance that watches over it in several ways it is told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapEvent {
    /// A key that held nothing was set.
    Added {
        /// The key.
        key: Bytes,
        /// What it holds.
        entry: Entry,
    },
    /// A key that held something was set, perhaps to the same value.
    Updated {
        /// The key.
        key: Bytes,
        /// What it held.
        old: Entry,
        /// What it holds.
        new: Entry,
    },
    /// A key was removed.
    Removed {
        /// The key.
        key: Bytes,
        /// What it held.
        old: Entry,
    },
    /// All keys were removed at once. Who watches one key is told if that held something.
    Cleared,
    /// The map is gone, and this is the last event.
    Deleted,
}

/// Names a write: its place in the log. Of two versions the greater is the later, also across keys and maps.
///
/// Versions may be kept and passed on: they are serde types, and stay true as long as the cluster lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(Index);

impl Version {
    /// The place in the log.
    #[must_use]
    pub fn index(self) -> Index {
        self.0
    }
}

impl From<Index> for Version {
    fn from(index: Index) -> Self {
        Version(index)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// The command that wrote it.
    pub version: Index,
}

/// Some entries in order of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The entries.
    pub entries: Vec<(Bytes, Entry)>,
    /// Whether there are more behind the last of them.
    pub more: bool,
}

/// Why a map refuses a command. It was understood, and changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MapRefusal {
    /// The encoded key is longer than [`KEY_BYTES`](atomix_resource::limits::KEY_BYTES).
    #[error("the key is too long")]
    KeyTooLong,
    /// The map has [`MOST_WATCHES`] already.
    #[error("too many watch the map")]
    TooManyWatches,
}
