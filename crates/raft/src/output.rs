//! Everything that the machine can ask for.

use alloc::vec::Vec;

use atomix_protocol::peer::{PeerMessage, SnapshotMeta};
use atomix_protocol::{Configuration, Entry, Index, Round, ServerId, Term, WriteBatch};
use bytes::Bytes;
use thiserror::Error;

use crate::Role;

/// One output. To be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message. May be lost.
    Send {
        /// To whom.
        to: ServerId,
        /// What.
        message: PeerMessage,
    },
    /// Make a batch durable, then report [`Input::Written`](crate::Input::Written), or [`Input::NotWritten`](crate::Input::NotWritten). At most one is
    /// outstanding: what comes meanwhile gathers for the next (D2).
    Write {
        /// Names the write.
        token: u64,
        /// What to write.
        batch: WriteBatch,
    },
    /// These entries are committed: apply them, in order, then call [`Raft::applied`](crate::Raft::applied).
    Committed {
        /// Consecutive entries, right behind the last ones committed.
        entries: Vec<Entry>,
    },
    /// These reads are confirmed: answer them once `index` is applied (Q3).
    ReadsReady {
        /// The ids given to [`Raft::read`](crate::Raft::read).
        reads: Vec<u64>,
        /// What they must see.
        index: Index,
        /// Whether only the lease says so (R3): then an answer is good only if [`Raft::lease_holds`](crate::Raft::lease_holds) at a
        /// time that was read after the state; else ask again with [`Raft::read_by_round`](crate::Raft::read_by_round).
        lease: bool,
    },
    /// These reads can't be confirmed here any more: the leader was deposed.
    ReadsFailed {
        /// The ids given to [`Raft::read`](crate::Raft::read).
        reads: Vec<u64>,
    },
    /// A quorum has answered that round of this leader's term: it led when the round began (S6).
    RoundConfirmed {
        /// The term.
        term: Term,
        /// The round, and with it all before it.
        round: Round,
    },
    /// Role, term or known leader changed.
    RoleChanged {
        /// The role now.
        role: Role,
        /// The term now.
        term: Term,
        /// The leader now known.
        leader: Option<ServerId>,
    },
    /// A configuration is committed: every server that holds a log follows it. The latest one in the log may be another.
    ConfigurationCommitted {
        /// The configuration.
        configuration: Configuration,
    },
    /// The hand-over that [`Raft::transfer`](crate::Raft::transfer) began came to nothing: this server leads on, and takes proposals
    /// again.
    TransferFailed {
        /// Who was to take over.
        to: ServerId,
    },
    /// Read entries that memory no longer holds, for a follower (R5).
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
    /// Read a chunk of this server's published snapshot, for a follower.
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
    /// Write a chunk of the leader's snapshot aside. Offset zero begins it anew; any other goes on behind what was written of the
    /// very same snapshot, and is bad if that is gone. After the last, verify the whole. Several may be outstanding: report
    /// [`Input::ChunkWritten`](crate::Input::ChunkWritten) for each, in order.
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
    /// The whole is written and verified: publish it, restore the state machine from it, report
    /// [`Input::Installed`](crate::Input::Installed).
    Install {
        /// The snapshot.
        meta: SnapshotMeta,
    },
}

/// Why a proposal or a read was refused. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// This server does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who is thought to.
        leader: Option<ServerId>,
    },
    /// The log's memory bound is reached (R5).
    #[error("busy")]
    Busy,
    /// Leadership is being handed over: the next leader will take it, or this one again soon (§3.10).
    #[error("handing over")]
    HandingOver,
    /// The decision behind the proposal was made in another term (R8).
    #[error("decided in another term")]
    StaleTerm,
}
