//! A lock: one holder at a time, in the whole cluster.
//!
//! **Promises.** Who waits gets it in the order of the log; waiting costs no message, a hand-over is one commit (L1). A call that is
//! dropped at any point, and a guard that is dropped, leave neither a waiter nor a hold behind, also outside a runtime (L4, L5).
//!
//! **How long a guard counts.** [`LockGuard::valid_for`] is `S + τ·(1−ρ)/(1+ρ) − now` (L2): `S` is what the holder's clock showed
//! *before it sent* the last contact that the cluster has confirmed, τ the session's timeout. It assumes that every clock also counts
//! suspend, and in any real time `t` moves on by `(1−ρ)·t` at least and `(1+ρ)·t` at most
//! ([`CLOCK_DRIFT`](atomix_resource::limits::CLOCK_DRIFT)). A leader received that contact after `S`, and no leader ends the session
//! until its own clock shows τ since then (S6, S7): `τ/(1+ρ)` of real time at least. By then the holder's clock has moved on by
//! `(1−ρ)·τ/(1+ρ)` at least. So as long as it shows less, the session has not ended, and nobody else has the lock.
//!
//! **When the session ends** its calls leave the queue and end *not done*, and what it held goes to the next (S9). If it ends for
//! silence, [`LockGuard::lost`] has resolved by then, by the above, unless the process was paused; who closes it gives back what its
//! guards hold. A **forced deletion** sets the guard to zero first, and is done when that was dropped (L3). A **take-over** of the
//! session by its client's successor asserts that the process is dead, and voids `valid_for` with it (S10).
//!
//! **Not promised** is that what a holder does takes effect in time. It can be paused between asking `valid_for` and acting, and what
//! it has sent can be late; a clock can break the assumption. So pass [`LockGuard::token`] along with every effect, and have it
//! checked where the effect is: by a [`Fence`](crate::Fence), or a resource that takes a [`fencing`](atomix_resource::fencing) token.
#![doc = example!(r#"
let mut archive = Fence::in_memory(); // kept where the archive is
let lock = DistributedLock::open(&session, "/jobs/nightly").await?;
let guard = lock.acquire().await?;
let work = guard.run(async {
    // Dropped as soon as the lock is lost. What reaches the archive nevertheless is checked there.
    archive.check(guard.token())
});
work.await??;
guard.release().await?;
"#)]

mod handle;
pub mod op;
mod state;
#[cfg(test)]
mod tests;

pub use self::handle::DistributedLock;
pub use self::state::LockState;
pub use crate::guard::LockGuard;
