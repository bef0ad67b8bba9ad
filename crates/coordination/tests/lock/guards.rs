//! How long a guard counts, and how it is given back.

use std::sync::Arc;
use std::time::Duration;

use atomix_coordination::Lost;
use atomix_coordination::lock::LockState;
use atomix_resource::fencing::Fencing;
use atomix_resource::{Handle, Index, Session, SessionState, Sharing};
use atomix_testkit::loopback::{Loopback, ready};

use crate::world::{Disturbed, Trouble, is_free, lock, loopback, open, poll};

#[test]
fn l2_a_guard_counts_until_the_last_confirmed_contact_is_too_old() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let lock = session.lock();
    let guard = ready(lock.acquire()).unwrap();
    let until = session.now() + Duration::from_secs(2);
    *session.valid_until.lock().unwrap() = Some(until);
    let mut lost = Box::pin(guard.lost());
    let mut work = Box::pin(guard.run(std::future::pending::<()>()));
    assert_eq!(guard.valid_for(), Duration::from_secs(2));
    loopback.advance(Duration::from_micros(1_999_999));
    assert!(poll(&mut lost).is_pending() && poll(&mut work).is_pending());
    assert_eq!(guard.valid_for(), Duration::from_micros(1));
    loopback.advance(Duration::from_micros(1));
    assert!(poll(&mut lost).is_ready());
    assert_eq!(ready(work), Err(Lost));
    assert_eq!(guard.valid_for(), Duration::ZERO);
    // The server has not ended the session: nobody else has the lock until the guard is dropped.
    assert_eq!(session.state(), SessionState::Connected);
    assert!(!is_free(&lock));
    drop(lost);
    drop(guard);
    assert!(is_free(&lock));
}

#[test]
fn a_further_contact_prolongs_the_wait_for_its_loss() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let guard = ready(session.lock().acquire()).unwrap();
    let until = |seconds| Some(session.now() + Duration::from_secs(seconds));
    *session.valid_until.lock().unwrap() = until(1);
    let mut lost = Box::pin(guard.lost());
    assert!(poll(&mut lost).is_pending());
    *session.valid_until.lock().unwrap() = until(2);
    loopback.advance(Duration::from_secs(1));
    assert!(poll(&mut lost).is_pending());
    loopback.advance(Duration::from_secs(1));
    assert!(poll(&mut lost).is_ready());
}

#[test]
fn a_guard_that_somebody_was_told_is_lost_stays_so() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let lock = session.lock();
    let guard = ready(lock.acquire()).unwrap();
    let mut lost = Box::pin(guard.lost());
    assert!(poll(&mut lost).is_pending());
    *session.valid_until.lock().unwrap() = Some(session.now());
    assert_eq!(guard.valid_for(), Duration::ZERO);
    *session.valid_until.lock().unwrap() = None;
    assert!(!session.valid_until().since(session.now()).is_zero());
    assert_eq!(guard.valid_for(), Duration::ZERO);
    ready(guard.lost());
    // Also for who has waited all the time, at the latest when the time was up that he knew of.
    loopback.advance(Duration::from_secs(5));
    ready(lost);
    assert_eq!(ready(guard.run(async {})), Err(Lost));
}

#[test]
fn l2_the_end_of_the_session_is_the_loss_of_the_guard() {
    let loopback = loopback();
    for end in [Loopback::expire, Loopback::close] {
        let session = loopback.session();
        let guard = ready(open(&session).acquire()).unwrap();
        let mut lost = Box::pin(guard.lost());
        assert!(poll(&mut lost).is_pending());
        end(&loopback, session.id());
        assert!(poll(&mut lost).is_ready());
        assert_eq!(guard.valid_for(), Duration::ZERO);
    }
}

#[test]
fn work_is_dropped_before_its_loss_is_told() {
    let loopback = loopback();
    let session = loopback.session();
    let guard = ready(open(&session).acquire()).unwrap();
    let alive = Arc::new(());
    let inside = alive.clone();
    let mut work = Box::pin(guard.run(async move {
        std::future::pending::<()>().await;
        drop(inside);
    }));
    assert!(poll(&mut work).is_pending());
    assert_eq!(Arc::strong_count(&alive), 2);
    loopback.expire(session.id());
    assert!(poll(&mut work).is_ready());
    assert_eq!(Arc::strong_count(&alive), 1);
    // What is not begun yet is not begun any more.
    let begun = std::cell::Cell::new(false);
    assert_eq!(ready(guard.run(async { begun.set(true) })), Err(Lost));
    assert!(!begun.get());
}

#[test]
fn a_released_guard_is_given_back_once() {
    let loopback = loopback();
    let lock = lock(&loopback);
    let guard = ready(lock.acquire()).unwrap();
    let before = loopback.applied().0;
    ready(guard.release()).unwrap();
    assert_eq!(loopback.applied().0, before.next());
}

#[test]
fn l5_a_release_that_went_wrong_is_made_up_for() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let lock = session.lock();
    for trouble in [Trouble::Busy, Trouble::Unknown, Trouble::Slow] {
        let guard = ready(lock.acquire()).unwrap();
        session.meets(trouble);
        let mut release = Box::pin(guard.release());
        let _ = poll(&mut release);
        session.meets(Trouble::None);
        drop(release);
        assert!(is_free(&lock), "{trouble:?}");
    }
}

#[test]
fn l5_a_late_release_takes_nothing_from_a_later_holder() {
    let loopback = loopback();
    let session = Disturbed::new(&loopback);
    let lock = session.lock();
    let guard = ready(lock.acquire()).unwrap();
    session.meets(Trouble::Slow);
    let mut release = Box::pin(guard.release());
    assert!(poll(&mut release).is_pending());
    session.meets(Trouble::None);
    let next = ready(lock.acquire()).unwrap();
    drop(release); // The same once more, behind the next grant of the same session.
    assert_eq!(ready(lock.holder()).unwrap().unwrap().token, next.token());
}

#[test]
fn a_guard_names_its_lock_for_what_it_guards() {
    let loopback = loopback();
    let session = loopback.session();
    let handle = ready(Handle::<LockState>::open(&session, "/lock", &(), Sharing::Shared));
    let guard = ready(open(&session).acquire()).unwrap();
    let token = guard.fencing_token();
    assert_eq!(token.lock, handle.unwrap().resource());
    assert_eq!(token.token, Index::from(guard.token()));
}
