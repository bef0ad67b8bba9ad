//! The end: nobody writes any more, and everything is compared.

use super::layout::{Image, Layout};
use super::ledger;
use super::round::Cluster;
use super::servers::{SERVERS, address};
use super::tally::Tally;

impl Cluster {
    /// Stops everything, compares the logs, starts everything again, and looks for all that was ever acknowledged.
    pub(super) async fn end(mut self) -> Result<Tally, String> {
        self.stop_writing().await;
        let before = self.ledger.now();
        self.compare_states(&before).await?;
        let mut layouts = Vec::new();
        // What is behind that may be of no leader any more, while one after the other stops.
        let committed = (0..SERVERS).map(|server| self.servers.status(server).commit_index.0).min();
        for server in 0..SERVERS {
            self.servers.stop(server, true).await?;
            let image = Image::of(&self.servers.directory(server)).map_err(|error| error.to_string())?;
            let layout = Layout::of(&image).map_err(|problem| format!("{}: {problem}", address(server)))?;
            layouts.push(layout);
        }
        self.tally.compared += compare_logs(&layouts, committed.unwrap_or(0))?;
        for server in 0..SERVERS {
            self.servers.start(server, false).await.map_err(|error| error.to_string())?;
        }
        self.compare_states(&before).await?;
        for server in 0..SERVERS {
            self.servers.stop(server, true).await?;
        }
        self.tally.acknowledged = self.ledger.acknowledged();
        Ok(self.tally)
    }

    /// Each server has what all have, and all have what was acknowledged.
    async fn compare_states(&self, before: &ledger::Ledger) -> Result<(), String> {
        let (session, map) = ledger::open(&self.servers.net, None).await?;
        let found = map.entries().await.map_err(|error| error.to_string())?;
        self.ledger.check(before, &found)?;
        let _ = session.close().await;
        for server in 0..SERVERS {
            let own = super::reader::everything(&self.servers, &self.ledger, server).await?;
            if own != found {
                return Err(format!("{} has another state than the leader", address(server)));
            }
        }
        Ok(())
    }
}

/// Whatever two logs both hold of what is committed is the same; how many entries were compared.
fn compare_logs(layouts: &[Layout], committed: u64) -> Result<u64, String> {
    let mut compared = 0;
    for (server, layout) in layouts.iter().enumerate() {
        for (other, its) in layouts.iter().enumerate().skip(server + 1) {
            let (ours, theirs) = (&layout.contents.entries, &its.contents.entries);
            let common = |index: u64| theirs.binary_search_by_key(&index, |entry| entry.index).ok();
            for entry in ours.iter().filter(|entry| entry.index <= committed) {
                let Some(at) = common(entry.index) else { continue };
                let same = (entry.term, entry.content) == (theirs[at].term, theirs[at].content);
                if !same {
                    let (one, two) = (address(server), address(other));
                    return Err(format!("{one} and {two} hold another entry at {}", entry.index));
                }
                compared += 1;
            }
        }
    }
    Ok(compared)
}
