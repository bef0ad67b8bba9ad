//! What users call. Encodes, waits, decodes; decides nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use atomix_resource::{
    Call, Consistency, Handle, LocalTime, ResourceError, ResourceHandle, Sequence, Session, Sharing, open,
};

use super::op::{Acquire, Acquired, Cancel, Inspect, LockEvent, Release, Wait};
use super::state::LockState;
use crate::contender::{Contest, Grants, Heard};
use crate::error::LockError;
use crate::guard::LockGuard;
use crate::token::{Holder, Token};

/// A lock. The [story](crate::lock) says what it promises.
///
/// Clones are cheap and share the open instance. Every method submits when it is called, not when its future is polled: contenders
/// queue up in the order of calls. Each call contends for itself, also within a session: the lock is not reentrant.
#[derive(Clone, Debug)]
pub struct DistributedLock(Arc<Contest<LockState>>);

/// No guard if somebody else has the lock.
type Attempt = Result<Option<LockGuard>, LockError>;

impl DistributedLock {
    /// Opens the lock at a path, creating it if need be. Handles of one session share the instance.
    ///
    /// # Errors
    /// [`ResourceError::WrongKind`] if the path holds something else; *not done* or *unknown*, after which opening again is harmless.
    pub fn open(
        session: &Arc<dyn Session>,
        path: &str,
    ) -> impl Future<Output = Result<Self, ResourceError>> + Send + use<> {
        open(session, path, &(), Sharing::Shared)
    }

    /// Where the lock lives.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.handle.path()
    }

    /// Waits for the lock, behind those who came before. Dropping the future leaves the queue, or gives the lock back.
    #[doc = example!(r#"
let guard = lock.acquire().await?;
guard.run(async { /* what only one may do at a time, with guard.token() */ }).await?;
guard.release().await?;
"#)]
    /// # Errors
    /// [`LockError::QueueFull`]; [`LockError::Deleted`]; *not done*, also if the session ends meanwhile (L4); *unknown*: what it may
    /// have been granted is given back.
    pub fn acquire(&self) -> impl Future<Output = Result<LockGuard, LockError>> + Send + use<> {
        let contender = self.contend(Wait::Forever, None);
        // Who waits for ever is never told that the time was up.
        async move { contender.await?.ok_or(ResourceError::Undecodable.into()) }
    }

    /// Takes the lock if it is free: `None` if somebody has it.
    #[doc = example!(r#"
let guard = lock.try_acquire().await?.expect("nobody has it");
assert!(lock.try_acquire().await?.is_none());
"#)]
    pub fn try_acquire(&self) -> impl Future<Output = Attempt> + Send + use<> {
        self.contend(Wait::No, None)
    }

    /// Waits for the lock at most so long, from this call on: `None` if the time was up. It is measured by the cluster, and here as
    /// well, so that it also ends if the cluster can't be reached (L4).
    #[doc = example!(r#"
let guard = lock.acquire().await?;
let waiting = lock.try_acquire_for(Duration::from_secs(2));
loopback.advance(Duration::from_secs(2));
assert!(waiting.await?.is_none());
"#)]
    pub fn try_acquire_for(&self, limit: Duration) -> impl Future<Output = Attempt> + Send + use<> {
        let milliseconds = limit.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX);
        let until = (milliseconds > 0).then(|| self.0.handle.session().now() + limit);
        self.contend(Wait::Milliseconds(milliseconds), until)
    }

    /// Who has the lock. Linearizable, and history as soon as it is known.
    #[doc = example!(r#"
let guard = lock.acquire().await?;
let holder = lock.holder().await?.expect("somebody has it");
assert_eq!((holder.session, holder.token), (session.id(), guard.token()));
"#)]
    /// # Errors
    /// [`LockError::Deleted`]; *not done*.
    pub fn holder(&self) -> impl Future<Output = Result<Option<Holder>, LockError>> + Send + use<> {
        let inspect = self.0.handle.query(&Inspect, Consistency::Linearizable);
        async move {
            let holder = inspect.await?.1.holder;
            Ok(holder.map(|(session, token)| Holder { session, token: token.into() }))
        }
    }

    /// How many wait for the lock. As [`DistributedLock::holder`].
    #[doc = example!(r#"
let guard = lock.acquire().await?;
let waiting = (lock.acquire(), lock.acquire());
assert_eq!(lock.queue_len().await?, 2);
"#)]
    pub fn queue_len(&self) -> impl Future<Output = Result<u64, LockError>> + Send + use<> {
        let inspect = self.0.handle.query(&Inspect, Consistency::Linearizable);
        async move { Ok(inspect.await?.1.waiting) }
    }

    fn contend(&self, wait: Wait, until: Option<LocalTime>) -> impl Future<Output = Attempt> + Send + use<> {
        let verdict = |reply| match reply {
            Acquired::Granted { token } => Some(Ok(Some(token.into()))),
            Acquired::Waiting => None,
            Acquired::Held => Some(Ok(None)),
            Acquired::QueueFull => Some(Err(LockError::QueueFull)),
            Acquired::Deleting => Some(Err(LockError::Deleted)),
        };
        self.0.contend(&Acquire { wait }, verdict, until)
    }
}

impl ResourceHandle for DistributedLock {
    type State = LockState;

    fn from_handle(handle: Handle<LockState>) -> Self {
        DistributedLock(Contest::new(handle))
    }
}

impl Grants for LockState {
    fn release(handle: &Handle<Self>, token: Token) -> Call<bool> {
        handle.command(&Release { token: token.into() })
    }

    fn release_detached(handle: &Handle<Self>, token: Token) {
        handle.command_detached(&Release { token: token.into() });
    }

    fn cancel_detached(handle: &Handle<Self>, contender: Sequence) {
        handle.command_detached(&Cancel { contender });
    }

    fn heard(event: LockEvent) -> Heard {
        match event {
            LockEvent::Granted { contender, token } => Heard::Told(contender, Ok(Some(token.into()))),
            LockEvent::TimedOut { contender } => Heard::Told(contender, Ok(None)),
            LockEvent::Deleted { contender } => Heard::Told(contender, Err(LockError::Deleted)),
            LockEvent::Revoked { token } => Heard::Revoked(token.into()),
        }
    }
}
