//! Everything that a server can ask of its world.

use std::fmt;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Address, ClusterId, Index, LinkId, ServerId, SessionId, Term, WriteBatch};
use atomix_raft::Role;
use atomix_session::SnapshotSource;
use bytes::Bytes;
use thiserror::Error;

/// One output. To be carried out in order.
pub enum Output {
    /// Open a link; report `Dialed` or `Closed`.
    Dial(LinkId, Address),
    /// Send a frame.
    Send(LinkId, Bytes),
    /// Close a link, after what was sent on it; nothing more is reported of it.
    Close(LinkId),
    /// Make a batch durable, then report `Written`. At most one is outstanding.
    Write(u64, WriteBatch),
    /// Read entries for a follower; report `Fetched`.
    Fetch {
        /// For whom.
        to: ServerId,
        /// First index.
        from: Index,
        /// Last index.
        through: Index,
        /// Most bytes of entries.
        bytes: u64,
    },
    /// Write this state out as a snapshot; `meta` lacks size and checksum. Report `SnapshotTaken`. The source may be
    /// written on another thread. Never while a received snapshot is being written.
    TakeSnapshot(SnapshotMeta, Box<dyn SnapshotSource>),
    /// Publish a finished snapshot, on the storage thread; report `Published`.
    Publish(SnapshotMeta),
    /// Compact the log, on the storage thread.
    Compact(Index),
    /// Read a chunk of a published snapshot for a follower; report `ChunkRead`.
    ReadChunk {
        /// For whom.
        to: ServerId,
        /// The snapshot.
        meta: SnapshotMeta,
        /// Where to begin.
        offset: u64,
        /// Most bytes.
        bytes: usize,
    },
    /// Write a chunk of a received snapshot; offset zero begins it anew and stops an own one being taken. After the last, finish and
    /// verify. Report `ChunkWritten`.
    WriteChunk {
        /// The snapshot.
        meta: SnapshotMeta,
        /// Where the bytes begin.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// Whether these are the last.
        done: bool,
    },
    /// Read the whole published snapshot; report `SnapshotLoaded`.
    LoadSnapshot(SnapshotMeta),
    /// Something worth a log line.
    Notice(Notice),
    /// This server must stop, now. Nothing follows.
    Stop(StopReason),
}

/// Something worth a log line or a test's attention.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Role, term or leader changed.
    Role {
        /// The role now.
        role: Role,
        /// The term now.
        term: Term,
        /// The leader now known.
        leader: Option<ServerId>,
    },
    /// This server belongs to a cluster from now on.
    Member {
        /// The cluster.
        cluster: ClusterId,
        /// This server's id in it.
        server: ServerId,
    },
    /// The addresses listed belong to a cluster that does not know this directory: it stays up without a vote (I2).
    Joiner {
        /// The cluster.
        cluster: ClusterId,
    },
    /// The list given at this start is not the configuration's.
    BootstrapDiffers,
    /// A link was refused.
    Refused {
        /// The link.
        link: LinkId,
        /// Why.
        detail: String,
    },
    /// A session was ended for silence.
    Expired(SessionId),
    /// A received snapshot is in use.
    SnapshotInstalled(Index),
    /// An own snapshot is published.
    SnapshotTaken(Index),
}

/// Why a server must stop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StopReason {
    /// Another live process uses this server's identity (I5).
    #[error("another live process uses the identity of this data directory: {0}")]
    DuplicateIdentity(String),
    /// The data directory belongs to another cluster than the servers listed.
    #[error("the data directory belongs to another cluster: {0}")]
    ForeignCluster(String),
    /// A snapshot can't be read.
    #[error("{0}")]
    Restore(String),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Dial(link, address) => write!(f, "Dial({link}, {address})"),
            Output::Send(link, frame) => write!(f, "Send({link}, {}B)", frame.len()),
            Output::Close(link) => write!(f, "Close({link})"),
            Output::Write(token, batch) => write!(f, "Write({token}, {} entries)", batch.entries.len()),
            Output::Fetch { to, from, through, .. } => write!(f, "Fetch(for {to}, {from}..={through})"),
            Output::TakeSnapshot(meta, _) => write!(f, "TakeSnapshot({:?})", meta.last),
            Output::Publish(meta) => write!(f, "Publish({:?})", meta.last),
            Output::Compact(through) => write!(f, "Compact({through})"),
            Output::ReadChunk { to, meta, offset, .. } => {
                write!(f, "ReadChunk(for {to}, {:?}, {offset})", meta.last)
            }
            Output::WriteChunk { meta, offset, .. } => write!(f, "WriteChunk({:?}, {offset})", meta.last),
            Output::LoadSnapshot(meta) => write!(f, "LoadSnapshot({:?})", meta.last),
            Output::Notice(notice) => write!(f, "{notice:?}"),
            Output::Stop(reason) => write!(f, "Stop({reason})"),
        }
    }
}
