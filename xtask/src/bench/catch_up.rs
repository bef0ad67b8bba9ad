//! `cargo xtask bench catch-up`: a server joins a cluster that has much state, while others write.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atomix::admin::{Change, ManageAction, ManageOutcome, NewMember, manage};
use atomix::{Atomix, MemberKind, ServerId, Status};
use atomix_cli::cluster::{Cluster, Entry, until};
use hdrhistogram::Histogram;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::load::{Map, VALUE_BYTES, value};
use super::members::member;
use super::proxy::Proxy;
use super::write::histogram;

/// Keys of the state.
const KEYS: u64 = 400_000;
/// Puts in flight while it is written.
const LOADERS: u64 = 512;
/// Between two puts of the steady load.
const BETWEEN: Duration = Duration::from_millis(2);
/// The steady load before anything is added.
const BEFORE: Duration = Duration::from_secs(5);
/// Shares of the snapshot after which the link is cut, in percent.
const CUTS: [u64; 3] = [20, 45, 70];
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(180);
const PATH: &str = "/bench/state";

/// Measures; whether the new servers caught up by snapshot, and no write failed.
pub(super) async fn run(cluster: &mut Cluster, executable: &Path) -> Result<bool, String> {
    println!(
        "catch-up: three server processes, fsync on, {KEYS} keys with {VALUE_BYTES} B each; then a put every {} ms",
        BETWEEN.as_millis(),
    );
    cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let atomix = Atomix::connect(cluster.addresses()).await.map_err(|error| error.to_string())?;
    let map: Map = atomix.map(PATH).await.map_err(|error| error.to_string())?;
    fill(cluster, &map).await?;
    let paced = Paced::start(map);
    tokio::time::sleep(Duration::from_secs(1)).await;
    paced.figures();
    tokio::time::sleep(BEFORE).await;
    report("writers before", &paced.figures());

    println!("\na fourth server:");
    let (server, mut by_snapshot) = straight(cluster, executable, &paced).await?;
    // The second one is to start from where the first one did.
    let id = id_of(cluster, server).await?;
    print!("{}", member(executable, &cluster.addresses(), &["remove", &id.to_string()]).await?);
    cluster.kill(server).await.map_err(|error| error.to_string())?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    paced.figures();

    println!("\nanother one, whose link to the leader is cut {} times on the way:", CUTS.len());
    by_snapshot &= cut(cluster, executable, &paced).await?;
    let (written, failed) = paced.stop().await?;
    println!("\nsteady writes: {written} acknowledged, {failed} failed");
    Ok(by_snapshot && failed == 0)
}

/// Writes the state, and goes on until a snapshot holds all of it: the log alone does not reach back to its beginning then.
async fn fill(cluster: &Cluster, map: &Map) -> Result<(), String> {
    let begin = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut loaders = JoinSet::new();
    for _ in 0..LOADERS {
        let (map, next, stop) = (map.clone(), next.clone(), stop.clone());
        loaders.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                map.put(&key(number), &value(number)).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        });
    }
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let all = async || (next.load(Ordering::Relaxed) >= KEYS + LOADERS).then_some(());
    until("the state to be written", WAIT, all).await.map_err(|failure| failure.to_string())?;
    let time = begin.elapsed();
    let full = status(cluster, leader).await?.last_index;
    println!(
        "written in {:.1} s: {:.0} puts/s with {LOADERS} in flight",
        time.as_secs_f64(),
        KEYS as f64 / time.as_secs_f64(),
    );
    let taken = until("a snapshot of all of it", WAIT, async || {
        cluster.status(leader).await.filter(|status| status.snapshot_index >= full)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    while let Some(loader) = loaders.join_next().await {
        loader.map_err(|error| error.to_string())??;
    }
    let taken = taken.map_err(|failure| failure.to_string())?;
    println!(
        "{} puts until a snapshot at index {} held all of them; the leader had taken {} by then",
        next.load(Ordering::Relaxed),
        taken.snapshot_index,
        taken.counters.snapshots_taken,
    );
    Ok(())
}

/// As an operator does it; which server it is, and whether it came by snapshot.
async fn straight(cluster: &mut Cluster, executable: &Path, paced: &Paced) -> Result<(usize, bool), String> {
    let server = cluster.add_server(Entry::Waits).map_err(|error| error.to_string())?;
    ready(cluster, server).await?;
    let address = cluster.addresses()[server].clone();
    paced.figures();
    let begin = Instant::now();
    let said = member(executable, &cluster.addresses(), &["add", &address]).await?;
    let took = begin.elapsed();
    report("writers meanwhile", &paced.figures());
    print!("{said}");
    println!("caught up, with a vote, after {:.2} s", took.as_secs_f64());
    let directory = cluster.directory(server);
    let sizes = size_of_snapshot(&directory).and_then(|snapshot| Ok((snapshot, size_of(&directory)?)));
    let (snapshot, all) = sizes.map_err(|error| error.to_string())?;
    println!("a snapshot of {:.1} MB, {:.1} MB with the log", snapshot as f64 / 1e6, all as f64 / 1e6);
    Ok((server, came_by_snapshot(cluster, server).await?))
}

/// The leader reaches the new server through a proxy, which is cut.
async fn cut(cluster: &mut Cluster, executable: &Path, paced: &Paced) -> Result<bool, String> {
    let server = cluster.add_server(Entry::Waits).map_err(|error| error.to_string())?;
    let new = ready(cluster, server).await?;
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let snapshot = size_of_snapshot(&cluster.directory(leader)).map_err(|error| error.to_string())?;
    let cuts = CUTS.map(|percent| snapshot / 100 * percent);
    let address = cluster.addresses()[server].clone();
    let proxy = Proxy::start(&address, &cuts).await.map_err(|error| error.to_string())?;
    let add = NewMember {
        incarnation: new.incarnation,
        peer_address: proxy.address().into(),
        client_address: address.as_str().into(),
        kind: MemberKind::Learner,
        priority: 0,
    };
    let expected = status(cluster, leader).await?.configuration_index;
    let change = Change { expected, add: vec![add], ..Change::default() };
    paced.figures();
    let begin = Instant::now();
    let action = ManageAction::Change(change);
    match manage(cluster.addresses(), action, WAIT).await.map_err(|error| error.to_string())? {
        ManageOutcome::Changed(_) => {}
        other => return Err(format!("the server was not taken in: {other:?}")),
    }
    told_of_cuts(&proxy, snapshot).await?;
    until("the new server to have a snapshot", WAIT, async || {
        cluster.status(server).await.filter(|status| status.counters.snapshots_installed > 0)
    })
    .await
    .map_err(|failure| failure.to_string())?;
    let went = proxy.bytes();
    // It votes once it has caught up: `add` goes on from where it is.
    let said = member(executable, &cluster.addresses(), &["add", &address]).await?;
    let took = begin.elapsed();
    report("writers meanwhile", &paced.figures());
    print!("{said}");
    println!("caught up, with a vote, after {:.2} s", took.as_secs_f64());
    println!(
        "{:.1} MB went to it until it had the snapshot of {:.1} MB, with {} cuts: {:.1} MB more than once",
        went as f64 / 1e6,
        snapshot as f64 / 1e6,
        proxy.cuts(),
        went.saturating_sub(snapshot) as f64 / 1e6,
    );
    let by_snapshot = came_by_snapshot(cluster, server).await?;
    Ok(by_snapshot && proxy.cuts() == CUTS.len() as u64)
}

/// Says when the link was cut.
async fn told_of_cuts(proxy: &Proxy, snapshot: u64) -> Result<(), String> {
    for cut in 1..=CUTS.len() as u64 {
        until("the link to be cut", WAIT, async || (proxy.cuts() >= cut).then_some(()))
            .await
            .map_err(|failure| failure.to_string())?;
        let share = proxy.bytes() as f64 / snapshot as f64 * 100.0;
        println!(
            "cut {cut}: {:.1} MB had gone, as much as {share:.0} % of the snapshot",
            proxy.bytes() as f64 / 1e6
        );
    }
    Ok(())
}

async fn came_by_snapshot(cluster: &Cluster, server: usize) -> Result<bool, String> {
    cluster.caught_up(server, WAIT).await.map_err(|failure| failure.to_string())?;
    let status = status(cluster, server).await?;
    let installed = status.counters.snapshots_installed;
    println!(
        "snapshots installed: {installed}; its snapshot is of index {}, it has applied {}",
        status.snapshot_index, status.applied_index,
    );
    Ok(installed > 0)
}

/// Waits until a new server knows that it is none of the cluster's.
async fn ready(cluster: &Cluster, server: usize) -> Result<Status, String> {
    until("the new server to be up", WAIT, async || {
        cluster.status(server).await.filter(|status| status.role == "joiner")
    })
    .await
    .map_err(|failure| failure.to_string())
}

async fn id_of(cluster: &Cluster, server: usize) -> Result<ServerId, String> {
    status(cluster, server).await?.server.ok_or_else(|| "a member has no id".into())
}

async fn status(cluster: &Cluster, server: usize) -> Result<Status, String> {
    let status = until("a server's status", WAIT, async || cluster.status(server).await).await;
    status.map_err(|failure| failure.to_string())
}

/// Bytes of all files in a data directory.
fn size_of(directory: &Path) -> std::io::Result<u64> {
    Ok(files(directory)?.iter().map(|(_, bytes)| bytes).sum())
}

/// Bytes of the newest snapshot in a data directory.
fn size_of_snapshot(directory: &Path) -> std::io::Result<u64> {
    // The name begins with the index.
    let snapshots = files(directory)?.into_iter().filter(|(name, _)| name.ends_with(".snap"));
    Ok(snapshots.max().map_or(0, |(_, bytes)| bytes))
}

fn files(directory: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
    };
    std::fs::read_dir(directory)?.map(file).collect()
}

fn key(number: u64) -> String {
    format!("key-{:06}", number % KEYS)
}

/// What the steady writers saw.
struct Seen {
    latency: Histogram<u64>,
    /// The longest time without any acknowledgement.
    longest_pause: Duration,
    last: Instant,
}

/// Writers at a steady rate: a put is due whether or not those before it were answered, and its time counts from then.
struct Paced {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    stop: AtomicBool,
    written: AtomicU64,
    failed: AtomicU64,
    seen: Mutex<Seen>,
}

impl Paced {
    fn start(map: Map) -> Self {
        let seen = Seen { latency: histogram(), longest_pause: Duration::ZERO, last: Instant::now() };
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            written: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            seen: Mutex::new(seen),
        });
        let task = tokio::spawn(pace(map, shared.clone()));
        Paced { shared, task }
    }

    /// What was seen since the last call.
    fn figures(&self) -> Seen {
        let mut seen = self.shared.seen();
        let last = seen.last;
        std::mem::replace(&mut *seen, Seen { latency: histogram(), longest_pause: Duration::ZERO, last })
    }

    async fn stop(self) -> Result<(u64, u64), String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.task.await.map_err(|error| error.to_string())?;
        Ok((self.shared.written.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed)))
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pace(map: Map, shared: Arc<Shared>) {
    let mut ticks = interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut puts = JoinSet::new();
    // Any walk over all keys will do; this one has no order.
    let mut number = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let due = ticks.tick().await.into_std();
        number += 104_729;
        let (map, shared) = (map.clone(), shared.clone());
        puts.spawn(async move {
            match map.put(&key(number), &value(number)).await {
                Ok(_) => {
                    shared.written.fetch_add(1, Ordering::Relaxed);
                    let mut seen = shared.seen();
                    seen.latency.saturating_record(due.elapsed().as_micros() as u64);
                    seen.longest_pause = seen.longest_pause.max(seen.last.elapsed());
                    seen.last = Instant::now();
                }
                Err(_) => _ = shared.failed.fetch_add(1, Ordering::Relaxed),
            }
        });
        while puts.try_join_next().is_some() {}
    }
    puts.join_all().await;
}

fn report(what: &str, seen: &Seen) {
    let milliseconds = |quantile| seen.latency.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{what}: {} puts, p50 {:.2} ms, p99 {:.2} ms, longest time without an acknowledgement {:.0} ms",
        seen.latency.len(),
        milliseconds(0.5),
        milliseconds(0.99),
        seen.longest_pause.as_secs_f64() * 1e3,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_snapshot_counts() {
        let place = tempfile::tempdir().expect("a directory");
        for (name, bytes) in [("log-1.seg", 10), ("snapshot-0a-01.snap", 9), ("snapshot-0b-01.snap", 7)] {
            std::fs::write(place.path().join(name), vec![0; bytes]).expect("written");
        }
        assert_eq!(size_of(place.path()).expect("read"), 26);
        assert_eq!(size_of_snapshot(place.path()).expect("read"), 7);
    }
}
