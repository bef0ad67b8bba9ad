//! What an operator wishes for: drawn from the configuration that the leader has.

use atomix_protocol::change::{Change, NewMember};
use atomix_protocol::{Configuration, MemberKind, ServerId};

use super::Profile;
use super::checker::{Broken, Check};
use super::faults::Class;
use super::loss::Loss;
use super::network::Node;
use super::random::{Component, Random};
use super::server::address_of;
use super::settings::{MILLISECOND, Time};
use super::world::World;

/// Most voters of a cluster (R1).
const VOTERS: usize = 7;

/// What an operator does in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Servers that may be added.
    pub(super) spares: usize,
    /// Mean time between two wishes; zero if there are none.
    pub(super) mean: Time,
}

impl Wishes {
    pub(super) fn draw(seed: u64) -> Wishes {
        let mut r = Random::stream(seed, Component::Operator, 0);
        if r.chance(0.4) {
            return Wishes { spares: 0, mean: 0 };
        }
        Wishes { spares: r.range(1, 3) as usize, mean: r.scale(100, 3_000) * MILLISECOND }
    }
}

/// One wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Change(Change),
    Transfer(Option<ServerId>),
}

/// A kind of wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Promote,
    Demote,
    Remove,
    RemoveLeader,
    Replace,
    Reserve,
    Priority,
    Transfer,
}

/// What is wished for.
impl World {
    pub(super) fn wish(
        &mut self,
        configuration: &Configuration,
        leader: Node,
    ) -> Result<Option<Wish>, Broken> {
        let of = |kind: MemberKind| {
            let members = configuration.members.iter().filter(move |member| member.kind == kind);
            members.map(|member| member.id).collect::<Vec<ServerId>>()
        };
        let (voters, learners, reserves) =
            (of(MemberKind::Voter), of(MemberKind::Learner), of(MemberKind::Reserve));
        let own = self.servers[leader].id;
        let others: Vec<ServerId> = voters.iter().copied().filter(|id| Some(*id) != own).collect();
        let lost: Vec<ServerId> =
            configuration.members.iter().filter(|member| !self.is_whole(member)).map(|m| m.id).collect();
        let outsiders = self.outsiders(configuration);
        let mut kinds = Vec::new();
        let mut may = |kind: Kind, weight: usize, possible: bool| {
            kinds.extend(std::iter::repeat_n(kind, if possible { weight } else { 0 }));
        };
        let small = voters.len() < self.settings.servers;
        may(Kind::Add, 5, !outsiders.is_empty());
        may(Kind::Promote, if small { 10 } else { 4 }, !learners.is_empty() && voters.len() < VOTERS);
        may(Kind::Demote, 1, !others.is_empty());
        may(Kind::Remove, 2, !others.is_empty() || !learners.is_empty());
        may(Kind::RemoveLeader, 2, !others.is_empty() && self.swarm.has(Class::M4));
        may(Kind::Replace, 20, !lost.is_empty() && !learners.is_empty());
        may(Kind::Reserve, 1, !reserves.is_empty() || !learners.is_empty());
        may(Kind::Priority, 1, true);
        may(Kind::Transfer, 4, !others.is_empty());
        let random = &mut self.randoms.operator;
        let Some(kind) = random.pick(&kinds) else { return Ok(None) };
        let mut change = Change { expected: configuration.index, ..Change::default() };
        let learner = random.pick(&learners);
        match kind {
            Kind::Add => {
                let Some(node) = random.pick(&outsiders) else { return Ok(None) };
                if self.profile == Profile::Full {
                    return self.start_newcomer(node).map(|()| None);
                }
                change.add.push(self.newcomer(node));
            }
            Kind::Promote => change.set_kind.extend(learner.map(|id| (id, MemberKind::Voter))),
            Kind::Demote => change.set_kind.extend(random.pick(&others).map(|id| (id, MemberKind::Learner))),
            Kind::Remove => {
                let all: Vec<ServerId> = others.iter().chain(&learners).chain(&reserves).copied().collect();
                change.remove.extend(random.pick(&all));
            }
            Kind::RemoveLeader => change.remove.extend(own),
            Kind::Replace => {
                change.remove.extend(random.pick(&lost));
                change.set_kind.extend(learner.map(|id| (id, MemberKind::Voter)));
                if learner.is_some_and(|id| change.remove.contains(&id)) {
                    change.set_kind.clear();
                }
            }
            Kind::Reserve => {
                let wake = random.pick(&reserves).map(|id| (id, MemberKind::Learner));
                change.set_kind.extend(wake.or(learner.map(|id| (id, MemberKind::Reserve))));
            }
            Kind::Priority => {
                let id = random.pick(&configuration.members.iter().map(|m| m.id).collect::<Vec<_>>());
                let priority = random.below(3) as u8;
                change.set_priority.extend(id.map(|id| (id, priority)));
            }
            Kind::Transfer => {
                let to = if random.chance(0.6) { random.pick(&others) } else { None };
                return Ok(Some(Wish::Transfer(to)));
            }
        }
        Ok(Some(Wish::Change(change)))
    }

    /// Servers that are in no configuration that counts any more, or were in none yet.
    fn outsiders(&self, configuration: &Configuration) -> Vec<Node> {
        let Some(latest) = self.checker.membership.latest() else { return Vec::new() };
        let address = address_of;
        let named = |node: &Node| {
            let at = |c: &Configuration| {
                let directory = self.checker.directory_of(*node);
                c.members.iter().any(|member| {
                    let same = self.checker.membership.directory(member.incarnation) == directory;
                    same || member.peer_address == address(*node) && self.is_whole(member)
                })
            };
            at(configuration) || at(latest)
        };
        let settled = latest.outgoing_voters.is_none() && *latest == *configuration;
        (0..self.servers.len()).filter(|node| settled && !named(node)).collect()
    }

    /// A server that is not a member as one that is to be. One that was a member gets an empty directory before.
    fn newcomer(&mut self, node: Node) -> NewMember {
        if self.servers[node].given.is_some() {
            let mut random = Random::of(self.randoms.operator.next());
            self.crash(node, Loss::Process, false, &mut random);
            self.wipe_directory(node);
        }
        let random = &mut self.randoms.operator;
        let kind = if random.chance(0.15) { MemberKind::Reserve } else { MemberKind::Learner };
        let priority = if random.chance(0.8) { 0 } else { random.below(3) as u8 };
        NewMember {
            incarnation: self.servers[node].incarnation,
            peer_address: address_of(node),
            client_address: address_of(node),
            kind,
            priority,
        }
    }

    /// A whole server joins by itself.
    fn start_newcomer(&mut self, node: Node) -> Check {
        if self.has_stranger() {
            return Ok(());
        }
        if self.servers[node].id.is_some() {
            let mut random = Random::of(self.randoms.operator.next());
            self.crash(node, Loss::Process, false, &mut random);
            self.wipe_directory(node);
        }
        self.boot(node)
    }

    /// A server's directory is emptied: it is another server from now on.
    pub(super) fn wipe_directory(&mut self, server: Node) {
        self.servers[server].wipe();
        self.checker.wiped(server);
        if self.profile == Profile::Core {
            self.checker.inhabits(server, self.servers[server].incarnation);
        }
    }
}
