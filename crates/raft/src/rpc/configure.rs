//! Configure: the committed configuration, for members that hold no log (R7). Not answered.

use alloc::vec::Vec;

use atomix_protocol::peer::{Configure, PeerMessage};
use atomix_protocol::{Configuration, LocalTime, MemberKind, ServerId};

use crate::Raft;
use crate::log::later;
use crate::role::State;

/// Every so many heartbeats a reserve member is told again: what was lost is made up for.
const BEATS: u32 = 20;

impl Raft {
    // Sending.

    /// Leader: a configuration was committed.
    pub(crate) fn configure_reserves(&mut self) {
        self.reserves().into_iter().for_each(|to| self.send_configure(to));
    }

    /// Leader, with every heartbeat.
    pub(crate) fn remind_reserves(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let due = leader.beats.is_multiple_of(BEATS);
        leader.beats = leader.beats.wrapping_add(1);
        if due {
            self.configure_reserves();
        }
    }

    pub(crate) fn send_configure(&mut self, to: ServerId) {
        let configuration = &self.committed_configuration;
        let reserve = configuration.member(to).is_some_and(|member| member.kind == MemberKind::Reserve);
        if reserve && matches!(self.state, State::Leader(_)) {
            let configuration = configuration.clone();
            self.send(to, PeerMessage::Configure(Configure { term: self.hard_state.term, configuration }));
        }
    }

    fn reserves(&self) -> Vec<ServerId> {
        let members = self.committed_configuration.members.iter();
        let reserves = members.filter(|m| m.kind == MemberKind::Reserve && m.id != self.server);
        reserves.map(|member| member.id).collect()
    }

    // Receiving.

    /// What is committed holds for everyone. A server that holds a log gets it too if it was made a reserve while it
    /// was away.
    pub(crate) fn on_configure(&mut self, now: LocalTime, message: Configure) {
        let Configure { term, configuration } = message;
        if !could_be_configuration(&configuration) {
            self.marks.hostile_refused += 1;
            return;
        }
        if term < self.hard_state.term || matches!(self.state, State::Leader(_)) {
            return;
        }
        // What is known already ends a change that came since, with a tail that never was committed.
        self.log.know(later(configuration, self.committed_configuration.clone()));
        if !self.is_eligible(now) {
            self.follow(now);
        }
    }
}

/// Whether it could be a configuration of this cluster.
pub(super) fn could_be_configuration(configuration: &Configuration) -> bool {
    let ids = || configuration.members.iter().map(|member| member.id);
    let ascending = ids().zip(ids().skip(1)).all(|(id, next)| id < next);
    let given = ids().all(|id| id.0 < configuration.next_server_id);
    ascending && given && configuration.voters().next().is_some() && configuration.index.0 < u64::MAX
}
