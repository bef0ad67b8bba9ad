//! Rare events, counted so that a simulated batch can tell that it met them.

use atomix_protocol::change::ChangeRefused;

/// How often something interesting happened since the start. No decision depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// A leader saw an entry of an older term on a quorum, and did not commit it by counting (§3.6.2).
    pub old_term_entry_on_majority_uncommitted: u64,
    /// A conflicting suffix was dropped (§3.5).
    pub suffix_truncated: u64,
    /// A read waited for the leader's first entry to commit (§6.4).
    pub read_waited_for_own_term: u64,
    /// A read's round was not confirmed by the next heartbeat and was asked again.
    pub read_round_repeated: u64,
    /// A leader was deposed while reads or entries of its own waited.
    pub leader_deposed_with_requests: u64,
    /// A pre-vote or vote was refused because a leader was heard (§4.2.3).
    pub prevote_refused_sticky: u64,
    /// A leader gave up because no quorum answered (§6.2).
    pub check_quorum_step_down: u64,
    /// A follower's pipeline was full (§10.2.2).
    pub window_full: u64,
    /// A received snapshot was put to use (§5).
    pub snapshot_installed: u64,
    /// A snapshot on its way in lost its sender between two chunks (R6).
    pub install_aborted: u64,
    /// Chunks of it came on from another server than those before.
    pub install_taken_over: u64,
    /// A leader went on with a transfer where an earlier one had ended, its own or another leader's.
    pub transfer_resumed: u64,
    /// Entries before the newest snapshot's index were sent: no snapshot was needed (R6).
    pub served_from_tail: u64,
    /// A closed link made a follower ask for pre-votes early (R4).
    pub fast_prevote: u64,
    /// A proposal or received entries were refused at the memory bound (R5).
    pub busy: u64,
    /// A vote or pre-vote was refused because of a promise (R3).
    pub promise_kept: u64,
    /// A promise was asked for that this server can't keep across a restart: it was not made (R3).
    pub promise_too_long: u64,
    /// A linearizable read was confirmed without a round (R3).
    pub read_by_lease: u64,
    /// Handing leadership over was begun (§3.10).
    pub hand_over_begun: u64,
    /// Nobody took over in time.
    pub hand_over_failed: u64,
    /// A leader handed over because its disk hung (D6).
    pub stalled_hand_over: u64,
    /// A leader gave up because its disk hung (D6).
    pub stalled_step_down: u64,
    /// A leader handed over to a server of greater priority.
    pub priority_hand_over: u64,
    /// A leader handed over because its disk was full (D5).
    pub full_hand_over: u64,
    /// A vote or pre-vote was not given because part of the log is lost (D4).
    pub vote_abstained: u64,
    /// A damaged log was whole again (D4).
    pub abstention_ended: u64,
    /// A follower turned out to hold less than it had acknowledged (D4).
    pub match_went_back: u64,
    /// A message that no correct server sends was ignored.
    pub hostile_refused: u64,
    /// A message of a server that was removed was ignored (I3).
    pub removed_ignored: u64,
    /// A configuration that was not committed went with the suffix that held it (§4.1).
    pub configuration_rolled_back: u64,
    /// A leader committed while both sides of a change had to agree (§4.3).
    pub committed_while_joint: u64,
    /// A leader completed a change that another had begun.
    pub change_completed_by_another: u64,
    /// A learner became a voter, for good.
    pub learner_promoted: u64,
    /// A leader found itself left out by the configuration that it had committed (§4.2.2).
    pub leader_removed_itself: u64,
    /// A change was refused, whatever for.
    pub change_refused: u64,
    /// A change was refused because the leader had committed nothing in its term yet (§4.1).
    pub change_refused_early: u64,
    /// A change was refused because another was under way.
    pub change_refused_pending: u64,
    /// A change was refused because it was meant for another configuration.
    pub change_refused_changed: u64,
    /// A change was refused because a learner had not caught up (§4.2.1).
    pub change_refused_behind: u64,
    /// A change was refused because too few of the new voters answered.
    pub change_refused_no_quorum: u64,
}

impl Marks {
    pub(crate) fn note_refused_change(&mut self, refused: &ChangeRefused) {
        self.change_refused += 1;
        match refused {
            ChangeRefused::NotEstablished => self.change_refused_early += 1,
            ChangeRefused::Pending(_) => self.change_refused_pending += 1,
            ChangeRefused::Changed(_) => self.change_refused_changed += 1,
            ChangeRefused::NotCaughtUp { .. } => self.change_refused_behind += 1,
            ChangeRefused::NoQuorum { .. } => self.change_refused_no_quorum += 1,
            _ => {}
        }
    }
}
