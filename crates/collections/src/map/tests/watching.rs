//! What watching promises, by name.

use std::pin::Pin;

use atomix_protocol::{ClusterTime, codec};
use atomix_resource::management::{self, Deleted};
use atomix_resource::{Operation, Sequence};
use atomix_session::{Levels, Published, StateMachine, Timers};
use futures_core::Stream;

use super::slow::Slow;
use super::*;

type Change = MapChange<String, u8>;

fn entry(value: u8, version: u64) -> Versioned<u8> {
    Versioned { value, version: serde_version(version) }
}

fn index(loopback: &Loopback) -> u64 {
    loopback.applied().0.0
}

/// What a stream hands out, in short: the kind, the key, and the new value if there is one.
fn short(stream: &mut MapStream<String, u8>) -> Vec<String> {
    let short = |change| match change {
        Ok(Change::Current { key, entry }) => format!("={key}{}", entry.value),
        Ok(Change::Added { key, entry }) => format!("+{key}{}", entry.value),
        Ok(Change::Updated { key, new, .. }) => format!("~{key}{}", new.value),
        Ok(Change::Removed { key, .. }) => format!("-{key}"),
        Ok(Change::Cleared { .. }) => "cleared".into(),
        Err(end) => format!("{end:?}"),
    };
    taken(stream).into_iter().map(short).collect()
}

#[test]
fn e5_every_change_behind_a_registration_arrives_once_and_in_order() {
    let loopback = loopback();
    let (ada, bob) = (map::<u8>(&loopback.session()), map::<u8>(&loopback.session()));
    ready(ada.put("k", &1)).unwrap();
    let first = index(&loopback);
    let mut changes = ready(bob.watch()).unwrap();
    assert_eq!(taken(&mut changes), [], "nothing from before");
    ready(ada.put("k", &2)).unwrap();
    let second = index(&loopback);
    ready(ada.put("k", &2)).unwrap();
    ready(bob.remove("k")).unwrap();
    ready(ada.put_if_absent("l", &4)).unwrap();
    ready(ada.clear()).unwrap();
    let key = || "k".to_owned();
    let version = |behind: u64| serde_version(second + behind);
    let expected = [
        Change::Updated { key: key(), old: entry(1, first), new: entry(2, second) },
        // The value is the same, the version another.
        Change::Updated { key: key(), old: entry(2, second), new: entry(2, second + 1) },
        Change::Removed { key: key(), old: entry(2, second + 1), version: version(2) },
        Change::Added { key: "l".into(), entry: entry(4, second + 3) },
        Change::Cleared { version: version(4) },
    ];
    assert_eq!(taken(&mut changes), expected.map(Ok));
}

#[test]
fn e5_what_an_own_write_changes_is_there_before_its_reply() {
    let slow = Slow::new(&loopback(), false);
    let map: DistributedMap<String, u8> = slow.ready(DistributedMap::open(&slow.session(), "/map")).unwrap();
    let mut changes = slow.ready(map.watch()).unwrap();
    let mut put = pin!(map.put("k", &1));
    assert!(poll_once(put.as_mut()).is_pending());
    assert_eq!(short(&mut changes), ["+k1"]);
    assert_eq!(slow.ready(put), Ok(None));
}

#[test]
fn what_changes_nothing_is_not_told() {
    let loopback = loopback();
    let session = loopback.session();
    let map = map::<u8>(&session);
    let mut changes = [ready(map.watch()).unwrap(), ready(map.watch_key("k")).unwrap()];
    ready(map.clear()).unwrap();
    ready(map.remove("k")).unwrap();
    ready(map.replace("k", &1)).unwrap();
    ready(map.put(&"k".repeat(limits::KEY_BYTES), &1)).unwrap_err();
    assert!(changes.iter_mut().all(|changes| short(changes).is_empty()));
    ready(map.put("k", &1)).unwrap();
    ready(map.put_if_absent("k", &2)).unwrap();
    ready(map.replace_if("k", serde_version(1), &2)).unwrap();
    ready(map.remove_if("k", serde_version(1))).unwrap();
    ready(map.get("k")).unwrap();
    for changes in &mut changes {
        assert_eq!(short(changes), ["+k1"]);
    }
}

#[test]
fn streams_of_one_instance_see_what_each_has_asked_for_from_its_own_registration_on() {
    let loopback = loopback();
    let session = loopback.session();
    let (map, again) = (map::<u8>(&session), map::<u8>(&session));
    let mut all = ready(map.watch()).unwrap();
    ready(map.put("a", &1)).unwrap();
    let mut of_a = ready(again.clone().watch_key("a")).unwrap();
    let mut of_b = ready(again.watch_key("b")).unwrap();
    ready(map.put("a", &2)).unwrap();
    let mut late = ready(map.watch()).unwrap();
    ready(map.put("b", &3)).unwrap();
    ready(map.put("c", &4)).unwrap();
    assert_eq!(short(&mut all), ["+a1", "~a2", "+b3", "+c4"]);
    assert_eq!((short(&mut of_a), short(&mut of_b)), (vec!["~a2".to_owned()], vec!["+b3".to_owned()]));
    assert_eq!(short(&mut late), ["+b3", "+c4"]);
    drop(late);
    ready(map.remove("a")).unwrap();
    assert_eq!(short(&mut all), ["-a"], "a stream that is dropped takes nothing from the others");
    assert_eq!((short(&mut of_a), short(&mut of_b)), (vec!["-a".to_owned()], vec![]));
}

#[test]
fn clearing_is_told_to_who_watches_a_key_only_if_it_held_something() {
    let loopback = loopback();
    let (ada, bob) = (map::<u8>(&loopback.session()), map::<u8>(&loopback.session()));
    ready(ada.put("a", &1)).unwrap();
    // On one instance, which is told because of the first two.
    let (mut all, mut of_a) = (ready(ada.watch()).unwrap(), ready(ada.watch_key("a")).unwrap());
    let (mut of_b, mut of_c) = (ready(ada.watch_key("b")).unwrap(), ready(bob.watch_key("c")).unwrap());
    ready(bob.put("b", &2)).unwrap();
    ready(bob.remove("b")).unwrap();
    ready(bob.clear()).unwrap();
    assert_eq!(short(&mut all), ["+b2", "-b", "cleared"]);
    assert_eq!(short(&mut of_a), ["cleared"]);
    assert_eq!(short(&mut of_b), ["+b2", "-b"]);
    assert_eq!(short(&mut of_c), [""; 0]);
}

#[test]
fn a_stream_of_a_key_begins_with_what_it_holds_at_its_registration_if_asked() {
    let loopback = loopback();
    let (ada, bob) = (map::<u8>(&loopback.session()), map::<u8>(&loopback.session()));
    ready(ada.put("a", &1)).unwrap();
    let of_a = ready(bob.watch_key("a")).unwrap();
    let mut of_b = ready(bob.watch_key("b")).unwrap().current_first();
    ready(ada.put("a", &2)).unwrap();
    ready(ada.put("b", &3)).unwrap();
    let mut of_a = of_a.current_first();
    assert_eq!(short(&mut of_a), ["=a1", "~a2"]);
    assert_eq!(short(&mut of_b), ["+b3"]);
    // Asked for again, it is what the stream has told of.
    ready(ada.put("a", &4)).unwrap();
    assert_eq!(short(&mut of_a.current_first()), ["=a2", "~a4"]);
}

/// Changes while a registration is on its way, before it and behind it in the log: what its stream tells then.
fn registered_among(before: u8, behind: u8, queue: usize) -> Vec<String> {
    let loopback = loopback();
    let ada = map::<u8>(&loopback.session());
    let slow = Slow::new(&loopback, true);
    let map: DistributedMap<String, u8> = slow.ready(DistributedMap::open(&slow.session(), "/map")).unwrap();
    // By this one the instance is told of what is not the other stream's.
    let _earlier = slow.ready(map.watch()).unwrap();
    let mut watch = pin!(map.with_queue(queue).watch());
    assert!(poll_once(watch.as_mut()).is_pending());
    for value in 1..=before {
        ready(ada.put("k", &value)).unwrap();
    }
    assert!(slow.arrive(), "the registration");
    for value in 1..=behind {
        ready(ada.put("k", &(100 + value))).unwrap();
    }
    short(&mut slow.ready(watch).unwrap())
}

#[test]
fn what_comes_before_the_registration_in_the_log_is_of_others_and_takes_no_room() {
    assert_eq!(registered_among(2, 2, 9), ["~k101", "~k102"]);
    assert_eq!(registered_among(9, 2, 2), ["~k101", "~k102"]);
    assert_eq!(registered_among(9, 3, 2), ["Lagged"]);
}

#[test]
fn s18_a_full_queue_ends_that_stream_and_no_other() {
    let loopback = loopback();
    let session = loopback.session();
    let map = map::<u8>(&session);
    let mut narrow = ready(map.with_queue(2).watch()).unwrap();
    let mut of_k = ready(map.with_queue(2).watch_key("k")).unwrap();
    let mut wide = ready(map.watch()).unwrap();
    for (key, value) in [("a", 1), ("b", 2), ("c", 3), ("k", 4)] {
        ready(map.put(key, &value)).unwrap();
    }
    assert_eq!(watches(&loopback).len(), 3);
    assert_eq!(short(&mut narrow), ["+a1", "+b2", "Lagged"]);
    assert_eq!(watches(&loopback).len(), 2, "nobody is told for its sake any more");
    assert_eq!(short(&mut narrow), ["Lagged"]);
    assert_eq!(short(&mut wide), ["+a1", "+b2", "+c3", "+k4"]);
    assert_eq!(short(&mut of_k), ["+k4"]);
    ready(map.put("k", &5)).unwrap();
    assert_eq!((short(&mut wide), short(&mut of_k)), (vec!["~k5".to_owned()], vec!["~k5".to_owned()]));

    let mut by_default = ready(map.watch()).unwrap();
    for _ in 0..=limits::HANDLE_QUEUE {
        ready(map.put("k", &6)).unwrap();
    }
    let told = taken(&mut by_default);
    assert_eq!((told.len(), told.last()), (limits::HANDLE_QUEUE + 1, Some(&Err(WatchEnd::Lagged))));
}

#[test]
fn a_stream_ends_with_its_session_behind_what_was_told() {
    let loopback = loopback();
    let (ada, bob) = (loopback.session(), loopback.session());
    let (adas, bobs) = (map::<u8>(&ada), map::<u8>(&bob));
    let (mut changes, mut others) = (ready(adas.watch()).unwrap(), ready(bobs.watch()).unwrap());
    ready(bobs.put("k", &1)).unwrap();
    loopback.expire(ada.id());
    ready(bobs.put("k", &2)).unwrap();
    assert_eq!(short(&mut changes), ["+k1", "SessionEnded"]);
    assert_eq!(short(&mut changes), ["SessionEnded"]);
    assert_eq!(short(&mut others), ["+k1", "~k2"]);
    loopback.settle();
    assert_eq!(watches(&loopback).len(), 1);
    let ended = MapError::Resource(ResourceError::NotDone(NotDone::SessionEnded));
    assert_eq!(ready(adas.watch()).unwrap_err(), ended);
}

#[test]
fn m1_a_stream_ends_when_the_map_is_deleted() {
    let loopback = loopback();
    let (ada, bob) = (loopback.session(), loopback.session());
    let (adas, bobs) = (map::<u8>(&ada), map::<u8>(&bob));
    let (mut all, mut of_k) = (ready(adas.watch()).unwrap(), ready(bobs.watch_key("k")).unwrap());
    ready(adas.put("a", &1)).unwrap();
    assert_eq!(ready(management::delete(&ada, "/map", false)), Ok(Deleted::Gone));
    let anew = map::<u8>(&bob);
    ready(anew.put("a", &2)).unwrap();
    assert_eq!(short(&mut all), ["+a1", "Deleted"]);
    assert_eq!(short(&mut of_k), ["Deleted"]);
    let deleted = MapError::Resource(ResourceError::Deleted);
    assert_eq!(ready(adas.watch()).unwrap_err(), deleted);
    assert!(watches(&loopback).is_empty());
}

#[test]
fn what_is_of_another_type_ends_the_stream_and_says_so() {
    let session = loopback().session();
    let (words, numbers) = (map::<String>(&session), map::<u8>(&session));
    let (mut changes, mut of_words) = (ready(numbers.watch()).unwrap(), ready(words.watch()).unwrap());
    ready(words.put("k", "a word")).unwrap();
    assert_eq!(short(&mut changes), ["Undecodable"]);
    assert_eq!(taken(&mut of_words).len(), 1);
    let mut current = ready(numbers.watch()).unwrap().current_first();
    assert_eq!(short(&mut current), ["Undecodable"]);
}

#[test]
fn as_a_stream_it_yields_its_end_and_is_over() {
    let loopback = loopback();
    let session = loopback.session();
    let map = map::<u8>(&session);
    let mut changes = ready(map.with_queue(1).watch()).unwrap();
    let mut next = || Pin::new(&mut changes).poll_next(&mut Context::from_waker(Waker::noop()));
    assert!(next().is_pending());
    ready(map.put("k", &1)).unwrap();
    ready(map.put("k", &2)).unwrap();
    assert!(matches!(next(), Poll::Ready(Some(Ok(Change::Added { .. })))));
    assert_eq!(next(), Poll::Ready(Some(Err(WatchEnd::Lagged))));
    assert_eq!(next(), Poll::Ready(None));
    assert_eq!(short(&mut changes), ["Lagged"]);
}

#[test]
fn a_map_has_so_many_watches_and_no_more() {
    let loopback = loopback();
    let (ada, bob) = (loopback.session(), loopback.session());
    let (adas, bobs) = (handle(&ada), map::<u8>(&bob));
    for _ in 0..MOST_WATCHES {
        watch_by_hand(&adas).unwrap();
    }
    assert_eq!(watch_by_hand(&adas), Err(MapRefusal::TooManyWatches));
    let refused = MapError::Refused(MapRefusal::TooManyWatches);
    assert!(refused.is_not_done());
    assert_eq!(ready(bobs.watch()).unwrap_err(), refused);
    loopback.expire(ada.id());
    loopback.settle();
    assert!(ready(bobs.watch()).is_ok());
}

#[test]
fn s9_the_watches_of_an_ended_session_go_in_slices() {
    let loopback = loopback();
    let (ada, bob) = (loopback.session(), loopback.session());
    let (adas, bobs) = (handle(&ada), map::<u8>(&bob));
    let mut changes = ready(bobs.watch()).unwrap();
    for _ in 0..300 {
        watch_by_hand(&adas).unwrap();
    }
    loopback.expire(ada.id());
    assert_eq!(watches(&loopback).len(), 1 + 300 - 128);
    ready(bobs.put("k", &1)).unwrap();
    assert_eq!(watches(&loopback).len(), 1 + 300 - 256);
    loopback.snapshot_and_restore(register(Registry::new()));
    ready(bobs.put("k", &2)).unwrap();
    assert_eq!(watches(&loopback).len(), 1);
    assert_eq!(short(&mut changes), ["+k1", "~k2"]);
}

#[test]
fn unwatching_is_idempotent_and_concerns_only_the_own_watch() {
    let loopback = loopback();
    let (ada, bob) = (loopback.session(), loopback.session());
    let (adas, bobs) = (handle(&ada), handle(&bob));
    watch_by_hand(&adas).unwrap();
    watch_by_hand(&bobs).unwrap();
    // Both have opened the map and watched it then.
    let watch = Sequence(2);
    for _ in 0..2 {
        ready(adas.command(&Unwatch { watch })).unwrap();
        let left: Vec<_> = watches(&loopback).into_keys().collect();
        assert_eq!(left, [Caller { session: bob.id(), instance: bobs.instance(), sequence: watch }]);
    }
}

#[test]
fn the_largest_change_fits_into_an_event() {
    let loopback = loopback();
    let session = loopback.session();
    let map = map::<String>(&session);
    let mut changes = ready(map.watch()).unwrap();
    let large = "v".repeat(limits::COMMAND_BYTES - 64);
    ready(map.put("k", &large)).unwrap();
    ready(map.put("k", &large)).unwrap();
    let [_, Ok(MapChange::Updated { old, new, .. })] = &taken(&mut changes)[..] else { panic!() };
    assert_eq!((old.value.len(), new.value.len()), (large.len(), large.len()));
    let entry = |value: &str| Entry { value: Bytes::from(value.to_owned()), version: Index(u64::MAX) };
    let (old, new) = (entry(&large), entry(&large));
    let key = Bytes::from(vec![0; limits::KEY_BYTES]);
    assert!(codec::to_bytes(&MapEvent::Updated { key, old, new }).len() < limits::EVENT_BYTES);
}

/// What the servers publish, with nobody between.
struct Server {
    registry: Registry,
    levels: Levels,
    index: u64,
    timers: Timers,
}

impl Server {
    fn apply(&mut self, session: u64, envelope: &[u8]) -> Published {
        self.index += 1;
        let mut published = Published::default();
        let mut cx = atomix_session::Context::new(
            Index(self.index),
            ClusterTime(0),
            Some(SessionId(session)),
            Sequence(self.index),
            &self.levels,
            &mut self.timers,
            &mut published,
        );
        let reply = self.registry.apply(&mut cx, &Bytes::copy_from_slice(envelope));
        assert_eq!(reply[0], 0, "it was carried out");
        published
    }

    /// A command of the session that has opened the instance of the same number.
    fn command<O: Operation>(&mut self, session: u64, command: &O) -> Published {
        let number = u8::try_from(O::NUMBER).unwrap();
        self.apply(session, &envelope(InstanceId(session), number, &codec::to_bytes(command)))
    }

    /// Returns its place in the session.
    fn watch(&mut self, session: u64, scope: Scope) -> Sequence {
        assert_eq!(self.command(session, &Watch { scope }), Published::default());
        Sequence(self.index)
    }

    /// To which instances the event of a command goes.
    fn told<O: Operation>(&mut self, command: &O) -> Vec<u64> {
        let published = self.command(1, command);
        assert!(!published.atomic && published.events.len() <= 1, "one event, whoever it goes to");
        published.events.iter().flat_map(|event| &event.to).map(|(_, instance)| instance.0).collect()
    }
}

#[test]
fn a_change_is_one_event_for_all_whom_it_concerns_and_for_nobody_else() {
    let registry = register(Registry::new());
    let levels = registry.kinds().into_iter().collect();
    let mut server = Server { registry, levels, index: 0, timers: Timers::default() };
    for session in 1..=3 {
        // Open, a path, a kind, no configuration, an own instance: named by its index, like the session.
        let published = server.apply(session, b"\x01\x04/map\x03map\x00\x01");
        assert_eq!(published, Published::default());
    }
    let key = |key| Scope::Key(bytes(key));
    let put = |key| Put { key: bytes(key), value: Bytes::new() };
    let nobody: [u64; 0] = [];
    assert_eq!(server.told(&put(b"a")), nobody);
    let all_of_first = server.watch(1, Scope::All);
    server.watch(1, key(b"a"));
    server.watch(2, key(b"a"));
    let b_of_third = server.watch(3, key(b"b"));
    let all_of_third = server.watch(3, Scope::All);
    assert_eq!(server.told(&put(b"a")), [1, 2, 3]);
    assert_eq!(server.told(&put(b"b")), [1, 3]);
    assert_eq!(server.told(&put(b"ab")), [1, 3]);

    server.command(3, &Unwatch { watch: all_of_third });
    assert_eq!(server.told(&put(b"a")), [1, 2]);
    assert_eq!(server.told(&Remove { key: bytes(b"a") }), [1, 2]);
    assert_eq!(server.told(&Clear), [1, 3], "b held something, and a nothing");
    assert_eq!(server.told(&Clear), nobody);
    server.command(1, &Unwatch { watch: all_of_first });
    server.command(3, &Unwatch { watch: b_of_third });
    assert_eq!(server.told(&put(b"b")), nobody);
    assert_eq!(server.told(&put(b"a")), [1, 2]);
}

#[test]
fn streams_can_be_sent_to_where_they_are_taken_from() {
    fn sent<T: Send + Unpin + 'static>(_: &T) {}
    let session = loopback().session();
    let handle = handle(&session);
    let map = DistributedMap::<String, u8>::from_handle(handle);
    let (watch, of_key) = (map.watch(), map.watch_key("k"));
    let watch = Box::pin(watch);
    sent(&watch);
    sent(&Box::pin(of_key));
    sent(&ready(watch).unwrap());
}
