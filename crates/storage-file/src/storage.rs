//! The storage itself: puts log and snapshots together.

use std::fmt;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, EntryId, Index, WriteBatch};
use atomix_storage::{Recovered, SnapshotWriter, Storage, StorageError, StorageReader};

use crate::format::{MARK_BYTES, Mark};
use crate::log::{Log, failed};
use crate::names::{self, Listing};
use crate::reader::FileReader;
use crate::recovery::{self, Joint};
use crate::snapshot::{FileSnapshotWriter, Snapshots};
use crate::{Disk, FileOptions};

/// Bytes of entries that recovery holds in memory at a time.
const RECOVERY_BYTES: u64 = 256 << 10;

/// Everything of one server in the files of one directory.
pub struct FileStorage {
    disk: Box<dyn Disk>,
    options: FileOptions,
    /// `None` before recovery.
    open: Option<Open>,
    /// Set by the first failure; nothing is written after it (D5).
    failed: Option<StorageError>,
}

struct Open {
    log: Log,
    snapshots: Snapshots,
}

impl fmt::Debug for FileStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStorage")
            .field("options", &self.options)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl FileStorage {
    /// Takes the disk. Nothing is read or written before [`Storage::recover`].
    ///
    /// # Errors
    /// If a segment of the length asked for could not hold anything.
    pub fn open(disk: Box<dyn Disk>, options: FileOptions) -> Result<FileStorage, StorageError> {
        if options.segment_bytes < FileOptions::SEGMENT_BYTES_MIN {
            let (least, given) = (FileOptions::SEGMENT_BYTES_MIN, options.segment_bytes);
            return Err(StorageError::Unusable(format!("segments have at least {least} bytes, not {given}")));
        }
        Ok(FileStorage { disk, options, open: None, failed: None })
    }

    /// Runs what may fail for good.
    fn run<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Disk, &mut Open) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let open = self.open.as_mut().expect("storage is recovered before anything else is asked of it");
        let result = call(&mut *self.disk, open);
        self.note(result)
    }

    /// Remembers an error that is final. A full disk is not, where nothing was changed; nor is a snapshot that the caller describes wrongly.
    fn note<T>(&mut self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && !matches!(error, StorageError::Full(_) | StorageError::BadSnapshot(_))
        {
            self.failed = Some(error.clone());
        }
        result
    }

    fn recover_all(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError> {
        let disk = &mut *self.disk;
        let listing = Listing::of(disk.list().map_err(failed("list", "the data directory"))?)?;
        if listing.segments.is_empty() && !listing.snapshots.is_empty() {
            return Err(StorageError::Corrupt("there are snapshots and no log".into()));
        }
        let mark = read_mark(disk, &listing)?;
        let mut read = |segment, offset, buffer: &mut [u8]| {
            let name = names::segment(segment);
            disk.read_at(&name, offset, buffer).map_err(failed("read", &name))
        };
        let scanned = recovery::scan(&listing.segments, mark, &mut read)?;
        let snapshots = Snapshots::recover(disk, &listing.snapshots)?;
        let usable = snapshots.newest().map(|meta| meta.last);
        let joint = recovery::join(&scanned.catalog, usable, snapshots.newest_file())?;
        if listing.unpublished {
            disk.remove(names::UNPUBLISHED).map_err(failed("remove", names::UNPUBLISHED))?;
        }
        let segments = listing.segments.iter().map(|(segment, _)| *segment);
        let mut log = Log::resume(disk, self.options.clone(), scanned, segments, listing.mark.is_some())?;
        // What was found may have been renamed or created right before a crash of the process, and not be durable yet.
        disk.sync_dir().map_err(failed("sync", "the data directory"))?;
        if let Joint::Reset(id) = joint {
            log.write(disk, &WriteBatch { truncate_after: Some(id), ..WriteBatch::default() })?;
        }
        let mut recovered = log.known().clone();
        recovered.snapshot = snapshots.newest().cloned();
        hand_out(disk, &log, &snapshots, usable.unwrap_or(EntryId::ZERO).index, entry)?;
        self.open = Some(Open { log, snapshots });
        Ok(recovered)
    }
}

fn read_mark(disk: &mut dyn Disk, listing: &Listing) -> Result<Option<Mark>, StorageError> {
    if listing.mark.is_none() {
        return Ok(None);
    }
    let mut bytes = [0; MARK_BYTES as usize];
    let read = disk.read_at(names::MARK, 0, &mut bytes).map_err(failed("read", names::MARK))?;
    Ok(Mark::newest(&bytes[..read]))
}

/// All entries after `start`, a bounded number at a time.
fn hand_out(
    disk: &dyn Disk,
    log: &Log,
    snapshots: &Snapshots,
    start: Index,
    entry: &mut dyn FnMut(Entry),
) -> Result<(), StorageError> {
    let last = log.catalog().lock().last().index;
    let mut next = start.next();
    if next > last {
        return Ok(());
    }
    let mut reader = reader(disk, log, snapshots)?;
    while next <= last {
        let entries = reader.entries(next, last, RECOVERY_BYTES)?;
        let entries = entries.ok_or_else(|| StorageError::Corrupt(format!("entry {next} is missing")))?;
        next = next.plus(entries.len() as u64);
        entries.into_iter().for_each(&mut *entry);
    }
    Ok(())
}

fn reader(disk: &dyn Disk, log: &Log, snapshots: &Snapshots) -> Result<FileReader, StorageError> {
    let disk = disk.fork().map_err(failed("open", "the data directory"))?;
    Ok(FileReader::new(disk, log.catalog().clone(), snapshots.shelf().clone()))
}

impl Storage for FileStorage {
    fn recover(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError> {
        assert!(self.open.is_none() && self.failed.is_none(), "storage is recovered once");
        let result = self.recover_all(entry);
        self.note(result)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return self.failed.clone().map_or(Ok(()), Err);
        }
        self.run(|disk, open| open.log.write(disk, batch))
    }

    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        self.run(|disk, open| {
            if open.log.is_fresh() {
                // Snapshots without a log mean that the log was lost, and the vote with it.
                open.log.write(disk, &WriteBatch::default())?;
            }
            open.snapshots.publish(disk, snapshot)
        })
    }

    fn compact(&mut self, through: Index) -> Result<(), StorageError> {
        self.run(|disk, open| match open.snapshots.oldest() {
            Some(oldest) => open.log.compact(disk, through.min(oldest.index)),
            None => Ok(()),
        })
    }

    fn snapshot_writer(&mut self) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.run(|disk, open| {
            let disk = disk.fork().map_err(failed("open", "the data directory"))?;
            Ok(Box::new(FileSnapshotWriter::new(disk, open.snapshots.shelf().clone()))
                as Box<dyn SnapshotWriter>)
        })
    }

    fn reader(&mut self) -> Result<Box<dyn StorageReader>, StorageError> {
        self.run(|disk, open| {
            Ok(Box::new(reader(disk, &open.log, &open.snapshots)?) as Box<dyn StorageReader>)
        })
    }
}
