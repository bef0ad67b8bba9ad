//! Rare events, counted so that a simulated batch can tell that it met them.

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
    /// A closed link made a follower ask for pre-votes early (R4).
    pub fast_prevote: u64,
    /// A proposal or received entries were refused at the memory bound (R5).
    pub busy: u64,
    /// A message that no correct server sends was ignored.
    pub hostile_refused: u64,
}
