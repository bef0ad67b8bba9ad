//! Bare consensus: its messages, which may be lost, doubled and late, and those who propose to it.

use atomix_protocol::codec::Frame;
use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{GroupId, ServerId};
use atomix_raft::Input as RaftInput;

use super::checker::{Broken, Check};
use super::faults::Class;
use super::frames::Parcel;
use super::network::Node;
use super::server::{Input, Machine};
use super::settings::Time;
use super::world::{Event, World};

impl World {
    pub(super) fn send_message(&mut self, from: Node, to: ServerId, message: PeerMessage) -> Check {
        self.checker.sent(from, Some(to), &message)?;
        self.check_message_bounds(from, &message)?;
        let (Some(sender), Some(node)) = (self.servers[from].id, self.node_of(to)) else { return Ok(()) };
        if self.network.is_blocked(from, node) {
            return Ok(());
        }
        let delay = self.network.delay() + self.network.extra(from, node);
        let bytes = Frame::Peer(message.clone()).encode(GroupId::DEFAULT);
        let epoch = self.servers[node].epoch;
        let parcel = Parcel { from, sender, to: node, receiver: to, bytes, epoch, late: false };
        if self.faults_on {
            self.repeat(&parcel, &message, delay);
        }
        let random = &mut self.randoms.message;
        if self.swarm.loss > 0.0 && random.chance(self.swarm.loss) && self.faults_on {
            self.coverage.fault(Class::N1);
            return Ok(());
        }
        self.after(delay, Event::Message(Box::new(parcel)));
        Ok(())
    }

    /// A message comes again: soon, or when terms have passed. Acknowledgements of another age, and words that begin
    /// campaigns, are the ones that could be believed.
    fn repeat(&mut self, parcel: &Parcel, message: &PeerMessage, delay: Time) {
        let rate = self.swarm.duplicates;
        let (class, rate, times, late) = match message {
            PeerMessage::PreVoteReply(_) if self.swarm.has(Class::N8) => (Class::N8, 0.5, 1, 0.8),
            PeerMessage::TimeoutNow(_) if self.swarm.has(Class::M16) => (Class::M16, 0.8, 2, 0.8),
            PeerMessage::AppendEntriesReply(_) => (Class::N2, rate, 3, 0.8),
            _ => (Class::N2, rate, 1, 0.2),
        };
        if rate == 0.0 || !self.randoms.message.chance(rate) {
            return;
        }
        let latest = 6 * self.settings.longest_election();
        for _ in 0..times {
            let random = &mut self.randoms.message;
            let late = random.chance(late);
            let later = if late { random.below(latest) } else { random.below(delay + 1) };
            self.coverage.fault(class);
            let parcel = Parcel { late, ..parcel.clone() };
            self.after(delay + later, Event::Message(Box::new(parcel)));
        }
    }

    /// The server that has an id now, if its process runs.
    pub(super) fn node_of(&self, id: ServerId) -> Option<Node> {
        self.servers
            .iter()
            .find(|server| server.raft().is_some_and(|raft| raft.server() == id))
            .map(|s| s.number)
    }

    pub(super) fn on_message(&mut self, parcel: Parcel) -> Check {
        let Parcel { from, sender, to, receiver, late, .. } = parcel;
        if late {
            self.deaf.remove(&to);
        } else if self.network.is_blocked(from, to) {
            return Ok(());
        }
        // Whoever has another id by now would have refused the handshake (I5).
        if self.servers[to].raft().is_none_or(|raft| raft.server() != receiver) {
            return Ok(());
        }
        // Who abstains believes what a leader says of its log: of a leader now, not of one that spoke to an earlier process, whose
        // links ended with it (D4).
        if self.checker.abstains(to) && self.servers[to].epoch != parcel.epoch {
            return Ok(());
        }
        if self.is_damaged(&parcel)? {
            return Ok(());
        }
        let message = match Frame::decode(&parcel.bytes) {
            Ok(Frame::Peer(message)) => message,
            other => {
                return Err(Broken { name: "X2", detail: format!("a sound frame is read as {other:?}") });
            }
        };
        self.note(from as u64);
        self.give(to, Input::Raft(RaftInput::Received { from: sender, message }))
    }

    pub(super) fn on_link(&mut self, at: Node, other: Node, up: bool) -> Check {
        let Some(other) = self.servers[other].id else { return Ok(()) };
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
