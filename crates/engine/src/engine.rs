//! The machine: recover, step, drain.

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::status::Status;
use atomix_protocol::{Configuration, Entry, HardState, Identity, Index, LinkId, LocalTime};
use atomix_session::{RestoreError, StateMachine};
use bytes::Bytes;

use crate::{Input, Options, Output};

/// What a server found on its disk.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// `None` on a fresh directory.
    pub identity: Option<Identity>,
    /// Term and vote.
    pub hard_state: HardState,
    /// The configuration in use.
    pub configuration: Option<Configuration>,
    /// The index until which the server abstains (D4).
    pub abstention: Option<Index>,
    /// The newest published snapshot, whole.
    pub snapshot: Option<(SnapshotMeta, Bytes)>,
    /// The entries after it.
    pub entries: Vec<Entry>,
}

/// One server.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// A server as it comes up.
    ///
    /// # Errors
    /// If the snapshot can't be read.
    pub fn new(
        _options: Options,
        _recovered: Recovered,
        _machine: Box<dyn StateMachine>,
        _now: LocalTime,
    ) -> Result<Self, RestoreError> {
        unimplemented!()
    }

    /// A link id for a connection that was accepted.
    pub fn accept(&mut self) -> LinkId {
        unimplemented!()
    }

    /// Takes one input. Outputs gather until [`Engine::drain`].
    pub fn step(&mut self, _now: LocalTime, _input: Input) {
        unimplemented!()
    }

    /// Ends a batch of inputs and hands over the outputs in order.
    pub fn drain(&mut self, _now: LocalTime) -> Vec<Output> {
        unimplemented!()
    }

    /// When to step with a tick at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        unimplemented!()
    }

    /// What this server says of itself.
    #[must_use]
    pub fn status(&self, _now: LocalTime) -> Status {
        unimplemented!()
    }

    /// Consensus, for checkers; `None` before the server has a configuration.
    #[must_use]
    pub fn raft(&self) -> Option<&atomix_raft::Raft> {
        unimplemented!()
    }

    /// The session table, for checkers.
    #[must_use]
    pub fn table(&self) -> &atomix_session::table::Table {
        unimplemented!()
    }

    /// The state machine, for checkers and tests.
    #[must_use]
    pub fn machine(&self) -> &dyn StateMachine {
        unimplemented!()
    }
}
