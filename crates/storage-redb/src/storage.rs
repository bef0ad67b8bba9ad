//! The storage thread's side: a transaction for each call.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, EntryId, GroupId, Index, WriteBatch};
use atomix_storage::{Recovered, SnapshotWriter, Storage, StorageError, StorageReader};
use parking_lot::Mutex;
use redb::{ReadableTable, Table, WriteTransaction};

use crate::RedbOptions;
use crate::database::{Problem, Shared};
use crate::directory::{Directory, Home};
use crate::reader::RedbReader;
use crate::recovery::{self, Found};
use crate::snapshot::{self, RedbSnapshotWriter, Shelf};
use crate::tables::{
    ABSTENTION, BASE, CONFIGURATION, HARD_STATE, IDENTITY, LOG, META, decode, decode_entry, encode,
    encode_entry,
};

/// Entries that compaction removes in one transaction: a write waits for one at most.
const COMPACTED_AT_ONCE: u64 = 16_384;

/// Everything of one server in one database file.
pub struct RedbStorage {
    shared: Arc<Shared>,
    shelf: Arc<Mutex<Shelf>>,
    /// The log's last entry, or the one that it begins after. `None` before recovery.
    last: Option<EntryId>,
    /// Set by the first failure; nothing is written after it (D5).
    failed: Option<StorageError>,
    /// A batch that did not count for want of room may be in the database all the same, behind the log's end.
    doubtful: bool,
}

impl fmt::Debug for RedbStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStorage")
            .field("last", &self.last)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl RedbStorage {
    /// Takes a data directory, creating it and what leads to it, and locks it against other processes until this and all its side objects
    /// are dropped, or the process ends in whatever way. The database is opened, or made, by [`Storage::recover`].
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another process has it, [`StorageError::Unusable`] if it can't be created or written.
    pub fn open(directory: impl AsRef<Path>, options: RedbOptions) -> Result<RedbStorage, StorageError> {
        let directory = Directory::open(directory.as_ref(), options.reserve_bytes)?;
        Ok(RedbStorage::over(Box::new(directory), options.cache_bytes))
    }

    pub(crate) fn over(home: Box<dyn Home>, cache_bytes: usize) -> RedbStorage {
        let shared = Arc::new(Shared::new(home, cache_bytes));
        RedbStorage { shared, shelf: Arc::default(), last: None, failed: None, doubtful: false }
    }

    /// Runs what may fail for good.
    fn run<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = call(self);
        if let Err(error) = &result
            && !matches!(error, StorageError::Full(_) | StorageError::BadSnapshot(_))
        {
            self.failed = Some(error.clone());
        }
        result
    }

    fn last(&self) -> EntryId {
        self.last.expect("storage is recovered before anything else is asked of it")
    }
}

/// The log's last entry after the batch.
fn check(batch: &WriteBatch, mut last: EntryId) -> EntryId {
    assert_eq!(batch.group, GroupId::DEFAULT, "one storage holds one group");
    last = batch.truncate_after.unwrap_or(last);
    for entry in &batch.entries {
        let continues = entry.id.index == last.index.next() && entry.id.term >= last.term;
        assert!(continues, "a batch continues the log: {:?} after {last:?}", entry.id);
        last = entry.id;
    }
    last
}

fn write_fields(transaction: &WriteTransaction, batch: &WriteBatch) -> Result<(), Problem> {
    let mut meta = transaction.open_table(META)?;
    let mut put = |name: &str, value: Vec<u8>| meta.insert(name, value.as_slice()).map(drop);
    if let Some(identity) = &batch.identity {
        put(IDENTITY, encode(IDENTITY.as_bytes(), identity))?;
    }
    if let Some(configuration) = &batch.configuration {
        put(CONFIGURATION, encode(CONFIGURATION.as_bytes(), configuration))?;
    }
    if let Some(abstention) = &batch.abstention {
        put(ABSTENTION, encode(ABSTENTION.as_bytes(), abstention))?;
    }
    if let Some(hard_state) = &batch.hard_state {
        put(HARD_STATE, encode(HARD_STATE.as_bytes(), hard_state))?;
    }
    Ok(())
}

/// The log ends with this entry from here on.
fn truncate_after(
    transaction: &WriteTransaction,
    log: &mut Table<'_, u64, &[u8]>,
    id: EntryId,
) -> Result<(), Problem> {
    let holds = id == base(transaction)? || id_at(log, id.index)? == Some(id);
    if holds {
        return Ok(log.retain_in(id.index.0 + 1.., |_, _| false)?);
    }
    log.retain(|_, _| false)?;
    set_base(transaction, id)
}

/// The entry right before the log's first. Always read anew: what found no room may have come to the disk all the same.
fn base(transaction: &WriteTransaction) -> Result<EntryId, Problem> {
    let meta = transaction.open_table(META)?;
    let Some(value) = meta.get(BASE)? else { return Ok(EntryId::ZERO) };
    let base = decode(BASE.as_bytes(), value.value());
    Ok(base.ok_or_else(|| StorageError::Corrupt("where the log begins is damaged".into()))?)
}

fn set_base(transaction: &WriteTransaction, base: EntryId) -> Result<(), Problem> {
    let value = encode(BASE.as_bytes(), &base);
    transaction.open_table(META)?.insert(BASE, value.as_slice())?;
    Ok(())
}

fn id_at(log: &impl ReadableTable<u64, &'static [u8]>, index: Index) -> Result<Option<EntryId>, Problem> {
    let Some(value) = log.get(index.0)? else { return Ok(None) };
    match decode_entry(index, value.value())? {
        Some(entry) => Ok(Some(entry.id)),
        None => Err(StorageError::Corrupt(format!("log entry {index} is damaged")).into()),
    }
}

/// A batch in a transaction: all of it or nothing.
fn write_batch(
    transaction: &WriteTransaction,
    batch: &WriteBatch,
    last: EntryId,
    doubtful: bool,
) -> Result<(), Problem> {
    write_fields(transaction, batch)?;
    let mut log = transaction.open_table(LOG)?;
    if doubtful {
        log.retain_in(last.index.0 + 1.., |_, _| false)?;
    }
    if let Some(id) = batch.truncate_after {
        truncate_after(transaction, &mut log, id)?;
    }
    let mut value = Vec::new();
    for entry in &batch.entries {
        encode_entry(entry, &mut value);
        log.insert(entry.id.index.0, value.as_slice())?;
    }
    Ok(())
}

/// Removes some entries from the log's beginning; where it begins then.
fn compact_some(transaction: &WriteTransaction, through: Index) -> Result<EntryId, Problem> {
    let begin = base(transaction)?;
    let mut log = transaction.open_table(LOG)?;
    let until = through.min(begin.index.plus(COMPACTED_AT_ONCE));
    // A log that does not reach so far is emptied by a truncation, not here.
    let Some(base) = id_at(&log, until)?.filter(|_| until > begin.index) else { return Ok(begin) };
    log.retain_in(..=until.0, |_, _| false)?;
    set_base(transaction, base)?;
    Ok(base)
}

impl Storage for RedbStorage {
    fn recover(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError> {
        assert!(self.last.is_none() && self.failed.is_none(), "storage is recovered once");
        self.run(|this| {
            this.shared.open()?;
            // Not there for want of room: what is written from now on finds that too.
            this.shared.has_room()?;
            let Found { recovered, last, shelf } = recovery::recover(&this.shared, entry)?;
            this.last = Some(last);
            *this.shelf.lock() = shelf;
            Ok(recovered)
        })
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.run(|this| {
            if batch.is_empty() {
                return Ok(());
            }
            let (before, doubtful) = (this.last(), this.doubtful);
            let last = check(batch, before);
            let bytes = batch.entries.iter().map(Entry::weight).sum();
            let written =
                this.shared.write(bytes, |transaction| write_batch(transaction, batch, before, doubtful));
            this.doubtful |= matches!(written, Err(StorageError::Full(_)));
            written?;
            (this.last, this.doubtful) = (Some(last), false);
            Ok(())
        })
    }

    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        self.run(|this| snapshot::publish(&this.shared, &this.shelf, snapshot))
    }

    fn compact(&mut self, through: Index) -> Result<(), StorageError> {
        self.run(|this| {
            // The older snapshot is of use only together with the log behind it.
            let Some(oldest) = this.shelf.lock().published.first().map(|meta| meta.last.index) else {
                return Ok(());
            };
            let through = through.min(oldest);
            let mut begin = None;
            loop {
                let base = this.shared.write(0, |transaction| compact_some(transaction, through))?;
                if base.index >= through || begin.replace(base) == Some(base) {
                    return Ok(());
                }
            }
        })
    }

    fn has_room(&mut self) -> Result<bool, StorageError> {
        self.run(|this| this.shared.has_room())
    }

    fn snapshot_writer(&mut self) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.run(|this| {
            Ok(Box::new(RedbSnapshotWriter::new(this.shared.clone(), this.shelf.clone()))
                as Box<dyn SnapshotWriter>)
        })
    }

    fn reader(&mut self) -> Result<Box<dyn StorageReader>, StorageError> {
        self.run(|this| Ok(Box::new(RedbReader::new(this.shared.clone())) as Box<dyn StorageReader>))
    }
}
