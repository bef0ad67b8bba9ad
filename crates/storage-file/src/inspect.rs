//! Looks at a data directory without changing anything of it: what it holds, what is wrong and where, and what the next start will make
//! of it.
//!
//! Deliberately not inside: repair, and any decision. Both are the server's, when it starts; what it will decide is asked of the same code.
//!
//! ```
//! use atomix_protocol::{Identity, Incarnation, Index, WriteBatch};
//! use atomix_storage::Storage;
//! use atomix_storage_file::inspect::{Inspection, Verdict};
//! use atomix_storage_file::{FileOptions, FileStorage, FolderDisk};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("data");
//! let mut storage = FileStorage::open(Box::new(FolderDisk::open(&path)?), FileOptions::default())?;
//! storage.recover(&mut |_| ())?;
//! let identity = Some(Identity { incarnation: Incarnation(7) });
//! storage.write(&WriteBatch { identity, ..WriteBatch::default() })?;
//! drop(storage);
//!
//! let mut inspection = Inspection::of_directory(&path)?;
//! let report = inspection.report()?;
//! assert_eq!((report.verdict, report.row), (Verdict::Serve, "clean"));
//! assert!(report.findings.is_empty());
//! inspection.records(Index(1), Index(u64::MAX), &mut |record| println!("{record:?}"))?;
//! # Ok(())
//! # }
//! ```

mod checks;
mod records;
mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use atomix_protocol::Index;
use atomix_storage::StorageError;

use self::records::Holds;
pub use self::records::{Record, RecordKind, Standing};
pub use self::report::{ManifestCopy, Mark, Part, Place, Report, SegmentFile, SnapshotFile, SnapshotState};
use crate::folder::LOCK;
use crate::log::failed;
use crate::names::Listing;
use crate::recovery::Survey;
pub use crate::recovery::{Finding, Verdict};
use crate::{Disk, FolderDisk};

/// A data directory that is looked at. As long as this lives, no server can start in it.
pub struct Inspection {
    disk: Box<dyn Disk>,
    survey: Survey,
    /// What each segment holds.
    holds: BTreeMap<u64, Holds>,
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("row", &self.survey.row).finish_non_exhaustive()
    }
}

impl Inspection {
    /// Reads a data directory. Needs no right to write in it, and makes no file.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if a server runs in it, [`StorageError::Unusable`] if it is not there or can't be read,
    /// [`StorageError::Foreign`] if it holds no file of a server, or files that are named as if they were a server's and are not,
    /// [`StorageError::OtherVersion`] if entries are of a kind that this version does not know, [`StorageError::Failed`] if the system
    /// refused a read.
    pub fn of_directory(path: impl AsRef<Path>) -> Result<Inspection, StorageError> {
        let path = path.as_ref();
        let mut disk = FolderDisk::open_read_only(path)?;
        let files = disk.list().map_err(failed("list", "the data directory"))?;
        let locked = files.iter().any(|(name, _)| name == LOCK);
        // A server would begin there, as it would in any empty folder. Whoever asks means another.
        if !locked && Listing::of(files)? == Listing::default() {
            return Err(StorageError::Foreign("it holds no file of a server".into()));
        }
        Inspection::of(Box::new(disk))
    }

    /// The same of another kind of disk. Only [`Disk::list`] and [`Disk::read_at`] are called.
    ///
    /// # Errors
    /// As of [`Inspection::of_directory`].
    pub fn of(mut disk: Box<dyn Disk>) -> Result<Inspection, StorageError> {
        let mut survey = Survey::without_entries(&mut *disk)?;
        let (mut holds, lowest) = records::summary(&mut *disk, &survey)?;
        if lowest.is_some_and(|lowest| lowest < survey.lasting) {
            // What is handed out at a start decides here, since the manifest knows nothing of a truncation. That takes memory, as it does
            // at a start.
            survey = Survey::of(&mut *disk, &mut |_| ())?;
            (holds, _) = records::summary(&mut *disk, &survey)?;
        }
        Ok(Inspection { disk, survey, holds })
    }

    /// What was found. Reads the snapshots, all of them.
    ///
    /// # Errors
    /// [`StorageError::Failed`] if the system refused a read.
    pub fn report(&mut self) -> Result<Report, StorageError> {
        Report::new(&mut *self.disk, &self.survey, &self.holds)
    }

    /// Hands over the records whose index is `from` to `through`, segment by segment in the order in which they lie there; those that are
    /// not served among them, and marked as such. Holds one record in memory at a time, and what was read around it.
    ///
    /// # Errors
    /// [`StorageError::Failed`] if the system refused a read.
    pub fn records(
        &mut self,
        from: Index,
        through: Index,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), StorageError> {
        records::walk(&mut *self.disk, &self.survey, &mut |record| {
            if (from..=through).contains(&record.id.index) {
                each(record);
            }
        })
    }
}
