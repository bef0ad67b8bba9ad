//! The manifest: everything durable of a server but its log and its state, in two copies (D1, fault D7).
//!
//! A change is written to the first copy, synced, then to the second, and synced. So a crash leaves one of them whole, and damage to
//! one of them loses nothing: the other is at least as new as anything that was acknowledged.

use atomix_protocol::{Configuration, EntryId, HardState, Identity, Index, WriteBatch, codec};
use atomix_storage::StorageError;
use serde::{Deserialize, Serialize};

use crate::Disk;
use crate::format::{Decoded, HEADER, ManifestHeader};
use crate::log::{failed, failed_or_full};
use crate::names::{self, Listing};

/// Length that a copy is made with, so that it seldom needs new space.
const COPY_BYTES: u64 = 16 << 10;

/// What the manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// `None` only before the first write ever.
    pub(crate) identity: Option<Identity>,
    pub(crate) hard_state: HardState,
    pub(crate) configuration: Option<Configuration>,
    pub(crate) abstention: Option<Index>,
    /// The newest segment of the log; zero if it has none. Never later than the segment itself, so that one that is lost is missed.
    pub(crate) segment: u64,
    /// The log's last entry when that segment began.
    pub(crate) segment_base: Index,
    /// The newest segment with a truncation, and the lowest index that any truncation in the log leaves. Never later than the
    /// truncation: what is at or before that index can be handed out as soon as it is read.
    pub(crate) truncated: Option<(u64, Index)>,
    /// The newest published snapshot. Never later than its file.
    pub(crate) snapshot: Option<EntryId>,
}

impl Manifest {
    /// With what a batch says of it.
    pub(crate) fn with(&self, batch: &WriteBatch) -> Manifest {
        Manifest {
            identity: batch.identity.or(self.identity),
            hard_state: batch.hard_state.unwrap_or(self.hard_state),
            configuration: batch.configuration.clone().or_else(|| self.configuration.clone()),
            abstention: batch.abstention.unwrap_or(self.abstention),
            ..*self
        }
    }
}

/// One copy as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    Missing,
    /// Its checksums fail.
    Damaged,
    /// Of another version of the format.
    Foreign,
    Whole(u64, Box<Manifest>),
}

/// Both copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copies(pub(crate) [Copy; 2]);

impl Copies {
    /// Reads them.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn read(disk: &mut dyn Disk, listing: &Listing) -> Result<Copies, StorageError> {
        let mut copies = [Copy::Missing, Copy::Missing];
        for (copy, (name, length)) in copies.iter_mut().zip(names::MANIFESTS.iter().zip(listing.manifests)) {
            if let Some(length) = length {
                *copy = read(disk, name, length)?;
            }
        }
        Ok(Copies(copies))
    }

    /// The newer of those that are whole.
    pub(crate) fn newest(&self) -> Option<(u64, &Manifest)> {
        let whole = self.0.iter().filter_map(|copy| match copy {
            Copy::Whole(generation, manifest) => Some((*generation, &**manifest)),
            _ => None,
        });
        whole.max_by_key(|(generation, _)| *generation)
    }

    /// Whether both are whole and the same.
    pub(crate) fn agree(&self) -> bool {
        matches!(&self.0, [Copy::Whole(one, _), Copy::Whole(other, _)] if one == other)
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.0.contains(&Copy::Foreign)
    }

    /// Whether nothing can ever have been acknowledged: the second copy is made once the first is whole and durable.
    pub(crate) fn is_unborn(&self) -> bool {
        self.0[1] == Copy::Missing && matches!(self.0[0], Copy::Missing | Copy::Damaged)
    }
}

fn read(disk: &mut dyn Disk, name: &str, length: u64) -> Result<Copy, StorageError> {
    let mut read = |at, buffer: &mut [u8]| disk.read_at(name, at, buffer).map_err(failed("read", name));
    let mut header = [0; HEADER];
    if read(0, &mut header)? < HEADER {
        return Ok(Copy::Damaged);
    }
    let header = match ManifestHeader::decode(&header) {
        Decoded::Valid(header) if HEADER as u64 + u64::from(header.length) <= length => header,
        Decoded::Foreign => return Ok(Copy::Foreign),
        _ => return Ok(Copy::Damaged),
    };
    let mut payload = vec![0; header.length as usize];
    let got = read(HEADER as u64, &mut payload)?;
    if got < payload.len() || crc32c::crc32c(&payload) != header.payload_crc {
        return Ok(Copy::Damaged);
    }
    // Its checksum holds: whoever wrote it means something else by it.
    Ok(codec::from_bytes(&payload)
        .map_or(Copy::Foreign, |manifest| Copy::Whole(header.generation, Box::new(manifest))))
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Manifests {
    current: Manifest,
    generation: u64,
    /// Which of the files exist.
    exist: [bool; 2],
    /// The copy to write first. Invariant: while it is being written, the other one is whole.
    first: usize,
    /// Whether both say what is current, durably.
    settled: bool,
    /// The copy that recovery went by and what it says, while it, or an equal other one, may not be on the disk: whoever wrote it may have
    /// ended before its sync.
    unsure: Option<(usize, u64, Manifest)>,
}

impl Manifests {
    /// Goes on with what was found.
    pub(crate) fn resume(copies: &Copies) -> Manifests {
        let exist = [copies.0[0] != Copy::Missing, copies.0[1] != Copy::Missing];
        let Some((generation, manifest)) = copies.newest() else {
            let current = Manifest::default();
            return Manifests { current, generation: 0, exist, first: 0, settled: false, unsure: None };
        };
        let newest = |copy: &Copy| matches!(copy, Copy::Whole(of, _) if *of == generation);
        let first = usize::from(newest(&copies.0[0]));
        let unsure = Some((1 - first, generation, manifest.clone()));
        Manifests { current: manifest.clone(), generation, exist, first, settled: copies.agree(), unsure }
    }

    pub(crate) fn current(&self) -> &Manifest {
        &self.current
    }

    /// Writes a change, if it is one, or if that is not sure to be durable. Durable on return, in both copies.
    ///
    /// # Errors
    /// [`StorageError::Full`] if there was no room: one copy is whole and says what was, or what was to be. Else if the device refused.
    pub(crate) fn store(&mut self, disk: &mut dyn Disk, manifest: Manifest) -> Result<(), StorageError> {
        if manifest == self.current && self.settled {
            return self.assure(disk);
        }
        self.settled = false;
        self.write(disk, &manifest)?;
        self.settled = true;
        self.current = manifest;
        Ok(())
    }

    /// Makes two copies that were found to agree durable, if that was not done: one may be in the system's cache only, if whoever wrote it
    /// ended before its sync, or by it. The same bytes again: a change of both would, in the middle, leave one of them whole.
    fn assure(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        if let Some((_, generation, found)) = &self.unsure {
            for name in names::MANIFESTS {
                put(disk, name, *generation, found)?;
            }
            disk.sync_dir().map_err(failed("sync", "the data directory"))?;
            self.unsure = None;
        }
        Ok(())
    }

    /// Takes what there was no room for as current. It is written with the next change, before anything that comes after it.
    pub(crate) fn owe(&mut self, manifest: Manifest) {
        (self.current, self.settled) = (manifest, false);
    }

    fn write(&mut self, disk: &mut dyn Disk, manifest: &Manifest) -> Result<(), StorageError> {
        if let Some((copy, generation, found)) = &self.unsure {
            // The other one is about to be written, and must not be the only one that was whole. The same bytes again: that can't tear
            // anything, and a sync alone would not write what a sync that failed has left in the system's cache.
            put(disk, names::MANIFESTS[*copy], *generation, found)?;
            disk.sync_dir().map_err(failed("sync", "the data directory"))?;
            self.unsure = None;
        }
        // A generation is never given to two contents: one that was written in part may be found.
        self.generation += 1;
        for copy in [self.first, 1 - self.first] {
            let name = names::MANIFESTS[copy];
            if !self.exist[copy] {
                disk.allocate(name, COPY_BYTES).map_err(failed_or_full("create", name))?;
            }
            put(disk, name, self.generation, manifest)?;
            if !self.exist[copy] {
                disk.sync_dir().map_err(failed("sync", "the data directory"))?;
                self.exist[copy] = true;
            }
            // Should there be no room for the other one, that is to be written before this one is touched again.
            self.first = 1 - copy;
        }
        Ok(())
    }
}

/// Writes one copy, durably.
fn put(disk: &mut dyn Disk, name: &str, generation: u64, manifest: &Manifest) -> Result<(), StorageError> {
    let payload = codec::to_bytes(manifest);
    let length = u32::try_from(payload.len()).expect("a configuration is bounded far below 4 GiB");
    let header = ManifestHeader { generation, length, payload_crc: crc32c::crc32c(&payload) };
    disk.write_at(name, 0, &[&header.encode(), &payload]).map_err(failed_or_full("write", name))?;
    disk.sync(name).map_err(failed("sync", name))
}
