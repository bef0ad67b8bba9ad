//! Every future of a lock dropped at each of its await points leaves nothing behind: no hold, no waiter, no sink.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atomix_coordination::{DistributedLock, LockGuard};
use atomix_resource::Session;
use atomix_testkit::loopback::{Loopback, ready};

use crate::world::{Disturbed, Trouble, is_free, lock, loopback, poll};

/// More often than any future has await points.
const POLLS: usize = 5;

/// What happens before a poll, and before the drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// Somebody else has the lock from the beginning, and gives it back then.
    HandOver(usize),
    /// The time passes for which it was to be waited, and no more than that.
    TimePasses(usize),
    SessionEnds(usize),
    /// What was submitted before then is not answered.
    NoAnswer(usize),
}

fn meanwhiles() -> Vec<Meanwhile> {
    let later = (0..POLLS).flat_map(|n| {
        [Meanwhile::HandOver(n), Meanwhile::TimePasses(n), Meanwhile::SessionEnds(n), Meanwhile::NoAnswer(n)]
    });
    std::iter::once(Meanwhile::Nothing).chain(later).collect()
}

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// Polls it so many times, then drops it.
fn poll_and_drop(
    mut future: Boxed,
    polls: usize,
    meanwhile: Meanwhile,
    session: &Arc<Disturbed>,
    loopback: &Loopback,
    other: &mut Option<LockGuard>,
) {
    for n in 0..=polls {
        match meanwhile {
            Meanwhile::HandOver(at) if at == n => drop(other.take()),
            Meanwhile::TimePasses(at) if at == n => loopback.advance(Duration::from_secs(1)),
            Meanwhile::SessionEnds(at) if at == n => loopback.expire(session.id()),
            Meanwhile::NoAnswer(at) if at == n => session.meets(Trouble::None),
            _ => {}
        }
        if n == polls || poll(&mut future).is_ready() {
            break;
        }
    }
    drop(future);
}

fn check(name: &str, holds: bool, call: impl Fn(&DistributedLock, Option<LockGuard>) -> Boxed) {
    for meanwhile in meanwhiles() {
        for polls in 0..POLLS {
            let loopback = loopback();
            let other = lock(&loopback);
            let session = Disturbed::new(&loopback);
            let lock = session.lock();
            let guard = holds.then(|| ready(lock.acquire()).unwrap());
            let mut held = match meanwhile {
                Meanwhile::Nothing | Meanwhile::SessionEnds(_) => None,
                _ if holds => None,
                _ => Some(ready(other.acquire()).unwrap()),
            };
            if matches!(meanwhile, Meanwhile::NoAnswer(_)) {
                session.meets(Trouble::Slow);
            }
            let future = call(&lock, guard);
            // Whoever is under way keeps what it needs alive.
            drop(lock);
            poll_and_drop(future, polls, meanwhile, &session, &loopback, &mut held);
            drop(held);
            loopback.settle();
            assert!(is_free(&other), "{name}, {meanwhile:?}, dropped after {polls} polls");
            assert_eq!(session.sinks(), 0, "{name}, {meanwhile:?}, dropped after {polls} polls");
        }
    }
}

/// Its outcome is dropped too.
fn boxed<F: Future + 'static>(future: F) -> Boxed {
    Box::pin(async { drop(future.await) })
}

#[test]
fn acquire() {
    check("acquire", false, |lock, _| boxed(lock.acquire()));
}

#[test]
fn try_acquire() {
    check("try_acquire", false, |lock, _| boxed(lock.try_acquire()));
}

#[test]
fn try_acquire_for() {
    check("try_acquire_for", false, |lock, _| boxed(lock.try_acquire_for(Duration::from_secs(1))));
}

#[test]
fn holder_and_queue_len() {
    check("holder", false, |lock, _| boxed(lock.holder()));
    check("queue_len", false, |lock, _| boxed(lock.queue_len()));
}

#[test]
fn lost() {
    check("lost", true, |_, guard| boxed(async move { guard.unwrap().lost().await }));
}

#[test]
fn run() {
    check("run", true, |_, guard| {
        boxed(async move { guard.unwrap().run(std::future::pending::<()>()).await })
    });
}

#[test]
fn release() {
    check("release", true, |_, guard| boxed(guard.unwrap().release()));
}

#[test]
fn open() {
    for polls in 0..2 {
        let loopback = loopback();
        let session = Disturbed::new(&loopback);
        let dynamic: Arc<dyn Session> = session.clone();
        let mut opening = boxed(DistributedLock::open(&dynamic, "/lock"));
        (0..polls).for_each(|_| assert!(poll(&mut opening).is_ready()));
        drop(opening);
        assert_eq!(session.sinks(), 0);
        assert!(is_free(&lock(&loopback)));
    }
}

#[test]
fn a_clone_or_a_guard_or_a_wait_keeps_the_sink_and_the_last_of_them_takes_it_away() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let lock = session.lock();
    let (clone, guard) = (lock.clone(), ready(lock.acquire()).unwrap());
    let waiting = lock.acquire();
    for left in [Box::new(lock) as Box<dyn std::any::Any>, Box::new(clone), Box::new(guard)] {
        assert_eq!(session.sinks(), 1);
        drop(left);
    }
    assert_eq!(session.sinks(), 1);
    drop(waiting);
    assert_eq!(session.sinks(), 0);
}
