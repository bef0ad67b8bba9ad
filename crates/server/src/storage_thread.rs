//! The storage thread: recovers, then writes, publishes and compacts in the order in which it was asked (D1).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;

use atomix_engine::{Input, Recovered};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Index, WriteBatch};
use atomix_storage::{SnapshotWriter, Storage, StorageError, StorageReader};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::ServerError;

/// How much of a snapshot is read at once.
const READ_BYTES: usize = 1 << 20;

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
        for job in jobs {
            let result = carry_out(&mut *storage, job).map_err(ServerError::Storage);
            let failed = result.is_err();
            if let Some(result) = result.transpose() {
                let _ = done.send(result);
            }
            if failed {
                return;
            }
        }
    })
}

fn carry_out(storage: &mut dyn Storage, job: Job) -> Result<Option<Input>, StorageError> {
    match job {
        Job::Write(token, batch) => storage.write(&batch).map(|()| Some(Input::Written(token))),
        Job::Publish(meta) => storage.publish(&meta).map(|()| Some(Input::Published(meta.last))),
        Job::Compact(through) => storage.compact(through).map(|()| None),
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
        snapshot,
        entries,
    };
    Ok(Opened { recovered, writer, reader })
}

/// The whole of a published snapshot.
pub(crate) fn load(reader: &mut dyn StorageReader, meta: &SnapshotMeta) -> Result<Bytes, StorageError> {
    let mut whole = BytesMut::new();
    while (whole.len() as u64) < meta.size {
        match reader.snapshot(meta.last, whole.len() as u64, READ_BYTES)? {
            Some(data) if !data.is_empty() => whole.extend_from_slice(&data),
            _ => {
                let (missing, last) = (meta.size - whole.len() as u64, meta.last);
                return Err(StorageError::Corrupt(format!("the snapshot at {last} lacks {missing} bytes")));
            }
        }
    }
    Ok(whole.freeze())
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}
