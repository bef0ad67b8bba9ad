//! The first frame each way (I5): who may talk here, and which of two processes with one identity stays.

use core::time::Duration;

use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{FEATURE_LEVEL, Hello, MAGIC, Refusal, RefusalReason, Role, VERSIONS};
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Address, DecodeError, GroupId, Incarnation, LinkId, LocalTime, Member, ServerId};
use bytes::Bytes;

use crate::clients::ClientLink;
use crate::engine::Engine;
use crate::links::{PeerLink, Stage, refusal_frame};
use crate::{Notice, Output, StopReason};

/// How long the older of two processes with one identity has to show that it lives.
pub(crate) const CONTEST: Duration = Duration::from_secs(1);

/// Longest text taken over from another process.
const DETAIL_CHARS: usize = 256;

/// What the other end of a link is to this server.
enum Kin {
    Client,
    /// A server, and one of the two has no cluster yet.
    Forming,
    /// A member, by its record.
    Member(ServerId),
}

type Objection = (RefusalReason, String);

impl Engine {
    /// What this server shows of itself.
    pub(crate) fn hello(&self, role: Role) -> Hello {
        Hello {
            magic: MAGIC,
            versions: VERSIONS,
            role,
            cluster: self.configuration().map(|configuration| configuration.cluster),
            group: GroupId::DEFAULT,
            server: self.server(),
            incarnation: self.identity.incarnation,
            boot_nonce: self.options.boot_nonce,
            feature_level: FEATURE_LEVEL,
        }
    }

    pub(crate) fn on_first_frame(&mut self, now: LocalTime, id: LinkId, bytes: &Bytes) {
        let Some(link) = self.links.link(id) else { return };
        let dialed = link.dialed.is_some();
        match Frame::decode_first(bytes) {
            Ok(Frame::Hello(hello)) => self.on_hello(now, id, hello),
            Ok(Frame::Refusal(refusal)) if dialed => self.on_refusal(now, id, &refusal),
            Err(DecodeError::UnknownGroup(group)) => {
                self.refuse(now, id, RefusalReason::UnknownGroup, &format!("unknown group {group}"));
            }
            Ok(_) => self.reject(now, id, "the first frame is not a handshake".into()),
            Err(error) => self.reject(now, id, format!("the first frame is not a handshake: {error}")),
        }
    }

    fn on_hello(&mut self, now: LocalTime, id: LinkId, hello: Hello) {
        let Some(link) = self.links.link(id) else { return };
        let dialed = link.dialed.clone();
        match self.kin(&hello, dialed.as_ref()) {
            Err((reason, detail)) => {
                let removed = reason == RefusalReason::NotAMember && hello.server.is_some();
                self.marks.removed_refused += u64::from(removed);
                if let Some(address) = dialed.as_ref().filter(|_| reason == RefusalReason::NotAMember) {
                    // It has a directory of this cluster. If nobody else is expected there, it is not asked again.
                    self.peers.met_member(address, now);
                }
                self.refuse(now, id, reason, &detail);
                if let Some(address) = dialed.filter(|_| reason == RefusalReason::ForeignCluster) {
                    self.met_foreign(&address);
                }
            }
            Ok(Kin::Forming | Kin::Member(_)) if self.failed().is_some() => {
                self.refuse(now, id, RefusalReason::Busy, "the disk of this server has failed");
            }
            Ok(Kin::Client) if self.links.is_crowded() => {
                self.refuse(now, id, RefusalReason::Busy, "too many clients");
            }
            Ok(Kin::Client) => {
                let answer = self.hello(Role::Server);
                self.send(id, &Frame::Hello(answer));
                self.settle_stage(id, Stage::Client(ClientLink::default()));
                self.tell_servers(&[id]);
            }
            Ok(Kin::Forming) => {
                if dialed.is_none() {
                    let answer = self.hello(Role::Peer);
                    self.send(id, &Frame::Hello(answer));
                }
                self.settle_stage(id, Stage::Forming(hello));
                if let Some(address) = dialed {
                    self.peers.stands(&address, now);
                    self.speak_of_bootstrap(now, id);
                } else {
                    self.watch(now, id);
                }
            }
            Ok(Kin::Member(server)) => {
                if let Some(address) = &dialed {
                    if self.peers.met_member(address, now) {
                        self.admit(now, id, hello, server);
                    } else {
                        // A second address of a member: that it is ours was worth knowing, a link it needs not.
                        self.close(now, id);
                    }
                } else {
                    self.admit(now, id, hello, server);
                }
            }
        }
    }

    fn settle_stage(&mut self, id: LinkId, stage: Stage) {
        self.links.set_deadline(id, None);
        if let Some(link) = self.links.link_mut(id) {
            link.stage = stage;
        }
    }

    fn kin(&self, hello: &Hello, dialed: Option<&Address>) -> Result<Kin, Objection> {
        if hello.magic != MAGIC {
            return Err((RefusalReason::Version, "another protocol".into()));
        }
        if hello.versions.0 > VERSIONS.1
            || hello.versions.1 < VERSIONS.0
            || hello.versions.0 > hello.versions.1
        {
            return Err((
                RefusalReason::Version,
                format!("no common version: {:?} here, {:?} there", VERSIONS, hello.versions),
            ));
        }
        if hello.group != GroupId::DEFAULT {
            return Err((RefusalReason::UnknownGroup, format!("unknown group {}", hello.group)));
        }
        if hello.role == Role::Server || (dialed.is_some() && hello.role != Role::Peer) {
            return Err((RefusalReason::WrongRole, "that role does not belong on this connection".into()));
        }
        let ours = self.configuration().map(|configuration| configuration.cluster);
        let common = match (ours, hello.cluster) {
            (Some(ours), Some(theirs)) if ours != theirs && !Mutant::B34.active() => {
                return Err((
                    RefusalReason::ForeignCluster,
                    format!("this server belongs to cluster {ours}, not to {theirs}"),
                ));
            }
            (Some(_), Some(_)) => true,
            _ => false,
        };
        match hello.role {
            Role::Client => Ok(Kin::Client),
            Role::Peer | Role::Server => {
                self.is_somebody_else(hello)?;
                if common { self.membership(hello, dialed) } else { Ok(Kin::Forming) }
            }
        }
    }

    fn is_somebody_else(&self, hello: &Hello) -> Result<(), Objection> {
        if hello.incarnation != self.identity.incarnation {
            return Ok(());
        }
        if hello.boot_nonce == self.options.boot_nonce {
            return Err((RefusalReason::WrongRole, "that is this very server".into()));
        }
        Err((
            RefusalReason::DuplicateIdentity,
            format!("the server at {} uses this data directory's identity", self.options.address),
        ))
    }

    /// Whether a server of this cluster is the member that it says. One that the configuration known here is too old to name is
    /// believed until then, and consensus decides what of its words; one that has left is not.
    fn membership(&self, hello: &Hello, dialed: Option<&Address>) -> Result<Kin, Objection> {
        let refused = |detail| Err((RefusalReason::NotAMember, detail));
        let directory = short(hello.incarnation);
        let Some(server) = hello.server else {
            return refused(format!("the data directory {directory} is not a member's"));
        };
        let Some(member) = self.record(server) else {
            let newest = self.members.committed.as_ref().or(self.configuration());
            let (index, next) = newest.map_or_else(Default::default, |c| (c.index, c.next_server_id));
            let named = self.configuration().and_then(|c| c.member_by_incarnation(hello.incarnation));
            return match named {
                Some(member) => refused(format!("the data directory {directory} is server {}", member.id)),
                None if server.0 < next => refused(format!(
                    "server {server} is no member of configuration {index}: it was removed, and must join with an empty directory to come back"
                )),
                None => Ok(Kin::Member(server)),
            };
        };
        if is_anothers(member, hello.incarnation) {
            return refused(format!("the data directory {directory} is not that of server {server}"));
        }
        match dialed.filter(|address| self.peers.expects_member(address)) {
            Some(address) if *address != member.peer_address => refused(format!(
                "server {server} answers at {address}, and should at {}",
                member.peer_address
            )),
            _ => Ok(Kin::Member(server)),
        }
    }

    /// Whether another data directory has the server id that a link shows: a record may have come to be known since (I14).
    pub(crate) fn is_impostor(&self, id: LinkId) -> bool {
        let (server, incarnation) = match self.links.link(id).map(|link| &link.stage) {
            Some(Stage::Peer(peer)) => (Some(peer.server), peer.incarnation),
            Some(Stage::Contested(hello)) => (hello.server, hello.incarnation),
            _ => return false,
        };
        server.and_then(|server| self.record(server)).is_some_and(|record| is_anothers(record, incarnation))
    }

    pub(crate) fn dismiss(&mut self, now: LocalTime, id: LinkId) {
        self.refuse(now, id, RefusalReason::NotAMember, "that server id is another data directory's");
    }

    /// The configuration is another. Whoever was believed because nobody was known by his id may not be the one who has it (I14), or
    /// not answer where that one should. So no contest is left between two directories of which one is known to have the id.
    pub(crate) fn judge_again(&mut self, now: LocalTime) {
        let all: Vec<LinkId> = self.links.iter().map(|(id, _)| id).collect();
        for id in all {
            if self.is_impostor(id) {
                self.dismiss(now, id);
            } else if self.is_elsewhere(id) {
                self.refuse(now, id, RefusalReason::NotAMember, "that server should answer elsewhere");
            }
        }
    }

    /// Whether this server dialled a member where that one should not be.
    fn is_elsewhere(&self, id: LinkId) -> bool {
        let (Some(link), Some(peer)) = (self.links.link(id), self.links.peer(id)) else { return false };
        let place = self.record(peer.server).map(|record| &record.peer_address);
        link.dialed.as_ref().zip(place).is_some_and(|(dialed, place)| dialed != place)
    }

    /// Lets a member in, unless another process that shows the same server id still lives (I5).
    fn admit(&mut self, now: LocalTime, id: LinkId, hello: Hello, server: ServerId) {
        let older = self.other_processes(server, &hello);
        if older.is_empty() || Mutant::B37.active() {
            self.establish(now, id, &hello, server);
            return;
        }
        let probe = self.peers.next_probe();
        self.peers.contests.insert(probe, id);
        self.settle_stage(id, Stage::Contested(hello));
        self.links.set_deadline(id, Some(now + CONTEST));
        for link in older {
            self.send(link, &Frame::Ping(probe));
        }
    }

    /// Links of another process than `hello`'s that shows the same server id.
    fn other_processes(&self, server: ServerId, hello: &Hello) -> Vec<LinkId> {
        let mut links = self.peers.links_of(server);
        links.retain(|id| self.links.peer(*id).is_some_and(|peer| peer.boot_nonce != hello.boot_nonce));
        links
    }

    fn establish(&mut self, now: LocalTime, id: LinkId, hello: &Hello, server: ServerId) {
        let Some(link) = self.links.link(id) else { return };
        let dialed = link.dialed.is_some();
        let Hello { incarnation, boot_nonce, .. } = *hello;
        self.settle_stage(id, Stage::Peer(PeerLink { server, incarnation, boot_nonce }));
        self.ask_too(now, id, hello);
        if dialed {
            self.peers.outgoing.insert(server, id);
            self.links.set_deadline(id, Some(now + crate::peers::PROBE_EVERY));
            self.announce_kinds(id);
            self.levels.stale = true;
            self.consensus(now, atomix_raft::Input::LinkOpened { to: server });
            return;
        }
        let answer = self.hello(Role::Peer);
        self.send(id, &Frame::Hello(answer));
        self.watch(now, id);
        // The one before is of the same process: it dialled anew, so nothing more comes from there, and nothing was lost.
        if let Some(before) = self.peers.incoming.insert(server, id) {
            self.close(now, before);
        }
    }

    /// A process was let in while later ones wait: nobody knows yet of this one whether it lives, so that it is asked as well.
    fn ask_too(&mut self, now: LocalTime, id: LinkId, settled: &Hello) {
        let waits = |newer: &LinkId| match self.links.link(*newer).map(|link| &link.stage) {
            Some(Stage::Contested(hello)) => {
                hello.server == settled.server && hello.boot_nonce != settled.boot_nonce
            }
            _ => false,
        };
        let contests = self.peers.contests.iter().filter(|(_, newer)| waits(newer));
        let contests: Vec<(u64, LinkId)> = contests.map(|(probe, newer)| (*probe, *newer)).collect();
        for (probe, newer) in contests {
            self.send(id, &Frame::Ping(probe));
            self.links.set_deadline(newer, Some(now + CONTEST));
        }
    }

    /// A probe was answered. If a later process waited for it, that one is the duplicate; if it is another directory's, nobody
    /// knows here yet which of them has the id, and it may try again.
    pub(crate) fn on_pong(&mut self, now: LocalTime, id: LinkId, token: u64) {
        let Some(newer) = self.peers.contests.get(&token).copied() else { return };
        let (Some(peer), Some(Stage::Contested(hello))) =
            (self.links.peer(id), self.links.link(newer).map(|link| &link.stage))
        else {
            return;
        };
        if hello.server != Some(peer.server) {
            return;
        }
        let same_directory = hello.incarnation == peer.incarnation;
        self.peers.contests.remove(&token);
        if same_directory {
            self.marks.duplicate_refused += 1;
            let detail = "another live process uses this server id";
            self.refuse(now, newer, RefusalReason::DuplicateIdentity, detail);
        } else {
            let detail = "a server with another data directory uses this server id";
            self.refuse(now, newer, RefusalReason::NotAMember, detail);
        }
    }

    /// The older process did not answer in time: it goes. Invariant: every link of it was asked at least that long ago.
    pub(crate) fn end_contest(&mut self, now: LocalTime, id: LinkId) {
        let Some(Stage::Contested(hello)) = self.links.link(id).map(|link| &link.stage) else {
            return;
        };
        let Some(server) = hello.server else { return };
        for older in self.other_processes(server, &hello.clone()) {
            self.close(now, older);
        }
        self.settle_contests(now, server);
    }

    /// Lets those in who wait for processes that are gone by now.
    pub(crate) fn settle_contests(&mut self, now: LocalTime, server: ServerId) {
        let waiting: Vec<(u64, LinkId)> =
            self.peers.contests.iter().map(|(probe, id)| (*probe, *id)).collect();
        for (probe, id) in waiting {
            let Some(Stage::Contested(hello)) = self.links.link(id).map(|link| &link.stage) else {
                self.peers.contests.remove(&probe);
                continue;
            };
            let hello = hello.clone();
            if hello.server == Some(server) && self.other_processes(server, &hello).is_empty() {
                self.peers.contests.remove(&probe);
                self.establish(now, id, &hello, server);
            }
        }
    }

    /// Ends a handshake from this end.
    fn refuse(&mut self, now: LocalTime, id: LinkId, reason: RefusalReason, detail: &str) {
        self.push(Output::Send(id, refusal_frame(reason, detail)));
        if let Some(address) = self.links.link(id).and_then(|link| link.dialed.clone()) {
            self.peers.slow_down(&address);
        }
        self.reject(now, id, detail.into());
    }

    /// The other end will not talk to this server.
    pub(crate) fn on_refusal(&mut self, now: LocalTime, id: LinkId, refusal: &Refusal) {
        let detail: String = refusal.detail.chars().take(DETAIL_CHARS).collect();
        self.notice(Notice::Refused { link: id, detail: format!("by the other end: {detail}") });
        let dialed = self.links.link(id).and_then(|link| link.dialed.clone());
        if let Some(address) = &dialed {
            self.peers.slow_down(address);
            if refusal.reason == RefusalReason::NotAMember {
                self.peers.refused(address, &detail);
            }
        }
        self.close(now, id);
        match (refusal.reason, dialed) {
            (RefusalReason::DuplicateIdentity, _) => self.stop(StopReason::DuplicateIdentity(detail)),
            (RefusalReason::ForeignCluster, Some(address)) => self.met_foreign(&address),
            _ => {}
        }
    }

    /// A server at a listed address belongs to another cluster. If that is so of most of them and none was ever met as one's own,
    /// it is this directory that is in the wrong place; one stray server must not stop the others.
    fn met_foreign(&mut self, address: &Address) {
        self.peers.met_foreign(address);
        let leads_on = self.raft.as_ref().is_some_and(|raft| raft.leader().is_some());
        if self.configuration().is_none() || leads_on || !self.peers.is_misplaced(&self.options) {
            return;
        }
        let ours = self.hello(Role::Peer).cluster.unwrap_or_default();
        let detail = format!("it belongs to cluster {ours}; the server at {address} belongs to another");
        self.stop(StopReason::ForeignCluster(detail));
    }
}

fn is_anothers(record: &Member, incarnation: Incarnation) -> bool {
    record.incarnation != incarnation && !Mutant::B33.active()
}

/// Enough of an incarnation to recognise it.
fn short(incarnation: Incarnation) -> String {
    format!("{:08x}", incarnation.0 >> 96)
}
