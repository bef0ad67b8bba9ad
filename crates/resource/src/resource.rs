//! What authors of resources write.

use atomix_protocol::SessionId;
use atomix_session::{RestoreError, Slice, TimerId};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::context::Context;
use crate::operation::Operations;
use crate::snapshot;

/// The replicated state of a resource: a deterministic state machine.
///
/// Every replica holds a copy and makes the same calls in the same order, on one thread. Whoever decides by anything but the
/// arguments (a clock, chance, the order of a hash map, a file) breaks the copies apart. A panic stops the replica.
///
/// The operations are in the traits [`Apply`](crate::Apply) and [`Answer`](crate::Answer), one implementation for each that
/// [`Resource::Operations`] lists. What remains here is where the state comes from and what happens to it without being asked.
///
/// **Snapshots** come from `Clone` and serde. A clone is taken on the path of writes, when the first write after a snapshot
/// arrives: keep what can grow large in an [`imbl::OrdMap`], whose clone costs nothing (see [`ordered`](crate::ordered)). Equal
/// states must give equal bytes: ordered containers only.
pub trait Resource: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind's name: on the wire, in snapshots, in error texts. Unique among the kinds of a cluster, never changed.
    const KIND: &'static str;

    /// The version of the state's form in snapshots. Raise it with every change of the form, and override
    /// [`Resource::restore`] to read the earlier ones.
    const VERSION: u16 = 1;

    /// What can be asked of it, as listed by [`operations!`](crate::operations).
    type Operations: Operations<Self>;

    /// What can be chosen when it is created, and not later; `()` for nothing.
    type Configuration: Serialize + DeserializeOwned + Default;

    /// What it publishes to those who have it open, by [`Context::publish`]; [`NoEvent`] for nothing. Wire format: variants of an
    /// enum are only ever added at the end, and a released one never changes.
    type Event: Serialize + DeserializeOwned + Send + 'static;

    /// A new one.
    ///
    /// # Errors
    /// If the configuration makes no sense. Nothing is created then.
    fn create(configuration: Self::Configuration) -> Result<Self, BadConfiguration>;

    /// A session that had it open has ended. Cleans up what that session owned, at most a bounded slice at a time: called again
    /// at a later entry until it returns [`Slice::Done`] (S9). In between, and before the first call, commands of others and
    /// timers arrive as ever; ask [`Context::has_ended`] before granting anything to a session.
    fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
        let _ = (cx, session);
        Slice::Done
    }

    /// A timer that it set has fired (T2).
    fn timer_fired(&mut self, cx: &mut Context<'_>, timer: TimerId) {
        let _ = (cx, timer);
    }

    /// Somebody asks for the resource to be deleted. Unless it says otherwise it is gone when this returns, and who has it open
    /// learns that with the next operation (M1).
    ///
    /// What has granted something must not just vanish: another could be granted the same by a later resource at the same path
    /// while the first grant still counts. Such a resource refuses while it is in use, and if `force`d revokes what it granted,
    /// returns [`Deletion::Later`], grants nothing more, and calls [`Context::finish_deletion`] once all is given back (L3).
    fn deletion_asked(&mut self, cx: &mut Context<'_>, force: bool) -> Deletion {
        let _ = (cx, force);
        Deletion::Now
    }

    /// Reads a state back from a snapshot that has it in the form `version`.
    ///
    /// # Errors
    /// If the bytes are not exactly what a state of that version is written as.
    fn restore(version: u16, state: &Bytes) -> Result<Self, RestoreError> {
        if version != Self::VERSION {
            return Err(RestoreError(format!(
                "{} of version {version}, known is {}",
                Self::KIND,
                Self::VERSION
            )));
        }
        snapshot::read_exact(state).map_err(|reason| RestoreError(format!("{}: {reason}", Self::KIND)))
    }
}

/// What becomes of a resource that is asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It goes at once.
    Now,
    /// It is in use, and stays as it is.
    InUse,
    /// It goes when it says so.
    Later,
}

/// The event of a resource that publishes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoEvent {}

/// The configuration of a new resource makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the configuration makes no sense")]
pub struct BadConfiguration;
