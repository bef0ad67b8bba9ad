//! Links: what each one is by now, and which frames may pass on it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, RefusalReason};
use atomix_protocol::{Address, BootNonce, GroupId, Incarnation, LinkId, LocalTime, ServerId};
use bytes::Bytes;

use crate::clients::ClientLink;
use crate::engine::Engine;
use crate::peers::PROBE_EVERY;
use crate::{Notice, Output};

/// Most links at a time.
pub(crate) const LINKS: usize = 10_000;
/// So many of them are never given to clients: a crowd of those must not keep the servers apart.
const LINKS_OF_SERVERS: usize = 64;

/// So many probes without an answer, and the link is taken for dead.
const PROBES_UNANSWERED: u32 = 3;

/// A server probes the links that it dialled more often than that: one that is silent for so long is dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where this server dialled to; `None` if it was accepted.
    pub(crate) dialed: Option<Address>,
    pub(crate) stage: Stage,
    /// Probes sent since something came.
    unanswered: u32,
    deadline: Option<LocalTime>,
}

impl Link {
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }
}

/// How far a link is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Dialled, and does not stand yet.
    Dialing,
    /// Stands; the other end's handshake is awaited.
    Greeting,
    /// The other end shows a server id that another live process shows too: which of them goes is being found out (I5).
    Contested(Hello),
    /// To a server with which there is no common cluster yet: only bootstrap passes.
    Forming(Hello),
    /// To a member of the cluster. Consensus passes from the end that dialled; back only from a server whose configuration is too
    /// old to say where this one is.
    Peer(PeerLink),
    /// From a client.
    Client(ClientLink),
}

/// A link to a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerLink {
    pub(crate) server: ServerId,
    /// The data directory that it showed. Invariant: no frame counts once a record of `server` names another (I14).
    pub(crate) incarnation: Incarnation,
    pub(crate) boot_nonce: BootNonce,
}

/// All links. Invariant: `deadlines` holds exactly the deadlines of the links in `map`.
#[derive(Debug, Default)]
pub(crate) struct Links {
    last: u64,
    map: BTreeMap<LinkId, Link>,
    deadlines: BTreeSet<(LocalTime, LinkId)>,
}

impl Links {
    pub(crate) fn next_id(&mut self) -> LinkId {
        self.last += 1;
        LinkId(self.last)
    }

    pub(crate) fn insert(&mut self, id: LinkId, dialed: Option<Address>, stage: Stage) {
        self.remove(id);
        self.map.insert(id, Link { dialed, stage, unanswered: 0, deadline: None });
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.map.remove(&id)?;
        if let Some(deadline) = link.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some(link)
    }

    pub(crate) fn link(&self, id: LinkId) -> Option<&Link> {
        self.map.get(&id)
    }

    pub(crate) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.map.get_mut(&id)
    }

    pub(crate) fn client_mut(&mut self, id: LinkId) -> Option<&mut ClientLink> {
        match self.map.get_mut(&id) {
            Some(Link { stage: Stage::Client(client), .. }) => Some(client),
            _ => None,
        }
    }

    pub(crate) fn peer(&self, id: LinkId) -> Option<PeerLink> {
        match self.map.get(&id) {
            Some(Link { stage: Stage::Peer(peer), .. }) => Some(*peer),
            _ => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.map.iter().map(|(id, link)| (*id, link))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.map.len() >= LINKS
    }

    /// Whether a link more than clients may have stands.
    pub(crate) fn is_crowded(&self) -> bool {
        self.map.len() > LINKS - LINKS_OF_SERVERS
    }

    /// What happens then depends on the link's stage.
    pub(crate) fn set_deadline(&mut self, id: LinkId, deadline: Option<LocalTime>) {
        let Some(link) = self.map.get_mut(&id) else { return };
        if let Some(old) = core::mem::replace(&mut link.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, id));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<LocalTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn take_due(&mut self, now: LocalTime) -> Option<LinkId> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.set_deadline(id, None);
        Some(id)
    }
}

impl Engine {
    /// A dialled link stands: this end speaks first.
    pub(crate) fn on_dialed(&mut self, now: LocalTime, id: LinkId) {
        let Some(link) = self.links.link_mut(id) else { return };
        if !matches!(link.stage, Stage::Dialing) {
            return;
        }
        link.stage = Stage::Greeting;
        self.links.set_deadline(id, Some(now + self.options.handshake_timeout));
        let hello = self.hello(atomix_protocol::handshake::Role::Peer);
        self.send(id, &Frame::Hello(hello));
    }

    /// Somebody connected: the other end speaks first.
    pub(crate) fn on_accepted(&mut self, now: LocalTime, id: LinkId) {
        if self.links.is_full() {
            self.push(Output::Send(id, refusal_frame(RefusalReason::Busy, "too many connections")));
            self.push(Output::Close(id));
            return;
        }
        // Nothing is said to anyone before the own incarnation is durable (I1): they will dial again.
        if self.is_fresh_directory() {
            self.push(Output::Close(id));
            return;
        }
        self.links.insert(id, None, Stage::Greeting);
        self.links.set_deadline(id, Some(now + self.options.handshake_timeout));
    }

    /// A frame arrived. Of frames that don't belong where they came from, the link dies, and nothing else.
    pub(crate) fn on_frame(&mut self, now: LocalTime, id: LinkId, bytes: &Bytes) {
        let Some(link) = self.links.link_mut(id) else { return };
        link.unanswered = 0;
        if matches!(link.stage, Stage::Greeting) {
            self.on_first_frame(now, id, bytes);
            return;
        }
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                self.reject(now, id, format!("a frame that can't be read: {error}"));
                return;
            }
        };
        if matches!(link.stage, Stage::Peer(_)) && self.is_impostor(id) {
            self.dismiss(now, id);
            return;
        }
        let Some(link) = self.links.link(id) else { return };
        let accepted = link.dialed.is_none();
        match (&link.stage, frame) {
            // Until it is decided which process stays, nothing of this one counts.
            (Stage::Contested(_) | Stage::Dialing, _) => {}
            (_, Frame::Ping(token)) => self.send(id, &Frame::Pong(token)),
            (_, Frame::Pong(token)) => self.on_pong(now, id, token),
            (Stage::Peer(peer), Frame::Peer(message)) => {
                let from = peer.server;
                self.consensus(now, atomix_raft::Input::Received { from, message });
            }
            (Stage::Peer(peer), Frame::Kinds(kinds)) if accepted => {
                let from = peer.server;
                self.on_kinds(now, id, from, kinds);
            }
            // Anybody can bring a link this far: only whom this server dialled itself, or knows, may send it away.
            (Stage::Peer(peer), Frame::Refusal(refusal))
                if !accepted || self.record(peer.server).is_some() =>
            {
                self.on_refusal(now, id, &refusal);
            }
            (Stage::Forming(_), Frame::Refusal(refusal)) if !accepted => self.on_refusal(now, id, &refusal),
            (Stage::Forming(_), Frame::Bootstrap(message)) => self.on_bootstrap(now, id, message),
            (Stage::Peer(_), Frame::Bootstrap(BootstrapMessage::Join(wish))) if accepted => {
                self.on_join(now, id, &wish);
            }
            (Stage::Client(_), Frame::Request(request)) => self.on_request(now, id, request),
            _ => self.reject(now, id, "a frame that does not belong on this link".into()),
        }
    }

    /// A link could not be dialled, or closed.
    pub(crate) fn on_closed(&mut self, now: LocalTime, id: LinkId) {
        let Some(link) = self.links.remove(id) else { return };
        if let Some(address) = &link.dialed {
            self.peers.lost(now, address, id, &mut self.random);
        }
        match link.stage {
            Stage::Peer(peer) => {
                self.levels.forget(peer.server, id);
                self.levels.stale = true;
                if self.peers.forget(peer.server, id) {
                    self.consensus(now, atomix_raft::Input::LinkClosed { from: peer.server });
                }
                self.settle_contests(now, peer.server);
            }
            Stage::Client(client) => {
                self.members.forget(id);
                self.on_client_gone(id, &client);
            }
            Stage::Contested(_) => self.peers.contests.retain(|_, contested| *contested != id),
            Stage::Dialing | Stage::Greeting | Stage::Forming(_) => {}
        }
    }

    pub(crate) fn on_link_deadline(&mut self, now: LocalTime, id: LinkId) {
        let Some(link) = self.links.link(id) else { return };
        let accepted = link.dialed.is_none();
        match &link.stage {
            Stage::Peer(_) | Stage::Forming(_) if accepted => self.watch(now, id),
            Stage::Greeting => self.reject(now, id, "no handshake in time".into()),
            Stage::Contested(_) => self.end_contest(now, id),
            Stage::Forming(_) => {
                if self.probe(now, id) {
                    self.speak_of_bootstrap(now, id);
                }
            }
            Stage::Peer(_) => {
                if self.probe(now, id) {
                    self.links.set_deadline(id, Some(now + PROBE_EVERY));
                }
            }
            Stage::Client(_) => self.on_attach_deadline(id),
            Stage::Dialing => {}
        }
    }

    /// Little but answers to probes comes back on a dialled link: without them a dead one would never be found out. Says whether
    /// the link goes on.
    fn probe(&mut self, now: LocalTime, id: LinkId) -> bool {
        let Some(link) = self.links.link_mut(id) else { return false };
        link.unanswered += 1;
        if link.unanswered > PROBES_UNANSWERED {
            self.give_up(now, id);
            return false;
        }
        let probe = self.peers.next_probe();
        self.send(id, &Frame::Ping(probe));
        true
    }

    /// The other end of an accepted link sends probes. Looked at now and then, so that a frame costs no change of a deadline.
    pub(crate) fn watch(&mut self, now: LocalTime, id: LinkId) {
        let Some(link) = self.links.link_mut(id) else { return };
        link.unanswered += 1;
        if link.unanswered > 1 {
            self.give_up(now, id);
        } else {
            self.links.set_deadline(id, Some(now + SILENCE));
        }
    }

    fn give_up(&mut self, now: LocalTime, id: LinkId) {
        self.notice(Notice::Refused { link: id, detail: "the other end is silent".into() });
        self.close(now, id);
    }

    pub(crate) fn send(&mut self, id: LinkId, frame: &Frame) {
        self.push(Output::Send(id, frame.encode(GroupId::DEFAULT)));
    }

    /// Closes a link from this end.
    pub(crate) fn close(&mut self, now: LocalTime, id: LinkId) {
        self.push(Output::Close(id));
        self.on_closed(now, id);
    }

    /// Closes a link whose other end broke the rules.
    pub(crate) fn reject(&mut self, now: LocalTime, id: LinkId, detail: String) {
        self.counters.frames_refused += 1;
        self.notice(Notice::Refused { link: id, detail });
        self.close(now, id);
    }
}

/// A refusal, as it travels.
pub(crate) fn refusal_frame(reason: RefusalReason, detail: &str) -> Bytes {
    let refusal = atomix_protocol::handshake::Refusal { reason, detail: detail.into() };
    Frame::Refusal(refusal).encode(GroupId::DEFAULT)
}
