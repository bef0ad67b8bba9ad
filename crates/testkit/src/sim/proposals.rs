//! The workload of bare consensus: who proposed and read what, and what they were told.

use std::collections::BTreeMap;

use atomix_protocol::{EntryId, Index};

use super::checker::{Check, hold};
use super::ledger::Ledger;
use super::random::{Component, Random};

/// Proposals and reads of a run.
#[derive(Debug)]
pub(super) struct Proposals {
    pub(super) random: Random,
    /// Acknowledged: where they are.
    acknowledged: BTreeMap<u64, EntryId>,
    /// Reads under way: what they must see.
    reads: BTreeMap<u64, Index>,
    last: u64,
    completed: Index,
}

impl Proposals {
    pub(super) fn new(seed: u64) -> Self {
        Proposals {
            random: Random::stream(seed, Component::Workload, 0),
            acknowledged: BTreeMap::new(),
            reads: BTreeMap::new(),
            last: 0,
            completed: Index::ZERO,
        }
    }

    /// A number that no other proposal or read has.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn asked(&mut self, read: u64) {
        self.reads.insert(read, self.completed);
    }

    pub(super) fn acknowledged(&mut self, proposal: u64, id: EntryId, ledger: &Ledger) -> Check {
        let committed = ledger.at(id.index).map(|committed| committed.entry.id);
        hold("I3", committed == Some(id), || {
            format!("{id} was acknowledged, committed there is {committed:?}")
        })?;
        self.acknowledged.insert(proposal, id);
        self.completed = self.completed.max(id.index);
        Ok(())
    }

    /// I9: a read sees everything acknowledged before it was asked. Returns whether it was under way.
    pub(super) fn ready(&mut self, read: u64, index: Index) -> Result<bool, super::checker::Broken> {
        let Some(floor) = self.reads.remove(&read) else { return Ok(false) };
        hold("I9", index >= floor, || format!("a read saw {index}, acknowledged before it was {floor}"))?;
        self.completed = self.completed.max(index);
        Ok(true)
    }

    pub(super) fn count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Durability: every acknowledged proposal is where it was said to be.
    pub(super) fn scan(&self, ledger: &Ledger) -> Check {
        for (proposal, id) in &self.acknowledged {
            let held = ledger.at(id.index).is_some_and(|committed| {
                committed.entry.id == *id
                    && committed.entry.payload.get(..8) == Some(&proposal.to_le_bytes()[..])
            });
            hold("I3", held, || format!("the acknowledged {id} is not in the committed log"))?;
        }
        Ok(())
    }
}
