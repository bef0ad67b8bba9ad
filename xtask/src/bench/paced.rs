//! Writers at a steady rate, whatever happens to the cluster meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::catch_up::key;
use super::load::{Map, value};
use super::write::histogram;

/// Between two puts.
pub(super) const BETWEEN: Duration = Duration::from_millis(2);

/// What the steady writers saw.
pub(super) struct Seen {
    latency: Histogram<u64>,
    /// The longest time without any acknowledgement.
    longest_pause: Duration,
    last: Instant,
}

/// Writers at a steady rate: a put is due whether or not those before it were answered, and its time counts from then.
pub(super) struct Paced {
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
    /// Starts them.
    pub(super) fn start(map: Map) -> Self {
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
    pub(super) fn figures(&self) -> Seen {
        let mut seen = self.shared.seen();
        let last = seen.last;
        std::mem::replace(&mut *seen, Seen { latency: histogram(), longest_pause: Duration::ZERO, last })
    }

    /// Lets the last of them finish: how many were acknowledged, and how many were not.
    pub(super) async fn stop(self) -> Result<(u64, u64), String> {
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

/// Prints what was seen.
pub(super) fn report(what: &str, seen: &Seen) {
    let milliseconds = |quantile| seen.latency.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{what}: {} puts, p50 {:.2} ms, p99 {:.2} ms, longest time without an acknowledgement {:.0} ms",
        seen.latency.len(),
        milliseconds(0.5),
        milliseconds(0.99),
        seen.longest_pause.as_secs_f64() * 1e3,
    );
}
