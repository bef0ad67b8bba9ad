//! A snapshot that comes in chunks, put together (R6).

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::SnapshotMeta;

use crate::{SnapshotWriter, StorageError};

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Written; this offset is next.
    Next(u64),
    /// Written, and it was the last: the whole is durable and verifies.
    Whole,
    /// It does not follow what is there, or the whole does not verify: to be begun anew.
    Bad,
}

/// Appends a chunk to the snapshot that is being received. Offset zero begins it anew; any other must follow what was written of the
/// very same snapshot. After the last, the whole is verified and made durable, to be published.
///
/// # Errors
/// If the device refused.
pub fn receive(
    writer: &mut dyn SnapshotWriter,
    meta: &SnapshotMeta,
    offset: u64,
    data: &[u8],
    done: bool,
) -> Result<Received, StorageError> {
    // As B35 has it, whatever the file holds is gone on with.
    let stale = Mutant::B35.active() && writer.writing().is_some();
    if offset == 0 && !stale {
        writer.begin(meta.last)?;
    }
    let follows = writer.writing() == Some(meta.last) && writer.written().0 == offset;
    if !follows && !stale {
        return Ok(Received::Bad);
    }
    writer.write(data)?;
    if !done {
        return Ok(Received::Next(offset + data.len() as u64));
    }
    match writer.finish(meta) {
        Ok(()) => Ok(Received::Whole),
        Err(StorageError::BadSnapshot(_)) => Ok(Received::Bad),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{ClusterTime, Configuration, EntryId, Index, Term};

    use super::*;
    use crate::{MemoryStorage, Storage};

    fn meta(index: u64, data: &[u8]) -> SnapshotMeta {
        SnapshotMeta {
            last: EntryId::new(Term(2), Index(index)),
            size: data.len() as u64,
            checksum: crc32c::crc32c(data),
            time: ClusterTime::ZERO,
            configuration: Configuration::default(),
        }
    }

    #[test]
    fn chunks_are_put_together_or_refused() {
        type Chunk = (u64, &'static [u8], bool, Received);
        let first: Chunk = (0, b"one", false, Received::Next(3));
        let last: Chunk = (3, b"two", true, Received::Whole);
        let histories: [&[Chunk]; 6] = [
            &[first, last],
            &[first, first, last],
            &[first, (4, b"wo", true, Received::Bad), last],
            &[first, (3, b"too", true, Received::Bad), (3, b"two", true, Received::Bad), first, last],
            &[(3, b"two", true, Received::Bad)],
            &[first, last, (6, b"", true, Received::Bad)],
        ];
        for history in histories {
            let mut writer = MemoryStorage::new().snapshot_writer().expect("memory");
            for (offset, data, done, expected) in history {
                let received = receive(&mut *writer, &meta(5, b"onetwo"), *offset, data, *done);
                assert_eq!(received, Ok(*expected), "{offset} in {history:?}");
            }
        }
    }

    #[test]
    fn a_chunk_never_follows_what_belongs_to_another_snapshot() {
        let mut writer = MemoryStorage::new().snapshot_writer().expect("memory");
        writer.begin(EntryId::new(Term(2), Index(4))).expect("memory");
        writer.write(b"own").expect("memory");
        let whole = meta(5, b"onetwo");
        assert_eq!(receive(&mut *writer, &whole, 3, b"two", true), Ok(Received::Bad), "being written");
        writer.finish(&meta(4, b"own")).expect("memory");
        assert_eq!(receive(&mut *writer, &whole, 3, b"two", true), Ok(Received::Bad), "finished");
        assert_eq!(receive(&mut *writer, &whole, 0, b"one", false), Ok(Received::Next(3)));
    }
}
