//! Frames as bytes: what arrives damaged, cut or glued is refused, and its link goes (X2).
//!
//! What a transport's checksum finds is not here: for the ends of a link that is a reset. Damage that no reader
//! could tell from another sound frame is not delivered either; keeping it away is the checksum's work, not the
//! codec's.

use atomix_protocol::ServerId;
use atomix_protocol::codec::Frame;
use bytes::{BufMut, Bytes, BytesMut};

use super::checker::{Check, hold};
use super::coverage::Mark;
use super::faults::Class;
use super::network::{Node, Told};
use super::random::Random;
use super::settings::MILLISECOND;
use super::world::{Event, World};

/// How often a frame is damaged where that may happen.
const PROBABILITY: f64 = 0.001;

/// A message of bare consensus on its way.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) from: Node,
    /// Who the sender was when it was sent, and whom it meant.
    pub(super) sender: ServerId,
    pub(super) to: Node,
    pub(super) receiver: ServerId,
    pub(super) bytes: Bytes,
    /// The receiver's process when it was sent.
    pub(super) epoch: u32,
    /// Beyond any cut long ago.
    pub(super) late: bool,
}

impl World {
    /// Whether a message of bare consensus arrives damaged: then it is lost, and with it the link on which it came.
    pub(super) fn is_damaged(&mut self, parcel: &Parcel) -> Result<bool, super::checker::Broken> {
        if !self.may_damage() || damaged(&mut self.randoms.frames, &parcel.bytes).is_none() {
            return Ok(false);
        }
        self.coverage.fault(Class::X2);
        self.coverage.mark(Mark::DamageRefused, 1);
        let Parcel { from, to, .. } = *parcel;
        self.after(0, Event::Link { at: to, other: from, up: false });
        for (at, other) in [(from, to), (to, from)] {
            let wait = self.randoms.frames.range(1, 50) * MILLISECOND;
            self.after(wait, Event::Link { at, other, up: true });
        }
        Ok(true)
    }

    fn may_damage(&mut self) -> bool {
        self.faults_on && self.swarm.has(Class::X2) && self.randoms.frames.chance(PROBABILITY)
    }

    /// A frame arrives at a whole server or a client, perhaps damaged. Whoever reads it has to give up the link.
    pub(super) fn deliver(&mut self, node: Node, told: Told) -> Check {
        let mut broken = None;
        let told = match told {
            Told::Frame(link, frame) if self.may_damage() => {
                match damaged(&mut self.randoms.frames, &frame) {
                    Some(damaged) => {
                        broken = Some(link);
                        self.trace
                            .change(self.now, || format!("damaged on its way to node {node}, link {link}"));
                        Told::Frame(link, damaged)
                    }
                    None => Told::Frame(link, frame),
                }
            }
            other => other,
        };
        if node == self.console_node() {
            return self.tell_console(told);
        }
        if node > self.console_node() {
            return self.tell_impostor(told);
        }
        if node >= self.servers.len() {
            let client = node - self.servers.len();
            self.tell_client(client, told)?;
            if let Some(link) = broken.filter(|_| self.clients[client].paused == 0) {
                self.expect_given_up(node, link)?;
            }
            return Ok(());
        }
        self.tell_server(node, told)?;
        match broken.filter(|_| self.servers[node].inbox.is_empty()) {
            Some(link) => self.expect_given_up(node, link),
            None => Ok(()),
        }
    }

    fn expect_given_up(&mut self, node: Node, link: atomix_protocol::LinkId) -> Check {
        self.coverage.fault(Class::X2);
        self.coverage.mark(Mark::DamageRefused, 1);
        hold("X2", self.network.other_end(node, link).is_none(), || {
            format!("node {node} was sent a damaged frame on link {link}, and goes on with it")
        })
    }
}

/// The bytes as damage leaves them, if a reader can tell.
fn damaged(random: &mut Random, bytes: &Bytes) -> Option<Bytes> {
    let mut damaged = BytesMut::from(&bytes[..]);
    match random.below(4) {
        // Cut.
        0 => damaged.truncate(random.below(bytes.len() as u64) as usize),
        // Glued to itself.
        1 => damaged.put_slice(bytes),
        // A byte more than there was.
        2 => damaged.put_u8(random.next() as u8),
        _ => {
            // Somewhere in what says what it is.
            let at = random.below((bytes.len() as u64).min(24)) as usize;
            if let Some(byte) = damaged.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
    let damaged = damaged.freeze();
    Frame::decode(&damaged).is_err().then_some(damaged)
}

#[cfg(test)]
mod tests {
    use atomix_protocol::GroupId;

    use super::super::random::Component;
    use super::*;

    #[test]
    fn damage_is_always_such_as_can_be_told() {
        let mut random = Random::stream(1, Component::Frames, 0);
        let frame = Frame::Ping(77).encode(GroupId::DEFAULT);
        let all: Vec<Bytes> = (0..200).filter_map(|_| damaged(&mut random, &frame)).collect();
        assert!(all.len() > 100 && all.iter().all(|bytes| Frame::decode(bytes).is_err()));
        assert!(all.iter().any(|bytes| bytes.len() < frame.len()));
        assert!(all.iter().any(|bytes| bytes.len() == 2 * frame.len()));
        assert!(all.iter().any(|bytes| bytes.len() == frame.len()));
    }
}
