//! From an empty server to a member of a cluster that exists (R7, I3, §4.2.1): it asks, the leader adds it as a learner, and
//! promotes it when it has caught up. A wiped server comes back in the same way, under another id, and the change that gives it
//! the vote removes its old record.

use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::change::{Change, ChangeRefused, NewMember};
use atomix_protocol::codec::{self, Frame};
use atomix_protocol::{Configuration, EntryKind, LinkId, LocalTime, Member, MemberKind, ServerId};

use crate::Notice;
use crate::bootstrap::{REPEAT, Standing};
use crate::engine::{Engine, Recovered};
use crate::links::Stage;

impl Engine {
    /// Whether this server was started to join a cluster.
    pub(crate) fn joins(&self) -> bool {
        !self.options.join.is_empty()
    }

    /// What it says of itself when it asks to be taken in.
    pub(crate) fn wish(&self) -> NewMember {
        NewMember {
            incarnation: self.identity.incarnation,
            peer_address: self.options.address.clone(),
            client_address: self.options.client_address.clone(),
            kind: self.options.kind,
            priority: self.options.priority,
        }
    }

    /// A joining server met a cluster that does not know it: it asks all of the members, since one of them leads.
    pub(crate) fn ask_members(&mut self, now: LocalTime, configuration: &Configuration) {
        let asked: Vec<_> = configuration.members.iter().map(|member| member.peer_address.clone()).collect();
        if self.joins() && asked != self.members.asked {
            self.members.asked = asked;
            self.aim(now);
        }
    }

    /// Whether a directory in use shows that its server never was what it was started to be: it was interrupted on the way, and goes
    /// on. One that was, and is no more, has the place that an operator gave it. What a snapshot replaced, or damage took, may have
    /// been either: then nobody asks.
    pub(crate) fn was_interrupted(&self, recovered: &Recovered) -> bool {
        let below = |configuration: &Configuration| {
            self.own_record(configuration).is_none_or(|record| self.wants_more_than(record.kind))
        };
        let forgotten = recovered.snapshot.as_ref().map(|(meta, _)| &meta.configuration);
        let entries = recovered.entries.iter().filter(|entry| entry.kind == EntryKind::Configuration);
        let mut logged = entries.filter_map(|entry| codec::from_bytes::<Configuration>(&entry.payload).ok());
        self.joins()
            && recovered.abstention.is_none()
            && recovered.damage.is_empty()
            && forgotten.is_none_or(|configuration| self.own_record(configuration).is_none())
            && recovered.configuration.as_ref().is_some_and(below)
            && logged.all(|configuration| below(&configuration))
    }

    /// A directory in use: its server goes on asking, or says that it does not.
    pub(crate) fn resume_wish(&mut self, now: LocalTime, interrupted: bool) {
        self.members.next_wish = interrupted.then_some(now);
        if !interrupted && self.is_below_its_wish() {
            self.notice(Notice::WishNotRepeated);
        }
    }

    /// What this server wanted to be, it is, or was: from here on its place is the one that an operator gives it.
    pub(crate) fn note_place(&mut self) {
        if !self.is_below_its_wish() {
            self.members.next_wish = None;
        }
    }

    /// Asks again for a better place than the one that this member has, until it has had the one that it wants.
    pub(crate) fn repeat_wish(&mut self, now: LocalTime) {
        if self.members.next_wish.is_none_or(|at| at > now) {
            return;
        }
        self.members.next_wish = None;
        if !self.is_below_its_wish() {
            return;
        }
        self.members.next_wish = Some(now + REPEAT);
        // What is in the log already may give it the place, or have given it once.
        let used = self.configuration().map(|configuration| configuration.index);
        if used != self.members.committed.as_ref().map(|committed| committed.index) {
            return;
        }
        let leader = self.raft.as_ref().and_then(atomix_raft::Raft::leader);
        let known = leader.and_then(|leader| self.peers.outgoing.get(&leader));
        let links: Vec<LinkId> = match known {
            Some(link) => vec![*link],
            // A reserve member does not hear who leads.
            None => self.peers.outgoing.values().copied().collect(),
        };
        for link in links {
            self.send(link, &Frame::Bootstrap(BootstrapMessage::Join(self.wish())));
        }
    }

    /// Whether it was started to join, and is not what it wants to be.
    pub(crate) fn is_below_its_wish(&self) -> bool {
        let own = self.raft.as_ref().map(atomix_raft::Raft::server);
        let record = own.zip(self.members.committed.as_ref()).and_then(|(own, c)| c.member(own));
        let below = record.is_some_and(|record| self.wants_more_than(record.kind));
        below && self.joins() && matches!(self.standing, Standing::Member { .. })
    }

    fn wants_more_than(&self, kind: MemberKind) -> bool {
        use MemberKind::{Learner, Reserve, Voter};
        matches!((kind, self.options.kind), (Learner | Reserve, Voter) | (Reserve, Learner))
    }

    /// A server asks to be taken in, or for the place that it wants. Only the leader can do something; what it can't do yet is
    /// asked for again.
    pub(crate) fn on_join(&mut self, now: LocalTime, id: LinkId, wish: &NewMember) {
        let (itself, server) = match self.links.link(id).map(|link| &link.stage) {
            Some(Stage::Forming(hello)) => (Some(hello.incarnation), None),
            Some(Stage::Peer(peer)) => match self.record(peer.server) {
                Some(record) => (Some(record.incarnation), Some(peer.server)),
                // A server that is behind does not know every member: that is no reason to hang up on one.
                None => return,
            },
            _ => (None, None),
        };
        if itself != Some(wish.incarnation) {
            self.reject(now, id, "a wish for another data directory than its own".into());
            return;
        }
        // Nobody's place would be worth a configuration that no frame carries, nor is such an address repeated in a notice.
        if wish.address_too_long().is_some() {
            self.reject(now, id, "a wish with an address that is too long".into());
            return;
        }
        // Whoever was removed and has not heard of it yet does not come back: its directory has an id already (I3).
        let removed = server.is_some_and(|id| self.configuration().is_none_or(|c| c.member(id).is_none()))
            || self.members.has_departed(wish.incarnation);
        if removed || !self.is_established() {
            return;
        }
        let Some(raft) = &mut self.raft else { return };
        let (own, configuration) = (raft.server(), raft.configuration());
        let reached = |server| self.peers.outgoing.contains_key(&server);
        let Some(change) = step_towards(configuration, wish, own, reached) else { return };
        let (promotes, replaces) = (!change.set_kind.is_empty(), !change.remove.is_empty());
        match raft.change(now, &change) {
            Ok(entry) => {
                self.marks.joins += u64::from(!promotes);
                self.marks.promotions += u64::from(promotes);
                self.marks.replacements += u64::from(replaces);
                self.notice(Notice::Joining { address: wish.peer_address.clone(), index: entry.index });
            }
            // It asks again, and until then these pass.
            Err(
                ChangeRefused::Pending(_)
                | ChangeRefused::NotCaughtUp { .. }
                | ChangeRefused::HandingOver
                | ChangeRefused::Busy
                | ChangeRefused::NotEstablished,
            ) => {}
            Err(refused) => {
                let detail = format!("{} can't join now: {refused}", wish.peer_address);
                self.notice(Notice::Refused { link: id, detail });
            }
        }
    }
}

/// The next change on the way from the configuration to one in which the wish is fulfilled; `None` if nothing is to be done,
/// or can be.
fn step_towards(
    configuration: &Configuration,
    wish: &NewMember,
    own: ServerId,
    reached: impl Fn(ServerId) -> bool,
) -> Option<Change> {
    let namesakes = || {
        let same = |member: &&Member| {
            member.peer_address == wish.peer_address && member.incarnation != wish.incarnation
        };
        configuration.members.iter().filter(same)
    };
    if namesakes().any(|member| member.id == own) {
        return None;
    }
    let mut change = Change { expected: configuration.index, ..Change::default() };
    let Some(record) = configuration.member_by_incarnation(wish.incarnation) else {
        let kind = if wish.kind == MemberKind::Reserve { MemberKind::Reserve } else { MemberKind::Learner };
        change.add = vec![NewMember { kind, ..wish.clone() }];
        // A vote is taken from nobody until the one who takes his place has caught up at his address.
        change.remove = namesakes()
            .filter(|member| matches!(member.kind, MemberKind::Learner | MemberKind::Reserve))
            .map(|member| member.id)
            .filter(|id| !reached(*id))
            .collect();
        return Some(change);
    };
    let kind = match (record.kind, wish.kind) {
        (MemberKind::Learner, MemberKind::Voter) => MemberKind::Voter,
        (MemberKind::Reserve, MemberKind::Voter | MemberKind::Learner) => MemberKind::Learner,
        _ => return None,
    };
    change.set_kind = vec![(record.id, kind)];
    if kind == MemberKind::Voter {
        // This server reaches it where the older one is said to be: the older one is not there any more.
        if !reached(record.id) {
            return None;
        }
        change.remove = namesakes().map(|member| member.id).collect();
    }
    Some(change)
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{Address, Incarnation, Index};

    use super::*;
    use MemberKind::{Learner, Reserve, Voter};

    fn member(id: u64, at: u64, kind: MemberKind) -> Member {
        let address = Address::new(format!("server-{at}"));
        Member {
            id: ServerId(id),
            incarnation: Incarnation(id.into()),
            peer_address: address.clone(),
            client_address: address,
            kind,
            priority: 0,
        }
    }

    /// A directory that wants to be of this kind, at that address.
    fn wish(incarnation: u64, at: u64, kind: MemberKind) -> NewMember {
        let Member { peer_address, client_address, .. } = member(0, at, kind);
        let incarnation = Incarnation(incarnation.into());
        NewMember { incarnation, peer_address, client_address, kind, priority: 0 }
    }

    /// Server 1 leads three voters, each at the address of its number, and these. `reached` are those it has links to.
    #[track_caller]
    fn check(others: Vec<Member>, wish: NewMember, reached: &[u64], expected: &str) {
        let mut members: Vec<Member> = (1..=3).map(|id| member(id, id, Voter)).collect();
        members.extend(others);
        let configuration = Configuration { index: Index(9), members, ..Configuration::default() };
        let step = step_towards(&configuration, &wish, ServerId(1), |id| reached.contains(&id.0));
        let words = step.map(|change| {
            assert_eq!(change.expected, Index(9));
            let added = change.add.iter().map(|new| format!("+{:?}", new.kind));
            let set = change.set_kind.iter().map(|(id, kind)| format!("{id}={kind:?}"));
            let removed = change.remove.iter().map(|id| format!("-{id}"));
            added.chain(set).chain(removed).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(words.unwrap_or_default(), expected);
    }

    #[test]
    fn each_wish_leads_to_one_step_at_a_time() {
        // Nobody knows it yet.
        check(vec![], wish(9, 9, Voter), &[2, 3], "+Learner");
        check(vec![], wish(9, 9, Learner), &[2, 3], "+Learner");
        check(vec![], wish(9, 9, Reserve), &[2, 3], "+Reserve");
        // A wiped server at the address of a voter: that one keeps its vote for now.
        check(vec![], wish(9, 2, Voter), &[3], "+Learner");
        // Of a server that never voted nothing is lost; one that is reached is another.
        check(vec![member(4, 8, Learner)], wish(9, 8, Voter), &[2, 3], "+Learner -4");
        check(vec![member(4, 8, Reserve)], wish(9, 8, Reserve), &[2, 3], "+Reserve -4");
        check(vec![member(4, 8, Learner)], wish(9, 8, Voter), &[2, 3, 4], "+Learner");
        // Known, and below its wish.
        check(vec![member(9, 9, Learner)], wish(9, 9, Voter), &[2, 3, 9], "9=Voter");
        check(vec![member(9, 9, Reserve)], wish(9, 9, Voter), &[2, 3, 9], "9=Learner");
        check(vec![member(9, 9, Reserve)], wish(9, 9, Learner), &[2, 3, 9], "9=Learner");
        check(vec![member(9, 2, Learner)], wish(9, 2, Voter), &[3, 9], "9=Voter -2");
        check(
            vec![member(8, 2, Learner), member(9, 2, Learner)],
            wish(9, 2, Voter),
            &[3, 9],
            "9=Voter -2 -8",
        );
        // Not where it says: nobody goes for it.
        check(vec![member(9, 2, Learner)], wish(9, 2, Voter), &[2, 3], "");
        // It is what it wants to be, or more.
        check(vec![member(9, 9, Learner)], wish(9, 9, Learner), &[9], "");
        check(vec![member(9, 9, Learner)], wish(9, 9, Reserve), &[9], "");
        check(vec![member(9, 9, Voter)], wish(9, 9, Voter), &[9], "");
        // The leader is where it is.
        check(vec![], wish(9, 1, Voter), &[2, 3], "");
        check(vec![member(9, 1, Learner)], wish(9, 1, Voter), &[2, 3, 9], "");
    }
}
