//! Who gets the lock, and when.

use std::time::Duration;

use atomix_coordination::lock::LockState;
use atomix_coordination::{DistributedLock, LockError, NotDone, ResourceError, Token};
use atomix_resource::management::{Deleted, delete, exists};
use atomix_resource::{Registry, Resource, Session, limits};
use atomix_testkit::loopback::{Loopback, ready};

use crate::world::{Disturbed, Trouble, is_free, lock, loopback, open, poll};

const SECOND: Duration = Duration::from_secs(1);

fn session_ended() -> LockError {
    LockError::Resource(ResourceError::NotDone(NotDone::SessionEnded))
}

#[test]
fn l1_waiters_come_in_the_order_of_calls_each_hand_over_in_one_commit() {
    let loopback = loopback();
    let locks = [(); 4].map(|()| lock(&loopback));
    let mut guard = ready(locks[0].acquire()).unwrap();
    let mut waiting: Vec<_> = locks[1..].iter().map(|lock| Box::pin(lock.acquire())).collect();
    waiting.reverse();
    while let Some(mut next) = waiting.pop() {
        assert!(poll(&mut next).is_pending());
        let before = loopback.applied().0;
        drop(guard);
        assert_eq!(loopback.applied().0, before.next());
        guard = ready(next).unwrap();
        assert_eq!(guard.token(), Token::from(before.next()));
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_pending()));
    }
    ready(guard.release()).unwrap();
    assert!(is_free(&locks[0]));
}

#[test]
fn waiting_causes_no_entry() {
    let loopback = loopback();
    let _guard = ready(lock(&loopback).acquire()).unwrap();
    let lock = lock(&loopback);
    let mut waiting = Box::pin(lock.acquire());
    let before = loopback.applied().0;
    loopback.advance(100 * SECOND);
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(loopback.applied().0, before);
}

#[test]
fn who_only_tries_does_not_wait() {
    let loopback = loopback();
    let (ada, bob) = (lock(&loopback), lock(&loopback));
    let guard = ready(ada.try_acquire()).unwrap().unwrap();
    assert!(ready(bob.try_acquire()).unwrap().is_none());
    assert!(ready(bob.try_acquire_for(Duration::ZERO)).unwrap().is_none());
    // Not reentrant: the holder is one contender, its next call another.
    assert!(ready(ada.try_acquire()).unwrap().is_none());
    drop(guard);
    assert!(is_free(&ada));
    assert!(ready(bob.try_acquire_for(SECOND)).unwrap().is_some());
}

#[test]
fn l4_the_cluster_ends_a_wait_when_its_time_is_up() {
    let loopback = loopback();
    let (ada, bob) = (lock(&loopback), lock(&loopback));
    let guard = ready(ada.acquire()).unwrap();
    // Nobody polls them, so that no timer of this process could do it.
    let (short, long) = (bob.try_acquire_for(SECOND), bob.try_acquire_for(3 * SECOND));
    loopback.advance(SECOND - Duration::from_millis(1));
    assert_eq!(ready(ada.queue_len()), Ok(2));
    loopback.advance(Duration::from_millis(1));
    assert_eq!(ready(ada.queue_len()), Ok(1));
    assert!(ready(short).unwrap().is_none());
    drop(guard);
    assert!(ready(long).unwrap().is_some());
}

#[test]
fn l4_a_wait_ends_when_its_time_is_up_also_if_no_word_comes_from_the_cluster() {
    let loopback = loopback();
    let ada = lock(&loopback);
    let guard = ready(ada.acquire()).unwrap();
    let session = Disturbed::new(&loopback);
    *session.deaf.lock().unwrap() = true;
    let bob = session.lock();
    session.meets(Trouble::Slow);
    let mut waiting = Box::pin(bob.try_acquire_for(SECOND));
    drop(guard); // The grant is under way, and is not heard of.
    assert_eq!(ready(ada.holder()).unwrap().unwrap().session, session.id());
    assert!(poll(&mut waiting).is_pending());
    loopback.advance(SECOND);
    assert!(ready(waiting).unwrap().is_none());
    assert!(is_free(&ada));
}

#[test]
fn l4_a_dropped_wait_leaves_the_queue() {
    let loopback = loopback();
    let locks = [(); 3].map(|()| lock(&loopback));
    let guard = ready(locks[0].acquire()).unwrap();
    let (given_up, waiting) = (locks[1].acquire(), locks[2].acquire());
    drop(given_up);
    assert_eq!(ready(locks[0].queue_len()), Ok(1));
    drop(guard);
    assert!(ready(waiting).is_ok());
}

#[test]
fn a_wait_that_is_over_leaves_no_timer() {
    let loopback = loopback();
    let (ada, bob) = (lock(&loopback), lock(&loopback));
    let guard = ready(ada.acquire()).unwrap();
    let next = bob.try_acquire_for(SECOND);
    drop(bob.try_acquire_for(SECOND));
    drop(guard);
    assert!(ready(next).unwrap().is_some());
    let before = loopback.applied().0;
    loopback.advance(2 * SECOND);
    assert_eq!(loopback.applied().0, before);
}

#[test]
fn l4_a_grant_that_crosses_a_cancel_is_released() {
    let loopback = loopback();
    let (ada, bob) = (lock(&loopback), lock(&loopback));
    let guard = ready(ada.acquire()).unwrap();
    let mut waiting = Box::pin(bob.acquire());
    assert!(poll(&mut waiting).is_pending());
    drop(guard);
    assert!(ready(ada.holder()).unwrap().is_some());
    drop(waiting);
    assert!(is_free(&ada));
    drop(bob.acquire());
    assert!(is_free(&ada));
}

#[test]
fn an_event_may_come_before_the_reply() {
    let loopback = loopback();
    let guard = ready(lock(&loopback).acquire()).unwrap();
    let session = Disturbed::new(&loopback);
    let bob = session.lock();
    session.meets(Trouble::Slow);
    let mut waiting = Box::pin(bob.acquire());
    assert!(poll(&mut waiting).is_pending());
    drop(guard);
    session.meets(Trouble::None);
    let guard = ready(waiting).unwrap();
    assert_eq!(ready(bob.holder()).unwrap().unwrap().token, guard.token());
}

#[test]
fn what_is_unknown_is_cancelled() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let lock = session.lock();
    session.meets(Trouble::Unknown);
    let error = ready(lock.acquire()).unwrap_err();
    assert!(error.is_unknown() && !error.is_not_done());
    assert!(is_free(&lock));
}

#[test]
fn what_was_not_done_is_not_cancelled() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let lock = session.lock();
    session.meets(Trouble::Busy);
    let before = loopback.applied();
    let error = ready(lock.acquire()).unwrap_err();
    assert!(error.is_not_done() && !error.is_unknown());
    assert_eq!(loopback.applied(), before);
}

#[test]
fn l4_a_wait_whose_session_ends_is_not_done() {
    let loopback = loopback();
    let ada = lock(&loopback);
    let guard = ready(ada.acquire()).unwrap();
    for end in [Loopback::expire, Loopback::close] {
        let session = loopback.session();
        let bob = open(&session);
        let mut waiting = Box::pin(bob.acquire());
        assert!(poll(&mut waiting).is_pending());
        end(&loopback, session.id());
        let error = ready(waiting).unwrap_err();
        assert!(error.is_not_done());
        assert_eq!(error, session_ended());
        assert_eq!(ready(bob.acquire()).unwrap_err(), session_ended());
        assert_eq!(ready(ada.queue_len()), Ok(0));
    }
    drop(guard);
    assert!(is_free(&ada));
}

#[test]
fn a_grant_that_arrives_with_the_end_of_the_session_is_none() {
    let loopback = loopback();
    let session = loopback.session();
    let (ada, bob) = (lock(&loopback), open(&session));
    let acquired = bob.acquire();
    loopback.expire(session.id());
    assert_eq!(ready(acquired).unwrap_err(), session_ended());
    assert!(is_free(&ada));
}

#[test]
fn when_the_holder_s_session_ends_the_next_has_it_in_that_entry() {
    let loopback = loopback();
    let session = loopback.session();
    let (ada, bob) = (open(&session), lock(&loopback));
    let guard = ready(ada.acquire()).unwrap();
    let waiting = bob.acquire();
    loopback.expire(session.id());
    let next = ready(waiting).unwrap();
    assert_eq!(next.token(), Token::from(loopback.applied().0));
    assert!(next.token() > guard.token());
    drop(guard);
    assert_eq!(ready(bob.holder()).unwrap().unwrap().token, next.token());
}

#[test]
fn s9_nothing_is_granted_to_a_session_that_has_ended_and_is_not_cleaned_up() {
    let loopback = loopback();
    let session = loopback.session();
    let (ada, bob, cat) = (lock(&loopback), open(&session), lock(&loopback));
    let guard = ready(ada.acquire()).unwrap();
    // More than one slice removes.
    let dead: Vec<_> = (0..1_000).map(|_| bob.acquire()).collect();
    let alive = cat.acquire();
    loopback.close(session.id());
    assert!(loopback.is_cleaning());
    let left = ready(ada.queue_len()).unwrap();
    assert!((800..1_000).contains(&left), "{left} wait after the first slice");
    drop(guard);
    assert!(ready(alive).is_ok());
    loopback.settle();
    assert_eq!(ready(ada.queue_len()), Ok(0));
    drop(dead);
}

#[test]
fn a_full_queue_refuses() {
    let loopback = loopback();
    let lock = lock(&loopback);
    let guard = ready(lock.acquire()).unwrap();
    let waiting: Vec<_> = (0..limits::LOCK_WAITERS).map(|_| lock.acquire()).collect();
    assert_eq!(ready(lock.acquire()).unwrap_err(), LockError::QueueFull);
    assert!(LockError::QueueFull.is_not_done());
    drop(waiting);
    drop(guard);
    assert!(is_free(&lock));
}

#[test]
fn m1_a_free_lock_is_deleted_at_once_and_a_held_one_is_not() {
    let loopback = loopback();
    let session = loopback.session();
    let lock = open(&session);
    let guard = ready(lock.acquire()).unwrap();
    assert_eq!(ready(delete(&session, "/lock", false)), Err(ResourceError::InUse("/lock".into())));
    assert!(!guard.valid_for().is_zero());
    drop(guard);
    assert_eq!(ready(delete(&session, "/lock", false)), Ok(Deleted::Gone));
    assert_eq!(ready(lock.acquire()).unwrap_err(), LockError::Deleted);
    assert_eq!(ready(lock.holder()).unwrap_err(), LockError::Deleted);
}

#[test]
fn l3_a_forced_deletion_zeroes_the_guard_first_and_waits_for_its_holder() {
    let loopback = loopback();
    let session = loopback.session();
    let (ada, bob) = (lock(&loopback), open(&session));
    let guard = ready(ada.acquire()).unwrap();
    let waiting = bob.acquire();
    let mut lost = Box::pin(guard.lost());
    assert!(poll(&mut lost).is_pending());

    assert_eq!(ready(delete(&session, "/lock", true)), Ok(Deleted::Revoking));
    assert!(poll(&mut lost).is_ready());
    drop(lost);
    assert_eq!(guard.valid_for(), Duration::ZERO);
    assert_eq!(ready(waiting).unwrap_err(), LockError::Deleted);
    assert_eq!(ready(bob.acquire()).unwrap_err(), LockError::Deleted);
    assert!(LockError::Deleted.is_not_done());
    // Its holder may not have stopped yet.
    loopback.snapshot_and_restore(atomix_coordination::register(Registry::new()));
    assert_eq!(ready(exists(&session, "/lock")), Ok(Some("lock".into())));

    let token = guard.token();
    drop(guard);
    assert_eq!(ready(exists(&session, "/lock")), Ok(None));
    let next = ready(open(&session).acquire()).unwrap();
    assert!(next.token() > token);
    assert_eq!(ready(bob.acquire()).unwrap_err(), LockError::Deleted);
}

#[test]
fn l3_the_end_of_the_holder_s_session_finishes_a_forced_deletion() {
    let loopback = loopback();
    let (session, holding) = (loopback.session(), loopback.session());
    let guard = ready(open(&holding).acquire()).unwrap();
    assert_eq!(ready(delete(&session, "/lock", true)), Ok(Deleted::Revoking));
    loopback.expire(holding.id());
    assert_eq!(ready(exists(&session, "/lock")), Ok(None));
    drop(guard);
}

#[test]
fn l3_a_grant_that_was_revoked_before_its_caller_looked_counts_nothing() {
    let loopback = loopback();
    let session = loopback.session();
    let lock = open(&session);
    let acquired = lock.acquire();
    assert_eq!(ready(delete(&session, "/lock", true)), Ok(Deleted::Revoking));
    let guard = ready(acquired).unwrap();
    assert_eq!(guard.valid_for(), Duration::ZERO);
    ready(guard.release()).unwrap();
    assert_eq!(ready(exists(&session, "/lock")), Ok(None));
}

#[test]
fn l1_tokens_ascend_also_behind_a_snapshot() {
    let loopback = loopback();
    let lock = lock(&loopback);
    let mut last = Token::from(0);
    for _ in 0..3 {
        for _ in 0..3 {
            let guard = ready(lock.acquire()).unwrap();
            assert_eq!(guard.token(), Token::from(loopback.applied().0));
            assert!(guard.token() > last);
            last = guard.token();
            drop(guard);
        }
        loopback.snapshot_and_restore(atomix_coordination::register(Registry::new()));
    }
}

#[test]
fn golden_bytes_of_the_state_in_a_snapshot() {
    let loopback = loopback();
    let (ada, bob) = (lock(&loopback), lock(&loopback));
    let _guard = ready(ada.acquire()).unwrap();
    let _waiting = bob.try_acquire_for(SECOND);
    // Holder and token; the queue by index; by contender, with place and timer; by timer; not being deleted.
    let golden = b"\x01\x01\x02\x02\x05\x01\x06\x03\x04\x02\x01\x03\x04\x02\x06\x01\0\x01\0\x03\x04\x02\0";
    assert!(loopback.snapshot().windows(golden.len()).any(|bytes| bytes == golden));
    let state = LockState::restore(1, &bytes::Bytes::from_static(golden)).unwrap();
    assert_eq!(postcard::to_allocvec(&state).unwrap(), golden);
    assert!(LockState::restore(2, &bytes::Bytes::from_static(golden)).is_err());
}

#[test]
fn clones_are_cheap_and_everything_can_go_to_another_task() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sent<T: Send + 'static>(_: T) {}
    let loopback = loopback();
    let lock: DistributedLock = lock(&loopback);
    shared(&lock);
    let guard = ready(lock.clone().acquire()).unwrap();
    assert!(ready(lock.try_acquire()).unwrap().is_none());
    sent((lock.acquire(), lock.try_acquire(), lock.try_acquire_for(SECOND), lock.holder(), lock.queue_len()));
    let other = std::thread::spawn(move || drop(guard));
    other.join().unwrap();
    assert!(is_free(&lock));
    let guard = ready(lock.acquire()).unwrap();
    sent(guard.release());
    let guard = std::sync::Arc::new(ready(lock.acquire()).unwrap());
    sent({
        let guard = guard.clone();
        async move { guard.run(guard.lost()).await }
    });
    shared(&guard);
}
