//! Transactions on a database that may have to be opened anew: after an error of its file redb takes nothing more (D5).

use std::sync::atomic::{AtomicBool, Ordering};

use atomix_storage::StorageError;
use parking_lot::RwLock;
use redb::{
    Builder, CommitError, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend,
    TableError, TransactionError, WriteTransaction,
};

use crate::directory::Home;
use crate::medium::{Fault, Medium};
use crate::tables::{FORMAT, FORMAT_VERSION, LOG, META, PIECES, SNAPSHOTS, seal, unseal};

/// What a transaction needs beyond the bytes that it writes, as far as can be said: rewritten pages from leaf to root.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// Why a transaction failed.
#[derive(Debug)]
pub(crate) enum Problem {
    /// redb says so.
    Database(Box<redb::Error>),
    /// We do.
    Ours(StorageError),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Problem {
            fn from(error: $error) -> Self {
                Problem::Database(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(redb::StorageError, TableError, TransactionError, CommitError, DatabaseError);

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        Problem::Ours(error)
    }
}

/// The database of one server, for all its threads.
#[derive(Debug)]
pub(crate) struct Shared {
    home: Box<dyn Home>,
    cache_bytes: usize,
    /// `None` before recovery, and while it can't be opened anew. Locked for writing only to open it: transactions share it.
    open: RwLock<Option<Open>>,
    /// Whether the last write found no room.
    full: AtomicBool,
}

#[derive(Debug)]
struct Open {
    database: Database,
    fault: Fault,
}

impl Shared {
    pub(crate) fn new(home: Box<dyn Home>, cache_bytes: usize) -> Self {
        Shared { home, cache_bytes, open: RwLock::new(None), full: AtomicBool::new(false) }
    }

    /// Opens the database, unless it is open and sound. Verifies every page.
    ///
    /// # Errors
    /// If it can't be opened, or has failed for good.
    pub(crate) fn open(&self) -> Result<(), StorageError> {
        let mut open = self.open.write();
        match open.as_ref().map(|open| open.fault.seen()) {
            // Whoever came first has done it.
            Some(None) => return Ok(()),
            None | Some(Some(StorageError::Full(_))) => {}
            Some(Some(error)) => return Err(error),
        }
        // Its lock would be in the way.
        *open = None;
        let file = self.home.file(&mut |file| format(file, self.cache_bytes))?;
        *open = Some(open_database(file, self.cache_bytes)?);
        Ok(())
    }

    /// Reads in one transaction: what was durable when it began.
    pub(crate) fn read<T>(
        &self,
        mut run: impl FnMut(&ReadTransaction) -> Result<T, Problem>,
    ) -> Result<T, StorageError> {
        let read = self.with(|database| run(&database.begin_read()?));
        if !matches!(read, Err(StorageError::Full(_))) {
            return read;
        }
        // A write found no room, on whatever thread: nothing is wrong with what is there.
        self.open()?;
        self.with(|database| run(&database.begin_read()?))
    }

    /// Writes in one transaction, durable on return, of about so many bytes. If there is no room but in the reserve, that is used.
    ///
    /// # Errors
    /// [`StorageError::Full`] if nothing counts, and the same may be written again: `run` then meets what it wrote, or does not.
    pub(crate) fn write<T>(
        &self,
        bytes: u64,
        mut run: impl FnMut(&WriteTransaction) -> Result<T, Problem>,
    ) -> Result<T, StorageError> {
        // To find that there is still no room costs redb all that opening it anew costs.
        if self.full.load(Ordering::Relaxed) {
            let needed = bytes.saturating_mul(2).saturating_add(OVERHEAD_BYTES);
            if !self.home.has_space(needed) && !self.home.release_reserve() {
                return Err(StorageError::Full(format!("less than {needed} bytes are free")));
            }
        }
        let mut result = self.write_once(&mut run);
        if matches!(result, Err(StorageError::Full(_))) && self.home.release_reserve() {
            result = self.write_once(&mut run);
        }
        self.full.store(matches!(result, Err(StorageError::Full(_))), Ordering::Relaxed);
        result
    }

    fn write_once<T>(
        &self,
        run: &mut impl FnMut(&WriteTransaction) -> Result<T, Problem>,
    ) -> Result<T, StorageError> {
        self.open()?;
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let result = run(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    /// Whether the reserve is whole, or was made so.
    pub(crate) fn has_room(&self) -> Result<bool, StorageError> {
        let room = self.home.keep_reserve()?;
        if room {
            self.full.store(false, Ordering::Relaxed);
        }
        Ok(room)
    }

    fn with<T>(&self, run: impl FnOnce(&Database) -> Result<T, Problem>) -> Result<T, StorageError> {
        let open = self.open.read();
        // It could not be opened anew for want of room: whoever asks next tries again.
        let Some(open) = &*open else { return Err(StorageError::Full("the database is closed".into())) };
        run(&open.database).map_err(|problem| explain(problem, &open.fault))
    }
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
    builder
}

/// Makes an empty file a database that says what it is.
fn format(file: Box<dyn StorageBackend>, cache_bytes: usize) -> Result<(), StorageError> {
    let (medium, fault) = Medium::new(file);
    let make = || {
        let database = builder(cache_bytes).create_with_backend(medium)?;
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let version = seal(FORMAT.as_bytes(), &FORMAT_VERSION.to_le_bytes());
        transaction.open_table(META)?.insert(FORMAT, version.as_slice())?;
        transaction.open_table(LOG)?;
        transaction.open_table(SNAPSHOTS)?;
        transaction.open_table(PIECES)?;
        transaction.commit()?;
        database.close()?;
        Ok(())
    };
    make().map_err(|problem| explain(problem, &fault))
}

fn open_database(file: Box<dyn StorageBackend>, cache_bytes: usize) -> Result<Open, StorageError> {
    let (medium, fault) = Medium::new(file);
    let open = || {
        let database = builder(cache_bytes).create_with_backend(medium)?;
        check_format(&database)?;
        Ok(database)
    };
    match open() {
        Ok(database) => Ok(Open { database, fault }),
        Err(problem) => Err(explain(problem, &fault)),
    }
}

fn check_format(database: &Database) -> Result<(), Problem> {
    let not_ours = || Problem::Ours(StorageError::Foreign("the database was not written by Atomix".into()));
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(META) {
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Err(not_ours()),
        Ok(table) => table,
    };
    let found = table.get(FORMAT)?.ok_or_else(not_ours)?;
    let version = found.value().first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    match version {
        // What follows the number in a later version is not for us to say.
        Some(version) if version > FORMAT_VERSION => Err(Problem::Ours(StorageError::OtherVersion(format!(
            "the database has version {version}, and this program knows {FORMAT_VERSION}"
        )))),
        Some(FORMAT_VERSION) if unseal(FORMAT.as_bytes(), found.value()).is_some() => Ok(()),
        _ => Err(Problem::Ours(StorageError::Corrupt("the database's version is damaged".into()))),
    }
}

/// What happened. After an error of the file, that error: redb says it once, and to others only that there was one.
fn explain(problem: Problem, fault: &Fault) -> StorageError {
    let error = match problem {
        Problem::Ours(error) => return error,
        Problem::Database(error) => *error,
    };
    if let Some(seen) = fault.seen() {
        return seen;
    }
    match error {
        redb::Error::DatabaseAlreadyOpen => StorageError::InUse("the database is open elsewhere".into()),
        redb::Error::UpgradeRequired(_) => StorageError::OtherVersion(error.to_string()),
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            StorageError::Foreign(format!("not a database: {error}"))
        }
        redb::Error::Corrupted(text) => StorageError::Corrupt(text),
        error => StorageError::Failed(error.to_string()),
    }
}
