//! What was granted to this process: until when it counts, how its loss is learnt, and how it is given back (L2, L3).

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use atomix_resource::fencing::{Fencing, FencingToken};
use atomix_resource::{Session, SessionState};
use thiserror::Error;
use tokio::sync::watch;

use crate::contender::AnyContest;
use crate::error::LockError;
use crate::token::Token;

/// The lock, held. Dropping it gives the lock back, anywhere, also outside a runtime.
///
/// A grant is lost for good. Once [`LockGuard::valid_for`] has been zero for anybody, or [`LockGuard::lost`] has resolved, it stays
/// so, even if the session recovers and nobody else was ever let in: who was told that it is lost may already have acted on it.
///
/// A guard that was revoked is lost at once. The server hears of it when the guard is dropped or released, not before its holder had
/// the chance to stop, and grants nothing until then, unless the session ends (L3).
#[must_use = "dropping it gives the lock back"]
pub struct LockGuard {
    contest: Arc<dyn AnyContest>,
    token: Token,
    /// The greatest token that was revoked.
    revoked: watch::Receiver<Token>,
    /// It counts no more, or somebody was told so.
    over: AtomicBool,
    /// It is not certain that the server has it back.
    held: bool,
}

/// What was granted is lost: work that relied on it has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the lock is lost")]
pub struct Lost;

impl LockGuard {
    pub(crate) fn new(contest: Arc<dyn AnyContest>, token: Token) -> Self {
        let revoked = contest.revoked();
        LockGuard { contest, token, revoked, over: AtomicBool::new(false), held: true }
    }

    /// Names this grant, and orders it among all of the same lock (L1).
    #[doc = example!(r#"
let first = lock.acquire().await?;
let token = first.token();
first.release().await?;
assert!(lock.acquire().await?.token() > token);
"#)]
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// How much longer nobody else can have been granted the lock, on the session's clock, if nothing more is heard of the cluster:
    /// zero once the grant is lost, revoked or given back. The [story of the lock](crate::lock) derives it (L2), and says what it
    /// can't promise.
    #[doc = example!(r#"
let guard = lock.acquire().await?;
assert!(guard.valid_for() > Duration::from_secs(4)); // of the session's timeout of five
loopback.expire(session.id());
assert_eq!(guard.valid_for(), Duration::ZERO);
"#)]
    #[must_use]
    pub fn valid_for(&self) -> Duration {
        if self.over.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        // A statement of its own: who writes there has the session's lock, so the session is not asked while it is read.
        let revoked = *self.revoked.borrow() >= self.token;
        let session = self.contest.session();
        let void = revoked || session.state().is_final();
        // The deadline is read before the clock: what passes in between counts against the grant.
        let valid_until = session.valid_until();
        let left = if void { Duration::ZERO } else { valid_until.since(session.now()) };
        if left.is_zero() {
            self.end();
        }
        left
    }

    /// Resolves when the grant is lost: when its session has ended, when it was revoked, or when [`LockGuard::valid_for`] has
    /// reached zero; never before. May be awaited by many at once, and dropped at any time.
    #[doc = example!(r#"
let guard = lock.acquire().await?;
loopback.expire(session.id());
guard.lost().await;
"#)]
    pub async fn lost(&self) {
        let session = self.contest.session();
        let mut states = session.states();
        let expired = async {
            while !self.valid_for().is_zero() {
                // A session that is being closed is in doubt before its time is up.
                let doubted = async {
                    if states.changed().await.is_err() {
                        pending().await
                    }
                };
                first(doubted, session.sleep_until(session.valid_until())).await;
            }
        };
        let mut revocations = self.revoked.clone();
        let revoked = async {
            if revocations.wait_for(|revoked| *revoked >= self.token).await.is_err() {
                pending().await
            }
        };
        first(expired, revoked).await;
        self.end();
    }

    /// Does some work as long as the grant lasts: drops it as soon as the grant is lost, before this resolves.
    ///
    /// Work that is dropped between two of its steps has done the first: what it touches has to check the token nevertheless.
    #[doc = example!(r#"
let guard = lock.acquire().await?;
assert_eq!(guard.run(async { 6 * 7 }).await, Ok(42));
loopback.expire(session.id());
assert_eq!(guard.run(std::future::pending::<()>()).await, Err(Lost));
"#)]
    /// # Errors
    /// [`Lost`], also if the work was not begun because of that.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Lost> {
        let lost = async {
            self.lost().await;
            Err(Lost)
        };
        first(lost, async { Ok(work.await) }).await
    }

    /// Gives the lock back, and returns when that is certain: when it is free, or another has it. The guard counts no more from this
    /// call on. Dropping the future gives the lock back all the same.
    #[doc = example!(r#"
lock.acquire().await?.release().await?;
assert_eq!(lock.holder().await?, None);
"#)]
    /// # Errors
    /// *not done* if the session has ended: that has given the lock back, or is about to; or if a server was busy. *Not done* or
    /// *unknown*, it is given back as soon as the cluster takes it, or when the session ends.
    pub fn release(self) -> impl Future<Output = Result<(), LockError>> + Send + use<> {
        self.end();
        let release = self.contest.release(self.token);
        async move {
            let mut guard = self;
            release.await?;
            guard.held = false;
            Ok(())
        }
    }

    /// It counts no more.
    fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // Of a release that was refused or lost too: a second one changes nothing (L5).
        if self.held {
            self.contest.release_detached(self.token);
        }
    }
}

impl Fencing for LockGuard {
    fn fencing_token(&self) -> FencingToken {
        FencingToken { lock: self.contest.resource(), token: self.token.into() }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("token", &self.token)
            .field("session", &self.contest.session().id())
            .finish_non_exhaustive()
    }
}

/// Resolves when the session is over for good.
pub(crate) async fn ended(session: &dyn Session) {
    let mut states = session.states();
    if states.wait_for(|state: &SessionState| state.is_final()).await.is_err() {
        pending().await
    }
}

/// The one that is ready first; the former, if both are. The other is dropped.
pub(crate) async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => other.as_mut().poll(cx),
    })
    .await
}
