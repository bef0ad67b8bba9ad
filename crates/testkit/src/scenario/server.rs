//! One server of a cluster: its machine, its disk, its state machine.

use atomix_protocol::{EntryId, Index, WriteBatch};
use atomix_raft::{ChunkOutcome, Input, Output, Raft};
use atomix_storage::{MemoryStorage, Received, SnapshotWriter, Storage, receive};

pub(super) struct Server {
    pub(super) raft: Option<Raft>,
    pub(super) disk: MemoryStorage,
    pub(super) writer: Box<dyn SnapshotWriter>,
    /// The newest snapshot on the disk covers this.
    pub(super) published: Index,
    /// The outstanding write.
    pub(super) write: Option<(u64, WriteBatch)>,
    /// The state machine: the commands, one per line.
    pub(super) state: Vec<u8>,
    /// Reads answered, with the index they see.
    pub(super) ready: Vec<(u64, Index)>,
    pub(super) failed: Vec<u64>,
    /// Configurations that it was told are committed.
    pub(super) followed: Vec<Index>,
    /// What it held durably and lost, until it abstains no more (D4).
    pub(super) lost: Vec<EntryId>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("raft", &self.raft).field("write", &self.write).finish_non_exhaustive()
    }
}

impl Server {
    /// One that does not run, with an empty disk.
    pub(super) fn empty() -> Self {
        let mut disk = MemoryStorage::new();
        let writer = disk.snapshot_writer().expect("memory has no errors");
        Server {
            raft: None,
            disk,
            writer,
            published: Index::ZERO,
            write: None,
            state: Vec::new(),
            ready: Vec::new(),
            failed: Vec::new(),
            followed: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// What storage answers at once.
    pub(super) fn answer(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Fetch { to, from, through, bytes } => {
                let mut reader = self.disk.reader().expect("memory has no errors");
                let entries = reader.entries(from, through, bytes).expect("memory has no errors");
                Some(Input::Fetched { to, from, entries })
            }
            Output::ReadChunk { to, meta, offset, bytes } => {
                let mut reader = self.disk.reader().expect("memory has no errors");
                let data = reader.snapshot(meta.last, offset, bytes).expect("memory has no errors");
                Some(Input::ChunkRead { to, last: meta.last, offset, data })
            }
            Output::WriteChunk { meta, offset, data, done } => {
                let received = receive(self.writer.as_mut(), &meta, offset, &data, done);
                let outcome = match received.expect("memory has no errors") {
                    Received::Next(next) => ChunkOutcome::Next(next),
                    Received::Whole => ChunkOutcome::Whole,
                    Received::Bad => ChunkOutcome::Bad,
                };
                Some(Input::ChunkWritten { last: meta.last, outcome })
            }
            Output::Install { meta } => {
                self.disk.publish(&meta).expect("the snapshot is finished");
                self.published = meta.last.index;
                self.state = read_snapshot(&mut self.disk, meta.last);
                Some(Input::Installed { last: meta.last })
            }
            _ => None,
        }
    }

    /// Whether it can be counted on for an entry: its disk holds it, or held it when that was said, and while that is not so any more
    /// nobody without it gets this server's vote (D4).
    pub(super) fn stands_for(&self, id: EntryId) -> bool {
        self.holds(id) || self.lost.contains(&id)
    }

    /// Whether the disk holds an entry, in its log or in a snapshot.
    pub(super) fn holds(&self, id: EntryId) -> bool {
        let mut reader = self.disk.clone().reader().expect("memory has no errors");
        let entries = reader.entries(id.index, id.index, 0).expect("memory has no errors");
        id.index <= self.published || entries.is_some_and(|entries| entries[0].id == id)
    }
}

pub(super) fn read_snapshot(disk: &mut MemoryStorage, last: EntryId) -> Vec<u8> {
    let mut reader = disk.reader().expect("memory has no errors");
    let data = reader.snapshot(last, 0, usize::MAX).expect("memory has no errors");
    data.expect("the snapshot is published").to_vec()
}

/// The first `kept` parts of a batch, in the order in which they are written (D1).
pub(super) fn prefix(mut batch: WriteBatch, kept: usize) -> WriteBatch {
    let mut left = kept;
    let mut keep = |present: bool| {
        let kept = left > 0;
        left = left.saturating_sub(usize::from(present));
        kept
    };
    batch.configuration = batch.configuration.take().filter(|_| keep(true));
    batch.abstention = batch.abstention.take().filter(|_| keep(true));
    batch.hard_state = batch.hard_state.take().filter(|_| keep(true));
    batch.truncate_after = batch.truncate_after.take().filter(|_| keep(true));
    batch.entries.truncate(left);
    batch
}
