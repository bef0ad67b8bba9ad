//! TimeoutNow: the leader hands over (§3.10). Only the receiving side.

use atomix_protocol::peer::TimeoutNow;
use atomix_protocol::{LocalTime, ServerId};

use crate::Raft;
use crate::role::State;

impl Raft {
    /// Campaigns at once, without a pre-vote: the leader itself gives way.
    pub(crate) fn on_timeout_now(&mut self, now: LocalTime, from: ServerId, message: &TimeoutNow) {
        let from_leader = message.term == self.hard_state.term && self.following.leader == Some(from);
        if from_leader && !matches!(self.state, State::Leader(_)) && self.may_campaign() {
            self.start_election(now, Some(message.round));
        }
    }
}
