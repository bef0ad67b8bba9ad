//! A server whose log was damaged has no vote until the log is whole again (D4).
//!
//! What it acknowledged was counted, and part of it is lost. So it is to elections what a server is that is down: it gives no
//! vote, and asks for none. In everything else it is a follower: it acknowledges what is durable *now*, answers rounds, and takes
//! snapshots. That is safe, for an acknowledgement says two things: here is a copy, and nobody without it gets this vote. The copy
//! is lost, the second is kept to; so an entry that was committed by it is in the log of whoever is elected meanwhile.
//!
//! It ends when an entry of a leader's own term is known to be committed, and the log is that leader's, durably, as far as anything
//! may have been acknowledged or that leader's own log reaches. What was committed is in there, or follows from what is.

use atomix_protocol::{Index, ServerId};

use crate::Raft;
use crate::role::State;

impl Raft {
    /// Part of the log was damaged: this server has no vote until its log is whole again through here, or as far as that of
    /// a leader reaches, if that is shorter (D4).
    #[must_use]
    pub fn abstains_until(&self) -> Option<Index> {
        self.abstains_until
    }

    pub(crate) fn abstains(&self) -> bool {
        self.abstains_until.is_some()
    }

    /// The log of this term's leader reaches at least so far. What was sent to an earlier process on this disk never comes here,
    /// since its links ended with it: so whatever a leader had then, it names no less now.
    pub(crate) fn note_leaders_last(&mut self, last: Index) {
        let heard = &mut self.following.leaders_last;
        *heard = (*heard).max(Some(last));
    }

    /// Whether there is no reason to abstain any more, with the leader of this term.
    pub(crate) fn is_repaired(&self) -> bool {
        let (Some(until), Some(last)) = (self.abstains_until, self.following.leaders_last) else {
            return false;
        };
        // What this log holds behind an entry of the leader's own term is of that term as well: all of it agrees with the leader's.
        let own_term_committed = self.log.term(self.commit_index) == Some(self.hard_state.term);
        own_term_committed && self.durability.index() >= until.min(last)
    }

    /// Leader: a follower that turned out to have less than it acknowledged in this term, and does not abstain for it, as one does whose
    /// disk shows the damage. An older copy of its data directory was put in place, say: what was committed by it may be lost with the
    /// next leader. Told once each time that it is found.
    pub fn take_forgetful(&mut self) -> Option<ServerId> {
        match &mut self.state {
            State::Leader(leader) => leader.forgetful.take(),
            _ => None,
        }
    }

    /// Storage has forgotten the abstention, durably: this server votes again.
    pub(crate) fn end_abstention(&mut self) {
        if self.durability.take_lifted() {
            self.abstains_until = None;
            self.marks.abstention_ended += 1;
        }
    }
}
