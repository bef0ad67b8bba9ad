//! What was written, what was acknowledged of it, and whether what is read can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atomix::{Atomix, DistributedMap};
use tokio::time::MissedTickBehavior;

use super::draw::mixed;
use super::servers::Net;

/// Keys, written in turn.
const KEYS: u64 = 96;
/// Values are shorter than this.
const VALUE_BYTES: u64 = 700;
/// Between two writes.
const PACE: Duration = Duration::from_millis(3);
/// An operation that takes longer is unknown.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most sessions of a writer: none should be lost.
const SESSIONS: u64 = 5;
pub(super) const PATH: &str = "/flips";

pub(super) type Map = DistributedMap<String, Vec<u8>>;

/// Of each key, the greatest number that was sent and the greatest that was acknowledged; numbers ascend.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    keys: BTreeMap<String, (u64, u64)>,
}

/// The ledger that a writer keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub(super) fn now(&self) -> Ledger {
        self.lock().clone()
    }

    /// How many writes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.lock().keys.values().map(|(_, acknowledged)| *acknowledged).max().unwrap_or(0)
    }

    /// A key that was written, drawn by a number.
    pub(super) fn some_key(&self, number: usize) -> Option<String> {
        let ledger = self.lock();
        ledger.keys.keys().nth(number % ledger.keys.len().max(1)).cloned()
    }

    /// Whether a value that was read can be: it was sent under that key.
    pub(super) fn judge(&self, key: &str, bytes: &[u8]) -> Result<u64, String> {
        self.lock().judge(key, bytes)
    }

    /// Whether all that is read was sent, and what was acknowledged when the reading began is there.
    pub(super) fn check(&self, before: &Ledger, found: &[(String, Vec<u8>)]) -> Result<(), String> {
        self.lock().check(before, found)
    }
}

impl Ledger {
    fn judge(&self, key: &str, bytes: &[u8]) -> Result<u64, String> {
        let number = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let sent = self.keys.get(key).map_or(0, |(sent, _)| *sent);
        if (1..=sent).contains(&number) && *bytes == value(key, number) {
            Ok(number)
        } else {
            Err(format!("SERVED: {key} has {} bytes that were never written, number {number}", bytes.len()))
        }
    }

    fn check(&self, before: &Ledger, found: &[(String, Vec<u8>)]) -> Result<(), String> {
        let mut there = BTreeMap::new();
        for (key, bytes) in found {
            there.insert(key, self.judge(key, bytes)?);
        }
        for (key, (_, acknowledged)) in &before.keys {
            let number = there.get(key).copied().unwrap_or(0);
            if number < *acknowledged {
                return Err(format!("LOST: {key} was acknowledged at {acknowledged}, {number} is there"));
            }
        }
        Ok(())
    }
}

/// Writes one key after the other, for as long as it can; why it could not any more.
pub(super) async fn write(net: Net, ledger: Shared) -> String {
    let mut number = 0;
    for session in 0..SESSIONS {
        let (_session, map) = match open(&net, None).await {
            Ok(opened) => opened,
            Err(problem) => return format!("the writer gets no session: {problem}"),
        };
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            number += 1;
            // What one session did not hear the end of, another must not count on: keys of its own.
            let key = format!("key-{session}-{}", number % KEYS);
            ledger.lock().keys.entry(key.clone()).or_default().0 = number;
            if map.put(&key, &value(&key, number)).await.is_err() {
                break;
            }
            ledger.lock().keys.entry(key).or_default().1 = number;
        }
    }
    format!("the writer lost {SESSIONS} sessions")
}

/// A session of its own, which reads from a server if one is named.
pub(super) async fn open(net: &Net, read_from: Option<&str>) -> Result<(Atomix, Map), String> {
    let mut builder = Atomix::builder().transport(net.clients()).connect_timeout(PATIENCE);
    builder = builder.operation_timeout(PATIENCE);
    if let Some(server) = read_from {
        builder = builder.read_from(server);
    }
    let atomix = builder.connect(net.addresses()).await.map_err(|error| error.to_string())?;
    let map = atomix.map(PATH).await.map_err(|error| error.to_string())?;
    Ok((atomix, map))
}

/// The one value of that number under that key.
fn value(key: &str, number: u64) -> Vec<u8> {
    let mut state = key.bytes().fold(number, |state, byte| mixed(state ^ u64::from(byte)));
    let length = 8 + (state % VALUE_BYTES) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < length {
        state = mixed(state);
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_must_be_there_and_nothing_else() {
        let ledger = Ledger { keys: [("k".to_owned(), (5, 3))].into() };
        let check = |value: Vec<u8>| ledger.check(&ledger, &[("k".to_owned(), value)]);
        assert_eq!(check(value("k", 3)), Ok(()));
        assert_eq!(check(value("k", 5)), Ok(()));
        assert!(check(value("k", 2)).is_err_and(|error| error.contains("LOST")));
        assert!(check(value("k", 6)).is_err_and(|error| error.contains("SERVED")));
        assert!(check(value("other", 3)).is_err_and(|error| error.contains("SERVED")));
        let mut flipped = value("k", 4);
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert!(check(flipped).is_err_and(|error| error.contains("SERVED")));
        assert!(ledger.check(&ledger, &[]).is_err_and(|error| error.contains("LOST")));
    }
}
