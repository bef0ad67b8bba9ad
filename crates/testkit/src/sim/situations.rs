//! Faults that belong to what clients are in the middle of: what is under way when a link or a server goes, and
//! who comes back.

use atomix_protocol::LinkId;
use bytes::Bytes;

use super::checker::Check;
use super::coverage::Mark;
use super::faults::{Class, Fault, Shape, Target};
use super::loss::Loss;
use super::network::Node;
use super::random::Random;
use super::settings::MILLISECOND;
use super::world::{Event, World};

/// A command, a query.
const COMMAND: u8 = 34;
const QUERY: u8 = 35;
/// How often what is under way is cut.
const CUT: f64 = 0.01;
/// How often a user's next thought is a bad one.
const MISHAP: f64 = 0.02;
/// So many things owned are very many.
const MANY: usize = 48;

impl World {
    /// A client sent a frame. What it sends next may not arrive (S6), or whom it asks falls asleep (S15).
    pub(super) fn after_client_frame(&mut self, client: usize, link: LinkId, kind: Option<u8>) -> Check {
        if !self.faults_on {
            return Ok(());
        }
        let node = self.servers.len() + client;
        if kind == Some(COMMAND)
            && self.swarm.has(Class::S6)
            && self.clients[client].outstanding() > 1
            && self.randoms.side.chance(CUT)
        {
            self.coverage.fault(Class::S6);
            self.reset_link(node, link);
        }
        if kind == Some(QUERY) && self.swarm.has(Class::S15) && self.randoms.side.chance(CUT) {
            let (least, mean) = self.settings.latency;
            let wait = least + self.randoms.side.exponential(mean);
            self.after(wait, Event::Mishap(Class::S15));
        }
        Ok(())
    }

    /// A leader falls asleep while it confirms a read.
    pub(super) fn doze(&mut self) -> Check {
        let Some(leader) = self.leader().filter(|_| self.faults_on) else { return Ok(()) };
        let election = self.settings.longest_election();
        let lasts = self.randoms.side.range(election / 2, 3 * election);
        let pause = Fault::Pause { victim: Target::Server(leader), machine: false, lasts };
        self.strike_from(Class::S15, pause)
    }

    /// A server sent an event: perhaps it does not arrive, nor anything behind it (S11).
    pub(super) fn after_event(&mut self, server: Node, link: LinkId) {
        if self.faults_on && self.swarm.has(Class::S11) && self.randoms.side.chance(CUT) {
            self.coverage.fault(Class::S11);
            self.reset_link(server, link);
        }
    }

    fn reset_link(&mut self, node: Node, link: LinkId) {
        if let Some(connection) = self.network.connection_of(node, link) {
            self.network.reset(self.now, connection, false);
            self.settle_network();
        }
    }

    fn strike_from(&mut self, class: Class, fault: Fault) -> Check {
        let mut random = Random::of(self.randoms.side.next());
        self.strike(class, fault, &mut random)
    }

    /// A server was just given its state by another: now that other may go (S2).
    pub(super) fn installed(&mut self) {
        self.coverage.mark(Mark::SnapshotInstalled, 1);
        if self.swarm.has(Class::S2) && self.randoms.side.chance(0.5) {
            let wait = self.randoms.side.exponential(20 * MILLISECOND);
            self.after(wait, Event::Mishap(Class::S2));
        }
    }

    /// The leader goes, if sessions are under way.
    pub(super) fn after_install(&mut self) -> Check {
        let Some(leader) = self.leader().filter(|_| self.faults_on) else { return Ok(()) };
        if self.model.open_sessions().next().is_none() {
            return Ok(());
        }
        let election = self.settings.longest_election();
        let down = self.randoms.side.range(election, 4 * election);
        let victim = Target::Server(leader);
        let crash = Fault::Crash { victim, loss: Loss::Process, silent: false, armed: false, down };
        self.strike_from(Class::S2, crash)
    }

    /// Before a user does something.
    pub(super) fn mishap(&mut self, number: usize) -> Check {
        if !self.faults_on || !self.randoms.side.chance(MISHAP) {
            return Ok(());
        }
        let election = self.settings.longest_election();
        let down = self.randoms.side.range(MILLISECOND, 2 * election);
        let (client, swarm) = (&self.clients[number], &self.swarm);
        if client.owns() >= MANY && swarm.has(Class::S19) {
            return self.lose_client(Class::S19, number, down);
        }
        if client.contender.waits() && swarm.has(Class::S20) {
            return self.lose_client(Class::S20, number, down);
        }
        if client.session().is_some() && client.comes_back() && swarm.has(Class::S10) {
            return self.lose_client(Class::S10, number, down / 4);
        }
        if let Some(server) = client.reads_from().filter(|_| swarm.has(Class::S16)) {
            let victim = Target::Server(server);
            let lasts = self.randoms.side.range(election / 4, 2 * election);
            let cut = Fault::Cut { shape: Shape::Deaf, victim, with_clients: false, lasts };
            return self.strike_from(Class::S16, cut);
        }
        if swarm.has(Class::S19) && client.outstanding() == 0 {
            let local = self.clients[number].clock.read(self.now);
            let (client, mut shared) = self.client_and_shared(number);
            client.hoard(local, MANY, &mut shared);
            return self.drain_client(number);
        }
        Ok(())
    }

    /// A client's process dies in the middle of something, and comes again.
    fn lose_client(&mut self, class: Class, number: usize, down: u64) -> Check {
        self.coverage.fault(class);
        self.stop_client(number);
        self.start_client_after(down, number);
        Ok(())
    }

    /// What kind of frame it is.
    pub(super) fn kind_of(frame: &Bytes) -> Option<u8> {
        frame.first().copied()
    }
}
