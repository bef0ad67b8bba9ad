//! The data directory: one process at a time, nobody else's eyes, and room in reserve.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use atomix_storage::StorageError;
use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::fs::{FallocateFlags, fallocate};

/// Held by whoever uses the directory.
const LOCK: &str = "lock";
/// Everything there is.
const DATABASE: &str = "atomix.redb";
/// A database that is being made.
const UNFINISHED: &str = "atomix.redb.new";
/// Room for what must be written on a full disk.
const RESERVE: &str = "reserve";

/// Makes an empty file a database.
pub(crate) type Format<'a> = &'a mut dyn FnMut(Box<dyn StorageBackend>) -> Result<(), StorageError>;

/// Where the database lies.
pub(crate) trait Home: fmt::Debug + Send + Sync {
    /// The database's file. A new one gets there all at once, once it is formatted.
    fn file(&self, format: Format<'_>) -> Result<Box<dyn StorageBackend>, StorageError>;

    /// Whether so many bytes can be written: asked while the disk is full, since redb is to be spared.
    fn has_space(&self, bytes: u64) -> bool;

    /// Whether the reserve is there; makes it if there is room for it and as much again.
    fn keep_reserve(&self) -> Result<bool, StorageError>;

    /// Gives up the reserve; whether there was one.
    fn release_reserve(&self) -> bool;
}

/// A folder of this machine.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// For syncing names.
    handle: File,
    /// Held for as long as anything of the storage lives.
    _lock: File,
    reserve_bytes: u64,
}

impl Directory {
    /// Opens a directory, creating it and what leads to it, and locks it.
    pub(crate) fn open(path: &Path, reserve_bytes: u64) -> Result<Directory, StorageError> {
        let unusable = |what: &str, error: io::Error| {
            StorageError::Unusable(format!("{what} {}: {error}", path.display()))
        };
        create(path).map_err(|error| unusable("can't create the data directory", error))?;
        let handle = File::open(path).map_err(|error| unusable("can't open the data directory", error))?;
        let lock = private().create(true).truncate(false).open(path.join(LOCK));
        let lock = lock.map_err(|error| unusable("can't write in the data directory", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(unusable("can't lock the data directory", error)),
        }
        Ok(Directory { path: path.to_owned(), handle, _lock: lock, reserve_bytes })
    }

    /// Makes the database under a name that does not count, and renames it: a crash leaves all of it or nothing.
    fn create_database(&self, format: Format<'_>) -> Result<(), StorageError> {
        self.refuse_strangers()?;
        let unfinished = self.path.join(UNFINISHED);
        remove(&unfinished).map_err(failed("remove", UNFINISHED))?;
        let file = private().create_new(true).open(&unfinished).map_err(failed("create", UNFINISHED))?;
        format(backend(file)?)?;
        std::fs::rename(&unfinished, self.path.join(DATABASE)).map_err(failed("rename to", DATABASE))
    }

    /// A directory that somebody else has written in is no place for a new server: its vote may be in there.
    fn refuse_strangers(&self) -> Result<(), StorageError> {
        for item in std::fs::read_dir(&self.path).map_err(failed("list", "the data directory"))? {
            let name = item.map_err(failed("list", "the data directory"))?.file_name();
            if ![LOCK, UNFINISHED, RESERVE].iter().any(|ours| name == **ours) {
                let name = name.to_string_lossy();
                return Err(StorageError::Foreign(format!("there is no {DATABASE}, but there is {name}")));
            }
        }
        Ok(())
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let path = self.path.join(name);
        let allocate = || {
            let file = private().create(true).truncate(true).open(&path)?;
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            Ok(file)
        };
        allocate().map(drop).inspect_err(|_: &io::Error| drop(remove(&path)))
    }
}

/// Creates a directory and what leads to it, durably: a server whose directory disappeared in a power cut would have lost its vote.
fn create(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|folder| !folder.exists()).count();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // One that is there may have been made right before a crash.
    for folder in path.ancestors().take(missing.max(1)) {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn backend(file: File) -> Result<Box<dyn StorageBackend>, StorageError> {
    let backend = FileBackend::new(file).map_err(|error| StorageError::Failed(error.to_string()))?;
    Ok(Box::new(backend))
}

fn failed(what: &str, name: &str) -> impl FnOnce(io::Error) -> StorageError {
    move |error| StorageError::Failed(format!("can't {what} {name}: {error}"))
}

impl Home for Directory {
    fn file(&self, format: Format<'_>) -> Result<Box<dyn StorageBackend>, StorageError> {
        let path = self.path.join(DATABASE);
        if !path.try_exists().map_err(failed("look for", DATABASE))? {
            self.create_database(format)?;
        }
        let file = private().open(&path);
        let file = file.map_err(|error| StorageError::Unusable(format!("can't open {DATABASE}: {error}")))?;
        // redb would take it for one that is to be initialized.
        if file.metadata().map_err(failed("read", DATABASE))?.len() == 0 {
            return Err(StorageError::Corrupt(format!("{DATABASE} is empty")));
        }
        // It may have got its name right before a crash.
        self.handle.sync_all().map_err(failed("sync", "the data directory"))?;
        backend(file)
    }

    fn has_space(&self, bytes: u64) -> bool {
        let there = self.allocate(UNFINISHED, bytes).is_ok();
        there && remove(&self.path.join(UNFINISHED)).is_ok()
    }

    fn keep_reserve(&self) -> Result<bool, StorageError> {
        let path = self.path.join(RESERVE);
        let kept = std::fs::metadata(&path).is_ok_and(|reserve| reserve.len() >= self.reserve_bytes);
        if kept || self.reserve_bytes == 0 {
            return Ok(true);
        }
        // As much again, or the next write would need the reserve at once.
        match self.allocate(RESERVE, self.reserve_bytes.saturating_mul(2)) {
            Ok(()) => {}
            // A file system that can't set room aside has none in reserve.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(true),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(failed("create", RESERVE)(error)),
        }
        let reserve = private().open(&path).map_err(failed("open", RESERVE))?;
        reserve.set_len(self.reserve_bytes).map_err(failed("shorten", RESERVE))?;
        Ok(true)
    }

    fn release_reserve(&self) -> bool {
        std::fs::remove_file(self.path.join(RESERVE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn formatted(directory: &Directory) -> Result<Box<dyn StorageBackend>, StorageError> {
        directory.file(&mut |file| {
            file.set_len(3).map_err(failed("extend", "it"))?;
            file.write(0, b"new").map_err(failed("write", "it"))
        })
    }

    #[test]
    fn nobody_else_sees_or_uses_it() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("a/b");
        let directory = Directory::open(&path, 4096).expect("opens");
        formatted(&directory).expect("a file");
        assert_eq!(directory.keep_reserve(), Ok(true));
        assert!(matches!(Directory::open(&path, 4096), Err(StorageError::InUse(_))));
        let mode = |path: &Path| path.metadata().expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for name in [LOCK, DATABASE, RESERVE] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        drop(directory);
        Directory::open(&path, 4096).expect("free again");
    }

    #[test]
    fn a_new_database_is_there_at_once_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::open(folder.path(), 0).expect("opens");
        let broken = directory.file(&mut |file| {
            file.set_len(7).expect("grows");
            Err(StorageError::Failed("killed".into()))
        });
        assert!(matches!(broken, Err(StorageError::Failed(_))));
        assert!(!folder.path().join(DATABASE).exists());
        assert_eq!(formatted(&directory).expect("what was left is no obstacle").len().expect("length"), 3);
        let again = directory.file(&mut |_| panic!("formatted twice"));
        assert_eq!(again.expect("opens").len().expect("length"), 3);
    }

    #[test]
    fn the_directory_of_another_storage_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(folder.path().join("log-1"), b"a vote").expect("writes");
        let directory = Directory::open(folder.path(), 0).expect("opens");
        assert!(matches!(formatted(&directory), Err(StorageError::Foreign(_))));
    }

    #[test]
    fn a_database_that_was_emptied_is_damaged() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::open(folder.path(), 0).expect("opens");
        std::fs::write(folder.path().join(DATABASE), b"").expect("writes");
        assert!(matches!(formatted(&directory), Err(StorageError::Corrupt(_))));
    }

    #[test]
    fn the_reserve_is_kept_and_released() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::open(folder.path(), 8192).expect("opens");
        assert!(!directory.release_reserve(), "there is none");
        assert_eq!(directory.keep_reserve(), Ok(true));
        assert_eq!(folder.path().join(RESERVE).metadata().expect("is there").len(), 8192);
        assert!(directory.release_reserve());
        assert!(directory.has_space(4096));
        assert!(!directory.has_space(u64::MAX >> 8), "no disk has that");
        assert!(!folder.path().join(UNFINISHED).exists(), "the probe is gone");
    }
}
