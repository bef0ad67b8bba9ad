//! What interesting has happened at a server, so that a simulator can tell an eventful run from a vacuous one.

use atomix_protocol::Index;

/// How often the interesting cases were met since this server came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Retries answered with a reply that an earlier leader's entry earned.
    pub retries_after_failover: u64,
    /// Retries answered with a reply whose entry was in the log when this server came up.
    pub retries_after_restart: u64,
    /// Retries answered with a reply that came here in a snapshot.
    pub retries_after_snapshot: u64,
    /// Sessions that ended for silence.
    pub sessions_expired: u64,
    /// Times that this server lost leadership while clients waited for it.
    pub deposed_in_flight: u64,
    /// Gaps answered (S3).
    pub gaps: u64,
    /// Commands refused before the log (S4).
    pub not_logged: u64,
    /// Links of a session replaced by a later one.
    pub links_replaced: u64,
    /// Reads that had to wait for an index or a sequence (Q1).
    pub reads_waited: u64,
    /// Reads sent elsewhere (Q4).
    pub reads_redirected: u64,
    /// Own snapshots given up for one that was being received (R6).
    pub snapshots_abandoned: u64,
    /// Time entries proposed (T2, S9).
    pub time_entries: u64,
    /// Indexes with events sent to sessions (E1).
    pub events_sent: u64,
    /// Those of them that were published before the link was attached that carried them (E4).
    pub events_resent: u64,
    /// Acknowledge entries that trimmed something, applied as leader (E2).
    pub acknowledge_entries: u64,
    /// Sessions given up, as leader (E3).
    pub overflows: u64,
    /// Replies held for acknowledgements (E6).
    pub replies_held: u64,
    /// Levels that this leader began to raise (M3).
    pub levels_raised: u64,
    /// Processes refused because an older one with their identity lives (I5).
    pub duplicate_refused: u64,
    /// Interrupted bootstraps that this server resumed (I2).
    pub bootstrap_resumed: u64,
    /// Times that this server found itself outside of a cluster (I2).
    pub joiner: u64,
    /// Servers that this leader began to take in (R7).
    pub joins: u64,
    /// Learners that it began to promote because they wish it.
    pub promotions: u64,
    /// Records of wiped servers that it began to remove for those that came in their place (I3).
    pub replacements: u64,
    /// Times that this server was taken in by a cluster that it joined.
    pub taken_in: u64,
    /// Times that it learned that it was removed.
    pub left: u64,
    /// Handshakes of removed servers, or of directories that took their place, that were refused (I5).
    pub removed_refused: u64,
    /// Times that it handed over because it was to be shut down.
    pub handed_over_at_shutdown: u64,
    /// Sessions whose commands were kept waiting by a hand-over that came to nothing.
    pub resumed_after_hand_over: u64,
    /// Linearizable reads that only the lease vouched for (R3).
    pub reads_by_lease: u64,
    /// Those whose answer came too late for it, or that waited too long: they were confirmed by a round after all.
    pub reads_too_late: u64,
    /// Commands and openings refused because the disk was full (D5).
    pub full_refused: u64,
    /// The last entry that was in the log, or in the snapshot, when this server came up.
    pub(crate) recovered_index: Index,
    /// The last entry in the snapshot that the state was last restored from.
    pub(crate) restored_index: Index,
}
