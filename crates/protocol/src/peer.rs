//! The RPCs between servers: one type per RPC and direction, exact fields. The sender is known from its link (I5).

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, EntryId};
use crate::ids::{Index, Round, Term};
use crate::member::Configuration;
use crate::time::ClusterTime;

/// Anything one server says to another after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// May I campaign? (§9.6)
    PreVote(PreVote),
    /// Answer to [`PreVote`].
    PreVoteReply(PreVoteReply),
    /// Vote for me (§3.4).
    RequestVote(RequestVote),
    /// Answer to [`RequestVote`].
    RequestVoteReply(RequestVoteReply),
    /// Entries, or a heartbeat (§3.5).
    AppendEntries(AppendEntries),
    /// Answer to [`AppendEntries`].
    AppendEntriesReply(AppendEntriesReply),
    /// A chunk of a snapshot (Figure 5.3).
    InstallSnapshot(InstallSnapshot),
    /// Answer to [`InstallSnapshot`].
    InstallSnapshotReply(InstallSnapshotReply),
    /// Campaign at once (§3.10).
    TimeoutNow(TimeoutNow),
    /// The configuration, for a reserve member (R7).
    Configure(Configure),
}

/// Asks whether a campaign in `term` could win. Changes nothing at the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVote {
    /// The term that the campaign would have: the sender's current term plus one.
    pub term: Term,
    /// The sender's last entry.
    pub last: EntryId,
}

/// Answer to [`PreVote`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVoteReply {
    /// The term that was asked about, echoed (fault N7).
    pub asked: Term,
    /// Whether the sender would vote.
    pub granted: bool,
    /// The answering server's own current term: a refused asker adopts it if it is higher (fault N7).
    pub current: Term,
    /// Refused only because the answering server still hears a leader (stickiness).
    pub sticky: bool,
}

/// Asks for a vote in `term`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestVote {
    /// The candidate's term.
    pub term: Term,
    /// The candidate's last entry.
    pub last: EntryId,
    /// Set when the campaign was caused by a [`TimeoutNow`]: the round it named (R3). Overrides stickiness.
    pub transfer: Option<Round>,
}

/// Answer to [`RequestVote`]. Term and vote are durable before it is sent (R2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestVoteReply {
    /// The answering server's current term.
    pub term: Term,
    /// The term that was asked about, echoed.
    pub asked: Term,
    /// Whether the vote was given.
    pub granted: bool,
}

/// Entries for a follower, or none: then it is a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The entry right before `entries`.
    pub prev: EntryId,
    /// The leader's commit index.
    pub leader_commit: Index,
    /// The last entry of the leader's log: a follower that abstains must come at least so far, whatever it had before (D4).
    pub last_index: Index,
    /// The leader's cluster time now (T1).
    pub time: ClusterTime,
    /// Milliseconds during which a follower that acknowledges this grants no vote (R3); zero unless lease reads are on.
    pub promise_ms: u32,
    /// The latest round the leader had begun when it sent this (Q3, S6).
    pub round: Round,
    /// Consecutive entries from `prev.index + 1` on.
    pub entries: Vec<Entry>,
}

/// Answer to [`AppendEntries`]. An answer to a heartbeat is not held for entries that are still being written,
/// but its term is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendEntriesReply {
    /// The answering server's current term.
    pub term: Term,
    /// The greatest round of `term` that the answering server has received; with [`AppendOutcome::Durable`], of those whose promise it
    /// has made (R3).
    pub round: Round,
    /// Whether the answering server's disk has room for more than it keeps in reserve (D5): a leader without room prefers to hand
    /// over to a server with it.
    pub room: bool,
    /// Whether the answering server lacks entries that it acknowledged once: it has no vote, and leadership is not handed to it (D4).
    pub abstains: bool,
    /// What became of the entries.
    pub outcome: AppendOutcome,
}

/// What became of the entries of an [`AppendEntries`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// The logs agree, and the follower holds them durably, through this index (R2).
    Durable(Index),
    /// The follower has no entry `prev`.
    Mismatch {
        /// The `prev` that was refused, echoed so that a late answer is recognised.
        prev: EntryId,
        /// The greatest entry of the follower's log that could match: the leader goes on from there or below.
        hint: EntryId,
    },
    /// The term was refused: the answering server is in a later one.
    StaleTerm,
    /// The round was received, and what it asked to be promised is too long to be promised (R3). Of the entries another answer tells.
    Unpromised,
}

/// A chunk of a snapshot (R6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// The snapshot, and what it stands for. The same in every chunk.
    pub meta: SnapshotMeta,
    /// Where in the snapshot `data` begins.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// Whether the snapshot ends with this chunk.
    pub done: bool,
    /// The leader's cluster time now (T1).
    pub time: ClusterTime,
    /// The latest round the leader had begun when it sent this.
    pub round: Round,
}

/// What a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry whose effect is in it.
    pub last: EntryId,
    /// Cluster time of that entry.
    pub time: ClusterTime,
    /// The latest configuration at or before that entry, or a later one that was committed: a server that joined may never have
    /// known of one before.
    pub configuration: Configuration,
    /// Length in bytes.
    pub size: u64,
    /// CRC-32C of all bytes.
    pub checksum: u32,
}

/// Answer to [`InstallSnapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallSnapshotReply {
    /// The answering server's current term.
    pub term: Term,
    /// The greatest round of `term` that the answering server has received.
    pub round: Round,
    /// The snapshot meant.
    pub last: EntryId,
    /// What became of the chunk.
    pub outcome: InstallOutcome,
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallOutcome {
    /// Send the chunk at this offset.
    Next(u64),
    /// The whole is verified, durable and in use.
    Installed,
    /// The whole did not verify, or was interrupted: begin again at zero.
    Restart,
    /// The term was refused: the answering server is in a later one.
    StaleTerm,
}

/// Tells a follower to campaign at once (§3.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// The leader's last round: it lifts only promises up to it (R3).
    pub round: Round,
}

/// Tells a reserve member, which holds no log, the latest committed configuration (R7). Repeated now and then; not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {
    /// The leader's term.
    pub term: Term,
    /// The configuration.
    pub configuration: Configuration,
}
