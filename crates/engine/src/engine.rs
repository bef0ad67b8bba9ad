//! The machine: recover, step, drain.

use std::fmt;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::status::Counters;
use atomix_protocol::{
    Configuration, Entry, HardState, Identity, Index, LinkId, LocalTime, ServerId, WriteBatch,
};
use atomix_session::deliveries::Deliveries;
use atomix_session::liveness::Liveness;
use atomix_session::table::{Backlog, Limits, Table};
use atomix_session::{RestoreError, StateMachine};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use crate::bootstrap::Standing;
use crate::clients::Clients;
use crate::events::Events;
use crate::leading::Leading;
use crate::levels::Levels;
use crate::links::Links;
use crate::marks::Marks;
use crate::members::Members;
use crate::peers::Peers;
use crate::reads::Reads;
use crate::snapshots::Snapshots;
use crate::{Input, Notice, Options, Output, StopReason};

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
    /// What was found damaged, in plain words; empty if all was well.
    pub damage: Vec<String>,
}

/// One server.
pub struct Engine {
    pub(crate) options: Options,
    /// The data directory (I1). Invariant: durable before anything is said to anyone.
    pub(crate) identity: Identity,
    pub(crate) standing: Standing,
    /// Invariant: stands iff this server's incarnation is in its durable configuration, or was when this process began or
    /// later (I1), and its disk has not failed (D5).
    pub(crate) raft: Option<atomix_raft::Raft>,
    pub(crate) table: Table,
    pub(crate) machine: Box<dyn StateMachine>,
    pub(crate) links: Links,
    pub(crate) peers: Peers,
    pub(crate) members: Members,
    pub(crate) clients: Clients,
    pub(crate) reads: Reads,
    pub(crate) snapshots: Snapshots,
    pub(crate) liveness: Liveness,
    pub(crate) deliveries: Deliveries,
    pub(crate) events: Events,
    pub(crate) levels: Levels,
    /// What was found damaged when it came up (D4).
    pub(crate) damage: Vec<String>,
    /// Its disk has no room but for what it keeps in reserve (D5).
    pub(crate) full: bool,
    /// There was no room for it, and consensus is not there yet to ask for it again.
    pub(crate) unwritten: Option<WriteBatch>,
    /// What this leader keeps for its term only. Invariant: `None` unless the last role that consensus reported is leader.
    pub(crate) leading: Option<Leading>,
    pub(crate) counters: Counters,
    pub(crate) marks: Marks,
    pub(crate) random: Xoshiro256PlusPlus,
    /// The latest `now` seen. Invariant: never runs back, whatever the driver passes.
    pub(crate) now: LocalTime,
    pub(crate) outputs: Vec<Output>,
    stopped: bool,
}

impl Engine {
    /// A server as it comes up.
    ///
    /// # Errors
    /// If the snapshot can't be read.
    pub fn new(
        options: Options,
        recovered: Recovered,
        machine: Box<dyn StateMachine>,
        now: LocalTime,
    ) -> Result<Self, RestoreError> {
        let limits = Limits { sessions: options.sessions, window: options.window };
        let outbox = Backlog { events: options.outbox_events, bytes: options.outbox_bytes };
        let fresh = Identity { incarnation: options.fresh_incarnation };
        let mut engine = Engine {
            identity: recovered.identity.unwrap_or(fresh),
            standing: Standing::Fresh,
            raft: None,
            table: Table::new(limits),
            levels: Levels::new(machine.kinds()),
            machine,
            damage: recovered.damage.clone(),
            full: false,
            unwritten: None,
            links: Links::default(),
            peers: Peers::default(),
            members: Members::default(),
            clients: Clients::default(),
            reads: Reads::default(),
            snapshots: Snapshots::default(),
            liveness: Liveness::new(options.raft.heartbeat),
            deliveries: Deliveries::new(outbox),
            events: Events::default(),
            leading: None,
            counters: Counters::default(),
            marks: Marks::default(),
            random: Xoshiro256PlusPlus::seed_from_u64(options.seed),
            now,
            outputs: Vec::new(),
            stopped: false,
            options,
        };
        if let Some((meta, bytes)) = &recovered.snapshot {
            engine.table.restore(bytes, engine.machine.as_mut())?;
            engine.snapshots.recovered(meta);
            engine.marks.restored_index = meta.last.index;
        }
        engine.start(now, recovered);
        Ok(engine)
    }

    /// A link id for a connection that was accepted.
    pub fn accept(&mut self) -> LinkId {
        self.links.next_id()
    }

    /// Takes one input. Outputs gather until [`Engine::drain`]. `now` was read after the input arrived: silence is counted from it,
    /// and must not begin before the client spoke (S7, L2).
    pub fn step(&mut self, now: LocalTime, input: Input) {
        if self.stopped {
            return;
        }
        let now = self.advance(now);
        match input {
            Input::Tick => self.consensus(now, atomix_raft::Input::Tick),
            Input::Dialed(link) => self.on_dialed(now, link),
            Input::Accepted(link) => self.on_accepted(now, link),
            Input::Frame(link, frame) => self.on_frame(now, link, &frame),
            Input::Closed(link) => self.on_closed(now, link),
            Input::Written(token) => self.on_written(now, token),
            Input::Fetched { to, from, entries } => {
                self.consensus(now, atomix_raft::Input::Fetched { to, from, entries });
            }
            Input::SnapshotTaken(meta) => self.on_snapshot_taken(meta),
            Input::Published(last) => self.on_published(now, last),
            Input::ChunkRead { to, last, offset, data } => {
                self.consensus(now, atomix_raft::Input::ChunkRead { to, last, offset, data });
            }
            Input::ChunkWritten { last, outcome } => {
                self.consensus(now, atomix_raft::Input::ChunkWritten { last, outcome });
            }
            Input::SnapshotLoaded(last, bytes) => self.on_snapshot_loaded(now, last, &bytes),
            Input::Restored(last, restored) => self.on_restored(now, last, restored),
            Input::TooLate(read) => self.read_again(now, read),
            Input::HandOver => self.on_hand_over(now),
            Input::DiskFailed(why) => self.on_disk_failed(now, &why),
            Input::NotWritten(token, batch) => self.on_not_written(now, token, batch),
            Input::Room(room) => self.on_room(now, room),
        }
    }

    /// Ends a batch of inputs and hands over the outputs in order.
    pub fn drain(&mut self, now: LocalTime) -> Vec<Output> {
        if !self.stopped {
            let now = self.advance(now);
            self.on_time(now);
            self.settle(now);
        }
        core::mem::take(&mut self.outputs)
    }

    /// When to step with a tick at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        if self.stopped {
            return None;
        }
        let raft = self.raft.as_ref().and_then(atomix_raft::Raft::next_deadline);
        [
            raft,
            self.links.next_deadline(),
            self.peers.next_dial(),
            self.members.next_deadline(),
            self.reads.next_deadline(),
            self.next_duty(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Consensus, for checkers; `None` before the server has a configuration.
    #[must_use]
    pub fn raft(&self) -> Option<&atomix_raft::Raft> {
        self.raft.as_ref()
    }

    /// The session table, for checkers.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What clients have acknowledged to this leader, for checkers.
    #[must_use]
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// The state machine, for checkers and tests.
    #[must_use]
    pub fn machine(&self) -> &dyn StateMachine {
        self.machine.as_ref()
    }

    /// The links that stand with a member, its own and this server's, for checkers.
    #[must_use]
    pub fn links_with(&self, server: ServerId) -> Vec<LinkId> {
        self.peers.links_of(server)
    }

    /// What interesting has happened since this server came up, for simulators that must not run vacuously.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    fn advance(&mut self, now: LocalTime) -> LocalTime {
        self.now = self.now.max(now);
        self.now
    }

    /// What is due by now, apart from what consensus keeps time for itself.
    fn on_time(&mut self, now: LocalTime) {
        while let Some(link) = self.links.take_due(now) {
            self.on_link_deadline(now, link);
        }
        self.expire_reads(now);
        self.on_members_time(now);
        self.dial_due(now);
    }

    /// Lets consensus and what hangs on it act on each other until both are at rest.
    fn settle(&mut self, now: LocalTime) {
        while !self.stopped {
            self.answer_parked(now);
            self.lead(now);
            let Some(raft) = &mut self.raft else { return };
            let outputs = raft.drain(now);
            if outputs.is_empty() {
                self.follow_members(now);
                return;
            }
            for output in outputs {
                self.carry_out(now, output);
            }
            self.serve_reads();
            self.begin_snapshot(now);
        }
    }

    fn carry_out(&mut self, now: LocalTime, output: atomix_raft::Output) {
        use atomix_raft::Output as Asked;
        match output {
            Asked::Send { to, message } => self.send_to(to, message),
            Asked::Write { token, batch } => self.push(Output::Write(token, batch)),
            Asked::Committed { entries } => self.apply(now, &entries),
            Asked::ReadsReady { reads, index, lease } => self.confirm_reads(&reads, index, lease),
            Asked::ReadsFailed { reads } => self.fail_reads(&reads),
            Asked::RoundConfirmed { term, round } => self.on_round_confirmed(term, round),
            Asked::RoleChanged { role, term, leader } => self.on_role_changed(now, role, term, leader),
            Asked::Fetch { to, from, through, bytes } => {
                self.push(Output::Fetch { to, from, through, bytes })
            }
            Asked::ReadChunk { to, meta, offset, bytes } => {
                self.push(Output::ReadChunk { to, meta, offset, bytes });
            }
            Asked::WriteChunk { meta, offset, data, done } => self.write_chunk(meta, offset, data, done),
            Asked::Install { meta } => self.install(meta),
            Asked::ConfigurationCommitted { configuration } => {
                self.on_configuration_committed(now, &configuration);
            }
            Asked::TransferFailed { to } => self.on_transfer_failed(now, to),
        }
    }

    /// Feeds consensus, if this server takes part in it.
    pub(crate) fn consensus(&mut self, now: LocalTime, input: atomix_raft::Input) {
        if let Some(raft) = &mut self.raft {
            raft.step(now, input);
            self.note_forgetful();
        }
    }

    pub(crate) fn push(&mut self, output: Output) {
        let asks_in_vain = self.failed().is_some() && output.is_for_disk();
        if !self.stopped && !asks_in_vain {
            self.outputs.push(output);
        }
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.push(Output::Notice(notice));
    }

    /// Writes before there is consensus: its own writes are numbered by itself, and only from then on.
    pub(crate) fn write_own(&mut self, batch: WriteBatch) {
        assert!(self.raft.is_none(), "server {}: consensus owns the log", self.options.address);
        self.push(Output::Write(0, batch));
    }

    pub(crate) fn stop(&mut self, reason: StopReason) {
        self.push(Output::Stop(reason));
        self.stopped = true;
    }

    /// The configuration in use, once there is one.
    pub(crate) fn configuration(&self) -> Option<&Configuration> {
        match (&self.raft, &self.standing) {
            (Some(raft), _) => Some(raft.configuration()),
            (None, Standing::Outsider(outsider)) => Some(&outsider.configuration),
            (None, Standing::Failed(failed)) => failed.configuration.as_ref(),
            (None, _) => None,
        }
    }

    /// This server's id, once its durable configuration names its incarnation.
    pub(crate) fn server(&self) -> Option<ServerId> {
        match &self.raft {
            Some(raft) => Some(raft.server()),
            None => self.own_record(self.configuration()?).map(|member| member.id),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("address", &self.options.address)
            .field("standing", &self.standing)
            .field("raft", &self.raft)
            .finish_non_exhaustive()
    }
}
