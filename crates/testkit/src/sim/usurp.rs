//! A leader goes while it ends a session (S9): the next one finds the expiry in its log and has to commit it, or must not.

use atomix_protocol::session::SessionEntry;
use atomix_protocol::{EntryKind, SessionId, WriteBatch};

use super::checker::Check;
use super::faults::{Class, Fault, Shape, Target};
use super::inject::Ending;
use super::loss::Loss;
use super::network::Node;
use super::random::{Random, mix};
use super::world::{Event, World};

impl World {
    /// A server asks its disk to keep a batch. If it leads and ends a session with that, it may be the last thing that it does.
    pub(super) fn may_usurp(&mut self, server: Node, batch: &WriteBatch) {
        if !self.faults_on || !self.swarm.has(Class::S9) || self.leader() != Some(server) {
            return;
        }
        let expiry = |entry: &atomix_protocol::Entry| match SessionEntry::decode(&entry.payload) {
            Ok(SessionEntry::Expire(expire)) if entry.kind == EntryKind::Session => Some(expire.session),
            _ => None,
        };
        let Some(session) = batch.entries.iter().find_map(expiry) else { return };
        // Each expiry has a stream of its own: one more or less shifts no other.
        let mut random = Random::of(mix(mix(self.seed, Class::S9.key()), session.0));
        if !random.chance(self.swarm.rate(Class::S9)) {
            return;
        }
        self.coverage.fault(Class::S9);
        self.usurping = Some(random.next());
        let election = self.settings.longest_election();
        let wait = random.exponential(2 * (self.settings.latency.0 + self.settings.latency.1));
        self.after(wait, Event::Usurp(server, random.next()));
        let wait = random.below(2 * election);
        self.wake_after(session, wait);
    }

    /// A server leads. Behind an expiry all disks hang then: for a while it can't commit what it finds in its log.
    pub(super) fn usurped(&mut self) {
        let Some(seed) = self.usurping.take().filter(|_| self.faults_on) else { return };
        let lasts = Random::of(seed).range(0, 3 * self.settings.longest_election());
        for server in 0..self.servers.len() {
            self.servers[server].hung += 1;
            self.end_later(lasts, Ending::Disk { server, hung: true });
        }
    }

    /// If the client of that session sleeps, it wakes up in the middle of it.
    fn wake_after(&mut self, session: SessionId, wait: u64) {
        let sleeps = |ending: &Ending| match ending {
            Ending::PauseClient(client) => self.clients[*client].session() == Some(session),
            _ => false,
        };
        let pauses: Vec<u64> =
            self.active.iter().filter(|(_, ending)| sleeps(ending)).map(|(id, _)| *id).collect();
        for pause in pauses {
            self.after(wait, Event::End(pause));
        }
    }

    /// The leader is gone, or nobody hears it any more.
    pub(super) fn usurp(&mut self, server: Node, seed: u64) -> Check {
        if !self.faults_on {
            return Ok(());
        }
        let victim = Target::Server(server);
        let mut random = Random::of(seed);
        let lasts = random.range(self.settings.longest_election(), 4 * self.settings.longest_election());
        if random.chance(0.7) {
            let fault =
                Fault::Crash { victim, loss: Loss::Process, silent: false, armed: false, down: lasts };
            return self.strike(Class::P1, fault, &mut random);
        }
        let fault = Fault::Cut { shape: Shape::Isolate, victim, with_clients: false, lasts };
        self.strike(Class::N3, fault, &mut random)
    }
}
