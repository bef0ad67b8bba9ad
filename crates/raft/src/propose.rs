//! Appending to the leader's log (§3.5, R5, R8).

use atomix_protocol::{Entry, EntryId, EntryKind, LocalTime, Term};
use bytes::Bytes;

use crate::role::State;
use crate::{Raft, Refused};

/// Commands leave this part of the memory bound, on top of it, to the leader's own entries: 1/8 (R5).
const RESERVE: u64 = 8;

impl Raft {
    /// Appends an entry to the leader's log. It goes out with the next [`Raft::drain`].
    ///
    /// `decided_in` is set for a decision of the leader itself and names the term in which it was made (R8).
    ///
    /// # Errors
    /// If nothing was appended.
    pub fn propose(
        &mut self,
        now: LocalTime,
        kind: EntryKind,
        payload: Bytes,
        decided_in: Option<Term>,
    ) -> Result<EntryId, Refused> {
        if !matches!(self.state, State::Leader(_)) {
            return Err(Refused::NotLeader { leader: self.leader() });
        }
        if decided_in.is_some_and(|term| term != self.hard_state.term) {
            return Err(Refused::StaleTerm);
        }
        if self.is_handing_over() {
            return Err(Refused::HandingOver);
        }
        let own = decided_in.is_some() || kind != EntryKind::Session;
        let bound = if own { self.own_entries_bound() } else { self.config.log_memory_bytes };
        if self.log.pinned_bytes() >= bound {
            self.marks.busy += 1;
            return Err(Refused::Busy);
        }
        Ok(self.append_own(now, kind, payload))
    }

    /// The memory bound for the leader's own entries.
    pub(crate) fn own_entries_bound(&self) -> u64 {
        let bound = self.config.log_memory_bytes;
        bound.saturating_add(bound / RESERVE)
    }

    /// Appends an entry of this term, stamped with cluster time (T1).
    pub(crate) fn append_own(&mut self, now: LocalTime, kind: EntryKind, payload: Bytes) -> EntryId {
        let id = EntryId::new(self.hard_state.term, self.log.last().index.next());
        self.log.append(Entry { id, time: self.clock.now(now), kind, payload });
        id
    }
}
