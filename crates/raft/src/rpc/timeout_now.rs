//! TimeoutNow: the leader hands over (§3.10). Only the receiving side.

use atomix_protocol::peer::TimeoutNow;
use atomix_protocol::{LocalTime, ServerId};

use crate::Raft;
use crate::role::State;

impl Raft {
    /// Campaigns at once, without a pre-vote: the leader itself gives way. What was promised through the round that it names is
    /// lifted, and nothing else (R3). Of an earlier term, or to a leader, or to a server that does not vote, it means nothing.
    pub(crate) fn on_timeout_now(&mut self, now: LocalTime, from: ServerId, message: &TimeoutNow) {
        let from_leader = message.term == self.hard_state.term && self.following.leader == Some(from);
        let bound = self.is_bound(now, Some((message.term, message.round)));
        if from_leader && !bound && !matches!(self.state, State::Leader(_)) && self.is_eligible(now) {
            self.start_election(now, Some((from, message.round)));
        }
    }
}
