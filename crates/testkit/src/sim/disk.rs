//! A disk that forgets what was not synced.
//!
//! A call runs at once on the volatile image and is recorded. The operations of a job (one call of the storage, see
//! [`SimDisk::begin`]) are not known to be durable before [`SimDisk::complete`]: its syncs take effect only then. A crash
//! before that cuts the job after a drawn operation; syncs before the cut happened, and of the operations that no sync covers a
//! drawn subset survives, each kept, dropped or torn.
//!
//! Contents are kept as one volatile image per file plus the pending operations with what they overwrote, so that a sync costs
//! nothing but forgetting them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use atomix_storage_file::Disk;
use parking_lot::Mutex;

use super::decay::{Decay, full};
use super::file::File;

/// More pending writes of one file than this, and the oldest becomes durable: the system writes back in time.
const WRITE_BACK: usize = 16;

/// One server's disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk {
    pub(super) image: Arc<Mutex<Image>>,
}

/// A job whose operations are recorded together.
pub(super) type Job = u64;

pub(super) type Inode = u64;

#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) names: BTreeMap<String, Inode>,
    pub(super) durable_names: BTreeMap<String, Inode>,
    pub(super) files: BTreeMap<Inode, File>,
    pub(super) next_inode: Inode,
    /// What no completed sync covers yet, in order.
    pub(super) pending: Vec<Recorded>,
    pub(super) current: Option<Job>,
    pub(super) open: Vec<Open>,
    pub(super) recorded: u64,
    /// The next call of that kind fails.
    pub(super) failing: Option<Call>,
    /// One did.
    pub(super) failed: bool,
    pub(super) decay: Decay,
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    Sync,
}

/// A job under way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) job: Job,
    /// Its operations through this number have certainly happened: a sync of another job covered them.
    pub(super) floor: u64,
}

#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) number: u64,
    pub(super) job: Option<Job>,
    pub(super) operation: Operation,
    /// A sync of it failed: the system holds it for written, and no later sync writes it.
    pub(super) clean: bool,
}

#[derive(Debug)]
pub(super) enum Operation {
    /// A file of that length came to be.
    Allocate {
        inode: Inode,
        length: u64,
    },
    Write {
        inode: Inode,
        offset: u64,
        data: Vec<u8>,
        before: Vec<u8>,
        length_before: u64,
    },
    Link {
        name: String,
        inode: Inode,
    },
    Rename {
        from: String,
        to: String,
        inode: Inode,
    },
    Unlink {
        name: String,
    },
    /// A file may be made meanwhile.
    Prepare {
        name: String,
        length: u64,
    },
    Sync {
        inode: Inode,
    },
    SyncDir,
}

impl SimDisk {
    /// Everything recorded from here on belongs to `job`, until [`SimDisk::end`].
    pub(super) fn begin(&self, job: Job) {
        let mut image = self.image.lock();
        image.current = Some(job);
        image.open.push(Open { job, floor: 0 });
    }

    /// The calls of the job were made; it is still under way.
    pub(super) fn end(&self) {
        self.image.lock().current = None;
    }

    /// The job is done: its syncs have happened.
    pub(super) fn complete(&self, job: Job) {
        let mut image = self.image.lock();
        image.open.retain(|open| open.job != job);
        image.settle(Some(job));
        for recorded in &mut image.pending {
            if recorded.job == Some(job) {
                recorded.job = None;
            }
        }
    }

    /// From here on the next call of that kind fails, or none does.
    pub(super) fn fail_next(&self, call: Option<Call>) {
        let mut image = self.image.lock();
        image.failing = call;
        image.failed = false;
    }

    /// Whether one has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.image.lock().failed
    }

    /// A job ended with an error: what it did up to there is done.
    pub(super) fn break_off(&self) {
        let current = self.image.lock().current.take();
        if let Some(job) = current {
            self.complete(job);
        }
    }

    /// Whether a job under way has made a file.
    pub(super) fn has_allocated(&self, job: Job) -> bool {
        let allocates = |recorded: &Recorded| {
            recorded.job == Some(job) && matches!(recorded.operation, Operation::Allocate { .. })
        };
        self.image.lock().pending.iter().any(allocates)
    }

    /// Whether a job under way has overwritten something with zeros: a recovery that found a torn tail.
    pub(super) fn has_zeroed(&self, job: Job) -> bool {
        let zeroes = |recorded: &Recorded| match &recorded.operation {
            Operation::Write { data, .. } => recorded.job == Some(job) && data.iter().all(|byte| *byte == 0),
            _ => false,
        };
        self.image.lock().pending.iter().any(zeroes)
    }

    /// An empty directory, as after an operator's mistake.
    pub(super) fn wipe(&self) {
        *self.image.lock() = Image::default();
    }
}

impl Image {
    fn record(&mut self, operation: Operation) {
        let job = self.current;
        let written = match operation {
            Operation::Write { inode, .. } => Some(inode),
            _ => None,
        };
        self.recorded += 1;
        self.pending.push(Recorded { number: self.recorded, job, operation, clean: false });
        if job.is_none() {
            self.settle(None);
        }
        if let Some(inode) = written {
            self.write_back(inode);
        }
    }

    /// The oldest writes of a file that is never synced become durable.
    fn write_back(&mut self, inode: Inode) {
        let is_write = |recorded: &Recorded| matches!(recorded.operation, Operation::Write { inode: of, .. } if of == inode);
        if self.pending.len() > WRITE_BACK
            && self.pending.iter().filter(|r| is_write(r)).count() > WRITE_BACK
            && let Some(oldest) = self.pending.iter().position(|r| is_write(r) && r.job.is_none() && !r.clean)
        {
            self.pending.remove(oldest);
            let makes =
                |r: &Recorded| matches!(r.operation, Operation::Allocate { inode: of, .. } if of == inode);
            self.pending.retain(|recorded| !makes(recorded));
        }
    }

    /// Lets the syncs of a job (or of none) take effect.
    fn settle(&mut self, job: Option<Job>) {
        let is_sync = |recorded: &Recorded| {
            recorded.job == job && matches!(recorded.operation, Operation::Sync { .. } | Operation::SyncDir)
        };
        while let Some(at) = self.pending.iter().position(is_sync) {
            match self.pending.remove(at).operation {
                Operation::Sync { inode } => self.settle_file(at, inode),
                _ => self.settle_names(at),
            }
        }
    }

    pub(super) fn settle_all(&mut self) {
        for recorded in &mut self.pending {
            recorded.job = None;
        }
        self.settle(None);
    }

    /// The content of a file is durable as of the `before`-th pending operation.
    fn settle_file(&mut self, before: usize, synced: Inode) {
        let mut kept: Vec<Recorded> = Vec::with_capacity(self.pending.len());
        for (at, recorded) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let of_file = matches!(recorded.operation,
                Operation::Allocate { inode, .. } | Operation::Write { inode, .. } if inode == synced);
            if at >= before || !of_file || recorded.clean {
                kept.push(recorded);
                continue;
            }
            // What lies over something that a failed sync left behind is durable there.
            for left in kept.iter_mut().filter(|left| left.clean) {
                left.operation.is_overwritten(&recorded.operation);
            }
        }
        self.pending = kept;
    }

    /// The call fails if it was to.
    fn may_fail(&mut self, call: Call) -> io::Result<()> {
        if self.failing.take_if(|failing| *failing == call).is_none() {
            return Ok(());
        }
        self.failed = true;
        Err(io::Error::other(format!("the device failed: {call:?}")))
    }

    /// A sync failed: what it was to write is marked as written.
    fn mark_clean(&mut self, synced: Inode) {
        for recorded in &mut self.pending {
            if matches!(recorded.operation, Operation::Write { inode, .. } if inode == synced) {
                recorded.clean = true;
            }
        }
    }

    /// The names are durable as of the `before`-th pending operation.
    fn settle_names(&mut self, before: usize) {
        let mut kept = Vec::with_capacity(self.pending.len());
        for (at, recorded) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if at < before && recorded.operation.is_name() {
                recorded.operation.apply_name(&mut self.durable_names);
                for open in self.open.iter_mut().filter(|open| Some(open.job) == recorded.job) {
                    open.floor = recorded.number;
                }
            } else {
                kept.push(recorded);
            }
        }
        self.pending = kept;
        self.drop_unnamed();
    }

    pub(super) fn drop_unnamed(&mut self) {
        let (names, durable) = (&self.names, &self.durable_names);
        let pending = &self.pending;
        self.files.retain(|inode, _| {
            names.values().chain(durable.values()).any(|named| named == inode)
                || pending.iter().any(|recorded| recorded.operation.names() == Some(*inode))
        });
    }

    pub(super) fn create(&mut self, length: u64) -> Inode {
        self.next_inode += 1;
        self.files.insert(self.next_inode, File { data: Vec::new(), length });
        self.next_inode
    }

    /// A new file in place of any of that name. Without room for it, the old one is gone all the same.
    fn make(&mut self, name: &str, length: u64) -> io::Result<()> {
        if self.names.remove(name).is_some() {
            self.record(Operation::Unlink { name: name.to_owned() });
        }
        if self.room_for(length) < length {
            return Err(full());
        }
        let inode = self.create(length);
        self.names.insert(name.to_owned(), inode);
        self.record(Operation::Allocate { inode, length });
        self.record(Operation::Link { name: name.to_owned(), inode });
        Ok(())
    }

    fn put(&mut self, inode: Inode, offset: u64, data: Vec<u8>) {
        let file = self.files.entry(inode).or_default();
        let (before, length_before) = (file.bytes(offset, data.len()), file.length);
        file.put(offset, &data);
        self.record(Operation::Write { inode, offset, data, before, length_before });
    }

    fn inode(&self, name: &str) -> io::Result<Inode> {
        self.names.get(name).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }
}

impl Operation {
    fn is_name(&self) -> bool {
        matches!(self, Operation::Link { .. } | Operation::Rename { .. } | Operation::Unlink { .. })
    }

    /// The file that this operation may give a name.
    fn names(&self) -> Option<Inode> {
        match self {
            Operation::Link { inode, .. } | Operation::Rename { inode, .. } => Some(*inode),
            _ => None,
        }
    }

    /// A later write of the same file is durable: this one's undoing must not undo it.
    fn is_overwritten(&mut self, by: &Operation) {
        let Operation::Write { inode, offset, data, before, length_before } = self else { return };
        let Operation::Write { inode: file, offset: from, data: new, .. } = by else { return };
        if inode != file {
            return;
        }
        *length_before = (*length_before).max(from + new.len() as u64);
        before.resize(data.len(), 0);
        let (start, end) = ((*offset).max(*from), (*offset + data.len() as u64).min(from + new.len() as u64));
        if start < end {
            let (here, there) = ((start - *offset) as usize, (start - from) as usize);
            let length = (end - start) as usize;
            before[here..here + length].copy_from_slice(&new[there..there + length]);
            data[here..here + length].copy_from_slice(&new[there..there + length]);
        }
    }

    pub(super) fn apply_name(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Operation::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Operation::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Operation::Unlink { name } => {
                names.remove(name);
            }
            _ => {}
        }
    }
}

impl Disk for SimDisk {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let image = self.image.lock();
        let length = |inode: &Inode| image.files.get(inode).map_or(0, |file| file.length);
        Ok(image.names.iter().map(|(name, inode)| (name.clone(), length(inode))).collect())
    }

    fn allocate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut image = self.image.lock();
        image.take_prepared();
        image.make(name, length)
    }

    fn set_aside(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.image.lock().make(name, length)
    }

    fn prepare(&mut self, name: &str, length: u64) {
        let mut image = self.image.lock();
        image.take_prepared();
        image.record(Operation::Prepare { name: name.to_owned(), length });
    }

    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut image = self.image.lock();
        image.may_fail(Call::Read)?;
        let file = image.inode(name).map(|inode| image.files.get(&inode))?;
        let Some(file) = file else { return Ok(0) };
        let length = buffer.len().min(file.length.saturating_sub(offset) as usize);
        file.copy_to(offset, &mut buffer[..length]);
        Ok(length)
    }

    fn write_at(&mut self, name: &str, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut image = self.image.lock();
        image.may_fail(Call::Write)?;
        let inode = image.inode(name)?;
        let mut data = parts.concat();
        let wanted = data.len();
        let length = image.files.get(&inode).map_or(0, |file| file.length);
        let more = (offset + wanted as u64).saturating_sub(length.max(offset));
        let lacking = more - image.room_for(more);
        data.truncate(wanted - lacking as usize);
        if let Some((place, at, landed)) = image.astray(name, inode, offset, &mut data) {
            image.put(place, at, landed);
        }
        image.put(inode, offset, data);
        if lacking > 0 { Err(full()) } else { Ok(()) }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut image = self.image.lock();
        let inode = image.inode(name)?;
        image.may_fail(Call::Sync).inspect_err(|_| image.mark_clean(inode))?;
        image.record(Operation::Sync { inode });
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut image = self.image.lock();
        image.may_fail(Call::Sync)?;
        image.record(Operation::SyncDir);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut image = self.image.lock();
        let inode = image.inode(from)?;
        image.names.remove(from);
        image.names.insert(to.to_owned(), inode);
        image.record(Operation::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut image = self.image.lock();
        image.inode(name)?;
        image.names.remove(name);
        image.record(Operation::Unlink { name: name.to_owned() });
        Ok(())
    }

    fn fork(&self) -> io::Result<Box<dyn Disk>> {
        Ok(Box::new(self.clone()))
    }
}
