//! A write load that remembers what was acknowledged, so that it can be looked for afterwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atomix::{Atomix, Consistency, DistributedMap};
use atomix_cli::cluster::until;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::write::histogram;

/// Writers of one client, each with one put in flight.
pub(super) const WRITERS: usize = 64;
/// Keys of each. A key is written again when the others have had their turn.
const KEYS: u64 = 50;
/// Bytes of a value. It begins with the number of the write.
pub(super) const VALUE_BYTES: usize = 256;
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(60);

pub(super) type Map = DistributedMap<String, Vec<u8>>;

/// What happened since the last look.
pub(super) struct Figures {
    /// Puts acknowledged.
    pub(super) puts: u64,
    /// How long they took, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// The longest time between two acknowledgements of the one writer that writes one after another.
    pub(super) longest_pause: Duration,
    /// For so long.
    pub(super) time: Duration,
}

/// Writers that go on until they are stopped.
pub(super) struct Load {
    shared: Arc<Shared>,
    writers: JoinSet<Written>,
    /// One session for the many, another one for the one.
    sessions: [Atomix; 2],
}

/// What one writer has been told, by key.
struct Written {
    writer: usize,
    /// The greatest number that was acknowledged under each of its keys.
    acknowledged: Vec<u64>,
}

struct Shared {
    stop: AtomicBool,
    /// Puts that were acknowledged, in all.
    acknowledged: AtomicU64,
    /// Puts that may or may not have been done.
    unknown: AtomicU64,
    /// Puts that were not done.
    refused: AtomicU64,
    since: Mutex<Since>,
}

struct Since {
    begin: Instant,
    latency: Histogram<u64>,
    longest_pause: Duration,
    /// Acknowledgements of the one writer.
    sequence: u64,
}

impl Since {
    fn new() -> Self {
        Since { begin: Instant::now(), latency: histogram(), longest_pause: Duration::ZERO, sequence: 0 }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    /// Puts acknowledged.
    pub(super) acknowledged: u64,
    /// Puts whose outcome is unknown.
    pub(super) unknown: u64,
    /// Puts that were not done.
    pub(super) refused: u64,
}

impl Load {
    /// The many write at once through one session; the one that writes one after another has a session of its own.
    pub(super) async fn start(servers: &[String], path: &str) -> Result<Self, String> {
        let connect = async || Atomix::connect(servers.to_vec()).await.map_err(|error| error.to_string());
        let sessions = [connect().await?, connect().await?];
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            since: Mutex::new(Since::new()),
        });
        let mut writers = JoinSet::new();
        for writer in 0..=WRITERS {
            let session = &sessions[usize::from(writer == WRITERS)];
            let map: Map = session.map(path).await.map_err(|error| error.to_string())?;
            writers.spawn(write(map, writer, shared.clone()));
        }
        Ok(Load { shared, writers, sessions })
    }

    /// What happened since the last call. Waits for an acknowledgement, so that a pause that goes on is counted where it began.
    pub(super) async fn figures(&self) -> Result<Figures, String> {
        let before = self.shared.since().sequence;
        until("an acknowledgement", WAIT, async || (self.shared.since().sequence > before).then_some(()))
            .await
            .map_err(|failure| failure.to_string())?;
        let Since { begin, latency, longest_pause, .. } =
            std::mem::replace(&mut *self.shared.since(), Since::new());
        Ok(Figures { puts: latency.len(), latency, longest_pause, time: begin.elapsed() })
    }

    /// Lets the writers finish. What was acknowledged under each key, and the counts.
    pub(super) async fn stop(mut self) -> Result<(Acknowledged, Total), String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut keys = Vec::new();
        while let Some(written) = self.writers.join_next().await {
            let Written { writer, acknowledged } = written.map_err(|error| error.to_string())?;
            keys.extend((0..).zip(acknowledged).map(|(place, number)| (key(writer, place), number)));
        }
        for session in &self.sessions {
            session.close().await.map_err(|error| error.to_string())?;
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Shared { acknowledged, unknown, refused, .. } = &*self.shared;
        let total = Total { acknowledged: of(acknowledged), unknown: of(unknown), refused: of(refused) };
        Ok((Acknowledged { keys }, total))
    }
}

impl Shared {
    fn since(&self) -> MutexGuard<'_, Since> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(map: Map, writer: usize, shared: Arc<Shared>) -> Written {
    let alone = writer == WRITERS;
    let mut acknowledged = vec![0; KEYS as usize];
    let mut last = Instant::now();
    let mut number = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        number += 1;
        let place = number % KEYS;
        let begin = Instant::now();
        match map.put(&key(writer, place), &value(number)).await {
            Ok(_) => {
                acknowledged[place as usize] = number;
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                let mut since = shared.since();
                since.latency.saturating_record(begin.elapsed().as_micros() as u64);
                if alone {
                    since.longest_pause = since.longest_pause.max(last.elapsed());
                    since.sequence += 1;
                    last = Instant::now();
                }
            }
            Err(error) if error.is_unknown() => _ = shared.unknown.fetch_add(1, Ordering::Relaxed),
            Err(_) => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                // A session that has ended refuses at once, for ever.
                tokio::task::yield_now().await;
            }
        }
    }
    Written { writer, acknowledged }
}

/// What must be there.
pub(super) struct Acknowledged {
    /// A key, and the greatest number that was acknowledged under it; zero if none was.
    keys: Vec<(String, u64)>,
}

impl Acknowledged {
    /// Keys that a server does not have with that value or a later one, read from the server itself.
    pub(super) async fn missing_at(&self, server: &str, path: &str) -> Result<Vec<String>, String> {
        let builder = Atomix::builder().read_from(server).connect_timeout(WAIT);
        let atomix = builder.connect([server]).await.map_err(|error| error.to_string())?;
        let map: Map = atomix.map(path).await.map_err(|error| error.to_string())?;
        let map = map.with_consistency(Consistency::Sequential);
        let entries = map.entries().await.map_err(|error| error.to_string())?;
        atomix.close().await.map_err(|error| error.to_string())?;
        let found = entries.into_iter().map(|(key, value)| (key, number(&value))).collect();
        Ok(self.missing_in(&found))
    }

    fn missing_in(&self, found: &std::collections::BTreeMap<String, u64>) -> Vec<String> {
        let is_there = |key: &String, number: u64| found.get(key).is_some_and(|there| *there >= number);
        let missing = self.keys.iter().filter(|(key, number)| *number > 0 && !is_there(key, *number));
        missing.map(|(key, _)| key.clone()).collect()
    }
}

fn key(writer: usize, place: u64) -> String {
    format!("{writer}-{place}")
}

/// A value that begins with a number.
pub(super) fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(VALUE_BYTES, 0x5a);
    value
}

/// The number that a value begins with.
pub(super) fn number(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_carries_its_number() {
        assert_eq!(number(&value(7)), 7);
        assert_eq!(value(7).len(), VALUE_BYTES);
        assert_eq!(number(b"short"), 0);
    }

    #[test]
    fn an_earlier_value_is_a_loss_and_a_later_one_is_not() {
        let keys = [("a", 5), ("b", 5), ("c", 5), ("d", 5), ("e", 0)];
        let keys = keys.map(|(key, number)| (key.to_owned(), number)).to_vec();
        let found = [("a", 5), ("b", 6), ("c", 4)].map(|(key, number)| (key.to_owned(), number));
        assert_eq!(Acknowledged { keys }.missing_in(&found.into()), ["c", "d"]);
    }
}
