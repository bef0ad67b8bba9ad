//! A map against its naive twin, the bytes it promises, and what has a name.

mod current;
mod drops;
mod fencing;
mod golden;
mod model;
mod slow;
mod watching;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use atomix_resource::{
    Caller, Consistency, Handle, Index, InstanceId, NotDone, Registry, ResourceError, ResourceHandle,
    Session, SessionId, Sharing, StateMachine, limits,
};
use atomix_testkit::loopback::{Loopback, ready};
use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::op::*;
use super::*;
use crate::register;

fn loopback() -> Loopback {
    Loopback::new(register(Registry::new()))
}

fn map<V: Serialize + DeserializeOwned>(session: &Arc<dyn Session>) -> DistributedMap<String, V> {
    ready(DistributedMap::open(session, "/map")).unwrap()
}

fn handle(session: &Arc<dyn Session>) -> Handle<MapState> {
    ready(Handle::open(session, "/map", &(), Sharing::Shared)).unwrap()
}

fn bytes(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}

/// Versions can be kept outside the map: they are serde types.
fn serde_version(index: u64) -> Version {
    postcard::from_bytes(&postcard::to_allocvec(&index).unwrap()).unwrap()
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What a stream hands out without waiting, its end included.
fn taken<K, V>(stream: &mut MapStream<K, V>) -> Vec<Result<MapChange<K, V>, WatchEnd>>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let mut taken = Vec::new();
    while let Poll::Ready(change) = poll_once(stream.next()) {
        taken.push(change);
        if taken.last().is_some_and(Result::is_err) {
            break;
        }
    }
    taken
}

/// Who watches the map at `/map`, according to the servers.
fn watches(loopback: &Loopback) -> BTreeMap<Caller, Scope> {
    let snapshot = loopback.snapshot();
    let place = b"\x04/map\x03map";
    let place = snapshot.windows(place.len()).rposition(|bytes| bytes == place).unwrap() + place.len();
    let (state, _) =
        postcard::take_from_bytes::<(BTreeMap<Bytes, Entry>, BTreeMap<Caller, Scope>)>(&snapshot[place..])
            .unwrap();
    state.1
}

/// Watches all keys, by a command that nobody takes back.
fn watch_by_hand(handle: &Handle<MapState>) -> Result<Option<Entry>, MapRefusal> {
    ready(handle.command(&Watch { scope: Scope::All })).unwrap().1
}

/// An envelope by hand: tag, instance, number, body.
fn envelope(instance: InstanceId, number: u8, body: &[u8]) -> Bytes {
    let instance = u8::try_from(instance.0).unwrap();
    Bytes::from([&[2, instance, number], body].concat())
}

proptest! {
    #[test]
    fn no_body_of_any_operation_stops_a_server_or_changes_what_it_refuses(
        number in 0u8..80,
        body in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..24),
    ) {
        let loopback = loopback();
        let session = loopback.session();
        let handle = handle(&session);
        let map = DistributedMap::<String, u8>::from_handle(handle.clone());
        ready(map.put("k", &1)).unwrap();
        let bytes = envelope(handle.instance(), number, &body);
        let answer = ready(session.query(bytes.clone(), Consistency::Linearizable)).unwrap();
        prop_assert!(answer.body[0] != 0 || (32..=35).contains(&number));
        let reply = ready(session.submit(bytes, &mut |_| ())).unwrap();
        prop_assert!(reply.body[0] != 0 || (1..=9).contains(&number) || (64..=70).contains(&number));
        if reply.body[0] != 0 {
            prop_assert_eq!(ready(map.entries()), Ok(vec![("k".to_owned(), 1)]));
        }
        loopback.snapshot_and_restore(register(Registry::new()));
    }
}

// What has a name.

#[test]
fn a_key_of_the_longest_length_is_kept_and_one_longer_is_refused() {
    let session = loopback().session();
    let map = map::<u8>(&session);
    // Three bytes of length come before a string of this size.
    let longest = "k".repeat(limits::KEY_BYTES - 3);
    assert_eq!(ready(map.put(&longest, &1)), Ok(None));
    let longer = longest + "k";
    let refused = MapError::Refused(MapRefusal::KeyTooLong);
    assert!(refused.is_not_done());
    assert_eq!(ready(map.put(&longer, &1)), Err(refused.clone()));
    assert_eq!(ready(map.put_if_absent(&longer, &1)), Err(refused));
    assert_eq!(ready(map.get(&longer)), Ok(None));
    assert_eq!(ready(map.replace(&longer, &1)), Ok(None));
    assert_eq!(ready(map.len()), Ok(1));
}

#[test]
fn a_command_beyond_the_limit_is_not_done() {
    let session = loopback().session();
    let map = map::<String>(&session);
    let large = "v".repeat(limits::COMMAND_BYTES);
    let error = ready(map.put("k", &large)).unwrap_err();
    assert_eq!(error, MapError::Resource(ResourceError::NotDone(NotDone::TooLarge)));
    assert!(error.is_not_done() && !error.is_unknown());
    assert_eq!(ready(map.is_empty()), Ok(true));
}

#[test]
fn entries_come_whole_in_pages_that_fit_into_a_frame() {
    let session = loopback().session();
    let map = map::<String>(&session);
    // The largest values that fit into a command, and many small ones around them.
    let large = "v".repeat(limits::COMMAND_BYTES - 64);
    for n in 0..2_000 {
        let value = if n % 500 == 0 { large.as_str() } else { "a small one, of which a page holds many" };
        ready(map.put(&format!("{n:04}"), value)).unwrap();
    }
    let entries = ready(map.entries()).unwrap();
    let expected: Vec<_> = (0..2_000).map(|n| format!("{n:04}")).collect();
    assert!(entries.iter().map(|(key, _)| key).eq(&expected));

    let handle = handle(&session);
    let (mut after, mut pages) = (None, 0);
    loop {
        let (_, page) = ready(handle.query(&Entries { after }, Consistency::Linearizable)).unwrap();
        pages += 1;
        assert!(postcard::to_allocvec(&page).unwrap().len() < limits::FRAME_BYTES / 2);
        if !page.more {
            break;
        }
        after = page.entries.last().map(|(key, _)| key.clone());
    }
    assert!(pages > 4, "{pages} pages");
}

#[test]
fn writes_take_effect_in_the_order_of_calls() {
    let session = loopback().session();
    let map = map::<u8>(&session);
    let (first, second) = (map.put("k", &1), map.put("k", &2));
    let read = map.get("k");
    drop(map.put("k", &3));
    assert_eq!(ready(second), Ok(Some(1)));
    assert_eq!(ready(first), Ok(None));
    assert_eq!(ready(read), Ok(Some(2)));
    assert_eq!(ready(map.get("k")), Ok(Some(3)));
}

#[test]
fn a_value_of_another_type_is_reported_and_the_write_is_done() {
    let session = loopback().session();
    let (words, numbers) = (map::<String>(&session), map::<u8>(&session));
    ready(words.put("k", "a word")).unwrap();
    let error = ready(numbers.get("k")).unwrap_err();
    assert_eq!(error, MapError::Resource(ResourceError::Undecodable));
    assert!(!error.is_not_done() && !error.is_unknown());
    assert!(ready(numbers.put("k", &1)).is_err());
    assert_eq!(ready(numbers.get("k")), Ok(Some(1)));
}

#[test]
fn entries_outlive_the_session_that_wrote_them() {
    let loopback = loopback();
    let (ada, bob) = (loopback.session(), loopback.session());
    ready(map::<u8>(&ada).put("k", &1)).unwrap();
    loopback.expire(ada.id());
    loopback.settle();
    assert_eq!(ready(map::<u8>(&bob).get("k")), Ok(Some(1)));
    let ended = ready(DistributedMap::<String, u8>::open(&ada, "/map")).unwrap_err();
    assert_eq!(ended, ResourceError::NotDone(NotDone::SessionEnded));
}

#[test]
fn a_large_frame_is_not_kept_alive_by_a_small_entry() {
    // A command as it arrives: a slice of a read buffer that holds much else.
    let frame = Bytes::from([&b"\x01k\x03val"[..], &[0; 4096]].concat());
    let put: Put = postcard::from_bytes(&frame.slice(..6)).unwrap();
    let buffer = frame.as_ptr_range();
    assert!(!buffer.contains(&put.key.as_ptr()) && !buffer.contains(&put.value.as_ptr()));
}

#[test]
fn handles_are_cheap_to_share() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sent<T: Send + 'static>(_: T) {}
    let session = loopback().session();
    let handle = ready(Handle::open(&session, "/map", &(), Sharing::Shared)).unwrap();
    let map = DistributedMap::<String, std::rc::Rc<str>>::from_handle(handle);
    shared(&map);
    assert_eq!(session.id(), SessionId(1));
    let numbers = self::map::<u8>(&session);
    sent((numbers.put("k", &1), numbers.get("k"), numbers.entries(), numbers.get_or_default("k", 1)));
}
