//! RequestVote (§3.4, §3.6.1).

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::{PeerMessage, RequestVote, RequestVoteReply};
use atomix_protocol::{EntryId, HardState, LocalTime, Round, ServerId};

use crate::role::{Ballot, Following, State};
use crate::{Raft, quorum};

impl Raft {
    /// Campaigns in the next term. The requests wait until term and own vote are durable, and so does the own vote (R2).
    pub(crate) fn start_election(&mut self, now: LocalTime, transfer: Option<(ServerId, Round)>) {
        let term = self.hard_state.term.next();
        if term == self.hard_state.term {
            return; // The last term there is: nobody can be elected any more.
        }
        self.counters.elections += 1;
        self.hard_state = HardState { term, voted_for: Some(self.server) };
        self.following = Following::default();
        self.snapshots.abandon();
        self.state = State::Candidate(Ballot { transfer, ..Ballot::default() });
        self.timers.stop_fast();
        self.timers.restart_election(now, &self.config, &mut self.rng);
        for to in quorum::log_holders(self.log.configuration()) {
            self.send_request_vote(to);
        }
    }

    pub(crate) fn send_request_vote(&mut self, to: ServerId) {
        let State::Candidate(ballot) = &self.state else { return };
        if to != self.server && !ballot.granted.contains(&to) && quorum::votes(self.log.configuration(), to) {
            let (term, last) = (self.hard_state.term, self.log.last());
            let transfer = ballot.transfer.map(|(_, round)| round);
            self.send(to, PeerMessage::RequestVote(RequestVote { term, last, transfer }));
        }
    }

    pub(crate) fn on_request_vote(&mut self, now: LocalTime, from: ServerId, message: &RequestVote) {
        // The TimeoutNow behind it came from the leader of the term before.
        let lifted = message.transfer.map(|round| (message.term.previous(), round));
        let bound = self.is_bound(now, lifted);
        let sticky = bound || (lifted.is_none() && self.is_sticky(now, from));
        if sticky && message.term > self.hard_state.term {
            // While a leader is alive, a later term is not even adopted (§4.2.3).
            self.marks.prevote_refused_sticky += 1;
            self.marks.promise_kept += u64::from(bound);
        } else {
            self.adopt_term(now, message.term);
        }
        let free = self.hard_state.voted_for.is_none_or(|candidate| candidate == from) && !bound;
        let would = message.term == self.hard_state.term && free && self.is_up_to_date(message.last);
        let granted = would && !self.abstains();
        self.marks.vote_abstained += u64::from(would && !granted);
        if granted {
            self.hard_state.voted_for = Some(from);
            self.timers.stop_fast();
            self.timers.restart_election(now, &self.config, &mut self.rng);
        }
        let reply = RequestVoteReply { term: self.hard_state.term, asked: message.term, granted };
        if Mutant::B02.active() {
            self.send_now(from, PeerMessage::RequestVoteReply(reply));
        } else {
            self.send(from, PeerMessage::RequestVoteReply(reply));
        }
    }

    pub(crate) fn on_request_vote_reply(&mut self, now: LocalTime, from: ServerId, reply: &RequestVoteReply) {
        self.adopt_term(now, reply.term);
        let current = self.hard_state.term;
        if let State::Candidate(ballot) = &mut self.state
            && reply.granted
            && reply.asked == current
        {
            ballot.granted.insert(from);
            self.count_votes(now);
        }
    }

    /// Whether a candidate's log is at least as up to date as this server's (§3.6.1): by term first, then by length.
    pub(crate) fn is_up_to_date(&self, last: EntryId) -> bool {
        let own = self.log.last();
        if Mutant::B14.active() {
            return (last.index, last.term) >= (own.index, own.term);
        }
        last >= own
    }

    /// Term and vote are durable: a candidate's own vote counts from now on (R2).
    pub(crate) fn count_own_vote(&mut self, now: LocalTime) {
        if let State::Candidate(ballot) = &mut self.state
            && self.durability.hard_state() == self.hard_state
        {
            ballot.granted.insert(self.server);
            self.count_votes(now);
        }
    }

    fn count_votes(&mut self, now: LocalTime) {
        if let State::Candidate(ballot) = &self.state
            && quorum::holds(self.log.configuration(), |id| ballot.granted.contains(&id))
        {
            self.lead(now);
        }
    }
}
