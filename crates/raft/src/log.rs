//! The log as memory holds it: the newest entries, the terms since the snapshot, the configurations in it (§3.5, §4.1, R5).

mod configurations;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use atomix_protocol::{ClusterTime, Configuration, Entry, EntryId, Index, Term};

use configurations::{Configurations, carried};

pub(crate) use configurations::later;

/// Entries, terms and configurations of one server's log.
#[derive(Debug)]
pub(crate) struct Log {
    /// The last entry before the known part: its term is known, those before are not. Invariant: covered by the snapshot.
    base: EntryId,
    /// First index of each run of equal terms behind `base`, ascending.
    terms: Vec<(Index, Term)>,
    /// The newest entries. Invariant: consecutive, behind `base`, ending with `last`.
    entries: VecDeque<Held>,
    last: EntryId,
    /// Bytes of everything appended before the first entry in memory.
    start: u64,
    /// Entries through here may be dropped from memory: durable, committed and applied.
    released: Index,
    /// Those of the entries, and a committed one before them.
    configurations: Configurations,
}

/// An entry in memory.
#[derive(Debug)]
struct Held {
    entry: Entry,
    /// Bytes of everything appended up to its end: differences say how much lies between two entries.
    end: u64,
}

impl Log {
    /// The log behind `base`, with the configuration in use there.
    pub(crate) fn new(base: EntryId, configuration: Configuration, entries: Vec<Entry>) -> Self {
        let mut log = Log {
            base,
            terms: Vec::new(),
            entries: VecDeque::new(),
            last: base,
            start: 0,
            released: base.index,
            configurations: Configurations::new(configuration),
        };
        entries.into_iter().for_each(|entry| log.append(entry));
        log
    }

    pub(crate) fn last(&self) -> EntryId {
        self.last
    }

    #[cfg(test)]
    pub(crate) fn base(&self) -> EntryId {
        self.base
    }

    /// Bytes of the entries that memory must hold (R5).
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.bytes_behind(self.released)
    }

    /// Bytes of the entries in memory behind an index.
    pub(crate) fn bytes_behind(&self, index: Index) -> u64 {
        let before = self.held(index).map_or(self.start, |held| held.end);
        if index >= self.last.index { 0 } else { self.end() - before }
    }

    /// Where the newest entries through `through` begin that memory holds and that weigh at most `bytes`: the index before them.
    pub(crate) fn tail(&self, through: Index, bytes: u64) -> Index {
        let Some(end) = self.held(through).map(|held| held.end) else { return through };
        if end - self.start <= bytes {
            return self.first_in_memory().previous();
        }
        let before = self.entries.partition_point(|held| end.saturating_sub(held.end) > bytes);
        Index(self.first_in_memory().0 + before as u64)
    }

    fn end(&self) -> u64 {
        self.entries.back().map_or(self.start, |held| held.end)
    }

    fn held(&self, index: Index) -> Option<&Held> {
        let offset = index.0.checked_sub(self.first_in_memory().0)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Index of the first entry in memory, or the one behind the last.
    pub(crate) fn first_in_memory(&self) -> Index {
        Index(self.last.index.0 + 1 - self.entries.len() as u64)
    }

    /// The term of an entry: known from `base` on.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        run.checked_sub(1).map(|run| self.terms[run].1)
    }

    pub(crate) fn id(&self, index: Index) -> Option<EntryId> {
        self.term(index).map(|term| EntryId::new(term, index))
    }

    /// Whether this very entry is in the known part.
    pub(crate) fn contains(&self, id: EntryId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        self.held(index).map(|held| &held.entry)
    }

    /// Entries from `from` through `through`, as many as fit in `bytes` but at least one; from memory only.
    pub(crate) fn slice(&self, from: Index, through: Index, bytes: u64) -> Vec<Entry> {
        let mut taken = Vec::new();
        let mut weight = 0u64;
        let mut index = from;
        while index <= through {
            let Some(entry) = self.get(index) else { break };
            weight = weight.saturating_add(entry.weight());
            if weight > bytes && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
            index = index.next();
        }
        taken
    }

    /// Cluster time of the last entry, if memory holds it.
    pub(crate) fn last_time(&self) -> Option<ClusterTime> {
        self.entries.back().map(|held| held.entry.time)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        let id = entry.id;
        assert!(
            id.index == self.last.index.next() && id.term >= self.last.term,
            "log: {id:?} does not follow {:?}",
            self.last
        );
        if id.term > self.last.term || self.terms.is_empty() {
            self.terms.push((id.index, id.term));
        }
        if let Some(configuration) = carried(&entry) {
            self.configurations.append(configuration);
        }
        self.last = id;
        let end = self.end() + entry.weight();
        self.entries.push_back(Held { entry, end });
    }

    /// Drops the entries behind `index`; configurations among them go too (§4.1).
    pub(crate) fn truncate_after(&mut self, index: Index) {
        while self.last.index > index {
            self.entries.pop_back();
            self.last.index = self.last.index.previous();
        }
        self.terms.retain(|(first, _)| *first <= index);
        self.last = EntryId::new(self.terms.last().map_or(self.base.term, |run| run.1), self.last.index);
        self.configurations.truncate_after(index);
    }

    /// Starts anew behind a snapshot.
    pub(crate) fn reset(&mut self, base: EntryId, configuration: Configuration) {
        // The entries contradict the snapshot, and so may the configurations in them: only the one before them is committed.
        let configuration = later(self.configurations.first().clone(), configuration);
        *self = Log::new(base, configuration, Vec::new());
    }

    /// Allows memory to drop the entries through `through`, and drops the oldest while more than `bound` bytes are held.
    pub(crate) fn release(&mut self, through: Index, bound: u64) {
        self.released = self.released.max(through.min(self.last.index));
        while let Some(oldest) = self.entries.front()
            && oldest.entry.id.index <= self.released
            && self.end() - self.start > bound
        {
            self.start = oldest.end;
            self.entries.pop_front();
        }
    }

    /// Forgets terms and configurations through `through` as far as no entry in memory needs them.
    pub(crate) fn compact(&mut self, through: Index) {
        let through = through.min(self.first_in_memory().previous());
        let Some(base) = self.id(through).filter(|id| id.index > self.base.index) else { return };
        let run = self.terms.partition_point(|(first, _)| *first <= through);
        let continues =
            through < self.last.index && self.terms.get(run).is_none_or(|(first, _)| *first > through.next());
        if continues {
            self.terms[run - 1].0 = through.next();
            self.terms.drain(..run - 1);
        } else {
            self.terms.drain(..run);
        }
        self.base = base;
        self.configurations.compact(through);
    }

    /// The greatest index, at or before that of `id`, whose entry could be one of a log that holds `id`: whole terms that
    /// came later are skipped (§3.5). Below `base`: the index itself.
    pub(crate) fn could_match(&self, id: EntryId) -> Index {
        let index = id.index.min(self.last.index);
        if index < self.base.index {
            return index;
        }
        let mut end = index;
        for (first, term) in self.terms.iter().rev().skip_while(|(first, _)| *first > index) {
            if *term <= id.term {
                return end;
            }
            end = first.previous();
        }
        if self.base.term <= id.term { self.base.index } else { self.base.index.previous() }
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::EntryKind;
    use bytes::Bytes;

    use super::*;

    fn log(base: (u64, u64), terms: &[u64]) -> Log {
        let base = EntryId::new(Term(base.0), Index(base.1));
        let mut log = Log::new(base, Configuration::default(), Vec::new());
        terms.iter().for_each(|term| append(&mut log, *term));
        log
    }

    fn append(log: &mut Log, term: u64) {
        let id = EntryId::new(Term(term), log.last().index.next());
        log.append(Entry { id, time: ClusterTime(id.index.0), kind: EntryKind::NoOp, payload: Bytes::new() });
    }

    fn terms(log: &Log) -> Vec<u64> {
        (log.base().index.0..=log.last().index.0).map(|i| log.term(Index(i)).unwrap().0).collect()
    }

    #[test]
    fn terms_survive_truncation_and_compaction() {
        let mut log = log((1, 2), &[1, 1, 3, 3, 4]);
        assert_eq!(terms(&log), [1, 1, 1, 3, 3, 4]);
        assert_eq!(log.term(Index(1)), None);
        assert_eq!(log.term(Index(8)), None);
        log.truncate_after(Index(6));
        append(&mut log, 5);
        assert_eq!(terms(&log), [1, 1, 1, 3, 3, 5]);
        for through in 3..=7 {
            log.release(Index(through), 0);
            log.compact(Index(through));
            assert_eq!(log.base().index, Index(through));
            assert_eq!(terms(&log), [1, 1, 1, 3, 3, 5][through as usize - 2..]);
        }
        assert_eq!((log.end() - log.start, log.pinned_bytes()), (0, 0));
        append(&mut log, 5);
        append(&mut log, 6);
        assert_eq!(terms(&log), [5, 5, 6]);
    }

    #[test]
    fn terms_of_entries_in_memory_are_kept() {
        let mut log = log((0, 0), &[1, 1, 2]);
        log.compact(Index(2));
        assert_eq!(log.base(), EntryId::ZERO);
        log.release(Index(3), 64);
        assert_eq!(log.first_in_memory(), Index(3));
        log.compact(Index(3));
        assert_eq!(log.base(), EntryId::new(Term(1), Index(2)));
    }

    #[test]
    fn release_never_drops_what_is_pinned() {
        let mut log = log((0, 0), &[1, 1, 1, 1]);
        log.release(Index(2), 0);
        assert_eq!(
            (log.first_in_memory(), log.pinned_bytes(), log.bytes_behind(Index(3))),
            (Index(3), 128, 64)
        );
        log.truncate_after(Index(3));
        assert_eq!((log.pinned_bytes(), log.bytes_behind(Index(0)), log.bytes_behind(Index(3))), (64, 64, 0));
        assert!(log.get(Index(2)).is_none());
        assert_eq!(log.slice(Index(3), Index(9), 1).len(), 1);
    }

    #[test]
    fn the_tail_is_the_newest_entries_that_fit() {
        let mut log = log((1, 2), &[1, 1, 1, 1, 1]);
        log.release(Index(3), 256);
        assert_eq!(log.first_in_memory(), Index(4));
        for (through, bytes, expected) in
            [(6, 0, 6), (6, 63, 6), (6, 64, 5), (6, 129, 4), (6, 192, 3), (6, 9_999, 3), (3, 9_999, 3)]
        {
            assert_eq!(log.tail(Index(through), bytes), Index(expected), "{bytes} bytes through {through}");
        }
    }

    #[test]
    fn could_match_skips_whole_terms() {
        // base, asked (term, index), expected index
        let log = log((1, 2), &[1, 1, 4, 4, 6]);
        for (asked, expected) in [
            ((6, 9), 7),
            ((5, 9), 6),
            ((5, 5), 5),
            ((3, 7), 4),
            ((1, 3), 3),
            ((0, 7), 1),
            ((9, 1), 1),
            ((1, 2), 2),
        ] {
            let id = EntryId::new(Term(asked.0), Index(asked.1));
            assert_eq!(log.could_match(id), Index(expected), "{id:?}");
        }
    }
}
