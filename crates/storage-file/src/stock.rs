//! Segments' files that are not the log's: a spare one, one that is being prepared, and the reserve for a full disk (D5).

use atomix_storage::StorageError;

use crate::log::{failed, failed_or_full};
use crate::names::{self, Listing};
use crate::{Disk, FileOptions};

/// Most bytes of the reserve. What a full server must still write is small: empty entries of new leaders, ends of sessions.
const RESERVE_BYTES: u64 = 8 << 20;

/// The files beside the log.
#[derive(Debug)]
pub(crate) struct Stock {
    segment_bytes: u64,
    spare: bool,
    /// Length of the reserve, while there is one.
    reserve: Option<u64>,
    /// The segment that the disk was told of.
    prepared: Option<u64>,
}

impl Stock {
    /// What a directory has of them. A spare segment of another length is of no use.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn resume(
        disk: &mut dyn Disk,
        options: &FileOptions,
        listing: &Listing,
    ) -> Result<Stock, StorageError> {
        let spare = listing.spare == Some(options.segment_bytes);
        if listing.spare.is_some() && !spare {
            disk.remove(names::SPARE).map_err(failed("remove", names::SPARE))?;
        }
        // One that was being made when a crash came is shorter.
        let reserve = listing.reserve.filter(|length| *length >= reserve_bytes(options.segment_bytes));
        Ok(Stock { segment_bytes: options.segment_bytes, spare, reserve, prepared: None })
    }

    /// Makes the file of a segment that holds at least `length` bytes, and returns how many it does. Its name is not durable yet.
    ///
    /// # Errors
    /// [`StorageError::Full`] if there is no room, not even in reserve.
    pub(crate) fn begin(
        &mut self,
        disk: &mut dyn Disk,
        segment: u64,
        length: u64,
    ) -> Result<u64, StorageError> {
        let name = names::segment(segment);
        let usual = length <= self.segment_bytes;
        let prepared = self.prepared.take() == Some(segment);
        if usual && self.spare && !prepared {
            disk.rename(names::SPARE, &name).map_err(failed("rename to", &name))?;
            self.spare = false;
            return Ok(self.segment_bytes);
        }
        let full = length.max(self.segment_bytes);
        match disk.allocate(&name, full).map_err(failed_or_full("create", &name)) {
            Ok(()) => Ok(full),
            Err(StorageError::Full(why)) => {
                let Some(reserve) = self.reserve.take_if(|bytes| *bytes >= length) else {
                    return Err(StorageError::Full(why));
                };
                disk.rename(names::RESERVE, &name).map_err(failed("rename to", &name))?;
                Ok(reserve)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the disk of the segment that will be begun next, unless there is a spare one.
    pub(crate) fn prepare(&mut self, disk: &mut dyn Disk, segment: u64) {
        if self.prepared.is_none() && !self.spare {
            self.prepared = Some(segment);
            disk.prepare(&names::segment(segment), self.segment_bytes);
        }
    }

    /// Takes back a segment that the log needs no more: as the spare one, or its file goes. Not durable yet.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn retire(
        &mut self,
        disk: &mut dyn Disk,
        segment: u64,
        length: u64,
    ) -> Result<(), StorageError> {
        if self.spare || length != self.segment_bytes {
            return self.discard(disk, segment);
        }
        let name = names::segment(segment);
        self.spare = true;
        disk.rename(&name, names::SPARE).map_err(failed("rename", &name))
    }

    /// Removes a segment that nothing is to be kept of. Not durable yet.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn discard(&mut self, disk: &mut dyn Disk, segment: u64) -> Result<(), StorageError> {
        let name = names::segment(segment);
        disk.remove(&name).map_err(failed("remove", &name))
    }

    /// Whether there is a reserve, or one could be made now.
    ///
    /// # Errors
    /// If the device refused for another reason than room.
    pub(crate) fn fill_reserve(&mut self, disk: &mut dyn Disk) -> Result<bool, StorageError> {
        if self.reserve.is_some() {
            return Ok(true);
        }
        let bytes = reserve_bytes(self.segment_bytes);
        match disk.set_aside(names::RESERVE, bytes).map_err(failed_or_full("create", names::RESERVE)) {
            Ok(()) => {}
            Err(StorageError::Full(_)) if self.spare => {
                disk.rename(names::SPARE, names::RESERVE).map_err(failed("rename", names::SPARE))?;
                self.spare = false;
            }
            Err(StorageError::Full(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        disk.sync_dir().map_err(failed("sync", "the data directory"))?;
        self.reserve = Some(bytes);
        Ok(true)
    }
}

const fn reserve_bytes(segment_bytes: u64) -> u64 {
    if segment_bytes < RESERVE_BYTES { segment_bytes } else { RESERVE_BYTES }
}
