//! Resources by path: is there one, and away with it (M1, L3).

mod desk;

use std::sync::Arc;

use atomix_resource::management::{Deleted, delete, exists};
use atomix_resource::{Consistency, ResourceError, Session, Sharing};
use atomix_testkit::loopback::{Loopback, ready};
use desk::{Desk, Leave, Look, Sit, handle, registry};

fn pair() -> (Loopback, Arc<dyn Session>, Arc<dyn Session>) {
    let loopback = Loopback::new(registry());
    let (ada, bob) = (loopback.session(), loopback.session());
    (loopback, ada, bob)
}

#[test]
fn exists_tells_the_kind() {
    let (_, ada, bob) = pair();
    assert_eq!(ready(exists(&ada, "/desk")), Ok(None));
    handle(&ada, "/desk");
    assert_eq!(ready(exists(&bob, "/desk")), Ok(Some("test/desk".into())));
    assert_eq!(ready(exists(&bob, "desk")), Err(ResourceError::BadPath("desk".into())));
}

#[test]
fn m1_what_was_deleted_answers_so_and_is_not_its_namesake() {
    let (_, ada, bob) = pair();
    let old = handle(&ada, "/desk");
    assert_eq!(ready(delete(&bob, "/desk", false)), Ok(Deleted::Gone));
    assert_eq!(ready(delete(&bob, "/desk", false)), Ok(Deleted::NotThere));
    assert_eq!(ready(exists(&ada, "/desk")), Ok(None));
    assert_eq!(ready(old.command(&Sit)), Err(ResourceError::Deleted));

    let new = handle(&bob, "/desk");
    assert_ne!(new.resource(), old.resource());
    assert_eq!(ready(old.command(&Sit)), Err(ResourceError::Deleted));
    assert_eq!(ready(old.query(&Look, Consistency::Linearizable)), Err(ResourceError::Deleted));
    assert_eq!(ready(new.query(&Look, Consistency::Linearizable)).unwrap().1, (0, 0));
    // The same session, opening again, gets the new one.
    assert_eq!(handle(&ada, "/desk").resource(), new.resource());
}

#[test]
fn a_deletion_leaves_nothing_to_the_sessions_that_had_it_open() {
    let (loopback, ada, bob) = pair();
    for number in 0..300 {
        handle(&ada, &format!("/desk-{number}"));
        ready(delete(&bob, &format!("/desk-{number}"), false)).unwrap();
    }
    handle(&ada, "/last");
    loopback.close(ada.id());
    loopback.settle();
    assert!(!loopback.is_cleaning());
    let fresh = Loopback::new(registry());
    let (_, _) = (fresh.session(), fresh.session());
    ready(delete(&bob, "/last", false)).unwrap();
    // As many bytes as of a registry in which nothing ever was: no instance, no resource, no timer.
    let left = loopback.snapshot_and_restore(registry());
    assert!(left.len() < 300, "{} bytes", left.len());
}

#[test]
fn l3_what_is_in_use_stays_unless_forced() {
    let (_, ada, bob) = pair();
    let desk = handle(&ada, "/desk");
    assert!(ready(desk.command(&Sit)).unwrap().1);
    assert_eq!(ready(delete(&bob, "/desk", false)), Err(ResourceError::InUse("/desk".into())));
    assert_eq!(ready(delete(&bob, "/desk", true)), Ok(Deleted::Revoking));
    // It is there until its holder lets go, and grants nothing more.
    assert_eq!(ready(exists(&bob, "/desk")), Ok(Some("test/desk".into())));
    assert!(!ready(handle(&bob, "/desk").command(&Sit)).unwrap().1);
    assert_eq!(ready(delete(&bob, "/desk", true)), Ok(Deleted::Revoking));
    ready(desk.command(&Leave)).unwrap();
    assert_eq!(ready(exists(&bob, "/desk")), Ok(None));
    assert_eq!(ready(desk.command(&Sit)), Err(ResourceError::Deleted));
}

#[test]
fn l3_the_end_of_the_holders_session_ends_a_deletion_under_way() {
    let (loopback, ada, bob) = pair();
    let desk = handle(&ada, "/desk");
    ready(desk.command(&Sit)).unwrap();
    assert_eq!(ready(delete(&bob, "/desk", true)), Ok(Deleted::Revoking));
    loopback.snapshot_and_restore(registry());
    loopback.expire(ada.id());
    loopback.settle();
    assert_eq!(ready(exists(&bob, "/desk")), Ok(None));
    assert_eq!(handle(&bob, "/desk").path(), "/desk");
    loopback.snapshot_and_restore(registry());
}

#[test]
fn timers_of_what_was_deleted_find_nobody() {
    let (loopback, ada, bob) = pair();
    let desk = handle(&ada, "/desk");
    ready(desk.command(&desk::Remind(50))).unwrap();
    ready(delete(&bob, "/desk", false)).unwrap();
    handle(&bob, "/desk");
    loopback.snapshot_and_restore(registry());
    loopback.advance(std::time::Duration::from_secs(1));
    let new = handle(&bob, "/desk");
    assert_eq!(ready(new.query(&Look, Consistency::Linearizable)).unwrap().1, (0, 0));
}

#[test]
fn own_instances_are_told_apart_after_a_deletion() {
    let (_, ada, _) = pair();
    let open = || ready(atomix_resource::Handle::<Desk>::open(&ada, "/desk", &(), Sharing::Own)).unwrap();
    let (first, second) = (open(), open());
    assert_ne!(first.instance(), second.instance());
    ready(delete(&ada, "/desk", false)).unwrap();
    let third = open();
    assert_eq!(ready(first.command(&Sit)), Err(ResourceError::Deleted));
    assert_eq!(ready(second.command(&Sit)), Err(ResourceError::Deleted));
    assert!(ready(third.command(&Sit)).unwrap().1);
}
