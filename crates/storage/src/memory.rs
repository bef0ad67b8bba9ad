//! Storage in memory.

use std::sync::Arc;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, EntryId, Index, WriteBatch};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Recovered, SnapshotWriter, Storage, StorageError, StorageReader};

/// Keeps everything in memory. Clones share it, so that a clone plays the disk that a restarted server finds.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    image: Arc<Mutex<Image>>,
}

#[derive(Debug, Default)]
struct Image {
    recovered: Recovered,
    /// The entry right before `entries`. Invariant: `entries` follow it without a gap.
    base: EntryId,
    entries: Vec<Entry>,
    published: Option<(SnapshotMeta, Bytes)>,
    finished: Option<(SnapshotMeta, Bytes)>,
}

impl MemoryStorage {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Image {
    fn position(&self, index: Index) -> Option<usize> {
        let offset = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        usize::try_from(offset).ok().filter(|offset| *offset < self.entries.len())
    }

    fn id_at(&self, index: Index) -> Option<EntryId> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.position(index).map(|position| self.entries[position].id)
    }

    fn truncate_after(&mut self, id: EntryId) {
        if self.id_at(id.index) == Some(id) {
            let keep = usize::try_from(id.index.since(self.base.index)).unwrap_or(usize::MAX);
            self.entries.truncate(keep);
        } else {
            self.entries.clear();
            self.base = id;
        }
    }
}

impl Storage for MemoryStorage {
    fn recover(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError> {
        let mut image = self.image.lock();
        image.finished = None;
        let start = image.published.as_ref().map_or(EntryId::ZERO, |(meta, _)| meta.last);
        if image.id_at(start.index) != Some(start) {
            // What is not handed out is no part of the log any more: consensus goes on right after the snapshot.
            image.truncate_after(start);
        }
        image.entries.iter().filter(|e| e.id.index > start.index).cloned().for_each(entry);
        let mut recovered = image.recovered.clone();
        recovered.snapshot = image.published.as_ref().map(|(meta, _)| meta.clone());
        Ok(recovered)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut image = self.image.lock();
        if let Some(identity) = batch.identity {
            image.recovered.identity = Some(identity);
        }
        if let Some(configuration) = &batch.configuration {
            image.recovered.configuration = Some(configuration.clone());
        }
        if let Some(abstention) = batch.abstention {
            image.recovered.abstention = abstention;
        }
        if let Some(hard_state) = batch.hard_state {
            image.recovered.hard_state = hard_state;
        }
        if let Some(id) = batch.truncate_after {
            image.truncate_after(id);
        }
        for entry in &batch.entries {
            let last = image.entries.last().map_or(image.base, |e| e.id);
            let continues = entry.id.index == last.index.next() && entry.id.term >= last.term;
            assert!(continues, "a batch continues the log: {entry:?} after {last:?}");
            image.entries.push(entry.clone());
        }
        Ok(())
    }

    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        let mut image = self.image.lock();
        let last = snapshot.last;
        if image.finished.as_ref().is_none_or(|(meta, _)| meta != snapshot) {
            return Err(StorageError::BadSnapshot(format!("no finished one that ends with {last}")));
        }
        if let Some((newest, _)) =
            image.published.as_ref().filter(|(newest, _)| newest.last.index > last.index)
        {
            return Err(StorageError::BadSnapshot(format!("{last} is older than {}", newest.last)));
        }
        image.published = image.finished.take();
        Ok(())
    }

    fn compact(&mut self, through: Index) -> Result<(), StorageError> {
        let mut image = self.image.lock();
        let covered = image.published.as_ref().map_or(Index::ZERO, |(meta, _)| meta.last.index);
        if let Some(position) = image.position(through.min(covered)) {
            image.base = image.entries[position].id;
            image.entries.drain(..=position);
        }
        Ok(())
    }

    fn snapshot_writer(&mut self) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(MemoryWriter { image: self.image.clone(), begun: None, data: Vec::new() }))
    }

    fn reader(&mut self) -> Result<Box<dyn StorageReader>, StorageError> {
        Ok(Box::new(MemoryReader { image: self.image.clone() }))
    }
}

struct MemoryWriter {
    image: Arc<Mutex<Image>>,
    begun: Option<EntryId>,
    data: Vec<u8>,
}

impl SnapshotWriter for MemoryWriter {
    fn begin(&mut self, last: EntryId) -> Result<(), StorageError> {
        self.begun = Some(last);
        self.data.clear();
        self.image.lock().finished = None;
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        if self.begun.is_none() {
            return Err(StorageError::BadSnapshot("nothing was begun".into()));
        }
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let begun = self.begun.take();
        let data = Bytes::from(std::mem::take(&mut self.data));
        let verifies = data.len() as u64 == meta.size && crc32c::crc32c(&data) == meta.checksum;
        if (begun != Some(meta.last) || !verifies) && !Mutant::B35.active() {
            return Err(StorageError::BadSnapshot(format!("{:?}", meta.last)));
        }
        self.image.lock().finished = Some((meta.clone(), data));
        Ok(())
    }

    fn writing(&self) -> Option<EntryId> {
        self.begun
    }

    fn written(&self) -> (u64, u32) {
        (self.data.len() as u64, crc32c::crc32c(&self.data))
    }
}

struct MemoryReader {
    image: Arc<Mutex<Image>>,
}

impl StorageReader for MemoryReader {
    fn entries(
        &mut self,
        from: Index,
        through: Index,
        bytes: u64,
    ) -> Result<Option<Vec<Entry>>, StorageError> {
        let image = self.image.lock();
        let Some(start) = image.position(from) else { return Ok(None) };
        let mut taken = Vec::new();
        let mut weight = 0;
        for entry in image.entries[start..].iter().take_while(|e| e.id.index <= through) {
            weight += entry.weight();
            if weight > bytes && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok((!taken.is_empty()).then_some(taken))
    }

    fn snapshot(&mut self, last: EntryId, offset: u64, bytes: usize) -> Result<Option<Bytes>, StorageError> {
        let image = self.image.lock();
        let Some((meta, data)) = &image.published else { return Ok(None) };
        let Ok(offset) = usize::try_from(offset) else { return Ok(None) };
        if meta.last != last || offset > data.len() {
            return Ok(None);
        }
        Ok(Some(data.slice(offset..data.len().min(offset.saturating_add(bytes)))))
    }
}
