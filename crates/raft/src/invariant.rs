//! The local part of Figure 3.2 and of the order between the indexes, checked after every step; cheap enough to stay on.

use atomix_protocol::mutant::Mutant;
use atomix_protocol::{HardState, Index};

use crate::role::State;
use crate::{Raft, Role};

/// What may only grow, as it was at the last check.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    hard_state: HardState,
    commit_index: Index,
    /// Last entry, while leading: a leader never overwrites or deletes its own entries (leader append-only).
    leads_through: Option<Index>,
}

impl Raft {
    /// Compares the state with itself and with what it was.
    ///
    /// # Panics
    /// If an invariant is broken: going on could lose committed entries.
    pub(crate) fn check_invariants(&mut self) {
        let durable = self.durability.hard_state();
        let applied = self.snapshots.applied.index;
        let last = self.log.last();
        let voted_again = self.hard_state.term == self.checked.hard_state.term
            && self.checked.hard_state.voted_for.is_some()
            && self.hard_state.voted_for != self.checked.hard_state.voted_for;
        let leads_through = (self.role() == Role::Leader).then_some(last.index);
        let shrank = self.hard_state.term == self.checked.hard_state.term
            && leads_through.is_some()
            && leads_through < self.checked.leads_through;
        let rules = [
            ("the term never goes back", self.hard_state.term >= self.checked.hard_state.term),
            ("one vote per term", !voted_again || Mutant::B13.active()),
            ("the durable term is not ahead", durable.term <= self.hard_state.term),
            ("entries belong to known terms", last.term <= self.hard_state.term),
            ("the commit index never goes back", self.commit_index >= self.checked.commit_index),
            ("snapshot <= applied", self.snapshots.published_index() <= applied),
            ("applied <= handed on", applied <= self.handed),
            ("handed on <= committed", self.handed <= self.commit_index),
            ("committed <= last", self.commit_index <= last.index),
            ("durable <= last", self.durability.index() <= last.index),
            ("a leader's log only grows", !shrank),
            ("followers match no more than the leader has", self.matches_within(last.index)),
            ("one change at a time", self.changes_one_at_a_time()),
            ("who abstains follows", !self.abstains() || self.role() == Role::Follower),
        ];
        if let Some((rule, _)) = rules.iter().find(|(_, holds)| !holds) {
            panic!(
                "server {} term {} index {}: broken invariant: {rule} (committed {}, handed on {}, applied {applied}, durable {}, last {last:?}, {:?} after {:?})",
                self.server,
                self.hard_state.term,
                last.index,
                self.commit_index,
                self.handed,
                self.durability.index(),
                self.hard_state,
                self.checked.hard_state,
            );
        }
        self.checked =
            Checked { hard_state: self.hard_state, commit_index: self.commit_index, leads_through };
    }

    /// A leader puts a configuration behind a committed one only: joint if the voters change, and nothing but the end of it behind
    /// a joint one (R7, §4.3).
    fn changes_one_at_a_time(&self) -> bool {
        let State::Leader(leader) = &self.state else { return true };
        let latest = self.log.configuration();
        let Some(before) = self.log.configuration_before().filter(|_| latest.index >= leader.first) else {
            return true;
        };
        let same = latest.voters().eq(before.voters());
        before.index <= self.commit_index
            && match (&before.outgoing_voters, &latest.outgoing_voters) {
                (None, Some(outgoing)) => before.voters().eq(outgoing.iter().copied()),
                (_, None) => same,
                (Some(_), Some(_)) => false,
            }
    }

    fn matches_within(&self, last: Index) -> bool {
        let State::Leader(leader) = &self.state else { return true };
        leader.progress.values().all(|progress| {
            progress.match_index() < progress.next_index() && progress.next_index() <= last.next()
        })
    }
}
