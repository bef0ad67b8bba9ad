//! Which operations may be used: those that every member has which holds state (M3).
//!
//! Servers tell each other what their binaries have, as the first word on each link between members. A leader commits a higher level
//! when all have it. Until a kind has a level, what would create it is refused before the log.

use std::collections::BTreeMap;

use atomix_protocol::client::NotLogged;
use atomix_protocol::codec::Frame;
use atomix_protocol::envelope::Envelope;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::session::{RaiseLevel, SessionEntry};
use atomix_protocol::{LinkId, LocalTime, Member, MemberKind, ServerId, limits};
use atomix_raft::Refused;
use atomix_session::KindLevel;
use bytes::Bytes;

use crate::engine::Engine;

/// What is known of the members' binaries.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    /// What this server's binary has, by name. Empty: a state machine that knows no kinds, and needs no levels.
    own: BTreeMap<String, u16>,
    /// What the others said, on the link that stands. A server that is not reached may be coming back with another binary.
    others: BTreeMap<ServerId, (LinkId, BTreeMap<String, u16>)>,
    /// Something has changed since a leader looked.
    pub(crate) stale: bool,
}

impl Levels {
    pub(crate) fn new(kinds: Vec<KindLevel>) -> Self {
        let own = kinds.into_iter().map(|KindLevel { kind, level }| (kind, level)).collect();
        Levels { own, others: BTreeMap::new(), stale: true }
    }

    /// A link is gone.
    pub(crate) fn forget(&mut self, server: ServerId, link: LinkId) {
        if self.others.get(&server).is_some_and(|(from, _)| *from == link) {
            self.others.remove(&server);
        }
    }

    /// The level of a kind that all of these servers have; zero if one lacks it or has not said.
    fn common(&self, kind: &str, own: u16, servers: impl Iterator<Item = ServerId>) -> u16 {
        let of = |server| self.others.get(&server).and_then(|(_, kinds)| kinds.get(kind)).copied();
        servers.fold(own, |least, server| least.min(of(server).unwrap_or(0)))
    }
}

impl Engine {
    /// The first word on a link that this server dialled.
    pub(crate) fn announce_kinds(&mut self, id: LinkId) {
        let kinds = self.levels.own.iter().map(|(kind, level)| (kind.clone(), *level)).collect();
        self.send(id, &Frame::Kinds(kinds));
    }

    /// Also from a server that is too new to be known here: what it says once is needed when it is. But anybody can say to be one.
    pub(crate) fn on_kinds(&mut self, now: LocalTime, id: LinkId, from: ServerId, kinds: Vec<(String, u16)>) {
        let crowded = self.levels.others.len() >= limits::MEMBERS && self.record(from).is_none();
        let long =
            kinds.len() > limits::KINDS || kinds.iter().any(|(kind, _)| kind.len() > limits::PATH_BYTES);
        if crowded || long {
            self.reject(now, id, "more kinds than are kept".into());
            return;
        }
        self.levels.others.insert(from, (id, kinds.into_iter().collect()));
        self.levels.stale = true;
    }

    /// Leader: raises what all members have that hold state. Each looks again in its own term (R8).
    pub(crate) fn raise_levels(&mut self, now: LocalTime) -> Result<(), Refused> {
        let (Some(raft), Some(leading)) = (&self.raft, &self.leading) else { return Ok(()) };
        if !self.levels.stale {
            return Ok(());
        }
        let (term, own) = (leading.term, raft.server());
        let members = &raft.configuration().members;
        // A wiped server that came back under a new id has its old record's address: what that held is gone. Anybody can say that he
        // is there: he must be the one who answers there, and the older one must not.
        let is_there = |member: &Member| self.peers.outgoing.contains_key(&member.id);
        let is_gone = |member: &Member| {
            let address = &member.peer_address;
            !self.levels.others.contains_key(&member.id)
                && !is_there(member)
                && members.iter().any(|m| m.id > member.id && m.peer_address == *address && is_there(m))
        };
        let holds = |member: &&Member| member.kind != MemberKind::Reserve && !is_gone(member);
        let holders = || members.iter().filter(holds).map(|member| member.id);
        let raised: Vec<RaiseLevel> = self
            .levels
            .own
            .iter()
            .map(|(kind, level)| {
                let others = holders().filter(|id| *id != own && !Mutant::U01.active());
                let level = self.levels.common(kind, *level, others);
                RaiseLevel { kind: kind.clone(), level, decided_in: term }
            })
            .filter(|raise| raise.level > self.table.levels().of(&raise.kind))
            .collect();
        for raise in raised {
            self.propose(now, &SessionEntry::RaiseLevel(raise), Some(term))?;
            self.marks.levels_raised += 1;
        }
        self.levels.stale = false;
        Ok(())
    }

    /// Why a command must not be logged, if it creates what not all servers know. A state machine that names no kinds has none.
    pub(crate) fn lacks_level(&mut self, command: &Bytes) -> Option<NotLogged> {
        if self.levels.own.is_empty() {
            return None;
        }
        let Ok(Envelope::Open(open)) = Envelope::decode(command) else { return None };
        (self.table.levels().of(&open.kind) == 0).then_some(NotLogged::Level)
    }
}
