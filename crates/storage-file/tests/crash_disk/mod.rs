//! A disk in memory that remembers every operation, so that a crash at any of them can be played with any fate of what was not synced.

#![allow(dead_code, unreachable_pub, reason = "each test file is a crate and uses a part of it")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use atomix_storage::{Recovered, Storage, StorageError};
use atomix_storage_file::{Disk, FileOptions, FileStorage};

use atomix_protocol::Entry;

pub mod workload;

/// Disks write this much at once, or nothing of it.
pub const SECTOR: usize = 512;

/// The files of a directory, durable all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    names: BTreeMap<String, usize>,
    /// Shared with other images, as long as none writes to it.
    files: Vec<Arc<Vec<u8>>>,
}

/// Something that changes the disk.
#[derive(Clone, Debug)]
pub enum Operation {
    /// `background`: not waited for.
    Allocate {
        name: String,
        file: usize,
        length: usize,
        background: bool,
    },
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    Sync {
        file: usize,
    },
    SyncDir,
}

/// What a crash does to an operation that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Dropped,
    /// The sectors before this many are kept; of an operation on names, nothing.
    FirstSectors(usize),
    /// The sectors from this one on are kept; of an operation on names, nothing.
    LastSectors(usize),
    /// This many bytes are kept, of a new file too; of any other operation on names, nothing.
    FirstBytes(usize),
    /// Of the sectors that it touches, those whose bit is set are kept; of an operation on names, nothing.
    Sectors(u64),
}

impl Image {
    pub fn file(&self, name: &str) -> &[u8] {
        &self.files[self.names[name]]
    }

    pub fn file_mut(&mut self, name: &str) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.files[self.names[name]])
    }

    /// The same for two images that share the file's content.
    pub fn share(&self, name: &str) -> *const Vec<u8> {
        Arc::as_ptr(&self.files[self.names[name]])
    }

    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub fn remove(&mut self, name: &str) {
        self.names.remove(name).unwrap();
    }

    pub fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.names.insert(name.to_owned(), self.files.len());
        self.files.push(Arc::new(bytes));
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Allocate { name, file, length, .. } => {
                assert_eq!(*file, self.files.len());
                self.files.push(Arc::new(vec![0; *length]));
                self.names.insert(name.clone(), *file);
            }
            Operation::Write { file, offset, bytes } => write(&mut self.files[*file], *offset, bytes),
            Operation::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Operation::Remove { name } => {
                self.names.remove(name);
            }
            Operation::Sync { .. } | Operation::SyncDir => {}
        }
    }

    fn apply_with(&mut self, operation: &Operation, fate: Fate) {
        match (operation, fate) {
            (operation, Fate::Kept) => self.apply(operation),
            (Operation::Allocate { name, length, .. }, Fate::FirstBytes(made)) => {
                self.names.insert(name.clone(), self.files.len());
                self.files.push(Arc::new(vec![0; made.min(*length)]));
            }
            (Operation::Allocate { .. }, _) => self.files.push(Arc::default()),
            (Operation::Write { file, offset, bytes }, Fate::Sectors(mask)) => {
                let mut at = 0;
                for sector in 0.. {
                    let end = ((offset / SECTOR + sector + 1) * SECTOR - offset).min(bytes.len());
                    if mask >> sector.min(63) & 1 == 1 {
                        write(&mut self.files[*file], offset + at, &bytes[at..end]);
                    }
                    at = end;
                    if at == bytes.len() {
                        break;
                    }
                }
            }
            (Operation::Write { file, offset, bytes }, fate) => {
                // Sectors of the file, not of the write.
                let sector = |count: usize| {
                    ((offset / SECTOR + count) * SECTOR).saturating_sub(*offset).min(bytes.len())
                };
                let kept = match fate {
                    Fate::Kept | Fate::Dropped | Fate::Sectors(_) => 0..0,
                    Fate::FirstSectors(count) => 0..sector(count),
                    Fate::LastSectors(from) => sector(from)..bytes.len(),
                    Fate::FirstBytes(count) => 0..count.min(bytes.len()),
                };
                write(&mut self.files[*file], offset + kept.start, &bytes[kept]);
            }
            _ => {}
        }
    }
}

fn write(file: &mut Arc<Vec<u8>>, offset: usize, bytes: &[u8]) {
    if !bytes.is_empty() {
        let file = Arc::make_mut(file);
        let end = offset + bytes.len();
        file.resize(file.len().max(end), 0);
        file[offset..end].copy_from_slice(bytes);
    }
}

/// Clones and forks are handles to one disk.
#[derive(Clone, Debug)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    begin: Image,
    now: Image,
    operations: Vec<Operation>,
    /// The operation that fails, by number, how, and how many bytes of it are written all the same.
    fail: Option<(usize, io::ErrorKind, usize)>,
    attempts: usize,
    /// Whether there is no room for any new file.
    full: bool,
    /// Whether files are made in the background when that is proposed, and the one that is being made.
    prepares: bool,
    prepared: Option<(String, u64)>,
    /// Writes before a sync that failed. Systems take their pages for clean then: read, they look right; no later sync writes them.
    given_up: Vec<usize>,
}

impl CrashDisk {
    pub fn new(image: Image) -> CrashDisk {
        let now = image.clone();
        let state = State {
            begin: image,
            now,
            operations: Vec::new(),
            fail: None,
            attempts: 0,
            full: false,
            prepares: false,
            prepared: None,
            given_up: Vec::new(),
        };
        CrashDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets the operation with that number fail.
    pub fn fail(&self, number: usize, kind: io::ErrorKind) {
        self.fail_after(number, kind, 0);
    }

    /// The same; if it is a write, so many of its bytes are written before.
    pub fn fail_after(&self, number: usize, kind: io::ErrorKind, bytes: usize) {
        self.state.lock().unwrap().fail = Some((number, kind, bytes));
    }

    /// Nothing is to fail any more.
    pub fn heal(&self) {
        self.state.lock().unwrap().fail = None;
    }

    /// From here on there is room for no new file, or there is again.
    pub fn fill(&self, full: bool) {
        self.state.lock().unwrap().full = full;
    }

    /// From here on, files are made in the background when that is proposed.
    pub fn prepares(&self) {
        self.state.lock().unwrap().prepares = true;
    }

    /// Operations asked for, those that failed included.
    pub fn attempts(&self) -> usize {
        self.state.lock().unwrap().attempts
    }

    pub fn operations(&self) -> Vec<Operation> {
        self.state.lock().unwrap().operations.clone()
    }

    /// What is on the disk if the process dies now, and the machine does not.
    pub fn image(&self) -> Image {
        self.state.lock().unwrap().now.clone()
    }

    /// Numbers of the operations that are not durable after the first `prefix`.
    pub fn pending(&self, prefix: usize) -> Vec<usize> {
        self.state.lock().unwrap().pending(prefix)
    }

    /// What is on the disk after a crash of the machine that comes after the first `prefix` operations.
    pub fn crash(&self, prefix: usize, fate: impl Fn(usize) -> Fate) -> Image {
        let point = self.crash_point(prefix);
        point.image(|place| fate(point.pending[place]))
    }

    /// The moment after the first `prefix` operations.
    pub fn crash_point(&self, prefix: usize) -> CrashPoint {
        let pending = self.pending(prefix);
        let state = self.state.lock().unwrap();
        let first = pending.first().copied().unwrap_or(prefix);
        let mut durable = state.begin.clone();
        state.operations[..first].iter().for_each(|operation| durable.apply(operation));
        let behind = state.operations[first..prefix].to_vec();
        CrashPoint { durable, first, behind, pending }
    }

    /// The same disk when only so many operations had been asked for, and the process ended there.
    pub fn killed_after(&self, prefix: usize) -> CrashDisk {
        let state = self.state.lock().unwrap();
        let disk = CrashDisk::new(state.begin.clone());
        let mut past = disk.state.lock().unwrap();
        past.operations = state.operations[..prefix].to_vec();
        let operations = past.operations.clone();
        operations.iter().for_each(|operation| past.now.apply(operation));
        drop(past);
        disk
    }
}

/// A moment at which the machine may crash.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    /// What is durable before the first operation that is not.
    pub durable: Image,
    first: usize,
    /// The operations from that one on.
    behind: Vec<Operation>,
    /// Numbers of the operations that are not durable.
    pub pending: Vec<usize>,
}

impl CrashPoint {
    /// An operation that is not durable, by its place among them.
    pub fn operation(&self, place: usize) -> &Operation {
        &self.behind[self.pending[place] - self.first]
    }

    /// Whether a file may be shorter than it was to be: it was being made when the crash came, or is made beside what goes on.
    pub fn is_unfinished(&self, place: usize) -> bool {
        let Operation::Allocate { file, background, .. } = self.operation(place) else { return false };
        let last = self.pending[place] + 1 == self.first + self.behind.len();
        let written = |later: &Operation| matches!(later, Operation::Write { file: to, .. } if to == file);
        (*background || last) && !self.behind.iter().any(written)
    }

    /// What is on the disk afterwards. `fate` gets the place of each operation among those that are not durable.
    pub fn image(&self, fate: impl Fn(usize) -> Fate) -> Image {
        let mut image = self.durable.clone();
        let mut place = 0;
        for (at, operation) in self.behind.iter().enumerate() {
            if self.pending.get(place) == Some(&(self.first + at)) {
                image.apply_with(operation, fate(place));
                place += 1;
            } else {
                image.apply(operation);
            }
        }
        image
    }
}

impl State {
    /// Numbers of the operations that are not durable after the first `prefix`.
    fn pending(&self, prefix: usize) -> Vec<usize> {
        let operations = &self.operations[..prefix];
        let synced = |number: usize| {
            let after = &operations[number + 1..];
            match &operations[number] {
                Operation::Write { file, .. } => after
                    .iter()
                    .any(|later| matches!(later, Operation::Sync { file: synced } if synced == file)),
                Operation::Sync { .. } | Operation::SyncDir => true,
                _ => after.iter().any(|later| matches!(later, Operation::SyncDir)),
            }
        };
        (0..prefix).filter(|number| self.given_up.contains(number) || !synced(*number)).collect()
    }

    fn run(&mut self, operation: impl FnOnce(&Image) -> io::Result<Operation>) -> io::Result<()> {
        let number = self.attempts;
        self.attempts += 1;
        if let Some((_, kind, bytes)) = self.fail.filter(|(failing, ..)| *failing == number) {
            if bytes > 0
                && let Operation::Write { file, offset, bytes: mut whole } = operation(&self.now)?
            {
                whole.truncate(bytes);
                let operation = Operation::Write { file, offset, bytes: whole };
                self.now.apply(&operation);
                self.operations.push(operation);
            }
            return Err(kind.into());
        }
        let operation = operation(&self.now)?;
        self.now.apply(&operation);
        self.operations.push(operation);
        Ok(())
    }
}

fn find(image: &Image, name: &str) -> io::Result<usize> {
    image.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Disk for CrashDisk {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state.lock().unwrap();
        Ok(state
            .now
            .names
            .iter()
            .map(|(name, file)| (name.clone(), state.now.files[*file].len() as u64))
            .collect())
    }

    fn allocate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let (name, length) = (name.to_owned(), length as usize);
        let mut state = self.state.lock().unwrap();
        if state.prepared.take() == Some((name.clone(), length as u64)) && state.now.names.contains_key(&name)
        {
            return Ok(());
        }
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.run(|now| Ok(Operation::Allocate { name, file: now.files.len(), length, background: false }))
    }

    fn prepare(&mut self, name: &str, length: u64) {
        let mut state = self.state.lock().unwrap();
        if !state.prepares || state.full || state.prepared.is_some() {
            return;
        }
        state.prepared = Some((name.to_owned(), length));
        let (name, length) = (name.to_owned(), length as usize);
        drop(
            state
                .run(|now| Ok(Operation::Allocate { name, file: now.files.len(), length, background: true })),
        );
    }

    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        let file = &state.now.files[find(&state.now, name)?];
        let from = file.len().min(offset as usize);
        let length = buffer.len().min(file.len() - from);
        buffer[..length].copy_from_slice(&file[from..from + length]);
        Ok(length)
    }

    fn write_at(&mut self, name: &str, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let (offset, bytes) = (offset as usize, parts.concat());
        self.state.lock().unwrap().run(|now| Ok(Operation::Write { file: find(now, name)?, offset, bytes }))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let synced = find(&state.now, name)?;
        let result = state.run(|_| Ok(Operation::Sync { file: synced }));
        if result.is_err() {
            let written = |number: &usize| matches!(state.operations[*number], Operation::Write { file, .. } if file == synced);
            let given_up: Vec<usize> =
                state.pending(state.operations.len()).into_iter().filter(written).collect();
            state.given_up.extend(given_up);
        }
        result
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.state.lock().unwrap().run(|_| Ok(Operation::SyncDir))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let operation = Operation::Rename { from: from.to_owned(), to: to.to_owned() };
        self.state.lock().unwrap().run(|now| find(now, from).map(|_| operation))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let operation = Operation::Remove { name: name.to_owned() };
        self.state.lock().unwrap().run(|now| find(now, name).map(|_| operation))
    }

    fn fork(&self) -> io::Result<Box<dyn Disk>> {
        Ok(Box::new(self.clone()))
    }
}

/// A storage over the disk, and what it found.
pub struct Opened {
    pub storage: FileStorage,
    pub recovered: Recovered,
    pub entries: Vec<Entry>,
}

pub fn open(disk: &CrashDisk, segment_bytes: u64) -> Result<Opened, StorageError> {
    let mut storage = FileStorage::open(Box::new(disk.clone()), FileOptions { segment_bytes })?;
    let mut entries = Vec::new();
    let recovered = storage.recover(&mut |entry| entries.push(entry))?;
    Ok(Opened { storage, recovered, entries })
}
