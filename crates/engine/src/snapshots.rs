//! Own snapshots, and those that a leader sends (R6).

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{EntryId, LocalTime};
use bytes::Bytes;

use crate::engine::Engine;
use crate::{Notice, Output, Restored, Restoring, Retired, StopReason};

/// On a full disk a snapshot is due when the log has grown by this part of what it may else.
const FULL_SHARE: u64 = 8;

/// What is being done about snapshots. One thing at a time.
#[derive(Debug, Default)]
enum Work {
    #[default]
    Nothing,
    /// The own state is being written out.
    Taking(EntryId),
    /// An own snapshot is being published; chunks of a received one wait until that is done.
    Publishing(SnapshotMeta),
    /// A received one is being published.
    Installing(SnapshotMeta),
    /// It is published, and being read into a state of its own.
    Loading(SnapshotMeta),
}

/// Snapshots of this server.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    work: Work,
    /// Chunks that wait for a publication. Consensus bounds them.
    held: Vec<Output>,
    /// Size of the newest one: the next is due when the log has grown by more (R6).
    size: u64,
    /// One is due, and acknowledgements were folded for it (E2).
    folded: bool,
}

impl Snapshots {
    pub(crate) fn recovered(&mut self, meta: &SnapshotMeta) {
        self.size = meta.size;
    }
}

impl Engine {
    /// Begins an own snapshot if one is due: when the log since the last has outgrown it, never by a count alone (R6). On a full disk sooner,
    /// and however large the state is: the log that it replaces is what makes room.
    pub(crate) fn begin_snapshot(&mut self, now: LocalTime) {
        let Some(raft) = &self.raft else { return };
        let limit = self.options.snapshot_log_bytes;
        let limit = if self.full { limit / FULL_SHARE } else { limit.max(self.snapshots.size) };
        let due = raft.bytes_since_snapshot() > limit;
        if !due || !raft.may_take_snapshot() || !matches!(self.snapshots.work, Work::Nothing) {
            return;
        }
        let first = !core::mem::replace(&mut self.snapshots.folded, true);
        // On a full disk what is to be folded may wait for the room that only the snapshot makes.
        if !self.full && self.fold_before_snapshot(now, first) {
            return;
        }
        self.snapshots.folded = false;
        let Some(raft) = &self.raft else { return };
        let meta = raft.snapshot_point();
        assert!(
            meta.last.index == self.table.applied().0,
            "server {} term {} index {}: the snapshot would not be of the state as applied",
            raft.server(),
            raft.term(),
            meta.last.index,
        );
        self.snapshots.work = Work::Taking(meta.last);
        let source = self.table.snapshot(self.machine.as_ref());
        self.push(Output::TakeSnapshot(meta, source));
    }

    /// The own state is written out.
    pub(crate) fn on_snapshot_taken(&mut self, meta: SnapshotMeta) {
        if matches!(self.snapshots.work, Work::Taking(last) if last == meta.last) {
            self.push(Output::Publish(meta.clone()));
            self.snapshots.work = Work::Publishing(meta);
        }
    }

    /// A chunk of the leader's snapshot. It takes the writer away from an own one.
    pub(crate) fn write_chunk(&mut self, meta: SnapshotMeta, offset: u64, data: Bytes, done: bool) {
        let chunk = Output::WriteChunk { meta, offset, data, done };
        match self.snapshots.work {
            Work::Publishing(_) => {
                self.snapshots.held.push(chunk);
                return;
            }
            Work::Taking(_) => {
                self.marks.snapshots_abandoned += 1;
                self.snapshots.work = Work::Nothing;
            }
            Work::Nothing | Work::Installing(_) | Work::Loading(_) => {}
        }
        self.push(chunk);
    }

    /// The whole is written and verified.
    pub(crate) fn install(&mut self, meta: SnapshotMeta) {
        self.push(Output::Publish(meta.clone()));
        self.snapshots.work = Work::Installing(meta);
    }

    /// A snapshot is the newest one, durably.
    pub(crate) fn on_published(&mut self, now: LocalTime, last: EntryId) {
        match core::mem::take(&mut self.snapshots.work) {
            Work::Publishing(meta) if meta.last == last => {
                self.snapshots.size = meta.size;
                self.counters.snapshots_taken += 1;
                self.notice(Notice::SnapshotTaken(last.index));
                self.consensus(now, atomix_raft::Input::SnapshotPublished { meta });
                self.compact();
                for chunk in core::mem::take(&mut self.snapshots.held) {
                    self.push(chunk);
                }
            }
            Work::Installing(meta) if meta.last == last => {
                self.push(match self.machine.fresh() {
                    Some(machine) => Output::Restore(meta.clone(), Restoring(machine)),
                    None => Output::LoadSnapshot(meta.clone()),
                });
                self.snapshots.work = Work::Loading(meta);
            }
            other => self.snapshots.work = other,
        }
    }

    /// The received snapshot takes the place of the state, of which there is only one.
    pub(crate) fn on_snapshot_loaded(&mut self, now: LocalTime, last: EntryId, bytes: &Bytes) {
        if self.loaded(last).is_none() {
            return;
        }
        if let Err(error) = self.table.restore(bytes, self.machine.as_mut()) {
            return self.stop(StopReason::Restore(error.to_string()));
        }
        self.on_replaced(now, last);
    }

    /// The state of the received snapshot takes the place of the one that stands.
    pub(crate) fn on_restored(&mut self, now: LocalTime, last: EntryId, restored: Restored) {
        if self.loaded(last).is_none() {
            return;
        }
        match restored.0 {
            Ok((sessions, machine)) => {
                let machine = core::mem::replace(&mut self.machine, machine);
                let sessions = self.table.replace(sessions);
                self.push(Output::Retire(Retired(sessions, machine)));
                self.on_replaced(now, last);
            }
            Err(error) => self.stop(StopReason::Restore(error.to_string())),
        }
    }

    /// Size of the received snapshot, if this is it.
    fn loaded(&self, last: EntryId) -> Option<u64> {
        match &self.snapshots.work {
            Work::Loading(meta) if meta.last == last => Some(meta.size),
            _ => None,
        }
    }

    fn on_replaced(&mut self, now: LocalTime, last: EntryId) {
        self.snapshots.size = self.loaded(last).unwrap_or(self.snapshots.size);
        self.snapshots.work = Work::Nothing;
        self.counters.snapshots_installed += 1;
        self.marks.restored_index = last.index;
        self.notice(Notice::SnapshotInstalled(last.index));
        self.consensus(now, atomix_raft::Input::Installed { last });
        self.compact();
        self.serve_reads();
    }

    /// Allows storage to drop what neither this server nor a follower needs (R6).
    pub(crate) fn compact(&mut self) {
        if let Some(through) = self.raft.as_ref().map(atomix_raft::Raft::compactable_index) {
            self.push(Output::Compact(through));
        }
    }
}
