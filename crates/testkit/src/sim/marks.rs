//! What servers count themselves, as situations of the run.

use super::Profile;
use super::coverage::Mark;
use super::network::Node;
use super::server::Machine;
use super::world::World;

impl World {
    /// What the deciders themselves have counted since the last look.
    pub(super) fn take_marks(&mut self, server: Node) {
        let Some(process) = self.servers[server].process.as_mut() else { return };
        let coverage = &mut self.coverage;
        if let Some(now) = process.machine.raft().map(|raft| *raft.marks()) {
            let was = std::mem::replace(&mut process.raft_marks, now);
            coverage.mark(
                Mark::ReadWaitedForOwnTerm,
                now.read_waited_for_own_term - was.read_waited_for_own_term,
            );
            coverage.mark(Mark::ReadRoundRepeated, now.read_round_repeated - was.read_round_repeated);
            coverage.mark(Mark::PreVoteSticky, now.prevote_refused_sticky - was.prevote_refused_sticky);
            coverage.mark(Mark::CheckQuorum, now.check_quorum_step_down - was.check_quorum_step_down);
            coverage.mark(Mark::InstallAborted, now.install_aborted - was.install_aborted);
            coverage.mark(Mark::TransferResumed, now.transfer_resumed - was.transfer_resumed);
            coverage.mark(Mark::InstallTakenOver, now.install_taken_over - was.install_taken_over);
            coverage.mark(Mark::ServedFromTail, now.served_from_tail - was.served_from_tail);
            coverage.mark(Mark::HandOverBegun, now.hand_over_begun - was.hand_over_begun);
            coverage.mark(Mark::HandOverFailed, now.hand_over_failed - was.hand_over_failed);
            coverage.mark(Mark::PriorityHandOver, now.priority_hand_over - was.priority_hand_over);
            coverage.mark(Mark::ReadByLease, now.read_by_lease - was.read_by_lease);
            coverage.mark(Mark::PromiseKept, now.promise_kept - was.promise_kept);
            coverage.mark(Mark::HostileRefused, now.hostile_refused - was.hostile_refused);
            coverage.mark(Mark::RemovedIgnored, now.removed_ignored - was.removed_ignored);
            coverage.mark(Mark::RefusedEarly, now.change_refused_early - was.change_refused_early);
            coverage.mark(Mark::RefusedBehind, now.change_refused_behind - was.change_refused_behind);
            coverage.mark(Mark::RefusedPending, now.change_refused_pending - was.change_refused_pending);
            coverage.mark(Mark::RefusedNoQuorum, now.change_refused_no_quorum - was.change_refused_no_quorum);
            coverage.mark(Mark::FullHandOver, now.full_hand_over - was.full_hand_over);
            coverage.mark(Mark::VoteAbstained, now.vote_abstained - was.vote_abstained);
            coverage.mark(Mark::MatchWentBack, now.match_went_back - was.match_went_back);
            if self.profile == Profile::Core {
                coverage.mark(Mark::WindowFull, now.window_full - was.window_full);
                let deposed = now.leader_deposed_with_requests - was.leader_deposed_with_requests;
                coverage.mark(Mark::DeposedWithRequests, deposed);
            }
        }
        if let Machine::Full(engine) = &process.machine {
            let now = *engine.marks();
            let was = std::mem::replace(&mut process.engine_marks, now);
            coverage.mark(Mark::RetryAfterFailover, now.retries_after_failover - was.retries_after_failover);
            coverage.mark(Mark::RetryAfterRestart, now.retries_after_restart - was.retries_after_restart);
            coverage.mark(Mark::RetryAfterSnapshot, now.retries_after_snapshot - was.retries_after_snapshot);
            coverage.mark(Mark::DeposedWithRequests, now.deposed_in_flight - was.deposed_in_flight);
            coverage.mark(Mark::EventResent, now.events_resent - was.events_resent);
            coverage.mark(Mark::RemovedRefused, now.removed_refused - was.removed_refused);
            let handed_over = now.handed_over_at_shutdown - was.handed_over_at_shutdown;
            coverage.mark(Mark::HandedOverAtShutdown, handed_over);
        }
    }
}
