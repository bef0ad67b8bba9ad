//! One at a time uses the data.

use atomix_protocol::WriteBatch;
use atomix_storage::{Storage, StorageError};

use super::{entries, identity, index, term};

/// A place that may be in use: each call tries to open it, beside whatever the calls before have returned.
pub type Door = Box<dyn FnMut() -> Result<Box<dyn Storage>, StorageError>>;

/// Runs the part of the suite that is for places which another process could open too. `fresh` yields an empty one.
///
/// # Panics
/// If the storage breaks the contract; the message says how.
pub fn exclusive(fresh: &mut dyn FnMut() -> Door) {
    let mut door = fresh();
    let mut first = opened(&mut door).expect("nobody uses it");
    let batch =
        WriteBatch { identity: Some(identity()), entries: entries(term(1), 1..=3), ..WriteBatch::default() };
    first.write(&batch).expect("writes");
    refused(&mut door, "it is open");
    let more = WriteBatch { entries: entries(term(1), 4..=5), ..WriteBatch::default() };
    first.write(&more).expect("nothing has happened to the first");
    let (mut reader, writer) =
        (first.reader().expect("a reader"), first.snapshot_writer().expect("a snapshot writer"));
    drop(first);
    refused(&mut door, "its side objects live");
    drop(writer);
    refused(&mut door, "one of its side objects lives");
    let _ = reader.entries(index(1), index(5), u64::MAX);
    drop(reader);
    let mut found = Vec::new();
    let mut second = door().expect("it is free again");
    let recovered = second.recover(&mut |entry| found.push(entry)).expect("recovers");
    assert_eq!(recovered.identity, Some(identity()));
    assert_eq!(found, entries(term(1), 1..=5));
}

fn opened(door: &mut Door) -> Result<Box<dyn Storage>, StorageError> {
    let mut storage = door()?;
    storage.recover(&mut |_| {})?;
    Ok(storage)
}

fn refused(door: &mut Door, why: &str) {
    let second = opened(door).map(|_| ());
    assert!(matches!(second, Err(StorageError::InUse(_))), "opened though {why}: {second:?}");
}
