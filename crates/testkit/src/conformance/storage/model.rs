//! What a storage holds, as plain lists: the naive twin.

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, EntryId, Index, WriteBatch};
use atomix_storage::Recovered;

/// What a storage holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    /// All but the entries.
    pub(super) recovered: Recovered,
    /// The entry right before `entries`.
    base: EntryId,
    entries: Vec<Entry>,
}

impl Model {
    pub(super) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, |entry| entry.id)
    }

    /// The end of the newest snapshot.
    pub(super) fn start(&self) -> EntryId {
        self.recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last)
    }

    pub(super) fn id_at(&self, index: Index) -> Option<EntryId> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entries.iter().find(|entry| entry.id.index == index).map(|entry| entry.id)
    }

    pub(super) fn entries(&self, from: Index, through: Index) -> Vec<Entry> {
        let wanted = |entry: &&Entry| entry.id.index >= from && entry.id.index <= through;
        self.entries.iter().filter(wanted).cloned().collect()
    }

    /// Every state in which a crash may leave a batch: after none of its fields, after each, after each entry.
    pub(super) fn prefixes(&self, batch: &WriteBatch) -> Vec<Model> {
        let mut states = vec![self.clone()];
        let mut then = |change: &dyn Fn(&mut Model)| {
            let mut next = states.last().expect("the first is there").clone();
            change(&mut next);
            states.push(next);
        };
        if let Some(identity) = batch.identity {
            then(&|model| model.recovered.identity = Some(identity));
        }
        if let Some(configuration) = &batch.configuration {
            then(&|model| model.recovered.configuration = Some(configuration.clone()));
        }
        if let Some(abstention) = batch.abstention {
            then(&|model| model.recovered.abstention = abstention);
        }
        if let Some(hard_state) = batch.hard_state {
            then(&|model| model.recovered.hard_state = hard_state);
        }
        if let Some(id) = batch.truncate_after {
            then(&|model| model.truncate_after(id));
        }
        for entry in &batch.entries {
            then(&|model| model.entries.push(entry.clone()));
        }
        states
    }

    pub(super) fn write(&mut self, batch: &WriteBatch) {
        *self = self.prefixes(batch).pop().expect("the last is there");
    }

    pub(super) fn publish(&mut self, meta: &SnapshotMeta) {
        self.recovered.snapshot = Some(meta.clone());
    }

    /// A start. What it hands out.
    pub(super) fn recover(&mut self) -> Vec<Entry> {
        let start = self.start();
        if self.id_at(start.index) != Some(start) {
            self.truncate_after(start);
        }
        self.entries(start.index.next(), Index(u64::MAX))
    }

    fn truncate_after(&mut self, id: EntryId) {
        if self.id_at(id.index) == Some(id) {
            self.entries.retain(|entry| entry.id.index <= id.index);
        } else {
            (self.base, self.entries) = (id, Vec::new());
        }
    }
}
