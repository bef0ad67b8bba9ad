//! The machine: recover, step, drain.

use alloc::vec::Vec;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::status::Counters;
use atomix_protocol::{
    ClusterTime, Configuration, Entry, EntryId, EntryKind, HardState, Index, LocalTime, Round, ServerId, Term,
};
use bytes::Bytes;

use crate::{Config, Input, Output, Refused, Role};

/// What a server found on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The configuration in use when the last write was made, or the initial one.
    pub configuration: Configuration,
    /// The newest published snapshot; the state machine was restored from it.
    pub snapshot: Option<SnapshotMeta>,
    /// The entries after it.
    pub entries: Vec<Entry>,
}

/// One server's consensus.
#[derive(Debug)]
pub struct Raft {}

impl Raft {
    /// A server as it comes up: a follower that waits for a leader.
    ///
    /// `seed` decides its jitter.
    ///
    /// # Panics
    /// If `config` does not validate, or `server` is not in the configuration.
    #[must_use]
    pub fn new(_config: Config, _server: ServerId, _recovered: Recovered, _seed: u64, _now: LocalTime) -> Self {
        unimplemented!()
    }

    /// Takes one input. Outputs gather until [`Raft::drain`].
    pub fn step(&mut self, _now: LocalTime, _input: Input) {
        unimplemented!()
    }

    /// Appends an entry to the leader's log. It goes out with the next [`Raft::drain`].
    ///
    /// # Errors
    /// If nothing was appended.
    pub fn propose(
        &mut self,
        _now: LocalTime,
        _kind: EntryKind,
        _payload: Bytes,
        _decided_in: Option<Term>,
    ) -> Result<EntryId, Refused> {
        unimplemented!()
    }

    /// Asks for a linearizable read; [`Output::ReadsReady`] or [`Output::ReadsFailed`] will name it (Q3).
    ///
    /// # Errors
    /// If this server does not lead.
    pub fn read(&mut self, _now: LocalTime, _read: u64) -> Result<(), Refused> {
        unimplemented!()
    }

    /// All entries through `index` were applied.
    pub fn applied(&mut self, _index: Index) {
        unimplemented!()
    }

    /// Ends a batch of inputs: replicates and writes what gathered, and hands over the outputs in order.
    pub fn drain(&mut self, _now: LocalTime) -> Vec<Output> {
        unimplemented!()
    }

    /// When to call [`Raft::step`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        unimplemented!()
    }

    /// The last round this leader began. A contact received now is confirmed by a later one (S6).
    #[must_use]
    pub fn round(&self) -> Round {
        unimplemented!()
    }

    /// Cluster time now: what an entry proposed now would carry, or what was last heard (T1).
    #[must_use]
    pub fn cluster_time(&self, _now: LocalTime) -> ClusterTime {
        unimplemented!()
    }

    /// Whether this server leads and an entry of its own term is committed and applied.
    #[must_use]
    pub fn is_established(&self) -> bool {
        unimplemented!()
    }

    /// Whether a follower may serve reads of its applied state: it heard AppendEntries of the current term within
    /// `age` and has applied that message's commit index (Q4). An established leader may.
    #[must_use]
    pub fn is_fresh(&self, _now: LocalTime, _age: core::time::Duration) -> bool {
        unimplemented!()
    }

    /// Description of a snapshot of the state as applied now, without size and checksum.
    #[must_use]
    pub fn snapshot_point(&self) -> SnapshotMeta {
        unimplemented!()
    }

    /// Bytes of log after the newest snapshot, applied entries only (R6).
    #[must_use]
    pub fn bytes_since_snapshot(&self) -> u64 {
        unimplemented!()
    }

    /// Whether a snapshot is being received: no own one may be taken meanwhile (R6).
    #[must_use]
    pub fn is_installing(&self) -> bool {
        unimplemented!()
    }

    /// This server.
    #[must_use]
    pub fn server(&self) -> ServerId {
        unimplemented!()
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        unimplemented!()
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        unimplemented!()
    }

    /// The leader it knows.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        unimplemented!()
    }

    /// Last entry of its log.
    #[must_use]
    pub fn last(&self) -> EntryId {
        unimplemented!()
    }

    /// Last entry that is durable here.
    #[must_use]
    pub fn durable_index(&self) -> Index {
        unimplemented!()
    }

    /// Last entry known committed.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        unimplemented!()
    }

    /// Last entry applied.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        unimplemented!()
    }

    /// Last entry in the newest snapshot.
    #[must_use]
    pub fn snapshot_index(&self) -> Index {
        unimplemented!()
    }

    /// The configuration in use: the latest in the log, committed or not (§4.1).
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        unimplemented!()
    }

    /// The entry at an index, if memory holds it.
    #[must_use]
    pub fn entry(&self, _index: Index) -> Option<&Entry> {
        unimplemented!()
    }

    /// The counters that consensus keeps; the rest are zero.
    #[must_use]
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }
}
