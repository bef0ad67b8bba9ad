//! `cargo xtask bench memory`: what a server's memory does while ten million entries go through its log, with snapshots and compaction.
//!
//! A real server process, alone in its cluster, under as many puts as it takes: consensus, sessions, the state, the log, its snapshots
//! and its compaction all hold memory. The state stays as it is: a thousand keys are written over and over. At the end the log must be short,
//! or else nothing was compacted.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use atomix::{Atomix, DistributedMap, Index};
use atomix_cli::cluster::Cluster;
use atomix_cli::table::Table;
use atomix_protocol::limits;
use tokio::task::JoinSet;

use super::load::{VALUE_BYTES, value};

/// Entries that must go through the log.
const ENTRIES: u64 = 10_000_000;
/// After so many the memory is what it is compared to.
const FIRST: u64 = 1_000_000;
/// Sessions, and puts in flight of each.
const SESSIONS: usize = 2;
const OUTSTANDING: usize = 512;
/// Keys that are overwritten.
const KEYS: u64 = 1_000;
/// Between two looks at the server.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for anything but the whole.
const WAIT: Duration = Duration::from_secs(30);
/// A snapshot per so much log, unless a server is told otherwise.
const SNAPSHOT_BYTES: u64 = limits::SNAPSHOT_LOG_BYTES;
/// The log may hold so much at the end: what is behind the older of two snapshots, what came while the newer one was made, and segments that
/// are spare, in reserve or prepared.
const LOG_BYTES: u64 = 8 * SNAPSHOT_BYTES;
/// The memory may grow so many times.
const WANTED: f64 = 2.0;

type Map = DistributedMap<String, Vec<u8>>;

/// Measures; whether the memory stayed within its bound.
pub(super) async fn run(cluster: &Cluster) -> Result<bool, String> {
    println!(
        "memory: one server process, fsync on; {ENTRIES} entries with {VALUE_BYTES} B values over {KEYS} keys, {SESSIONS} clients with {OUTSTANDING} puts in flight each; a snapshot per 64 MiB of log"
    );
    let server = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let pid = cluster.pid(server).ok_or("the server has ended")?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for session in 0..SESSIONS {
        let atomix = Atomix::connect(cluster.addresses()).await.map_err(|error| error.to_string())?;
        let map: Map = atomix.map("/bench/memory").await.map_err(|error| error.to_string())?;
        for writer in 0..OUTSTANDING {
            writers.spawn(write(map.clone(), session * OUTSTANDING + writer, stop.clone()));
        }
    }
    let seen = watch(cluster, server, pid).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    let seen = seen?;
    let log = Segments::of(&cluster.directory(server)).map_err(|error| error.to_string())?;
    println!("{}", seen.table());
    println!(
        "{} entries in {:.0} s; memory after the first {FIRST}: {:.0} MiB; the most after that: {:.0} MiB; ratio {:.2}, at most {WANTED} is wanted",
        seen.entries,
        seen.time.as_secs_f64(),
        mib(seen.first),
        mib(seen.most_after),
        seen.ratio()
    );
    if seen.snapshots == 0 {
        println!("nothing was compacted: the bench says nothing");
    }
    println!(
        "the log at the end: {} segments, {:.0} MiB, at most {:.0} MiB are wanted; {:.0} MiB of values went through it",
        log.count,
        mib(log.bytes),
        mib(LOG_BYTES),
        mib(seen.entries * VALUE_BYTES as u64),
    );
    Ok(seen.ratio() <= WANTED && seen.snapshots > 0 && log.bytes <= LOG_BYTES)
}

/// What the log takes on the disk.
#[derive(Debug, Default)]
struct Segments {
    count: u64,
    bytes: u64,
}

impl Segments {
    /// All segments of a data directory, those in no use included.
    fn of(directory: &Path) -> io::Result<Segments> {
        let mut segments = Segments::default();
        for file in fs::read_dir(directory)? {
            let file = file?;
            if file.path().extension().is_some_and(|extension| extension == "seg") {
                // One may get another name, or go, at any moment.
                segments.bytes += file.metadata().map_or(0, |metadata| metadata.len());
                segments.count += 1;
            }
        }
        Ok(segments)
    }
}

async fn write(map: Map, writer: usize, stop: Arc<AtomicBool>) -> Result<(), String> {
    let mut number = writer as u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("key-{}", number % KEYS);
        map.put(&key, &value(number)).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What was seen of the server, in bytes.
#[derive(Debug, Default)]
struct Seen {
    entries: u64,
    time: Duration,
    snapshots: u64,
    /// Right after the first million.
    first: u64,
    /// The most at any look after that.
    most_after: u64,
    /// At each million: entries, how many a second since the one before, memory, the most since the one before, snapshots so far.
    rows: Vec<[String; 5]>,
}

impl Seen {
    fn ratio(&self) -> f64 {
        self.most_after as f64 / self.first as f64
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["entries", "entries/s", "memory, MiB", "most since, MiB", "snapshots"]);
        for row in &self.rows {
            table.row(row.clone());
        }
        table
    }
}

async fn watch(cluster: &Cluster, server: usize, pid: u32) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let begin = Instant::now();
    let (mut milestone, mut most, mut snapshot) = (FIRST, 0, Index::ZERO);
    let (mut before, mut progress) = ((begin, 0), begin);
    while seen.entries < ENTRIES {
        tokio::time::sleep(LOOK).await;
        let memory = resident(pid)?;
        most = most.max(memory);
        if seen.first > 0 {
            seen.most_after = seen.most_after.max(memory);
        }
        let status = cluster.status(server).await.ok_or("the server does not answer")?;
        if status.snapshot_index > snapshot {
            snapshot = status.snapshot_index;
            seen.snapshots += 1;
        }
        if status.durable_index.0 > seen.entries {
            (seen.entries, progress) = (status.durable_index.0, Instant::now());
        } else if progress.elapsed() > WAIT {
            return Err(format!("nothing was written for {} s", WAIT.as_secs()));
        }
        if seen.entries >= milestone {
            let rate = (seen.entries - before.1) as f64 / before.0.elapsed().as_secs_f64();
            if seen.first == 0 {
                seen.first = memory;
            }
            let figures = [seen.entries as f64, rate, mib(memory), mib(most), seen.snapshots as f64];
            seen.rows.push(figures.map(|figure| format!("{figure:.0}")));
            (milestone, most, before) = (milestone + FIRST, 0, (Instant::now(), seen.entries));
        }
    }
    seen.time = begin.elapsed();
    Ok(seen)
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> Result<u64, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| "the server has ended".into())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
