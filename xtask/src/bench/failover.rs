//! `cargo xtask bench failover`: how long writes pause when the leader dies, or freezes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atomix::{Atomix, DistributedMap};
use atomix_cli::cluster::Cluster;
use atomix_protocol::limits;
use rustix::process::Signal;
use tokio::task::JoinSet;

/// Leaders killed.
const KILLS: usize = 10;
/// Leaders frozen.
const STOPS: usize = 5;
/// Writers that load the cluster meanwhile.
const WRITERS: usize = 16;
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(30);

type Map = DistributedMap<String, Vec<u8>>;

/// Measures; whether the median after a kill is below half of the minimum election timeout.
pub(super) async fn run(cluster: &mut Cluster) -> Result<bool, String> {
    let (shortest, longest) = limits::ELECTION_TIMEOUT;
    println!(
        "failover: heartbeat {} ms, election timeout {}-{} ms, session timeout {} ms (the defaults); {WRITERS} writers of 256 B",
        limits::HEARTBEAT.as_millis(),
        shortest.as_millis(),
        longest.as_millis(),
        limits::SESSION_TIMEOUT.as_millis(),
    );
    cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let atomix = Atomix::connect(cluster.addresses()).await.map_err(|error| error.to_string())?;
    let map: Map = atomix.map("/bench/failover").await.map_err(|error| error.to_string())?;
    let load = Load::start(&map);
    let kills = trials(cluster, &map, &load, KILLS, Signal::KILL).await?;
    let stops = trials(cluster, &map, &load, STOPS, Signal::STOP).await?;
    let (written, failed) = load.stop().await;
    println!("write load meanwhile: {written} acknowledged, {failed} failed");
    let (median, bound) = (median(&kills), shortest / 2);
    print("SIGKILL", &kills);
    print("SIGSTOP", &stops);
    let held = median < bound && failed == 0;
    println!(
        "median after SIGKILL {:.0} ms; below half of the minimum election timeout ({} ms): {}",
        median.as_secs_f64() * 1e3,
        bound.as_millis(),
        if median < bound { "yes" } else { "NO" },
    );
    Ok(held)
}

async fn trials(
    cluster: &mut Cluster,
    map: &Map,
    load: &Load,
    trials: usize,
    signal: Signal,
) -> Result<Vec<Duration>, String> {
    let mut times = Vec::new();
    for trial in 0..trials {
        load.flows().await?;
        let victim = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
        let begin = Instant::now();
        cluster.signal(victim, signal).map_err(|error| error.to_string())?;
        // Started after the signal: its acknowledgement is the first that proves a new leader.
        tokio::time::timeout(WAIT, map.put(&format!("probe-{trial}"), &vec![0; 256]))
            .await
            .map_err(|_| format!("no write was acknowledged within {} s", WAIT.as_secs()))?
            .map_err(|error| error.to_string())?;
        times.push(begin.elapsed());
        if signal == Signal::STOP {
            cluster.signal(victim, Signal::CONT).map_err(|error| error.to_string())?;
        } else {
            cluster.kill(victim).await.map_err(|error| error.to_string())?;
            cluster.start_server(victim).map_err(|error| error.to_string())?;
        }
        cluster.caught_up(victim, WAIT).await.map_err(|failure| failure.to_string())?;
    }
    Ok(times)
}

fn print(what: &str, times: &[Duration]) {
    let list: Vec<String> = times.iter().map(|time| format!("{:.0}", time.as_secs_f64() * 1e3)).collect();
    println!(
        "{what}: median {:.0} ms to the next acknowledged write ({} trials, ms: {})",
        median(times).as_secs_f64() * 1e3,
        times.len(),
        list.join(" "),
    );
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    match sorted.len() {
        0 => Duration::MAX,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2,
    }
}

/// Writers that write one after another.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writers: JoinSet<u64>,
}

impl Load {
    fn start(map: &Map) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (map, stop, written) = (map.clone(), stop.clone(), written.clone());
            writers.spawn(async move {
                let (key, value) = (format!("load-{writer}"), vec![1; 256]);
                let mut failed = 0;
                while !stop.load(Ordering::Relaxed) {
                    match map.put(&key, &value).await {
                        Ok(_) => _ = written.fetch_add(1, Ordering::Relaxed),
                        Err(_) => failed += 1,
                    }
                }
                failed
            });
        }
        Load { stop, written, writers }
    }

    /// Waits until a few hundred more writes were acknowledged.
    async fn flows(&self) -> Result<(), String> {
        let goal = self.written.load(Ordering::Relaxed) + 500;
        atomix_cli::cluster::until("the write load to flow", WAIT, async || {
            (self.written.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await
        .map_err(|failure| failure.to_string())
    }

    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.writers.join_all().await.into_iter().sum();
        (self.written.load(Ordering::Relaxed), failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let ms = |list: &[u64]| list.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        assert_eq!(median(&ms(&[3, 1, 2])), Duration::from_millis(2));
        assert_eq!(median(&ms(&[4, 1, 2, 3])), Duration::from_micros(2_500));
    }
}
