//! The classes of faults, as a table.

use super::super::Profile;

/// Where a class can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Both,
    Full,
    Core,
}

/// How a class happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Now and then: single faults at their times.
    Single,
    /// All the time, at a rate.
    Rate,
}

macro_rules! classes {
    ($($(#[$meta:meta])* $name:ident $words:literal $place:ident $way:ident;)*) => {
        /// A class of faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Class {
            $($(#[$meta])* $name,)*
        }

        /// How many there are.
        const COUNT: usize = [$(stringify!($name)),*].len();

        impl Class {
            /// Every class.
            pub const ALL: [Class; COUNT] = [$(Class::$name),*];

            /// In words.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Class::$name => $words,)*
                }
            }

            /// The row of the list of faults that it is.
            #[must_use]
            pub const fn row(self) -> &'static str {
                match self {
                    $(Class::$name => stringify!($name),)*
                }
            }

            const fn place(self) -> (Place, Way) {
                match self {
                    $(Class::$name => (Place::$place, Way::$way),)*
                }
            }
        }
    };
}

// A class may be added anywhere: each draws from streams of its own, keyed by its name.
classes! {
    /// Loss, delay, reordering.
    N1 "loss, delay, reordering" Both Rate;
    /// Duplicates and very late messages; of whole servers, whose links are ordered, only events that are sent again.
    N2 "duplicates, late messages" Both Rate;
    /// Symmetric partitions: one server isolated, or the cluster split.
    N3 "symmetric partitions" Both Single;
    /// One-way partitions.
    N4 "one-way partitions" Both Single;
    /// Partial partitions: a few pairs are cut, others see both.
    N5 "partial partitions" Both Single;
    /// Bridges and rings of majorities.
    N6 "bridges and rings" Both Single;
    /// Connections reset with the loss of what is in flight, false closures, half-open connections.
    N9 "resets, half-open links" Both Single;
    /// A connection stalls, then bursts.
    N10 "stalled links" Both Single;
    /// A server process is killed and started again.
    P1 "process killed" Both Single;
    /// A server is killed again while it recovers, between two durable steps.
    P2 "killed while recovering" Both Rate;
    /// A server process is paused while time goes on.
    P3 "process paused" Both Single;
    /// All servers are killed or lose power at once.
    P9 "whole cluster down" Both Single;
    /// A server loses power, and with it writes that were not synced.
    D1 "power cut, unsynced lost" Both Single;
    /// Writes are torn at a sector or a byte.
    D2 "torn writes" Both Rate;
    /// Slow and hung disks.
    D13 "slow and hung disks" Both Single;
    /// Clocks drift against each other.
    C2 "clock drift" Both Single;
    /// A whole machine is suspended, its disk with it.
    C3 "machine suspended" Both Single;
    /// A server comes back with an empty directory.
    M13 "directory wiped" Both Single;
    /// Servers are late while the cluster forms (rule I2; no fault of the list has this as its own).
    Late "late at bootstrap" Full Rate;
    /// A client's connection is cut: replies are lost, commands retried.
    S1 "client links cut" Full Single;
    /// A client is killed: its session must expire.
    S7 "client killed" Full Single;
    /// A client is paused beyond its session's timeout.
    S8 "client paused" Full Single;
    /// A leader goes while it ends a session.
    S9 "leader gone during an expiry" Full Rate;
    /// A leader goes right after it gave another server its state, with sessions under way.
    S2 "failover behind a snapshot" Full Rate;
    /// A link is cut between pipelined commands.
    S6 "pipelined commands cut" Full Rate;
    /// A client comes back under its name and takes over from its ghost.
    S10 "client back under its name" Full Rate;
    /// A link is cut behind an event.
    S11 "event under way cut" Full Rate;
    /// A leader falls asleep while it confirms a read.
    S15 "leader asleep in a read round" Full Rate;
    /// A server that a client reads from hears nobody.
    S16 "reads from a server left behind" Full Rate;
    /// Users take their events slowly.
    S18 "slow consumer" Full Rate;
    /// A session that owns very much ends.
    S19 "session with very much ends" Full Rate;
    /// A client goes that waits for a lock, or cancels.
    S20 "waiting client gone" Full Rate;
    /// Pre-vote replies come late, and twice.
    N8 "late and doubled pre-vote replies" Core Rate;
    /// A server of another cluster answers at a member's address.
    N12 "another cluster at a member's address" Full Rate;
    /// A change is asked for right after an election.
    M1 "change right after an election" Core Rate;
    /// A leader goes in the middle of a change.
    M3 "leader gone in the middle of a change" Both Rate;
    /// A leader is removed.
    M4 "leader removed" Both Rate;
    /// A leader is cut off right after it began a change: it is rolled back.
    M5 "change cut off at its beginning" Core Rate;
    /// Voters go while there are learners, who must not count for them.
    M7 "voters gone while there are learners" Both Rate;
    /// A server that is down is added.
    M8 "server added that is down" Both Rate;
    /// The transfer of a snapshot is interrupted, or its sender changes.
    M9 "snapshot transfer interrupted" Both Rate;
    /// A server goes or sleeps while it receives a snapshot.
    M10 "faults while installing" Both Rate;
    /// Logs grow while a snapshot is transferred, and are compacted right behind it.
    M11 "log outgrown during a transfer" Both Rate;
    /// A removed server comes back with its old directory.
    M14 "removed server comes back" Both Rate;
    /// Leadership is handed to a server that is cut off or goes.
    M15 "hand-over to one who can't" Both Rate;
    /// The word to take over comes late, and twice.
    M16 "TimeoutNow late and twice" Core Rate;
    /// Even numbers of voters.
    M17 "even numbers of voters" Both Rate;
    /// Another process shows a member's identity while that member lives.
    O2 "another process with a member's identity" Full Rate;
    /// Servers are restarted one by one, each after handing over.
    U2 "rolling restart with hand-over" Both Rate;
    /// A server gets the newest version of the program while others have an earlier one.
    U1 "two versions in one cluster" Full Single;
    /// A server gets an earlier version of the program back.
    U3 "back to an earlier version" Full Single;
    /// A server comes back with a far greater term on its disk.
    N7 "back with a far greater term" Both Single;
    /// A follower's links are slow while logs are compacted.
    N11 "slow follower, compaction" Both Single;
    /// The state machine panics on one server, which stops and is started again.
    P4 "state machine panics" Both Single;
    /// Own snapshots at almost every moment, also while one is about to be installed.
    P6 "own snapshots all the time" Both Single;
    /// Storage threads get done in another order: reads far behind writes, and before.
    P7 "storage threads out of order" Both Single;
    /// New files whose content was not synced show what their blocks held before.
    D3 "recycled blocks in new files" Both Rate;
    /// A sync fails: the server stops, and what was to be synced is in the system's memory only, or gone.
    D9 "sync fails" Both Single;
    /// A leader's write fails after its entries were sent.
    D10 "leader's write fails" Both Single;
    /// A vote can't be kept.
    D11 "vote can't be kept" Both Single;
    /// The log or a snapshot can't be read for another server.
    D14 "read fails" Both Single;
    /// What lies in the log or its mark goes bad: a bit, or a sector.
    D4 "rotten log" Both Single;
    /// A snapshot goes bad.
    D5 "rotten snapshot" Both Single;
    /// A write lands elsewhere, or nowhere, or not all of it.
    D6 "misdirected, lost and partial writes" Both Single;
    /// A copy of the manifest goes bad, sometimes both: then the server has no vote any more, and is begun anew.
    D7 "rotten manifest" Both Single;
    /// A file is gone.
    D8 "lost file" Both Single;
    /// A disk is full for a while.
    D12 "disk full" Both Single;
    /// A server gets a directory of another cluster.
    D16 "directory of another cluster" Full Single;
    /// A server goes down in the middle of a roll, a compaction, a rename or a publication.
    D15 "down in a roll, compaction, rename" Both Single;
    /// Boot clocks begin anew, so that a new leader's is far behind.
    C4 "leader with a clock far behind" Both Single;
    /// The leader changes right before sessions expire.
    C5 "leader change before an expiry" Full Single;
    /// Election timeouts are almost equal.
    C6 "almost equal election timeouts" Both Rate;
    /// Frames are cut, glued or damaged.
    X2 "frames cut, glued, damaged" Both Rate;
    /// Somebody who passes for a member that is down says absurd things.
    X3 "hostile peer" Both Rate;
}

impl Class {
    /// The one that is called so.
    #[must_use]
    pub fn named(row: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.row() == row)
    }

    /// Whether it can happen in a profile.
    #[must_use]
    pub fn is_in(self, profile: Profile) -> bool {
        match self.place().0 {
            Place::Both => true,
            Place::Full => profile == Profile::Full,
            Place::Core => profile == Profile::Core,
        }
    }

    /// Whether it happens all the time rather than now and then.
    pub(in crate::sim) fn is_constant(self) -> bool {
        self.place().1 == Way::Rate
    }

    /// Keys its streams: depends on its name alone (FNV-1a).
    pub(in crate::sim) fn key(self) -> u64 {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        self.row().bytes().fold(0xCBF2_9CE4_8422_2325, step)
    }
}
