//! Changes of the configuration: one at a time, through joint consensus if the voters change, learners first
//! (§4.1–§4.4, R7).

mod departure;
mod target;

use alloc::vec::Vec;

use atomix_protocol::change::{Change, ChangeRefused, Plan, Tolerance};
use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{Address, Configuration, EntryId, EntryKind, Index, LocalTime, ServerId, codec};

use crate::role::State;
use crate::{Output, Raft, quorum};
use target::{completed, joint, promoted, target};

pub(crate) use departure::Departure;

impl Raft {
    /// What a change would do, and whether it would be refused now.
    #[must_use]
    pub fn plan(&self, now: LocalTime, change: &Change) -> Plan {
        let current = self.log.configuration();
        let target = target(current, change);
        let refused = self.check_change(now, change, target.as_ref()).err();
        let configuration = target.unwrap_or_else(|_| current.clone());
        let during = joint(current, &configuration).map(|joint| self.tolerance(now, &joint));
        let (before, after) = (self.tolerance(now, current), self.tolerance(now, &configuration));
        Plan { configuration, before, during, after, refused }
    }

    /// Begins a change. It is complete when [`Output::ConfigurationCommitted`](crate::Output::ConfigurationCommitted)
    /// names a configuration that is not joint, at or behind the index returned.
    ///
    /// # Errors
    /// If nothing was done.
    pub fn change(&mut self, now: LocalTime, change: &Change) -> Result<EntryId, ChangeRefused> {
        let target = target(self.log.configuration(), change);
        if let Err(refused) = self.check_change(now, change, target.as_ref()) {
            self.marks.note_refused_change(&refused);
            return Err(refused);
        }
        let target = target?;
        let next = joint(self.log.configuration(), &target).unwrap_or(target);
        Ok(self.append_configuration(now, next))
    }

    /// Why a change that leads to `target` is refused now, if it is.
    fn check_change(
        &self,
        now: LocalTime,
        change: &Change,
        target: Result<&Configuration, &ChangeRefused>,
    ) -> Result<(), ChangeRefused> {
        let current = self.log.configuration();
        let State::Leader(leader) = &self.state else {
            return Err(ChangeRefused::NotLeader { leader: self.leader_address() });
        };
        // Without it two leaders in turn could each change a configuration that the other does not know of (§4.1).
        if self.commit_index < leader.first && !Mutant::B19.active() {
            return Err(ChangeRefused::NotEstablished);
        }
        if self.is_handing_over() {
            return Err(ChangeRefused::HandingOver);
        }
        if self.is_change_pending() {
            return Err(ChangeRefused::Pending(current.index));
        }
        if change.expected != current.index {
            return Err(ChangeRefused::Changed(current.index));
        }
        let target = target.map_err(Clone::clone)?;
        for server in promoted(current, target) {
            self.check_caught_up(now, server)?;
        }
        // A quorum of the new voters that is down would stop the cluster as soon as the change begins (fault M8).
        let Tolerance { voters, quorum, answering, .. } = self.tolerance(now, target);
        if answering < quorum {
            return Err(ChangeRefused::NoQuorum { answering, voters });
        }
        if self.log.pinned_bytes() >= self.own_entries_bound() {
            return Err(ChangeRefused::Busy);
        }
        Ok(())
    }

    /// Where clients reach the leader that is known.
    fn leader_address(&self) -> Option<Address> {
        let leader = self.log.configuration().member(self.leader()?)?;
        Some(leader.client_address.clone())
    }

    /// Whether a server could vote without holding anyone up (§4.2.1): it answers, and holds what was the whole log
    /// an election timeout ago. That is the last of the rounds of §4.2.1, and it took no longer than that.
    fn check_caught_up(&self, now: LocalTime, server: ServerId) -> Result<(), ChangeRefused> {
        let State::Leader(leader) = &self.state else { return Ok(()) };
        let progress = leader.progress.get(&server);
        let matched = progress.map_or(Index::ZERO, |progress| progress.match_index());
        // Who abstains would count among those that a majority is taken of, and not vote (D4).
        let votes = progress.is_some_and(|progress| !progress.abstains);
        let earlier = leader.last_at();
        if matched >= earlier && votes && self.answers(now, server) {
            return Ok(());
        }
        Err(ChangeRefused::NotCaughtUp { server, behind: self.log.last().index.since(matched) })
    }

    /// Whether a server has answered this leader within an election timeout.
    fn answers(&self, now: LocalTime, server: ServerId) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let recent = |contact: LocalTime| now.since(contact) < self.config.election_timeout.0;
        server == self.server || leader.progress.get(&server).is_some_and(|p| p.answered && recent(p.contact))
    }

    fn tolerance(&self, now: LocalTime, configuration: &Configuration) -> Tolerance {
        quorum::tolerance(configuration, |server| self.answers(now, server))
    }

    /// Whether a configuration is on its way: in the log and not committed, or joint.
    #[must_use]
    pub fn is_change_pending(&self) -> bool {
        !self.is_configuration_committed() || self.log.configuration().outgoing_voters.is_some()
    }

    /// Whether the configuration in use is known to be committed: the log is so far, or it was said before a restart or by
    /// Configure.
    pub(crate) fn is_configuration_committed(&self) -> bool {
        self.log.configuration().index <= self.commit_index.max(self.committed_configuration.index)
    }

    fn append_configuration(&mut self, now: LocalTime, mut configuration: Configuration) -> EntryId {
        configuration.index = self.log.last().index.next();
        let payload = codec::to_bytes(&configuration);
        let id = self.append_own(now, EntryKind::Configuration, payload);
        self.follow_members(now);
        id
    }

    /// Leader: takes a change that is under way to its end. Whoever leads does, once an entry of its own is
    /// committed: the one who began it may be gone (fault M3).
    pub(crate) fn tend_change(&mut self, now: LocalTime) {
        let State::Leader(leader) = &self.state else { return };
        let configuration = self.log.configuration();
        if self.commit_index < leader.first.max(configuration.index) {
            return;
        }
        if configuration.outgoing_voters.is_some() {
            let adopted = self.log.term(configuration.index) != Some(self.hard_state.term);
            self.marks.change_completed_by_another += u64::from(adopted);
            let outgoing = configuration.outgoing_voters.as_deref().unwrap_or_default();
            let new = configuration.voters().filter(|id| !outgoing.contains(id)).count();
            self.marks.learner_promoted += new as u64;
            let next = completed(configuration);
            self.append_configuration(now, next);
        } else if !configuration.is_voter(self.server) {
            self.give_way(now);
        }
    }

    /// What was committed since the last time, in order, for the caller and for the reserve members.
    pub(crate) fn take_committed_configurations(&mut self) -> Vec<Output> {
        let since = self.committed_configuration.index;
        let news: Vec<Configuration> =
            self.log.committed_configurations(since, self.commit_index).cloned().collect();
        if let Some(latest) = news.last() {
            self.committed_configuration = latest.clone();
            self.configure_reserves();
        }
        news.into_iter().map(|configuration| Output::ConfigurationCommitted { configuration }).collect()
    }

    /// Whether this server listens to another. A server that is behind may not know yet who leads, or who campaigns:
    /// whoever was not removed is heard (§4.1). Ids are given in order and never twice, so one that was given and is
    /// no member was removed (I3), and disturbs nobody any more. But the leader of this term is heard until another
    /// leads, while it hands over because it has left; and a leader hears the answers of those whom it tells that
    /// they have.
    pub(crate) fn hears(&self, from: ServerId, message: &PeerMessage) -> bool {
        let (committed, latest) = (&self.committed_configuration, self.log.configuration());
        let answers =
            matches!(message, PeerMessage::AppendEntriesReply(_) | PeerMessage::InstallSnapshotReply(_));
        let told = matches!(&self.state, State::Leader(leader) if leader.progress.contains_key(&from));
        from.0 >= committed.next_server_id
            || committed.member(from).is_some()
            || latest.member(from).is_some()
            || self.following.leader == Some(from)
            || (answers && told)
    }
}
