//! What others may know of the machine.

use atomix_protocol::status::Counters;
use atomix_protocol::{
    ClusterTime, Configuration, Entry, EntryId, HardState, Index, LocalTime, Round, ServerId, Term,
};

use crate::role::State;
use crate::{Marks, Raft, Role, quorum};

impl Raft {
    /// The last round this leader began. A contact received now is confirmed by a later one (S6).
    #[must_use]
    pub fn round(&self) -> Round {
        match &self.state {
            State::Leader(leader) => leader.reads.round,
            _ => Round::ZERO,
        }
    }

    /// Cluster time now: what an entry proposed now would carry, or what was last heard (T1).
    #[must_use]
    pub fn cluster_time(&self, now: LocalTime) -> ClusterTime {
        self.clock.now(now)
    }

    /// This server.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Its term and vote, durable or not.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Its durable term and vote.
    #[must_use]
    pub fn durable_hard_state(&self) -> HardState {
        self.durability.hard_state()
    }

    /// The leader it knows.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        self.following.leader.filter(|_| !self.following.lost)
    }

    /// Last entry of its log.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.log.last()
    }

    /// Last entry that is durable here.
    #[must_use]
    pub fn durable_index(&self) -> Index {
        self.durability.index()
    }

    /// Last entry known committed.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// Last entry applied.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.snapshots.applied.index
    }

    /// Last entry in the newest snapshot.
    #[must_use]
    pub fn snapshot_index(&self) -> Index {
        self.snapshots.published_index()
    }

    /// Voters that answered this server that it could not win, though they know of no leader: their logs reach farther than its own, or
    /// they abstain (D4). They may have fallen silent since.
    pub fn refused_by(&self) -> impl Iterator<Item = ServerId> + '_ {
        let refused = match &self.state {
            State::PreCandidate(ballot) => Some(&ballot.refused),
            _ => None,
        };
        refused.into_iter().flatten().copied()
    }

    /// Whether those servers are a majority of the voters, on both sides of a change (§4.3).
    pub fn is_majority(&self, of: impl Fn(ServerId) -> bool) -> bool {
        quorum::holds(self.log.configuration(), of)
    }

    /// Followers with the last entry that this leader believes to be durable there; none if it does not lead.
    pub fn matches(&self) -> impl Iterator<Item = (ServerId, Index)> + '_ {
        let progress = match &self.state {
            State::Leader(leader) => Some(&leader.progress),
            _ => None,
        };
        progress.into_iter().flatten().map(|(id, progress)| (*id, progress.match_index()))
    }

    /// The configuration in use: the latest in the log, committed or not (§4.1).
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        self.log.configuration()
    }

    /// The latest configuration that is known to be committed. The one in use may be another.
    #[must_use]
    pub fn committed_configuration(&self) -> &Configuration {
        &self.committed_configuration
    }

    /// The entry at an index, if memory holds it.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(index)
    }

    /// The term of the entry at an index, if it is known: from the newest snapshot on, at least.
    #[must_use]
    pub fn entry_term(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    /// The counters that consensus keeps; the rest are zero.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Rare events, counted.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }
}
