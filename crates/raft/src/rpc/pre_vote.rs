//! PreVote: may I campaign? (§9.6). Changes nothing at the receiver, so a server that was cut off disturbs nobody.

use alloc::collections::BTreeSet;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::{PeerMessage, PreVote, PreVoteReply};
use atomix_protocol::{LocalTime, ServerId};

use crate::role::{Ballot, State};
use crate::{Raft, quorum};

impl Raft {
    /// Asks everyone whether a campaign could win.
    pub(crate) fn start_pre_vote(&mut self, now: LocalTime) {
        if Mutant::B12.active() {
            return self.start_election(now, None);
        }
        self.following.lost = true;
        self.abandon_snapshot();
        let refused = match &mut self.state {
            State::PreCandidate(before) => core::mem::take(&mut before.refused),
            _ => BTreeSet::new(),
        };
        self.state = State::PreCandidate(Ballot { granted: [self.server].into(), refused, transfer: None });
        for to in quorum::log_holders(self.log.configuration()) {
            self.send_pre_vote(to);
        }
        self.count_pre_votes(now);
    }

    pub(crate) fn send_pre_vote(&mut self, to: ServerId) {
        if to != self.server && quorum::votes(self.log.configuration(), to) {
            let message = PreVote { term: self.hard_state.term.next(), last: self.log.last() };
            self.send(to, PeerMessage::PreVote(message));
        }
    }

    pub(crate) fn on_pre_vote(&mut self, now: LocalTime, from: ServerId, message: &PreVote) {
        if Mutant::B13.active() {
            self.hard_state.voted_for = None;
        }
        let sticky = self.is_sticky(now, from) || self.is_bound(now, None);
        let eligible = message.term > self.hard_state.term && self.is_up_to_date(message.last);
        if eligible && sticky {
            self.marks.prevote_refused_sticky += 1;
            self.marks.promise_kept += u64::from(self.is_bound(now, None));
        }
        let granted = eligible && !sticky && !self.abstains();
        self.marks.vote_abstained += u64::from(eligible && !sticky && !granted);
        if granted {
            self.timers.postpone_fast(now, &mut self.rng);
        }
        let current = self.hard_state.term;
        let reply = PreVoteReply { asked: message.term, granted, current, sticky: eligible && sticky };
        self.send(from, PeerMessage::PreVoteReply(reply));
    }

    pub(crate) fn on_pre_vote_reply(&mut self, now: LocalTime, from: ServerId, reply: &PreVoteReply) {
        let asked = self.hard_state.term.next();
        let ballot = match &mut self.state {
            State::PreCandidate(ballot) if reply.asked == asked => Some(ballot),
            _ => None,
        };
        if !reply.granted {
            if let Some(ballot) = ballot.filter(|_| !reply.sticky) {
                ballot.refused.insert(from);
            }
            // A later term is learned even from a refusal: else a server behind in term could never win (fault N7).
            return self.adopt_term(now, reply.current);
        }
        if let Some(ballot) = ballot {
            ballot.refused.remove(&from);
            ballot.granted.insert(from);
            self.count_pre_votes(now);
        }
    }

    fn count_pre_votes(&mut self, now: LocalTime) {
        if let State::PreCandidate(ballot) = &self.state
            && quorum::holds(self.log.configuration(), |id| ballot.granted.contains(&id))
        {
            self.start_election(now, None);
        }
    }
}
