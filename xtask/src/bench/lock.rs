//! `cargo xtask bench lock`: one lock, handed from one contender to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atomix::{Atomix, Index};
use atomix_cli::cluster::Cluster;
use hdrhistogram::Histogram;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::machine::Usage;
use super::write::histogram;

/// Contenders, each with a session of its own.
const CONTENDERS: u64 = 8;
/// Cycles of each that are not counted, and that are.
const WARM_UP: u64 = 200;
const CYCLES: u64 = 1_500;
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(60);

/// What the contenders share.
struct Shared {
    /// Somebody is inside.
    held: AtomicBool,
    /// Times that two were.
    overlaps: AtomicU64,
    /// The greatest token so far, and how often a later one was not greater.
    token: AtomicU64,
    disorder: AtomicU64,
    /// All have warmed up; then the counters are read; then all go on.
    turn: Barrier,
}

/// Measures; whether nobody overlapped, tokens ascended, and every hand-over took exactly one commit.
pub(super) async fn run(cluster: &Cluster) -> Result<bool, String> {
    println!(
        "lock: {CONTENDERS} contenders with a session each on one lock of three server processes, fsync on, {CYCLES} cycles of acquire and release each",
    );
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let shared = Arc::new(Shared {
        held: AtomicBool::new(false),
        overlaps: AtomicU64::new(0),
        token: AtomicU64::new(0),
        disorder: AtomicU64::new(0),
        turn: Barrier::new(usize::try_from(CONTENDERS).unwrap_or(0) + 1),
    });
    let mut contenders = JoinSet::new();
    for _ in 0..CONTENDERS {
        let atomix = Atomix::connect(cluster.addresses()).await.map_err(|error| error.to_string())?;
        contenders.spawn(contend(atomix, shared.clone()));
    }
    let committed = async || cluster.status(leader).await.map(|status| status.commit_index);
    let pids: Vec<u32> = (0..cluster.size()).filter_map(|server| cluster.pid(server)).collect();

    shared.turn.wait().await;
    let before: Option<Index> = committed().await;
    let (servers, begin) = (Usage::of(&pids), Instant::now());
    shared.turn.wait().await;
    // The last one out: nobody closes a session before the counters are read again.
    shared.turn.wait().await;
    let (time, servers) = (begin.elapsed(), Usage::of(&pids).since(servers));
    let after = committed().await;
    shared.turn.wait().await;

    let mut waits = histogram();
    while let Some(ended) = contenders.join_next().await {
        let one = ended.map_err(|error| error.to_string())??;
        waits.add(one).map_err(|error| error.to_string())?;
    }
    let (Some(before), Some(after)) = (before, after) else {
        return Err("the leader does not say how far it has committed".into());
    };
    let cycles = CONTENDERS * CYCLES;
    let entries = after.since(before);
    // Each cycle has one entry that joins the queue; what remains handed the lock on.
    let per_hand_over = entries.saturating_sub(cycles) as f64 / cycles as f64;
    println!(
        "{:.0} cycles/s; from asking to having: p50 {:.2} ms, p99 {:.2} ms; {:.0} CPU us of the servers a cycle",
        cycles as f64 / time.as_secs_f64(),
        waits.value_at_quantile(0.5) as f64 / 1e3,
        waits.value_at_quantile(0.99) as f64 / 1e3,
        servers.cpu.as_micros() as f64 / cycles as f64,
    );
    println!(
        "{entries} entries committed: {cycles} asked, {} handed over: {per_hand_over:.3} commits per hand-over",
        entries.saturating_sub(cycles),
    );
    let (overlaps, disorder) =
        (shared.overlaps.load(Ordering::SeqCst), shared.disorder.load(Ordering::SeqCst));
    println!("held by two at once: {overlaps}; tokens out of order: {disorder}");
    Ok(overlaps == 0 && disorder == 0 && entries == 2 * cycles)
}

async fn contend(atomix: Atomix, shared: Arc<Shared>) -> Result<Histogram<u64>, String> {
    let lock = atomix.lock("/bench/lock").await.map_err(|error| error.to_string())?;
    let mut waits = histogram();
    for round in [WARM_UP, CYCLES] {
        waits.reset();
        for _ in 0..round {
            let begin = Instant::now();
            let guard = lock.acquire().await.map_err(|error| error.to_string())?;
            waits.saturating_record(begin.elapsed().as_micros() as u64);
            let token = u64::from(guard.token());
            shared.overlaps.fetch_add(u64::from(shared.held.swap(true, Ordering::SeqCst)), Ordering::SeqCst);
            let earlier = shared.token.fetch_max(token, Ordering::SeqCst);
            shared.disorder.fetch_add(u64::from(earlier >= token), Ordering::SeqCst);
            shared.held.store(false, Ordering::SeqCst);
            guard.release().await.map_err(|error| error.to_string())?;
        }
        shared.turn.wait().await;
        shared.turn.wait().await;
    }
    atomix.close().await.map_err(|error| error.to_string())?;
    Ok(waits)
}
