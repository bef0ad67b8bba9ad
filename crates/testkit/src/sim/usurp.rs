//! A leader goes while it ends a session (S9): the next one finds the expiry in its log and has to commit it, or must not.

use atomix_protocol::session::SessionEntry;
use atomix_protocol::{EntryKind, SessionId, WriteBatch};

use super::checker::Check;
use super::faults::{Class, Fault, Shape, Target};
use super::inject::Ending;
use super::loss::Loss;
use super::network::Node;
use super::world::{Event, World};

/// How often.
const PROBABILITY: f64 = 0.5;

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
        if !self.randoms.side.chance(PROBABILITY) {
            return;
        }
        self.coverage.fault(Class::S9);
        self.usurping = true;
        let election = self.settings.longest_election();
        let wait = self.randoms.side.exponential(2 * (self.settings.latency.0 + self.settings.latency.1));
        self.after(wait, Event::Usurp(server));
        self.wake_within(session, 2 * election);
    }

    /// A server leads. Behind an expiry all disks hang then: for a while it can't commit what it finds in its log.
    pub(super) fn usurped(&mut self) {
        if !self.faults_on || !std::mem::take(&mut self.usurping) {
            return;
        }
        let lasts = self.randoms.side.range(0, 3 * self.settings.longest_election());
        for server in 0..self.servers.len() {
            self.servers[server].hung += 1;
            self.end_later(lasts, Ending::Disk { server, hung: true });
        }
    }

    /// If the client of that session sleeps, it wakes up in the middle of it.
    fn wake_within(&mut self, session: SessionId, within: u64) {
        let sleeps = |ending: &Ending| match ending {
            Ending::PauseClient(client) => self.clients[*client].session() == Some(session),
            _ => false,
        };
        let pauses: Vec<u64> =
            self.active.iter().filter(|(_, ending)| sleeps(ending)).map(|(id, _)| *id).collect();
        let wait = self.randoms.side.below(within);
        for pause in pauses {
            self.after(wait, Event::End(pause));
        }
    }

    /// The leader is gone, or nobody hears it any more.
    pub(super) fn usurp(&mut self, server: Node) -> Check {
        if !self.faults_on {
            return Ok(());
        }
        let victim = Target::Server(server);
        let random = &mut self.randoms.side;
        let lasts = random.range(self.settings.longest_election(), 4 * self.settings.longest_election());
        let fault = if random.chance(0.7) {
            Fault::Crash { class: Class::P1, victim, loss: Loss::Process, silent: false, down: lasts }
        } else {
            Fault::Cut { class: Class::N3, shape: Shape::Isolate, victim, with_clients: false, lasts }
        };
        self.strike(fault)
    }
}
