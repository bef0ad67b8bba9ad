//! Invariants of consensus and of the disk, checked after every step against shared ground truth.
//!
//! Only the server that stepped is compared; the cost of a check does not grow with the run.

use std::collections::BTreeMap;
use std::rc::Rc;

use atomix_protocol::peer::{AppendOutcome, PeerMessage};
use atomix_protocol::{
    Configuration, Entry, EntryId, EntryKind, HardState, Incarnation, Index, ServerId, Term, WriteBatch,
};
use atomix_raft::{Raft, Role};

use super::contents::Contents;
use super::coverage::Mark;
use super::ledger::{Chain, Committed, Known, Ledger, Shadow};
use super::membership::{Membership, has_quorum};
use super::versions::Binaries;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Its name, as in docs/testing.md.
    pub(super) name: &'static str,
    pub(super) detail: String,
}

pub(super) type Check = Result<(), Broken>;

/// The checked condition, or the named invariant is broken.
pub(super) fn hold(name: &'static str, condition: bool, detail: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(Broken { name, detail: detail() }) }
}

/// What a running server showed after its last step.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) term: Term,
    pub(super) role: Option<Role>,
    pub(super) last: EntryId,
    pub(super) commit: Index,
    applied: Index,
    snapshot: Index,
    /// While it leads: what it believes of the others.
    matches: Vec<(ServerId, Index)>,
    /// The configuration in use, and the term of the entry that carries it, if that is in the log.
    pub(super) configuration: Rc<Configuration>,
    configuration_term: Option<Term>,
}

/// Ground truth about consensus, and the checks against it.
#[derive(Debug)]
pub(super) struct Checker {
    pub(super) known: Known,
    pub(super) ledger: Ledger,
    pub(super) membership: Membership,
    /// By data directory. One that was wiped stays: what it held counted when it was acknowledged.
    pub(super) shadows: Vec<Shadow>,
    /// The directory of each server.
    pub(super) directories: Vec<usize>,
    pub(super) binaries: Binaries,
    seen: Vec<Seen>,
    /// Configurations that servers keep as committed, until it can be seen whether they are.
    pub(super) kept: Vec<(usize, Configuration)>,
    leaders: BTreeMap<Term, usize>,
    digests: BTreeMap<Index, (u64, usize)>,
    pub(super) contents: Contents,
    pub(super) marks: Vec<Mark>,
}

/// What a server is called: the founders have that id for life.
pub(super) fn id_of(server: usize) -> ServerId {
    ServerId(server as u64 + 1)
}

impl Checker {
    pub(super) fn new(servers: usize) -> Self {
        Checker {
            known: Known::default(),
            ledger: Ledger::default(),
            membership: Membership::default(),
            shadows: vec![Shadow::default(); servers],
            directories: (0..servers).collect(),
            binaries: Binaries::default(),
            seen: vec![Seen::default(); servers],
            kept: Vec::new(),
            leaders: BTreeMap::new(),
            digests: BTreeMap::new(),
            contents: Contents::default(),
            marks: Vec::new(),
        }
    }

    /// Whether a server led in a term behind that one.
    pub(super) fn led_after(&self, term: Term, server: usize) -> bool {
        self.leaders.range(term.next()..).any(|(_, leader)| *leader == server)
    }

    /// Situations met since the last call.
    pub(super) fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    pub(super) fn shadow(&self, server: usize) -> &Shadow {
        &self.shadows[self.directories[server]]
    }

    pub(super) fn directory_of(&self, server: usize) -> Option<usize> {
        self.directories.get(server).copied()
    }

    /// A server's directory has that name.
    pub(super) fn inhabits(&mut self, server: usize, incarnation: Incarnation) {
        self.membership.inhabits(incarnation, self.directories[server]);
    }

    /// A server asks its disk to keep a batch. I2, and I6 of cluster time.
    pub(super) fn issued(&mut self, server: usize, token: u64, batch: &WriteBatch) -> Check {
        if let Some(identity) = batch.identity {
            self.inhabits(server, identity.incarnation);
        }
        if let Some(configuration) = &batch.configuration {
            self.kept.push((server, configuration.clone()));
        }
        if batch.abstention == Some(None) {
            self.check_abstention_ends(server)?;
        }
        let shadow = &mut self.shadows[self.directories[server]];
        let mut before = shadow.issued.last();
        if let Some(id) = batch.truncate_after {
            before = id;
        }
        let cut = shadow
            .issue(token, batch, &mut self.known, &self.ledger)
            .map_err(|detail| Broken { name: "I2", detail: format!("server {}: {detail}", id_of(server)) })?;
        if cut > 0 {
            self.marks.push(Mark::SuffixTruncated);
        }
        for entry in &batch.entries {
            let time = self.known.find(before).map(|(_, entry)| entry.time);
            hold("I6", time.is_none_or(|time| time <= entry.time), || {
                format!("cluster time runs back along the log: {entry:?} behind {before} at {time:?}")
            })?;
            before = entry.id;
        }
        Ok(())
    }

    /// A write is durable. I6: durable term and vote never go back.
    pub(super) fn written(&mut self, server: usize, token: u64) -> Check {
        let shadow = &mut self.shadows[self.directories[server]];
        let (before, abstained) = (shadow.durable_hard_state, shadow.abstains.is_some());
        shadow.done(token);
        let after = shadow.durable_hard_state;
        if abstained && shadow.abstains.is_none() {
            self.marks.extend(shadow.repaired());
        }
        let kept = after.term > before.term
            || after.term == before.term
                && (before.voted_for.is_none() || before.voted_for == after.voted_for);
        hold("I6", kept, || format!("server {}: durable {before:?} became {after:?}", id_of(server)))
    }

    /// A write was given back.
    pub(super) fn refused(&mut self, server: usize, token: u64) {
        self.shadows[self.directories[server]].refused(token);
    }

    /// A snapshot is published.
    pub(super) fn published(&mut self, server: usize, last: EntryId) -> Check {
        let shadow = &mut self.shadows[self.directories[server]];
        let before = shadow.snapshot;
        shadow.snapshot = before.max(last);
        shadow.given_snapshot |= last.index > shadow.durable.last().index;
        hold("I6", last.index >= before.index, || {
            format!("server {}: snapshot {before} was followed by {last}", id_of(server))
        })?;
        self.check_snapshot(server, last)
    }

    pub(super) fn check_snapshot(&self, server: usize, last: EntryId) -> Check {
        let committed = self.ledger.at(last.index).map(|committed| committed.entry.id);
        hold("I4", committed == Some(last), || {
            format!("server {}: snapshot of {last}, committed is {committed:?}", id_of(server))
        })
    }

    /// A server says something to another. R2: what a reply promises is durable.
    pub(super) fn sent(&self, server: usize, to: Option<ServerId>, message: &PeerMessage) -> Check {
        let shadow = self.shadow(server);
        self.check_said(server, message)?;
        let durable = shadow.durable_hard_state;
        match message {
            PeerMessage::RequestVoteReply(reply) if reply.granted => {
                let vote = HardState { term: reply.asked, voted_for: to };
                hold("I6", to.is_none() || durable == vote, || {
                    format!("server {} gave {vote:?} while its disk holds {durable:?}", id_of(server))
                })
            }
            PeerMessage::AppendEntriesReply(reply) => {
                let AppendOutcome::Durable(through) = reply.outcome else { return Ok(()) };
                let held = shadow.durable.last().index.max(shadow.snapshot.index);
                hold("I4", held >= through, || {
                    format!("server {} acknowledged {through} while its disk holds {held}", id_of(server))
                })?;
                hold("I6", durable.term >= reply.term, || {
                    format!(
                        "server {} answered in {} while its disk holds {durable:?}",
                        id_of(server),
                        reply.term
                    )
                })
            }
            _ => Ok(()),
        }
    }

    /// A server stepped. Returns what it has applied, if that changed.
    pub(super) fn observe(&mut self, server: usize, raft: &Raft) -> Result<Option<Index>, Broken> {
        let before = self.seen[server].clone();
        let index = raft.configuration().index;
        let configuration_term = raft.entry_term(index).filter(|_| index > Index::ZERO);
        let same = before.configuration.index == index && before.configuration_term == configuration_term;
        let now = Seen {
            term: raft.term(),
            role: Some(raft.role()),
            last: raft.last(),
            commit: raft.commit_index(),
            applied: raft.applied_index(),
            snapshot: raft.snapshot_index(),
            matches: raft.matches().collect(),
            configuration: if same && before.role.is_some() {
                before.configuration.clone()
            } else {
                Rc::new(raft.configuration().clone())
            },
            configuration_term,
        };
        self.check_order(server, &before, &now)?;
        self.check_stands_back(server, now.role)?;
        let led = before.role == Some(Role::Leader) && before.term == now.term;
        if now.role == Some(Role::Leader) {
            if led {
                hold("I2", now.last.index >= before.last.index, || {
                    format!(
                        "leader {} of {} cut its log from {} to {}",
                        id_of(server),
                        now.term,
                        before.last,
                        now.last
                    )
                })?;
            } else {
                self.elected(server, raft)?;
            }
        }
        if led && now.matches != before.matches {
            self.check_matches(server, raft, &before.matches)?;
        }
        if now.commit > before.commit {
            if led && now.role == Some(Role::Leader) {
                self.check_commit_rule(server, raft, now.commit)?;
            }
            self.committed(server, raft, &before, now.commit)?;
        }
        self.check_configuration(server, raft, &before, &now)?;
        let applied = (now.applied != before.applied).then_some(now.applied);
        self.seen[server] = now;
        Ok(applied)
    }

    fn check_order(&self, server: usize, before: &Seen, now: &Seen) -> Check {
        let grows = now.term >= before.term
            && now.commit >= before.commit
            && now.applied >= before.applied
            && now.snapshot >= before.snapshot;
        hold("I6", grows, || format!("server {}: {before:?} became {now:?}", id_of(server)))?;
        let ordered =
            now.snapshot <= now.applied && now.applied <= now.commit && now.commit <= now.last.index;
        hold("I6", ordered, || format!("server {}: out of order: {now:?}", id_of(server)))
    }

    /// I1 and I3.
    fn elected(&mut self, server: usize, raft: &Raft) -> Check {
        let term = raft.term();
        let other = *self.leaders.entry(term).or_insert(server);
        hold("I1", other == server, || {
            format!("{} and {} both lead in {term}", id_of(other), id_of(server))
        })?;
        if let Some(last) = self.ledger.last_before(term) {
            let id = last.entry.id;
            let held = self.id_at(server, raft, id.index);
            let covered = raft.snapshot_index() >= id.index;
            hold("I3", covered || held == Some(id), || {
                format!("leader {} of {term} holds {held:?} where {id} is committed", id_of(server))
            })?;
        }
        let next = self.ledger.last().next();
        if let Some((old, chain)) = self.shadow(server).issued.at(next)
            && old < term
            && self.is_durable(raft.configuration(), next, chain)
        {
            self.marks.push(Mark::OldTermOnMajority);
        }
        Ok(())
    }

    /// A leader believes in no copy that is not there. One who is in a later term by now may have lost it since.
    fn check_matches(&self, server: usize, raft: &Raft, before: &[(ServerId, Index)]) -> Check {
        for (id, index) in raft.matches() {
            let news =
                before.iter().find(|(other, _)| *other == id).is_none_or(|(_, before)| *before < index);
            let member = raft.configuration().member(id);
            let directory = member.and_then(|member| self.membership.directory(member.incarnation));
            let (Some(shadow), Some((_, chain))) =
                (directory.map(|directory| &self.shadows[directory]), self.shadow(server).issued.at(index))
            else {
                continue;
            };
            let in_reach = shadow.durable_hard_state.term <= raft.term();
            hold("I4", !news || !in_reach || shadow.answers_for(index, chain), || {
                format!(
                    "leader {} of {} counts a copy of {index} at {id} that is not there",
                    id_of(server),
                    raft.term()
                )
            })?;
        }
        Ok(())
    }

    /// Only entries of its own term are committed by a leader that counts; what is before them comes along (§3.6.2).
    fn check_commit_rule(&self, server: usize, raft: &Raft, through: Index) -> Check {
        let id = self.id_at(server, raft, through);
        hold("I4", id.is_none_or(|id| id.term == raft.term()), || {
            format!("leader {} of {} counted copies of {id:?}", id_of(server), raft.term())
        })
    }

    fn id_at(&self, server: usize, raft: &Raft, index: Index) -> Option<EntryId> {
        if let Some(entry) = raft.entry(index) {
            return Some(entry.id);
        }
        self.shadow(server).issued.at(index).map(|(term, _)| EntryId::new(term, index))
    }

    /// What a server was asked to keep at an index.
    pub(super) fn logged(&self, server: usize, index: Index) -> Option<&Entry> {
        let (term, _) = self.shadow(server).issued.at(index)?;
        self.known.find(EntryId::new(term, index)).map(|(_, entry)| entry)
    }

    /// Whether a quorum of a configuration holds an entry durably: of each side, and learners never count.
    fn is_durable(&self, configuration: &Configuration, index: Index, chain: Chain) -> bool {
        has_quorum(configuration, |member| {
            let directory = self.membership.directory(member.incarnation);
            directory.is_some_and(|directory| self.shadows[directory].answers_for(index, chain))
        })
    }

    /// I4: committed entries never change, and are on a majority of disks.
    fn committed(&mut self, server: usize, raft: &Raft, before: &Seen, through: Index) -> Check {
        let first = before.commit.max(raft.snapshot_index()).max(self.shadow(server).issued.base().index);
        let mut index = first.next();
        while index <= through {
            let Some(id) = self.id_at(server, raft, index) else {
                return Err(Broken {
                    name: "I4",
                    detail: format!("server {} knows {index} committed and does not hold it", id_of(server)),
                });
            };
            match self.ledger.at(index) {
                Some(committed) => hold("I4", committed.entry.id == id, || {
                    format!("server {} has {id} committed where {} is", id_of(server), committed.entry.id)
                })?,
                None => self.commit_first(server, raft, before, id)?,
            }
            index = index.next();
        }
        hold("I4", through <= self.ledger.last(), || {
            format!(
                "server {} commits {through}, nobody else has more than {}",
                id_of(server),
                self.ledger.last()
            )
        })
    }

    fn commit_first(&mut self, server: usize, raft: &Raft, before: &Seen, id: EntryId) -> Check {
        let place = || format!("server {} of {} commits {id}", id_of(server), raft.term());
        let expected = self.ledger.last().next();
        hold("I4", id.index == expected, || {
            format!("{}, the last committed is {}", place(), self.ledger.last())
        })?;
        let Some((chain, entry)) = self.known.find(id).cloned() else {
            return Err(Broken {
                name: "I4",
                detail: format!("{}, which no disk was asked to keep", place()),
            });
        };
        // A change may have begun or ended in the very step that committed it.
        let counted = before.role.is_some() && self.is_durable(&before.configuration, id.index, chain);
        hold("I4", counted || self.is_durable(raft.configuration(), id.index, chain), || {
            format!("{} without durable copies on a quorum of {:?}", place(), raft.configuration())
        })?;
        let joint = raft.configuration().outgoing_voters.is_some() && entry.kind == EntryKind::Session;
        self.marks.extend(joint.then_some(Mark::CommitWhileJoint));
        let follows = super::ledger::chain(self.ledger.last_chain(), &entry) == chain;
        hold("I4", follows, || format!("{}, which does not follow what is committed", place()))?;
        if entry.kind == EntryKind::Configuration {
            self.membership.commit(&entry, raft.server(), &mut self.marks)?;
        }
        self.check_raise(&entry)?;
        self.ledger.push(Committed { entry, chain, in_term: raft.term() });
        Ok(())
    }

    /// A server's state at an index. I5: the same on all.
    pub(super) fn state(&mut self, server: usize, index: Index, digest: u64) -> Result<bool, Broken> {
        let (first, by) = *self.digests.entry(index).or_insert((digest, server));
        hold("I5", first == digest, || {
            format!("the states of {} and {} at {index} differ", id_of(by), id_of(server))
        })?;
        Ok(by != server)
    }

    /// Whether another server's state at an index is known.
    pub(super) fn knows_state(&self, index: Index) -> bool {
        self.digests.contains_key(&index)
    }

    /// A server is down: what it showed counts no more, what its disk holds does.
    pub(super) fn stopped(&mut self, server: usize) {
        self.seen[server] = Seen::default();
        // It may not have been durable.
        self.kept.retain(|(at, _)| *at != server);
    }

    /// A directory was emptied: what the server has from now on is another one.
    pub(super) fn wiped(&mut self, server: usize) {
        self.membership.wiped(self.directories[server]);
        self.directories[server] = self.shadows.len();
        self.shadows.push(Shadow::default());
    }
}
