//! Reads through one server, all the time and all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use atomix::{Atomix, Consistency, DistributedMap};
use tokio::task::JoinHandle;

use super::ledger::{self, Map, Shared};
use super::servers::{Servers, address};

/// Attempts to have one server answer a read by itself.
const ATTEMPTS: usize = 40;
const PROBES: &str = "/probes";

/// A session that was opened before the damage, and reads from the damaged server.
pub(super) struct Reader {
    server: usize,
    session: Atomix,
    own: Map,
    all: Map,
    probes: DistributedMap<String, u64>,
    ledger: Shared,
    stop: Arc<AtomicBool>,
    meanwhile: JoinHandle<Result<u64, String>>,
}

impl Reader {
    /// Opens it, and begins to read one key after the other, through everything that comes.
    pub(super) async fn begin(servers: &Servers, ledger: &Shared, server: usize) -> Result<Self, String> {
        let (session, all) = ledger::open(&servers.net, Some(&address(server))).await?;
        let probes = session.map(PROBES).await.map_err(|error| error.to_string())?;
        let own = all.with_consistency(Consistency::Sequential);
        let stop = Arc::new(AtomicBool::new(false));
        let meanwhile = tokio::spawn(read(own.clone(), ledger.clone(), stop.clone()));
        Ok(Reader { server, session, own, all, probes, ledger: ledger.clone(), stop, meanwhile })
    }

    /// Ends the reading; how many values that server has answered meanwhile. Then reads everything: from that server itself, which must have
    /// all that was acknowledged by now, and from the cluster.
    pub(super) async fn end(self, servers: &Servers) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        let read = self.meanwhile.await.map_err(|error| error.to_string())??;
        let answered = servers.fresh_status(self.server).await?.counters.queries_answered;
        let own = Own { servers, server: self.server, map: &self.own, probes: &self.probes };
        let number = self.ledger.acknowledged();
        own.entries(&self.ledger, number).await?;
        let before = self.ledger.now();
        let found = self.all.entries().await.map_err(|error| error.to_string())?;
        self.ledger.check(&before, &found)?;
        // It ends by silence, if not so.
        let _ = self.session.close().await;
        Ok(read.min(answered))
    }
}

/// Everything, as one server has it.
pub(super) async fn everything(
    servers: &Servers,
    ledger: &Shared,
    server: usize,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let (session, map) = ledger::open(&servers.net, Some(&address(server))).await?;
    let probes = session.map(PROBES).await.map_err(|error| error.to_string())?;
    let map = map.with_consistency(Consistency::Sequential);
    let found = Own { servers, server, map: &map, probes: &probes }.entries(ledger, 0).await?;
    let _ = session.close().await;
    Ok(found)
}

/// Reads that one server answers by itself.
struct Own<'a> {
    servers: &'a Servers,
    server: usize,
    map: &'a Map,
    probes: &'a DistributedMap<String, u64>,
}

impl Own<'_> {
    /// Everything, with all that was acknowledged by now.
    async fn entries(&self, ledger: &Shared, number: u64) -> Result<Vec<(String, Vec<u8>)>, String> {
        let Own { servers, server, map, probes } = *self;
        let words = |error| format!("{}: {error}", address(server));
        for _ in 0..ATTEMPTS {
            let before = ledger.now();
            // What the session has written is later than all of that: a sequential read sees both.
            probes.put("probe", &number).await.map_err(|error| words(error.to_string()))?;
            let answered = servers.fresh_status(server).await?.counters.queries_answered;
            let found = map.entries().await.map_err(|error| words(error.to_string()))?;
            ledger.check(&before, &found).map_err(words)?;
            if servers.fresh_status(server).await?.counters.queries_answered > answered {
                return Ok(found);
            }
        }
        Err(words("it answers no reads".into()))
    }
}

/// Reads single keys until it is told to stop: every value is one that was sent, and none goes back.
async fn read(map: Map, ledger: Shared, stop: Arc<AtomicBool>) -> Result<u64, String> {
    let mut seen = std::collections::BTreeMap::new();
    let mut read = 0;
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let Some(key) = ledger.some_key(turn * 7) else {
            tokio::task::yield_now().await;
            continue;
        };
        // No answer is none that is wrong.
        let Ok(value) = map.get(&key).await else { continue };
        let number = match value {
            Some(bytes) => ledger.judge(&key, &bytes)?,
            None => 0,
        };
        let before = seen.insert(key.clone(), number).unwrap_or(0);
        if number < before {
            return Err(format!("SERVED: {key} went back from {before} to {number}"));
        }
        read += 1;
        tokio::time::sleep(super::BETWEEN_READS).await;
    }
    Ok(read)
}
