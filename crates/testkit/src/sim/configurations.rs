//! I13 of a server that stepped: it uses the latest configuration of its log, and begins no change too early.

use std::rc::Rc;

use atomix_protocol::{Configuration, Index};
use atomix_raft::{Raft, Role};

use super::checker::{Check, Checker, Seen, hold, id_of};
use super::coverage::Mark;
use super::membership::configuration_in;

impl Checker {
    /// Looks at the entries that are new, and at the configuration in use.
    pub(super) fn check_configuration(
        &mut self,
        server: usize,
        raft: &Raft,
        before: &Seen,
        now: &Seen,
    ) -> Check {
        if self.membership.latest().is_none() && raft.configuration().index == Index::ZERO {
            self.membership.formed(raft.configuration().clone());
        }
        for (at, configuration) in std::mem::take(&mut self.kept) {
            if at == server {
                self.membership.kept(&configuration, self.ledger.last())?;
            } else {
                self.kept.push((at, configuration));
            }
        }
        let same = Rc::ptr_eq(&before.configuration, &now.configuration);
        if same && before.last == now.last {
            return Ok(());
        }
        // What comes behind an entry that is still there was not there before.
        let goes_on = before.role.is_some() && raft.entry_term(before.last.index) == Some(before.last.term);
        let mut index = if goes_on { before.last.index } else { now.commit };
        let mut latest = None;
        while index < now.last.index {
            index = index.next();
            let Some(configuration) = raft.entry(index).and_then(configuration_in) else { continue };
            if now.role == Some(Role::Leader) && raft.entry_term(index) == Some(now.term) {
                let previous = latest.as_ref().unwrap_or(&*before.configuration);
                self.check_beginning(server, raft, previous, &configuration)?;
            }
            latest = Some(configuration);
        }
        match latest {
            Some(latest) => self.expect_in_use(server, raft, &latest, latest.index),
            None if !same => self.check_earlier(server, raft, before, now),
            None => Ok(()),
        }
    }

    /// §4.1: a leader begins a change when the one before is committed, and an entry of its own term is.
    fn check_beginning(
        &self,
        server: usize,
        raft: &Raft,
        previous: &Configuration,
        next: &Configuration,
    ) -> Check {
        let place = || format!("leader {} of {} appends {next:?}", id_of(server), raft.term());
        hold("I13", previous.index <= self.ledger.last(), || {
            format!("{} while {previous:?} is not committed", place())
        })?;
        let own =
            self.ledger.at(self.ledger.last()).is_some_and(|committed| committed.in_term >= raft.term());
        hold("I13", own, || format!("{} before anything of its own term is committed", place()))
    }

    /// No configuration is new in the log, and yet another one is in use: an earlier one, or that of a snapshot.
    fn check_earlier(&mut self, server: usize, raft: &Raft, before: &Seen, now: &Seen) -> Check {
        let used = &*now.configuration;
        if before.role.is_some() && used.index < before.configuration.index {
            self.marks.push(Mark::ConfigurationRolledBack);
        }
        let committed = self.membership.at(now.commit).cloned().unwrap_or_default();
        match raft.entry(used.index).and_then(configuration_in) {
            Some(logged) => self.expect_in_use(server, raft, &logged, committed.index),
            None => self.expect_in_use(server, raft, &committed, committed.index),
        }
    }

    /// The expected one, or one that is committed and not older than `least`: a server that just joined knows
    /// the one that took it in before it has the log. Also an older one, if the log has something else at its place: what comes
    /// behind that in the log never was committed.
    fn expect_in_use(&self, server: usize, raft: &Raft, expected: &Configuration, least: Index) -> Check {
        let used = raft.configuration();
        let committed = self.ledger.at(used.index).map(|committed| committed.entry.id.term);
        let dead =
            raft.entry_term(used.index).zip(committed).is_some_and(|(held, committed)| held != committed);
        let given = (used.index >= least || dead) && self.membership.at(used.index) == Some(used);
        hold("I13", used == expected || given, || {
            format!(
                "server {} with a log through {} uses {used:?} instead of {expected:?}",
                id_of(server),
                raft.last()
            )
        })
    }

    /// I14: a server speaks as the member whose data directory it has.
    pub(super) fn check_identity(&self, server: usize, raft: &Raft) -> Check {
        let Some(member) = raft.configuration().member(raft.server()) else { return Ok(()) };
        hold("I14", self.directory_of(server) == self.membership.directory(member.incarnation), || {
            format!("server {} speaks as {member:?}, and has another directory", id_of(server))
        })
    }
}
