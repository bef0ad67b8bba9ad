//! A random majority lives alone: the others stay dead or cut off until all is healed (L1, L2, L3 of it).

use std::collections::BTreeSet;

use atomix_protocol::{Configuration, Index, Member, MemberKind, ServerId};
use atomix_raft::{Raft, Role};

use super::Profile;
use super::checker::{Check, hold};
use super::coverage::Mark;
use super::inject::Ending;
use super::loss::Loss;
use super::membership::{has_quorum, holds_log};
use super::network::Node;
use super::random::{Component, Random};
use super::server::{Machine, Server};
use super::versions::KINDS;
use super::world::World;

impl World {
    /// What must live without the others does, and whoever belongs to it catches up. Asked only if it can: where no
    /// smaller set than all decides, everything is healed at once.
    pub(super) fn expect_majority_lives(&mut self, visitor: usize) -> Check {
        let mut random = Random::stream(self.seed, Component::Majority, 0);
        let Some(majority) = self.draw_majority(&mut random).filter(|_| self.has_levels()) else {
            self.coverage.without_majority += 1;
            return Ok(());
        };
        let others: Vec<Node> = (0..self.servers.len()).filter(|server| !majority.contains(server)).collect();
        self.trace.change(self.now, || format!("servers {majority:?} (from 0) are on their own"));
        self.coverage.mark(Mark::MajorityAlone, 1);
        for server in others {
            self.leave_out(server, &mut random);
        }
        let led = self.run(self.leader_deadline(), |world| world.leads_one_of(&majority))?;
        hold("L1", led, || format!("no leader of {majority:?} (from 0): {}", self.describe()))?;
        self.expect_progress(visitor)?;
        let through = self.checker.ledger.last();
        let caught_up = self.run(self.progress_deadline(), |world| world.has_all(&majority, through))?;
        hold("L3", caught_up, || {
            format!("not all of {majority:?} (from 0) get through {through}: {}", self.describe())
        })
    }

    /// Whether everything can be created without hearing of every member what it knows (M3): there was a time when all
    /// were there.
    pub(super) fn has_levels(&self) -> bool {
        let levels = |server: &Server| match &server.process.as_ref()?.machine {
            Machine::Full(engine) => Some(KINDS.into_iter().all(|kind| engine.table().levels().of(kind) > 0)),
            Machine::Core(_) => Some(true),
        };
        self.servers.iter().filter_map(levels).any(|has| has)
    }

    /// Whether clients can ever do anything: if no level was committed, every member must be there once (M3), and one
    /// that was wiped and not replaced never is.
    pub(super) fn can_serve(&self) -> bool {
        let Some(configuration) = self.checker.membership.latest() else { return false };
        let mut members = configuration.members.iter().filter(|member| holds_log(member));
        self.has_levels() || members.all(|member| self.is_whole(member))
    }

    fn leads_one_of(&self, majority: &BTreeSet<Node>) -> bool {
        let leads = |raft: &Raft| raft.role() == Role::Leader && raft.is_established();
        majority.iter().any(|server| self.servers[*server].raft().is_some_and(leads))
    }

    fn has_all(&self, majority: &BTreeSet<Node>, through: Index) -> bool {
        let has =
            |raft: &Raft| raft.applied_index() >= through && raft.configuration().outgoing_voters.is_none();
        // Whoever was removed has nothing to catch up with.
        let mut members = majority.iter().filter(|server| self.belongs(**server));
        members.all(|server| self.servers[*server].raft().is_some_and(has))
    }

    /// Some servers that decide by themselves, whichever of their configurations is in force; not all.
    fn draw_majority(&self, random: &mut Random) -> Option<BTreeSet<Node>> {
        let mut order: Vec<Node> =
            (0..self.servers.len()).filter(|server| self.servers[*server].raft().is_some()).collect();
        random.shuffle(&mut order);
        // Who may have lost something decides nothing; it may be there all the same.
        order.sort_by_key(|server| !self.checker.is_sound(*server));
        let more = usize::from(random.chance(0.3));
        let least = (1..order.len()).find(|count| self.decides(&order[..*count]))?;
        let count = (least + more).min(self.servers.len() - 1);
        order.get(..count).map(|kept| kept.iter().copied().collect())
    }

    fn decides(&self, kept: &[Node]) -> bool {
        let sound = kept.iter().filter(|server| self.checker.is_sound(**server));
        let ids: BTreeSet<ServerId> =
            sound.filter_map(|server| self.servers[*server].raft()).map(Raft::server).collect();
        // Those that are left out may have sent their last configuration to one that is kept: it arrives after the cut.
        let decided =
            |configuration: &Configuration| has_quorum(configuration, |member| ids.contains(&member.id));
        // A learner that wants to vote may be promoted before anybody notices that it is cut off.
        let promoted =
            |configuration: &Configuration| promoted(configuration, |member| !ids.contains(&member.id));
        let mut configurations =
            self.servers.iter().filter_map(|server| server.raft()).map(Raft::configuration);
        configurations.all(|used| decided(used) && decided(&promoted(used))) && self.can_elect(kept)
    }

    /// Whether one of these servers could be elected by them. A configuration under way can ask for the vote of a server whose
    /// log is longer, and which is no voter by its own: then a voter that is lost meanwhile is missing, though a majority is left.
    pub(super) fn can_elect(&self, kept: &[Node]) -> bool {
        let sound = || kept.iter().filter(|server| self.checker.is_sound(**server));
        let rafts = || sound().filter_map(|server| self.servers[*server].raft());
        let counts = |raft: &Raft| {
            let votes = |configuration: &Configuration| {
                let outgoing = configuration.outgoing_voters.iter().flatten();
                configuration.voters().chain(outgoing.copied()).any(|id| id == raft.server())
            };
            votes(raft.configuration()) || (raft.is_change_pending() && votes(raft.committed_configuration()))
        };
        let grants = |candidate: &Raft, member: &Member| {
            rafts().any(|raft| raft.server() == member.id && raft.last() <= candidate.last())
        };
        rafts().any(|raft| counts(raft) && has_quorum(raft.configuration(), |member| grants(raft, member)))
    }

    /// Until all is healed, a server is dead, or cut off both ways or one way.
    fn leave_out(&mut self, server: Node, random: &mut Random) {
        let (hears, speaks) = match random.below(4) {
            0 => {
                let loss = if random.chance(0.5) { Loss::Power } else { Loss::Process };
                let silent = random.chance(0.5);
                self.crash(server, loss, silent, random);
                self.left_out.insert(server);
                return;
            }
            1 => (true, false),
            2 => (false, true),
            _ => (false, false),
        };
        let mut pairs = Vec::new();
        // Nobody but servers has links in bare consensus.
        let nodes = if self.profile == Profile::Core { self.servers.len() } else { self.network.nodes() };
        for other in (0..nodes).filter(|other| *other != server) {
            pairs.extend((!hears).then_some((other, server)));
            pairs.extend((!speaks).then_some((server, other)));
        }
        for (from, to) in &pairs {
            self.network.block(*from, *to);
        }
        self.look_for_deaf();
        self.next_ending += 1;
        self.active.insert(self.next_ending, Ending::Cut(pairs));
    }
}

/// A configuration in which some learners vote.
pub(super) fn promoted(configuration: &Configuration, which: impl Fn(&Member) -> bool) -> Configuration {
    let mut next = configuration.clone();
    let learners =
        next.members.iter_mut().filter(|member| member.kind == MemberKind::Learner && which(member));
    learners.for_each(|member| member.kind = MemberKind::Voter);
    next
}
