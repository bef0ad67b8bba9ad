//! The other servers: where they are, over which links they are reached, when to dial again.

use core::time::Duration;
use std::collections::BTreeMap;

use atomix_protocol::codec::Frame;
use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{Address, Incarnation, LinkId, LocalTime, ServerId};
use rand::Rng;

use crate::engine::Engine;
use crate::links::Stage;
use crate::{Options, Output};

/// First pause before dialling again.
const BACKOFF: Duration = Duration::from_millis(10);
/// Longest pause before dialling again.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A link that stood that long was no failure: the pause begins small again.
const STOOD: Duration = Duration::from_secs(1);
/// Between two probes of a dialled link.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(1);

/// An address that this server dials.
#[derive(Debug)]
pub(crate) struct Target {
    /// Whether a member should answer there, and not only a listed server.
    member: bool,
    link: Option<LinkId>,
    /// When to dial; `None` while there is a link, and when there is no need any more.
    next_dial: Option<LocalTime>,
    backoff: Duration,
    stands_since: Option<LocalTime>,
    /// A server of another cluster answered there last.
    foreign: bool,
    /// A server of this cluster answered there once.
    own: bool,
    /// Why the one who answers there says that this server is no member.
    refused: Option<String>,
    /// What an empty server said of itself on the link that stands now (I2).
    pub(crate) empty: Option<Incarnation>,
}

/// The other servers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) targets: BTreeMap<Address, Target>,
    /// Links that this server dialled: on these it speaks. Those that do not know where it is answer there.
    pub(crate) outgoing: BTreeMap<ServerId, LinkId>,
    /// Links that the others dialled: on these it listens.
    pub(crate) incoming: BTreeMap<ServerId, LinkId>,
    /// Handshakes that wait for the answer to a probe.
    pub(crate) contests: BTreeMap<u64, LinkId>,
    probes: u64,
}

impl Peers {
    /// Dials these addresses, and no others. Says of each whether a member should answer there.
    pub(crate) fn aim(&mut self, now: LocalTime, wanted: BTreeMap<Address, bool>) {
        self.targets.retain(|address, _| wanted.contains_key(address));
        for (address, member) in wanted {
            let target = self.targets.entry(address).or_insert(Target {
                member,
                link: None,
                next_dial: Some(now),
                backoff: BACKOFF,
                stands_since: None,
                foreign: false,
                own: false,
                refused: None,
                empty: None,
            });
            target.member = member;
            if target.link.is_none() {
                target.next_dial = Some(now);
                target.backoff = BACKOFF;
            }
        }
    }

    pub(crate) fn expects_member(&self, address: &Address) -> bool {
        self.targets.get(address).is_some_and(|target| target.member)
    }

    pub(crate) fn links_of(&self, server: ServerId) -> Vec<LinkId> {
        [&self.outgoing, &self.incoming].into_iter().filter_map(|links| links.get(&server).copied()).collect()
    }

    pub(crate) fn next_probe(&mut self) -> u64 {
        self.probes += 1;
        self.probes
    }

    /// A dialled link's handshake is done.
    pub(crate) fn stands(&mut self, address: &Address, now: LocalTime) {
        if let Some(target) = self.targets.get_mut(address) {
            target.stands_since = Some(now);
        }
    }

    /// A server of this cluster answered at a dialled address. Says whether a member is expected there: an address that is only
    /// listed is not dialled again.
    pub(crate) fn met_member(&mut self, address: &Address, now: LocalTime) -> bool {
        let Some(target) = self.targets.get_mut(address) else { return false };
        target.own = true;
        target.foreign = false;
        target.refused = None;
        target.stands_since = Some(now);
        if !target.member {
            target.link = None;
            target.next_dial = None;
        }
        target.member
    }

    pub(crate) fn met_foreign(&mut self, address: &Address) {
        if let Some(target) = self.targets.get_mut(address) {
            target.foreign = true;
        }
    }

    /// Whether most of the other listed servers belong to another cluster, and none to this one.
    pub(crate) fn is_misplaced(&self, options: &Options) -> bool {
        let others = || {
            let targets = self.targets.iter();
            let listed = |address| options.bootstrap.contains(address) || options.join.contains(address);
            targets.filter(move |(address, _)| listed(address)).map(|(_, target)| target)
        };
        let foreign = others().filter(|target| target.foreign).count();
        foreign * 2 > others().count() && !others().any(|target| target.own)
    }

    /// Listed addresses at which another cluster answers.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Address> {
        self.targets.iter().filter(|(_, target)| target.foreign).map(|(address, _)| address)
    }

    /// The server there says that this one is no member.
    pub(crate) fn refused(&mut self, address: &Address, detail: &str) {
        if let Some(target) = self.targets.get_mut(address) {
            target.refused = Some(detail.into());
        }
    }

    /// Those who say that this server is no member, and why.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&Address, &str)> {
        self.targets.iter().filter_map(|(address, target)| Some((address, target.refused.as_deref()?)))
    }

    /// Whoever answers there will not change his mind soon.
    pub(crate) fn slow_down(&mut self, address: &Address) {
        if let Some(target) = self.targets.get_mut(address) {
            target.backoff = BACKOFF_MAX;
            target.stands_since = None;
        }
    }

    /// A dialled link is gone: the next attempt comes after a pause that grows, with jitter.
    pub(crate) fn lost(&mut self, now: LocalTime, address: &Address, link: LinkId, random: &mut impl Rng) {
        let Some(target) = self.targets.get_mut(address).filter(|target| target.link == Some(link)) else {
            return;
        };
        target.link = None;
        target.empty = None;
        if target.stands_since.take().is_some_and(|since| now.since(since) >= STOOD) {
            target.backoff = BACKOFF;
        }
        let half = u64::try_from(target.backoff.as_micros()).unwrap_or(u64::MAX) / 2;
        let pause = Duration::from_micros(half + random.next_u64() % (half + 1));
        target.next_dial = Some(now + pause);
        target.backoff = (target.backoff * 2).min(BACKOFF_MAX);
    }

    /// A link to or from a member is gone. Says whether it was the one that carried its messages here.
    pub(crate) fn forget(&mut self, server: ServerId, link: LinkId) -> bool {
        if self.outgoing.get(&server) == Some(&link) {
            self.outgoing.remove(&server);
        }
        if self.incoming.get(&server) == Some(&link) {
            self.incoming.remove(&server);
            return true;
        }
        false
    }

    pub(crate) fn next_dial(&self) -> Option<LocalTime> {
        self.targets.values().filter_map(|target| target.next_dial).min()
    }

    fn take_due(&mut self, now: LocalTime) -> Option<(Address, &mut Target)> {
        let (address, target) =
            self.targets.iter_mut().find(|(_, target)| target.next_dial.is_some_and(|at| at <= now))?;
        target.next_dial = None;
        Some((address.clone(), target))
    }
}

impl Engine {
    pub(crate) fn dial_due(&mut self, now: LocalTime) {
        while let Some((address, target)) = self.peers.take_due(now) {
            let link = self.links.next_id();
            target.link = Some(link);
            self.links.insert(link, Some(address.clone()), Stage::Dialing);
            self.push(Output::Dial(link, address));
        }
    }

    /// Consensus repeats what matters, so a message to a server that is not reached now is dropped. Where a member is that this
    /// server's configuration is too old to name it does not know: it is answered where it asks, or it might never be elected.
    pub(crate) fn send_to(&mut self, to: ServerId, message: PeerMessage) {
        let unknown = self.record(to).is_none();
        let asking = || self.peers.incoming.get(&to).filter(|_| unknown);
        if let Some(link) = self.peers.outgoing.get(&to).or_else(asking).copied() {
            self.send(link, &Frame::Peer(message));
        }
    }
}
