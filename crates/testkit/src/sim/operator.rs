//! An operator: adds servers, promotes, demotes, removes and replaces them, hands leadership over, restarts
//! them one by one.
//!
//! What is wanted is drawn from the configuration that the leader has; whether the leader takes it is the
//! leader's affair. Around it the faults that belong to a change: its leader goes in the middle, its target is
//! down, its learners are tempting.

use atomix_protocol::{MemberKind, ServerId};

use super::Profile;
use super::checker::{Check, hold};
use super::coverage::Mark;
use super::faults::{Class, Fault, Shape, Target};
use super::flood::Flood;
use super::loss::Loss;
use super::membership::{has_quorum, holds_log};
use super::network::Node;
use super::random::Random;
use super::server::{Machine, configuration};
use super::settings::{MILLISECOND, Time};
use super::wishes::Wish;
use super::world::{Event, World};

/// What comes of it later.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The next wish.
    Next,
    /// One more, right after an election.
    Early(Node),
    /// Whoever leads in the middle of a change goes.
    Break(Node),
    /// The next of these servers is restarted.
    Roll(Vec<Node>),
    /// A server that hands over goes down when another leads, or at the latest then.
    Down(Node, Time, Vec<Node>),
    /// Something happens to a server that receives a snapshot.
    Receiving(Node),
    /// It is outgrown.
    Flood(Flood),
}

impl World {
    /// Bare consensus has its members from the beginning.
    fn begin_membership(&mut self) {
        if self.profile == Profile::Core {
            self.checker.membership.formed(configuration(self.settings.servers));
            for server in 0..self.servers.len() {
                self.checker.inhabits(server, self.servers[server].incarnation);
            }
        }
    }

    pub(super) fn start_operator(&mut self) {
        self.begin_membership();
        let mean = self.settings.operator.mean;
        if mean > 0 {
            self.after(mean, Event::Operate(Step::Next));
        }
        self.count_even(self.settings.servers);
        self.start_hostile();
    }

    pub(super) fn count_even(&mut self, voters: usize) {
        if voters.is_multiple_of(2) && self.swarm.has(Class::M17) {
            self.coverage.fault(Class::M17);
        }
    }

    pub(super) fn on_operate(&mut self, step: Step) -> Check {
        if !self.faults_on {
            return Ok(());
        }
        match step {
            Step::Next => {
                let wait = self.randoms.operator.exponential(self.settings.operator.mean) + MILLISECOND;
                self.after(wait, Event::Operate(Step::Next));
                self.tempt()?;
                match self.randoms.operator.below(24) {
                    0 if self.swarm.has(Class::U2) => self.begin_rolling(),
                    1 | 2 if self.swarm.has(Class::M14) => self.restart_removed(),
                    _ => self.ask(),
                }
            }
            Step::Early(server) if self.leader() == Some(server) => self.ask(),
            Step::Early(_) => Ok(()),
            Step::Break(server) => self.break_off(server),
            Step::Roll(servers) => self.roll(servers),
            Step::Down(server, until, rest) => self.go_down(server, until, rest),
            Step::Receiving(server) => self.strike_receiver(server),
            Step::Flood(flood) => self.flood(flood),
        }
    }

    /// A server leads: something may be asked of it at once.
    pub(super) fn ask_early(&mut self, server: Node) {
        let wishes = self.profile == Profile::Core && self.settings.operator.mean > 0;
        if wishes && self.faults_on && self.swarm.has(Class::M1) && self.randoms.operator.chance(0.3) {
            let wait = self.randoms.operator.below(2 * MILLISECOND);
            self.after(wait, Event::Operate(Step::Early(server)));
        }
    }

    /// Something is asked of whoever leads.
    fn ask(&mut self) -> Check {
        let Some(leader) = self.leader().filter(|leader| self.servers[*leader].is_running()) else {
            return Ok(());
        };
        let Some(configuration) = self.servers[leader].configuration().cloned() else { return Ok(()) };
        let Some(wish) = self.wish(&configuration, leader)? else { return Ok(()) };
        if !self.is_bearable(leader, &wish) {
            return Ok(());
        }
        self.trace.change(self.now, || format!("operator: {wish:?}"));
        match self.profile {
            Profile::Full => self.ask_console(leader, wish),
            Profile::Core => self.ask_bare(leader, &wish),
        }
    }

    /// An operator who knows that a directory is gone makes nothing depend on it.
    fn is_bearable(&self, leader: Node, wish: &Wish) -> bool {
        let Wish::Change(change) = wish else { return true };
        let server = &self.servers[leader];
        let plan = server.raft().map(|raft| raft.plan(server.clock.read(self.now), change));
        plan.is_none_or(|plan| has_quorum(&plan.configuration, |member| self.is_lasting(member)))
    }

    fn ask_bare(&mut self, leader: Node, wish: &Wish) -> Check {
        let local = self.servers[leader].clock.read(self.now);
        let Some(process) = self.servers[leader].process.as_mut() else { return Ok(()) };
        let Machine::Core(bare) = &mut process.machine else { return Ok(()) };
        let early = !bare.raft().is_established();
        let taken = match wish {
            Wish::Change(change) => {
                let plan = bare.raft().plan(local, change);
                let answer = bare.change(local, change);
                hold("I13", plan.refused.as_ref() == answer.as_ref().err(), || {
                    format!("{change:?} is planned as {plan:?}, and answered {answer:?}")
                })?;
                if plan.refused.is_none() {
                    self.checker.membership.check_planned(change, &plan.configuration)?;
                }
                self.coverage.mark(Mark::ChangeBegun, u64::from(answer.is_ok()));
                self.coverage.mark(Mark::ChangeRefused, u64::from(answer.is_err()));
                if early && self.swarm.has(Class::M1) {
                    self.coverage.fault(Class::M1);
                }
                self.trace.change(self.now, || format!("answer: {answer:?}"));
                answer.is_ok()
            }
            Wish::Transfer(to) => {
                let answer = bare.transfer(local, *to);
                self.trace.change(self.now, || format!("answer: {answer:?}"));
                if let Ok(target) = answer {
                    self.strike_target(leader, target)?;
                }
                false
            }
        };
        if taken {
            self.change_begins(leader, wish)?;
        }
        self.step(leader)
    }

    /// A leader took a change up. Before its first message leaves it may be cut off; in the middle it may go.
    pub(super) fn change_begins(&mut self, leader: Node, wish: &Wish) -> Check {
        let Wish::Change(change) = wish else { return Ok(()) };
        let own = self.servers[leader].id;
        if self.swarm.has(Class::M4) && change.remove.iter().any(|id| Some(*id) == own) {
            self.coverage.fault(Class::M4);
        }
        let election = self.settings.longest_election();
        let random = &mut self.randoms.operator;
        let draw = random.unit();
        if self.profile == Profile::Core && self.swarm.has(Class::M5) && draw < 0.15 {
            let lasts = random.range(election, 5 * election);
            return self.isolate(Class::M5, leader, lasts);
        }
        if self.swarm.has(Class::M3) && draw > 0.7 {
            let (latency, disk) = (self.settings.latency, self.settings.disk_latency);
            let wait = random.exponential(2 * (latency.0 + latency.1) + disk.0 + disk.1);
            self.after(wait, Event::Operate(Step::Break(leader)));
        }
        Ok(())
    }

    fn isolate(&mut self, class: Class, server: Node, lasts: Time) -> Check {
        let victim = Target::Server(server);
        let cut = Fault::Cut { shape: Shape::Isolate, victim, with_clients: false, lasts };
        let mut random = Random::of(self.randoms.operator.next());
        self.strike(class, cut, &mut random)
    }

    fn kill(&mut self, class: Class, server: Node, down: Time) -> Check {
        let loss = if self.randoms.operator.chance(0.5) { Loss::Power } else { Loss::Process };
        let victim = Target::Server(server);
        let crash = Fault::Crash { victim, loss, silent: false, armed: false, down };
        let mut random = Random::of(self.randoms.operator.next());
        self.strike(class, crash, &mut random)
    }

    fn break_off(&mut self, server: Node) -> Check {
        let joint = self.servers[server].configuration().is_some_and(|c| c.outgoing_voters.is_some());
        if self.leader() != Some(server) || !joint {
            return Ok(());
        }
        let election = self.settings.longest_election();
        let lasts = self.randoms.operator.range(election, 4 * election);
        match self.randoms.operator.chance(0.5) {
            true => self.kill(Class::M3, server, lasts),
            false => self.isolate(Class::M3, server, lasts),
        }
    }

    /// Whoever is to take over can't.
    pub(super) fn strike_target(&mut self, leader: Node, target: ServerId) -> Check {
        let Some(node) = self.node_of(target).filter(|node| *node != leader) else { return Ok(()) };
        if !self.swarm.has(Class::M15) || self.randoms.operator.chance(0.4) {
            return Ok(());
        }
        let election = self.settings.longest_election();
        let lasts = self.randoms.operator.range(election / 4, 3 * election);
        match self.randoms.operator.below(3) {
            0 => self.kill(Class::M15, node, lasts),
            1 => self.isolate(Class::M15, node, lasts),
            _ => {
                let pause = Fault::Pause { victim: Target::Server(node), machine: false, lasts };
                let mut random = Random::of(self.randoms.operator.next());
                self.strike(Class::M15, pause, &mut random)
            }
        }
    }

    /// While there are learners, so many voters go that only learners could make up for them.
    fn tempt(&mut self) -> Check {
        if !self.swarm.has(Class::M7) || !self.randoms.operator.chance(0.1) {
            return Ok(());
        }
        let Some(configuration) = self.checker.membership.latest().cloned() else { return Ok(()) };
        if !configuration.members.iter().any(|member| member.kind == MemberKind::Learner) {
            return Ok(());
        }
        let mut voters: Vec<ServerId> = configuration.voters().collect();
        self.randoms.operator.shuffle(&mut voters);
        let election = self.settings.longest_election();
        let down = self.randoms.operator.range(election, 4 * election);
        for id in voters.iter().take(voters.len().div_ceil(2)) {
            if let Some(node) = self.node_of(*id) {
                self.kill(Class::M7, node, down)?;
            }
        }
        Ok(())
    }

    /// A server that was removed, and perhaps does not know it, is started again.
    fn restart_removed(&mut self) -> Check {
        let removed = |server: &&super::server::Server| {
            server.process.is_some() && server.id.is_some() && !self.is_member(server.number)
        };
        let removed: Vec<Node> = self.servers.iter().filter(removed).map(|server| server.number).collect();
        let Some(server) = self.randoms.operator.pick(&removed) else { return Ok(()) };
        let down = self.randoms.operator.range(1, 4 * self.settings.longest_election());
        self.kill(Class::M14, server, down)
    }

    fn begin_rolling(&mut self) -> Check {
        let Some(configuration) = self.checker.membership.latest() else { return Ok(()) };
        let nodes = configuration.members.iter().filter(|member| holds_log(member));
        let nodes: Vec<Node> = nodes.filter_map(|member| self.node_of(member.id)).collect();
        self.roll(nodes)
    }

    fn roll(&mut self, mut servers: Vec<Node>) -> Check {
        let Some(next) = servers.pop() else { return Ok(()) };
        let until = self.now + self.settings.longest_election();
        if self.leader() == Some(next) && self.servers[next].is_running() {
            self.hand_over(next)?;
        }
        self.go_down(next, until, servers)
    }

    fn hand_over(&mut self, server: Node) -> Check {
        let local = self.servers[server].clock.read(self.now);
        match self.servers[server].process.as_mut().map(|process| &mut process.machine) {
            Some(Machine::Core(bare)) => {
                let _refused = bare.transfer(local, None);
                self.step(server)
            }
            Some(Machine::Full(_)) => {
                let input = super::server::Input::Common(atomix_engine::Input::HandOver);
                self.give(server, input)
            }
            None => Ok(()),
        }
    }

    fn go_down(&mut self, server: Node, until: Time, rest: Vec<Node>) -> Check {
        if self.leader() == Some(server) && self.now < until {
            let wait = 20 * MILLISECOND;
            self.after(wait, Event::Operate(Step::Down(server, until, rest)));
            return Ok(());
        }
        let down = self.randoms.operator.range(10, 200) * MILLISECOND;
        let victim = Target::Server(server);
        let stop = Fault::Crash { victim, loss: Loss::Process, silent: false, armed: false, down };
        let mut random = Random::of(self.randoms.operator.next());
        self.strike(Class::U2, stop, &mut random)?;
        self.after(down + self.settings.longest_election(), Event::Operate(Step::Roll(rest)));
        Ok(())
    }

    /// A server begins to receive a snapshot.
    pub(super) fn receiving(&mut self, server: Node) {
        if !self.faults_on {
            return;
        }
        if self.swarm.has(Class::M11) {
            self.begin_flood(server);
        }
        let has = [Class::M9, Class::M10].into_iter().any(|class| self.swarm.has(class));
        if has && self.randoms.operator.chance(0.5) {
            let (latency, disk) = (self.settings.latency, self.settings.disk_latency);
            let wait = self.randoms.operator.exponential(4 * (latency.0 + latency.1 + disk.0 + disk.1));
            self.after(wait, Event::Operate(Step::Receiving(server)));
        }
    }

    fn strike_receiver(&mut self, server: Node) -> Check {
        if !self.servers[server].raft().is_some_and(atomix_raft::Raft::is_installing) {
            return Ok(());
        }
        let possible: Vec<Class> =
            [Class::M9, Class::M10].into_iter().filter(|class| self.swarm.has(*class)).collect();
        let Some(class) = self.randoms.operator.pick(&possible) else { return Ok(()) };
        let election = self.settings.longest_election();
        let lasts = self.randoms.operator.range(election / 4, 3 * election);
        let leader = self.leader().filter(|leader| *leader != server);
        match (class, self.randoms.operator.below(3)) {
            (Class::M9, 0) => self.isolate(class, server, lasts),
            // Its links are soon up again, and the same leader goes on where it was.
            (Class::M9, 1) if self.profile == Profile::Full => {
                let broken = self.reset_node(server, false, None);
                self.coverage.faults_of(class, u64::from(broken > 0));
                Ok(())
            }
            (Class::M9, _) => leader.map_or(Ok(()), |leader| self.kill(class, leader, lasts)),
            (_, 0) => {
                let pause = Fault::Pause { victim: Target::Server(server), machine: true, lasts };
                let mut random = Random::of(self.randoms.operator.next());
                self.strike(class, pause, &mut random)
            }
            _ => self.kill(class, server, lasts),
        }
    }
}
