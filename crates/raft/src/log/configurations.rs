//! The configurations in the log, and the one before them (§4.1).

use alloc::vec;
use alloc::vec::Vec;

use atomix_protocol::{Configuration, Entry, EntryKind, Index, codec};

use super::Log;

/// Ascending by index. The first is committed, the others are in the entries behind it.
#[derive(Debug)]
pub(super) struct Configurations {
    /// The first is that of the log's base, or a later one: a server that joins knows of it before it has the log,
    /// and does not go by older ones on its way there. Invariant: not empty.
    known: Vec<Configuration>,
}

impl Configurations {
    pub(super) fn new(committed: Configuration) -> Self {
        Configurations { known: vec![committed] }
    }

    /// An entry behind all others carries a configuration.
    pub(super) fn append(&mut self, configuration: Configuration) {
        if configuration.index > self.first().index {
            self.known.push(configuration);
        }
    }

    /// The entries behind an index are gone. What is committed stays.
    pub(super) fn truncate_after(&mut self, index: Index) {
        while self.known.len() > 1 && self.latest().index > index {
            self.known.pop();
        }
    }

    /// A configuration is committed, whether the log has come to it or not. It stands for all before it. If the log holds
    /// something else at its place, it `ends` those behind it too: they never were committed.
    pub(super) fn know(&mut self, configuration: Configuration, ends: bool) {
        if configuration.index < self.first().index {
            return;
        }
        self.known.retain(|later| later.index > configuration.index && !ends);
        self.known.insert(0, configuration);
    }

    /// Forgets those that were in use before `through`.
    pub(super) fn compact(&mut self, through: Index) {
        while self.known.get(1).is_some_and(|second| second.index <= through) {
            self.known.remove(0);
        }
    }

    pub(super) fn first(&self) -> &Configuration {
        &self.known[0]
    }

    pub(super) fn latest(&self) -> &Configuration {
        &self.known[self.known.len() - 1]
    }

    pub(super) fn before_latest(&self) -> Option<&Configuration> {
        self.known.iter().rev().nth(1)
    }

    /// The latest at or before an index, or the first.
    pub(super) fn at(&self, index: Index) -> &Configuration {
        self.known.iter().rev().find(|c| c.index <= index).unwrap_or(self.first())
    }

    /// Those behind index `known` that are committed when the log is, through `commit`.
    pub(super) fn committed(&self, known: Index, commit: Index) -> impl Iterator<Item = &Configuration> {
        let committed = move |(at, c): &(usize, &Configuration)| *at == 0 || c.index <= commit;
        let configurations = self.known.iter().enumerate().filter(committed);
        configurations.map(|(_, configuration)| configuration).filter(move |c| c.index > known)
    }
}

impl Log {
    /// The latest configuration, committed or not (§4.1).
    pub(crate) fn configuration(&self) -> &Configuration {
        self.configurations.latest()
    }

    /// The configuration before that, if the log has both.
    pub(crate) fn configuration_before(&self) -> Option<&Configuration> {
        self.configurations.before_latest()
    }

    /// The latest configuration at or before an index; a later one that is committed if that is not known.
    pub(crate) fn configuration_at(&self, index: Index) -> &Configuration {
        self.configurations.at(index)
    }

    /// The committed configurations behind index `known`, ascending, when the log is committed through `commit`.
    pub(crate) fn committed_configurations(
        &self,
        known: Index,
        commit: Index,
    ) -> impl Iterator<Item = &Configuration> {
        self.configurations.committed(known, commit)
    }

    /// The configuration in use at a snapshot that the log agrees with.
    pub(crate) fn rebase_configuration(&mut self, last: Index, configuration: Configuration) {
        self.know(later(self.configuration_at(last).clone(), configuration));
    }

    /// A configuration is committed, whether the log has come to it or not. The log may even be another's: then what it says
    /// behind that index counts no more.
    pub(crate) fn know(&mut self, configuration: Configuration) {
        let entry = self.get(configuration.index);
        let ends = entry.is_some_and(|entry| carried(entry).as_ref() != Some(&configuration));
        self.configurations.know(configuration, ends);
    }

    /// Whether an entry in memory carries this very configuration.
    pub(crate) fn carries(&self, configuration: &Configuration) -> bool {
        self.get(configuration.index).and_then(carried).as_ref() == Some(configuration)
    }
}

/// The configuration that an entry carries.
pub(super) fn carried(entry: &Entry) -> Option<Configuration> {
    let payload = (entry.kind == EntryKind::Configuration).then_some(&entry.payload)?;
    let configuration = codec::from_bytes::<Configuration>(payload).ok()?;
    Some(Configuration { index: entry.id.index, ..configuration })
}

/// The one of two committed configurations that came later.
pub(crate) fn later(one: Configuration, other: Configuration) -> Configuration {
    if one.index > other.index { one } else { other }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{ClusterTime, EntryId, Term};
    use bytes::Bytes;

    use super::*;

    fn configured(index: u64) -> Configuration {
        Configuration { index: Index(index), ..Configuration::default() }
    }

    fn through(first: u64, last: u64) -> Configurations {
        let mut configurations = Configurations::new(configured(first));
        (1..=last).for_each(|index| configurations.append(configured(index)));
        configurations
    }

    fn indexes(configurations: &Configurations) -> Vec<u64> {
        configurations.known.iter().map(|c| c.index.0).collect()
    }

    #[test]
    fn one_known_beforehand_counts_until_the_log_has_come_to_it() {
        for (last, used) in [(1, 3), (2, 3), (3, 3), (4, 4), (5, 5)] {
            assert_eq!(through(3, last).latest().index, Index(used), "{last}");
        }
        let mut configurations = through(3, 5);
        assert_eq!(configurations.at(Index(1)).index, Index(3), "nobody knows which it was");
        configurations.truncate_after(Index(1));
        assert_eq!(indexes(&configurations), [3], "it is committed");
    }

    #[test]
    fn what_is_committed_stands_for_all_before_it() {
        let mut configurations = through(0, 4);
        let committed = |known, commit| {
            through(0, 4).committed(Index(known), Index(commit)).map(|c| c.index.0).collect::<Vec<_>>()
        };
        assert_eq!((committed(0, 3), committed(2, 3), committed(3, 3)), (vec![1, 2, 3], vec![3], vec![]));
        assert_eq!(through(7, 4).committed(Index(2), Index(3)).count(), 1, "the first always is");
        configurations.compact(Index(1));
        assert_eq!(indexes(&configurations), [1, 2, 3, 4]);
        configurations.know(configured(2), false);
        assert_eq!(indexes(&configurations), [2, 3, 4]);
        configurations.know(configured(1), false);
        assert_eq!(indexes(&configurations), [2, 3, 4], "told late");
        configurations.know(configured(9), false);
        assert_eq!(indexes(&configurations), [9]);
    }

    #[test]
    fn what_a_log_says_behind_a_place_where_it_contradicts_what_is_committed_counts_no_more() {
        let carry = |index: u64, next_server_id| Entry {
            id: EntryId::new(Term(1), Index(index)),
            time: ClusterTime(0),
            kind: EntryKind::Configuration,
            payload: codec::to_bytes(&Configuration { next_server_id, ..Configuration::default() }),
        };
        let entries = || (1..=4).map(|index| carry(index, index)).collect();
        for (known, next_server_id, used) in [(2, 2, 4), (2, 7, 2), (9, 7, 9), (0, 7, 4)] {
            let mut log = Log::new(EntryId::ZERO, configured(0), entries());
            let committed = Configuration { next_server_id, ..configured(known) };
            assert_eq!(log.carries(&committed), (known, next_server_id) == (2, 2));
            log.know(committed);
            assert_eq!(log.configuration().index, Index(used), "{known}");
        }
    }

    #[test]
    fn a_snapshot_does_not_bring_back_an_older_one() {
        let mut log = Log::new(EntryId::ZERO, configured(7), Vec::new());
        log.rebase_configuration(Index(5), configured(4));
        assert_eq!(log.configuration().index, Index(7));
        log.reset(EntryId::new(Term(2), Index(6)), configured(5));
        assert_eq!(log.configuration().index, Index(7));
        log.reset(EntryId::new(Term(2), Index(9)), configured(8));
        assert_eq!(log.configuration().index, Index(8));
    }

    /// What the snapshot contradicts was never committed.
    #[test]
    fn a_snapshot_ends_those_of_a_log_that_contradicts_it() {
        let mut log = Log::new(EntryId::ZERO, configured(0), Vec::new());
        let payload = codec::to_bytes(&Configuration::default());
        let id = EntryId::new(Term(1), Index(1));
        log.append(Entry { id, time: ClusterTime(0), kind: EntryKind::Configuration, payload });
        assert_eq!(log.configuration().index, Index(1));
        log.reset(EntryId::new(Term(2), Index(5)), configured(0));
        assert_eq!(log.configuration().index, Index(0));
    }

    #[test]
    fn configurations_follow_the_log() {
        let mut log = Log::new(EntryId::ZERO, Configuration::default(), Vec::new());
        let payload = codec::to_bytes(&Configuration { next_server_id: 9, ..Configuration::default() });
        for (index, kind, payload) in [
            (1, EntryKind::NoOp, Bytes::new()),
            (2, EntryKind::Configuration, payload),
            (3, EntryKind::NoOp, Bytes::new()),
        ] {
            log.append(Entry {
                id: EntryId::new(Term(1), Index(index)),
                time: ClusterTime(0),
                kind,
                payload,
            });
        }
        assert_eq!((log.configuration().index, log.configuration().next_server_id), (Index(2), 9));
        assert_eq!(log.configuration_at(Index(1)).index, Index(0));
        log.truncate_after(Index(2));
        assert_eq!(log.configuration().index, Index(2));
        log.truncate_after(Index(1));
        assert_eq!(log.configuration().index, Index(0));
    }
}
