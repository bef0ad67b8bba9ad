//! What is committed, and handing it on (§3.5, §3.6.2).

use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Index, LocalTime};

use crate::role::State;
use crate::{Output, Raft, quorum};

impl Raft {
    /// Leader: commits what a quorum holds durably, if it ends with an entry of this term. Entries of earlier terms are
    /// committed by that, never by counting (§3.6.2, Figure 3.7).
    pub(crate) fn advance_commit(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        let own = if Mutant::B05.active() { self.log.last().index } else { self.durability.index() };
        let durable = |id| {
            if id == self.server {
                own
            } else {
                leader.progress.get(&id).map_or(Index::ZERO, |p| p.match_index())
            }
        };
        let Some(index) = quorum::reached(self.log.configuration(), durable) else { return };
        if index <= self.commit_index {
            return;
        }
        if self.log.term(index) == Some(self.hard_state.term) || Mutant::B01.active() {
            self.commit_index = index;
            let joint = self.log.configuration().outgoing_voters.is_some();
            self.marks.committed_while_joint += u64::from(joint);
        } else {
            self.marks.old_term_entry_on_majority_uncommitted += 1;
        }
    }

    /// Follower: commits what the leader says, but nothing behind `through`, the last entry known to agree with the leader's
    /// (Figure 3.1, AppendEntries rule 5). Nothing while a snapshot is received (R6).
    pub(crate) fn follow_commit(&mut self, leader_commit: Index, through: Index) {
        let bound = if Mutant::B16.active() { self.log.last().index } else { through };
        if !self.snapshots.is_receiving() {
            self.commit_index = self.commit_index.max(leader_commit.min(bound));
        }
    }

    /// Hands on what was committed since the last time.
    pub(crate) fn hand_on(&mut self) {
        if self.handed < self.commit_index {
            let entries = self.log.slice(self.handed.next(), self.commit_index, u64::MAX);
            assert!(
                entries.len() as u64 == self.commit_index.since(self.handed),
                "server {} term {}: committed entries from {} on are not in memory",
                self.server,
                self.hard_state.term,
                self.handed.next()
            );
            self.handed = self.commit_index;
            self.outputs.push(Output::Committed { entries });
        }
    }

    /// All entries through `index` were applied.
    ///
    /// # Panics
    /// If they were not handed on: the caller has lost its place.
    pub fn applied(&mut self, index: Index) {
        assert!(
            index <= self.handed,
            "server {} term {}: applied {index} before it was handed on (through {})",
            self.server,
            self.hard_state.term,
            self.handed
        );
        while self.snapshots.applied.index < index {
            let next = self.snapshots.applied.index.next();
            let Some(entry) = self.log.get(next) else { break };
            self.snapshots.note_applied(entry);
        }
        self.release_memory();
    }

    /// Lets memory drop what is durable, committed and applied, oldest first, above the byte bound (R5).
    pub(crate) fn release_memory(&mut self) {
        let through = self.snapshots.applied.index.min(self.durability.index());
        self.log.release(through, self.config.log_memory_bytes);
        self.compact_log();
    }

    /// Whether this server leads and an entry of its own term is committed and applied.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(&self.state, State::Leader(leader) if leader.first <= self.snapshots.applied.index)
    }

    /// Whether a follower may serve reads of its applied state: it heard AppendEntries of the current term within
    /// `age` and has applied that message's commit index (Q4). An established leader may.
    #[must_use]
    pub fn is_fresh(&self, now: LocalTime, age: core::time::Duration) -> bool {
        match (&self.state, self.following.fresh) {
            (State::Leader(_), _) => self.is_established(),
            (_, Some((at, commit))) => now.since(at) <= age && commit <= self.snapshots.applied.index,
            (_, None) => false,
        }
    }
}
