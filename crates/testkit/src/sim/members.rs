//! Who is a member, whose directory is still there, and what becomes of servers that join.

use atomix_protocol::{Configuration, Member, MemberKind};

use super::Profile;
use super::checker::Check;
use super::faults::Class;
use super::loss::Loss;
use super::membership::{has_quorum, holds_log};
use super::network::Node;
use super::random::Random;
use super::server::server_at;
use super::world::{Event, World};

impl World {
    /// Whether a server's directory is one of a member, as the committed log has it.
    pub(super) fn is_member(&self, server: Node) -> bool {
        self.member(server).is_some()
    }

    fn member(&self, server: Node) -> Option<&Member> {
        let directory = self.checker.directory_of(server);
        let at = |member: &&Member| self.checker.membership.directory(member.incarnation) == directory;
        self.checker.membership.latest()?.members.iter().find(at)
    }

    /// Whether a server decides alone: then it may go on whatever it hears.
    pub(super) fn decides_alone(&self, server: Node) -> bool {
        let own = self.servers[server].id;
        self.servers[server].configuration().is_some_and(|c| has_quorum(c, |member| Some(member.id) == own))
    }

    /// Whether a server has to be equal to the others in the end.
    pub(super) fn belongs(&self, server: Node) -> bool {
        self.member(server).is_some_and(holds_log)
    }

    /// Whether a member's directory is still there.
    pub(super) fn is_whole(&self, member: &Member) -> bool {
        let directory = self.checker.membership.directory(member.incarnation);
        let node = server_at(&member.peer_address);
        directory.is_some() && node.and_then(|node| self.checker.directory_of(node)) == directory
    }

    /// Whether a member is there to stay, with its vote: one that is to join is.
    pub(super) fn is_lasting(&self, member: &Member) -> bool {
        self.checker.membership.directory(member.incarnation).is_none()
            || self.is_whole(member) && self.is_sound(member)
    }

    /// Whether a server may lose its directory, or its binary what the others rely on: a quorum remains, and what all members know of
    /// kinds, which each of them is asked once (M3), is known.
    pub(super) fn may_lose(&self, server: Node) -> bool {
        self.has_levels() && !self.has_stranger() && self.may_do_without(server)
    }

    /// A configuration is committed: whoever is in it for the first time is told.
    pub(super) fn configured(&mut self) {
        let Some(configuration) = self.checker.membership.latest().cloned() else { return };
        self.trace.change(self.now, || format!("committed: {configuration:?}"));
        self.count_even(configuration.voters().count());
        if self.profile == Profile::Full {
            self.lose_newcomers(&configuration);
            return;
        }
        for member in &configuration.members {
            let Some(node) = server_at(&member.peer_address) else { continue };
            let server = &self.servers[node];
            if server.incarnation != member.incarnation || server.given.is_some() {
                continue;
            }
            let mut wait = self.network.delay();
            if self.swarm.has(Class::M8) && self.faults_on && self.randoms.operator.chance(0.3) {
                self.coverage.fault(Class::M8);
                wait += self.randoms.operator.range(2, 8) * self.settings.longest_election();
            }
            self.after(wait, Event::Form(node, Box::new(configuration.clone())));
        }
    }

    /// A server that was just taken in goes before it can make use of it.
    fn lose_newcomers(&mut self, configuration: &Configuration) {
        let new = |member: &&Member| {
            member.kind == MemberKind::Learner && member.id.0 + 1 == configuration.next_server_id
        };
        let node = configuration.members.iter().find(new).and_then(|member| server_at(&member.peer_address));
        let Some(node) = node.filter(|node| self.servers[*node].id.is_none()) else { return };
        if self.faults_on && self.swarm.has(Class::M8) && self.randoms.operator.chance(0.3) {
            self.coverage.fault(Class::M8);
            let election = self.settings.longest_election();
            let down = self.randoms.operator.range(2, 8) * election;
            let mut random = Random::of(self.randoms.operator.next());
            self.crash(node, Loss::Process, false, &mut random);
            self.after(down, Event::Boot(node));
        }
    }

    /// A server without a configuration is given one that has its directory in it, if it still has that place.
    pub(super) fn on_form(&mut self, server: Node, configuration: Configuration) -> Check {
        let at = &mut self.servers[server];
        let id = |c: &Configuration| c.member_by_incarnation(at.incarnation).map(|member| member.id);
        let place = id(&configuration);
        if at.given.is_some() || place.is_none() || self.checker.membership.latest().and_then(id) != place {
            return Ok(());
        }
        at.given = Some(configuration);
        self.boot(server)
    }
}
