//! A history of one disk, for a bug that draws of seeds seldom meet.

use atomix_protocol::{
    ClusterTime, Entry, EntryId, EntryKind, Identity, Incarnation, Index, Term, WriteBatch,
};
use atomix_storage::{Recovered, Storage, StorageError};
use atomix_storage_file::FileStorage;
use bytes::Bytes;

use super::disk::SimDisk;
use super::storage::file_options;

const SEGMENT_BYTES: u64 = 16 << 10;
const MARK: &str = "mark";

/// A mark is never synced: after a power cut it may be any that there was. One from before a truncation names a longer log than there is, and
/// that is no damage.
///
/// # Errors
/// What is wrong, beginning with the checker's name.
pub fn a_mark_from_before_a_truncation() -> Result<(), String> {
    let disk = SimDisk::default();
    let aged = write_and_truncate(&disk).map_err(|error| format!("I15: it can't be written: {error}"))?;
    let mut image = disk.image.lock();
    let inode = image.names.get(MARK).copied();
    let file = inode.and_then(|inode| image.files.get_mut(&inode)).ok_or("I15: there is no mark")?;
    if file.data == aged {
        return Err("I15: the mark does not follow the log".into());
    }
    file.data = aged;
    drop(image);
    let (found, last) = recover(&disk).map_err(|error| format!("I15: it does not come up: {error}"))?.1;
    if found.abstention.is_some() || !found.damage.is_empty() {
        return Err(format!(
            "L5: abstains until {:?} for {:?}, and nothing was damaged",
            found.abstention, found.damage
        ));
    }
    let expected = Some(EntryId::new(Term(2), Index(3)));
    if last == expected { Ok(()) } else { Err(format!("I15: the log ends with {last:?}, not {expected:?}")) }
}

/// What the mark says before the last write, which makes the log shorter.
fn write_and_truncate(disk: &SimDisk) -> Result<Vec<u8>, StorageError> {
    let (mut storage, _) = recover(disk)?;
    let identity = Some(Identity { incarnation: Incarnation(1) });
    storage.write(&WriteBatch { identity, ..WriteBatch::default() })?;
    storage.write(&WriteBatch {
        entries: (1..=5).map(|index| entry(1, index)).collect(),
        ..WriteBatch::default()
    })?;
    let image = disk.image.lock();
    let inode = image.names.get(MARK).copied();
    let aged =
        inode.and_then(|inode| image.files.get(&inode)).map_or_else(Vec::new, |file| file.data.clone());
    drop(image);
    let truncate_after = Some(EntryId::new(Term(1), Index(2)));
    storage.write(&WriteBatch { truncate_after, entries: vec![entry(2, 3)], ..WriteBatch::default() })?;
    Ok(aged)
}

type Found = (Recovered, Option<EntryId>);

/// What is there, with the log's last entry.
fn recover(disk: &SimDisk) -> Result<(FileStorage, Found), StorageError> {
    let mut storage = FileStorage::open(Box::new(disk.clone()), file_options(SEGMENT_BYTES))?;
    let mut last = None;
    let recovered = storage.recover(&mut |entry| last = Some(entry.id))?;
    Ok((storage, (recovered, last)))
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        id: EntryId::new(Term(term), Index(index)),
        time: ClusterTime(0),
        kind: EntryKind::NoOp,
        payload: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn d3_a_mark_from_before_a_truncation_says_nothing_of_damage() {
        assert_eq!(super::a_mark_from_before_a_truncation(), Ok(()));
    }
}
