//! `cargo xtask bench write`: durable writes through three servers, beside what the disk gives alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use atomix::{Atomix, Counters, DistributedMap};
use atomix_cli::cluster::Cluster;
use atomix_cli::status::ratio;
use atomix_cli::table::Table;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::machine::{Usage, durable_writes_per_second};

/// Numbers of writes in flight that are measured.
const OUTSTANDING: [usize; 3] = [1, 64, 256];
/// The one at which batching must show.
const BATCHED: usize = 64;
/// Keys that are overwritten.
const KEYS: usize = 10_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
const DISK: Duration = Duration::from_secs(2);
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(30);

type Map = DistributedMap<String, Vec<u8>>;

/// What one measurement gave.
struct Measured {
    outstanding: usize,
    time: Duration,
    latency: Histogram<u64>,
    failed: u64,
    servers: Usage,
    client: Usage,
    counters: Counters,
}

/// Measures; whether every write was done and every batching counter exceeds one where it must.
pub(super) async fn run(cluster: &Cluster) -> Result<bool, String> {
    println!(
        "write: three server processes, fsync on, one client, {VALUE_BYTES} B values over {KEYS} keys, closed loop, {} s each",
        MEASURED.as_secs(),
    );
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let directory = cluster.directory(leader);
    let disk_before = durable_writes_per_second(&directory, DISK).map_err(|error| error.to_string())?;
    let atomix = Atomix::connect(cluster.addresses()).await.map_err(|error| error.to_string())?;
    let map: Map = atomix.map("/bench/write").await.map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for outstanding in OUTSTANDING {
        all.push(measure(cluster, &map, outstanding).await?);
    }
    let disk_after = durable_writes_per_second(&directory, DISK).map_err(|error| error.to_string())?;
    println!("{}", figures(&all));
    println!(
        "this machine alone, 4 KiB write + fdatasync on a zero-filled file: {disk_before:.0}/s before, {disk_after:.0}/s after"
    );
    let batched = all.iter().filter(|one| one.outstanding == BATCHED).all(batches);
    let failed: u64 = all.iter().map(|one| one.failed).sum();
    if failed > 0 {
        println!("{failed} writes FAILED");
    }
    Ok(batched && failed == 0)
}

async fn measure(cluster: &Cluster, map: &Map, outstanding: usize) -> Result<Measured, String> {
    let stop = Arc::new(AtomicBool::new(false));
    let measuring = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..outstanding {
        writers.spawn(write(map.clone(), writer, stop.clone(), measuring.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let pids: Vec<u32> = (0..cluster.size()).filter_map(|server| cluster.pid(server)).collect();
    let me = [std::process::id()];
    let counters = async || cluster.status(leader).await.map(|status| status.counters).unwrap_or_default();
    let counters_before = counters().await;
    let (servers, client) = (Usage::of(&pids), Usage::of(&me));
    let begin = Instant::now();
    measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(MEASURED).await;
    measuring.store(false, Ordering::Relaxed);
    let time = begin.elapsed();
    let (servers, client) = (Usage::of(&pids).since(servers), Usage::of(&me).since(client));
    let counters_after = counters().await;
    stop.store(true, Ordering::Relaxed);
    let mut latency = histogram();
    let mut failed = 0;
    for (one, failures) in writers.join_all().await {
        latency.add(one).map_err(|error| error.to_string())?;
        failed += failures;
    }
    let counters = difference(&counters_after, &counters_before);
    Ok(Measured { outstanding, time, latency, failed, servers, client, counters })
}

/// One writer: the next write goes out when the one before was acknowledged.
async fn write(
    map: Map,
    writer: usize,
    stop: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
) -> (Histogram<u64>, u64) {
    let value = vec![0x5a; VALUE_BYTES];
    let (mut latency, mut failed) = (histogram(), 0);
    // Any walk over all keys will do; this one has no order.
    let mut key = writer * 7_919 % KEYS;
    while !stop.load(Ordering::Relaxed) {
        key = (key + 4_241) % KEYS;
        let begin = Instant::now();
        let written = map.put(&format!("key-{key:016}"), &value).await;
        if measuring.load(Ordering::Relaxed) {
            match written {
                Ok(_) => latency.saturating_record(begin.elapsed().as_micros() as u64),
                Err(_) => failed += 1,
            }
        }
    }
    (latency, failed)
}

/// Microseconds, up to a minute.
/// Microseconds, up to a minute.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are right")
}

fn difference(after: &Counters, before: &Counters) -> Counters {
    Counters {
        syncs: after.syncs.saturating_sub(before.syncs),
        entries_synced: after.entries_synced.saturating_sub(before.entries_synced),
        appends_sent: after.appends_sent.saturating_sub(before.appends_sent),
        entries_sent: after.entries_sent.saturating_sub(before.entries_sent),
        // A greatest value, not a sum: since the server started.
        largest_in_flight: after.largest_in_flight,
        ..Counters::default()
    }
}

fn figures(all: &[Measured]) -> Table {
    let mut table = Table::new([
        "outstanding",
        "puts/s",
        "p50 ms",
        "p99 ms",
        "CPU us/put",
        "of it client",
        "switches/put",
        "of it client",
        "entries/sync",
        "entries/append",
        "largest in flight",
    ]);
    for one in all {
        let puts = one.latency.len().max(1) as f64;
        let micros = |usage: Usage| usage.cpu.as_secs_f64() * 1e6 / puts;
        let switches = |usage: Usage| usage.switches as f64 / puts;
        let milliseconds = |quantile| one.latency.value_at_quantile(quantile) as f64 / 1e3;
        table.row([
            one.outstanding.to_string(),
            format!("{:.0}", one.latency.len() as f64 / one.time.as_secs_f64()),
            format!("{:.2}", milliseconds(0.5)),
            format!("{:.2}", milliseconds(0.99)),
            format!("{:.0}", micros(one.servers) + micros(one.client)),
            format!("{:.0}", micros(one.client)),
            format!("{:.1}", switches(one.servers) + switches(one.client)),
            format!("{:.1}", switches(one.client)),
            tenths(ratio(one.counters.entries_synced, one.counters.syncs)),
            tenths(ratio(one.counters.entries_sent, one.counters.appends_sent)),
            one.counters.largest_in_flight.to_string(),
        ]);
    }
    table
}

/// Says of each batching counter whether it exceeds one.
fn batches(one: &Measured) -> bool {
    let counters = [
        ("entries per sync", ratio(one.counters.entries_synced, one.counters.syncs)),
        ("entries per AppendEntries", ratio(one.counters.entries_sent, one.counters.appends_sent)),
        ("largest in flight", Some(one.counters.largest_in_flight as f64)),
    ];
    let mut all = true;
    for (name, value) in counters {
        let exceeds = value.is_some_and(|value| value > 1.0);
        all &= exceeds;
        let verdict = if exceeds { "yes" } else { "NO" };
        println!("at {} outstanding, {name} {} exceeds 1: {verdict}", one.outstanding, tenths(value));
    }
    all
}

fn tenths(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_measured_time() {
        let before = Counters { syncs: 5, entries_synced: 10, largest_in_flight: 1, ..Counters::default() };
        let after = Counters { syncs: 7, entries_synced: 20, largest_in_flight: 3, ..Counters::default() };
        let between = difference(&after, &before);
        assert_eq!((between.syncs, between.entries_synced, between.largest_in_flight), (2, 10, 3));
    }
}
