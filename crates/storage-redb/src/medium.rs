//! The file as redb sees it. redb says of an error only that there was one, to whoever comes later: this remembers which.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use atomix_storage::StorageError;
use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

/// Why the file failed, if it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<StorageError>>>);

impl Fault {
    /// What failed; the worst, if more than one thing did.
    pub(crate) fn seen(&self) -> Option<StorageError> {
        self.0.lock().clone()
    }

    fn note(&self, what: &str, error: &io::Error) {
        // Only a write may be tried again: after a sync that failed, nobody knows what is on the disk (D5).
        let no_room = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let text = format!("can't {what} the database: {error}");
        let mut seen = self.0.lock();
        if no_room && what != "sync" {
            seen.get_or_insert(StorageError::Full(text));
        } else if !matches!(&*seen, Some(StorageError::Failed(_))) {
            *seen = Some(StorageError::Failed(text));
        }
    }
}

/// A file that remembers why it failed.
#[derive(Debug)]
pub(crate) struct Medium {
    file: Box<dyn StorageBackend>,
    fault: Fault,
}

impl Medium {
    pub(crate) fn new(file: Box<dyn StorageBackend>) -> (Medium, Fault) {
        let fault = Fault::default();
        (Medium { file, fault: fault.clone() }, fault)
    }

    fn noting<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.fault.note(what, error))
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.noting("read", self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noting("read", self.file.read(offset, out))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.noting("extend", self.file.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noting("sync", self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noting("write", self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
