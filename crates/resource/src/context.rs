//! What a resource may know and do while it decides. There is nothing else: no clock, no chance, no I/O.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use atomix_protocol::{ClusterTime, Index, InstanceId, Sequence, SessionId};
use atomix_session::TimerId;
use imbl::OrdMap;
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use crate::registry::ResourceId;

/// The entry being applied, of which each resource sees its own part.
///
/// A trait object stands between, because the two lifetimes of a `&mut Context<'_>` of the layer below are no business of those
/// who write resources.
pub(crate) trait Applying: fmt::Debug {
    fn index(&self) -> Index;
    fn time(&self) -> ClusterTime;
    fn set_timer(&mut self, deadline: ClusterTime) -> TimerId;
    fn cancel_timer(&mut self, timer: TimerId) -> bool;
    fn random(&mut self) -> &mut Xoshiro256PlusPlus;
}

impl Applying for atomix_session::Context<'_> {
    fn index(&self) -> Index {
        atomix_session::Context::index(self)
    }

    fn time(&self) -> ClusterTime {
        atomix_session::Context::time(self)
    }

    fn set_timer(&mut self, deadline: ClusterTime) -> TimerId {
        self.timers().set(deadline)
    }

    fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.timers().cancel(timer)
    }

    fn random(&mut self) -> &mut Xoshiro256PlusPlus {
        atomix_session::Context::random(self)
    }
}

/// What a resource may know and do while it changes.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) entry: &'a mut dyn Applying,
    pub(crate) resource: ResourceId,
    /// Whose each pending timer is.
    pub(crate) timers: &'a mut OrdMap<TimerId, ResourceId>,
    /// Sessions that have ended and are not cleaned up yet.
    pub(crate) ending: &'a OrdMap<SessionId, Option<ResourceId>>,
}

impl Context<'_> {
    /// Index of the entry being applied.
    #[must_use]
    pub fn index(&self) -> Index {
        self.entry.index()
    }

    /// Cluster time of that entry (T1).
    #[must_use]
    pub fn time(&self) -> ClusterTime {
        self.entry.time()
    }

    /// Sets a timer of this resource: it fires once cluster time has reached `deadline`, never before.
    pub fn set_timer(&mut self, deadline: ClusterTime) -> TimerId {
        let timer = self.entry.set_timer(deadline);
        self.timers.insert(timer, self.resource);
        timer
    }

    /// Sets a timer that fires once at least `delay` has passed.
    pub fn set_timer_after(&mut self, delay: Duration) -> TimerId {
        self.set_timer(self.time().plus(delay))
    }

    /// Cancels a timer of this resource. Returns whether it was still pending; another resource's timer is out of reach.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        if self.timers.get(&timer) != Some(&self.resource) {
            return false;
        }
        self.timers.remove(&timer);
        self.entry.cancel_timer(timer)
    }

    /// Chance that is the same on every replica: seeded by the index.
    pub fn random(&mut self) -> &mut Xoshiro256PlusPlus {
        self.entry.random()
    }

    /// Whether a session has ended, also if this resource has not been told yet (S9): nothing may be granted to it any more.
    #[must_use]
    pub fn has_ended(&self, session: SessionId) -> bool {
        self.ending.contains_key(&session)
    }
}

/// Who a command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// The session.
    pub session: SessionId,
    /// That session's opening of the resource.
    pub instance: InstanceId,
    /// The command's place in the session. With the two above it names this command and no other.
    pub sequence: Sequence,
}

/// What a resource may know and do while it takes a command: a [`Context`], and who calls.
#[derive(Debug)]
pub struct CommandContext<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) caller: Caller,
}

impl CommandContext<'_> {
    /// Who the command comes from.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller
    }
}

impl<'a> Deref for CommandContext<'a> {
    type Target = Context<'a>;

    fn deref(&self) -> &Self::Target {
        &self.context
    }
}

impl DerefMut for CommandContext<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.context
    }
}

/// What a resource may know while it answers a query.
#[derive(Clone, Copy, Debug)]
pub struct QueryContext {
    /// The last entry applied.
    pub index: Index,
    /// Its cluster time.
    pub time: ClusterTime,
    /// The session that asks.
    pub session: SessionId,
    /// That session's opening of the resource.
    pub instance: InstanceId,
}
