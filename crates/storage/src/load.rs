//! A published snapshot, read back as a whole.

use atomix_protocol::peer::SnapshotMeta;
use bytes::{Bytes, BytesMut};

use crate::{StorageError, StorageReader};

/// How much of a snapshot is read at once.
const READ_BYTES: usize = 1 << 20;

/// The whole of a published snapshot, verified: what rots after it was published is not handed on.
///
/// # Errors
/// If the device refused, or the snapshot is not what its description says.
pub fn load(reader: &mut dyn StorageReader, meta: &SnapshotMeta) -> Result<Bytes, StorageError> {
    let mut whole = BytesMut::new();
    while (whole.len() as u64) < meta.size {
        let left = usize::try_from(meta.size - whole.len() as u64).unwrap_or(usize::MAX);
        match reader.snapshot(meta.last, whole.len() as u64, left.min(READ_BYTES))? {
            Some(data) if !data.is_empty() => whole.extend_from_slice(&data),
            _ => {
                let (missing, last) = (meta.size - whole.len() as u64, meta.last);
                return Err(StorageError::Corrupt(format!("the snapshot at {last} lacks {missing} bytes")));
            }
        }
    }
    if crc32c::crc32c(&whole) != meta.checksum {
        return Err(StorageError::Corrupt(format!("the snapshot at {} does not verify", meta.last)));
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{ClusterTime, Configuration, EntryId, Index, Term};

    use super::*;
    use crate::{MemoryStorage, Storage};

    #[test]
    fn only_what_its_description_says_is_handed_out() {
        let data = b"state";
        let meta = SnapshotMeta {
            last: EntryId::new(Term(2), Index(5)),
            size: data.len() as u64,
            checksum: crc32c::crc32c(data),
            time: ClusterTime::ZERO,
            configuration: Configuration::default(),
        };
        let mut storage = MemoryStorage::new();
        let mut writer = storage.snapshot_writer().expect("memory");
        writer.begin(meta.last).and_then(|()| writer.write(data)).expect("memory");
        writer.finish(&meta).and_then(|()| storage.publish(&meta)).expect("verified");
        let mut reader = storage.reader().expect("memory");
        assert_eq!(load(&mut *reader, &meta), Ok(Bytes::from_static(data)));
        for wrong in [
            SnapshotMeta { size: 6, ..meta.clone() },
            SnapshotMeta { size: 4, ..meta.clone() },
            SnapshotMeta { checksum: 1, ..meta.clone() },
            SnapshotMeta { last: EntryId::new(Term(2), Index(4)), ..meta },
        ] {
            let loaded = load(&mut *reader, &wrong);
            assert!(matches!(loaded, Err(StorageError::Corrupt(_))), "{wrong:?}: {loaded:?}");
        }
    }
}
