//! The reading side, for another thread: log ranges and pieces of snapshots.

use std::io;
use std::sync::Arc;

use atomix_protocol::{Entry, EntryId, EntryKind, Index};
use atomix_storage::{StorageError, StorageReader};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::catalog::{Catalog, Location, POINT_BYTES};
use crate::format::Kind;
use crate::log::failed;
use crate::snapshot::{PIECE, Shelf, data_at};
use crate::window::Window;
use crate::{Disk, names};

/// Reads beside the storage thread. What it was told by the catalog stays true while it reads, because nothing in a segment is ever
/// overwritten; the file may go, and then the catalog has forgotten it first.
pub(crate) struct FileReader {
    disk: Box<dyn Disk>,
    catalog: Arc<Mutex<Catalog>>,
    shelf: Arc<Mutex<Shelf>>,
}

/// Entries read so far, and how many may follow.
struct Taken {
    entries: Vec<Entry>,
    next: Index,
    through: Index,
    /// What is left of the bytes asked for.
    room: u64,
}

impl Taken {
    /// False if it is not taken: enough are.
    fn take(&mut self, entry: Entry) -> bool {
        let weight = entry.weight();
        if weight > self.room && !self.entries.is_empty() {
            return false;
        }
        self.room = self.room.saturating_sub(weight);
        self.next = entry.id.index.next();
        self.entries.push(entry);
        true
    }
}

impl FileReader {
    pub(crate) fn new(disk: Box<dyn Disk>, catalog: Arc<Mutex<Catalog>>, shelf: Arc<Mutex<Shelf>>) -> Self {
        FileReader { disk, catalog, shelf }
    }

    /// Takes entries that lie in one piece from a location on. False if that was the end: enough were taken, or the rest is gone.
    fn take_run(&mut self, from: Location, taken: &mut Taken) -> Result<bool, StorageError> {
        let disk = &mut self.disk;
        let mut read = |segment, offset, buffer: &mut [u8]| {
            let name = names::segment(segment);
            match disk.read_at(&name, offset, buffer) {
                // Compacted meanwhile: the same as a file that ends here.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
                result => result.map_err(failed("read", &name)),
            }
        };
        let mut window = Window::new(&mut read, from.segment, taken.room.saturating_add(POINT_BYTES));
        let through = from.through.min(taken.through);
        let mut at = from.offset;
        while taken.next <= through {
            let Some(record) = window.record(at, from.seed)? else {
                let there = self.catalog.lock().locate(taken.next);
                if there.is_none_or(|there| there.segment != from.segment) {
                    return Ok(false);
                }
                let text = format!(
                    "log segment {} at {at}: the record before entry {} fails",
                    from.segment, taken.next
                );
                return Err(StorageError::Corrupt(text));
            };
            let header = record.header;
            if header.kind == Kind::Entry && header.id.index == taken.next {
                let Some(kind) = EntryKind::from_number(header.entry_kind) else {
                    let text = format!("entry {} is of a kind that this version does not know", header.id);
                    return Err(StorageError::OtherVersion(text));
                };
                let payload = window.payload(at, header.length)?;
                if !taken.take(Entry { id: header.id, time: header.time, kind, payload }) {
                    return Ok(false);
                }
            }
            at = record.end;
        }
        Ok(true)
    }
}

impl StorageReader for FileReader {
    fn entries(
        &mut self,
        from: Index,
        through: Index,
        bytes: u64,
    ) -> Result<Option<Vec<Entry>>, StorageError> {
        let mut taken = Taken { entries: Vec::new(), next: from, through, room: bytes };
        while taken.next <= through {
            let location = self.catalog.lock().locate(taken.next);
            let Some(location) = location else { break };
            if !self.take_run(location, &mut taken)? {
                break;
            }
        }
        Ok((!taken.entries.is_empty()).then_some(taken.entries))
    }

    fn snapshot(&mut self, last: EntryId, offset: u64, bytes: usize) -> Result<Option<Bytes>, StorageError> {
        let Some(pieces) = self.shelf.lock().pieces(last) else { return Ok(None) };
        let Some(left) = pieces.size.checked_sub(offset) else { return Ok(None) };
        // Whole pieces are read, since only those can be verified: what has become damaged since it was written must not reach anybody.
        let before = offset % PIECE as u64;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes);
        if wanted == 0 {
            return Ok(Some(Bytes::new()));
        }
        let end = (offset + wanted as u64).next_multiple_of(PIECE as u64).min(pieces.size);
        let mut buffer = vec![0; usize::try_from(end - (offset - before)).unwrap_or(usize::MAX)];
        let name = names::snapshot(last);
        let read = match self.disk.read_at(&name, data_at(offset - before), &mut buffer) {
            // Replaced by newer ones meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed("read", &name))?,
        };
        if read < buffer.len() || !pieces.hold(offset - before, &buffer) {
            return Err(StorageError::Corrupt(format!("{name} at {}: does not verify", data_at(offset))));
        }
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        Ok(Some(Bytes::from(buffer).slice(before..before + wanted)))
    }
}
