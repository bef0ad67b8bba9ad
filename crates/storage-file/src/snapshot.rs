//! Snapshot files: 64 bytes of header, the data, the description.
//!
//! A file comes to its name by a rename after its sync, so that one under such a name is whole or damaged, never torn. Which one is the
//! newest is said by the names: no other file has to agree.

use std::io;
use std::sync::Arc;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{EntryId, codec};
use atomix_storage::{SnapshotWriter, StorageError};
use parking_lot::Mutex;

use crate::format::{Decoded, HEADER, check_preamble, field, preamble};
use crate::log::{failed, failed_or_full};
use crate::{Disk, names};

const MAGIC: [u8; 8] = *b"ATOMIXSN";
/// Data is verified in pieces of this length, also when a part of it is read later.
pub(crate) const PIECE: usize = 64 << 10;
/// How much is read at once to verify the whole.
const VERIFIED: usize = 256 << 10;
/// After so many bytes the writer syncs: the syncs of the log, which commits wait for, would stand behind all of them at the end.
const SYNC_BYTES: u64 = 1 << 20;

/// The data of a snapshot: its length, and the CRC of each of its pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) size: u64,
    crcs: Vec<u32>,
}

impl Pieces {
    /// Takes data that follows.
    fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let filled = (self.size % PIECE as u64) as usize;
            let (now, later) = data.split_at(data.len().min(PIECE - filled));
            if filled == 0 {
                self.crcs.push(0);
            }
            if let Some(crc) = self.crcs.last_mut() {
                *crc = crc32c::crc32c_append(*crc, now);
            }
            self.size += now.len() as u64;
            data = later;
        }
    }

    /// Whether whole pieces, from one that begins at `offset` on, are those that were written.
    pub(crate) fn hold(&self, offset: u64, data: &[u8]) -> bool {
        let first = usize::try_from(offset / PIECE as u64).unwrap_or(usize::MAX);
        let mut wanted = self.crcs.get(first..).unwrap_or_default().iter();
        data.chunks(PIECE).all(|piece| wanted.next() == Some(&crc32c::crc32c(piece)))
    }
}

/// What storage thread, writer and reader share.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Published ones; the newest is the last. One without pieces was found by recovery, which had no need to verify it: kept in case
    /// that the newest gets damaged. Invariant: at most two, ascending.
    published: Vec<(EntryId, Option<Arc<Pieces>>)>,
    /// Complete and durable, but invisible.
    finished: Option<(SnapshotMeta, Arc<Pieces>)>,
}

impl Shelf {
    /// A published snapshot's data.
    pub(crate) fn pieces(&self, last: EntryId) -> Option<Arc<Pieces>> {
        self.published.iter().find(|(id, _)| *id == last)?.1.clone()
    }
}

/// The storage thread's side.
pub(crate) struct Snapshots {
    shelf: Arc<Mutex<Shelf>>,
    /// The newest one that verifies.
    newest: Option<SnapshotMeta>,
    /// Every file there is, whole or not, ascending by index.
    files: Vec<EntryId>,
    /// Those that were found damaged.
    damaged: Vec<EntryId>,
    /// One that was written by another version.
    foreign: Option<EntryId>,
    /// The one that this process has published last.
    published: Option<EntryId>,
}

impl Snapshots {
    /// Finds the newest one that verifies.
    ///
    /// # Errors
    /// If the device refused, or one was written by a newer version.
    pub(crate) fn recover(disk: &mut dyn Disk, files: &[(EntryId, u64)]) -> Result<Snapshots, StorageError> {
        let mut shelf = Shelf::default();
        let (mut newest, mut damaged, mut foreign) = (None, Vec::new(), None);
        for (last, length) in files.iter().rev() {
            if newest.is_some() {
                shelf.published.insert(0, (*last, None));
                break;
            }
            match verify(disk, *last, *length)? {
                Decoded::Valid((meta, pieces)) => {
                    shelf.published.push((*last, Some(Arc::new(pieces))));
                    newest = Some(meta);
                }
                Decoded::Foreign => foreign = Some(*last),
                Decoded::Invalid => damaged.push(*last),
            }
        }
        let files = files.iter().map(|(last, _)| *last).collect();
        Ok(Snapshots { shelf: Arc::new(Mutex::new(shelf)), newest, files, damaged, foreign, published: None })
    }

    /// Those that were found damaged, newest first.
    pub(crate) fn damaged(&self) -> &[EntryId] {
        &self.damaged
    }

    /// One that was written by another version.
    pub(crate) fn foreign(&self) -> Option<EntryId> {
        self.foreign
    }

    pub(crate) fn shelf(&self) -> &Arc<Mutex<Shelf>> {
        &self.shelf
    }

    /// The newest one that verifies.
    pub(crate) fn newest(&self) -> Option<&SnapshotMeta> {
        self.newest.as_ref()
    }

    /// The one that this process has published last.
    pub(crate) fn published(&self) -> Option<EntryId> {
        self.published
    }

    /// The newest one there is a file of.
    pub(crate) fn newest_file(&self) -> Option<EntryId> {
        self.files.last().copied()
    }

    /// From where on the log is needed: the older one of the two is of use only together with it.
    pub(crate) fn oldest(&self) -> Option<EntryId> {
        self.shelf.lock().published.first().map(|(last, _)| *last)
    }

    /// See [`Storage::publish`](atomix_storage::Storage::publish).
    pub(crate) fn publish(&mut self, disk: &mut dyn Disk, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let last = meta.last;
        // Held throughout: the writer must not begin another one in the file that is being renamed.
        let mut shelf = self.shelf.lock();
        let Some((_, pieces)) = shelf.finished.clone().filter(|(finished, _)| finished == meta) else {
            return Err(StorageError::BadSnapshot(format!("no finished one that ends with {last}")));
        };
        if let Some(newest) = shelf.published.last().filter(|(newest, _)| newest.index > last.index) {
            return Err(StorageError::BadSnapshot(format!("{last} is older than {}", newest.0)));
        }
        shelf.finished = None;
        let name = names::snapshot(last);
        disk.rename(names::UNPUBLISHED, &name).map_err(failed("rename to", &name))?;
        if !Mutant::B06.active() {
            disk.sync_dir().map_err(failed("sync", "the data directory"))?;
        }
        shelf.published.retain(|(id, _)| *id != last);
        shelf.published.push((last, Some(pieces)));
        if shelf.published.len() > 2 {
            shelf.published.remove(0);
        }
        if !self.files.contains(&last) {
            self.files.push(last);
        }
        self.newest = Some(meta.clone());
        self.published = Some(last);
        Ok(())
    }

    /// Deletes the files of all but the newest two.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn clear(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let shelf = self.shelf.lock();
        let kept = |file: &EntryId| shelf.published.iter().any(|(id, _)| id == file);
        for file in self.files.extract_if(.., |file| !kept(file)) {
            let name = names::snapshot(file);
            disk.remove(&name).map_err(failed("remove", &name))?;
        }
        Ok(())
    }

    /// Gives up the older of two snapshots, to make room. Whether there was one.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn drop_older(&mut self, disk: &mut dyn Disk) -> Result<bool, StorageError> {
        let mut shelf = self.shelf.lock();
        if shelf.published.len() < 2 {
            return Ok(false);
        }
        shelf.published.remove(0);
        drop(shelf);
        self.clear(disk)?;
        Ok(true)
    }
}

/// The description of a published snapshot, if the file is what it says.
///
/// # Errors
/// If the device refused.
pub(crate) fn verify(
    disk: &mut dyn Disk,
    last: EntryId,
    length: u64,
) -> Result<Decoded<(SnapshotMeta, Pieces)>, StorageError> {
    let name = names::snapshot(last);
    let mut read =
        |offset, buffer: &mut [u8]| disk.read_at(&name, offset, buffer).map_err(failed("read", &name));
    let mut header = [0; HEADER];
    if read(0, &mut header)? < HEADER {
        return Ok(Decoded::Invalid);
    }
    match check_preamble(&header, MAGIC) {
        Decoded::Valid(()) => {}
        Decoded::Foreign => return Ok(Decoded::Foreign),
        Decoded::Invalid => return Ok(Decoded::Invalid),
    }
    let size = u64::from_le_bytes(field(&header, 16));
    let meta_length = u32::from_le_bytes(field(&header, 24));
    let meta_crc = u32::from_le_bytes(field(&header, 28));
    if (HEADER as u64).saturating_add(size).saturating_add(meta_length.into()) != length {
        return Ok(Decoded::Invalid);
    }
    let mut meta = vec![0; meta_length as usize];
    let got = read(HEADER as u64 + size, &mut meta)?;
    if got < meta.len() || crc32c::crc32c(&meta) != meta_crc {
        return Ok(Decoded::Invalid);
    }
    let Ok(meta) = codec::from_bytes::<SnapshotMeta>(&meta) else { return Ok(Decoded::Foreign) };
    if meta.last != last || meta.size != size {
        return Ok(Decoded::Invalid);
    }
    let (mut crc, mut pieces, mut data) = (0, Pieces::default(), vec![0; VERIFIED]);
    while pieces.size < size {
        let wanted = usize::try_from(size - pieces.size).unwrap_or(usize::MAX).min(VERIFIED);
        if read(data_at(pieces.size), &mut data[..wanted])? < wanted {
            return Ok(Decoded::Invalid);
        }
        crc = crc32c::crc32c_append(crc, &data[..wanted]);
        pieces.take(&data[..wanted]);
    }
    Ok(if crc == meta.checksum { Decoded::Valid((meta, pieces)) } else { Decoded::Invalid })
}

fn encode_header(meta: &SnapshotMeta, encoded_meta: &[u8]) -> [u8; HEADER] {
    let length = u32::try_from(encoded_meta.len()).expect("a description is bounded far below 4 GiB");
    preamble(MAGIC)
        .put(meta.size.to_le_bytes())
        .put(length.to_le_bytes())
        .put(crc32c::crc32c(encoded_meta).to_le_bytes())
        .put(meta.last.index.0.to_le_bytes())
        .put(meta.last.term.0.to_le_bytes())
        .seal(0)
}

/// Where byte `offset` of a snapshot lies in its file.
pub(crate) fn data_at(offset: u64) -> u64 {
    (HEADER as u64).saturating_add(offset)
}

/// Writes the unpublished snapshot, on a thread and a disk handle of its own.
pub(crate) struct FileSnapshotWriter {
    disk: Box<dyn Disk>,
    shelf: Arc<Mutex<Shelf>>,
    begun: Option<EntryId>,
    pieces: Pieces,
    crc: u32,
    /// Bytes written since the last sync.
    unsynced: u64,
}

impl FileSnapshotWriter {
    pub(crate) fn new(disk: Box<dyn Disk>, shelf: Arc<Mutex<Shelf>>) -> Self {
        FileSnapshotWriter { disk, shelf, begun: None, pieces: Pieces::default(), crc: 0, unsynced: 0 }
    }

    fn seal(&mut self, meta: &SnapshotMeta) -> io::Result<()> {
        let encoded = codec::to_bytes(meta);
        self.disk.write_at(names::UNPUBLISHED, data_at(meta.size), &[&encoded])?;
        self.disk.write_at(names::UNPUBLISHED, 0, &[&encode_header(meta, &encoded)])?;
        self.disk.sync(names::UNPUBLISHED)
    }
}

/// An error in words. Where there is no room, what was written takes none any more: the log needs it.
fn note(disk: &mut dyn Disk, result: io::Result<()>, what: &str) -> Result<(), StorageError> {
    let result = result.map_err(failed_or_full(what, names::UNPUBLISHED));
    if matches!(result, Err(StorageError::Full(_))) {
        match disk.remove(names::UNPUBLISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", names::UNPUBLISHED)(error));
            }
            _ => {}
        }
    }
    result
}

impl SnapshotWriter for FileSnapshotWriter {
    fn begin(&mut self, last: EntryId) -> Result<(), StorageError> {
        let mut shelf = self.shelf.lock();
        shelf.finished = None;
        (self.begun, self.pieces, self.crc, self.unsynced) = (None, Pieces::default(), 0, 0);
        let created = self.disk.allocate(names::UNPUBLISHED, HEADER as u64);
        note(&mut *self.disk, created, "create")?;
        self.begun = Some(last);
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        // Taken while it is not known whether it went well: after an error, only another `begin` helps.
        let begun = self.begun.take().ok_or_else(|| StorageError::BadSnapshot("nothing was begun".into()))?;
        let written = self.disk.write_at(names::UNPUBLISHED, data_at(self.pieces.size), &[data]);
        note(&mut *self.disk, written, "write")?;
        self.pieces.take(data);
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.unsynced += data.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            let synced = self.disk.sync(names::UNPUBLISHED);
            note(&mut *self.disk, synced, "sync")?;
            self.unsynced = 0;
        }
        self.begun = Some(begun);
        Ok(())
    }

    fn finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let begun = self.begun.take();
        let verifies = (self.pieces.size, self.crc) == (meta.size, meta.checksum);
        if (begun != Some(meta.last) || !verifies) && !Mutant::B35.active() {
            return Err(StorageError::BadSnapshot(format!("{} is not what was written", meta.last)));
        }
        let sealed = self.seal(meta);
        note(&mut *self.disk, sealed, "write")?;
        let pieces = Arc::new(self.pieces.clone());
        self.shelf.lock().finished = Some((meta.clone(), pieces));
        Ok(())
    }

    fn writing(&self) -> Option<EntryId> {
        self.begun
    }

    fn written(&self) -> (u64, u32) {
        (self.pieces.size, self.crc)
    }
}
