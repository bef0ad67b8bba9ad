//! The reading side, for another thread: log ranges and pieces of snapshots.

use std::sync::Arc;

use atomix_protocol::{Entry, EntryId, Index};
use atomix_storage::{StorageError, StorageReader};
use bytes::{Bytes, BytesMut};
use redb::ReadTransaction;

use crate::database::{Problem, Shared};
use crate::tables::{LOG, PIECE_BYTES, PIECES, SNAPSHOTS, Shelved, decode, decode_entry, key_of, unseal};

/// Reads beside the storage thread, each call in a transaction of its own.
#[derive(Debug)]
pub(crate) struct RedbReader {
    shared: Arc<Shared>,
}

impl RedbReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        RedbReader { shared }
    }
}

impl StorageReader for RedbReader {
    fn entries(
        &mut self,
        from: Index,
        through: Index,
        bytes: u64,
    ) -> Result<Option<Vec<Entry>>, StorageError> {
        if from > through {
            return Ok(None);
        }
        self.shared.read(|transaction| {
            let table = transaction.open_table(LOG)?;
            let (mut taken, mut room) = (Vec::new(), bytes);
            for (index, item) in (from.0..=through.0).zip(table.range(from.0..=through.0)?) {
                let (key, value) = item?;
                if key.value() != index {
                    break;
                }
                let entry = decode_entry(Index(index), value.value())?;
                let entry =
                    entry.ok_or_else(|| StorageError::Corrupt(format!("entry {index} is damaged")))?;
                let weight = entry.weight();
                if weight > room && !taken.is_empty() {
                    break;
                }
                room = room.saturating_sub(weight);
                taken.push(entry);
            }
            Ok((!taken.is_empty()).then_some(taken))
        })
    }

    fn snapshot(&mut self, last: EntryId, offset: u64, bytes: usize) -> Result<Option<Bytes>, StorageError> {
        self.shared.read(|transaction| {
            let Some((meta, generation)) = shelved(transaction, last)? else { return Ok(None) };
            let Some(left) = meta.size.checked_sub(offset) else { return Ok(None) };
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes);
            let mut found = BytesMut::with_capacity(wanted);
            read_pieces(transaction, generation, offset, wanted, &mut |piece| {
                found.extend_from_slice(piece);
            })?;
            Ok(Some(found.freeze()))
        })
    }
}

/// A published snapshot, and the generation of its pieces.
pub(crate) fn shelved(transaction: &ReadTransaction, last: EntryId) -> Result<Option<Shelved>, Problem> {
    let (index, term) = (last.index.0, last.term.0);
    let Some(value) = transaction.open_table(SNAPSHOTS)?.get((index, term))? else { return Ok(None) };
    match decode::<Shelved>(&key_of(index, term), value.value()) {
        Some(shelved) => Ok(Some(shelved)),
        None => Err(StorageError::Corrupt(format!("the description of snapshot {last} is damaged")).into()),
    }
}

/// Hands out so many bytes of a snapshot from an offset on, piece by piece.
///
/// # Errors
/// [`StorageError::Corrupt`] if they are not all there, and as written.
pub(crate) fn read_pieces(
    transaction: &ReadTransaction,
    generation: u64,
    offset: u64,
    bytes: usize,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Problem> {
    let table = transaction.open_table(PIECES)?;
    let mut number = offset / PIECE_BYTES as u64;
    let mut skip = usize::try_from(offset % PIECE_BYTES as u64).unwrap_or(usize::MAX);
    let mut left = bytes;
    while left > 0 {
        let damaged = || StorageError::Corrupt(format!("piece {number} of a snapshot is damaged"));
        let value = table.get((generation, number))?.ok_or_else(damaged)?;
        let piece = unseal(&key_of(generation, number), value.value()).ok_or_else(damaged)?;
        let piece = piece.get(skip..).filter(|piece| !piece.is_empty()).ok_or_else(damaged)?;
        let piece = &piece[..piece.len().min(left)];
        take(piece);
        left -= piece.len();
        (number, skip) = (number + 1, 0);
    }
    Ok(())
}
