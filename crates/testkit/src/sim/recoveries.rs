//! What a server finds on its disk, and what follows if something of it is lost: I15, I16, I22, and who stands back meanwhile (D4).
//!
//! Why copies that are lost still count (I4): what is committed was on a quorum, everybody who is elected has the votes of a quorum, and
//! the two have a server in common. That one either has its copy still, or got it back before it gave a vote again, or abstains and gave
//! none. So a server may say that it lost something, however much: what it must never do is not to notice, to give a vote meanwhile, or
//! to think too early that it has everything back.

use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{Entry, EntryId, HardState, Index};
use atomix_raft::Role;
use atomix_storage::Recovered;

use super::checker::{Check, Checker, hold, id_of};
use super::coverage::Mark;
use super::ledger::{LogImage, Shadow, Write, chain};

/// What a start found, beside what the checkers know of the disk.
struct Start<'a> {
    server: usize,
    found: &'a Recovered,
    base: EntryId,
    log: LogImage,
}

impl Checker {
    /// Whether a server's directory has everything that it ever acknowledged, as far as anybody knows, and may vote.
    pub(super) fn is_sound(&self, server: usize) -> bool {
        let shadow = self.shadow(server);
        !shadow.harmed && shadow.abstains.is_none()
    }

    /// Whether something on a server's disk may be other than it was written, and no start has looked since.
    pub(super) fn is_harmed(&self, server: usize) -> bool {
        self.shadow(server).harmed
    }

    /// Whether nothing was ever acknowledged from a server's disk.
    pub(super) fn owes_nothing(&self, server: usize) -> bool {
        let shadow = self.shadow(server);
        let log = shadow.durable.last().max(shadow.snapshot);
        log == EntryId::ZERO && shadow.durable_hard_state == HardState::default()
    }

    /// Whether a server stands back until it has again what it lost.
    pub(super) fn abstains(&self, server: usize) -> bool {
        self.shadow(server).abstains.is_some()
    }

    /// Something on a server's disk is no more as it was written.
    pub(super) fn harmed(&mut self, server: usize) {
        self.shadows[self.directories[server]].harmed = true;
    }

    /// I15: a server found on its disk all that was acknowledged and nothing that was never written. Where the disk was
    /// harmed, it may have lost some, if it knows how much at most.
    pub(super) fn recovered(&mut self, server: usize, found: &Recovered, entries: &[Entry]) -> Check {
        let base = found.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        if base != EntryId::ZERO {
            self.check_snapshot(server, base)?;
        }
        let mut log = LogImage::behind(base, self.ledger.chain_at(base.index).unwrap_or(0));
        for entry in entries {
            self.check_entry(server, "found", entry)?;
            log.push(entry.id.term, chain(log.last_chain(), entry));
        }
        let start = Start { server, found, base, log };
        let shadow = self.shadow(server);
        start.check_settings(shadow)?;
        let missing = start.missing(shadow);
        start.check_log(shadow, missing)?;
        start.check_abstention(shadow, missing)?;
        if shadow.abstains.is_some() && found.abstention.is_none() {
            self.check_has_everything(server, &start.log, base)?;
        }
        let mut marks = Vec::new();
        start.met(self.shadow(server), &mut marks);
        self.marks.append(&mut marks);
        let shadow = &mut self.shadows[self.directories[server]];
        start.begin_anew(shadow, missing);
        Ok(())
    }

    /// I16: an entry that comes from a disk or goes to somebody is what was written, byte for byte.
    pub(super) fn check_entry(&self, server: usize, how: &str, entry: &Entry) -> Check {
        let known = self.known.find(entry.id);
        hold("I15", known.is_some(), || {
            format!("server {}: {} was {how}, and never written", id_of(server), entry.id)
        })?;
        hold("I16", known.is_some_and(|(_, known)| known == entry), || {
            format!(
                "server {}: {} was {how} with another content than it was written with",
                id_of(server),
                entry.id
            )
        })
    }

    /// I22: before a server thinks that it has everything back, it has everything that it ever acknowledged and that is committed.
    pub(super) fn check_abstention_ends(&self, server: usize) -> Check {
        let shadow = self.shadow(server);
        self.check_has_everything(server, &shadow.durable, shadow.snapshot)
    }

    fn check_has_everything(&self, server: usize, log: &LogImage, snapshot: EntryId) -> Check {
        for (lost_snapshot, lost) in &self.shadow(server).lost {
            let committed = |index: Index| self.ledger.chain_at(index);
            let mut last = lost.last().index.min(self.ledger.last());
            while last > lost.base().index && lost.at(last).map(|(_, chain)| chain) != committed(last) {
                last = Index(last.0 - 1);
            }
            let last = last.max(lost_snapshot.index);
            let held = snapshot.index >= last
                || log.base().index >= last
                || log.at(last).is_some_and(|(_, chain)| Some(chain) == committed(last));
            hold("I22", held, || {
                format!(
                    "server {} abstains no more: it had acknowledged {last}, which is committed, and has a log through {} \
                     behind a snapshot of {snapshot}",
                    id_of(server),
                    log.last()
                )
            })?;
        }
        Ok(())
    }

    /// I22: who may lack what it acknowledged takes no part in elections.
    pub(super) fn check_stands_back(&self, server: usize, role: Option<Role>) -> Check {
        let until = self.shadow(server).abstains;
        hold("I22", until.is_none() || role.is_none_or(|role| role == Role::Follower), || {
            format!("server {} must abstain until {until:?}, and is {role:?}", id_of(server))
        })
    }

    /// The same of what it says; and I16 of what it passes on.
    pub(super) fn check_said(&self, server: usize, message: &PeerMessage) -> Check {
        let takes_part = match message {
            PeerMessage::PreVote(_) | PeerMessage::RequestVote(_) => true,
            PeerMessage::PreVoteReply(reply) => reply.granted,
            PeerMessage::RequestVoteReply(reply) => reply.granted,
            _ => false,
        };
        let until = self.shadow(server).abstains;
        hold("I22", !takes_part || until.is_none(), || {
            format!("server {} must abstain until {until:?}, and says {message:?}", id_of(server))
        })?;
        match message {
            PeerMessage::AppendEntries(append) => {
                // What it was proposed just now, it writes next.
                let mut known = append.entries.iter().filter(|entry| self.known.find(entry.id).is_some());
                known.try_for_each(|entry| self.check_entry(server, "sent", entry))
            }
            _ => Ok(()),
        }
    }
}

impl Start<'_> {
    fn place(&self) -> String {
        format!("server {}", id_of(self.server))
    }

    /// What is in both copies of a file of its own: lost with neither a crash nor one of them.
    fn check_settings(&self, shadow: &Shadow) -> Check {
        let (found, durable) = (self.found.hard_state, shadow.durable_hard_state);
        let asked: Vec<_> = shadow.asked(|write| write.hard_state).collect();
        hold("I15", found == durable || asked.contains(&found), || {
            format!("{}: hard state {found:?}, durable was {durable:?}, asked for {asked:?}", self.place())
        })?;
        let (found, durable) = (self.found.identity, shadow.durable_identity);
        let asked: Vec<_> = shadow.asked(|write| write.identity).collect();
        hold("I15", found == durable || found.is_some_and(|found| asked.contains(&found)), || {
            format!("{}: {found:?}, durable was {durable:?}, asked for {asked:?}", self.place())
        })?;
        let (found, durable) = (&self.found.configuration, &shadow.durable_configuration);
        let asked: Vec<_> = shadow.asked(|write| write.configuration.clone()).collect();
        hold("I15", found == durable || found.as_ref().is_some_and(|found| asked.contains(found)), || {
            format!("{}: configuration {found:?}, durable was {durable:?}, asked for {asked:?}", self.place())
        })
    }

    fn is_whole(&self, shadow: &Shadow) -> bool {
        self.is_prefix_of_write(shadow) && self.base >= shadow.snapshot
    }

    /// Nothing that was never written; and, unless the disk was harmed, everything that was acknowledged. Who abstains may have more of
    /// what it gave up: a snapshot that comes back leads to it again.
    fn check_log(&self, shadow: &Shadow, missing: Option<Index>) -> Check {
        let log = &self.log;
        let written = log.last() == self.base || shadow.ends.contains(&log.last_chain());
        let more = shadow.abstains.is_some() && missing.is_none();
        hold("I15", self.is_whole(shadow) || (shadow.harmed || more) && written, || {
            format!(
                "{}: found a log through {} behind a snapshot of {}, durable was {} behind {}",
                self.place(),
                log.last(),
                self.base,
                shadow.durable.last(),
                shadow.snapshot
            )
        })
    }

    /// Whether what was found is what was durable, or that with a part of the write under way.
    fn is_prefix_of_write(&self, shadow: &Shadow) -> bool {
        if self.is_found(&shadow.durable) {
            return true;
        }
        let Some(write) = shadow.in_flight.first() else { return false };
        // Fields of a batch come in order: nothing of the log is there before what stands before it.
        let settled = |write: &Write| write.hard_state.is_none_or(|asked| asked == self.found.hard_state);
        settled(write)
            && (0..=write.entries.len()).any(|count| {
                let mut log = shadow.durable.clone();
                write.apply(&mut log, true, count);
                self.is_found(&log)
            })
    }

    fn is_found(&self, log: &LogImage) -> bool {
        let found = (self.log.last(), self.log.last_chain());
        let goes_on = log.at(self.base.index).is_some_and(|(term, _)| term == self.base.term);
        found == if goes_on { (log.last(), log.last_chain()) } else { (self.base, self.log.last_chain()) }
    }

    /// The last of what was acknowledged, if that is not there any more.
    fn missing(&self, shadow: &Shadow) -> Option<Index> {
        if self.is_whole(shadow) {
            return None;
        }
        let (last, chain) = (shadow.durable.last().index, shadow.durable.last_chain());
        let holds = |index: Index, chain| {
            self.base.index > index || self.log.at(index).is_some_and(|(_, found)| found == chain)
        };
        let covered = self.base >= shadow.snapshot || self.log.last().index >= shadow.snapshot.index;
        let of_snapshot = (!covered).then_some(shadow.snapshot.index);
        let of_log = (!holds(last, chain)).then_some(last);
        of_snapshot.max(of_log)
    }

    /// Who lacks something knows it, and through where at most; who was told to wait still does; nobody else does.
    fn check_abstention(&self, shadow: &Shadow, missing: Option<Index>) -> Check {
        let (found, durable) = (self.found.abstention, shadow.abstains);
        let asked = shadow.asked(|write| write.abstention).any(|asked| asked == found);
        let before = if asked { found } else { durable };
        let least = before.max(missing);
        hold("I15", found >= least, || {
            format!(
                "{}: abstains until {found:?}, must until {least:?}: durable was {durable:?}, missing is {missing:?}, found {}",
                self.place(),
                self.log.last()
            )
        })?;
        let quiet = shadow.harmed || before.is_some();
        // What a power cut tore may be called damaged, as long as nothing follows from it.
        hold("L5", quiet || found.is_none(), || {
            format!(
                "{}: abstains until {found:?} for {:?}, and nothing was damaged",
                self.place(),
                self.found.damage
            )
        })
    }

    fn met(&self, shadow: &Shadow, marks: &mut Vec<Mark>) {
        let asked = shadow.in_flight.first().and_then(|write| write.hard_state);
        let voted = asked.is_some_and(|asked| asked.voted_for.is_some() && self.found.hard_state != asked);
        let begins = self.found.abstention.is_some() && shadow.abstains.is_none();
        let noticed = shadow.harmed && !self.found.damage.is_empty();
        for (mark, met) in [
            (Mark::UnsyncedVoteLost, voted),
            (Mark::DamageFound, noticed),
            (Mark::DamageCovered, noticed && self.found.abstention.is_none()),
            (Mark::AbstentionBegun, begins),
            (Mark::AbstentionKept, self.found.abstention.is_some() && shadow.abstains.is_some()),
            (Mark::FellBack, self.base < shadow.snapshot && self.base != EntryId::ZERO),
        ] {
            marks.extend(met.then_some(mark));
        }
    }

    /// What is on the disk from here on.
    fn begin_anew(self, shadow: &mut Shadow, missing: Option<Index>) {
        let before = std::mem::take(shadow);
        *shadow = Shadow {
            issued: self.log.clone(),
            durable: self.log,
            durable_hard_state: self.found.hard_state,
            durable_identity: self.found.identity,
            durable_configuration: self.found.configuration.clone(),
            snapshot: self.base,
            abstains: self.found.abstention,
            ends: before.ends,
            ..Shadow::default()
        };
        if shadow.abstains.is_some() {
            shadow.lost = before.lost;
            shadow.given_snapshot = before.abstains.is_some() && before.given_snapshot;
            shadow.lost.extend(missing.map(|_| (before.snapshot, before.durable)));
        }
    }
}

impl Shadow {
    /// It has everything again. How that came.
    pub(super) fn repaired(&mut self) -> [Mark; 2] {
        self.lost.clear();
        let by_snapshot = std::mem::take(&mut self.given_snapshot);
        [Mark::AbstentionEnded, if by_snapshot { Mark::RepairedBySnapshot } else { Mark::RepairedByEntries }]
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{ClusterTime, EntryKind, Term, WriteBatch};
    use bytes::Bytes;

    use super::super::ledger::Committed;
    use super::*;

    fn entry(index: u64) -> Entry {
        let payload = Bytes::copy_from_slice(&index.to_le_bytes());
        Entry {
            id: EntryId::new(Term(1), Index(index)),
            time: ClusterTime(index),
            kind: EntryKind::Session,
            payload,
        }
    }

    fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        range.map(entry).collect()
    }

    /// A server that has written five entries, of which three are committed.
    fn checker() -> Checker {
        let mut checker = Checker::new(1);
        let hard_state = Some(HardState { term: Term(1), voted_for: None });
        let batch = WriteBatch { hard_state, entries: entries(1..=5), ..WriteBatch::default() };
        checker.issued(0, 1, &batch).unwrap();
        checker.written(0, 1).unwrap();
        for entry in entries(1..=3) {
            let chain = checker.known.find(entry.id).unwrap().0;
            checker.ledger.push(Committed { entry, chain, in_term: Term(1) });
        }
        checker
    }

    fn found(abstention: Option<u64>) -> Recovered {
        let hard_state = HardState { term: Term(1), voted_for: None };
        Recovered { hard_state, abstention: abstention.map(Index), ..Recovered::default() }
    }

    fn broken(check: Check) -> Option<&'static str> {
        check.err().map(|broken| broken.name)
    }

    #[test]
    fn what_is_lost_must_be_known_and_waited_for() {
        let start = |harmed: bool, abstention, through| {
            let mut checker = checker();
            checker.shadows[0].harmed = harmed;
            broken(checker.recovered(0, &found(abstention), &entries(1..=through)))
        };
        assert_eq!(start(false, None, 5), None);
        assert_eq!(start(false, None, 4), Some("I15"), "something is gone");
        assert_eq!(start(false, Some(5), 5), Some("L5"), "nothing is gone");
        assert_eq!(start(true, None, 5), None);
        assert_eq!(start(true, Some(9), 5), None, "more than enough");
        assert_eq!(start(true, None, 4), Some("I15"), "not noticed");
        assert_eq!(start(true, Some(4), 3), Some("I15"), "not far enough");
        assert_eq!(start(true, Some(5), 0), None, "all is gone, and known to be");
    }

    #[test]
    fn what_was_never_written_is_never_found() {
        let mut other = entries(1..=4);
        other[3].payload = Bytes::from_static(b"other");
        let mut checker = checker();
        checker.shadows[0].harmed = true;
        assert_eq!(broken(checker.recovered(0, &found(Some(5)), &other)), Some("I16"));
        assert_eq!(broken(checker.recovered(0, &found(Some(5)), &entries(1..=6))), Some("I15"));
        let later = HardState { term: Term(0), voted_for: None };
        let old = Recovered { hard_state: later, ..found(Some(5)) };
        assert_eq!(broken(checker.recovered(0, &old, &entries(1..=2))), Some("I15"), "an older vote");
    }

    #[test]
    fn while_something_is_lost_it_counts_and_nobody_gets_a_vote() {
        let mut checker = checker();
        checker.harmed(0);
        checker.recovered(0, &found(Some(5)), &entries(1..=1)).unwrap();
        let chain = checker.ledger.chain_at(Index(3)).unwrap();
        assert!(!checker.is_sound(0) && checker.shadows[0].answers_for(Index(3), chain));
        assert!(!checker.shadows[0].holds(Index(3), chain));
        assert_eq!(broken(checker.check_stands_back(0, Some(Role::PreCandidate))), Some("I22"));
        assert_eq!(broken(checker.check_stands_back(0, Some(Role::Follower))), None);
        let clear = WriteBatch { abstention: Some(None), ..WriteBatch::default() };
        assert_eq!(broken(checker.issued(0, 2, &clear)), Some("I22"), "too early");
        let more = WriteBatch { entries: entries(2..=3), ..WriteBatch::default() };
        checker.issued(0, 2, &more).unwrap();
        checker.written(0, 2).unwrap();
        checker.issued(0, 3, &clear).unwrap();
        checker.written(0, 3).unwrap();
        assert!(checker.is_sound(0) && checker.shadows[0].lost.is_empty());
    }

    #[test]
    fn an_abstention_outlives_a_start() {
        let mut checker = checker();
        checker.harmed(0);
        checker.recovered(0, &found(Some(5)), &entries(1..=1)).unwrap();
        assert_eq!(broken(checker.recovered(0, &found(None), &entries(1..=1))), Some("I15"));
        checker.recovered(0, &found(Some(5)), &entries(1..=1)).unwrap();
        assert_eq!(checker.shadows[0].lost.len(), 1, "what was lost once counts once");
    }
}
