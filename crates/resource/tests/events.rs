//! What a resource publishes reaches those who have it open: once, in order, before the reply of the same entry (E1, E5).

mod desk;

use std::sync::Arc;
use std::time::Duration;

use atomix_resource::{Handle, Index, Session, Sharing, Subscription};
use atomix_testkit::loopback::{Loopback, ready};
use desk::{Desk, DeskEvent, Leave, Remind, Sit, Watch, handle, registry};
use parking_lot::Mutex;

type Seen = Arc<Mutex<Vec<(Index, DeskEvent)>>>;

fn watch(desk: &Handle<Desk>) -> (Seen, Subscription) {
    let seen = Seen::default();
    let sink = seen.clone();
    let subscription =
        desk.events(move |index, event| sink.lock().push((index, event.expect("a desk's event"))));
    ready(desk.command(&Watch)).expect("registered");
    (seen, subscription)
}

fn told(seen: &Seen) -> Vec<DeskEvent> {
    seen.lock().iter().map(|(_, event)| event.clone()).collect()
}

fn pair() -> (Loopback, Arc<dyn Session>, Arc<dyn Session>) {
    let loopback = Loopback::new(registry());
    let (ada, bob) = (loopback.session(), loopback.session());
    (loopback, ada, bob)
}

#[test]
fn e5_a_registration_misses_nothing_behind_it_and_events_come_before_the_reply() {
    let (loopback, ada, bob) = pair();
    let (hers, his) = (handle(&ada, "/desk"), handle(&bob, "/desk"));
    ready(hers.command(&Sit)).unwrap();
    ready(hers.command(&Leave)).unwrap();
    let (seen, _subscription) = watch(&his);
    let sitting = his.command(&Sit);
    // Nobody has polled for the reply, and the event is here.
    assert_eq!(told(&seen), [DeskEvent::Came(bob.id())]);
    let (index, _) = ready(sitting).unwrap();
    assert_eq!(seen.lock()[0].0, index);
    ready(hers.command(&Leave)).unwrap();
    ready(hers.command(&Sit)).unwrap();
    loopback.expire(ada.id());
    assert_eq!(
        told(&seen)[1..],
        [DeskEvent::Went(bob.id()), DeskEvent::Came(ada.id()), DeskEvent::Went(ada.id())]
    );
}

#[test]
fn timers_publish_too() {
    let (loopback, ada, _) = pair();
    let desk = handle(&ada, "/desk");
    let (seen, _subscription) = watch(&desk);
    ready(desk.command(&Remind(100))).unwrap();
    loopback.advance(Duration::from_millis(99));
    assert_eq!(told(&seen), []);
    loopback.advance(Duration::from_millis(1));
    assert_eq!(told(&seen), [DeskEvent::Reminded]);
}

#[test]
fn each_instance_gets_an_event_once_and_every_sink_of_it() {
    let (_, ada, _) = pair();
    let shared = handle(&ada, "/desk");
    let own = ready(Handle::<Desk>::open(&ada, "/desk", &(), Sharing::Own)).unwrap();
    // Two registrations of one instance, one of another.
    let ((first, _one), (second, _two), (third, _three)) =
        (watch(&shared), watch(&shared.clone()), watch(&own));
    ready(own.command(&Sit)).unwrap();
    for seen in [first, second, third] {
        assert_eq!(told(&seen), [DeskEvent::Came(ada.id())]);
    }
}

#[test]
fn a_dropped_subscription_hears_nothing_and_its_sink_is_gone() {
    let (loopback, ada, _) = pair();
    let desk = handle(&ada, "/desk");
    let (seen, subscription) = watch(&desk);
    let (kept, _subscription) = watch(&desk);
    drop(subscription);
    assert_eq!(Arc::strong_count(&seen), 1);
    ready(desk.command(&Sit)).unwrap();
    assert_eq!((told(&seen).len(), told(&kept).len()), (0, 1));
    loopback.expire(ada.id());
    assert_eq!(Arc::strong_count(&kept), 1, "the session is over, and so are its sinks");
}

#[test]
fn a_session_that_never_submits_does_not_gather_what_it_was_told() {
    let (loopback, ada, bob) = pair();
    let (hers, his) = (handle(&ada, "/desk"), handle(&bob, "/desk"));
    let (seen, _subscription) = watch(&hers);
    for _ in 0..5_000 {
        ready(his.command(&Sit)).unwrap();
        ready(his.command(&Leave)).unwrap();
    }
    assert_eq!(seen.lock().len(), 10_000);
    assert!(loopback.snapshot_and_restore(registry()).len() < 10_000);
}
