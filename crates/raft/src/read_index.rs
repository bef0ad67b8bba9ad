//! Linearizable reads without a log entry, and the quorum rounds that confirm them (§6.4, Q3, S6).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Index, LocalTime, Round};

use crate::role::State;
use crate::{Output, Raft, Refused, quorum};

/// A leader's rounds, and the reads that wait for one.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The last round begun. Shared by everything that wants to know whether this server still leads.
    pub(crate) round: Round,
    /// The last round that a quorum answered.
    confirmed: Round,
    /// A round was begun and not sent yet.
    pub(crate) unsent: bool,
    /// Reads that no round was begun for.
    waiting: Vec<u64>,
    /// The same, but the lease is not enough for them.
    insisting: Vec<u64>,
    /// Reads in the order of their rounds.
    asked: VecDeque<Batch>,
    /// How many of `waiting` were already counted as waiting for the own-term entry.
    marked: usize,
}

/// The reads of one drain.
#[derive(Debug)]
struct Batch {
    round: Round,
    /// The commit index when the round began: what the reads must see.
    index: Index,
    reads: Vec<u64>,
}

impl Reads {
    /// All reads that were not confirmed.
    pub(crate) fn into_all(self) -> Vec<u64> {
        self.asked
            .into_iter()
            .flat_map(|batch| batch.reads)
            .chain(self.waiting)
            .chain(self.insisting)
            .collect()
    }

    /// Whether reads wait for the answer to a round.
    fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    fn begin(&mut self) {
        self.round = self.round.next();
        self.unsent = true;
    }

    /// A quorum answered `round`: the reads that it confirms, with what they must see. `None` if that is old news.
    fn confirm(&mut self, round: Round) -> Option<Vec<(Index, Vec<u64>)>> {
        if round <= self.confirmed {
            return None;
        }
        self.confirmed = round;
        let known = self.asked.iter().take_while(|batch| batch.round <= round).count();
        Some(self.asked.drain(..known).map(|batch| (batch.index, batch.reads)).collect())
    }
}

impl Raft {
    /// Asks for a linearizable read; [`Output::ReadsReady`] or [`Output::ReadsFailed`] will name it (Q3).
    ///
    /// # Errors
    /// If this server does not lead.
    pub fn read(&mut self, _now: LocalTime, read: u64) -> Result<(), Refused> {
        match &mut self.state {
            State::Leader(leader) => leader.reads.waiting.push(read),
            _ => return Err(Refused::NotLeader { leader: self.leader() }),
        }
        Ok(())
    }

    /// The same, but the lease is not enough: for a read whose answer came too late for that (R3).
    ///
    /// # Errors
    /// If this server does not lead.
    pub fn read_by_round(&mut self, _now: LocalTime, read: u64) -> Result<(), Refused> {
        match &mut self.state {
            State::Leader(leader) => leader.reads.insisting.push(read),
            _ => return Err(Refused::NotLeader { leader: self.leader() }),
        }
        Ok(())
    }

    /// Begins a round. It goes out with the next drain.
    pub(crate) fn begin_round(&mut self, now: LocalTime) {
        if let State::Leader(leader) = &mut self.state {
            leader.reads.begin();
            if leader.asks_for_promises() {
                leader.lease.begin(leader.reads.round, now);
            }
        }
    }

    /// Begins the round of a heartbeat. Reads whose round was not answered since the last one are confirmed by this
    /// one.
    pub(crate) fn begin_heartbeat_round(&mut self, now: LocalTime) {
        if let State::Leader(leader) = &mut self.state {
            self.marks.read_round_repeated += u64::from(leader.reads.are_asked());
            self.begin_round(now);
        }
    }

    /// Begins one round for all reads that came since the last drain, but for those that the lease is enough for.
    /// They wait until an entry of this term is committed: before that the commit index may lie behind what an
    /// earlier leader answered (§6.4, R1).
    pub(crate) fn begin_read_round(&mut self, now: LocalTime) {
        let leases = self.lease_holds(now);
        let State::Leader(leader) = &mut self.state else { return };
        let reads = &mut leader.reads;
        if reads.waiting.is_empty() && reads.insisting.is_empty() {
            return;
        }
        if self.commit_index < leader.first && !Mutant::B22.active() {
            self.marks.read_waited_for_own_term += (reads.waiting.len() - reads.marked) as u64;
            reads.marked = reads.waiting.len();
            return;
        }
        reads.marked = 0;
        let index = self.commit_index;
        if leases && !reads.waiting.is_empty() {
            let reads = core::mem::take(&mut reads.waiting);
            self.counters.reads_confirmed += reads.len() as u64;
            self.marks.read_by_lease += reads.len() as u64;
            self.outputs.push(Output::ReadsReady { reads, index, lease: true });
        }
        let mut asked = core::mem::take(&mut reads.insisting);
        asked.append(&mut reads.waiting);
        if asked.is_empty() {
            return;
        }
        // Fresh for each attempt: an answer to an earlier round says nothing of now (Q3).
        if !Mutant::B23.active() {
            self.begin_round(now);
        }
        if let State::Leader(leader) = &mut self.state {
            leader.reads.asked.push_back(Batch { round: leader.reads.round, index, reads: asked });
        }
        self.counters.read_rounds += 1;
    }

    /// Looks whether a quorum has answered a later round. This server has answered every round it began.
    pub(crate) fn confirm_rounds(&mut self) {
        self.extend_lease();
        let State::Leader(leader) = &mut self.state else { return };
        let (own, current) = (self.server, leader.reads.round);
        let answered =
            |id| if id == own { current } else { leader.progress.get(&id).map_or(Round::ZERO, |p| p.round) };
        let Some(round) = quorum::reached(self.log.configuration(), answered) else { return };
        let Some(confirmed) = leader.reads.confirm(round) else { return };
        self.outputs.push(Output::RoundConfirmed { term: self.hard_state.term, round });
        for (index, reads) in confirmed {
            self.counters.reads_confirmed += reads.len() as u64;
            self.outputs.push(Output::ReadsReady { reads, index, lease: false });
        }
    }

    /// When a quorum, this server included, was last heard by a leader.
    pub(crate) fn quorum_contact(&self, now: LocalTime) -> Option<LocalTime> {
        let State::Leader(leader) = &self.state else { return None };
        let contact = |id| {
            if id == self.server {
                now
            } else {
                leader.progress.get(&id).map_or(LocalTime::ZERO, |p| p.contact)
            }
        };
        quorum::reached(self.log.configuration(), contact)
    }

    /// A leader that no quorum has answered for an election timeout gives up (check-quorum, §6.2).
    pub(crate) fn check_quorum(&mut self, now: LocalTime) {
        let silent =
            self.quorum_contact(now).is_none_or(|at| now.since(at) >= self.config.election_timeout.0);
        if silent && !Mutant::B12.active() {
            self.marks.check_quorum_step_down += 1;
            self.follow(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_round_confirms_itself_and_those_before_once() {
        let mut reads = Reads::default();
        for (read, index) in [(10, 5), (11, 6), (12, 7)] {
            reads.begin();
            reads.asked.push_back(Batch { round: reads.round, index: Index(index), reads: vec![read] });
        }
        assert_eq!(reads.confirm(Round(0)), None);
        assert_eq!(reads.confirm(Round(2)), Some(vec![(Index(5), vec![10]), (Index(6), vec![11])]));
        assert_eq!(reads.confirm(Round(2)), None);
        assert_eq!(reads.confirm(Round(1)), None);
        reads.waiting.push(13);
        assert_eq!(reads.into_all(), [12, 13]);
    }
}
