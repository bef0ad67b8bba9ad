//! Every way in which the world can touch the machine, apart from proposals and reads, which answer at once.

use alloc::vec::Vec;

use atomix_protocol::peer::{PeerMessage, SnapshotMeta};
use atomix_protocol::{Entry, EntryId, Index, ServerId};
use bytes::Bytes;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed; nothing else happened.
    Tick,
    /// A message arrived on the link from a server whose handshake was accepted.
    Received {
        /// The server at the other end.
        from: ServerId,
        /// What it said.
        message: PeerMessage,
    },
    /// A link to that server stands: what was in flight on the one before may be lost.
    LinkOpened {
        /// The server at the other end.
        to: ServerId,
    },
    /// The link that carried that server's messages closed (R4).
    LinkClosed {
        /// The server at the other end.
        from: ServerId,
    },
    /// The write of that token is durable, and with it all before it.
    Written {
        /// The token of [`Output::Write`](crate::Output::Write).
        token: u64,
    },
    /// Answer to [`Output::Fetch`](crate::Output::Fetch).
    Fetched {
        /// For whom.
        to: ServerId,
        /// The first index that was asked for.
        from: Index,
        /// The entries, or `None`: not available, an ordinary answer (R5).
        entries: Option<Vec<Entry>>,
    },
    /// A snapshot of this server's own state is durable and published: the log before it may go.
    SnapshotPublished {
        /// The snapshot.
        meta: SnapshotMeta,
    },
    /// Answer to [`Output::ReadChunk`](crate::Output::ReadChunk).
    ChunkRead {
        /// For whom.
        to: ServerId,
        /// The snapshot.
        last: EntryId,
        /// Where the bytes begin.
        offset: u64,
        /// The bytes, or `None`: that snapshot is gone.
        data: Option<Bytes>,
    },
    /// Answer to [`Output::WriteChunk`](crate::Output::WriteChunk).
    ChunkWritten {
        /// The snapshot.
        last: EntryId,
        /// What became of the chunk.
        outcome: ChunkOutcome,
    },
    /// Answer to [`Output::Install`](crate::Output::Install): published, and the state machine restored from it.
    Installed {
        /// The snapshot.
        last: EntryId,
    },
    /// There was no room for a write: nothing of it counts, though what is not entries may be durable (D5). Its entries are handed out again after the next [`Input::Room`],
    /// whatever that says; term and vote at once, by themselves.
    NotWritten {
        /// The write's number.
        token: u64,
    },
    /// Whether the disk has room for more than what it keeps in reserve (D5). It is taken to have until this says no.
    Room(bool),
}

/// What became of a chunk that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkOutcome {
    /// Written; this offset is next.
    Next(u64),
    /// Written, and it was the last: the whole is durable and verifies.
    Whole,
    /// The whole does not verify; it was dropped.
    Bad,
}
