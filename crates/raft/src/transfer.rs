//! Handing leadership over (§3.10): to a server that is named or to the one that is best placed, because an operator
//! wants it, because the own disk stalls (D6), is full or has failed (D5), or because another has a greater priority.

use core::cmp::Reverse;

use atomix_protocol::change::TransferRefused;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::{PeerMessage, TimeoutNow};
use atomix_protocol::{Index, LocalTime, MemberKind, ServerId};

use crate::role::State;
use crate::{Output, Raft};

/// A leader leads for so many election timeouts before it gives way to a greater priority: long enough that a cluster
/// which is falling over does not also pass leadership around.
const SETTLED: u32 = 5;
/// Between two attempts at that, or to find a leader with room, in election timeouts.
const PAUSE: u32 = 20;

/// Why leadership is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Asked,
    Disk,
    Full,
    Priority,
}

/// A hand-over under way.
#[derive(Debug)]
pub(crate) struct HandOver {
    to: ServerId,
    /// Given up then.
    until: LocalTime,
    cause: Cause,
    /// It was told to campaign. From then on nobody is asked for a promise: what a vote lifts is known (R3).
    pub(crate) told: bool,
}

/// A voter that answers, and could be elected.
#[derive(Clone, Copy, Debug)]
struct Successor {
    id: ServerId,
    priority: u8,
    durable: Index,
    room: bool,
}

impl Raft {
    /// Begins to hand over: takes no proposals until another leads, or until the longest election timeout has passed
    /// ([`Output::TransferFailed`](crate::Output::TransferFailed)). Returns who is to take over: with `None` the
    /// voter that answers, has room on its disk, the highest priority and the furthest log. It is told to campaign when it holds all of
    /// this leader's log durably.
    ///
    /// Meanwhile reads are confirmed by rounds only.
    ///
    /// # Errors
    /// If it is not begun; [`TransferRefused::Nobody`] also if the server named does not answer.
    pub fn transfer(&mut self, now: LocalTime, to: Option<ServerId>) -> Result<ServerId, TransferRefused> {
        let configuration = self.log.configuration();
        let State::Leader(leader) = &self.state else {
            let leader = self.leader().and_then(|id| configuration.member(id));
            return Err(TransferRefused::NotLeader { leader: leader.map(|m| m.client_address.clone()) });
        };
        if leader.hand_over.is_some() {
            return Err(TransferRefused::Pending);
        }
        // Its leader must see it through.
        if self.is_change_pending() {
            return Err(TransferRefused::Changing);
        }
        if let Some(to) = to.filter(|to| *to == self.server || !configuration.is_voter(*to)) {
            return Err(TransferRefused::NotATarget(to));
        }
        let eligible = self.successors(now).filter(|other| to.is_none_or(|to| to == other.id));
        let best =
            eligible.max_by_key(|other| (other.room, other.priority, other.durable, Reverse(other.id)));
        let Some(best) = best else { return Err(TransferRefused::Nobody) };
        self.hand_over(now, best.id, Cause::Asked);
        Ok(best.id)
    }

    /// Whether leadership is being handed over: nothing is proposed meanwhile.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.state, State::Leader(leader) if leader.hand_over.is_some())
    }

    /// Whether the one that is to take over was told to campaign.
    pub(crate) fn has_told_successor(&self) -> bool {
        matches!(&self.state, State::Leader(leader) if leader.hand_over.as_ref().is_some_and(|h| h.told))
    }

    /// The other voters that have answered within the shortest election timeout, and do not abstain (D4).
    fn successors(&self, now: LocalTime) -> impl Iterator<Item = Successor> + '_ {
        let progress = match &self.state {
            State::Leader(leader) => Some(&leader.progress),
            _ => None,
        };
        let members = &self.log.configuration().members;
        members.iter().filter(|m| m.kind == MemberKind::Voter && m.id != self.server).filter_map(move |m| {
            let progress = progress?.get(&m.id)?;
            let answers = progress.answered && now.since(progress.contact) < self.config.election_timeout.0;
            let (durable, room) = (progress.match_index(), progress.room);
            let eligible = answers && !progress.abstains;
            eligible.then_some(Successor { id: m.id, priority: m.priority, durable, room })
        })
    }

    fn hand_over(&mut self, now: LocalTime, to: ServerId, cause: Cause) {
        let until = now + self.config.election_timeout.1;
        if let State::Leader(leader) = &mut self.state {
            leader.hand_over = Some(HandOver { to, until, cause, told: false });
            self.marks.hand_over_begun += 1;
        }
        self.pursue_hand_over();
    }

    /// Tells the successor to campaign, once it holds all of this log durably: else it could not win (M15). The lease
    /// ends before that leaves; what it names is the last round that it lifts (R3).
    pub(crate) fn pursue_hand_over(&mut self) {
        let last = self.log.last().index;
        let State::Leader(leader) = &mut self.state else { return };
        let Some(hand_over) = &mut leader.hand_over else { return };
        let to = hand_over.to;
        if leader.progress.get(&to).is_none_or(|progress| progress.match_index() < last) {
            return;
        }
        hand_over.told = true;
        let round = leader.reads.round;
        leader.lease.give_up(round);
        self.send(to, PeerMessage::TimeoutNow(TimeoutNow { term: self.hard_state.term, round }));
    }

    /// Leader, with each heartbeat: ends a hand-over that came to nothing, and looks whether one is due.
    pub(crate) fn tend_leadership(&mut self, now: LocalTime) {
        self.end_late_hand_over(now);
        self.check_disk(now);
        self.yield_to_priority(now);
    }

    fn end_late_hand_over(&mut self, now: LocalTime) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(late) = leader.hand_over.take_if(|hand_over| now >= hand_over.until) else { return };
        self.marks.hand_over_failed += 1;
        if late.cause == Cause::Asked {
            self.outputs.push(Output::TransferFailed { to: late.to });
        }
    }

    /// A leader whose disk hangs hands over to the voter with the furthest durable log, and gives up if that comes to
    /// nothing (D6). It can go without the disk: neither changes its term or vote. Until then it commits by others'
    /// copies (§10.2.1). Not if nobody else votes.
    fn check_disk(&mut self, now: LocalTime) {
        let stalled =
            self.is_disk_stalled(now) && self.log.configuration().voters().any(|id| id != self.server);
        let longest = self.config.election_timeout.1;
        let place = |other: &Successor| (other.durable, other.room, other.priority, Reverse(other.id));
        let best = self.successors(now).max_by_key(place);
        let State::Leader(leader) = &mut self.state else { return };
        if !stalled || Mutant::B36.active() {
            leader.stalled = None;
            return;
        }
        let since = *leader.stalled.get_or_insert(now);
        if now.since(since) >= longest {
            self.marks.stalled_step_down += 1;
            self.follow(now);
        } else if let Some(best) = best.filter(|_| leader.hand_over.is_none()) {
            self.marks.stalled_hand_over += 1;
            self.hand_over(now, best.id, Cause::Disk);
        }
    }

    /// Whether a write has been outstanding for longer than the shortest election timeout (D6).
    pub(crate) fn is_disk_stalled(&self, now: LocalTime) -> bool {
        self.durability.outstanding_for(now).is_some_and(|time| time > self.config.election_timeout.0)
    }

    /// A leader whose disk is full takes no commands: it gives way to a voter that has room and has caught up (D5). Not again for a
    /// while, whoever led meanwhile: disks that fill up in turn must not pass leadership around.
    pub(crate) fn yield_for_room(&mut self, now: LocalTime) {
        let State::Leader(leader) = &self.state else { return };
        let later = now < self.yield_full_at || leader.hand_over.is_some() || leader.stalled.is_some();
        if self.room || later || self.commit_index < leader.first || self.is_change_pending() {
            return;
        }
        let roomy = self.successors(now).filter(|other| other.room && other.durable >= self.commit_index);
        let Some(best) = roomy.max_by_key(|other| (other.priority, other.durable, Reverse(other.id))) else {
            return;
        };
        self.yield_full_at = now + self.config.election_timeout.1 * PAUSE;
        self.marks.full_hand_over += 1;
        self.hand_over(now, best.id, Cause::Full);
    }

    /// The disk has failed for good (D5). A leader says a last word: the voter that is placed best is to campaign, for which
    /// this server needs no disk. Its lease ends before that leaves. Nothing can be asked of it behind that.
    #[must_use]
    pub fn abdicate(mut self, now: LocalTime) -> Option<(ServerId, PeerMessage)> {
        let place = |other: &Successor| (other.durable, other.room, other.priority, Reverse(other.id));
        let caught_up = self.successors(now).filter(|other| other.durable >= self.commit_index);
        let best = caught_up.max_by_key(place)?;
        if self.has_told_successor() {
            return None;
        }
        let State::Leader(leader) = &mut self.state else { return None };
        let round = leader.reads.round;
        leader.lease.give_up(round);
        Some((best.id, PeerMessage::TimeoutNow(TimeoutNow { term: self.hard_state.term, round })))
    }

    /// Gives way to a voter of greater priority that has caught up. Never to the one that gave leadership to this
    /// server, in the same term: it had a reason.
    fn yield_to_priority(&mut self, now: LocalTime) {
        let longest = self.config.election_timeout.1;
        let State::Leader(leader) = &self.state else { return };
        let settled = now.since(leader.since) >= longest * SETTLED && now >= leader.yield_at;
        if !settled || leader.hand_over.is_some() || leader.stalled.is_some() || self.is_change_pending() {
            return;
        }
        let Some(own) = self.log.configuration().member(self.server).map(|m| m.priority) else { return };
        let given_by = leader.given_by;
        let caught_up = self.successors(now).filter(|other| {
            let caught_up = other.durable >= self.commit_index && other.room;
            other.priority > own && caught_up && Some(other.id) != given_by
        });
        let Some(best) = caught_up.max_by_key(|other| (other.priority, other.durable, Reverse(other.id)))
        else {
            return;
        };
        if let State::Leader(leader) = &mut self.state {
            leader.yield_at = now + longest * PAUSE;
        }
        self.marks.priority_hand_over += 1;
        self.hand_over(now, best.id, Cause::Priority);
    }
}
