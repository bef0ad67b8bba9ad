//! What the data directory of a stopped server holds, and what is wrong with it.
//!
//! Deliberately not inside: repair. That is a server's, when it starts.
//!
//! ```no_run
//! # fn main() -> Result<(), atomix::Error> {
//! let mut inspection = atomix::inspect::directory("data/1")?;
//! for finding in inspection.report()?.findings {
//!     println!("{finding}");
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

pub use atomix_protocol::durable::REACH_UNKNOWN;
pub use atomix_protocol::{Configuration, EntryId, EntryKind, GroupId, HardState, Identity};
use atomix_storage_file::inspect;
pub use atomix_storage_file::inspect::{
    Finding, ManifestCopy, Mark, Part, Place, Record, RecordKind, Report, SegmentFile, SnapshotFile,
    SnapshotState, Standing, Verdict,
};

use crate::{Error, Index};

/// Reads a data directory. Changes nothing in it, and needs no right to; no server can start in it as long as the result lives.
///
/// # Errors
/// [`Error::DataDirectory`] if a server runs in it, if it can't be read, or if it is none: nothing in it is of a server, or is named as if
/// it were and is not.
pub fn directory(path: impl AsRef<Path>) -> Result<Inspection, Error> {
    let path = path.as_ref();
    let inner = inspect::Inspection::of_directory(path).map_err(|error| Error::opening(Some(path), error))?;
    Ok(Inspection { path: path.into(), inner })
}

/// A data directory that is looked at.
pub struct Inspection {
    path: PathBuf,
    inner: inspect::Inspection,
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Inspection {
    /// What was found. Reads the snapshots, all of them.
    ///
    /// # Errors
    /// [`Error::DataDirectory`] if the system refused a read.
    pub fn report(&mut self) -> Result<Report, Error> {
        self.inner.report().map_err(|error| Error::opening(Some(&self.path), error))
    }

    /// Hands over the records whose index is `from` to `through`, segment by segment in the order in which they lie there; those that are
    /// not served among them, and marked as such. Holds one record in memory at a time, and what was read around it.
    ///
    /// # Errors
    /// [`Error::DataDirectory`] if the system refused a read.
    pub fn records(
        &mut self,
        from: Index,
        through: Index,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), Error> {
        let read = self.inner.records(from, through, each);
        read.map_err(|error| Error::opening(Some(&self.path), error))
    }
}
