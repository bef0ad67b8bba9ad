//! The storage itself: puts log and snapshots together.

use std::fmt;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, Index, WriteBatch};
use atomix_storage::{Recovered, SnapshotWriter, Storage, StorageError, StorageReader};

use crate::log::{Log, failed};
use crate::manifest::{Manifest, Manifests};
use crate::names;
use crate::reader::FileReader;
use crate::recovery::{Fit, Survey, Verdict};
use crate::snapshot::{FileSnapshotWriter, Snapshots};
use crate::{Disk, FileOptions};

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
    manifests: Manifests,
    log: Log,
    snapshots: Snapshots,
    /// How far the log may be compacted.
    compactable: Index,
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
        let mut survey = Survey::of(disk, entry)?;
        if let Some(refusal) = survey.refusal() {
            return Err(refusal);
        }
        let manifests = recover_manifest(disk, &mut survey)?;
        if survey.listing.unpublished {
            disk.remove(names::UNPUBLISHED).map_err(failed("remove", names::UNPUBLISHED))?;
        }
        let log = Log::resume(disk, &self.options, &survey)?;
        // What was found may have been renamed or created right before a crash of the process, and not be durable yet.
        disk.sync_dir().map_err(failed("sync", "the data directory"))?;
        let damage = survey.damage();
        let (start, apart) = (survey.usable_snapshot(), survey.is_apart());
        let Survey { snapshots, facts, scanned, .. } = survey;
        let mut open = Open { manifests, log, snapshots, compactable: Index::ZERO };
        if apart {
            let truncation = WriteBatch { truncate_after: Some(start), ..WriteBatch::default() };
            match open.write(disk, &truncation) {
                Err(StorageError::Full(_)) => open.log.owe(start),
                result => result?,
            }
        } else {
            open.note_newest(disk)?;
        }
        if open.manifests.current().abstention.is_none() {
            open.log.drop_given_up(disk)?;
        }
        open.log.fill_reserve(disk)?;
        if matches!(facts.fit, Fit::Joined | Fit::Short) {
            scanned.kept.into_iter().for_each(entry);
        }
        let Manifest { identity, hard_state, configuration, abstention, .. } =
            open.manifests.current().clone();
        let snapshot = open.snapshots.newest().cloned();
        self.open = Some(open);
        Ok(Recovered { identity, hard_state, configuration, abstention, snapshot, damage })
    }
}

/// Makes both copies of the manifest whole, and abstention durable if anything that was acknowledged may be missing: before anything else
/// is written (D4). Where there is no room for that, nothing else is written either until there is.
fn recover_manifest(disk: &mut dyn Disk, survey: &mut Survey) -> Result<Manifests, StorageError> {
    let mut manifests = Manifests::resume(&survey.copies);
    if survey.verdict == Verdict::Fresh {
        return Ok(manifests);
    }
    let manifest = Manifest { abstention: survey.abstention(), ..manifests.current().clone() };
    let mut stored = manifests.store(disk, manifest.clone());
    for (name, length) in
        [(names::SPARE, &mut survey.listing.spare), (names::RESERVE, &mut survey.listing.reserve)]
    {
        if matches!(stored, Err(StorageError::Full(_))) && length.take().is_some() {
            // For what is it there?
            disk.remove(name).map_err(failed("remove", name))?;
            stored = manifests.store(disk, manifest.clone());
        }
    }
    match stored {
        Err(StorageError::Full(_)) => manifests.owe(manifest),
        stored => stored?,
    }
    Ok(manifests)
}

impl Open {
    fn write(&mut self, disk: &mut dyn Disk, batch: &WriteBatch) -> Result<(), StorageError> {
        let batch = &*self.log.with_owed(batch);
        // What goes before the entries is durable before them; so is the word that a truncation comes.
        let mut manifest = self.manifest().with(batch);
        if let Some(id) = batch.truncate_after {
            let lowest = manifest.truncated.map_or(id.index, |(_, lowest)| lowest.min(id.index));
            manifest.truncated = Some((self.log.next_segment(), lowest));
        }
        self.manifests.store(disk, manifest)?;
        if batch.truncate_after.is_some() || !batch.entries.is_empty() {
            let identity = self.manifests.current().identity;
            self.log.write(disk, identity, batch)?;
            self.note_newest(disk)?;
        }
        if batch.abstention == Some(None) {
            self.log.drop_given_up(disk)?;
        }
        Ok(())
    }

    fn publish(&mut self, disk: &mut dyn Disk, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        self.snapshots.publish(disk, snapshot)?;
        self.note_newest(disk)?;
        self.snapshots.clear(disk)
    }

    /// Drops of the log what is neither needed by anyone nor by the oldest snapshot.
    fn compact(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        match self.snapshots.oldest() {
            Some(oldest) => self.log.compact(disk, self.compactable.min(oldest.index)),
            None => Ok(()),
        }
    }

    /// The manifest as it should be.
    fn manifest(&self) -> Manifest {
        let current = self.manifests.current();
        let (segment, segment_base) = self.log.newest_segment();
        // One that is lost is missed until another takes its place.
        let newest = (segment > current.segment).then_some((segment, segment_base));
        let (segment, segment_base) = newest.unwrap_or((current.segment, current.segment_base));
        // A crash may have come between publishing one and naming it here.
        let known = self.snapshots.newest().map(|meta| meta.last).into_iter().chain(current.snapshot);
        let known = known.max_by_key(|last| (last.index, last.term));
        let snapshot = self.snapshots.published().or(known);
        let truncated = current.truncated.filter(|(segment, _)| *segment >= self.log.oldest_segment());
        Manifest { truncated, segment, segment_base, snapshot, ..current.clone() }
    }

    /// Has the manifest name the newest segment and snapshot, so that they are missed if they are lost.
    fn note_newest(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let manifest = self.manifest();
        if manifest == *self.manifests.current() {
            return Ok(());
        }
        match self.manifests.store(disk, manifest) {
            // What it is about is durable without it. The next write comes back to it.
            Err(StorageError::Full(_)) => Ok(()),
            result => result,
        }
    }
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
        let result = self.run(|disk, open| open.write(disk, batch));
        if Mutant::B03.active() && batch.hard_state.is_some_and(|state| state.voted_for.is_some()) {
            return Ok(());
        }
        result
    }

    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        self.run(|disk, open| open.publish(disk, snapshot))
    }

    fn compact(&mut self, through: Index) -> Result<(), StorageError> {
        self.run(|disk, open| {
            open.compactable = open.compactable.max(through);
            open.compact(disk)
        })
    }

    fn has_room(&mut self) -> Result<bool, StorageError> {
        self.run(|disk, open| {
            if open.log.fill_reserve(disk)? {
                return Ok(true);
            }
            // Of two snapshots, the older is a precaution that can be done without, and so is the log that only it needs.
            open.snapshots.drop_older(disk)?;
            open.compact(disk)?;
            open.log.fill_reserve(disk)
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
