//! A server's storage threads: each carries out one task at a time, at once on the disk, and reports it later.

use std::collections::VecDeque;
use std::io::{self, Write};

use atomix_engine::{Input, Output, Restoring, Retired};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, EntryId, Index, ServerId, WriteBatch};
use atomix_raft::ChunkOutcome;
use atomix_session::SnapshotSource;
use atomix_storage::{Received, Recovered, SnapshotWriter, Storage, StorageError, StorageReader, receive};
use atomix_storage_file::{FileOptions, FileStorage};
use bytes::Bytes;

use super::disk::{Job, SimDisk};
use super::room::Held;

/// The threads: the log, snapshots that are written, and everything that is read.
pub(super) const LANES: usize = 3;
pub(super) const LOG: usize = 0;
pub(super) const SNAPSHOTS: usize = 1;
pub(super) const READS: usize = 2;

/// What is asked of a thread.
pub(super) enum Task {
    Write(u64, WriteBatch),
    Publish(SnapshotMeta),
    Compact(Index),
    TakeSnapshot(SnapshotMeta, Box<dyn SnapshotSource>),
    WriteChunk {
        meta: SnapshotMeta,
        offset: u64,
        data: Bytes,
        done: bool,
    },
    Fetch {
        to: ServerId,
        from: Index,
        through: Index,
        bytes: u64,
    },
    ReadChunk {
        to: ServerId,
        meta: SnapshotMeta,
        offset: u64,
        bytes: usize,
    },
    LoadSnapshot(SnapshotMeta),
    Restore(SnapshotMeta, Restoring),
    Retire(Retired),
    /// Whether there is room.
    Look,
}

impl Task {
    /// The task that an output asks for, or what it asks for instead.
    pub(super) fn from_output(output: Output) -> Result<Task, String> {
        Ok(match output {
            Output::Write(token, batch) => Task::Write(token, batch),
            Output::Publish(meta) => Task::Publish(meta),
            Output::Compact(through) => Task::Compact(through),
            Output::TakeSnapshot(meta, source) => Task::TakeSnapshot(meta, source),
            Output::WriteChunk { meta, offset, data, done } => Task::WriteChunk { meta, offset, data, done },
            Output::Fetch { to, from, through, bytes } => Task::Fetch { to, from, through, bytes },
            Output::ReadChunk { to, meta, offset, bytes } => Task::ReadChunk { to, meta, offset, bytes },
            Output::LoadSnapshot(meta) => Task::LoadSnapshot(meta),
            Output::Restore(meta, restoring) => Task::Restore(meta, restoring),
            Output::Retire(retired) => Task::Retire(retired),
            other => return Err(format!("{other:?}")),
        })
    }

    /// What it writes, if it does.
    pub(super) fn moment(&self) -> Option<Moment> {
        match self {
            Task::Write(..) => Some(Moment::Write),
            Task::Publish(_) => Some(Moment::Publish),
            Task::Compact(_) => Some(Moment::Compact),
            _ if self.lane() == SNAPSHOTS => Some(Moment::Snapshot),
            _ => None,
        }
    }

    pub(super) fn lane(&self) -> usize {
        match self {
            Task::Write(..) | Task::Publish(_) | Task::Compact(_) | Task::Look => LOG,
            Task::TakeSnapshot(..) | Task::WriteChunk { .. } => SNAPSHOTS,
            Task::Fetch { .. } | Task::ReadChunk { .. } | Task::LoadSnapshot(_) => READS,
            Task::Restore(..) | Task::Retire(_) => READS,
        }
    }
}

/// How a task ended.
enum Carried {
    Done(Effect, Option<Input>),
    /// There was no room for it: as if it had not been begun.
    Full(Task),
}

/// The whole of a snapshot, as it went to the disk or came from it.
#[derive(Debug)]
pub(super) enum Content {
    Written(EntryId, Bytes),
    Read(EntryId, Bytes),
}

/// What a thread writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A batch.
    Write,
    /// A batch that begins a segment.
    Roll,
    Compact,
    Publish,
    Snapshot,
}

/// What is true once a task is done, apart from what the server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Written(u64),
    /// There was no room for a write.
    Refused(u64),
    Published(EntryId),
}

/// A task that was carried out and is not yet done.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) effect: Effect,
    pub(super) reports: Vec<Input>,
    pub(super) content: Option<Content>,
    takes_snapshot: bool,
    moment: Option<Moment>,
}

#[derive(Default)]
pub(super) struct Lane {
    pub(super) queue: VecDeque<Task>,
    pub(super) running: Option<Running>,
}

/// The threads of one server process.
pub(super) struct Threads {
    disk: SimDisk,
    pub(super) storage: FileStorage,
    pub(super) writer: Box<dyn SnapshotWriter>,
    reader: Box<dyn StorageReader>,
    pub(super) lanes: [Lane; LANES],
    next_job: Job,
    /// What was last said of room.
    pub(super) room: bool,
    /// There was no room for a write since the last look.
    pub(super) refused: bool,
    /// Snapshots that there was no room to publish.
    pub(super) waiting: VecDeque<SnapshotMeta>,
    pub(super) held: Option<Held>,
    /// The snapshots' thread holds something since the last look.
    pub(super) holds: bool,
    content: Option<Content>,
}

/// What a start found.
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) entries: Vec<Entry>,
    pub(super) snapshot: Option<Bytes>,
}

impl Threads {
    /// Opens the disk and recovers. The operations are left as a job under way: [`SimDisk::complete`] or a crash ends it.
    pub(super) fn open(
        disk: &SimDisk,
        segment_bytes: u64,
        job: Job,
    ) -> Result<(Threads, Found), StorageError> {
        disk.begin(job);
        let mut storage = FileStorage::open(Box::new(disk.clone()), file_options(segment_bytes))?;
        let mut entries = Vec::new();
        let recovered = storage.recover(&mut |entry| entries.push(entry))?;
        let writer = storage.snapshot_writer()?;
        let mut reader = storage.reader()?;
        let snapshot = match &recovered.snapshot {
            Some(meta) => Some(load(reader.as_mut(), meta)?),
            None => None,
        };
        disk.end();
        let lanes = std::array::from_fn(|_| Lane::default());
        let threads = Threads {
            disk: disk.clone(),
            storage,
            writer,
            reader,
            lanes,
            next_job: job + 1,
            room: true,
            refused: false,
            waiting: VecDeque::new(),
            held: None,
            holds: false,
            content: None,
        };
        Ok((threads, Found { recovered, entries, snapshot }))
    }

    /// A number for the first job of the next start.
    pub(super) fn next_job(&self) -> Job {
        self.next_job
    }

    /// Queues a task; returns its thread.
    pub(super) fn push(&mut self, task: Task) -> usize {
        let lane = task.lane();
        // A snapshot that is received stops an own one from being taken.
        if let Task::WriteChunk { meta, .. } = &task {
            self.lanes[lane].queue.retain(|task| !matches!(task, Task::TakeSnapshot(..)));
            if let Some(running) = self.lanes[lane].running.as_mut().filter(|running| running.takes_snapshot)
            {
                running.reports.clear();
            }
            match &mut self.held {
                Some(Held::Chunks(answers)) => {
                    answers.push(meta.last);
                    return lane;
                }
                held => *held = None,
            }
        }
        self.lanes[lane].queue.push_back(task);
        lane
    }

    /// Begins the next task of an idle thread, if there is one.
    pub(super) fn start(&mut self, lane: usize) -> Result<Option<Job>, StorageError> {
        if self.lanes[lane].running.is_some() {
            return Ok(None);
        }
        let Some(task) = self.lanes[lane].queue.pop_front() else { return Ok(None) };
        let job = self.next_job;
        self.next_job += 1;
        self.disk.begin(job);
        let takes_snapshot = matches!(task, Task::TakeSnapshot(..));
        let moment = task.moment();
        let (effect, reports) = match self.carry_out(task)? {
            Carried::Done(effect, report) => (effect, report.into_iter().collect()),
            Carried::Full(task) => self.put_back(lane, task)?,
        };
        self.disk.end();
        let content = self.content.take();
        self.lanes[lane].running = Some(Running { job, effect, reports, content, takes_snapshot, moment });
        Ok(Some(job))
    }

    /// What an idle thread does next.
    pub(super) fn next(&self, lane: usize) -> Option<&Task> {
        self.lanes[lane].queue.front().filter(|_| self.lanes[lane].running.is_none())
    }

    /// Whether a thread is in the middle of something like that.
    pub(super) fn is_at(&self, lane: usize, moment: Moment) -> bool {
        let Some(running) = &self.lanes[lane].running else { return false };
        match moment {
            Moment::Write => lane == LOG,
            Moment::Roll => lane == LOG && self.disk.has_allocated(running.job),
            other => running.moment == Some(other),
        }
    }

    /// Whether nothing is written any more.
    pub(super) fn is_poisoned(&mut self) -> bool {
        self.storage.compact(Index::ZERO).is_err()
    }

    /// What the threads are at.
    pub(super) fn running(&self) -> Vec<(usize, Job)> {
        let job = |(lane, at): (usize, &Lane)| at.running.as_ref().map(|running| (lane, running.job));
        self.lanes.iter().enumerate().filter_map(job).collect()
    }

    /// The running task of a thread is done, if it is that one.
    pub(super) fn done(&mut self, lane: usize, job: Job) -> Option<Running> {
        let running = self.lanes[lane].running.take_if(|running| running.job == job)?;
        self.disk.complete(running.job);
        Some(running)
    }

    fn carry_out(&mut self, task: Task) -> Result<Carried, StorageError> {
        let (effect, report) = match task {
            Task::Write(token, batch) => match self.storage.write(&batch) {
                Err(StorageError::Full(_)) => return Ok(Carried::Full(Task::Write(token, batch))),
                written => written.map(|()| (Effect::Written(token), Input::Written(token)))?,
            },
            Task::Publish(meta) => {
                self.waiting.push_back(meta);
                let Some(meta) = self.waiting.pop_front() else {
                    return Ok(Carried::Done(Effect::None, None));
                };
                match self.storage.publish(&meta) {
                    Err(StorageError::Full(_)) => return Ok(Carried::Full(Task::Publish(meta))),
                    published => {
                        published.map(|()| (Effect::Published(meta.last), Input::Published(meta.last)))?
                    }
                }
            }
            Task::Compact(through) => {
                self.storage.compact(through)?;
                self.publish_again();
                return Ok(Carried::Done(Effect::None, None));
            }
            Task::Look => return Ok(Carried::Done(Effect::None, self.look()?)),
            Task::TakeSnapshot(meta, source) => return self.take(meta, source),
            Task::WriteChunk { meta, offset, data, done } => {
                let outcome = match receive(self.writer.as_mut(), &meta, offset, &data, done) {
                    Ok(Received::Next(next)) => ChunkOutcome::Next(next),
                    Ok(Received::Whole) => ChunkOutcome::Whole,
                    Ok(Received::Bad) => ChunkOutcome::Bad,
                    Err(StorageError::Full(_)) => {
                        return Ok(Carried::Full(Task::WriteChunk { meta, offset, data, done }));
                    }
                    Err(error) => return Err(error),
                };
                (Effect::None, Input::ChunkWritten { last: meta.last, outcome })
            }
            Task::Retire(retired) => {
                drop(retired);
                return Ok(Carried::Done(Effect::None, None));
            }
            reads => (Effect::None, self.read(reads)?),
        };
        Ok(Carried::Done(effect, Some(report)))
    }

    fn read(&mut self, task: Task) -> Result<Input, StorageError> {
        Ok(match task {
            Task::Fetch { to, from, through, bytes } => {
                let entries = self.reader.entries(from, through, bytes)?;
                Input::Fetched { to, from, entries }
            }
            Task::ReadChunk { to, meta, offset, bytes } => {
                let data = self.reader.snapshot(meta.last, offset, bytes)?;
                Input::ChunkRead { to, last: meta.last, offset, data }
            }
            Task::LoadSnapshot(meta) => {
                let bytes = load(self.reader.as_mut(), &meta)?;
                self.content = Some(Content::Read(meta.last, bytes.clone()));
                Input::SnapshotLoaded(meta.last, bytes)
            }
            Task::Restore(meta, restoring) => {
                let bytes = load(self.reader.as_mut(), &meta)?;
                self.content = Some(Content::Read(meta.last, bytes.clone()));
                Input::Restored(meta.last, restoring.read(&bytes))
            }
            _ => unreachable!("all others write"),
        })
    }

    fn take(
        &mut self,
        mut meta: SnapshotMeta,
        mut source: Box<dyn SnapshotSource>,
    ) -> Result<Carried, StorageError> {
        match self.write_out(&mut meta, source.as_mut()) {
            Err(StorageError::Full(_)) => Ok(Carried::Full(Task::TakeSnapshot(meta, source))),
            written => written.map(|()| Carried::Done(Effect::None, Some(Input::SnapshotTaken(meta)))),
        }
    }

    fn write_out(
        &mut self,
        meta: &mut SnapshotMeta,
        source: &mut dyn SnapshotSource,
    ) -> Result<(), StorageError> {
        self.writer.begin(meta.last)?;
        let mut sink = Sink { writer: self.writer.as_mut(), failed: None, copy: Vec::new() };
        let written = source.write_to(&mut sink);
        let Sink { failed, copy, .. } = sink;
        if let Some(failed) = failed {
            return Err(failed);
        }
        written.map_err(|error| StorageError::Failed(error.to_string()))?;
        (meta.size, meta.checksum) = self.writer.written();
        self.writer.finish(meta)?;
        self.content = Some(Content::Written(meta.last, copy.into()));
        Ok(())
    }
}

/// What is chosen about the files.
pub(super) fn file_options(segment_bytes: u64) -> FileOptions {
    FileOptions { segment_bytes }
}

fn load(reader: &mut dyn StorageReader, meta: &SnapshotMeta) -> Result<Bytes, StorageError> {
    let size = usize::try_from(meta.size).unwrap_or(usize::MAX);
    let mut whole = Vec::with_capacity(size);
    while whole.len() < size {
        match reader.snapshot(meta.last, whole.len() as u64, size - whole.len())? {
            Some(part) if !part.is_empty() => whole.extend_from_slice(&part),
            _ => return Err(StorageError::Corrupt(format!("the snapshot of {} ends early", meta.last))),
        }
    }
    if crc32c::crc32c(&whole) != meta.checksum {
        return Err(StorageError::Corrupt(format!("the snapshot of {} does not verify", meta.last)));
    }
    Ok(Bytes::from(whole))
}

struct Sink<'a> {
    writer: &'a mut dyn SnapshotWriter,
    failed: Option<StorageError>,
    copy: Vec<u8>,
}

impl Write for Sink<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Err(io::Error::other("the snapshot could not be written"));
        }
        self.writer.write(data).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("the snapshot can't be written")
        })?;
        self.copy.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("next_job", &self.next_job).finish_non_exhaustive()
    }
}
