//! What needs a device that can fail, lie and lose power.

mod crash;
mod damage;
mod device;
mod faults;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{
    ClusterTime, Configuration, Entry, EntryId, EntryKind, Identity, Incarnation, Index, Term, WriteBatch,
};
use atomix_storage::{Recovered, Storage, StorageError};
use bytes::Bytes;

use crate::RedbStorage;
use device::Device;

/// Small, so that pages come and go.
const CACHE_BYTES: usize = 1 << 20;

fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

fn entry(index: u64, length: usize) -> Entry {
    let payload = Bytes::from(vec![index as u8; length]);
    Entry { id: id(1, index), time: ClusterTime(index), kind: EntryKind::Session, payload }
}

fn entries(indexes: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    indexes.into_iter().map(|index| entry(index, 100)).collect()
}

fn batch(entries: Vec<Entry>) -> WriteBatch {
    WriteBatch { entries, ..WriteBatch::default() }
}

fn identify() -> WriteBatch {
    WriteBatch { identity: Some(Identity { incarnation: Incarnation(7) }), ..WriteBatch::default() }
}

fn describe(last: EntryId, data: &[u8]) -> SnapshotMeta {
    SnapshotMeta {
        last,
        time: ClusterTime(1),
        configuration: Configuration::default(),
        size: data.len() as u64,
        checksum: crc32c::crc32c(data),
    }
}

/// A start over a device: the storage, and what it found.
type Started = (RedbStorage, Recovered, Vec<Entry>);

fn try_start(device: &Device) -> Result<Started, StorageError> {
    let mut storage = RedbStorage::over(Box::new(device.clone()), CACHE_BYTES);
    let mut found = Vec::new();
    let recovered = storage.recover(&mut |entry| found.push(entry))?;
    Ok((storage, recovered, found))
}

fn start(device: &Device) -> Started {
    try_start(device).expect("starts")
}

fn snapshot(storage: &mut RedbStorage, last: EntryId, data: &[u8]) -> SnapshotMeta {
    let mut writer = storage.snapshot_writer().expect("a snapshot writer");
    let meta = describe(last, data);
    writer.begin(last).expect("begins");
    writer.write(data).expect("takes bytes");
    writer.finish(&meta).expect("finishes");
    storage.publish(&meta).expect("publishes");
    meta
}
