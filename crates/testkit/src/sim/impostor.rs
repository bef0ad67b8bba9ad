//! An impostor: a node that shows whole servers an identity that is not its own, and then says what it should not.
//!
//! It passes for a member that is down (X3), for one that lives (O2: it shows that one's identity, and hangs up if it is let in), for a server of another cluster at a
//! member's address and on its own account (N12), or is a client that talks nonsense.

use atomix_protocol::change::Change;
use atomix_protocol::client::{
    Attach, ClientRequest, Consistency, KeepAlive, Manage, ManageAction, QueryHeader,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{FEATURE_LEVEL, Hello, MAGIC, RefusalReason, Role, VERSIONS};
use atomix_protocol::{
    BootNonce, ClusterId, GroupId, Index, LinkId, Member, Sequence, ServerId, SessionId, SessionKey,
};
use bytes::Bytes;

use super::checker::{Check, hold};
use super::coverage::Mark as Met;
use super::faults::Class;
use super::hostile::{Mark, absurd};
use super::network::{Node, Told};
use super::random::Random;
use super::rivals::Rival;
use super::world::World;

/// Frames that servers say to each other about consensus.
const CONSENSUS: std::ops::RangeInclusive<u8> = 16..=31;
/// Most frames of one visit.
const WORDS: u64 = 8;

/// Whom it passes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guise {
    /// A member that is down.
    Absent,
    /// A member that lives.
    Double,
    /// A server of another cluster with a member's id.
    Foreign,
    /// A client.
    Client,
}

/// One link at a time.
#[derive(Debug, Default)]
pub(super) struct Impostor {
    links: u64,
    at: Option<Visit>,
}

#[derive(Clone, Copy, Debug)]
struct Visit {
    link: LinkId,
    guise: Guise,
    hello: Option<ServerId>,
    server: Node,
    /// Who dialled was deceived about whom it dials.
    called: bool,
    /// The member that it passes for, while that one can show that it lives.
    rival: Option<Rival>,
}

impl Impostor {
    /// A visit at a server as a member that lives, and can show it.
    pub(super) fn rival_at(&self, server: Node) -> Option<(LinkId, Rival)> {
        let visit = self.at.filter(|visit| visit.server == server)?;
        visit.rival.map(|rival| (visit.link, rival))
    }

    /// It could not, for a while at least.
    pub(super) fn forget_rival(&mut self) {
        if let Some(visit) = &mut self.at {
            visit.rival = None;
        }
    }
}

impl World {
    pub(super) fn impostor_node(&self) -> Node {
        self.console_node() + 1
    }

    fn leave(&mut self) {
        if let Some(visit) = self.impostor.at.take() {
            self.network.close(self.now, self.impostor_node(), visit.link);
        }
    }

    /// All is healed: nobody deceives anybody any more.
    pub(super) fn end_impostor(&mut self) {
        let node = self.impostor_node();
        self.impostor.at = None;
        self.network.gone(self.now, node, false);
        self.settle_network();
    }

    /// Somebody who passes for a member dials one.
    pub(super) fn send_impostor(&mut self) -> Check {
        self.leave();
        let up: Vec<Node> = self.servers.iter().filter(|s| s.is_running()).map(|s| s.number).collect();
        let Some(server) = self.randoms.hostile.pick(&up) else { return Ok(()) };
        let mut guises = Vec::new();
        for (class, guise) in [
            (Class::X3, Guise::Absent),
            (Class::X3, Guise::Client),
            (Class::O2, Guise::Double),
            (Class::N12, Guise::Foreign),
        ] {
            guises.extend(self.swarm.has(class).then_some(guise));
        }
        let Some(guise) = self.randoms.hostile.pick(&guises) else { return Ok(()) };
        let id = match guise {
            Guise::Client => None,
            Guise::Absent => {
                let absent: Vec<ServerId> = self.absent().into_iter().map(|(_, id)| id).collect();
                match self.randoms.hostile.pick(&absent) {
                    Some(id) => Some(id),
                    None => return Ok(()),
                }
            }
            Guise::Double | Guise::Foreign => {
                let other = up.iter().copied().filter(|other| *other != server).collect::<Vec<_>>();
                match self.randoms.hostile.pick(&other).and_then(|other| self.servers[other].id) {
                    Some(id) => Some(id),
                    None => return Ok(()),
                }
            }
        };
        self.impostor.links += 1;
        let link = LinkId(self.impostor.links);
        self.impostor.at = Some(Visit { link, guise, hello: id, server, called: false, rival: None });
        self.network.dial(self.now, self.impostor_node(), link, server);
        self.settle_network();
        Ok(())
    }

    /// Whether a link to a member that is down ends at somebody else (N12).
    pub(super) fn is_deceived(&mut self, to: Node) -> bool {
        // Always the same address: a server that met strangers at most of them would rightly stop.
        let place = self.settings.servers - 1;
        self.faults_on
            && self.swarm.has(Class::N12)
            && self.settings.servers > 2
            && to == place
            && self.servers[to].process.is_none()
            && self.impostor.at.is_none()
            && self.randoms.hostile.chance(0.3)
    }

    /// Where a dial ends that is deceived.
    pub(super) fn deceive(&self) -> Node {
        self.impostor_node()
    }

    pub(super) fn tell_impostor(&mut self, told: Told) -> Check {
        match told {
            Told::Accepted(connection) => {
                self.leave();
                self.impostor.links += 1;
                let link = LinkId(self.impostor.links);
                self.network.accepted(connection, link);
                let server = self.network.other_end(self.impostor_node(), link).unwrap_or(0);
                let id = self.servers.get(self.settings.servers - 1).and_then(|server| server.id);
                let guise = Guise::Foreign;
                self.impostor.at = Some(Visit { link, guise, hello: id, server, called: true, rival: None });
                Ok(())
            }
            Told::Dialed(link) => {
                self.greet(link);
                Ok(())
            }
            Told::Closed(link) => {
                if self.impostor.at.is_some_and(|visit| visit.link == link) {
                    self.impostor.at = None;
                }
                Ok(())
            }
            Told::Frame(link, frame) => self.hear(link, &frame),
        }
    }

    fn greet(&mut self, link: LinkId) {
        let Some(visit) = self.impostor.at.filter(|visit| visit.link == link) else { return };
        let nonce = BootNonce(self.randoms.hostile.next());
        let member = visit.hello.and_then(|id| self.checker.membership.latest()?.member(id).cloned());
        let hello = match (visit.guise, member) {
            (Guise::Client, _) => Hello::of_client(None, nonce),
            (guise, Some(member)) => {
                let own = self.checker.membership.latest().map(|c| c.cluster).unwrap_or_default();
                let cluster = if guise == Guise::Foreign { ClusterId(own.0 ^ 1) } else { own };
                as_member(&member, cluster, nonce)
            }
            (_, None) => return self.leave(),
        };
        let class = match visit.guise {
            Guise::Absent | Guise::Client => Class::X3,
            Guise::Double => Class::O2,
            Guise::Foreign => Class::N12,
        };
        self.coverage.fault(class);
        let rival = visit.hello.filter(|_| visit.guise == Guise::Double);
        let rival = rival.and_then(|id| self.rival_of(visit.server, id));
        self.impostor.at = Some(Visit { rival, ..visit });
        let node = self.impostor_node();
        self.send_frame(node, link, Frame::Hello(hello).encode(GroupId::DEFAULT));
        self.settle_network();
    }

    fn hear(&mut self, link: LinkId, frame: &Bytes) -> Check {
        let Some(visit) = self.impostor.at.filter(|visit| visit.link == link) else { return Ok(()) };
        let foreign = visit.guise == Guise::Foreign;
        let consensus = frame.first().is_some_and(|kind| CONSENSUS.contains(kind));
        hold("I14", !(foreign && consensus), || {
            format!("server {} speaks of consensus to a server of another cluster", visit.server + 1)
        })?;
        match Frame::decode(frame) {
            Ok(Frame::Hello(_)) if visit.called => {
                // It spoke first: now it learns to whom.
                self.greet(link);
                self.say_absurd(visit);
            }
            Ok(Frame::Hello(answer)) => {
                // One that has no cluster talks to anybody, though of bootstrap only. It may have one by now.
                hold("I14", !foreign || answer.cluster.is_none(), || {
                    format!("server {} lets in a server of another cluster", visit.server + 1)
                })?;
                self.say_absurd(visit);
            }
            Ok(Frame::Refusal(refusal)) => {
                let met = match refusal.reason {
                    RefusalReason::ForeignCluster => Some(Met::ForeignRefused),
                    RefusalReason::DuplicateIdentity => Some(Met::DuplicateRefused),
                    _ => None,
                };
                if let Some(met) = met {
                    self.coverage.mark(met, 1);
                }
                self.leave();
            }
            _ => {}
        }
        self.settle_network();
        Ok(())
    }

    fn say_absurd(&mut self, visit: Visit) {
        let node = self.impostor_node();
        // As one that lives it might only do harm that the one who lives answers for.
        if visit.guise == Guise::Double {
            return self.leave();
        }
        for _ in 0..self.randoms.hostile.range(1, WORDS) {
            let frame = match (visit.guise, self.servers[visit.server].raft().map(Mark::of)) {
                (Guise::Client, _) => Frame::Request(nonsense(&mut self.randoms.hostile)),
                (_, Some(mark)) => Frame::Peer(absurd(&mut self.randoms.hostile, mark)),
                _ => break,
            };
            self.send_frame(node, visit.link, frame.encode(GroupId::DEFAULT));
        }
    }
}

fn as_member(member: &Member, cluster: ClusterId, boot_nonce: BootNonce) -> Hello {
    Hello {
        magic: MAGIC,
        versions: VERSIONS,
        role: Role::Peer,
        cluster: Some(cluster),
        group: GroupId::DEFAULT,
        server: Some(member.id),
        incarnation: member.incarnation,
        boot_nonce,
        feature_level: FEATURE_LEVEL,
    }
}

/// What no client says.
fn nonsense(r: &mut Random) -> ClientRequest {
    let number = r.pick(&[0, 1, 1 << 32, u64::MAX - 1, u64::MAX]).unwrap_or(0);
    let (session, key) = (SessionId(number), SessionKey(r.token()));
    match r.below(8) {
        0 => ClientRequest::Command(Bytes::from_static(b"\xFF\xFF\xFF\xFF\xFF")),
        1 => ClientRequest::Attach(Attach {
            session,
            key,
            last_event: Index(number),
            read_only: r.chance(0.5),
        }),
        2 => {
            let header = QueryHeader {
                ticket: number,
                consistency: Consistency::Linearizable,
                after_index: Index(number),
                after_sequence: Sequence(number),
            };
            ClientRequest::Query(header, Bytes::from_static(b"\xFF"))
        }
        3 => ClientRequest::KeepAlive(KeepAlive {
            contact: number,
            acknowledged_event: Index(number),
            lowest_unanswered: Sequence(number),
        }),
        4 => ClientRequest::Acknowledge { event: Index(number) },
        5 => ClientRequest::Close,
        6 => {
            let change =
                Change { expected: Index(number), remove: vec![ServerId(number)], ..Change::default() };
            ClientRequest::Manage(Manage { ticket: number, action: ManageAction::Change(change) })
        }
        _ => ClientRequest::Manage(Manage {
            ticket: number,
            action: ManageAction::Transfer(Some(ServerId(number))),
        }),
    }
}
