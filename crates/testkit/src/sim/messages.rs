//! Bare consensus: its messages, which may be lost, doubled and late, and those who propose to it.

use atomix_protocol::peer::PeerMessage;
use atomix_raft::Input as RaftInput;

use super::checker::{Check, id_of};
use super::faults::Class;
use super::network::Node;
use super::server::{Input, Machine};
use super::settings::Time;
use super::world::{Event, World};

impl World {
    pub(super) fn send_message(
        &mut self,
        from: Node,
        to: atomix_protocol::ServerId,
        message: PeerMessage,
    ) -> Check {
        let to = (to.0 as usize).saturating_sub(1);
        self.checker.sent(from, to, &message)?;
        if to >= self.servers.len() || self.network.is_blocked(from, to) {
            return Ok(());
        }
        let delay = self.network.delay();
        let random = &mut self.randoms.message;
        if self.swarm.duplicates > 0.0 && random.chance(self.swarm.duplicates) && self.faults_on {
            self.duplicate(from, to, &message, delay);
        }
        let random = &mut self.randoms.message;
        if self.swarm.loss > 0.0 && random.chance(self.swarm.loss) && self.faults_on {
            self.coverage.fault(Class::N1);
            return Ok(());
        }
        self.after(delay, Event::Message { from, to, message: Box::new(message), late: false });
        Ok(())
    }

    /// A message comes again: soon, or when terms have passed. Acknowledgements of another age are the ones that could be believed.
    fn duplicate(&mut self, from: Node, to: Node, message: &PeerMessage, delay: Time) {
        let is_answer = matches!(message, PeerMessage::AppendEntriesReply(_));
        let latest = 6 * self.settings.longest_election();
        for _ in 0..if is_answer { 3 } else { 1 } {
            let random = &mut self.randoms.message;
            let late = random.chance(if is_answer { 0.8 } else { 0.2 });
            let later = if late { random.below(latest) } else { random.below(delay + 1) };
            self.coverage.fault(Class::N2);
            let message = Box::new(message.clone());
            self.after(delay + later, Event::Message { from, to, message, late });
        }
    }

    pub(super) fn on_message(&mut self, from: Node, to: Node, message: PeerMessage, late: bool) -> Check {
        if late {
            self.deaf.remove(&to);
        } else if self.network.is_blocked(from, to) {
            return Ok(());
        }
        self.note(from as u64);
        self.give(to, Input::Raft(RaftInput::Received { from: id_of(from), message }))
    }

    pub(super) fn on_link(&mut self, at: Node, other: Node, up: bool) -> Check {
        let other = id_of(other);
        let input =
            if up { RaftInput::LinkOpened { to: other } } else { RaftInput::LinkClosed { from: other } };
        self.give(at, Input::Raft(input))
    }

    pub(super) fn on_propose(&mut self) -> Check {
        let random = &mut self.proposals.random;
        // Now and then nobody wants anything for a few elections.
        let pause = random.chance(0.03);
        let mean = if pause { 3 * self.settings.longest_election() } else { self.settings.think };
        let wait: Time = random.exponential(mean) + 1;
        let any = random.below(self.servers.len() as u64) as usize;
        let leader = random.chance(0.8);
        let burst = random.below(self.settings.burst) + 1;
        self.after(wait, Event::Propose);
        let server = if leader { self.leader().unwrap_or(any) } else { any };
        self.propose(server, burst)
    }

    /// Proposes to a server, whatever it is, or asks it for reads.
    pub(super) fn propose(&mut self, server: Node, count: u64) -> Check {
        if self.quiet || !self.servers[server].is_running() {
            return Ok(());
        }
        let local = self.servers[server].clock.read(self.now);
        for _ in 0..count {
            let number = self.proposals.number();
            let bytes = self.proposals.random.below(self.settings.value_bytes) as usize;
            let is_read = self.proposals.random.chance(0.3);
            let Some(process) = self.servers[server].process.as_mut() else { return Ok(()) };
            let Machine::Core(bare) = &mut process.machine else { return Ok(()) };
            if is_read {
                if bare.read(local, number) {
                    self.proposals.asked(number);
                }
            } else {
                bare.propose(local, number, bytes);
            }
        }
        self.step(server)
    }
}
