//! The real disk: a folder.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use atomix_storage::StorageError;
use parking_lot::Mutex;

use crate::{Disk, names};

/// The file whose lock says that the folder is in use. Never removed: the lock ends with the process, however that ends.
pub(crate) const LOCK: &str = "lock";
/// What a file system has where it begins.
const LOST_AND_FOUND: &str = "lost+found";
/// Zeros are written in pieces of this length.
const ZEROS: &[u8] = &[0; 256 << 10];
/// How many zeros are written between two syncs, so that a file made in the background does not hold up the log's own syncs.
const ZEROS_PER_SYNC: u64 = 4 << 20;
/// Most files kept open.
const OPEN_FILES: usize = 64;
/// Most parts of one call to the system (`IOV_MAX`).
const PARTS: usize = 1024;

/// The real disk: a folder that one process at a time uses.
#[derive(Debug)]
pub struct FolderDisk {
    folder: Arc<Folder>,
    /// The file being made in the background.
    prepared: Option<Prepared>,
    /// Why one could not be made that nothing asked for since: whoever asks next is told.
    failed: Option<io::Error>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The folder itself, for syncing names.
    handle: File,
    /// Held for as long as any fork lives. `None` where nothing is written and no process ever locked it.
    _lock: Option<File>,
    /// Whether nothing is to be changed, whatever is asked for.
    read_only: bool,
    /// Shared by all forks, so that none reads on in a file that another has replaced.
    open: Mutex<BTreeMap<String, Arc<File>>>,
}

#[derive(Debug)]
struct Prepared {
    name: String,
    length: u64,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl FolderDisk {
    /// Opens a folder, creating it and what leads to it, and locks it against other processes until this and all its forks are
    /// dropped, or the process ends in whatever way. It is for its owner alone from then on, unless it holds what is not ours.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another process has it, [`StorageError::Unusable`] if it can't be created or written.
    pub fn open(path: impl AsRef<Path>) -> Result<FolderDisk, StorageError> {
        let path = path.as_ref();
        let unusable = |what: &str, error: io::Error| {
            StorageError::Unusable(format!("{what} {}: {error}", path.display()))
        };
        create(path).map_err(|error| unusable("can't create the data directory", error))?;
        let handle = File::open(path).map_err(|error| unusable("can't open the data directory", error))?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK));
        let lock = lock.map_err(|error| unusable("can't write in the data directory", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(unusable("can't lock the data directory", error)),
        }
        keep_to_owner(path, &handle)
            .map_err(|error| unusable("can't keep others out of the data directory", error))?;
        let (lock, open) = (Some(lock), Mutex::default());
        let folder = Folder { path: path.to_owned(), handle, _lock: lock, read_only: false, open };
        Ok(FolderDisk::new(Arc::new(folder)))
    }

    /// Opens a folder to look at it: nothing in it is changed, and no right to change it is needed. No process can open it as long as this
    /// and all its forks live, but for others that only look; where there is no file to lock, none is made.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another process has it, [`StorageError::Unusable`] if it can't be read, or is no folder.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<FolderDisk, StorageError> {
        let path = path.as_ref();
        let unusable = |what: &str, error: io::Error| {
            StorageError::Unusable(format!("{what} {}: {error}", path.display()))
        };
        // Its names are read once here, so that a file in its place is not found out later, with less to say.
        std::fs::read_dir(path).map_err(|error| unusable("can't read the data directory", error))?;
        let handle = File::open(path).map_err(|error| unusable("can't open the data directory", error))?;
        let lock = match File::open(path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unusable("can't open the lock of the data directory", error)),
        };
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(unusable("can't lock the data directory", error)),
        }
        let (path, open) = (path.to_owned(), Mutex::default());
        let folder = Folder { path, handle, _lock: lock, read_only: true, open };
        Ok(FolderDisk::new(Arc::new(folder)))
    }

    fn new(folder: Arc<Folder>) -> FolderDisk {
        FolderDisk { folder, prepared: None, failed: None }
    }

    /// Waits for the file of that name that is being made in the background, if it is; whether it is as asked for, and complete.
    ///
    /// # Errors
    /// What the system refused, there or before: that is final (D5).
    fn take_prepared(&mut self, name: &str, length: u64) -> io::Result<bool> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(prepared) = self.prepared.take_if(|prepared| prepared.name == name) else {
            return Ok(false);
        };
        let right = prepared.length == length;
        Ok(prepared.end()? && right)
    }
}

impl Prepared {
    /// Waits for its end. Whether it is complete: it is not if there was no room for it, or nobody wanted it any more.
    ///
    /// # Errors
    /// All else that the system refused: a sync that failed is not tried again in the hope that it succeeds (D5).
    fn end(self) -> io::Result<bool> {
        use io::ErrorKind::{Interrupted, QuotaExceeded, StorageFull};
        match self.thread.join() {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if matches!(error.kind(), Interrupted | QuotaExceeded | StorageFull) => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the thread that was making it panicked")),
        }
    }
}

/// Takes all rights in the folder from everybody but its owner, if it holds nothing but what is ours, or is on a disk of its own: an
/// operator who made it beforehand did it with the rights of his shell. Whatever else is in there may be meant for others; our files are
/// for their owner alone in any case.
fn keep_to_owner(path: &Path, handle: &File) -> io::Result<()> {
    const OTHERS: u32 = 0o077;
    let mode = handle.metadata()?.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    for item in std::fs::read_dir(path)? {
        let name = item?.file_name();
        if name != LOCK && name != LOST_AND_FOUND && !name.to_str().is_some_and(names::is_ours) {
            return Ok(());
        }
    }
    match handle.set_permissions(Permissions::from_mode(mode & !OTHERS)) {
        // Another user's, who lets this one in; or on a file system without rights.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Creates a folder and what leads to it, durably: a server whose folder disappeared in a power cut would have lost its vote.
fn create(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for folder in missing {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

impl Folder {
    /// Whether anything may be changed.
    fn writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        let mut open = self.open.lock();
        if let Some(file) = open.get(name) {
            return Ok(file.clone());
        }
        let file = Arc::new(OpenOptions::new().read(true).write(!self.read_only).open(self.path.join(name))?);
        if open.len() >= OPEN_FILES {
            open.clear();
        }
        open.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    /// A new file full of zeros that are on the disk.
    fn zeros(&self, name: &str, length: u64, stop: &AtomicBool) -> io::Result<()> {
        self.create(name, |file| {
            let mut at = 0;
            while at < length {
                if stop.load(Ordering::Relaxed) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let piece = usize::try_from(length - at).unwrap_or(usize::MAX).min(ZEROS.len());
                file.write_all_at(&ZEROS[..piece], at)?;
                at += piece as u64;
                if at % ZEROS_PER_SYNC == 0 {
                    file.sync_data()?;
                }
            }
            if length > 0 { file.sync_all() } else { Ok(()) }
        })
    }

    /// A new file, filled. An error leaves none behind: the space it took may be what was missing.
    fn create(&self, name: &str, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        self.writable()?;
        self.open.lock().remove(name);
        let path = self.path.join(name);
        // Removed, not truncated: a fork may still read in the old one.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        fill(&file).inspect_err(|_| drop(std::fs::remove_file(&path)))
    }
}

impl Disk for FolderDisk {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut names = Vec::new();
        for item in std::fs::read_dir(&self.folder.path)? {
            let item = item?;
            let metadata = item.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), item.file_name().into_string()) {
                names.push((name, metadata.len()));
            }
        }
        Ok(names)
    }

    fn allocate(&mut self, name: &str, length: u64) -> io::Result<()> {
        if self.take_prepared(name, length)? {
            Ok(())
        } else {
            self.folder.zeros(name, length, &AtomicBool::new(false))
        }
    }

    fn set_aside(&mut self, name: &str, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let set_aside = |file: &File| Ok(fallocate(file, FallocateFlags::empty(), 0, length)?);
        match self.folder.create(name, set_aside) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.allocate(name, length),
            result => result,
        }
    }

    fn prepare(&mut self, name: &str, length: u64) {
        // One at a time; one that is complete and was asked for under no name since is not wanted any more.
        if self.folder.read_only
            || self.prepared.as_ref().is_some_and(|made| made.name == name || !made.thread.is_finished())
        {
            return;
        }
        if let Some(prepared) = self.prepared.take() {
            let name = prepared.name.clone();
            if let Err(error) = prepared.end() {
                let text = format!("{name} could not be made beforehand: {error}");
                self.failed = Some(io::Error::new(error.kind(), text));
                return;
            }
        }
        let (folder, file) = (self.folder.clone(), name.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || folder.zeros(&file, length, &stopped);
        // No thread: then the file is made when it is needed.
        if let Ok(thread) = std::thread::Builder::new().name("atomix-prepare".into()).spawn(run) {
            self.prepared = Some(Prepared { name: name.to_owned(), length, stop, thread });
        }
    }

    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.folder.file(name)?;
        let mut read = 0;
        while read < buffer.len() {
            match file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&mut self, name: &str, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.folder.writable()?;
        let file = self.folder.file(name)?;
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let some = left.len().min(PARTS);
            match rustix::io::pwritev(&*file, &left[..some], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut left, written);
                    offset += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.folder.file(name)?.sync_data()
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.folder.handle.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.folder.writable()?;
        let mut open = self.folder.open.lock();
        std::fs::rename(self.folder.path.join(from), self.folder.path.join(to))?;
        open.remove(to);
        if let Some(file) = open.remove(from) {
            open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.folder.writable()?;
        self.folder.open.lock().remove(name);
        std::fs::remove_file(self.folder.path.join(name))
    }

    fn fork(&self) -> io::Result<Box<dyn Disk>> {
        Ok(Box::new(FolderDisk::new(self.folder.clone())))
    }
}

impl Drop for FolderDisk {
    /// The folder is free for the next process only once nothing is made in it any more.
    fn drop(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            prepared.stop.store(true, Ordering::Relaxed);
            drop(prepared.thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_in_background(disk: &mut FolderDisk, name: &str) {
        disk.prepare(name, 100);
        while !disk.prepared.as_ref().is_some_and(|prepared| prepared.thread.is_finished()) {
            std::thread::yield_now();
        }
    }

    /// It would succeed if it were tried again: as a sync does that failed once, and has lost what it was about.
    #[test]
    fn d5_what_failed_in_the_background_is_not_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let (path, kind) = (place.path(), |result: io::Result<()>| result.map_err(|error| error.kind()));
        let mut disk = FolderDisk::open(path).unwrap();
        made_in_background(&mut disk, "gone/one");
        std::fs::create_dir(path.join("gone")).unwrap();
        assert_eq!(kind(disk.allocate("gone/one", 100)), Err(io::ErrorKind::NotFound));
        // One that nobody asks for any more.
        for reserve in [false, true] {
            made_in_background(&mut disk, "far/two");
            disk.prepare("three", 100);
            let told = if reserve { disk.set_aside("reserve", 10) } else { disk.allocate("another", 10) };
            assert_eq!(kind(told), Err(io::ErrorKind::NotFound));
        }
    }

    #[test]
    fn what_found_no_room_in_the_background_or_is_of_another_length_is_made_again() {
        let place = tempfile::tempdir().unwrap();
        let mut disk = FolderDisk::open(place.path()).unwrap();
        for error in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::Interrupted] {
            let thread = std::thread::spawn(move || Err(error.into()));
            let stop = Arc::new(AtomicBool::new(false));
            disk.prepared = Some(Prepared { name: "file".into(), length: 100, stop, thread });
            disk.allocate("file", 100).unwrap();
            assert_eq!(std::fs::metadata(place.path().join("file")).unwrap().len(), 100, "{error:?}");
            disk.remove("file").unwrap();
        }
        made_in_background(&mut disk, "file");
        disk.allocate("file", 50).unwrap();
        assert_eq!(std::fs::metadata(place.path().join("file")).unwrap().len(), 50);
    }
}
