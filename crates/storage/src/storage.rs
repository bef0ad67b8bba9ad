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
    /// The last one written and not cleared; or, if the log was found damaged, the highest entry that may have been acknowledged, where
    /// that is greater (D4).
    pub abstention: Option<Index>,
    /// The newest published snapshot that verifies.
    pub snapshot: Option<SnapshotMeta>,
    /// What was found damaged, and where, in plain words for an operator; empty if all was well. If acknowledged entries may be among
    /// what is damaged, [`abstention`](Recovered::abstention) stands, durably, before this is returned.
    pub damage: Vec<String>,
}

/// Everything that one server must find again after a crash.
///
/// # For implementers
///
/// **Who calls, and when.** The server's storage thread, and no other: one call at a time, in the order in which consensus asked. First
/// [`recover`](Storage::recover), once; right after it one [`snapshot_writer`](Storage::snapshot_writer) and one
/// [`reader`](Storage::reader), which go to a thread each; from then on the others in any order. A call may block for as long as the
/// device takes, but not on what a side object is doing: commits wait for [`write`](Storage::write).
///
/// **What is durable.** Whatever a call was to change is durable when it returns `Ok`, as is everything before it. A crash before that may
/// leave any call done or not done; of a [`write`](Storage::write) also a prefix. Nothing is ever half done.
///
/// **What an error means.** Two are not final: [`StorageError::Full`], after which the same call or others may come, and
/// [`StorageError::BadSnapshot`]; but for what [`write`](Storage::write) says of itself they change nothing. After any other no method is called any more, and what that call was to change may be durable or
/// not: the server stops serving (D5). An implementation never tries again by itself what the device refused, a sync least of all.
///
/// **When it ends.** It is dropped, in any order with its side objects, on any thread; nothing needs to be written then. As long as any of
/// them lives, nobody else may open the same data ([`StorageError::InUse`]), and a process that is killed leaves no lock behind.
///
/// What is broken on purpose is not asked of it: consensus hands over batches that continue the log, and compacts what a snapshot covers. A
/// batch that does not is a bug there, and worth a panic, which stops the server.
///
/// `testkit::conformance::storage` holds an implementation to all this.
pub trait Storage: Send {
    /// Reads what is there. Called once, before anything else. Opening the data, locking it and verifying it may be left to this call.
    ///
    /// `entry` gets every entry after the newest snapshot in ascending order of index, truncations already applied, with no gap: the
    /// first has index `snapshot.last.index + 1` (or 1). Entries that conflict with the snapshot (the log holds another
    /// term at its index, or does not reach it) are not handed out, and are part of the log no more: it goes on right after the
    /// snapshot. The log may have many more entries than fit in memory: they are handed over one by one.
    ///
    /// Of a damaged log or snapshot (D3) everything up to the damage is handed out, and abstention is durable before this returns, or, on a
    /// full disk, before anything else is written: until then the next start finds the damage again. What was there behind it is never
    /// handed out again, and comes back from a leader. Damage is what a crash can't explain: a batch that was being written when the power
    /// failed may be missing, or its end, and that is none. An implementation that can't tell how far its data is sound refuses all of it.
    ///
    /// What recovery repairs it repairs durably: a crash in the middle, or right after, changes nothing of what the next one finds.
    ///
    /// # Errors
    /// [`StorageError::InUse`], [`StorageError::Unusable`], [`StorageError::Foreign`], [`StorageError::OtherVersion`]: nothing was changed.
    /// [`StorageError::Corrupt`] if it is damaged in a way that only new data mends: identity or hard state are lost.
    /// [`StorageError::Failed`] if it can't be read.
    fn recover(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError>;

    /// Writes a batch. Durable on return, all of it. After a crash before the return, a prefix of it in the order of its
    /// fields, entries one by one. The next batch comes only after the return.
    ///
    /// # Errors
    /// [`StorageError::Full`] if there is no room: nothing of it counts but what stands before its truncation and entries, which may or may not be
    /// durable. The next batch need not be the same: a term and a vote do not wait for the room that entries need, and should find it without.
    /// Any other: it is not known to be durable, and nothing may be written after that (D5).
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError>;

    /// Makes a finished snapshot the newest one, durably. The log stays as it is: what the snapshot covers goes with
    /// [`Storage::compact`], what conflicts with it with [`WriteBatch::truncate_after`]. One that ends where the newest does takes
    /// its place.
    ///
    /// The one before is better kept than dropped, together with the log behind it: should the newest be damaged, nothing is lost.
    ///
    /// # Errors
    /// [`StorageError::BadSnapshot`] if no finished snapshot of that description exists, or a published one is newer: nothing has
    /// changed. [`StorageError::Full`] if there is no room: it is still finished. Else it is not known to be durable.
    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError>;

    /// Allows everything through `through` to be dropped from the log, as far as a published snapshot covers it. May keep more.
    ///
    /// # Errors
    /// [`StorageError::Full`] if there was no room for as much as that: called again later. Else if the device refused.
    fn compact(&mut self, through: Index) -> Result<(), StorageError>;

    /// Whether there is room for more than what is kept in reserve (D5). While there is none, the server takes no commands; what it
    /// must write all the same lives on the reserve. Called after each write as long as it says yes, so that this should cost nothing, about once a
    /// second, and after each [`StorageError::Full`]: the moment to fill up the reserve again. A storage without a reserve says yes.
    ///
    /// # Errors
    /// If the device refused for another reason than room.
    fn has_room(&mut self) -> Result<bool, StorageError> {
        Ok(true)
    }

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
///
/// Called by one thread, beside the storage thread; neither waits for more than a single call of the other. Between `finish` and the
/// moment at which the storage thread publishes, `begin` may come: the finished one is gone then, and publishing it is refused. What is not
/// published is gone after a restart.
///
/// [`StorageError::Full`] is not final: what was begun is dropped, and `begin` may come again. [`StorageError::BadSnapshot`] is not either.
/// After any other error nothing more is called.
pub trait SnapshotWriter: Send {
    /// Begins a snapshot; whatever an earlier `begin` left unfinished or unpublished is dropped. A crash may come at any time: this
    /// need not be durable.
    ///
    /// # Errors
    /// If the device refused.
    fn begin(&mut self, last: EntryId) -> Result<(), StorageError>;

    /// Appends bytes to it, any number of them. Need not be durable, but should be on its way to the device: the log's syncs, which commits
    /// wait for, must not stand behind a whole snapshot at its end.
    ///
    /// # Errors
    /// [`StorageError::BadSnapshot`] if nothing was begun. Else the device refused.
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError>;

    /// Ends it: durable on return, but invisible until published. `meta.last` must be what was begun, `meta.size` and `meta.checksum` those
    /// of the bytes written.
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
///
/// Called by one thread; a call may block, and does not hold up the storage thread. What a call finds existed at one moment between its
/// beginning and its end: entries that follow one another in one log, bytes of one snapshot. *Not there* is an ordinary answer, also if
/// it went while it was read; damage is an error.
pub trait StorageReader: Send {
    /// Entries from `from` on, through `through`, as many as fit in `bytes` of [`Entry::weight`] but at least one. `None` if
    /// `from` was compacted or is not there: an ordinary answer (R5).
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if they are damaged: they are not handed out. Else the device refused.
    fn entries(
        &mut self,
        from: Index,
        through: Index,
        bytes: u64,
    ) -> Result<Option<Vec<Entry>>, StorageError>;

    /// At most `bytes` of a published snapshot from `offset` on, and none only at its end. `None` if that snapshot is gone, or shorter than
    /// `offset`. Every published snapshot that recovery has named, and every one since, can be read until a newer one is published; longer
    /// if it is kept.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if they are damaged: they are not handed out. Else the device refused.
    fn snapshot(&mut self, last: EntryId, offset: u64, bytes: usize) -> Result<Option<Bytes>, StorageError>;
}
