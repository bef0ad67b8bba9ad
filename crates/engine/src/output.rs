//! Everything that a server can ask of its world.

use std::fmt;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Address, ClusterId, Index, LinkId, LocalTime, ServerId, SessionId, Term, WriteBatch};
use atomix_raft::Role;
use atomix_session::SnapshotSource;
use bytes::Bytes;
use thiserror::Error;

use crate::{LateRead, Restoring, Retired};

/// One output. To be carried out in order.
pub enum Output {
    /// Open a link; report `Dialed` or `Closed`.
    Dial(LinkId, Address),
    /// Send a frame.
    Send(LinkId, Bytes),
    /// The answer to a read that only the leader's lease vouches for (R3). Read the clock, when this is its turn and
    /// not earlier: up to `not_after` send the frame. Later, somebody else may have led when the state was read: drop it
    /// and report `TooLate`.
    ///
    /// The engine can't do that itself: it has read the state at a time that was taken before, and the machine may have
    /// stood still in between. What happens to the frame after the clock was read does not matter.
    Answer {
        /// The link.
        link: LinkId,
        /// The frame.
        frame: Bytes,
        /// The end of the lease.
        not_after: LocalTime,
        /// The read, to be reported.
        read: LateRead,
    },
    /// Close a link, after what was sent on it; nothing more is reported of it.
    Close(LinkId),
    /// Make a batch durable, then report `Written`, or `NotWritten`. At most one is outstanding.
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
    /// Write a chunk of a received snapshot; stops an own one being taken. Offset zero begins it anew. After the last, finish and
    /// verify. Several may be outstanding. Report `ChunkWritten`, for each and in order.
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
    /// Read the whole published snapshot and have it read, beside the loop; report `Restored`.
    Restore(SnapshotMeta, Restoring),
    /// Drop it where nothing waits for it.
    Retire(Retired),
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
        /// It was started to join, and asks to be taken in.
        asks: bool,
    },
    /// Its directory is one in use, on which a server does not ask for the place that it was started to have: it may have had it, and
    /// lost it to an operator.
    WishNotRepeated,
    /// A configuration is committed.
    Configuration {
        /// Its index.
        index: Index,
        /// How many members it has.
        members: usize,
        /// Whether it is joint: another follows.
        joint: bool,
    },
    /// This server takes a joining one a step further.
    Joining {
        /// The joining server.
        address: Address,
        /// The index of the configuration that does it.
        index: Index,
    },
    /// This server is a member no more.
    Removed {
        /// The index of the configuration without it.
        configuration: Index,
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
    /// Something was found damaged on the disk when this server came up.
    Damaged {
        /// What, and where.
        damage: Vec<String>,
        /// It has no vote until its log is whole through here, if entries may be lost (D4).
        abstains_until: Option<Index>,
    },
    /// What was damaged is whole again, through here at least: the server votes (D4).
    Repaired(Index),
    /// A follower has less than it acknowledged to this leader, and does not say that its disk was damaged: an older copy of its data
    /// directory was put in place, say (D4).
    Forgetful {
        /// The follower.
        server: ServerId,
        /// Where it is.
        address: Address,
    },
    /// The disk has no room but for what it keeps in reserve, or has room again (D5).
    Full(bool),
    /// The disk has failed: this server takes part in nothing any more (D5).
    Failed {
        /// What failed.
        why: String,
        /// Who was told to lead instead, if this server led.
        told: Option<ServerId>,
    },
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
    /// The log is damaged, and nobody else has what is lost: this server is the only voter (D4).
    #[error("{0}")]
    Damaged(String),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Dial(link, address) => write!(f, "Dial({link}, {address})"),
            Output::Send(link, frame) => write!(f, "Send({link}, {}B)", frame.len()),
            Output::Answer { link, not_after, .. } => write!(f, "Answer({link}, until {not_after:?})"),
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
            Output::Restore(meta, _) => write!(f, "Restore({:?})", meta.last),
            Output::Retire(_) => write!(f, "Retire"),
            Output::Notice(notice) => write!(f, "{notice:?}"),
            Output::Stop(reason) => write!(f, "Stop({reason})"),
        }
    }
}
