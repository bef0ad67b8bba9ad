//! The safety properties of Figure 3.2, checked against everything that ever happened.

use std::collections::BTreeMap;

use atomix_protocol::{Configuration, Entry, EntryId, EntryKind, Index, ServerId, Term};
use atomix_raft::Raft;

use super::configurations::{Configurations, decides};

/// What may never change: who led when, and what was committed.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    leaders: BTreeMap<Term, ServerId>,
    ledger: BTreeMap<Index, Entry>,
    /// The entry that each (term, index) names, and the one before it.
    written: BTreeMap<EntryId, (Entry, EntryId)>,
    configurations: Configurations,
    violation: Option<String>,
}

impl Checker {
    pub(super) fn new(initial: Configuration) -> Self {
        Checker { configurations: Configurations::new(initial), ..Checker::default() }
    }

    /// The first property that did not hold.
    #[must_use]
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Everything committed, by index.
    #[must_use]
    pub fn ledger(&self) -> &BTreeMap<Index, Entry> {
        &self.ledger
    }

    /// Payloads of the commands committed through `index`, as a state machine would hold them.
    #[must_use]
    pub fn state(&self, index: Index) -> Vec<u8> {
        let commands = self.ledger.range(..=index).filter(|(_, entry)| entry.kind == EntryKind::Session);
        let lines: Vec<&[u8]> = commands.map(|(_, entry)| entry.payload.as_ref()).collect();
        lines.join(&b'\n')
    }

    pub(super) fn report(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert(what.into());
    }

    /// Election safety, and leader completeness against what is committed already.
    pub(super) fn elected(&mut self, raft: &Raft) {
        let (server, term) = (raft.server(), raft.term());
        let first = *self.leaders.entry(term).or_insert(server);
        if first != server {
            self.report(format!("election safety: {first} and {server} both lead term {term}"));
        }
        let lost = self.ledger.values().find(|entry| {
            entry.id.index > raft.snapshot_index() && raft.entry_term(entry.id.index) != Some(entry.id.term)
        });
        if let Some(lost) = lost.map(|entry| entry.id) {
            self.report(format!(
                "leader completeness: {server} leads term {term} without the committed entry {lost}"
            ));
        }
    }

    /// Log matching: an entry's name says what it is, and what is before it. Cluster time never runs back along a log
    /// (T1).
    pub(super) fn wrote(&mut self, server: ServerId, before: Option<EntryId>, entries: &[Entry]) {
        let mut prev = before;
        for entry in entries {
            if let Some(prev) = prev {
                let (known, known_prev) =
                    self.written.entry(entry.id).or_insert((entry.clone(), prev)).clone();
                if known != *entry || known_prev != prev {
                    self.report(format!("log matching: {server} holds another {} behind {prev}", entry.id));
                }
                self.configurations.wrote(entry, prev);
                let earlier = self.written.get(&prev).map(|(earlier, _)| earlier.time);
                if earlier.is_some_and(|earlier| earlier > entry.time) {
                    self.report(format!("cluster time: {} of {server} is before {prev}", entry.id));
                }
            }
            prev = Some(entry.id);
        }
    }

    /// Membership (I13): the configuration in use is that of the latest entry that carries one. If the log does not hold the one
    /// that is known to be committed, because it has not come to it or never was committed itself, it is that; and each
    /// follows from the one before.
    pub(super) fn drained(&mut self, raft: &Raft) {
        let prev_of = |id: EntryId| self.written.get(&id).map_or(EntryId::ZERO, |(_, prev)| *prev);
        let fresh = self.configurations.check_fresh(prev_of, &self.ledger);
        let used = raft.configuration();
        let carried = self.configurations.carried_by(raft.last(), prev_of);
        let expected = carried.first().copied();
        let known = raft.committed_configuration();
        let in_use = match expected {
            Some(expected) if carried.contains(&known) => used == expected,
            Some(_) => used == known && self.is_committed(known),
            None => true,
        };
        let stale = format!(
            "membership: {} goes by configuration {}, its log ends with {} and says {:?}",
            raft.server(),
            used.index,
            raft.last(),
            expected.map(|expected| expected.index)
        );
        fresh.err().into_iter().for_each(|why| self.report(why));
        if !in_use {
            self.report(stale);
        }
    }

    fn is_committed(&self, configuration: &Configuration) -> bool {
        let entry = self.ledger.get(&configuration.index);
        configuration.index == Index::ZERO
            || entry
                .and_then(|entry| self.configurations.at(entry.id))
                .is_some_and(|(_, at)| at == configuration)
    }

    /// State-machine safety; `holds` says whether a server's disk holds an entry, `end` where the committing server's
    /// log ends.
    pub(super) fn committed(
        &mut self,
        server: ServerId,
        entries: &[Entry],
        end: EntryId,
        holds: impl Fn(ServerId, EntryId) -> bool,
    ) {
        let prev_of = |id: EntryId| self.written.get(&id).map_or(EntryId::ZERO, |(_, prev)| *prev);
        let last = entries.last().map_or(EntryId::ZERO, |entry| entry.id);
        let governing = self.configurations.governing(last, end, prev_of, &self.ledger);
        let copies = |entry| governing.iter().any(|by| decides(by, |voter| holds(voter, entry)));
        for entry in entries {
            match self.ledger.get(&entry.id.index) {
                None => {
                    if !copies(entry.id) {
                        self.report(format!(
                            "durability: {server} commits {} that no quorum has durably",
                            entry.id
                        ));
                    }
                    self.ledger.insert(entry.id.index, entry.clone());
                }
                Some(known) if known != entry => {
                    let known = known.id;
                    self.report(format!("state machine safety: {server} commits {} over {known}", entry.id));
                }
                Some(_) => {}
            }
        }
    }
}
