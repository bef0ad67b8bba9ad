//! `cargo xtask bench log`: appends to the log beside a raw loop of one write and one `fdatasync`.
//!
//! Both go through a file of the same length that was filled with zeros before, in the same directory, from its beginning on. The raw loop
//! writes, in one call, as many bytes as the log hands to the system for such a batch: headers, trailer and mark included. Neither file
//! grows, and the rounds end before the log would prepare its next segment. Within a round they take turns after a few batches each, so
//! that whatever else this machine does meets both.
//!
//! One more line, which nothing is asked of, says what a server meets over hours: segments of the usual length, a small snapshot for
//! each, and compaction, which recycles them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use atomix_cli::table::Table;
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{
    ClusterTime, Configuration, Entry, EntryId, EntryKind, Identity, Incarnation, Index, Term, WriteBatch,
};
use atomix_storage::{Storage, StorageError};
use atomix_storage_file::{FileOptions, FileStorage, FolderDisk};
use bytes::Bytes;

/// What is measured.
const CASES: [Case; 3] = [
    Case { entries: 1, batches: 6_000, rolls: false },
    Case { entries: 64, batches: 2_000, rolls: false },
    Case { entries: 64, batches: 4_000, rolls: true },
];
/// Bytes of an entry's payload.
pub(super) const ENTRY_BYTES: usize = 256;
/// An entry takes less than this in the log, and a batch less than this beside its entries.
const RECORD_BYTES: usize = ENTRY_BYTES + 80;
const BATCH_BYTES: usize = 200;
/// Rounds of each, by turns.
const ROUNDS: usize = 5;
/// After so many batches it is the other one's turn.
const TURN: usize = 20;
/// Batches before anything is measured.
const WARM_UP: usize = 500;
/// What the log must reach of the raw loop's rate.
const WANTED: f64 = 0.9;
/// Zeros are written in pieces of this length.
const PIECE: usize = 1 << 20;

/// What is measured together.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Entries in a batch.
    entries: usize,
    /// Batches in a round.
    batches: usize,
    /// Whether the log goes from segment to segment.
    rolls: bool,
}

/// Measures; whether the log is fast enough.
pub(super) fn run() -> Result<bool, String> {
    println!(
        "log: FileStorage::write beside pwrite + fdatasync of as many bytes, both on zero-filled files in {}; entries of {ENTRY_BYTES} B",
        std::env::temp_dir().display()
    );
    let mut table = Table::new([
        "entries a batch",
        "bytes a batch",
        "log, batches/s",
        "raw, batches/s",
        "log, entries/s",
        "ratio",
    ]);
    let mut enough = true;
    for case in CASES {
        let measured = measure(case)?;
        enough &= case.rolls || median(&measured.ratios()) >= WANTED;
        table.row(measured.row(case));
    }
    println!("{table}");
    println!(
        "medians of {ROUNDS} rounds [least-most]; a ratio of at least {WANTED} is wanted of the first two"
    );
    Ok(enough)
}

/// What the rounds gave.
struct Measured {
    /// Bytes of a batch.
    bytes: usize,
    /// Batches per second, round by round.
    log: Vec<f64>,
    raw: Vec<f64>,
}

impl Measured {
    /// Round by round: both met the same machine.
    fn ratios(&self) -> Vec<f64> {
        self.log.iter().zip(&self.raw).map(|(log, raw)| log / raw).collect()
    }

    fn row(&self, case: Case) -> [String; 6] {
        let Case { entries, rolls, .. } = case;
        [
            format!("{entries}{}", if rolls { ", from segment to segment" } else { "" }),
            self.bytes.to_string(),
            spread(&self.log, 0),
            spread(&self.raw, 0),
            format!("{:.0}", median(&self.log) * entries as f64),
            spread(&self.ratios(), 2),
        ]
    }
}

fn measure(case: Case) -> Result<Measured, String> {
    let Case { entries, batches, rolls } = case;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    // At half of a segment the log prepares the next.
    let in_all = WARM_UP + ROUNDS * batches;
    let length = (2 * in_all * (entries * RECORD_BYTES + BATCH_BYTES)).next_multiple_of(PIECE) as u64;
    let segment = if rolls { FileOptions::default().segment_bytes } else { length };
    let mut log = LogFile::create(&folder.path().join("log"), segment)?;
    let before = handed_over()?;
    log.append(entries, WARM_UP)?;
    let bytes = (handed_over()? - before) as usize / WARM_UP;
    if bytes > entries * RECORD_BYTES + BATCH_BYTES {
        return Err(format!("a batch of {entries} has {bytes} bytes: the log would not stay in its segment"));
    }
    let mut raw = RawFile::create(&folder.path().join("raw"), length, bytes).map_err(|e| e.to_string())?;
    raw.append(WARM_UP).map_err(|error| error.to_string())?;
    let mut measured = Measured { bytes, log: Vec::new(), raw: Vec::new() };
    let rate = |time: Duration| batches as f64 / time.as_secs_f64();
    for _ in 0..ROUNDS {
        let (mut log_time, mut raw_time) = (Duration::ZERO, Duration::ZERO);
        for turn in 1..=batches / TURN {
            log_time += log.append(entries, TURN)?;
            if rolls && turn % (segment as usize / bytes / TURN) == 0 {
                log_time += log.compact()?;
            }
            raw_time += raw.append(TURN).map_err(|error| error.to_string())?;
        }
        measured.log.push(rate(log_time));
        measured.raw.push(rate(raw_time));
    }
    Ok(measured)
}

/// A log, and how far it is.
pub(super) struct LogFile {
    storage: FileStorage,
    last: Index,
}

impl LogFile {
    /// A fresh one, with its first segment in place, and one entry in that.
    pub(super) fn create(directory: &Path, segment_bytes: u64) -> Result<LogFile, String> {
        let create = || -> Result<LogFile, StorageError> {
            let disk = Box::new(FolderDisk::open(directory)?);
            let mut storage = FileStorage::open(disk, FileOptions { segment_bytes })?;
            storage.recover(&mut |_| {})?;
            let identity = Some(Identity { incarnation: Incarnation(7) });
            storage.write(&WriteBatch { identity, ..WriteBatch::default() })?;
            Ok(LogFile { storage, last: Index::ZERO })
        };
        let mut log = create().map_err(|error| error.to_string())?;
        // Makes the segment.
        log.append(1, 1)?;
        Ok(log)
    }

    /// Appends batches, and says how long that took.
    pub(super) fn append(&mut self, entries: usize, batches: usize) -> Result<Duration, String> {
        let payload = Bytes::from(vec![0x5a; ENTRY_BYTES]);
        let mut entry = || {
            self.last = self.last.next();
            let (id, payload) = (EntryId::new(Term(1), self.last), payload.clone());
            Entry { id, time: ClusterTime(self.last.0), kind: EntryKind::Session, payload }
        };
        let batch = |_| WriteBatch { entries: (0..entries).map(|_| entry()).collect(), ..Default::default() };
        let batches: Vec<WriteBatch> = (0..batches).map(batch).collect();
        let begin = Instant::now();
        for batch in &batches {
            self.storage.write(batch).map_err(|error| error.to_string())?;
        }
        Ok(begin.elapsed())
    }
}

impl LogFile {
    /// Takes a small snapshot and drops what it covers; how long its publication and that took.
    fn compact(&mut self) -> Result<Duration, String> {
        let data = [7; 100];
        let meta = SnapshotMeta {
            last: EntryId::new(Term(1), self.last),
            time: ClusterTime(self.last.0),
            configuration: Configuration::default(),
            size: data.len() as u64,
            checksum: crc32c::crc32c(&data),
        };
        let mut compact = || -> Result<Duration, StorageError> {
            let mut writer = self.storage.snapshot_writer()?;
            writer.begin(meta.last)?;
            writer.write(&data)?;
            writer.finish(&meta)?;
            let begin = Instant::now();
            self.storage.publish(&meta)?;
            self.storage.compact(self.last)?;
            Ok(begin.elapsed())
        };
        compact().map_err(|error| error.to_string())
    }
}

/// A file that is written from its beginning on.
struct RawFile {
    file: File,
    at: u64,
    batch: Vec<u8>,
}

impl RawFile {
    fn create(path: &Path, length: u64, batch: usize) -> std::io::Result<RawFile> {
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
        let zeros = vec![0; PIECE];
        for at in (0..length).step_by(PIECE) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(RawFile { file, at: 0, batch: vec![0x5a; batch] })
    }

    fn append(&mut self, batches: usize) -> std::io::Result<Duration> {
        let begin = Instant::now();
        for _ in 0..batches {
            self.file.write_all_at(&self.batch, self.at)?;
            self.file.sync_data()?;
            self.at += self.batch.len() as u64;
        }
        Ok(begin.elapsed())
    }
}

/// Bytes that this thread has handed to the system.
fn handed_over() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/thread-self/io").map_err(|error| error.to_string())?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
    bytes.ok_or_else(|| "the system does not count what is written".into())
}

/// The median, the least and the most.
pub(super) fn spread(values: &[f64], decimals: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.decimals$} [{least:.decimals$}-{most:.decimals$}]", median(values))
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[5.0, 1.0, 9.0]), 5.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_raw_loop_writes_what_the_log_does() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut log = LogFile::create(&folder.path().join("log"), 1 << 20).expect("creates");
        let before = handed_over().expect("counted");
        log.append(4, 10).expect("appends");
        let bytes = (handed_over().expect("counted") - before) / 10;
        assert!((4 * ENTRY_BYTES as u64..8 * ENTRY_BYTES as u64).contains(&bytes), "{bytes} bytes a batch");
        let mut raw = RawFile::create(&folder.path().join("raw"), 1 << 20, bytes as usize).expect("creates");
        let before = handed_over().expect("counted");
        raw.append(10).expect("appends");
        assert_eq!(handed_over().expect("counted") - before, 10 * bytes);
        assert_eq!(raw.file.metadata().expect("there").len(), 1 << 20, "it does not grow");
    }
}
