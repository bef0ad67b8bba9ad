//! The smallest host of bare consensus: its state machine is the hash of what was applied.

use atomix_engine::{Input as Common, Notice, Output};
use atomix_protocol::change::{Change, ChangeRefused, TransferRefused};
use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::{PeerMessage, SnapshotMeta};
use atomix_protocol::{Entry, EntryId, EntryKind, Index, LocalTime, ServerId};
use atomix_raft::{Input as RaftInput, Output as RaftOutput, Raft};
use bytes::{BufMut, Bytes, BytesMut};

use super::ledger::{Chain, chain};

/// What the host asks of its world.
#[derive(Debug)]
pub(super) enum Emitted {
    /// What a whole server could ask for too.
    Common(Output),
    /// A message to another server.
    Message(ServerId, PeerMessage),
    /// A proposal of this host was committed in the place that it was given.
    Acknowledged(u64, EntryId),
    /// These reads see everything through that index; if a time is named, only up to then does the lease vouch for them (R3).
    ReadsReady(Vec<u64>, Index, Option<LocalTime>),
}

/// One server's consensus and what hangs on it.
#[derive(Debug)]
pub(super) struct Bare {
    raft: Raft,
    state: Chain,
    /// Proposals on their way. Invariant: ascending by place.
    proposed: Vec<(EntryId, u64)>,
    /// With whether only the lease vouches for them.
    reads_waiting: Vec<(Vec<u64>, Index, bool)>,
    snapshot_log_bytes: u64,
    padding: usize,
    last_size: u64,
    taking: Option<EntryId>,
    /// Being published.
    own: Option<SnapshotMeta>,
    /// Chunks that wait for that.
    held: Vec<Output>,
    installing: Option<SnapshotMeta>,
    emitted: Vec<Emitted>,
}

impl Bare {
    pub(super) fn new(raft: Raft, snapshot: Option<&Bytes>, snapshot_log_bytes: u64, padding: usize) -> Self {
        Bare {
            raft,
            state: snapshot.map_or(0, state_of),
            proposed: Vec::new(),
            reads_waiting: Vec::new(),
            snapshot_log_bytes,
            padding,
            last_size: snapshot.map_or(0, |bytes| bytes.len() as u64),
            taking: None,
            own: None,
            held: Vec::new(),
            installing: None,
            emitted: Vec::new(),
        }
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The hash of what was applied.
    pub(super) fn state(&self) -> Chain {
        self.state
    }

    /// Proposes a payload of its own; whether it was taken.
    pub(super) fn propose(&mut self, now: LocalTime, proposal: u64, bytes: usize) -> bool {
        let mut payload = BytesMut::with_capacity(8 + bytes);
        payload.put_u64_le(proposal);
        payload.put_bytes(0, bytes);
        match self.raft.propose(now, EntryKind::Session, payload.freeze(), None) {
            Ok(id) => {
                self.proposed.push((id, proposal));
                true
            }
            Err(_) => false,
        }
    }

    /// Asks for a linearizable read; whether it was taken.
    pub(super) fn read(&mut self, now: LocalTime, read: u64) -> bool {
        self.raft.read(now, read).is_ok()
    }

    /// Asks for another configuration.
    pub(super) fn change(&mut self, now: LocalTime, change: &Change) -> Result<EntryId, ChangeRefused> {
        self.raft.change(now, change)
    }

    /// Asks for another leader.
    pub(super) fn transfer(
        &mut self,
        now: LocalTime,
        to: Option<ServerId>,
    ) -> Result<ServerId, TransferRefused> {
        self.raft.transfer(now, to)
    }

    pub(super) fn step(&mut self, now: LocalTime, input: RaftInput) {
        self.raft.step(now, input);
    }

    /// The answer to something that any server can ask for.
    pub(super) fn answer(&mut self, now: LocalTime, input: Common) {
        match input {
            Common::Tick => self.raft.step(now, RaftInput::Tick),
            Common::Written(token) => self.raft.step(now, RaftInput::Written { token }),
            Common::Fetched { to, from, entries } => {
                self.raft.step(now, RaftInput::Fetched { to, from, entries })
            }
            Common::ChunkRead { to, last, offset, data } => {
                self.raft.step(now, RaftInput::ChunkRead { to, last, offset, data });
            }
            Common::ChunkWritten { last, outcome } => {
                self.raft.step(now, RaftInput::ChunkWritten { last, outcome })
            }
            Common::SnapshotTaken(meta) => {
                if self.taking == Some(meta.last) {
                    self.own = Some(meta.clone());
                    self.emit(Output::Publish(meta));
                }
            }
            Common::Published(last) => self.published(now, last),
            Common::SnapshotLoaded(last, bytes) => self.loaded(now, last, &bytes),
            Common::NotWritten(token, _) => self.raft.step(now, RaftInput::NotWritten { token }),
            Common::Room(room) => self.raft.step(now, RaftInput::Room(room)),
            // Its last word is the engine's work; here it falls silent.
            Common::DiskFailed(_) => {}
            Common::Restored(..)
            | Common::Dialed(_)
            | Common::Accepted(_)
            | Common::Frame(..)
            | Common::Closed(_)
            | Common::TooLate(_)
            | Common::HandOver => {
                unreachable!("bare consensus has no links of its own")
            }
        }
    }

    fn published(&mut self, now: LocalTime, last: EntryId) {
        if let Some(meta) = self.installing.clone().filter(|meta| meta.last == last) {
            self.emit(Output::LoadSnapshot(meta));
        } else if let Some(meta) = self.own.take().filter(|meta| meta.last == last) {
            self.taking = None;
            self.last_size = meta.size;
            self.raft.step(now, RaftInput::SnapshotPublished { meta });
            self.emit(Output::Compact(self.raft.compactable_index()));
            for chunk in std::mem::take(&mut self.held) {
                self.emit(chunk);
            }
        }
    }

    fn loaded(&mut self, now: LocalTime, last: EntryId, bytes: &Bytes) {
        self.state = state_of(bytes);
        self.last_size = bytes.len() as u64;
        self.installing = None;
        self.proposed.clear();
        self.raft.step(now, RaftInput::Installed { last });
        self.emit(Output::Compact(self.raft.compactable_index()));
        self.emit(Output::Notice(Notice::SnapshotInstalled(last.index)));
    }

    fn emit(&mut self, output: Output) {
        self.emitted.push(Emitted::Common(output));
    }

    pub(super) fn drain(&mut self, now: LocalTime) -> Vec<Emitted> {
        loop {
            let outputs = self.raft.drain(now);
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out(now, output);
            }
        }
        self.begin_snapshot();
        std::mem::take(&mut self.emitted)
    }

    fn carry_out(&mut self, now: LocalTime, output: RaftOutput) {
        match output {
            RaftOutput::Send { to, message } => self.emitted.push(Emitted::Message(to, message)),
            RaftOutput::Write { token, batch } => self.emit(Output::Write(token, batch)),
            RaftOutput::Committed { entries } => self.apply(now, &entries),
            RaftOutput::ReadsReady { reads, index, lease } => {
                self.reads_waiting.push((reads, index, lease));
                self.serve_reads(now);
            }
            RaftOutput::RoleChanged { role, term, leader } => {
                self.emit(Output::Notice(Notice::Role { role, term, leader }));
            }
            RaftOutput::Fetch { to, from, through, bytes } => {
                self.emit(Output::Fetch { to, from, through, bytes })
            }
            RaftOutput::ReadChunk { to, meta, offset, bytes } => {
                self.emit(Output::ReadChunk { to, meta, offset, bytes });
            }
            RaftOutput::WriteChunk { meta, offset, data, done } => {
                let chunk = Output::WriteChunk { meta, offset, data, done };
                if self.own.is_some() {
                    self.held.push(chunk);
                } else {
                    self.taking = None;
                    self.emit(chunk);
                }
            }
            RaftOutput::Install { meta } => {
                self.installing = Some(meta.clone());
                self.emit(Output::Publish(meta));
            }
            RaftOutput::ReadsFailed { .. }
            | RaftOutput::RoundConfirmed { .. }
            | RaftOutput::ConfigurationCommitted { .. }
            | RaftOutput::TransferFailed { .. } => {}
        }
    }

    fn apply(&mut self, now: LocalTime, entries: &[Entry]) {
        for entry in entries {
            self.state = chain(self.state, entry);
            self.raft.applied(entry.id.index);
            let through = self.proposed.iter().take_while(|(id, _)| id.index <= entry.id.index).count();
            for (id, proposal) in self.proposed.drain(..through) {
                if id == entry.id {
                    self.emitted.push(Emitted::Acknowledged(proposal, id));
                }
            }
        }
        self.serve_reads(now);
    }

    fn serve_reads(&mut self, now: LocalTime) {
        let applied = self.raft.applied_index();
        for (reads, index, lease) in std::mem::take(&mut self.reads_waiting) {
            if index > applied {
                self.reads_waiting.push((reads, index, lease));
            } else if !lease || Mutant::B24.active() {
                self.emitted.push(Emitted::ReadsReady(reads, index, None));
            } else if self.raft.lease_holds(now) {
                self.emitted.push(Emitted::ReadsReady(reads, index, self.raft.lease_until()));
            } else {
                reads.into_iter().for_each(|read| self.read_again(now, read));
            }
        }
    }

    /// Its answer came too late for the lease.
    pub(super) fn read_again(&mut self, now: LocalTime, read: u64) {
        // Refused, it is lost, as a client of a whole server would be told.
        let _ = self.raft.read_by_round(now, read);
    }

    fn begin_snapshot(&mut self) {
        let due = self.raft.bytes_since_snapshot() > self.snapshot_log_bytes.max(self.last_size);
        if due && self.taking.is_none() && self.installing.is_none() && self.raft.may_take_snapshot() {
            let meta = self.raft.snapshot_point();
            let mut bytes = BytesMut::with_capacity(8 + self.padding);
            bytes.put_u64_le(self.state);
            bytes.put_bytes(0, self.padding);
            self.taking = Some(meta.last);
            self.emit(Output::TakeSnapshot(meta, Box::new(bytes.freeze())));
        }
    }
}

fn state_of(snapshot: &Bytes) -> Chain {
    snapshot.get(..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
