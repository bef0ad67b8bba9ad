//! Writes that only the present holder of a lock can make.

mod desk;

use atomix_resource::fencing::{FenceRefusal, Fenced, FencingToken};
use atomix_resource::management::delete;
use atomix_resource::{Consistency, Handle, Index, ResourceId};
use atomix_testkit::loopback::{Loopback, ready};
use desk::{Desk, Look, Note, Sit, handle, registry};

fn note(guarded: &Handle<Desk>, lock: ResourceId, token: Index) -> Result<u64, FenceRefusal> {
    let token = FencingToken { lock, token };
    ready(guarded.command(&Fenced { token, operation: Note })).expect("an answer").1
}

fn notes(guarded: &Handle<Desk>) -> u64 {
    ready(guarded.query(&Look, Consistency::Linearizable)).expect("an answer").1.0
}

#[test]
fn a_token_passes_until_a_greater_one_has_been_here() {
    let loopback = Loopback::new(registry());
    let session = loopback.session();
    let (guarded, lock, other) =
        (handle(&session, "/guarded"), handle(&session, "/lock"), handle(&session, "/other"));
    let (first, _) = ready(lock.command(&Sit)).unwrap();
    let (second, _) = ready(lock.command(&Sit)).unwrap();
    let (elsewhere, _) = ready(other.command(&Sit)).unwrap();
    assert_eq!(note(&guarded, lock.resource(), first), Ok(1));
    assert_eq!(note(&guarded, lock.resource(), first), Ok(2));
    assert_eq!(note(&guarded, lock.resource(), second), Ok(3));
    loopback.snapshot_and_restore(registry());
    let refusal = FenceRefusal::OutOfDate { token: first, greatest: second };
    assert_eq!(note(&guarded, lock.resource(), first), Err(refusal));
    // Another lock has tokens of its own, and what is not fenced passes as ever.
    assert_eq!(note(&guarded, other.resource(), elsewhere), Ok(4));
    assert_eq!(ready(guarded.command(&Note)).unwrap().1, 5);
    assert_eq!(notes(&guarded), 5);
}

#[test]
fn what_no_lock_has_granted_is_no_token() {
    let session = Loopback::new(registry()).session();
    let (guarded, lock) = (handle(&session, "/guarded"), handle(&session, "/lock"));
    for token in [0, lock.resource().0, u64::MAX] {
        assert_eq!(note(&guarded, lock.resource(), Index(token)), Err(FenceRefusal::NotAToken));
    }
    assert_eq!(note(&guarded, ResourceId(u64::MAX), Index(3)), Err(FenceRefusal::NoSuchLock));
    // A token that was never granted must not lock the real ones out.
    let (token, _) = ready(lock.command(&Sit)).unwrap();
    assert_eq!(note(&guarded, lock.resource(), token), Ok(1));
    assert_eq!(notes(&guarded), 1);
}

#[test]
fn m1_tokens_of_a_deleted_lock_are_refused_also_when_there_is_another_at_its_path() {
    let session = Loopback::new(registry()).session();
    let (guarded, lock) = (handle(&session, "/guarded"), handle(&session, "/lock"));
    let (token, _) = ready(lock.command(&Sit)).unwrap();
    assert_eq!(note(&guarded, lock.resource(), token), Ok(1));
    ready(lock.command(&desk::Leave)).unwrap();
    ready(delete(&session, "/lock", false)).unwrap();
    handle(&session, "/lock");
    assert_eq!(note(&guarded, lock.resource(), token), Err(FenceRefusal::NoSuchLock));
    assert_eq!(notes(&guarded), 1);
}
