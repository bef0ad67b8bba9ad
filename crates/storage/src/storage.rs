//! The storage traits (D1).

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Configuration, Entry, EntryId, HardState, Identity, Index, WriteBatch};
use bytes::Bytes;

use crate::StorageError;

/// What [`Storage::recover`] found, apart from the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// `None` on a fresh directory.
    pub identity: Option<Identity>,
    /// The last one written.
    pub hard_state: HardState,
    /// The last one written.
    pub configuration: Option<Configuration>,
    /// The last one written and not cleared (D4).
    pub abstention: Option<Index>,
    /// The newest published snapshot that verifies.
    pub snapshot: Option<SnapshotMeta>,
}

/// Everything that one server must find again after a crash.
///
/// Called by one thread, the storage thread, in the order in which consensus asked. No call is retried: an error other than
/// [`StorageError::Full`] is final, and nothing is called after it. The data can be opened again once this and its side objects are
/// dropped.
pub trait Storage: Send {
    /// Reads what is there. Called once, before anything else.
    ///
    /// `entry` gets every entry after the newest snapshot in ascending order of index, truncations already applied, with no gap: the
    /// first has index `snapshot.last.index + 1` (or 1). Entries that conflict with the snapshot (the log holds another
    /// term at its index, or does not reach it) are not handed out, and are part of the log no more: it goes on right after the
    /// snapshot.
    ///
    /// # Errors
    /// If the data can't be read, is damaged (D3), or is not ours.
    fn recover(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError>;

    /// Writes a batch. Durable on return, all of it. After a crash before the return, a prefix of it in the order of its
    /// fields, entries one by one.
    ///
    /// # Errors
    /// If it is not known to be durable. Nothing may be written after that (D5).
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError>;

    /// Makes a finished snapshot the newest one, durably. The log stays as it is: what the snapshot covers goes with
    /// [`Storage::compact`], what conflicts with it with [`WriteBatch::truncate_after`].
    ///
    /// # Errors
    /// [`StorageError::BadSnapshot`] if no finished snapshot of that description exists, or a published one is newer: nothing has
    /// changed. Else it is not known to be durable.
    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError>;

    /// Allows everything through `through` to be dropped from the log, as far as a published snapshot covers it. May keep more.
    ///
    /// # Errors
    /// If the device refused.
    fn compact(&mut self, through: Index) -> Result<(), StorageError>;

    /// The side object that writes snapshots, for the thread that does so. One at a time exists.
    ///
    /// # Errors
    /// If the device refused.
    fn snapshot_writer(&mut self) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// The side object that reads, for the thread that does so. It sees what was durable when a call began, or later.
    ///
    /// # Errors
    /// If the device refused.
    fn reader(&mut self) -> Result<Box<dyn StorageReader>, StorageError>;
}

/// Writes one snapshot at a time: `begin`, `write` until all is there, `finish`; then [`Storage::publish`].
pub trait SnapshotWriter: Send {
    /// Begins a snapshot; whatever an earlier `begin` left unfinished or unpublished is dropped.
    ///
    /// # Errors
    /// If the device refused.
    fn begin(&mut self, last: EntryId) -> Result<(), StorageError>;

    /// Appends bytes to it.
    ///
    /// # Errors
    /// If the device refused, or nothing was begun.
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError>;

    /// Ends it: durable on return, but invisible until published. `meta.size` and `meta.checksum` must be those of the bytes written.
    ///
    /// # Errors
    /// [`StorageError::BadSnapshot`] if they are not: what was written is dropped.
    fn finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError>;

    /// The snapshot that was begun and is neither finished nor dropped.
    fn writing(&self) -> Option<EntryId>;

    /// Bytes written since `begin`, and their CRC-32C.
    fn written(&self) -> (u64, u32);
}

/// Reads what is durable, beside the storage thread.
pub trait StorageReader: Send {
    /// Entries from `from` on, through `through`, as many as fit in `bytes` of [`Entry::weight`] but at least one. `None` if
    /// `from` was compacted or is not there: an ordinary answer (R5).
    ///
    /// # Errors
    /// If the device refused or the data is damaged.
    fn entries(
        &mut self,
        from: Index,
        through: Index,
        bytes: u64,
    ) -> Result<Option<Vec<Entry>>, StorageError>;

    /// At most `bytes` of a published snapshot from `offset` on. `None` if that snapshot is gone.
    ///
    /// # Errors
    /// If the device refused or the data is damaged.
    fn snapshot(&mut self, last: EntryId, offset: u64, bytes: usize) -> Result<Option<Bytes>, StorageError>;
}
