//! What a server finds again, and the work that the engine asks of its disk.

use std::collections::BTreeMap;

use atomix_engine::{Input, Output, Recovered};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Configuration, Entry, EntryId, HardState, Identity, Index, WriteBatch};
use atomix_raft::ChunkOutcome;
use bytes::Bytes;

#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) identity: Option<Identity>,
    pub(crate) hard_state: HardState,
    pub(crate) configuration: Option<Configuration>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshot: Option<(SnapshotMeta, Bytes)>,
    pub(crate) abstention: Option<Index>,
    /// What the next start finds damaged.
    pub(crate) damage: Vec<String>,
    receiving: Vec<u8>,
    finished: BTreeMap<EntryId, (SnapshotMeta, Bytes)>,
}

impl Disk {
    pub(crate) fn recover(&self) -> Recovered {
        let after = self.snapshot.as_ref().map_or(EntryId::ZERO, |(meta, _)| meta.last);
        Recovered {
            identity: self.identity,
            hard_state: self.hard_state,
            configuration: self.configuration.clone(),
            abstention: self.abstention,
            damage: self.damage.clone(),
            snapshot: self.snapshot.clone(),
            entries: self.entries.iter().filter(|entry| entry.id.index > after.index).cloned().collect(),
        }
    }

    /// The log is damaged behind so many entries.
    pub(crate) fn lose(&mut self, keep: usize) {
        self.abstention = self.abstention.max(self.entries.last().map(|entry| entry.id.index));
        self.entries.truncate(keep);
        self.damage = vec!["log segment 3 at 4096: a payload that does not verify".into()];
    }

    fn write(&mut self, batch: WriteBatch) {
        self.identity = batch.identity.or(self.identity);
        self.configuration = batch.configuration.or(self.configuration.take());
        self.abstention = batch.abstention.unwrap_or(self.abstention);
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        if let Some(after) = batch.truncate_after {
            let holds = after == EntryId::ZERO || self.entries.iter().any(|entry| entry.id == after);
            self.entries.retain(|entry| holds && entry.id.index <= after.index);
        }
        if let (Some(last), Some(first)) = (self.entries.last(), batch.entries.first()) {
            assert_eq!(last.id.index.next(), first.id.index, "entries follow each other");
        }
        self.entries.extend(batch.entries);
    }

    /// Does what the engine asked, and answers.
    pub(crate) fn carry_out(&mut self, output: Output) -> Vec<Input> {
        match output {
            Output::Write(token, batch) => {
                self.write(batch);
                vec![Input::Written(token)]
            }
            Output::Fetch { to, from, through, .. } => {
                let wanted = self.entries.iter().filter(|e| e.id.index >= from && e.id.index <= through);
                let entries: Vec<Entry> = wanted.cloned().collect();
                let found = entries.first().is_some_and(|entry| entry.id.index == from);
                vec![Input::Fetched { to, from, entries: found.then_some(entries) }]
            }
            Output::TakeSnapshot(mut meta, mut source) => {
                let mut bytes = Vec::new();
                source.write_to(&mut bytes).expect("memory");
                meta.size = bytes.len() as u64;
                meta.checksum = checksum(&bytes);
                self.finished.insert(meta.last, (meta.clone(), bytes.into()));
                vec![Input::SnapshotTaken(meta)]
            }
            Output::Publish(meta) => {
                self.snapshot = Some(self.finished.remove(&meta.last).expect("a finished snapshot"));
                vec![Input::Published(meta.last)]
            }
            Output::Compact(through) => {
                self.entries.retain(|entry| entry.id.index > through);
                Vec::new()
            }
            Output::ReadChunk { to, meta, offset, bytes } => {
                let whole = self.snapshot.as_ref().filter(|(here, _)| here.last == meta.last);
                let data = whole.map(|(_, whole)| {
                    let start = usize::try_from(offset).expect("small").min(whole.len());
                    whole.slice(start..whole.len().min(start + bytes))
                });
                vec![Input::ChunkRead { to, last: meta.last, offset, data }]
            }
            Output::WriteChunk { meta, offset, data, done } => {
                let outcome = self.receive(&meta, offset, &data, done);
                vec![Input::ChunkWritten { last: meta.last, outcome }]
            }
            Output::LoadSnapshot(meta) => {
                let (_, bytes) = self.snapshot.as_ref().expect("published");
                vec![Input::SnapshotLoaded(meta.last, bytes.clone())]
            }
            Output::Restore(meta, restoring) => {
                let (_, bytes) = self.snapshot.as_ref().expect("published");
                vec![Input::Restored(meta.last, restoring.read(bytes))]
            }
            Output::Retire(_) => Vec::new(),
            other => panic!("not for the disk: {other:?}"),
        }
    }

    fn receive(&mut self, meta: &SnapshotMeta, offset: u64, data: &[u8], done: bool) -> ChunkOutcome {
        if offset == 0 {
            self.receiving.clear();
        }
        assert_eq!(offset, self.receiving.len() as u64, "chunks follow each other");
        self.receiving.extend_from_slice(data);
        if !done {
            return ChunkOutcome::Next(self.receiving.len() as u64);
        }
        let bytes = std::mem::take(&mut self.receiving);
        if meta.size != bytes.len() as u64 || meta.checksum != checksum(&bytes) {
            return ChunkOutcome::Bad;
        }
        self.finished.insert(meta.last, (meta.clone(), bytes.into()));
        ChunkOutcome::Whole
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(1, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}
