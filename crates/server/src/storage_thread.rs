//! The storage thread: recovers, then writes, publishes and compacts in the order in which it was asked (D1).
//!
//! Any failure ends it, but for a full disk (D5): then it keeps the job, tries it again once a second, and looks as often whether there is
//! room again.

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
    /// Jobs that came while one before them found no room.
    behind: VecDeque<Job>,
    /// What was told last of whether there is room. There is none as long as a job waits for it, whatever the storage says.
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
        Desk { storage, jobs, done, behind: VecDeque::new(), room: true, looked: Instant::now() }
    }

    /// Works off jobs until nobody gives any more.
    fn work(mut self) -> Result<(), StorageError> {
        // One that came up on a full disk says so at once.
        self.look()?;
        loop {
            let job = match self.behind.pop_front() {
                Some(job) => job,
                None => match self.jobs.recv_timeout(self.until_next_look()) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => {
                        self.look()?;
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                },
            };
            if !self.finish(&job)? {
                return Ok(());
            }
            // At once when the reserve is touched: a second of writes could use it up.
            if self.room || self.until_next_look().is_zero() {
                self.look()?;
            }
        }
    }

    /// Carries out a job, for however long there is no room for it; `false` if nobody waits for it any more.
    fn finish(&mut self, job: &Job) -> Result<bool, StorageError> {
        while !self.carried_out(job)? {
            // The moment to fill up the reserve, if it can be.
            self.storage.has_room()?;
            self.tell(false);
            if !self.wait(job) {
                return Ok(false);
            }
            // What makes room goes first: behind the job that waits for room it would wait for ever.
            while let Some(place) = self.behind.iter().position(|next| next.may_overtake(job)) {
                let Some(next) = self.behind.remove(place) else { break };
                if !self.carried_out(&next)? {
                    self.behind.insert(place, next);
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Until it is time for another attempt, or something came that may make room; `false` if nobody waits for it any more.
    fn wait(&mut self, job: &Job) -> bool {
        let until = Instant::now() + ROOM_INTERVAL;
        loop {
            match self.jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(next) => {
                    let helps = next.may_overtake(job);
                    self.behind.push_back(next);
                    if helps {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// `false` if there was no room for it.
    fn carried_out(&mut self, job: &Job) -> Result<bool, StorageError> {
        let done = match job {
            Job::Write(token, batch) => self.storage.write(batch).map(|()| Some(Input::Written(*token))),
            Job::Publish(meta) => self.storage.publish(meta).map(|()| Some(Input::Published(meta.last))),
            Job::Compact(through) => self.storage.compact(*through).map(|()| None),
        };
        match done {
            Ok(input) => {
                if let Some(input) = input {
                    let _ = self.done.send(Ok(input));
                }
                Ok(true)
            }
            Err(StorageError::Full(detail)) => {
                debug!(detail, "no space left: once more in a second");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn until_next_look(&self) -> Duration {
        ROOM_INTERVAL.saturating_sub(self.looked.elapsed())
    }

    /// Asks whether the disk has room, and tells if that has changed.
    fn look(&mut self) -> Result<(), StorageError> {
        let room = self.storage.has_room()?;
        self.looked = Instant::now();
        self.tell(room);
        Ok(())
    }

    fn tell(&mut self, room: bool) {
        if std::mem::replace(&mut self.room, room) != room {
            let _ = self.done.send(Ok(Input::Room(room)));
        }
    }
}

impl Job {
    /// Whether it may be carried out before a write that finds no room, though it came after it. Compaction may: it drops nothing
    /// that the write knows of. So may a snapshot, unless the write brings more than entries: a term, say, that must be
    /// there before anything that was done in it (D1).
    fn may_overtake(&self, waiting: &Job) -> bool {
        match (self, waiting) {
            (Job::Compact(_), _) => true,
            (Job::Publish(_), Job::Write(_, batch)) => matches!(
                batch,
                WriteBatch {
                    identity: None,
                    configuration: None,
                    abstention: None,
                    hard_state: None,
                    truncate_after: None,
                    ..
                }
            ),
            _ => false,
        }
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
            self.done.lock().push("publish");
            Ok(())
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
        looks: Arc<AtomicU32>,
        done: Arc<Mutex<Vec<&'static str>>>,
    }

    fn run(until: u32, jobs: Vec<Job>) -> Run {
        let (looks, done) = (Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<_>>>::default());
        let storage = Full { storage: MemoryStorage::new(), looks: looks.clone(), until, done: done.clone() };
        let ((tell, told), (opened, opening)) = (unbounded_channel(), oneshot::channel());
        let worker = start(Box::new(storage), tell, opened).expect("a thread");
        opening.blocking_recv().expect("it runs").expect("memory");
        jobs.into_iter().for_each(|job| worker.give(job));
        Run { worker, told, looks, done }
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
    fn what_finds_no_room_is_kept_and_says_so() {
        let mut run = run(3, vec![Job::Write(7, WriteBatch::default())]);
        let mut told = Vec::new();
        while !matches!(told.last(), Some(Input::Room(true))) {
            told.push(run.told.blocking_recv().expect("it runs").expect("not final"));
        }
        assert!(matches!(told[..], [Input::Room(false), Input::Written(7), Input::Room(true)]), "{told:?}");
        // It was looked at once at the start, and once more after each attempt.
        assert_eq!(*run.done.lock(), ["full", "full", "write"]);
        assert!(run.looks.load(Ordering::Relaxed) >= 3);
        run.worker.join();
    }

    #[test]
    fn what_makes_room_goes_first_and_a_snapshot_with_it_unless_a_term_must_be_there_before() {
        for (hard_state, expected) in [
            (None::<HardState>, ["full", "publish", "compact", "write"]),
            (Some(HardState { term: Term(1), voted_for: None }), ["full", "compact", "write", "publish"]),
        ] {
            let batch = WriteBatch { hard_state, ..WriteBatch::default() };
            let mut run =
                run(u32::MAX, vec![Job::Write(1, batch), publish(), Job::Compact(Index(1)), publish()]);
            let mut published = 0;
            while published < 2 {
                let told = run.told.blocking_recv().expect("it runs").expect("not final");
                published += u32::from(matches!(told, Input::Published(_)));
            }
            run.worker.join();
            let done = run.done.lock().clone();
            let first = |what| done.iter().position(|done| *done == what).expect(what);
            let order: Vec<_> = expected.iter().map(|what| first(*what)).collect();
            assert!(order.is_sorted(), "{done:?}");
        }
    }

    #[test]
    fn a_thread_that_waits_for_room_ends_when_nobody_wants_it_any_more() {
        let mut run = run(u32::MAX, vec![Job::Write(1, WriteBatch::default())]);
        let told = run.told.blocking_recv().expect("it runs");
        assert!(matches!(told, Ok(Input::Room(false))), "{told:?}");
        run.worker.join();
        assert!(run.told.blocking_recv().is_none(), "it told of a write that is not there");
    }
}
