//! What a replicated state machine is, in bytes.

use std::io::{self, Write};

use atomix_protocol::{ClusterTime, Index, InstanceId, Sequence, SessionId};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::levels::Levels;
use crate::timers::{TimerId, Timers};

/// A deterministic state machine. Every replica applies the same calls in the same order and must end in the same state.
///
/// All methods are called by one thread, synchronously. They are total: whatever bytes arrive, they return; a malformed
/// command is answered with a reply that says so and leaves the state untouched (M2). No clock, no randomness but
/// [`Context::random`], no hash order, no I/O. A panic stops this replica.
pub trait StateMachine: Send {
    /// Applies a command of a session and returns its reply. Called exactly once per command, in log order.
    fn apply(&mut self, cx: &mut Context<'_>, command: &Bytes) -> Bytes;

    /// Answers a query from the state as it is. Called between `apply`s.
    fn query(&self, cx: &QueryContext<'_>, query: &Bytes) -> Bytes;

    /// A session ended: no further command of it is applied. Cleans up what it owned, at most a bounded slice at a time: it is
    /// called again, at a later index, until it returns [`Slice::Done`] (S9). The first call must at once make the session
    /// ineligible for anything new.
    fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice;

    /// A timer that [`Context::timers`] set has passed, before the entry whose time passes it (T2).
    fn timer_fired(&mut self, cx: &mut Context<'_>, timer: TimerId);

    /// The kinds of resources that this binary knows, with the highest operation of each (M3).
    fn kinds(&self) -> Vec<KindLevel>;

    /// The state as it is, as something that another thread can write out later. Cheap: called on the path of writes. Equal
    /// states give equal bytes (M4).
    fn snapshot(&self) -> Box<dyn SnapshotSource>;

    /// Replaces the state by that of a snapshot.
    ///
    /// # Errors
    /// If the bytes are not a snapshot that this binary can read. The state is then unspecified, and the replica stops.
    fn restore(&mut self, snapshot: Bytes) -> Result<(), RestoreError>;

    /// Another one of the same kinds with nothing in it. A snapshot is restored into that one on another thread while this one
    /// still stands, and then takes its place. Without one, the default, this one is restored on the thread that applies, and the
    /// server stands still meanwhile.
    fn fresh(&self) -> Option<Box<dyn StateMachine>> {
        None
    }
}

/// A state that can be written out on another thread.
pub trait SnapshotSource: Send {
    /// Writes all of it. Called again if `out` refused something, for the same from the beginning.
    ///
    /// # Errors
    /// Only those of `out`.
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()>;
}

impl SnapshotSource for Bytes {
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self)
    }
}

/// Whether a clean-up is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// Nothing is left.
    Done,
    /// Call again.
    More,
}

/// A kind of resource and the highest operation number that a binary knows of it (M3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindLevel {
    /// The kind, by name.
    pub kind: String,
    /// Its highest operation number.
    pub level: u16,
}

/// Why a snapshot can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("snapshot can't be read: {0}")]
pub struct RestoreError(pub String);

/// What a state machine published in one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The events, in order.
    pub events: Vec<Publication>,
    /// Whether the reply waits for their acknowledgements (E6).
    pub atomic: bool,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// To whom, and for which instance of theirs.
    pub to: Vec<(SessionId, InstanceId)>,
    /// What it says. Shared by all outboxes that it goes to.
    pub body: Bytes,
}

/// What a state machine may know and do while it applies.
#[derive(Debug)]
pub struct Context<'a> {
    index: Index,
    time: ClusterTime,
    session: Option<SessionId>,
    sequence: Sequence,
    levels: &'a Levels,
    timers: &'a mut Timers,
    published: &'a mut Published,
    random: Option<Xoshiro256PlusPlus>,
}

impl<'a> Context<'a> {
    /// For whoever drives a state machine: the session table, and tests.
    pub fn new(
        index: Index,
        time: ClusterTime,
        session: Option<SessionId>,
        sequence: Sequence,
        levels: &'a Levels,
        timers: &'a mut Timers,
        published: &'a mut Published,
    ) -> Self {
        Context { index, time, session, sequence, levels, timers, published, random: None }
    }

    /// Index of the entry being applied.
    #[must_use]
    pub fn index(&self) -> Index {
        self.index
    }

    /// Its cluster time (T1).
    #[must_use]
    pub fn time(&self) -> ClusterTime {
        self.time
    }

    /// The session whose command is applied; `None` in a timer and in a clean-up.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The command's place in its session; zero where there is no command.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The level of a kind: the highest of its operations that may be applied (M3). Above it, and for a kind without a level, the
    /// state machine refuses, the same on every replica. At or below it a binary that lacks the operation must stop (M2).
    #[must_use]
    pub fn level(&self, kind: &str) -> u16 {
        self.levels.of(kind)
    }

    /// The timers.
    pub fn timers(&mut self) -> &mut Timers {
        self.timers
    }

    /// Publishes an event to sessions, each with the instance that it is for (E1). Those that are not open are passed over. Each
    /// session gets the events of one index together, in order of publishing, and before the reply of that index (E5).
    pub fn publish(&mut self, to: Vec<(SessionId, InstanceId)>, body: Bytes) {
        self.published.events.push(Publication { to, body });
    }

    /// The reply to this command waits until every live session has acknowledged the events of this index (E6).
    pub fn hold_reply(&mut self) {
        self.published.atomic = true;
    }

    /// Randomness that is the same on every replica: seeded by the index.
    pub fn random(&mut self) -> &mut Xoshiro256PlusPlus {
        let seed = self.index.0;
        self.random.get_or_insert_with(|| Xoshiro256PlusPlus::seed_from_u64(seed))
    }
}

/// What a state machine may know while it answers a query.
#[derive(Clone, Copy, Debug)]
pub struct QueryContext<'a> {
    /// The last entry applied.
    pub index: Index,
    /// Its cluster time.
    pub time: ClusterTime,
    /// The session that asks.
    pub session: SessionId,
    /// The levels as that entry left them.
    pub levels: &'a Levels,
}

impl QueryContext<'_> {
    /// The level of a kind: the highest of its operations that may be used, queries among them (M3). Above it the state machine
    /// refuses, the same on every replica. At or below it a binary that lacks the operation must stop (M2).
    #[must_use]
    pub fn level(&self, kind: &str) -> u16 {
        self.levels.of(kind)
    }
}
