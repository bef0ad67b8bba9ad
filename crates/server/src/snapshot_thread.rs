//! The thread that writes snapshots beside the storage thread: own ones, and those that a leader sends.
//!
//! A failure is final, but for a full disk: a snapshot that finds no room is dropped, and tried again later (D5).

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use atomix_engine::{ChunkOutcome, Input};
use atomix_protocol::EntryId;
use atomix_protocol::peer::SnapshotMeta;
use atomix_session::SnapshotSource;
use atomix_storage::{Received, SnapshotWriter, StorageError, receive};
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::ServerError;
use crate::storage_thread::{Done, Worker};

/// How much of a snapshot is gathered before it is written.
const WRITE_BYTES: usize = 256 << 10;
/// After so much of an own snapshot its writer pauses for as long as that took.
const PACED_BYTES: usize = 1 << 20;
/// At most for so long at a time: one that never ends keeps the log from being compacted.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A snapshot that found no room is tried again after this: it has taken all that was left, which the log may need meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// Something for the thread that writes snapshots.
pub(crate) enum WriteJob {
    Take(SnapshotMeta, Box<dyn SnapshotSource>, Turn),
    Chunk { meta: SnapshotMeta, offset: u64, data: Bytes, done: bool },
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
    writer: Box<dyn SnapshotWriter>,
    done: UnboundedSender<Done>,
) -> Result<Worker<WriteJob>, ServerError> {
    Worker::spawn("atomix-snapshots", done, move |jobs, done| {
        if let Err(error) = (Writing { writer, held: Held::Nothing }).work(jobs, done) {
            let _ = done.send(Err(ServerError::Storage(error)));
        }
    })
}

/// The thread that writes snapshots.
struct Writing {
    writer: Box<dyn SnapshotWriter>,
    held: Held,
}

/// What found no room, and waits.
enum Held {
    Nothing,
    /// An own snapshot: begun anew then.
    Own(Instant, SnapshotMeta, Box<dyn SnapshotSource>, Turn),
    /// Chunks of a received one, answered then: who sends it would begin anew at once.
    Chunks(Instant, Vec<EntryId>),
}

impl Writing {
    /// Works until nobody gives any more.
    fn work(
        mut self,
        jobs: &mpsc::Receiver<WriteJob>,
        done: &UnboundedSender<Done>,
    ) -> Result<(), StorageError> {
        loop {
            let next = match &self.held {
                Held::Nothing => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Held::Own(until, ..) | Held::Chunks(until, _) => {
                    jobs.recv_timeout(until.saturating_duration_since(Instant::now()))
                }
            };
            let inputs = match next {
                Ok(job) => self.write(job)?.into_iter().collect(),
                Err(RecvTimeoutError::Timeout) => self.again()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for input in inputs {
                let _ = done.send(Ok(input));
            }
        }
    }

    fn write(&mut self, job: WriteJob) -> Result<Option<Input>, StorageError> {
        match job {
            WriteJob::Take(meta, source, turn) => self.take(meta, source, turn),
            WriteJob::Chunk { meta, offset, data, done } => {
                if let Held::Chunks(_, answers) = &mut self.held {
                    answers.push(meta.last);
                    return Ok(None);
                }
                // An own snapshot that waits is not wanted any more.
                self.held = Held::Nothing;
                self.receive(&meta, offset, &data, done)
            }
        }
    }

    /// It is time for what found no room.
    fn again(&mut self) -> Result<Vec<Input>, StorageError> {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => Ok(Vec::new()),
            Held::Own(_, meta, source, turn) => Ok(self.take(meta, source, turn)?.into_iter().collect()),
            Held::Chunks(_, answers) => {
                let bad = |last| Input::ChunkWritten { last, outcome: ChunkOutcome::Bad };
                Ok(answers.into_iter().map(bad).collect())
            }
        }
    }

    fn receive(
        &mut self,
        meta: &SnapshotMeta,
        offset: u64,
        data: &[u8],
        done: bool,
    ) -> Result<Option<Input>, StorageError> {
        let outcome = match receive(&mut *self.writer, meta, offset, data, done) {
            Ok(Received::Next(next)) => ChunkOutcome::Next(next),
            Ok(Received::Whole) => ChunkOutcome::Whole,
            Ok(Received::Bad) => ChunkOutcome::Bad,
            Err(StorageError::Full(detail)) => {
                warn!(index = meta.last.index.0, detail, "no room for a received snapshot: later again");
                self.drop_written(meta.last)?;
                self.held = Held::Chunks(Instant::now() + AGAIN, vec![meta.last]);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Input::ChunkWritten { last: meta.last, outcome }))
    }

    /// Writes an own snapshot, unless a received one takes its place meanwhile.
    fn take(
        &mut self,
        mut meta: SnapshotMeta,
        mut source: Box<dyn SnapshotSource>,
        turn: Turn,
    ) -> Result<Option<Input>, StorageError> {
        if turn.is_over() {
            return Ok(None);
        }
        let written = write_out(&mut *self.writer, meta.last, &mut *source, &turn).and_then(|whole| {
            (meta.size, meta.checksum) = self.writer.written();
            if whole { self.writer.finish(&meta).map(|()| true) } else { Ok(false) }
        });
        match written {
            Ok(whole) => Ok(whole.then_some(Input::SnapshotTaken(meta))),
            Err(StorageError::Full(detail)) => {
                warn!(index = meta.last.index.0, detail, "no room for a snapshot: later again");
                self.drop_written(meta.last)?;
                self.held = Held::Own(Instant::now() + AGAIN, meta, source, turn);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives back the room that a snapshot took which found too little.
    fn drop_written(&mut self, last: EntryId) -> Result<(), StorageError> {
        match self.writer.begin(last) {
            // It is dropped all the same.
            Err(StorageError::Full(_)) => Ok(()),
            result => result,
        }
    }
}

/// Whether all was written: not if a received snapshot takes its place meanwhile.
fn write_out(
    writer: &mut dyn SnapshotWriter,
    last: EntryId,
    source: &mut dyn SnapshotSource,
    turn: &Turn,
) -> Result<bool, StorageError> {
    writer.begin(last)?;
    let out = Out { writer, turn, pace: Pace::new(), failure: None };
    let mut out = BufWriter::with_capacity(WRITE_BYTES, out);
    let written = source.write_to(&mut out).and_then(|()| out.flush());
    // What is left in the buffer after an error must not be written when it is dropped.
    let (out, _) = out.into_parts();
    match (written, out.failure) {
        (Ok(()), None) => Ok(true),
        (_, Some(error)) => Err(error),
        (Err(_), None) if turn.is_over() => Ok(false),
        (Err(error), None) => Err(StorageError::Failed(format!("a snapshot could not be written: {error}"))),
    }
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
    turn: &'a Turn,
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
    use atomix_protocol::{ClusterTime, Configuration, Index, Term};
    use atomix_storage::{MemoryStorage, Storage, load};

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

    fn of(writer: Box<dyn SnapshotWriter>) -> Writing {
        Writing { writer, held: Held::Nothing }
    }

    #[test]
    fn an_own_snapshot_is_measured_and_can_be_read_back() {
        let mut storage = MemoryStorage::new();
        let mut writing = of(storage.snapshot_writer().expect("memory"));
        let mut wanted = meta(b"state");
        (wanted.size, wanted.checksum) = (0, 0);
        let job = WriteJob::Take(wanted, Box::new(Bytes::from_static(b"state")), Turns::default().turn());
        let Some(Input::SnapshotTaken(taken)) = writing.write(job).expect("memory") else {
            panic!("not taken");
        };
        assert_eq!(taken, meta(b"state"));
        storage.publish(&taken).expect("finished");
        let mut reader = storage.reader().expect("memory");
        assert_eq!(load(&mut *reader, &taken), Ok(Bytes::from_static(b"state")));
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
        let mut writing = of(MemoryStorage::new().snapshot_writer().expect("memory"));
        let turns = Turns::default();
        let job = WriteJob::Take(meta(b""), Box::new(Overtaken(turns.clone())), turns.turn());
        assert!(writing.write(job).expect("memory").is_none(), "reported though it was stopped");
        let waiting = turns.turn();
        turns.next();
        let job = WriteJob::Take(meta(b""), Box::new(Bytes::new()), waiting);
        assert!(writing.write(job).expect("memory").is_none(), "begun though it was overtaken");
    }

    /// In memory, with room for so many bytes.
    struct Small(Box<dyn SnapshotWriter>, u64);

    impl SnapshotWriter for Small {
        fn begin(&mut self, last: EntryId) -> Result<(), StorageError> {
            self.0.begin(last)
        }

        fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
            if self.0.written().0 + data.len() as u64 > self.1 {
                return Err(StorageError::Full("small".into()));
            }
            self.0.write(data)
        }

        fn finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
            self.0.finish(meta)
        }

        fn writing(&self) -> Option<EntryId> {
            self.0.writing()
        }

        fn written(&self) -> (u64, u32) {
            self.0.written()
        }
    }

    fn small(room: u64) -> Writing {
        of(Box::new(Small(MemoryStorage::new().snapshot_writer().expect("memory"), room)))
    }

    #[test]
    fn an_own_snapshot_without_room_gives_back_what_it_took_and_is_begun_again() {
        let mut writing = small(3);
        let job = WriteJob::Take(meta(b""), Box::new(Bytes::from_static(b"state")), Turns::default().turn());
        assert!(writing.write(job).expect("not final").is_none());
        assert_eq!(writing.writer.written().0, 0, "kept what it took");
        assert!(writing.again().expect("not final").is_empty(), "there is no room yet");
        writing.writer = small(5).writer;
        let inputs = writing.again().expect("there is room");
        assert!(
            matches!(&inputs[..], [Input::SnapshotTaken(taken)] if *taken == meta(b"state")),
            "{inputs:?}"
        );
        assert!(writing.again().expect("nothing waits").is_empty(), "taken twice");
    }

    #[test]
    fn a_received_snapshot_takes_the_place_of_one_that_waits_for_room() {
        let mut writing = small(3);
        let turns = Turns::default();
        let job = WriteJob::Take(meta(b""), Box::new(Bytes::from_static(b"state")), turns.turn());
        assert!(writing.write(job).expect("not final").is_none());
        turns.next();
        let data = Bytes::from_static(b"new");
        let job = WriteJob::Chunk { meta: meta(&data), offset: 0, data, done: true };
        let answer = writing.write(job).expect("there is room");
        assert!(
            matches!(answer, Some(Input::ChunkWritten { outcome: ChunkOutcome::Whole, .. })),
            "{answer:?}"
        );
        assert!(writing.again().expect("nothing waits").is_empty(), "the own one was begun again");
    }

    #[test]
    fn chunks_without_room_are_answered_later_all_of_them() {
        let mut writing = small(3);
        let data = Bytes::from_static(b"whole");
        for (offset, part) in [(0, 0..3), (3, 3..4), (4, 4..5)] {
            let job =
                WriteJob::Chunk { meta: meta(&data), offset, data: data.slice(part), done: offset == 4 };
            let answer = writing.write(job).expect("not final");
            assert_eq!(answer.is_some(), offset == 0, "{answer:?}");
        }
        assert_eq!(writing.writer.written().0, 0, "kept what it took");
        let answers = writing.again().expect("answered");
        assert_eq!(answers.len(), 2);
        for answer in answers {
            assert!(matches!(answer, Input::ChunkWritten { outcome: ChunkOutcome::Bad, .. }), "{answer:?}");
        }
    }
}
