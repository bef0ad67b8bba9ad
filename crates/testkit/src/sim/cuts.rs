//! Links that are cut, stalled, slow or broken; and who hears nobody.

use super::Profile;
use super::checker::{Check, hold, id_of};
use super::faults::{Class, Fault, Shape, Target, cut_links};
use super::inject::Ending;
use super::network::Node;
use super::random::Random;
use super::settings::{MILLISECOND, Time};
use super::world::{Event, World};

impl World {
    pub(super) fn cut(
        &mut self,
        class: Class,
        shape: Shape,
        victim: Target,
        with_clients: bool,
        lasts: Time,
        random: &mut Random,
    ) {
        let servers = self.servers.len();
        let victim = self.victim(victim);
        let mut pairs = cut_links(shape, servers, victim, random);
        if with_clients && matches!(shape, Shape::Isolate | Shape::Mute | Shape::Deaf) {
            for node in servers..servers + self.clients.len() {
                pairs.extend((!matches!(shape, Shape::Deaf)).then_some((victim, node)));
                pairs.extend((!matches!(shape, Shape::Mute)).then_some((node, victim)));
            }
        }
        if pairs.is_empty() {
            return;
        }
        if self.profile == Profile::Full && !with_clients {
            self.take_clients_along(victim, &mut pairs, random);
        }
        self.coverage.fault(class);
        if matches!(shape, Shape::Moving) {
            let companion = (0..servers).find(|other| *other != victim && !pairs.contains(&(victim, *other)));
            if let Some(victim) = companion {
                self.end_later(lasts, Ending::Move { victim, lasts, seed: random.next() });
            }
            // What the old leader still gets in is more than the new one will at first.
            if self.profile == Profile::Core {
                for n in 0..6 {
                    self.after((1 + 8 * n) * MILLISECOND, Event::Burst(victim));
                }
            }
        }
        self.block(pairs, lasts, random);
    }

    /// Some clients are on the victim's side of a cut: they see it, and none of those that it does not see.
    fn take_clients_along(&self, victim: Node, pairs: &mut Vec<(Node, Node)>, random: &mut Random) {
        let servers = self.servers.len();
        let beyond: Vec<Node> = (0..servers).filter(|other| pairs.contains(&(victim, *other))).collect();
        for node in servers..servers + self.settings.clients {
            if random.chance(0.4) {
                pairs.extend(beyond.iter().flat_map(|server| [(*server, node), (node, *server)]));
            }
        }
    }

    /// A partition moves: its companion is cut off alone, and whoever leads the rest falls asleep.
    pub(super) fn move_cut(&mut self, victim: Node, lasts: Time, seed: u64) -> Check {
        if !self.faults_on {
            return Ok(());
        }
        let mut random = Random::of(seed);
        let victim = Target::Server(victim);
        let cut = Fault::Cut { shape: Shape::Isolate, victim, with_clients: false, lasts: 2 * lasts };
        self.strike(Class::N3, cut, &mut random)?;
        let wait = random.below(self.settings.longest_election());
        self.end_later(wait, Ending::Sleep { lasts, seed: random.next() });
        Ok(())
    }

    pub(super) fn put_to_sleep(&mut self, lasts: Time, seed: u64) -> Check {
        match self.leader().filter(|_| self.faults_on) {
            Some(leader) => {
                let pause = Fault::Pause { victim: Target::Server(leader), machine: false, lasts };
                self.strike(Class::P3, pause, &mut Random::of(seed))
            }
            None => Ok(()),
        }
    }

    pub(super) fn clog(&mut self, victim: Target, lasts: Time, random: &mut Random) {
        let from = self.victim(victim);
        let to = random.below(self.servers.len() as u64) as usize;
        if from != to {
            self.coverage.fault(Class::N10);
            self.block(vec![(from, to)], lasts, random);
        }
    }

    fn block(&mut self, pairs: Vec<(Node, Node)>, lasts: Time, random: &mut Random) {
        for (from, to) in &pairs {
            self.network.block(*from, *to);
            // Some of those who are cut off learn of it before it is over.
            if self.profile == Profile::Core && random.chance(0.3) {
                let wait = random.below(lasts);
                self.after(wait, Event::Link { at: *to, other: *from, up: false });
            }
        }
        self.look_for_deaf();
        self.end_later(lasts, Ending::Cut(pairs));
    }

    pub(super) fn reset(&mut self, victim: Target, half_open: bool, random: &mut Random) {
        let server = self.victim(victim);
        if self.profile == Profile::Full {
            let broken = self.reset_node(server, half_open, Some(random));
            self.coverage.faults_of(Class::N9, u64::from(broken > 0));
            return;
        }
        let other = random.below(self.servers.len() as u64) as usize;
        if other != server {
            let both = [server, other].into_iter().all(|node| self.servers[node].process.is_some());
            self.coverage.faults_of(Class::N9, u64::from(both));
            self.after(0, Event::Link { at: other, other: server, up: false });
            if !half_open {
                self.after(0, Event::Link { at: server, other, up: false });
            }
            for (at, other) in [(other, server), (server, other)] {
                let wait = random.range(1, 50) * MILLISECOND;
                self.after(wait, Event::Link { at, other, up: true });
            }
        }
    }

    /// Breaks all connections of a node, or those that are drawn. How many.
    pub(super) fn reset_node(&mut self, node: Node, half_open: bool, mut some: Option<&mut Random>) -> usize {
        let mut broken = 0;
        for connection in self.network.connections_of(node) {
            if some.as_mut().is_none_or(|random| random.chance(0.5)) {
                self.network.reset(self.now, connection, half_open);
                broken += 1;
            }
        }
        self.settle_network();
        broken
    }

    /// Remembers which running servers hear nobody from now on.
    pub(super) fn look_for_deaf(&mut self) {
        let servers = self.servers.len();
        for server in 0..servers {
            let hears = (0..servers).any(|other| other != server && !self.network.is_blocked(other, server));
            let at = &self.servers[server];
            match at.raft().filter(|_| !hears && !self.decides_alone(server) && at.is_running()) {
                Some(raft) => {
                    self.deaf.entry(server).or_insert((self.now, raft.term().0, at.epoch));
                }
                None => {
                    self.deaf.remove(&server);
                }
            }
        }
    }

    /// L7: who hears nobody does not raise its term, and does not go on leading.
    pub(super) fn check_deaf(&mut self) -> Check {
        let patience = 3 * self.settings.longest_election();
        for (server, (since, term, epoch)) in std::mem::take(&mut self.deaf) {
            let at = &self.servers[server];
            let Some(raft) = at.raft().filter(|_| at.epoch == epoch && at.is_running()) else { continue };
            let now = raft.term().0;
            // What had arrived before may still count once.
            hold("L7", now <= term + 2, || {
                format!(
                    "server {} heard nobody since {since} us, and went from term {term} to {now}",
                    id_of(server)
                )
            })?;
            let leads = raft.role() == atomix_raft::Role::Leader && !self.decides_alone(server);
            hold("L7", !leads || self.now - since < patience, || {
                format!("server {} heard nobody since {since} us, and still leads term {now}", id_of(server))
            })?;
        }
        Ok(())
    }

    /// A server's links are slow both ways.
    pub(super) fn slow_down(&mut self, class: Class, victim: Target, extra: Time, lasts: Time) {
        // A leader with slow links is soon none: it is a follower that has to fall behind.
        let (Target::Server(server) | Target::Leader(server)) = victim;
        let server = server % self.servers.len();
        self.network.slow(server, Some(extra));
        self.end_later(lasts, Ending::Slow { class, server });
    }
}
