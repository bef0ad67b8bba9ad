//! Beside the storage thread: one thread writes snapshots, another reads for followers that are behind.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use atomix_engine::{ChunkOutcome, Input, Restoring, Retired};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Index, ServerId};

use atomix_session::SnapshotSource;
use atomix_storage::{Received, SnapshotWriter, StorageError, StorageReader, receive};
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::ServerError;
use crate::storage_thread::{Done, Worker, load};

/// How much of a snapshot is gathered before it is written.
const WRITE_BYTES: usize = 256 << 10;
/// After so much of an own snapshot its writer pauses for as long as that took.
const PACED_BYTES: usize = 1 << 20;
/// At most for so long at a time: one that never ends keeps the log from being compacted.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Something for the thread that writes snapshots.
pub(crate) enum WriteJob {
    Take(SnapshotMeta, Box<dyn SnapshotSource>, Turn),
    Chunk { meta: SnapshotMeta, offset: u64, data: Bytes, done: bool },
}

/// Something for the thread that reads.
pub(crate) enum ReadJob {
    Entries { to: ServerId, from: Index, through: Index, bytes: u64 },
    Chunk { to: ServerId, meta: SnapshotMeta, offset: u64, bytes: usize },
    Whole(SnapshotMeta),
    Restore(SnapshotMeta, Restoring),
    Retire(Retired),
}

/// Which received snapshot was begun last: one's own, begun before, is not wanted any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<AtomicU64>);

/// The moment at which an own snapshot was begun.
pub(crate) struct Turn {
    turns: Turns,
    begun: u64,
}

impl Turns {
    /// A received snapshot begins.
    pub(crate) fn next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// An own snapshot begins.
    pub(crate) fn turn(&self) -> Turn {
        Turn { turns: self.clone(), begun: self.0.load(Ordering::Relaxed) }
    }
}

impl Turn {
    fn is_over(&self) -> bool {
        self.turns.0.load(Ordering::Relaxed) != self.begun
    }
}

/// Starts the thread that writes snapshots.
pub(crate) fn start_writer(
    mut writer: Box<dyn SnapshotWriter>,
    done: UnboundedSender<Done>,
) -> Result<Worker<WriteJob>, ServerError> {
    Worker::spawn("atomix-snapshots", done, move |jobs, done| {
        work(jobs, done, |job| write(&mut *writer, job))
    })
}

/// Starts the thread that reads.
pub(crate) fn start_reader(
    mut reader: Box<dyn StorageReader>,
    done: UnboundedSender<Done>,
) -> Result<Worker<ReadJob>, ServerError> {
    Worker::spawn("atomix-reads", done, move |jobs, done| work(jobs, done, |job| read(&mut *reader, job)))
}

fn work<J>(
    jobs: &mpsc::Receiver<J>,
    done: &UnboundedSender<Done>,
    mut carry_out: impl FnMut(J) -> Result<Option<Input>, StorageError>,
) {
    for job in jobs {
        match carry_out(job) {
            Ok(None) => {}
            Ok(Some(input)) => {
                let _ = done.send(Ok(input));
            }
            Err(error) => {
                let _ = done.send(Err(ServerError::Storage(error)));
                return;
            }
        }
    }
}

fn read(reader: &mut dyn StorageReader, job: ReadJob) -> Result<Option<Input>, StorageError> {
    Ok(Some(match job {
        ReadJob::Entries { to, from, through, bytes } => {
            Input::Fetched { to, from, entries: reader.entries(from, through, bytes)? }
        }
        ReadJob::Chunk { to, meta, offset, bytes } => {
            Input::ChunkRead { to, last: meta.last, offset, data: reader.snapshot(meta.last, offset, bytes)? }
        }
        ReadJob::Whole(meta) => Input::SnapshotLoaded(meta.last, load(reader, &meta)?),
        ReadJob::Restore(meta, restoring) => {
            Input::Restored(meta.last, restoring.read(&load(reader, &meta)?))
        }
        ReadJob::Retire(retired) => {
            drop(retired);
            return Ok(None);
        }
    }))
}

fn write(writer: &mut dyn SnapshotWriter, job: WriteJob) -> Result<Option<Input>, StorageError> {
    match job {
        WriteJob::Take(meta, source, turn) => take(writer, meta, source, turn),
        WriteJob::Chunk { meta, offset, data, done } => {
            let last = meta.last;
            let outcome = match receive(writer, &meta, offset, &data, done)? {
                Received::Next(next) => ChunkOutcome::Next(next),
                Received::Whole => ChunkOutcome::Whole,
                Received::Bad => ChunkOutcome::Bad,
            };
            Ok(Some(Input::ChunkWritten { last, outcome }))
        }
    }
}

/// Writes an own snapshot, unless a received one takes its place meanwhile.
fn take(
    writer: &mut dyn SnapshotWriter,
    mut meta: SnapshotMeta,
    mut source: Box<dyn SnapshotSource>,
    turn: Turn,
) -> Result<Option<Input>, StorageError> {
    if turn.is_over() {
        return Ok(None);
    }
    writer.begin(meta.last)?;
    let mut out = BufWriter::with_capacity(
        WRITE_BYTES,
        Out { writer: &mut *writer, turn, pace: Pace::new(), failure: None },
    );
    let written = source.write_to(&mut out).and_then(|()| out.flush());
    // What is left in the buffer after an error must not be written when it is dropped.
    let (out, _) = out.into_parts();
    match (written, out.failure) {
        (Ok(()), None) => {}
        (_, Some(error)) => return Err(error),
        (Err(_), None) if out.turn.is_over() => return Ok(None),
        (Err(error), None) => {
            return Err(StorageError::Failed(format!("a snapshot could not be written: {error}")));
        }
    }
    (meta.size, meta.checksum) = writer.written();
    writer.finish(&meta)?;
    Ok(Some(Input::SnapshotTaken(meta)))
}

/// Gives the disk back to the log for as long as it was used: the log's syncs must not stand behind a whole snapshot.
#[derive(Debug)]
struct Pace {
    written: usize,
    since: Instant,
}

impl Pace {
    fn new() -> Self {
        Pace { written: 0, since: Instant::now() }
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= PACED_BYTES {
            std::thread::sleep(self.since.elapsed().min(LONGEST_PAUSE));
            *self = Pace::new();
        }
    }
}

/// Where an own snapshot is written to.
struct Out<'a> {
    writer: &'a mut dyn SnapshotWriter,
    turn: Turn,
    pace: Pace,
    failure: Option<StorageError>,
}

impl Write for Out<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.turn.is_over() {
            return Err(io::Error::other("a received snapshot takes its place"));
        }
        match self.writer.write(data) {
            Ok(()) => {
                self.pace.wrote(data.len());
                Ok(data.len())
            }
            Err(error) => {
                let said = io::Error::other(error.to_string());
                self.failure = Some(error);
                Err(said)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{ClusterTime, Configuration, EntryId, Term};
    use atomix_storage::{MemoryStorage, Storage};

    use super::*;

    fn meta(data: &[u8]) -> SnapshotMeta {
        SnapshotMeta {
            last: EntryId::new(Term(2), Index(5)),
            size: data.len() as u64,
            checksum: crc32c::crc32c(data),
            time: ClusterTime::ZERO,
            configuration: Configuration::default(),
        }
    }

    #[test]
    fn an_own_snapshot_is_measured_and_can_be_read_back() {
        let mut storage = MemoryStorage::new();
        let mut writer = storage.snapshot_writer().expect("memory");
        let mut wanted = meta(b"state");
        (wanted.size, wanted.checksum) = (0, 0);
        let job = WriteJob::Take(wanted, Box::new(Bytes::from_static(b"state")), Turns::default().turn());
        let Some(Input::SnapshotTaken(taken)) = write(&mut *writer, job).expect("memory") else {
            panic!("not taken");
        };
        assert_eq!(taken, meta(b"state"));
        storage.publish(&taken).expect("finished");
        let mut reader = storage.reader().expect("memory");
        assert_eq!(load(&mut *reader, &taken), Ok(Bytes::from_static(b"state")));
        let longer = SnapshotMeta { size: 6, ..taken };
        assert!(matches!(load(&mut *reader, &longer), Err(StorageError::Corrupt(_))));
    }

    /// Is overtaken by a received snapshot while it is written.
    struct Overtaken(Turns);

    impl SnapshotSource for Overtaken {
        fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
            out.write_all(&[1; 2 * WRITE_BYTES])?;
            self.0.next();
            out.write_all(&[2; 2 * WRITE_BYTES])
        }
    }

    #[test]
    fn a_received_snapshot_stops_an_own_one() {
        let mut writer = MemoryStorage::new().snapshot_writer().expect("memory");
        let turns = Turns::default();
        let job = WriteJob::Take(meta(b""), Box::new(Overtaken(turns.clone())), turns.turn());
        assert!(write(&mut *writer, job).expect("memory").is_none(), "reported though it was stopped");
        let waiting = turns.turn();
        turns.next();
        let job = WriteJob::Take(meta(b""), Box::new(Bytes::new()), waiting);
        assert!(write(&mut *writer, job).expect("memory").is_none(), "begun though it was overtaken");
    }
}
