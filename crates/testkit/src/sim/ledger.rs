//! Ground truth about logs: every entry ever seen, what each server's disk holds, and what is committed for ever.

use std::collections::BTreeSet;

use atomix_protocol::{Configuration, Entry, EntryId, HardState, Identity, Index, Term, WriteBatch};

use super::random::mix;

/// Hash of an entry and all before it.
pub(super) type Chain = u64;

/// The chain value behind `entry`, given the one before it.
pub(super) fn chain(before: Chain, entry: &Entry) -> Chain {
    let payload = u64::from(crc32c::crc32c(&entry.payload)) << 8 | entry.kind as u64;
    mix(mix(mix(before, entry.id.term.0), entry.id.index.0), mix(payload, entry.time.0))
}

/// A log as a list of (term, chain) behind a base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogImage {
    base: EntryId,
    base_chain: Chain,
    entries: Vec<(Term, Chain)>,
}

impl LogImage {
    pub(super) fn behind(base: EntryId, base_chain: Chain) -> Self {
        LogImage { base, base_chain, entries: Vec::new() }
    }

    pub(super) fn base(&self) -> EntryId {
        self.base
    }

    pub(super) fn last(&self) -> EntryId {
        match self.entries.last() {
            Some((term, _)) => EntryId::new(*term, self.base.index.plus(self.entries.len() as u64)),
            None => self.base,
        }
    }

    /// Term and chain at an index, if it is in the image.
    pub(super) fn at(&self, index: Index) -> Option<(Term, Chain)> {
        if index == self.base.index {
            return Some((self.base.term, self.base_chain));
        }
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?).copied()
    }

    pub(super) fn last_chain(&self) -> Chain {
        self.entries.last().map_or(self.base_chain, |(_, chain)| *chain)
    }

    pub(super) fn push(&mut self, term: Term, chain: Chain) {
        self.entries.push((term, chain));
    }

    /// Ends the log with that entry; returns how many were cut off. `base_chain` is used where the log goes on behind an entry that
    /// it does not hold.
    pub(super) fn truncate_after(&mut self, id: EntryId, base_chain: Chain) -> usize {
        let before = self.entries.len();
        if self.at(id.index).is_some_and(|(term, _)| term == id.term) {
            self.entries.truncate(id.index.since(self.base.index) as usize);
        } else {
            *self = LogImage::behind(id, base_chain);
        }
        before.saturating_sub(self.entries.len())
    }
}

/// A write as the checkers see it.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) token: u64,
    pub(super) identity: Option<Identity>,
    pub(super) configuration: Option<Configuration>,
    pub(super) abstention: Option<Option<Index>>,
    pub(super) hard_state: Option<HardState>,
    pub(super) truncate_after: Option<(EntryId, Chain)>,
    pub(super) entries: Vec<(Term, Chain)>,
}

impl Write {
    /// Applies a prefix: the truncation if `truncate`, then `entries` entries.
    pub(super) fn apply(&self, log: &mut LogImage, truncate: bool, entries: usize) {
        if let (true, Some((id, base_chain))) = (truncate, self.truncate_after) {
            log.truncate_after(id, base_chain);
        }
        for (term, chain) in self.entries.iter().take(entries) {
            log.push(*term, *chain);
        }
    }
}

/// Every entry that any server ever asked its disk to keep.
#[derive(Debug, Default)]
pub(super) struct Known {
    by_index: Vec<Vec<(Chain, Entry)>>,
}

impl Known {
    /// Remembers an entry behind `before`.
    ///
    /// # Errors
    /// If another entry has that index and term: logs do not match (I2).
    pub(super) fn add(&mut self, before: Chain, entry: &Entry) -> Result<Chain, String> {
        let chain = chain(before, entry);
        let at = entry.id.index.0 as usize;
        if self.by_index.len() <= at {
            self.by_index.resize_with(at + 1, Vec::new);
        }
        match self.by_index[at].iter().find(|(_, known)| known.id.term == entry.id.term) {
            None => self.by_index[at].push((chain, entry.clone())),
            Some((known, _)) if *known == chain => {}
            Some((_, known)) => {
                let same = if known == entry { "what comes before it differs" } else { "it differs itself" };
                return Err(format!("two logs hold {} with another past: {same}", entry.id));
            }
        }
        Ok(chain)
    }

    /// The entry of that index and term.
    pub(super) fn find(&self, id: EntryId) -> Option<&(Chain, Entry)> {
        self.by_index.get(id.index.0 as usize)?.iter().find(|(_, entry)| entry.id.term == id.term)
    }
}

/// The committed log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<Committed>,
}

/// One committed entry.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) entry: Entry,
    pub(super) chain: Chain,
    /// The term of the leader that was the first to know it committed.
    pub(super) in_term: Term,
}

impl Ledger {
    pub(super) fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    pub(super) fn last_chain(&self) -> Chain {
        self.entries.last().map_or(0, |committed| committed.chain)
    }

    pub(super) fn at(&self, index: Index) -> Option<&Committed> {
        self.entries.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    pub(super) fn chain_at(&self, index: Index) -> Option<Chain> {
        if index == Index::ZERO { Some(0) } else { self.at(index).map(|committed| committed.chain) }
    }

    pub(super) fn push(&mut self, committed: Committed) {
        self.entries.push(committed);
    }

    /// The last entry that was committed in a term before `term`.
    pub(super) fn last_before(&self, term: Term) -> Option<&Committed> {
        let count = self.entries.partition_point(|committed| committed.in_term < term);
        self.entries.get(count.checked_sub(1)?)
    }
}

/// One server's disk as the checkers know it, apart from consensus' own bookkeeping: what was asked for, and what is durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    /// With everything that was asked for.
    pub(super) issued: LogImage,
    /// What is certainly durable.
    pub(super) durable: LogImage,
    pub(super) durable_hard_state: HardState,
    /// Asked for, not yet known durable.
    pub(super) in_flight: Vec<Write>,
    /// Given back for want of room, without their entries: a part of a batch may be there all the same (D1), and no later write has taken its
    /// place yet.
    pub(super) refused: Vec<Write>,
    /// The newest snapshot that is certainly published.
    pub(super) snapshot: EntryId,
    pub(super) durable_identity: Option<Identity>,
    pub(super) durable_configuration: Option<Configuration>,
    /// The index until which it abstains, durably (D4).
    pub(super) abstains: Option<Index>,
    /// Snapshot and log as they were before something of them was lost, while it abstains for that: they count as long as it gives
    /// nobody a vote.
    pub(super) lost: Vec<(EntryId, LogImage)>,
    /// Something on this disk may be other than it was written, and no start has looked since.
    pub(super) harmed: bool,
    /// Each chain that a log on this disk ever ended with, and some that it was to.
    pub(super) ends: BTreeSet<Chain>,
    /// While it abstains: whether a leader's snapshot came.
    pub(super) given_snapshot: bool,
}

impl Shadow {
    /// What the batch asks for, with its entries' chains.
    ///
    /// # Errors
    /// If logs do not match (I2), or the entries do not follow.
    pub(super) fn issue(
        &mut self,
        token: u64,
        batch: &WriteBatch,
        known: &mut Known,
        ledger: &Ledger,
    ) -> Result<usize, String> {
        let mut cut = 0;
        let mut truncate_after = None;
        if let Some(id) = batch.truncate_after {
            let base_chain = ledger.chain_at(id.index).unwrap_or(0);
            cut = self.issued.truncate_after(id, base_chain);
            truncate_after = Some((id, base_chain));
        }
        let mut entries = Vec::with_capacity(batch.entries.len());
        for entry in &batch.entries {
            let last = self.issued.last();
            if entry.id.index != last.index.next() || entry.id.term < last.term {
                return Err(format!("{} does not follow {last}", entry.id));
            }
            let chain = known.add(self.issued.last_chain(), entry)?;
            self.ends.insert(chain);
            self.issued.push(entry.id.term, chain);
            entries.push((entry.id.term, chain));
        }
        let WriteBatch { identity, configuration, abstention, hard_state, .. } = batch.clone();
        self.in_flight.push(Write {
            token,
            identity,
            configuration,
            abstention,
            hard_state,
            truncate_after,
            entries,
        });
        Ok(cut)
    }

    /// The oldest write that is asked for is durable.
    ///
    /// # Panics
    /// If that is not the one of that token.
    pub(super) fn done(&mut self, token: u64) {
        let write = self.in_flight.remove(0);
        assert_eq!(write.token, token, "writes are done in the order in which they were asked for");
        write.apply(&mut self.durable, true, write.entries.len());
        self.durable_hard_state = write.hard_state.unwrap_or(self.durable_hard_state);
        self.durable_identity = write.identity.or(self.durable_identity);
        self.durable_configuration = write.configuration.or(self.durable_configuration.take());
        self.abstains = write.abstention.unwrap_or(self.abstains);
        self.refused.clear();
    }

    /// There was no room for the only write that is asked for: nothing of it counts.
    ///
    /// # Panics
    /// If that is not the one of that token.
    pub(super) fn refused(&mut self, token: u64) {
        let write = self.in_flight.remove(0);
        assert!(write.token == token && self.in_flight.is_empty(), "one write is outstanding");
        self.refused.push(Write { truncate_after: None, entries: Vec::new(), ..write });
        self.issued = self.durable.clone();
    }

    /// What was asked for since the last write that is durable, and may be there.
    pub(super) fn asked<T>(&self, what: impl Fn(&Write) -> Option<T>) -> impl Iterator<Item = T> {
        self.refused.iter().chain(self.in_flight.first()).filter_map(what)
    }

    /// Whether the disk certainly holds this committed entry, in the log or under a snapshot.
    pub(super) fn holds(&self, index: Index, chain: Chain) -> bool {
        held(self.snapshot, &self.durable, index, chain)
    }

    /// Whether it does, or did and has lost it: as long as it abstains for that, nobody is elected by it who lacks it.
    pub(super) fn answers_for(&self, index: Index, chain: Chain) -> bool {
        self.holds(index, chain) || self.lost.iter().any(|(snapshot, log)| held(*snapshot, log, index, chain))
    }
}

fn held(snapshot: EntryId, log: &LogImage, index: Index, chain: Chain) -> bool {
    snapshot.index >= index
        || log.base().index > index
        || log.at(index).is_some_and(|(_, held)| held == chain)
}
