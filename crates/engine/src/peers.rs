//! The other servers: where they are, over which links they are reached, when to dial again.

use core::time::Duration;
use std::collections::BTreeMap;

use atomix_protocol::codec::Frame;
use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{Address, Configuration, Incarnation, LinkId, LocalTime, ServerId};
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
    /// The member that should answer there; `None` for an address that is only listed.
    server: Option<ServerId>,
    link: Option<LinkId>,
    /// When to dial; `None` while there is a link, and when there is no need any more.
    next_dial: Option<LocalTime>,
    backoff: Duration,
    stands_since: Option<LocalTime>,
    /// A server of another cluster answered there last.
    foreign: bool,
    /// A server of this cluster answered there once.
    own: bool,
    /// What an empty server said of itself on the link that stands now (I2).
    pub(crate) empty: Option<Incarnation>,
}

/// The other servers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) targets: BTreeMap<Address, Target>,
    /// Links that this server dialled: on these it speaks.
    pub(crate) outgoing: BTreeMap<ServerId, LinkId>,
    /// Links that the others dialled: on these it listens.
    pub(crate) incoming: BTreeMap<ServerId, LinkId>,
    /// Handshakes that wait for the answer to a probe.
    pub(crate) contests: BTreeMap<u64, LinkId>,
    probes: u64,
}

impl Peers {
    /// Dials what is listed and what the configuration names, and nothing else.
    pub(crate) fn aim(
        &mut self,
        now: LocalTime,
        options: &Options,
        configuration: Option<&Configuration>,
        own: Option<ServerId>,
    ) {
        let mut wanted: BTreeMap<Address, Option<ServerId>> =
            options.bootstrap.iter().map(|address| (address.clone(), None)).collect();
        let mut here = vec![options.address.clone()];
        for member in configuration.iter().flat_map(|configuration| &configuration.members) {
            if Some(member.id) == own {
                here.push(member.peer_address.clone());
            } else {
                wanted.insert(member.peer_address.clone(), Some(member.id));
            }
        }
        for address in &here {
            wanted.remove(address);
        }
        self.targets.retain(|address, _| wanted.contains_key(address));
        for (address, server) in wanted {
            let target = self.targets.entry(address).or_insert(Target {
                server,
                link: None,
                next_dial: Some(now),
                backoff: BACKOFF,
                stands_since: None,
                foreign: false,
                own: false,
                empty: None,
            });
            target.server = server;
            if target.link.is_none() {
                target.next_dial = Some(now);
                target.backoff = BACKOFF;
            }
        }
    }

    pub(crate) fn server_at(&self, address: &Address) -> Option<ServerId> {
        self.targets.get(address)?.server
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

    /// A member answered at a dialled address. Says whether the link is of use: an address that is only listed is not dialled again.
    pub(crate) fn met_member(&mut self, address: &Address, now: LocalTime) -> bool {
        let Some(target) = self.targets.get_mut(address) else { return false };
        target.own = true;
        target.foreign = false;
        target.stands_since = Some(now);
        if target.server.is_none() {
            target.link = None;
            target.next_dial = None;
        }
        target.server.is_some()
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
            targets.filter(|(address, _)| options.bootstrap.contains(address)).map(|(_, target)| target)
        };
        let foreign = others().filter(|target| target.foreign).count();
        foreign * 2 > others().count() && !others().any(|target| target.own)
    }

    /// Listed addresses at which another cluster answers.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Address> {
        self.targets.iter().filter(|(_, target)| target.foreign).map(|(address, _)| address)
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
    /// Aims at the servers of the list and of the configuration in use.
    pub(crate) fn aim(&mut self, now: LocalTime) {
        let configuration = self.configuration().cloned();
        let own = self.server();
        self.peers.aim(now, &self.options, configuration.as_ref(), own);
    }

    pub(crate) fn dial_due(&mut self, now: LocalTime) {
        while let Some((address, target)) = self.peers.take_due(now) {
            let link = self.links.next_id();
            target.link = Some(link);
            self.links.insert(link, Some(address.clone()), Stage::Dialing);
            self.push(Output::Dial(link, address));
        }
    }

    /// Consensus repeats what matters, so a message to a server that is not reached now is dropped.
    pub(crate) fn send_to(&mut self, to: ServerId, message: PeerMessage) {
        if let Some(link) = self.peers.outgoing.get(&to).copied() {
            self.send(link, &Frame::Peer(message));
        }
    }
}
