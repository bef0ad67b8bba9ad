//! Every way in which the world can touch a server.

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, EntryId, Index, LinkId, ServerId, WriteBatch};
use atomix_raft::ChunkOutcome;
use bytes::Bytes;

use crate::{LateRead, Restored};

/// One input.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A dialled link stands.
    Dialed(LinkId),
    /// Somebody connected; the id comes from [`Engine::accept`](crate::Engine::accept).
    Accepted(LinkId),
    /// A frame arrived on a link.
    Frame(LinkId, Bytes),
    /// A link could not be dialled, or closed.
    Closed(LinkId),
    /// The write of that token is durable.
    Written(u64),
    /// Answer to [`Output::Fetch`](crate::Output::Fetch).
    Fetched {
        /// For whom.
        to: ServerId,
        /// The first index asked for.
        from: Index,
        /// The entries, or `None`: not available.
        entries: Option<Vec<Entry>>,
    },
    /// A snapshot of [`Output::TakeSnapshot`](crate::Output::TakeSnapshot) is finished, and this is its whole description.
    SnapshotTaken(SnapshotMeta),
    /// The snapshot of [`Output::Publish`](crate::Output::Publish) is published, durably.
    Published(EntryId),
    /// Answer to [`Output::ReadChunk`](crate::Output::ReadChunk).
    ChunkRead {
        /// For whom.
        to: ServerId,
        /// The snapshot.
        last: EntryId,
        /// Where the bytes begin.
        offset: u64,
        /// The bytes, or `None`: gone.
        data: Option<Bytes>,
    },
    /// Answer to [`Output::WriteChunk`](crate::Output::WriteChunk).
    ChunkWritten {
        /// The snapshot.
        last: EntryId,
        /// What became of it.
        outcome: ChunkOutcome,
    },
    /// Answer to [`Output::LoadSnapshot`](crate::Output::LoadSnapshot): the whole snapshot.
    SnapshotLoaded(EntryId, Bytes),
    /// Answer to [`Output::Restore`](crate::Output::Restore).
    Restored(EntryId, Restored),
    /// The answer of [`Output::Answer`](crate::Output::Answer) was dropped: read again.
    TooLate(LateRead),
    /// The server is to be shut down: it lets another lead first, if it leads. Then, or if
    /// [`Engine::is_handing_over`](crate::Engine::is_handing_over) says no at once, it may be.
    HandOver,
    /// A write, a sync or a read failed for good (D5), and this is what. Nothing may be asked of the disk any more: nothing is. The
    /// process stays up, to say so.
    DiskFailed(String),
    /// There was no room for the write of that number, which is given back: nothing of it counts, though what is not entries may be durable
    /// (D5). [`Input::Room`] must follow, now
    /// and then until the write succeeds: entries are handed out again after each, whatever it says. Term and vote are at once, by themselves.
    NotWritten(u64, WriteBatch),
    /// Whether the disk has room for more than what it keeps in reserve (D5). It is taken to have until this says no.
    Room(bool),
}
