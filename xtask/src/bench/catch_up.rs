//! `cargo xtask bench catch-up`: servers join a cluster that has much state, or come back to it, while others write.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atomix::admin::{Change, ManageAction, ManageOutcome, NewMember, manage};
use atomix::{Atomix, Consistency, MemberKind, ServerId, Status};
use atomix_cli::cluster::{Cluster, Entry, until};
use tokio::task::JoinSet;

use super::load::{Map, VALUE_BYTES, number, value};
use super::members::member;
use super::paced::{BETWEEN, Paced, report};
use super::proxy::Proxy;

/// Keys of the state.
const KEYS: u64 = 400_000;
/// Puts in flight while it is written.
const LOADERS: u64 = 512;
/// As much of it must be in a snapshot, or the figures are of something else.
const STATE_BYTES: u64 = 100_000_000;
/// More entries than the tail that is kept before a snapshot has.
const TAIL: u64 = 150_000;
/// Keys that are read back from a server, of all over the state.
const SAMPLES: u64 = 300;
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
    fill(cluster, &map, 0).await?;
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let state = size_of_snapshot(&cluster.directory(leader)).map_err(|error| error.to_string())?;
    if state < STATE_BYTES {
        return Err(format!("the state is {state} B in a snapshot, and should be {STATE_BYTES} at least"));
    }
    let paced = Paced::start(map.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    paced.figures();
    tokio::time::sleep(BEFORE).await;
    report("writers before", &paced.figures());

    println!("\na fourth server:");
    let server = straight(cluster, executable, &paced).await?;
    let mut sound = by_snapshot(cluster, server, 0).await?;
    sound &= has_contents(cluster, server, false).await?;
    // The second one is to start from where the first one did.
    let id = id_of(cluster, server).await?;
    print!("{}", member(executable, &cluster.addresses(), &["remove", &id.to_string()]).await?);
    cluster.kill(server).await.map_err(|error| error.to_string())?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    paced.figures();

    println!("\nanother one, whose link from the leader is cut {} times on the way:", CUTS.len());
    let (server, proxy) = cut(cluster, executable, &paced).await?;
    sound &= by_snapshot(cluster, server, 0).await?;
    sound &= has_contents(cluster, server, false).await?;

    println!(
        "\nthe same one, away while the log was compacted behind it, with as many cuts when it is back:"
    );
    let through = away(cluster, server, &map).await?;
    back(cluster, server, &proxy, &paced).await?;
    sound &= by_snapshot(cluster, server, through).await?;
    let (written, failed) = paced.stop().await?;
    // Nobody writes any more: now it must have exactly what the leader has.
    sound &= has_contents(cluster, server, true).await?;
    println!("\nsteady writes: {written} acknowledged, {failed} failed");
    Ok(sound && failed == 0 && proxy.cuts() == 2 * CUTS.len() as u64)
}

/// Writes the state, and goes on until a snapshot holds all of it: the log alone does not reach back to its beginning then.
/// If that snapshot must be of a later index, until it is.
async fn fill(cluster: &Cluster, map: &Map, least: u64) -> Result<(), String> {
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
    let full = status(cluster, leader).await?.last_index.0.max(least);
    println!(
        "written in {:.1} s: {:.0} puts/s with {LOADERS} in flight",
        time.as_secs_f64(),
        KEYS as f64 / time.as_secs_f64(),
    );
    let taken = until("a snapshot of all of it", WAIT, async || {
        cluster.status(leader).await.filter(|status| status.snapshot_index.0 >= full)
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

/// As an operator does it; which server it is.
async fn straight(cluster: &mut Cluster, executable: &Path, paced: &Paced) -> Result<usize, String> {
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
    Ok(server)
}

/// The leader reaches the new server through a proxy, which is cut. Which server it is.
async fn cut(cluster: &mut Cluster, executable: &Path, paced: &Paced) -> Result<(usize, Proxy), String> {
    let server = cluster.add_server(Entry::Waits).map_err(|error| error.to_string())?;
    let new = ready(cluster, server).await?;
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let snapshot = size_of_snapshot(&cluster.directory(leader)).map_err(|error| error.to_string())?;
    let address = cluster.addresses()[server].clone();
    let proxy = Proxy::start(&address).await.map_err(|error| error.to_string())?;
    proxy.cut(&shares(snapshot));
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
    receive(cluster, server, &proxy, (0, snapshot)).await?;
    // It votes once it has caught up: `add` goes on from where it is.
    let said = member(executable, &cluster.addresses(), &["add", &address]).await?;
    let took = begin.elapsed();
    report("writers meanwhile", &paced.figures());
    print!("{said}");
    println!("caught up, with a vote, after {:.2} s", took.as_secs_f64());
    Ok((server, proxy))
}

/// Ends a member, and lets the log be compacted behind it. What it had.
async fn away(cluster: &mut Cluster, server: usize, map: &Map) -> Result<u64, String> {
    let had = status(cluster, server).await?.last_index.0;
    cluster.kill(server).await.map_err(|error| error.to_string())?;
    println!("killed with a log through {had}");
    fill(cluster, map, had + TAIL).await?;
    Ok(had)
}

/// Starts it again, behind a proxy that is cut as before.
async fn back(cluster: &mut Cluster, server: usize, proxy: &Proxy, paced: &Paced) -> Result<(), String> {
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let snapshot = size_of_snapshot(&cluster.directory(leader)).map_err(|error| error.to_string())?;
    let before = proxy.bytes();
    proxy.cut(&shares(snapshot));
    paced.figures();
    let begin = Instant::now();
    cluster.start_server(server).map_err(|error| error.to_string())?;
    receive(cluster, server, proxy, (before, snapshot)).await?;
    cluster.caught_up(server, WAIT).await.map_err(|failure| failure.to_string())?;
    report("writers meanwhile", &paced.figures());
    println!("caught up after {:.2} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn shares(snapshot: u64) -> [u64; CUTS.len()] {
    CUTS.map(|percent| snapshot / 100 * percent)
}

/// Waits until a server has a snapshot of that size, and says when its link was cut on the way. `before` had gone to it before.
async fn receive(
    cluster: &Cluster,
    server: usize,
    proxy: &Proxy,
    (before, snapshot): (u64, u64),
) -> Result<(), String> {
    let cuts = proxy.cuts();
    for cut in 1..=CUTS.len() as u64 {
        until("the link to be cut", WAIT, async || (proxy.cuts() >= cuts + cut).then_some(()))
            .await
            .map_err(|failure| failure.to_string())?;
        let gone = proxy.bytes() - before;
        let share = gone as f64 / snapshot as f64 * 100.0;
        println!("cut {cut}: {:.1} MB had gone, as much as {share:.0} % of the snapshot", gone as f64 / 1e6);
    }
    until("the server to have a snapshot", WAIT, async || {
        cluster.status(server).await.filter(|status| status.counters.snapshots_installed > 0)
    })
    .await
    .map_err(|failure| failure.to_string())?;
    let gone = proxy.bytes() - before;
    println!(
        "{:.1} MB went to it until it had the snapshot of {:.1} MB, with {} cuts: {:.1} MB more than once",
        gone as f64 / 1e6,
        snapshot as f64 / 1e6,
        proxy.cuts() - cuts,
        gone.saturating_sub(snapshot) as f64 / 1e6,
    );
    Ok(())
}

/// Whether the process that runs now has been given a snapshot, of more than `through`.
async fn by_snapshot(cluster: &Cluster, server: usize, through: u64) -> Result<bool, String> {
    cluster.caught_up(server, WAIT).await.map_err(|failure| failure.to_string())?;
    let status = status(cluster, server).await?;
    let installed = status.counters.snapshots_installed;
    println!(
        "snapshots installed: {installed}; its snapshot is of index {}, it has applied {}",
        status.snapshot_index, status.applied_index,
    );
    Ok(installed > 0 && status.snapshot_index.0 > through)
}

/// Whether a server itself has all keys, and under some of them what was written there. If nobody writes any more: what the
/// leader has. A few reads may go elsewhere, before the link to it stands.
async fn has_contents(cluster: &Cluster, server: usize, quiet: bool) -> Result<bool, String> {
    cluster.caught_up(server, WAIT).await.map_err(|failure| failure.to_string())?;
    let answered = status(cluster, server).await?.counters.queries_answered;
    let address = cluster.addresses()[server].clone();
    let builder = Atomix::builder().read_from(address.as_str()).connect_timeout(WAIT);
    let atomix = builder.connect(cluster.addresses()).await.map_err(|error| error.to_string())?;
    let leaders: Map = atomix.map(PATH).await.map_err(|error| error.to_string())?;
    let own = leaders.with_consistency(Consistency::Sequential);
    let keys = own.len().await.map_err(|error| error.to_string())?;
    let (mut wrong, mut other) = (0, 0);
    for sample in 0..SAMPLES {
        // Spread over all keys without an order.
        let key = key(sample.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16);
        let there = own.get(&key).await.map_err(|error| error.to_string())?;
        wrong += u64::from(there.as_ref().is_none_or(|value| self::key(number(value)) != key));
        if quiet {
            other += u64::from(there != leaders.get(&key).await.map_err(|error| error.to_string())?);
        }
    }
    atomix.close().await.map_err(|error| error.to_string())?;
    let by_itself = status(cluster, server).await?.counters.queries_answered.saturating_sub(answered);
    let compared = if quiet { format!(", {other} unlike the leader's") } else { String::new() };
    println!(
        "its own contents: {keys} keys of {KEYS}; of {SAMPLES} read, {wrong} lost or wrong{compared}; it answered {by_itself} reads itself"
    );
    Ok(keys == KEYS && wrong == 0 && other == 0 && by_itself >= SAMPLES / 10 * 9)
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

/// The key of a write.
pub(super) fn key(number: u64) -> String {
    format!("key-{:06}", number % KEYS)
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
