//! What was met: faults by class and interesting situations, so that a batch that met too little fails as vacuous.

use std::collections::BTreeMap;

use super::Profile;
use super::faults::Class;

/// Where a situation can be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Both,
    Full,
    Core,
}

macro_rules! marks {
    ($($(#[$meta:meta])* $name:ident $words:literal $place:ident;)*) => {
        /// Situations that a batch must have met at least once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $($(#[$meta])* $name,)*
        }

        /// How many there are.
        const COUNT: usize = [$(stringify!($name)),*].len();

        impl Mark {
            /// Every mark.
            pub const ALL: [Mark; COUNT] = [$(Mark::$name),*];

            /// In words.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Mark::$name => $words,)*
                }
            }

            const fn place(self) -> Place {
                match self {
                    $(Mark::$name => Place::$place,)*
                }
            }
        }
    };
}

marks! {
    /// An entry of an earlier term was durable on a majority and yet uncommitted.
    OldTermOnMajority "old-term entry on a majority uncommitted" Both;
    /// A suffix of a log was truncated.
    SuffixTruncated "suffix truncated" Both;
    /// A read waited for the leader's own-term entry.
    ReadWaitedForOwnTerm "read waited for the own-term entry" Core;
    /// A read's round had to be repeated.
    ReadRoundRepeated "read round repeated" Both;
    /// A leader was deposed with requests in flight.
    DeposedWithRequests "leader deposed with requests in flight" Both;
    /// A retry was answered from the table by another leader than the one that applied it.
    RetryAfterFailover "retry answered from the table after a failover" Full;
    /// A retry was answered from the table by a server that had restarted since.
    RetryAfterRestart "retry answered from the table after a restart" Full;
    /// A retry was answered from a table that had come from a snapshot.
    RetryAfterSnapshot "retry answered from the table after a snapshot" Full;
    /// A session expired.
    SessionExpired "session expired" Full;
    /// A torn tail was found at a start.
    TornTail "torn tail" Both;
    /// A vote that was not yet synced was lost in a crash.
    UnsyncedVoteLost "unsynced vote lost" Both;
    /// A pre-vote was refused by stickiness.
    PreVoteSticky "pre-vote refused by stickiness" Both;
    /// A leader that heard no majority stepped down.
    CheckQuorum "check-quorum step-down" Both;
    /// A client's window was full.
    WindowFull "window full" Both;
    /// A snapshot was installed.
    SnapshotInstalled "snapshot installed" Both;
    /// A snapshot on its way in lost its sender between two chunks.
    InstallAborted "snapshot install aborted at a chunk" Both;
    /// A leader went on with a transfer where an earlier one had ended.
    TransferResumed "snapshot transfer resumed" Both;
    /// Another server went on with it.
    InstallTakenOver "snapshot transfer resumed by another leader" Both;
    /// A follower behind the newest snapshot was sent entries.
    ServedFromTail "follower served from the tail" Both;
    /// Events were sent again after a reconnection.
    EventResent "events resent" Full;
    /// A client dropped an event that it had.
    EventDeduplicated "events deduplicated" Full;
    /// Acknowledgements were logged for their own sake.
    AcknowledgeFolded "Acknowledge entry folded" Full;
    /// A stream ended because its user was slow.
    StreamLagged "stream lagged" Full;
    /// A session was given up because its outbox was full.
    OutboxOverflow "outbox overflow" Full;
    /// A session expired while it held a lock.
    ExpiredWhileHolding "expiry while holding" Full;
    /// A session expired while it waited for a lock.
    ExpiredWhileWaiting "expiry while waiting" Full;
    /// A grant reached somebody who had already asked to have it no more.
    GrantCrossedCancel "grant crossing a cancel" Full;
    /// A lock was passed on in another term than that in which its new holder began to wait.
    HandOverAcrossLeaders "hand-over across a leader change" Full;
    /// A holder slept until its session was over.
    HolderOverslept "holder paused past its timeout" Full;
    /// A session that held a lock or waited for one was taken over by its own client.
    GhostTakenOver "take-over of a ghost" Full;
    /// What a lock guards refused the write of an earlier holder.
    StaleWriteRefused "stale write refused by what is guarded" Full;
    /// A lock was revoked from its holder.
    LockRevoked "lock revoked" Full;
    /// A majority was on its own while the others stayed dead or cut off.
    MajorityAlone "majority on its own" Both;
    /// A session's entry was committed while two configurations had to agree.
    CommitWhileJoint "commit while joint" Both;
    /// A leader saw a change through in which it stopped being a voter.
    LeaderRemoved "leader removed itself" Both;
    /// A configuration was in use, and rolled back.
    ConfigurationRolledBack "configuration rolled back" Both;
    /// A change was completed by another leader than the one that began it.
    CompletedByAnother "change completed by another leader" Both;
    /// A learner became a voter.
    LearnerPromoted "learner promoted" Both;
    /// A server whose directory was wiped was replaced by a new member.
    WipedReplaced "wiped server replaced" Both;
    /// A leader took a change up.
    ChangeBegun "change begun" Both;
    /// A leader refused a change.
    ChangeRefused "change refused" Both;
    /// A leader began to hand over.
    HandOverBegun "hand-over begun" Both;
    /// It came to nothing.
    HandOverFailed "hand-over failed" Both;
    /// A leader handed over to a server that is preferred.
    PriorityHandOver "hand-over for priority" Both;
    /// A leader answered a read by its lease.
    ReadByLease "read by lease" Both;
    /// A follower kept a promise: it gave no vote.
    PromiseKept "promise kept" Both;
    /// A server that was removed was not listened to.
    RemovedIgnored "removed server ignored" Core;
    /// A removed server's handshake was refused.
    RemovedRefused "removed server refused" Full;
    /// A server that was to be shut down handed over before.
    HandedOverAtShutdown "hand-over at shutdown" Full;
    /// A change was refused: the leader had committed nothing in its term.
    RefusedEarly "change refused right after an election" Core;
    /// A change was refused: its learner had not caught up.
    RefusedBehind "change refused, learner behind" Both;
    /// A change was refused: another was under way.
    RefusedPending "change refused, another under way" Both;
    /// A change was refused: too few of the new voters answered.
    RefusedNoQuorum "change refused, no quorum" Both;
    /// An operator was told that another leads by now, as it wished.
    Transferred "leadership transferred" Full;
    /// A server that was not a founder joined by itself.
    Joined "server joined by itself" Full;
    /// A server of another cluster was refused.
    ForeignRefused "foreign cluster refused" Full;
    /// A process was refused because another one with its identity lives.
    DuplicateRefused "duplicate identity refused" Full;
    /// A damaged frame was refused.
    DamageRefused "damaged frame refused" Both;
    /// An entry was committed while servers had two versions of the program.
    TwoVersions "commit with two versions" Full;
    /// More of a kind may be used than before.
    LevelRaised "level raised after an upgrade" Full;
    /// An operation or a query was refused: not all servers have it.
    LevelRefused "operation refused for its level" Full;
    /// A server stopped: its binary lacked what the others have.
    LevelStopped "replica stopped by a level beyond its binary" Full;
    /// A message that no correct server sends was ignored.
    HostileRefused "hostile message refused" Both;
    /// A start found something damaged, and said so.
    DamageFound "damage found at a start" Both;
    /// It did, and nothing was lost by that.
    DamageCovered "damage that lost nothing" Both;
    /// A start found a segment of the log missing.
    SegmentMissed "lost segment noticed" Both;
    /// The newest snapshot was damaged or gone, and an older one was used.
    FellBack "fallback to the older snapshot" Both;
    /// One copy of the manifest was damaged or gone, and is there again.
    ManifestMended "manifest copy repaired" Both;
    /// Both were damaged: the server came back as a new one.
    IdentityLost "identity lost, directory emptied" Both;
    /// A running server met damage when it read for another one or for itself, and stopped.
    ReadRefused "damage met by a running server" Both;
    /// A server that lost something began to stand back.
    AbstentionBegun "abstention begun" Both;
    /// One that stood back was started again, and stood back still.
    AbstentionKept "abstention kept over a start" Both;
    /// The power went while a server stood back.
    CutInRepair "power cut during a repair" Both;
    /// More went bad while a server stood back.
    RotAgain "damage during a repair" Both;
    /// A server had everything again that it had lost.
    AbstentionEnded "abstention ended" Both;
    /// It got that as entries.
    RepairedByEntries "repaired by entries" Both;
    /// It got that with a snapshot.
    RepairedBySnapshot "repaired by a snapshot" Both;
    /// A server said that its disk is full.
    DiskFull "disk full" Both;
    /// There was no room for a write, not even in reserve: it was given back, to be asked for again.
    WriteRefused "write given back for want of room" Both;
    /// It said later that it is not any more.
    RoomAgain "room again" Both;
    /// A server was started on a full disk.
    StartedFull "started on a full disk" Both;
    /// The only voter lost something, and stopped.
    BeyondRepair "only voter damaged, and stopped" Full;
    /// A leader without room handed over to a server that has some.
    FullHandOver "hand-over for a full disk" Both;
    /// A command was refused because disks are full.
    FullRefused "command refused, disk full" Full;
    /// A leader whose disk had failed gave leadership away first.
    LastWord "leadership given away by a failed server" Full;
    /// Somebody who stood back would have given a vote.
    VoteAbstained "vote not given for want of a log" Both;
    /// A follower turned out to hold less than it had acknowledged.
    MatchWentBack "follower that lost what it acknowledged" Both;
    /// A server that was started with the directory of another cluster stopped.
    StrangerStopped "directory of another cluster refused" Full;
}

impl Mark {
    /// Whether it can be met in a profile.
    #[must_use]
    pub fn is_in(self, profile: Profile) -> bool {
        match self.place() {
            Place::Both => true,
            Place::Full => profile == Profile::Full,
            Place::Core => profile == Profile::Core,
        }
    }
}

/// Counters of one run or of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    faults: BTreeMap<Class, u64>,
    marks: BTreeMap<Mark, u64>,
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
    /// Runs whose end asked for no service: nothing could ever be created.
    pub without_service: u64,
    /// Runs after which nobody could be elected any more: disks were harmed without regard.
    pub without_recovery: u64,
    /// Runs in which no majority was on its own: none could be that decides without the others.
    pub without_majority: u64,
}

impl Coverage {
    pub(super) fn fault(&mut self, class: Class) {
        *self.faults.entry(class).or_default() += 1;
    }

    pub(super) fn faults_of(&mut self, class: Class, times: u64) {
        if times > 0 {
            *self.faults.entry(class).or_default() += times;
        }
    }

    pub(super) fn mark(&mut self, mark: Mark, times: u64) {
        if times > 0 {
            *self.marks.entry(mark).or_default() += times;
        }
    }

    /// How often a class of faults was injected.
    #[must_use]
    pub fn faults(&self, class: Class) -> u64 {
        self.faults.get(&class).copied().unwrap_or(0)
    }

    /// How often a situation was met.
    #[must_use]
    pub fn marks(&self, mark: Mark) -> u64 {
        self.marks.get(&mark).copied().unwrap_or(0)
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Coverage) {
        for (class, n) in &other.faults {
            *self.faults.entry(*class).or_default() += n;
        }
        for (mark, n) in &other.marks {
            *self.marks.entry(*mark).or_default() += n;
        }
        self.operations += other.operations;
        self.reads += other.reads;
        self.committed += other.committed;
        self.digests += other.digests;
        self.sessions += other.sessions;
        self.without_service += other.without_service;
        self.without_recovery += other.without_recovery;
        self.without_majority += other.without_majority;
    }
}
