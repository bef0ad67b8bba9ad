//! Writers that know what must be found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atomix::{Atomix, Consistency, DistributedMap, MapError, NotDone, ResourceError};
use tokio::task::JoinSet;

/// Keys of each writer. A key is written again when the others have had their turn.
const KEYS: u64 = 12;
/// Longest value.
const VALUE_BYTES: u64 = 900;
/// Longest wait for anything.
pub(super) const WAIT: Duration = Duration::from_secs(30);
/// A writer that was told that there is no room waits for so long.
const PAUSE: Duration = Duration::from_millis(100);
const PATH: &str = "/load";

type Map = DistributedMap<String, Vec<u8>>;

/// Writers, each of which writes one key after the other as fast as it can, for as long as this lives. When a session is lost, they
/// go on with another, under other keys.
pub(super) struct Load {
    shared: Arc<Shared>,
    _writers: JoinSet<()>,
}

struct Shared {
    servers: Vec<String>,
    ledger: Mutex<Ledger>,
    acknowledged: AtomicU64,
    full: AtomicU64,
    session: tokio::sync::Mutex<Option<Session>>,
    sessions: AtomicU64,
}

#[derive(Clone)]
struct Session {
    number: u64,
    atomix: Atomix,
    map: Map,
}

/// What was written, and what was said of it.
#[derive(Debug, Default)]
struct Ledger {
    keys: BTreeMap<String, Written>,
}

/// What was written under one key: ascending numbers, each a value of its own.
#[derive(Clone, Debug, Default)]
struct Written {
    /// The greatest one that was ever sent.
    sent: u64,
    /// The greatest one that was acknowledged; zero if none was.
    acknowledged: u64,
    /// Of which it was said that they were not done.
    refused: BTreeSet<u64>,
}

impl Load {
    /// Starts writers of a cluster, which need not be up.
    pub(super) fn start(servers: Vec<String>, writers: u64) -> Self {
        let shared = Arc::new(Shared {
            servers,
            ledger: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            full: AtomicU64::new(0),
            session: tokio::sync::Mutex::default(),
            sessions: AtomicU64::new(0),
        });
        let mut running = JoinSet::new();
        for writer in 0..writers {
            running.spawn(write(shared.clone(), writer));
        }
        Load { shared, _writers: running }
    }

    /// How many writes were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How many writes were refused so far because disks were full.
    pub(super) fn full(&self) -> u64 {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// How many sessions it took so far.
    pub(super) fn sessions(&self) -> u64 {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Whether all that was acknowledged is there, as the cluster answers; what is wrong otherwise.
    pub(super) async fn check(&self) -> Result<(), String> {
        let before = self.shared.ledger().keys.clone();
        let found = tokio::time::timeout(WAIT, self.shared.read()).await;
        let found = found.map_err(|_| format!("no answer within {} s", WAIT.as_secs()))??;
        self.shared.ledger().check(&before, &found)
    }

    /// The same, as one server answers for itself, which has caught up with what was acknowledged when this is called.
    pub(super) async fn check_at(&self, server: &str) -> Result<(), String> {
        let before = self.shared.ledger().keys.clone();
        let builder = Atomix::builder().read_from(server).connect_timeout(WAIT);
        let atomix = builder.connect(self.shared.servers.clone()).await.map_err(|error| error.to_string())?;
        let map: Map = atomix.map(PATH).await.map_err(|error| error.to_string())?;
        let found = map.with_consistency(Consistency::Sequential).entries().await;
        let _ = atomix.close().await;
        self.shared.ledger().check(&before, &found.map_err(|error| error.to_string())?)
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of that number or a later one.
    async fn session(&self, number: u64) -> Session {
        let mut current = self.session.lock().await;
        loop {
            if let Some(session) = current.as_ref().filter(|session| session.number >= number) {
                return session.clone();
            }
            if let Some(lost) = current.take() {
                // Nothing of it may come late, while others write the same.
                let _ = tokio::time::timeout(Duration::from_secs(1), lost.atomix.close()).await;
            }
            let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
            let builder = Atomix::builder().connect_timeout(WAIT).operation_timeout(WAIT);
            let Ok(atomix) = builder.connect(self.servers.clone()).await else { continue };
            let Ok(map) = atomix.map(PATH).await else { continue };
            *current = Some(Session { number, atomix, map });
        }
    }

    async fn read(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut number = 0;
        let mut last = String::new();
        for _ in 0..3 {
            let session = self.session(number).await;
            match session.map.entries().await {
                Ok(entries) => return Ok(entries),
                Err(error) => last = error.to_string(),
            }
            number = session.number + 1;
        }
        Err(last)
    }
}

async fn write(shared: Arc<Shared>, writer: u64) {
    let mut session = shared.session(0).await;
    let mut number = 0;
    loop {
        number += 1;
        let key = format!("{writer}-{}-{}", session.number, number % KEYS);
        shared.ledger().keys.entry(key.clone()).or_default().sent = number;
        let put = session.map.put(&key, &value(&key, number)).await;
        shared.ledger().note(key, number, &put);
        match put {
            Ok(_) => _ = shared.acknowledged.fetch_add(1, Ordering::Relaxed),
            Err(MapError::Resource(ResourceError::NotDone(NotDone::Full))) => {
                shared.full.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => session = shared.session(session.number + 1).await,
        }
    }
}

impl Ledger {
    /// A write was answered.
    fn note<T>(&mut self, key: String, number: u64, answer: &Result<T, MapError>) {
        let written = self.keys.entry(key).or_default();
        match answer {
            Ok(_) => written.acknowledged = number,
            Err(error) if error.is_not_done() => _ = written.refused.insert(number),
            Err(_) => {}
        }
    }

    /// Holds what was found against what was acknowledged before that was read, and sent before this is called.
    fn check(&self, before: &BTreeMap<String, Written>, found: &[(String, Vec<u8>)]) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (key, bytes) in found {
            let number = number(bytes);
            let sent = self.keys.get(key);
            let real = sent.is_some_and(|sent| (1..=sent.sent).contains(&number));
            if !real || *bytes != value(key, number) {
                wrong.push(format!("{key}: {} bytes that were never written, number {number}", bytes.len()));
            } else if sent.is_some_and(|sent| sent.refused.contains(&number)) {
                wrong.push(format!("{key}: write {number} was said to be not done, and is there"));
            }
        }
        let found: BTreeMap<&str, u64> =
            found.iter().map(|(key, bytes)| (key.as_str(), number(bytes))).collect();
        for (key, written) in before.iter().filter(|(_, written)| written.acknowledged > 0) {
            let there = found.get(key.as_str()).copied().unwrap_or(0);
            if there < written.acknowledged {
                wrong.push(format!(
                    "{key}: write {} was acknowledged, {there} is there",
                    written.acknowledged
                ));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{} LOST or invented: {}", wrong.len(), wrong.join("; ")))
        }
    }
}

/// The one value of that number under that key.
fn value(key: &str, number: u64) -> Vec<u8> {
    let mut state = number;
    for byte in key.bytes() {
        state = mixed(state ^ u64::from(byte));
    }
    let length = 8 + (state % VALUE_BYTES) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < length {
        state = mixed(state);
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Steps of a generator of random numbers.
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number that a value begins with.
fn number(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sent: u64, acknowledged: u64, refused: &[u64]) -> Written {
        Written { sent, acknowledged, refused: refused.iter().copied().collect() }
    }

    #[track_caller]
    fn check(written: Written, found: Option<Vec<u8>>, expected: Option<&str>) {
        let keys: BTreeMap<_, _> = [("k".to_owned(), written)].into();
        let found: Vec<_> = found.into_iter().map(|bytes| ("k".to_owned(), bytes)).collect();
        let said = Ledger { keys: keys.clone() }.check(&keys, &found);
        match expected {
            None => assert_eq!(said, Ok(())),
            Some(part) => assert!(said.as_ref().is_err_and(|said| said.contains(part)), "{said:?}"),
        }
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_nothing_else() {
        let third = value("k", 3);
        check(written(3, 3, &[]), Some(third.clone()), None);
        check(written(3, 2, &[]), Some(third.clone()), None);
        check(written(2, 0, &[]), None, None);
        check(written(4, 4, &[]), Some(third.clone()), Some("4 was acknowledged, 3 is there"));
        check(written(3, 3, &[]), None, Some("3 was acknowledged, 0 is there"));
        check(written(2, 2, &[]), Some(third.clone()), Some("never written"));
        check(written(3, 2, &[3]), Some(third.clone()), Some("said to be not done"));
        check(written(3, 3, &[]), Some(third[..8].to_vec()), Some("never written"));
        check(written(3, 3, &[]), Some(value("other", 3)), Some("never written"));
    }
}
