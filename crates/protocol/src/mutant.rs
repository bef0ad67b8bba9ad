//! The switches of the mutation tests: deliberate bugs in shipped code, each killed by a named checker.
//!
//! Without the private feature `__mutants` every switch is the constant `false` and the mutated branch is compiled out.
//! One mutant is active per process at most.

/// A deliberate bug. Names are those of the project's mutant list (docs/testing.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mutant {
    /// Entries of earlier terms are committed by counting replicas.
    B01 = 1,
    /// A vote is answered before term and vote are durable.
    B02,
    /// AppendEntries is acknowledged before the entries are durable.
    B04,
    /// The leader counts its own copy before it is durable.
    B05,
    /// No pre-vote and no check-quorum.
    B12,
    /// Logs are compared by length first.
    B14,
    /// A conflicting suffix is deleted without checking that it conflicts.
    B15,
    /// A follower's commit index is the leader's, without the bound of the last new entry.
    B16,
    /// A late acknowledgement of another term moves the match index.
    B17,
    /// A read is served before the own-term entry is committed.
    B22,
    /// The session table is left out of the snapshot.
    B25,
    /// Kept replies are dropped at a change of leader.
    B26,
    /// A silent session is removed by the local timer of the leader instead of a committed expiry.
    B27,
    /// A command behind its session's expiry is skipped only when the log is replayed.
    B28,
    /// A lock is granted to a session that ended while it waited.
    B29,
    /// Fencing tokens come from a counter that is not in the snapshot.
    B30,
    /// Events that arrive a second time are delivered a second time.
    B31,
    /// A read is served, and believed, without comparing the last index that its client saw.
    B32,
    /// A keep-alive is confirmed without a quorum round.
    C01,
    /// A keep-alive is confirmed before the leader's own no-op, with earlier leaders' expiries unseen.
    C02,
    /// A client counts a confirmed contact from its confirmation instead of its sending.
    C03,
    /// Events are acknowledged only when the user's code has taken them.
    C04,
    /// A retry is answered from the table without waiting for the acknowledgements of an atomic write.
    C05,
    /// A new leader's cluster time comes from the applied entries instead of the log.
    C06,
    /// A command refused before the log is not followed by a skip.
    C08,
    /// A wiped server takes part in bootstrap again.
    C10,
    /// A resource that was deleted and created again is reached by handles of the old one.
    C11,
    /// A joint quorum is counted over the union of both sides.
    B18,
    /// A change of the configuration begins before an entry of the leader's own term is committed.
    B19,
    /// The configuration in use stays as it was when a snapshot is put in place of the log.
    B20,
    /// A learner counts towards quorums.
    B21,
    /// A directory is known by its server's address: a wiped one keeps its id, and votes.
    B33,
    /// The cluster id is not compared in handshakes.
    B34,
    /// A pre-vote resets the stored vote.
    B13,
    /// A read counts answers to a round that began before it was asked.
    B23,
    /// A lease is not shortened for drift, and not looked at again after the read.
    B24,
    /// A leader whose disk hangs goes on leading.
    B36,
    /// A closed link overrides a promise.
    C09,
    /// A snapshot's chunk is appended to whatever is being written, and the whole is not verified.
    B35,
    /// A process that shows a member's identity is let in without a look at whether another one lives.
    B37,
    /// A leader raises the levels of its own binary without asking the others.
    U01,
    /// A vote is granted although it could not be made durable.
    B03,
    /// A directory is not synced after a segment was made or a snapshot was renamed.
    B06,
    /// The log goes on behind what a torn batch left, instead of in its place.
    B07,
    /// Damage in the middle of the log is taken for a torn end, and truncated.
    B08,
    /// A record's checksum does not cover where it belongs.
    B09,
    /// A sync that failed is tried again, and believed.
    B10,
    /// A leader whose disk failed goes on in its term, and gives an index of it to another entry.
    B11,
    /// A server forgets with a restart that it must abstain.
    C07,
    /// A suffix that was truncated is taken for damage.
    C12,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Mutant; 50] = [
        Mutant::B01,
        Mutant::B02,
        Mutant::B04,
        Mutant::B05,
        Mutant::B12,
        Mutant::B14,
        Mutant::B15,
        Mutant::B16,
        Mutant::B17,
        Mutant::B22,
        Mutant::B25,
        Mutant::B26,
        Mutant::B27,
        Mutant::B28,
        Mutant::B29,
        Mutant::B30,
        Mutant::B31,
        Mutant::B32,
        Mutant::C01,
        Mutant::C02,
        Mutant::C03,
        Mutant::C04,
        Mutant::C05,
        Mutant::C06,
        Mutant::C08,
        Mutant::C10,
        Mutant::C11,
        Mutant::B18,
        Mutant::B19,
        Mutant::B20,
        Mutant::B21,
        Mutant::B33,
        Mutant::B34,
        Mutant::B13,
        Mutant::B23,
        Mutant::B24,
        Mutant::B36,
        Mutant::C09,
        Mutant::B35,
        Mutant::B37,
        Mutant::U01,
        Mutant::B03,
        Mutant::B06,
        Mutant::B07,
        Mutant::B08,
        Mutant::B09,
        Mutant::B10,
        Mutant::B11,
        Mutant::C07,
        Mutant::C12,
    ];

    /// Whether this bug is to be made now.
    #[cfg(not(feature = "__mutants"))]
    #[inline(always)]
    #[must_use]
    pub const fn active(self) -> bool {
        false
    }

    /// Whether this bug is to be made now.
    #[cfg(feature = "__mutants")]
    #[must_use]
    pub fn active(self) -> bool {
        ACTIVE.load(core::sync::atomic::Ordering::Relaxed) == self as u8
    }

    /// Makes this bug active in the whole process, or none.
    #[cfg(feature = "__mutants")]
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.store(mutant.map_or(0, |m| m as u8), core::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(feature = "__mutants")]
static ACTIVE: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);
