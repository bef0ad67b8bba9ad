//! `cargo xtask bench recovery`: how long a log without a snapshot takes to be recovered, beside `cat` of the same bytes.
//!
//! A process that starts anew each time recovers the log and counts what is handed out. `cat` reads the segments, up to where the last one
//! was written. Both by turns: warm, and cold, when the files were dropped from the system's memory before.
//!
//! Two more lines, of which nothing is asked, are of a process that keeps all entries in memory, as a server does until they are applied:
//! most of what comes on top is the system's work of finding the memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use atomix_cli::table::Table;
use atomix_storage::Storage;
use atomix_storage_file::{FileOptions, FileStorage, FolderDisk};
use rustix::fs::{Advice, fadvise};

use super::log::{ENTRY_BYTES, LogFile, median, spread};

/// What the log holds.
const ENTRIES: usize = 1_000_000;
/// Entries in a batch.
const BATCH: usize = 64;
/// Rounds of each, by turns.
const ROUNDS: usize = 9;
/// Recovery may take so many times as long as `cat`.
const WANTED: f64 = 3.0;

/// The name by which the bench calls itself to recover.
pub(super) const CHILD: &str = "recover";
/// The same, and to keep what is handed out.
pub(super) const KEEPING_CHILD: &str = "recover-and-keep";

/// Measures; whether recovery is fast enough.
pub(super) fn run() -> Result<bool, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let data = folder.path().join("data");
    println!("recovery: {ENTRIES} entries of {ENTRY_BYTES} B in batches of {BATCH}, no snapshot");
    let mut log = LogFile::create(&data, FileOptions::default().segment_bytes)?;
    let took = log.append(BATCH, ENTRIES.div_ceil(BATCH))?;
    drop(log);
    let (whole, last) = segments(&data)?;
    let bytes: u64 =
        whole.iter().chain([&last.0]).map(|path| length(path)).sum::<u64>() - length(&last.0) + last.1;
    println!("written in {:.1} s: {} segments, {:.0} MiB", took.as_secs_f64(), whole.len() + 1, mib(bytes));
    let mut table =
        Table::new(["entries", "system's memory", "recovery, ms", "cat, ms", "ratio", "MiB from the disk"]);
    let mut enough = true;
    for (cold, keeps) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut recoveries, mut cats, mut read) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            prepare(&data, cold)?;
            let (time, from_disk) = recover_in_a_process(&data, keeps)?;
            recoveries.push(time);
            read = from_disk;
            prepare(&data, cold)?;
            cats.push(cat(&whole, &last)?);
        }
        // Round by round: both met the same machine.
        let ratios: Vec<f64> = recoveries.iter().zip(&cats).map(|(recovery, cat)| recovery / cat).collect();
        enough &= keeps || median(&ratios) <= WANTED;
        table.row([
            if keeps { "kept" } else { "handed out" }.to_owned(),
            if cold { "cold" } else { "warm" }.to_owned(),
            spread(&recoveries, 0),
            spread(&cats, 0),
            spread(&ratios, 2),
            format!("{:.0}", mib(read)),
        ]);
    }
    println!("{table}");
    println!(
        "medians of {ROUNDS} rounds by turns [least-most]; at most {WANTED} times as long as cat is wanted of the first two"
    );
    Ok(enough)
}

/// What the process does that recovers: one line with the time it took, what it found, and what came from the disk.
pub(super) fn child(data: &Path, keeps: bool) -> Result<(), String> {
    let begin = Instant::now();
    let disk = FolderDisk::open(data).map_err(|error| error.to_string())?;
    let storage = FileStorage::open(Box::new(disk), FileOptions::default());
    let mut storage = storage.map_err(|error| error.to_string())?;
    let (mut entries, mut bytes, mut kept) = (0_usize, 0, Vec::new());
    let mut take = |entry: atomix_protocol::Entry| {
        entries += 1;
        bytes += entry.payload.len();
        if keeps {
            kept.push(entry);
        }
    };
    let found = storage.recover(&mut take).map_err(|error| error.to_string())?;
    let time = begin.elapsed();
    if keeps && kept.len() != entries {
        return Err(format!("of {entries} entries {} were kept", kept.len()));
    }
    if !found.damage.is_empty() || bytes != entries * ENTRY_BYTES {
        return Err(format!("{entries} entries with {bytes} bytes were found; damage: {:?}", found.damage));
    }
    println!("{} {entries} {}", time.as_micros(), from_disk()?);
    Ok(())
}

/// Milliseconds, and bytes that came from the disk.
fn recover_in_a_process(data: &Path, keeps: bool) -> Result<(f64, u64), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["bench", if keeps { KEEPING_CHILD } else { CHILD }])
        .arg(data)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        // One more is in the log from its beginning.
        [micros, entries, read] if entries > ENTRIES as u64 => Ok((micros as f64 / 1_000.0, read)),
        _ => Err(format!("the process that recovers said: {text}")),
    }
}

/// Milliseconds.
fn cat(whole: &[PathBuf], (last, written): &(PathBuf, u64)) -> Result<f64, String> {
    let begin = Instant::now();
    let cat = Command::new("cat").args(whole).stdout(Stdio::null()).status();
    let rest =
        Command::new("head").args(["-c", &written.to_string()]).arg(last).stdout(Stdio::null()).status();
    let time = begin.elapsed();
    match (cat, rest) {
        (Ok(cat), Ok(rest)) if cat.success() && rest.success() => Ok(milliseconds(time)),
        other => Err(format!("cat: {other:?}")),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// All files in the system's memory, or none.
fn prepare(data: &Path, cold: bool) -> Result<(), String> {
    let dropped = || -> std::io::Result<()> {
        for item in std::fs::read_dir(data)? {
            let file = File::open(item?.path())?;
            // Only what is on the disk can be dropped.
            file.sync_all()?;
            if cold {
                fadvise(&file, 0, None, Advice::DontNeed)?;
            } else {
                std::io::copy(&mut &file, &mut std::io::sink())?;
            }
        }
        Ok(())
    };
    dropped().map_err(|error| error.to_string())?;
    // Programs are not what is measured.
    let warm = ["cat", "head"].map(|program| Command::new(program).arg("/dev/null").status().is_ok());
    if warm.contains(&false) { Err("there is no cat, or no head".into()) } else { Ok(()) }
}

/// The full segments, and the last one with how far it was written.
fn segments(data: &Path) -> Result<(Vec<PathBuf>, (PathBuf, u64)), String> {
    let mut paths = Vec::new();
    for item in std::fs::read_dir(data).map_err(|error| error.to_string())? {
        let path = item.map_err(|error| error.to_string())?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("log-") {
            paths.push(path);
        }
    }
    paths.sort();
    // The next segment may have been prepared; nothing was written to it.
    while let Some(last) = paths.pop() {
        let written = written(&last).map_err(|error| error.to_string())?;
        if written > 0 {
            return Ok((paths, (last, written)));
        }
    }
    Err("there is no log".into())
}

/// Up to where a file holds more than zeros.
fn written(path: &Path) -> std::io::Result<u64> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1))
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes that this process has had read from a device.
fn from_disk() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/self/io").map_err(|error| error.to_string())?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok());
    bytes.ok_or_else(|| "the system does not count what is read".into())
}
