//! The storage thread: recovers, then writes, publishes and compacts in the order in which it was asked (D1).
//!
//! Any failure ends it, but for a full disk (D5): a write that finds no room is given back, a snapshot kept to be published later, and it
//! looks once a second whether there is room again.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atomix_engine::{Input, Recovered};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Index, WriteBatch};
use atomix_storage::{SnapshotWriter, Storage, StorageError, StorageReader, load};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::debug;

use crate::ServerError;

/// Between two looks at whether the disk has room, and between two attempts of what found none.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// What the threads tell the driver: the engine's next input, or why they had to stop. Bounded by what the engine asks for: one write
/// at a time, one chunk per follower.
pub(crate) type Done = Result<Input, ServerError>;

/// Something for the storage thread to do.
pub(crate) enum Job {
    Write(u64, WriteBatch),
    Publish(SnapshotMeta),
    Compact(Index),
}

/// What the storage was found to hold, and its side objects.
pub(crate) struct Opened {
    pub(crate) recovered: Recovered,
    pub(crate) writer: Box<dyn SnapshotWriter>,
    pub(crate) reader: Box<dyn StorageReader>,
}

/// A thread that works off jobs until their sender is dropped. Joined when dropped by [`Worker::join`] only.
pub(crate) struct Worker<J> {
    jobs: mpsc::Sender<J>,
    thread: JoinHandle<()>,
}

impl<J: Send + 'static> Worker<J> {
    /// Runs `work` on a thread of its own. A panic in it is told like a failure.
    pub(crate) fn spawn(
        name: &str,
        done: UnboundedSender<Done>,
        work: impl FnOnce(&mpsc::Receiver<J>, &UnboundedSender<Done>) + Send + 'static,
    ) -> Result<Self, ServerError> {
        let (jobs, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&receiver, &done))) {
                let _ = done.send(Err(ServerError::Panicked(panic_message(&*panic))));
            }
        });
        let thread = thread.map_err(|error| ServerError::System(format!("can't start a thread: {error}")))?;
        Ok(Worker { jobs, thread })
    }

    /// Queues a job. A thread that has stopped has told why.
    pub(crate) fn give(&self, job: J) {
        let _ = self.jobs.send(job);
    }

    /// Lets the thread finish what it was given. Blocks.
    pub(crate) fn join(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

/// Starts the storage thread. It recovers first.
pub(crate) fn start(
    storage: Box<dyn Storage>,
    done: UnboundedSender<Done>,
    opened: oneshot::Sender<Result<Opened, StorageError>>,
) -> Result<Worker<Job>, ServerError> {
    Worker::spawn("atomix-storage", done, move |jobs, done| {
        let mut storage = storage;
        let recovered = open(&mut *storage);
        let failed = recovered.is_err();
        if opened.send(recovered).is_err() || failed {
            return;
        }
        if let Err(error) = Desk::new(&mut *storage, jobs, done).work() {
            let _ = done.send(Err(ServerError::Storage(error)));
        }
    })
}

/// Where the storage thread works.
struct Desk<'a> {
    storage: &'a mut dyn Storage,
    jobs: &'a mpsc::Receiver<Job>,
    done: &'a UnboundedSender<Done>,
    /// Snapshots that there was no room to publish.
    waiting: VecDeque<SnapshotMeta>,
    /// How far the log may be compacted, if there was no room even to say so.
    compactable: Option<Index>,
    /// There was no room for a write since the last look. Then there is none, whatever the storage says.
    refused: bool,
    /// What was told last of whether there is room.
    room: bool,
    /// When the storage was asked last.
    looked: Instant,
}

impl<'a> Desk<'a> {
    fn new(
        storage: &'a mut dyn Storage,
        jobs: &'a mpsc::Receiver<Job>,
        done: &'a UnboundedSender<Done>,
    ) -> Self {
        let (waiting, looked) = (VecDeque::new(), Instant::now());
        Desk { storage, jobs, done, waiting, compactable: None, refused: false, room: true, looked }
    }

    /// Works off jobs until nobody gives any more.
    fn work(mut self) -> Result<(), StorageError> {
        // One that came up on a full disk says so at once.
        self.look()?;
        loop {
            match self.jobs.recv_timeout(self.until_next_look()) {
                Ok(job) => self.carry_out(job)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            // At once when the reserve is touched: a second of writes could use it up.
            if self.room || self.until_next_look().is_zero() {
                self.look()?;
            }
        }
    }

    fn carry_out(&mut self, job: Job) -> Result<(), StorageError> {
        match job {
            Job::Write(token, batch) => match self.storage.write(&batch) {
                Ok(()) => self.tell(Input::Written(token)),
                Err(StorageError::Full(detail)) => {
                    debug!(detail, "no space left for a write");
                    self.refused = true;
                    self.tell(Input::NotWritten(token, batch));
                    // The moment to fill up the reserve, if it can be.
                    self.storage.has_room()?;
                    self.tell_room(false);
                }
                Err(error) => return Err(error),
            },
            Job::Publish(meta) => {
                self.waiting.push_back(meta);
                self.publish()?;
            }
            Job::Compact(through) => {
                self.compactable = Some(through);
                self.compact()?;
                self.publish()?;
            }
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<(), StorageError> {
        let Some(through) = self.compactable else { return Ok(()) };
        match self.storage.compact(through) {
            Ok(()) => self.compactable = None,
            Err(StorageError::Full(detail)) => debug!(detail, "no space left to compact the log"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Publishes what waits for it, in order, as far as there is room.
    fn publish(&mut self) -> Result<(), StorageError> {
        while let Some(meta) = self.waiting.front() {
            match self.storage.publish(meta) {
                Ok(()) => self.tell(Input::Published(meta.last)),
                Err(StorageError::Full(detail)) => {
                    debug!(detail, "no space left to publish a snapshot: once more in a second");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn until_next_look(&self) -> Duration {
        ROOM_INTERVAL.saturating_sub(self.looked.elapsed())
    }

    /// Tries again what found no room, asks whether the disk has some, and tells if that has changed. A write that was refused is given again
    /// when anything is told.
    fn look(&mut self) -> Result<(), StorageError> {
        self.compact()?;
        self.publish()?;
        let room = self.storage.has_room()?;
        self.looked = Instant::now();
        if std::mem::take(&mut self.refused) {
            self.room = false;
            self.tell(Input::Room(false));
        } else {
            self.tell_room(room);
        }
        Ok(())
    }

    fn tell_room(&mut self, room: bool) {
        if std::mem::replace(&mut self.room, room) != room {
            self.tell(Input::Room(room));
        }
    }

    fn tell(&self, input: Input) {
        let _ = self.done.send(Ok(input));
    }
}

fn open(storage: &mut dyn Storage) -> Result<Opened, StorageError> {
    let mut entries = Vec::new();
    let found = storage.recover(&mut |entry| entries.push(entry))?;
    let writer = storage.snapshot_writer()?;
    let mut reader = storage.reader()?;
    let snapshot = match found.snapshot {
        Some(meta) => {
            let bytes = load(&mut *reader, &meta)?;
            Some((meta, bytes))
        }
        None => None,
    };
    let recovered = Recovered {
        identity: found.identity,
        hard_state: found.hard_state,
        configuration: found.configuration,
        abstention: found.abstention,
        damage: found.damage,
        snapshot,
        entries,
    };
    Ok(Opened { recovered, writer, reader })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use atomix_protocol::{ClusterTime, Configuration, Entry, EntryId, HardState, Term};
    use atomix_storage::MemoryStorage;
    use parking_lot::Mutex;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// In memory. Finds no room until it was asked for it so often, or has compacted.
    struct Full {
        storage: MemoryStorage,
        looks: Arc<AtomicU32>,
        until: u32,
        /// Snapshots need room as well.
        snapshots: bool,
        done: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Full {
        fn is_roomy(&self) -> bool {
            self.looks.load(Ordering::Relaxed) >= self.until || self.done.lock().contains(&"compact")
        }
    }

    impl Storage for Full {
        fn recover(
            &mut self,
            entry: &mut dyn FnMut(Entry),
        ) -> Result<atomix_storage::Recovered, StorageError> {
            self.storage.recover(entry)
        }

        fn write(&mut self, _: &WriteBatch) -> Result<(), StorageError> {
            let room = self.is_roomy();
            self.done.lock().push(if room { "write" } else { "full" });
            if room { Ok(()) } else { Err(StorageError::Full("of a test".into())) }
        }

        fn publish(&mut self, _: &SnapshotMeta) -> Result<(), StorageError> {
            let room = !self.snapshots || self.is_roomy();
            self.done.lock().push(if room { "publish" } else { "no publish" });
            if room { Ok(()) } else { Err(StorageError::Full("of a test".into())) }
        }

        fn compact(&mut self, _: Index) -> Result<(), StorageError> {
            self.done.lock().push("compact");
            Ok(())
        }

        fn has_room(&mut self) -> Result<bool, StorageError> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            Ok(self.is_roomy())
        }

        fn snapshot_writer(&mut self) -> Result<Box<dyn SnapshotWriter>, StorageError> {
            self.storage.snapshot_writer()
        }

        fn reader(&mut self) -> Result<Box<dyn StorageReader>, StorageError> {
            self.storage.reader()
        }
    }

    /// What a thread whose disk is full until it was looked at so often did with some jobs.
    struct Run {
        worker: Worker<Job>,
        told: UnboundedReceiver<Done>,
        done: Arc<Mutex<Vec<&'static str>>>,
    }

    fn run(until: u32, jobs: Vec<Job>) -> Run {
        run_with(false, until, jobs)
    }

    fn run_with(snapshots: bool, until: u32, jobs: Vec<Job>) -> Run {
        let (looks, done) = (Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<_>>>::default());
        let storage = Full {
            storage: MemoryStorage::new(),
            looks: looks.clone(),
            until,
            snapshots,
            done: done.clone(),
        };
        let ((tell, told), (opened, opening)) = (unbounded_channel(), oneshot::channel());
        let worker = start(Box::new(storage), tell, opened).expect("a thread");
        opening.blocking_recv().expect("it runs").expect("memory");
        jobs.into_iter().for_each(|job| worker.give(job));
        Run { worker, told, done }
    }

    fn publish() -> Job {
        Job::Publish(SnapshotMeta {
            last: EntryId::new(Term(1), Index(1)),
            time: ClusterTime::ZERO,
            configuration: Configuration::default(),
            size: 0,
            checksum: 0,
        })
    }

    #[test]
    fn a_write_without_room_is_given_back_and_asked_for_again() {
        let written = WriteBatch { hard_state: Some(HardState::default()), ..WriteBatch::default() };
        let mut run = run(3, vec![Job::Write(7, written.clone())]);
        let mut next = || run.told.blocking_recv().expect("it runs").expect("not final");
        assert!(matches!(next(), Input::Room(false)), "it was looked at once at the start");
        assert!(matches!(next(), Input::NotWritten(7, batch) if batch == written));
        // Whoever has something to write is told now and then that this may be the time.
        assert!(matches!(next(), Input::Room(false)));
        run.worker.give(Job::Write(8, written));
        assert!(matches!(next(), Input::Written(8)));
        assert!(matches!(next(), Input::Room(true)));
        let done = run.done.lock().clone();
        assert_eq!(done, ["full", "write"]);
        run.worker.join();
    }

    #[test]
    fn a_write_with_nothing_but_a_term_passes_those_that_wait_for_room() {
        // Nothing is kept: what comes next is done next.
        let jobs = vec![Job::Write(1, WriteBatch::default()), publish(), Job::Compact(Index(1)), publish()];
        let mut run = run(u32::MAX, jobs);
        let mut published = 0;
        while published < 2 {
            let told = run.told.blocking_recv().expect("it runs").expect("not final");
            published += u32::from(matches!(told, Input::Published(_)));
        }
        run.worker.join();
        assert_eq!(*run.done.lock(), ["full", "publish", "compact", "publish"]);
    }

    #[test]
    fn a_snapshot_without_room_is_published_when_compaction_has_made_some() {
        let mut run = run_with(true, u32::MAX, vec![publish(), Job::Compact(Index(1))]);
        let mut next = || run.told.blocking_recv().expect("it runs").expect("not final");
        assert!(matches!(next(), Input::Room(false)));
        assert!(matches!(next(), Input::Published(_)));
        run.worker.join();
        assert_eq!(*run.done.lock(), ["no publish", "compact", "publish"]);
    }

    #[test]
    fn a_thread_without_room_ends_when_nobody_wants_it_any_more() {
        let mut run = run(u32::MAX, vec![Job::Write(1, WriteBatch::default())]);
        let mut next = || run.told.blocking_recv().expect("it runs").expect("not final");
        assert!(matches!(next(), Input::Room(false)));
        assert!(matches!(next(), Input::NotWritten(1, _)));
        run.worker.join();
        while let Some(told) = run.told.blocking_recv() {
            assert!(matches!(told, Ok(Input::Room(false))), "it told of a write that is not there: {told:?}");
        }
    }
}
