//! Code that takes a lock, and its test without a network, a cluster or waiting.

use atomix_coordination::{DistributedLock, LockError};

/// Runs a job unless somebody else is at it.
///
/// # Errors
/// Those of the lock.
pub async fn run_alone<T>(
    lock: &DistributedLock,
    job: impl Future<Output = T>,
) -> Result<Option<T>, LockError> {
    let Some(guard) = lock.try_acquire().await? else { return Ok(None) };
    // What is lost half-way was not done alone.
    let done = guard.run(job).await.ok();
    guard.release().await?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use atomix_resource::{Registry, Session};
    use atomix_testkit::loopback::{Loopback, ready};

    use super::*;

    /// Two sessions of one cluster that is not there.
    fn two_workers() -> (Loopback, [std::sync::Arc<dyn Session>; 2], [DistributedLock; 2]) {
        let loopback = Loopback::new(atomix_coordination::register(Registry::new()));
        let sessions = [loopback.session(), loopback.session()];
        let locks =
            sessions.each_ref().map(|session| ready(DistributedLock::open(session, "/job")).expect("a lock"));
        (loopback, sessions, locks)
    }

    #[test]
    fn a_job_runs_once_at_a_time() {
        let (_loopback, _, [first, second]) = two_workers();
        let meanwhile = || ready(run_alone(&second, async {})).expect("an answer");
        let done = ready(run_alone(&first, async { meanwhile() })).expect("an answer");
        assert_eq!(done, Some(None), "the second found the first at work");
        assert_eq!(ready(run_alone(&second, async { "done" })), Ok(Some("done")));
    }

    #[test]
    fn a_worker_that_falls_silent_makes_room() {
        let (loopback, [silent, _], [first, second]) = two_workers();
        let guard = ready(first.try_acquire()).expect("an answer").expect("the lock is free");
        assert!(guard.valid_for() > Duration::ZERO);
        loopback.expire(silent.id());
        loopback.settle();
        assert_eq!(guard.valid_for(), Duration::ZERO);
        let next = ready(second.try_acquire()).expect("an answer").expect("the lock is free again");
        assert!(next.token() > guard.token());
    }
}
