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
/// Data is verified in pieces of this length.
const PIECE: usize = 256 << 10;
/// After so many bytes the writer syncs: the syncs of the log, which commits wait for, would stand behind all of them at the end.
const SYNC_BYTES: u64 = 1 << 20;

/// What storage thread, writer and reader share.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Published ones and their sizes; the newest is the last. One without a size was found by recovery, which had no need to verify
    /// it: kept in case that the newest gets damaged. Invariant: at most two, ascending.
    published: Vec<(EntryId, Option<u64>)>,
    /// Complete and durable, but invisible.
    finished: Option<SnapshotMeta>,
}

impl Shelf {
    /// Length of a published snapshot's data.
    pub(crate) fn size(&self, last: EntryId) -> Option<u64> {
        self.published.iter().find(|(id, _)| *id == last)?.1
    }
}

/// The storage thread's side.
pub(crate) struct Snapshots {
    shelf: Arc<Mutex<Shelf>>,
    /// The newest one that verifies.
    newest: Option<SnapshotMeta>,
    /// Every file there is, whole or not, ascending by index.
    files: Vec<EntryId>,
}

impl Snapshots {
    /// Finds the newest one that verifies.
    ///
    /// # Errors
    /// If the device refused, or one was written by a newer version.
    pub(crate) fn recover(disk: &mut dyn Disk, files: &[(EntryId, u64)]) -> Result<Snapshots, StorageError> {
        let mut shelf = Shelf::default();
        let mut newest = None;
        for (last, length) in files.iter().rev() {
            if newest.is_some() {
                shelf.published.insert(0, (*last, None));
                break;
            }
            newest = verify(disk, *last, *length)?;
            if let Some(meta) = &newest {
                shelf.published.push((*last, Some(meta.size)));
            }
        }
        let files = files.iter().map(|(last, _)| *last).collect();
        Ok(Snapshots { shelf: Arc::new(Mutex::new(shelf)), newest, files })
    }

    pub(crate) fn shelf(&self) -> &Arc<Mutex<Shelf>> {
        &self.shelf
    }

    /// The newest one that verifies.
    pub(crate) fn newest(&self) -> Option<&SnapshotMeta> {
        self.newest.as_ref()
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
        if shelf.finished.as_ref() != Some(meta) {
            return Err(StorageError::BadSnapshot(format!("no finished one that ends with {last}")));
        }
        if let Some(newest) = shelf.published.last().filter(|(newest, _)| newest.index > last.index) {
            return Err(StorageError::BadSnapshot(format!("{last} is older than {}", newest.0)));
        }
        shelf.finished = None;
        let name = names::snapshot(last);
        disk.rename(names::UNPUBLISHED, &name).map_err(failed("rename to", &name))?;
        disk.sync_dir().map_err(failed("sync", "the data directory"))?;
        shelf.published.retain(|(id, _)| *id != last);
        shelf.published.push((last, Some(meta.size)));
        if shelf.published.len() > 2 {
            shelf.published.remove(0);
        }
        if !self.files.contains(&last) {
            self.files.push(last);
        }
        self.newest = Some(meta.clone());
        let kept = |file: &EntryId| shelf.published.iter().any(|(id, _)| id == file);
        for file in self.files.extract_if(.., |file| !kept(file)) {
            let name = names::snapshot(file);
            disk.remove(&name).map_err(failed("remove", &name))?;
        }
        Ok(())
    }
}

/// The description of a published snapshot, if the file is what it says.
fn verify(disk: &mut dyn Disk, last: EntryId, length: u64) -> Result<Option<SnapshotMeta>, StorageError> {
    let name = names::snapshot(last);
    let mut read =
        |offset, buffer: &mut [u8]| disk.read_at(&name, offset, buffer).map_err(failed("read", &name));
    let mut header = [0; HEADER];
    if read(0, &mut header)? < HEADER {
        return Ok(None);
    }
    match check_preamble(&header, MAGIC) {
        Decoded::Valid(()) => {}
        Decoded::Foreign => {
            return Err(StorageError::Foreign(format!(
                "{name} was written by a newer version or for another group"
            )));
        }
        Decoded::Invalid => return Ok(None),
    }
    let size = u64::from_le_bytes(field(&header, 16));
    let meta_length = u32::from_le_bytes(field(&header, 24));
    let meta_crc = u32::from_le_bytes(field(&header, 28));
    if (HEADER as u64).saturating_add(size).saturating_add(meta_length.into()) != length {
        return Ok(None);
    }
    let mut meta = vec![0; meta_length as usize];
    read(HEADER as u64 + size, &mut meta)?;
    let decoded = (crc32c::crc32c(&meta) == meta_crc).then(|| codec::from_bytes::<SnapshotMeta>(&meta).ok());
    let Some(meta) = decoded.flatten().filter(|meta| meta.last == last && meta.size == size) else {
        return Ok(None);
    };
    let (mut crc, mut at, mut piece) = (0, 0, vec![0; PIECE]);
    while at < size {
        let wanted = usize::try_from(size - at).unwrap_or(usize::MAX).min(PIECE);
        if read(HEADER as u64 + at, &mut piece[..wanted])? < wanted {
            return Ok(None);
        }
        crc = crc32c::crc32c_append(crc, &piece[..wanted]);
        at += wanted as u64;
    }
    Ok((crc == meta.checksum).then_some(meta))
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
    size: u64,
    crc: u32,
    /// Bytes written since the last sync.
    unsynced: u64,
}

impl FileSnapshotWriter {
    pub(crate) fn new(disk: Box<dyn Disk>, shelf: Arc<Mutex<Shelf>>) -> Self {
        FileSnapshotWriter { disk, shelf, begun: None, size: 0, crc: 0, unsynced: 0 }
    }

    fn seal(&mut self, meta: &SnapshotMeta) -> io::Result<()> {
        let encoded = codec::to_bytes(meta);
        self.disk.write_at(names::UNPUBLISHED, data_at(meta.size), &[&encoded])?;
        self.disk.write_at(names::UNPUBLISHED, 0, &[&encode_header(meta, &encoded)])?;
        self.disk.sync(names::UNPUBLISHED)
    }
}

impl SnapshotWriter for FileSnapshotWriter {
    fn begin(&mut self, last: EntryId) -> Result<(), StorageError> {
        let mut shelf = self.shelf.lock();
        shelf.finished = None;
        (self.begun, self.size, self.crc, self.unsynced) = (None, 0, 0, 0);
        let created = self.disk.allocate(names::UNPUBLISHED, HEADER as u64);
        created.map_err(failed_or_full("create", names::UNPUBLISHED))?;
        self.begun = Some(last);
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        // Taken while it is not known whether it went well: after an error, only another `begin` helps.
        let begun = self.begun.take().ok_or_else(|| StorageError::BadSnapshot("nothing was begun".into()))?;
        let written = self.disk.write_at(names::UNPUBLISHED, data_at(self.size), &[data]);
        written.map_err(failed_or_full("write", names::UNPUBLISHED))?;
        self.size += data.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.unsynced += data.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.disk.sync(names::UNPUBLISHED).map_err(failed("sync", names::UNPUBLISHED))?;
            self.unsynced = 0;
        }
        self.begun = Some(begun);
        Ok(())
    }

    fn finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let begun = self.begun.take();
        let verifies = (self.size, self.crc) == (meta.size, meta.checksum);
        if (begun != Some(meta.last) || !verifies) && !Mutant::B35.active() {
            return Err(StorageError::BadSnapshot(format!("{} is not what was written", meta.last)));
        }
        self.seal(meta).map_err(failed_or_full("write", names::UNPUBLISHED))?;
        self.shelf.lock().finished = Some(meta.clone());
        Ok(())
    }

    fn writing(&self) -> Option<EntryId> {
        self.begun
    }

    fn written(&self) -> (u64, u32) {
        (self.size, self.crc)
    }
}
