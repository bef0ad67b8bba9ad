//! What a server says of itself, to operators and tests.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::ids::{Address, ClusterId, Incarnation, Index, ServerId, Term};
use crate::member::Member;
use crate::time::ClusterTime;

/// A server's view at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id, once it has one.
    pub server: Option<ServerId>,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// Its cluster, once it has one.
    pub cluster: Option<ClusterId>,
    /// Where it listens.
    pub address: Address,
    /// `leader`, `follower`, `candidate`, `pre-candidate`, `forming`, `joiner`, `removed` or `failed`.
    pub role: String,
    /// Whether it has a vote.
    pub votes: bool,
    /// What an operator should know, in plain words: why it has no vote, what it waits for. Empty when all is well.
    pub notice: String,
    /// The leader it knows.
    pub leader: Option<ServerId>,
    /// Its term.
    pub term: Term,
    /// Members of the configuration in use.
    pub members: Vec<Member>,
    /// Index of that configuration.
    pub configuration_index: Index,
    /// Last entry of the log.
    pub last_index: Index,
    /// Last entry that is durable here.
    pub durable_index: Index,
    /// Last entry known committed.
    pub commit_index: Index,
    /// Last entry applied.
    pub applied_index: Index,
    /// Last entry in the newest snapshot.
    pub snapshot_index: Index,
    /// Cluster time.
    pub time: ClusterTime,
    /// Open sessions.
    pub sessions: u64,
    /// Counters since the process started.
    pub counters: Counters,
    /// Where clients reach it.
    pub client_address: Address,
    /// Whether the configuration in use is joint: a change is under way that a quorum of each side must agree to (§4.3).
    pub joint: bool,
    /// Index of the latest configuration known committed here.
    pub committed_configuration: Index,
    /// Part of its log was damaged: it has no vote until its log is whole again through here (D4).
    pub abstains_until: Option<Index>,
    /// What was found damaged on its disk when it came up, and where, in plain words.
    pub damage: Vec<String>,
    /// Its disk is full but for what is kept in reserve: it takes no commands (D5).
    pub full: bool,
}

impl Status {
    /// Whether it is fit to serve: it knows a leader, and its disk has room (D5).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.leader.is_some() && !self.full
    }
}

/// Counters since a server process started. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Batches made durable, one sync each.
    pub syncs: u64,
    /// Entries made durable. Over `syncs`: entries per sync.
    pub entries_synced: u64,
    /// AppendEntries with entries sent.
    pub appends_sent: u64,
    /// Entries in them. Over `appends_sent`: entries per AppendEntries.
    pub entries_sent: u64,
    /// Quorum rounds that reads asked for.
    pub read_rounds: u64,
    /// Linearizable reads answered. Over `read_rounds`: reads per round.
    pub reads_confirmed: u64,
    /// The most AppendEntries that were ever in flight to one follower.
    pub largest_in_flight: u64,
    /// Commands applied.
    pub commands_applied: u64,
    /// Commands answered from the session table without being applied again (S3).
    pub answered_from_table: u64,
    /// Queries answered.
    pub queries_answered: u64,
    /// Elections started here, pre-votes not counted.
    pub elections: u64,
    /// Sessions ended for silence.
    pub sessions_expired: u64,
    /// Snapshots taken.
    pub snapshots_taken: u64,
    /// Snapshots received and put to use.
    pub snapshots_installed: u64,
    /// Frames and handshakes refused.
    pub frames_refused: u64,
    /// Events sent to clients.
    pub events_sent: u64,
    /// Those of them that had been published for an earlier link of their session (E4).
    pub events_resent: u64,
    /// Sessions given up because their outboxes were full (E3).
    pub sessions_given_up: u64,
}
