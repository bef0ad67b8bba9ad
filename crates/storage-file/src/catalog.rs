//! Where the log's entries lie: a small index in memory, shared by the writer and the reader.

use atomix_protocol::{EntryId, Index, Term};

/// Bytes of log between two points of a run: what a read scans at most before it finds its first entry.
pub(crate) const POINT_BYTES: u64 = 64 << 10;

/// Where the log's entries lie. Holds what is durable only: a batch enters after its sync.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    /// The entry right before the first.
    base: EntryId,
    /// Invariant: ascending, without gap or overlap, right behind `base`.
    runs: Vec<Run>,
    /// First index of each term. Invariant: ascending in both; covers all entries.
    terms: Vec<(Index, Term)>,
    /// A truncation came after the last entry: the next one begins a run, since the records between belong to no entry that counts.
    broken: bool,
}

/// Entries of one segment between which lies no truncation.
#[derive(Clone, Debug)]
struct Run {
    segment: u64,
    seed: u32,
    first: Index,
    last: Index,
    /// Some entries and their offsets, the first among them. Invariant: ascending.
    points: Vec<(Index, u64)>,
}

/// Where to begin to read for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    /// What keys the segment's CRCs.
    pub(crate) seed: u32,
    /// Of a record at or before the entry.
    pub(crate) offset: u64,
    /// The last entry that follows in one piece.
    pub(crate) through: Index,
}

impl Catalog {
    /// Of a log that begins right after `base`.
    pub(crate) fn after(base: EntryId) -> Self {
        Catalog { base, ..Catalog::default() }
    }

    pub(crate) fn base(&self) -> EntryId {
        self.base
    }

    pub(crate) fn last(&self) -> EntryId {
        let Some(run) = self.runs.last() else { return self.base };
        EntryId::new(self.term_of(run.last), run.last)
    }

    /// The entry at `index`, or the base.
    pub(crate) fn id_at(&self, index: Index) -> Option<EntryId> {
        if index == self.base.index {
            return Some(self.base);
        }
        let held = index > self.base.index && index <= self.last().index;
        held.then(|| EntryId::new(self.term_of(index), index))
    }

    fn term_of(&self, index: Index) -> Term {
        let after = self.terms.partition_point(|(first, _)| *first <= index);
        self.terms[after - 1].1
    }

    /// See [`WriteBatch::truncate_after`](atomix_protocol::WriteBatch::truncate_after).
    pub(crate) fn truncate_after(&mut self, id: EntryId) {
        if self.id_at(id.index) != Some(id) {
            *self = Catalog::after(id);
        }
        self.broken = true;
        self.terms.retain(|(first, _)| *first <= id.index);
        self.runs.retain(|run| run.first <= id.index);
        if let Some(run) = self.runs.last_mut() {
            run.last = run.last.min(id.index);
            run.points.retain(|(index, _)| *index <= id.index);
        }
    }

    /// An entry whose record is at `offset` of a segment. Invariant: right behind the last, and never of an earlier term.
    pub(crate) fn append(&mut self, segment: u64, seed: u32, offset: u64, id: EntryId) {
        let last = self.last();
        assert_eq!(id.index, last.index.next(), "the log has a hole: {id:?} after {last:?}");
        if self.terms.last().is_none_or(|(_, term)| *term != id.term) {
            self.terms.push((id.index, id.term));
        }
        match self.runs.last_mut() {
            Some(run) if run.segment == segment && !self.broken => {
                run.last = id.index;
                if run.points.last().is_none_or(|(_, point)| offset - point >= POINT_BYTES) {
                    run.points.push((id.index, offset));
                }
            }
            _ => {
                let points = vec![(id.index, offset)];
                self.runs.push(Run { segment, seed, first: id.index, last: id.index, points });
            }
        }
        self.broken = false;
    }

    /// Where to find an entry; `None` if it is not there, or no more.
    pub(crate) fn locate(&self, index: Index) -> Option<Location> {
        let run = &self.runs[self.runs.partition_point(|run| run.last < index)..].first()?;
        let point = run.points.partition_point(|(at, _)| *at <= index).checked_sub(1)?;
        Some(Location {
            segment: run.segment,
            seed: run.seed,
            offset: run.points[point].1,
            through: run.last,
        })
    }

    /// The last entry that lies in `segment` or before; the base if none does.
    pub(crate) fn last_until(&self, segment: u64) -> EntryId {
        let after = self.runs.partition_point(|run| run.segment <= segment);
        let last = after.checked_sub(1).map(|run| self.runs[run].last);
        last.map_or(self.base, |last| EntryId::new(self.term_of(last), last))
    }

    /// The segment and all before it are gone.
    pub(crate) fn drop_until(&mut self, segment: u64) {
        self.base = self.last_until(segment);
        self.runs.retain(|run| run.segment > segment);
        if self.runs.is_empty() {
            self.terms.clear();
        } else {
            let spans = self.terms.partition_point(|(first, _)| *first <= self.base.index.next());
            self.terms.drain(..spans.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId::new(Term(term), Index(index))
    }

    /// Entries 1..=4 of term 1 in segment 1, 5..=6 of term 2 in segment 2; each record 100 bytes.
    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for (segment, term, indexes) in [(1, 1, 1..=4), (2, 2, 5..=6)] {
            for index in indexes {
                catalog.append(segment, 0, index * 100, id(term, index));
            }
        }
        catalog
    }

    #[test]
    fn finds_what_it_holds() {
        let catalog = catalog();
        assert_eq!(catalog.last(), id(2, 6));
        assert_eq!(catalog.id_at(Index(0)), Some(EntryId::ZERO));
        assert_eq!(catalog.id_at(Index(4)), Some(id(1, 4)));
        assert_eq!(catalog.id_at(Index(7)), None);
        let location = Location { segment: 1, seed: 0, offset: 100, through: Index(4) };
        assert_eq!(catalog.locate(Index(3)), Some(location), "one point per 64 KiB");
        assert_eq!(catalog.locate(Index(6)).map(|found| (found.segment, found.offset)), Some((2, 500)));
        assert_eq!(catalog.locate(Index(7)), None);
        assert_eq!(catalog.locate(Index(0)), None);
    }

    #[test]
    fn truncations() {
        for (to, last, next) in [
            (id(1, 3), id(1, 3), (2, 900)),
            (id(2, 6), id(2, 6), (2, 900)),
            (EntryId::ZERO, EntryId::ZERO, (2, 900)),
            (id(3, 9), id(3, 9), (2, 900)),
            (id(9, 4), id(9, 4), (2, 900)),
        ] {
            let mut catalog = catalog();
            catalog.truncate_after(to);
            assert_eq!(catalog.last(), last, "to {to:?}");
            assert_eq!(catalog.locate(last.index.next()), None, "to {to:?}");
            let new = EntryId::new(Term(9), last.index.next());
            catalog.append(2, 0, 900, new);
            let found = catalog.locate(new.index).map(|found| (found.segment, found.offset));
            assert_eq!(found, Some(next), "an entry behind a truncation begins a run (to {to:?})");
            assert_eq!(catalog.last(), new);
        }
    }

    #[test]
    fn truncated_to_an_entry_that_it_does_not_hold() {
        let mut catalog = catalog();
        catalog.truncate_after(id(9, 4));
        assert_eq!(catalog.base(), id(9, 4), "empty, and goes on right after it");
        assert_eq!(catalog.locate(Index(3)), None);
    }

    #[test]
    fn drops_segments() {
        let mut catalog = catalog();
        assert_eq!(catalog.last_until(1), id(1, 4));
        catalog.drop_until(1);
        assert_eq!((catalog.base(), catalog.last()), (id(1, 4), id(2, 6)));
        assert_eq!(catalog.id_at(Index(4)), Some(id(1, 4)));
        assert_eq!(catalog.id_at(Index(5)), Some(id(2, 5)));
        assert_eq!(catalog.locate(Index(4)), None);
        catalog.drop_until(2);
        assert_eq!((catalog.base(), catalog.last()), (id(2, 6), id(2, 6)));
    }

    #[test]
    fn a_point_every_64_kib() {
        let mut catalog = Catalog::default();
        for index in 1..=1_000 {
            catalog.append(1, 0, index * 1_000, id(1, index));
        }
        for index in 1..=1_000 {
            let offset = catalog.locate(Index(index)).unwrap().offset;
            assert!(
                offset <= index * 1_000 && index * 1_000 - offset < POINT_BYTES + 1_000,
                "{index}: {offset}"
            );
        }
    }
}
