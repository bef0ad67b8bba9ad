//! Snapshots: written by one thread, published by another.

use std::sync::Arc;

use atomix_protocol::EntryId;
use atomix_protocol::peer::SnapshotMeta;
use atomix_storage::{SnapshotWriter, StorageError};
use parking_lot::Mutex;
use redb::WriteTransaction;

use crate::database::{Problem, Shared};
use crate::tables::{PIECE_BYTES, PIECES, SNAPSHOTS, Shelved, decode, encode, key_of, seal};

/// Published ones that are kept: the newest, and the one before in case that the newest gets damaged.
const KEPT: usize = 2;

/// What storage thread and writer share.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Published ones, ascending. Invariant: at most [`KEPT`], and what is in the database.
    pub(crate) published: Vec<SnapshotMeta>,
    /// Complete and durable, but invisible.
    finished: Option<Shelved>,
    /// Whose pieces are in the database, or may be, and count for nothing unless finished and published.
    unpublished: Option<u64>,
    /// Generations are used once: pieces of one that was given up never mix with another's.
    pub(crate) next_generation: u64,
}

/// See [`Storage::publish`](atomix_storage::Storage::publish).
pub(crate) fn publish(
    shared: &Shared,
    shelf: &Mutex<Shelf>,
    meta: &SnapshotMeta,
) -> Result<(), StorageError> {
    // Held throughout: the writer must not drop the pieces that are being published.
    let mut shelf = shelf.lock();
    let last = meta.last;
    let Some((_, generation)) = shelf.finished.as_ref().filter(|(finished, _)| finished == meta) else {
        return Err(StorageError::BadSnapshot(format!("no finished one that ends with {last}")));
    };
    let generation = *generation;
    if let Some(newest) = shelf.published.last().filter(|newest| newest.last.index > last.index) {
        return Err(StorageError::BadSnapshot(format!("{last} is older than {}", newest.last)));
    }
    let mut published: Vec<SnapshotMeta> =
        shelf.published.iter().filter(|other| other.last != last).cloned().collect();
    published.push(meta.clone());
    let dropped: Vec<SnapshotMeta> = published.drain(..published.len().saturating_sub(KEPT)).collect();
    shared.write(0, |transaction| {
        for meta in &dropped {
            remove(transaction, meta.last, None)?;
        }
        remove(transaction, last, Some(generation))?;
        let (index, term) = (last.index.0, last.term.0);
        let value = encode(&key_of(index, term), &(meta, generation));
        transaction.open_table(SNAPSHOTS)?.insert((index, term), value.as_slice())?;
        Ok(())
    })?;
    (shelf.finished, shelf.unpublished) = (None, None);
    shelf.published = published;
    Ok(())
}

/// Removes a published snapshot with its pieces, unless they are of a generation that stays.
pub(crate) fn remove(
    transaction: &WriteTransaction,
    last: EntryId,
    stays: Option<u64>,
) -> Result<(), Problem> {
    let (index, term) = (last.index.0, last.term.0);
    let mut table = transaction.open_table(SNAPSHOTS)?;
    let removed = table.remove((index, term))?;
    let shelved = removed.and_then(|value| decode::<Shelved>(&key_of(index, term), value.value()));
    match shelved {
        Some((_, generation)) if Some(generation) != stays => remove_pieces(transaction, generation),
        // Pieces whose description is damaged belong to nobody, and go with the next recovery.
        _ => Ok(()),
    }
}

pub(crate) fn remove_pieces(transaction: &WriteTransaction, generation: u64) -> Result<(), Problem> {
    let mut pieces = transaction.open_table(PIECES)?;
    Ok(pieces.retain_in((generation, 0)..=(generation, u64::MAX), |_, _| false)?)
}

/// Writes the unpublished snapshot, some pieces in a transaction.
#[derive(Debug)]
pub(crate) struct RedbSnapshotWriter {
    shared: Arc<Shared>,
    shelf: Arc<Mutex<Shelf>>,
    begun: Option<(EntryId, u64)>,
    size: u64,
    crc: u32,
    /// What does not make a whole piece yet.
    rest: Vec<u8>,
    /// Pieces written.
    pieces: u64,
}

impl RedbSnapshotWriter {
    pub(crate) fn new(shared: Arc<Shared>, shelf: Arc<Mutex<Shelf>>) -> Self {
        RedbSnapshotWriter { shared, shelf, begun: None, size: 0, crc: 0, rest: Vec::new(), pieces: 0 }
    }

    /// Writes what makes whole pieces; all, if no more will come.
    fn store(&mut self, generation: u64, all: bool) -> Result<(), StorageError> {
        let whole = if all { self.rest.len() } else { self.rest.len() / PIECE_BYTES * PIECE_BYTES };
        if whole == 0 {
            return Ok(());
        }
        let first = self.pieces;
        let pieces = self.rest[..whole].chunks(PIECE_BYTES);
        self.pieces += pieces.len() as u64;
        self.shared.write(whole as u64, |transaction| {
            let mut table = transaction.open_table(PIECES)?;
            for (number, piece) in (first..).zip(pieces.clone()) {
                table.insert((generation, number), seal(&key_of(generation, number), piece).as_slice())?;
            }
            Ok(())
        })?;
        self.rest.drain(..whole);
        Ok(())
    }
}

impl SnapshotWriter for RedbSnapshotWriter {
    fn begin(&mut self, last: EntryId) -> Result<(), StorageError> {
        let mut shelf = self.shelf.lock();
        shelf.finished = None;
        (self.begun, self.size, self.crc, self.pieces) = (None, 0, 0, 0);
        self.rest.clear();
        if let Some(generation) = shelf.unpublished {
            self.shared.write(0, |transaction| remove_pieces(transaction, generation))?;
        }
        let generation = shelf.next_generation;
        shelf.next_generation += 1;
        shelf.unpublished = Some(generation);
        self.begun = Some((last, generation));
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        // Taken while it is not known whether it went well: after an error, only another `begin` helps.
        let begun = self.begun.take().ok_or_else(|| StorageError::BadSnapshot("nothing was begun".into()))?;
        self.rest.extend_from_slice(data);
        self.store(begun.1, false)?;
        self.size += data.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.begun = Some(begun);
        Ok(())
    }

    fn finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let begun = self.begun.take();
        let verifies = (self.size, self.crc) == (meta.size, meta.checksum);
        let Some((_, generation)) = begun.filter(|(last, _)| *last == meta.last && verifies) else {
            return Err(StorageError::BadSnapshot(format!("{} is not what was written", meta.last)));
        };
        self.store(generation, true)?;
        self.shelf.lock().finished = Some((meta.clone(), generation));
        Ok(())
    }

    fn writing(&self) -> Option<EntryId> {
        self.begun.map(|(last, _)| last)
    }

    fn written(&self) -> (u64, u32) {
        (self.size, self.crc)
    }
}
