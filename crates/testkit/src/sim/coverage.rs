//! What was met: faults by class and interesting situations, so that a batch that met too little fails as vacuous.

use super::Profile;
use super::faults::Class;

/// Situations that a batch must have met at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// An entry of an earlier term was durable on a majority and yet uncommitted.
    OldTermOnMajority,
    /// A suffix of a log was truncated.
    SuffixTruncated,
    /// A read waited for the leader's own-term entry.
    ReadWaitedForOwnTerm,
    /// A read's round had to be repeated.
    ReadRoundRepeated,
    /// A leader was deposed with requests in flight.
    DeposedWithRequests,
    /// A retry was answered from the table by another leader than the one that applied it.
    RetryAfterFailover,
    /// A retry was answered from the table by a server that had restarted since.
    RetryAfterRestart,
    /// A retry was answered from a table that had come from a snapshot.
    RetryAfterSnapshot,
    /// A session expired.
    SessionExpired,
    /// A torn tail was found at a start.
    TornTail,
    /// A vote that was not yet synced was lost in a crash.
    UnsyncedVoteLost,
    /// A pre-vote was refused by stickiness.
    PreVoteSticky,
    /// A leader that heard no majority stepped down.
    CheckQuorum,
    /// A client's window was full.
    WindowFull,
    /// A snapshot was installed.
    SnapshotInstalled,
    /// Events were sent again after a reconnection.
    EventResent,
    /// A client dropped an event that it had.
    EventDeduplicated,
    /// Acknowledgements were logged for their own sake.
    AcknowledgeFolded,
    /// A stream ended because its user was slow.
    StreamLagged,
    /// A session was given up because its outbox was full.
    OutboxOverflow,
    /// A session expired while it held a lock.
    ExpiredWhileHolding,
    /// A session expired while it waited for a lock.
    ExpiredWhileWaiting,
    /// A grant reached somebody who had already asked to have it no more.
    GrantCrossedCancel,
    /// A lock was passed on in another term than that in which its new holder began to wait.
    HandOverAcrossLeaders,
    /// A holder slept until its session was over.
    HolderOverslept,
    /// A session that held a lock or waited for one was taken over by its own client.
    GhostTakenOver,
    /// What a lock guards refused the write of an earlier holder.
    StaleWriteRefused,
    /// A lock was revoked from its holder.
    LockRevoked,
}

impl Mark {
    /// Every mark.
    pub const ALL: [Mark; 28] = [
        Mark::OldTermOnMajority,
        Mark::SuffixTruncated,
        Mark::ReadWaitedForOwnTerm,
        Mark::ReadRoundRepeated,
        Mark::DeposedWithRequests,
        Mark::RetryAfterFailover,
        Mark::RetryAfterRestart,
        Mark::RetryAfterSnapshot,
        Mark::SessionExpired,
        Mark::TornTail,
        Mark::UnsyncedVoteLost,
        Mark::PreVoteSticky,
        Mark::CheckQuorum,
        Mark::WindowFull,
        Mark::SnapshotInstalled,
        Mark::EventResent,
        Mark::EventDeduplicated,
        Mark::AcknowledgeFolded,
        Mark::StreamLagged,
        Mark::OutboxOverflow,
        Mark::ExpiredWhileHolding,
        Mark::ExpiredWhileWaiting,
        Mark::GrantCrossedCancel,
        Mark::HandOverAcrossLeaders,
        Mark::HolderOverslept,
        Mark::GhostTakenOver,
        Mark::StaleWriteRefused,
        Mark::LockRevoked,
    ];

    /// Whether it can be met in a profile.
    #[must_use]
    pub fn is_in(self, profile: Profile) -> bool {
        match profile {
            // A whole server lets nobody read before its own-term entry is committed: requests wait in the engine.
            Profile::Full => self != Mark::ReadWaitedForOwnTerm,
            Profile::Core => matches!(
                self,
                Mark::OldTermOnMajority
                    | Mark::SuffixTruncated
                    | Mark::ReadWaitedForOwnTerm
                    | Mark::ReadRoundRepeated
                    | Mark::DeposedWithRequests
                    | Mark::TornTail
                    | Mark::UnsyncedVoteLost
                    | Mark::PreVoteSticky
                    | Mark::CheckQuorum
                    | Mark::WindowFull
                    | Mark::SnapshotInstalled
            ),
        }
    }

    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mark::OldTermOnMajority => "old-term entry on a majority uncommitted",
            Mark::SuffixTruncated => "suffix truncated",
            Mark::ReadWaitedForOwnTerm => "read waited for the own-term entry",
            Mark::ReadRoundRepeated => "read round repeated",
            Mark::DeposedWithRequests => "leader deposed with requests in flight",
            Mark::RetryAfterFailover => "retry answered from the table after a failover",
            Mark::RetryAfterRestart => "retry answered from the table after a restart",
            Mark::RetryAfterSnapshot => "retry answered from the table after a snapshot",
            Mark::SessionExpired => "session expired",
            Mark::TornTail => "torn tail",
            Mark::UnsyncedVoteLost => "unsynced vote lost",
            Mark::PreVoteSticky => "pre-vote refused by stickiness",
            Mark::CheckQuorum => "check-quorum step-down",
            Mark::WindowFull => "window full",
            Mark::SnapshotInstalled => "snapshot installed",
            Mark::EventResent => "events resent",
            Mark::EventDeduplicated => "events deduplicated",
            Mark::AcknowledgeFolded => "Acknowledge entry folded",
            Mark::StreamLagged => "stream lagged",
            Mark::OutboxOverflow => "outbox overflow",
            Mark::ExpiredWhileHolding => "expiry while holding",
            Mark::ExpiredWhileWaiting => "expiry while waiting",
            Mark::GrantCrossedCancel => "grant crossing a cancel",
            Mark::HandOverAcrossLeaders => "hand-over across a leader change",
            Mark::HolderOverslept => "holder paused past its timeout",
            Mark::GhostTakenOver => "take-over of a ghost",
            Mark::StaleWriteRefused => "stale write refused by what is guarded",
            Mark::LockRevoked => "lock revoked",
        }
    }
}

/// Counters of one run or of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    faults: [u64; Class::ALL.len()],
    marks: [u64; Mark::ALL.len()],
    /// Operations that clients completed.
    pub operations: u64,
    /// Linearizable and weaker reads that were answered and checked.
    pub reads: u64,
    /// Entries committed.
    pub committed: u64,
    /// States of two servers at one index that were compared.
    pub digests: u64,
    /// Sessions opened.
    pub sessions: u64,
}

impl Coverage {
    pub(super) fn fault(&mut self, class: Class) {
        self.faults[class as usize] += 1;
    }

    pub(super) fn mark(&mut self, mark: Mark, times: u64) {
        self.marks[mark as usize] += times;
    }

    /// How often a class of faults was injected.
    #[must_use]
    pub fn faults(&self, class: Class) -> u64 {
        self.faults[class as usize]
    }

    /// How often a situation was met.
    #[must_use]
    pub fn marks(&self, mark: Mark) -> u64 {
        self.marks[mark as usize]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Coverage) {
        for (sum, n) in self.faults.iter_mut().zip(other.faults) {
            *sum += n;
        }
        for (sum, n) in self.marks.iter_mut().zip(other.marks) {
            *sum += n;
        }
        self.operations += other.operations;
        self.reads += other.reads;
        self.committed += other.committed;
        self.digests += other.digests;
        self.sessions += other.sessions;
    }
}
