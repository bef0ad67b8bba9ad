//! Disks that lose what they held (D4).

use atomix_protocol::{EntryId, Index, ServerId, WriteBatch};
use atomix_storage::Storage;

use super::Cluster;

impl Cluster {
    /// The log of a server that is down turns out to be damaged behind an index: what is before it is left, and storage says how far
    /// something may have been acknowledged. What a snapshot covers is not lost. Whether anything is.
    ///
    /// # Panics
    /// If the server is up.
    pub fn damage(&mut self, id: ServerId, keep: Index) -> bool {
        let server = self.servers.get_mut(&id).expect("a server");
        assert!(server.raft.is_none(), "server {id} is up");
        let mut held = Vec::new();
        let found = server.disk.recover(&mut |entry| held.push(entry.id)).expect("memory has no errors");
        let base = found.snapshot.map_or(EntryId::ZERO, |meta| meta.last);
        let (kept, lost): (Vec<EntryId>, Vec<EntryId>) =
            held.into_iter().partition(|held| held.index <= keep);
        let Some(last) = lost.last().map(|lost| lost.index) else { return false };
        let batch = WriteBatch {
            abstention: Some(Some(found.abstention.map_or(last, |before| before.max(last)))),
            truncate_after: Some(kept.last().copied().unwrap_or(base)),
            ..WriteBatch::default()
        };
        server.disk.write(&batch).expect("memory has no errors");
        server.lost.extend(lost);
        true
    }

    /// Whether part of what a server held is lost, and it abstains until it has it again.
    #[must_use]
    pub fn is_damaged(&self, id: ServerId) -> bool {
        !self.servers[&id].lost.is_empty()
    }

    /// A server abstains no more: what it lost and was committed, it holds again (I22).
    pub(super) fn look_at_repair(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server");
        let lost = std::mem::take(&mut server.lost);
        let ledger = self.checker.ledger();
        let committed = |entry: &EntryId| ledger.get(&entry.index).is_some_and(|known| known.id == *entry);
        let missing = lost.into_iter().find(|entry| committed(entry) && !server.holds(*entry));
        if let Some(missing) = missing {
            self.checker
                .report(format!("repair: {id} abstains no more, and lacks the committed entry {missing}"));
        }
    }
}
