//! What a resource may know and do while it decides. There is nothing else: no clock, no chance, no I/O.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use atomix_protocol::{ClusterTime, Index, InstanceId, ResourceId, Sequence, SessionId, codec};
use atomix_session::TimerId;
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// The entry being applied, of which each resource sees its own part.
///
/// A trait object stands between, because the two lifetimes of a `&mut Context<'_>` of the layer below are no business of those
/// who write resources.
pub(crate) trait Applying: fmt::Debug {
    fn index(&self) -> Index;
    fn time(&self) -> ClusterTime;
    fn set_timer(&mut self, deadline: ClusterTime) -> TimerId;
    fn cancel_timer(&mut self, timer: TimerId) -> bool;
    fn publish(&mut self, to: Vec<(SessionId, InstanceId)>, body: Bytes);
    fn hold_reply(&mut self);
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

    fn publish(&mut self, to: Vec<(SessionId, InstanceId)>, body: Bytes) {
        atomix_session::Context::publish(self, to, body);
    }

    fn hold_reply(&mut self) {
        atomix_session::Context::hold_reply(self);
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
    /// The resources that there are.
    pub(crate) alive: &'a OrdSet<ResourceId>,
    /// Whose each pending timer is.
    pub(crate) timers: &'a mut OrdMap<TimerId, ResourceId>,
    /// Sessions that have ended and are not cleaned up yet.
    pub(crate) ending: &'a OrdMap<SessionId, Option<ResourceId>>,
    /// Set: the resource goes.
    pub(crate) finished: &'a mut bool,
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

    /// The resource itself. Never reused: one that is deleted and created again is another.
    #[must_use]
    pub fn resource(&self) -> ResourceId {
        self.resource
    }

    /// Whether a resource of this cluster is there, and was not deleted.
    #[must_use]
    pub fn exists(&self, resource: ResourceId) -> bool {
        self.alive.contains(&resource)
    }

    /// Publishes an event to those who have this resource open and are named here: once to each instance, however often it is
    /// named. Those whose session has ended are passed over. An event arrives exactly once and in order, and before the reply of
    /// the entry that published it (E1, E5); whoever registers by a command misses nothing that comes after it.
    ///
    /// # Panics
    /// If the event's own `Serialize` refuses: a mistake of the resource's author.
    pub fn publish<E: Serialize>(&mut self, to: impl IntoIterator<Item = Caller>, event: &E) {
        let mut to: Vec<_> = to.into_iter().map(|caller| (caller.session, caller.instance)).collect();
        to.sort_unstable();
        to.dedup();
        if !to.is_empty() {
            self.entry.publish(to, codec::to_bytes(event));
        }
    }

    /// What [`Resource::deletion_asked`](crate::Resource::deletion_asked) has put off happens now: the resource is gone when this
    /// call of it returns.
    pub fn finish_deletion(&mut self) {
        *self.finished = true;
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

    /// The caller gets the reply once everybody to whom this command publishes has acknowledged it, or has ended (E6).
    pub fn hold_reply(&mut self) {
        self.context.entry.hold_reply();
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
