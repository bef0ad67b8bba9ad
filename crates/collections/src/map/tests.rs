//! A map against its naive twin, the bytes it promises, and what has a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use atomix_resource::{
    Consistency, Handle, Index, InstanceId, NotDone, Operation, Registry, Resource, ResourceError,
    ResourceHandle, Session, SessionId, Sharing, StateMachine, limits,
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

fn bytes(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}

// The model: every command of two clients against a map that a child could write.

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    PutIfAbsent(u8, u16),
    Replace(u8, u16),
    /// With a version so far off that of the entry.
    ReplaceIf(u8, i8, u16),
    Remove(u8),
    RemoveIf(u8, i8),
    Clear,
    Get(u8),
    Entries,
    /// The servers go on from a snapshot.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    // Few keys, so that they meet. 200 and 7 differ in the length of their encoding.
    let key = prop_oneof![Just(7u8), Just(8), Just(200)];
    let off = prop_oneof![2 => Just(0i8), 1 => Just(-1), 1 => Just(1)];
    prop_oneof![
        4 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Step::PutIfAbsent(k, v)),
        2 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Step::Replace(k, v)),
        3 => (key.clone(), off.clone(), any::<u16>()).prop_map(|(k, off, v)| Step::ReplaceIf(k, off, v)),
        2 => key.clone().prop_map(Step::Remove),
        2 => (key.clone(), off).prop_map(|(k, off)| Step::RemoveIf(k, off)),
        1 => Just(Step::Clear),
        2 => key.prop_map(Step::Get),
        1 => Just(Step::Entries),
        1 => Just(Step::Restore),
    ]
}

/// Key to value and version.
type Twin = BTreeMap<u16, (u16, u64)>;

fn check(loopback: &Loopback, map: &DistributedMap<u16, u16>, twin: &mut Twin, step: &Step) {
    let value_of = |held: Option<&(u16, u64)>| held.map(|(value, _)| *value);
    // A version so far off that of an entry; any at all if there is none.
    let version = |twin: &Twin, key: u16, off: i8| {
        serde_version(twin.get(&key).map_or(1, |(_, version)| version.wrapping_add_signed(off.into())))
    };
    match *step {
        Step::Put(key, value) => {
            let before = ready(map.put(&key.into(), &value)).unwrap();
            assert_eq!(before, value_of(twin.insert(key.into(), (value, index(loopback))).as_ref()));
        }
        Step::PutIfAbsent(key, value) => {
            let held = ready(map.put_if_absent(&key.into(), &value)).unwrap();
            assert_eq!(held, value_of(twin.get(&key.into())));
            twin.entry(key.into()).or_insert((value, index(loopback)));
        }
        Step::Replace(key, value) => {
            let before = ready(map.replace(&key.into(), &value)).unwrap();
            assert_eq!(before, value_of(twin.get(&key.into())));
            twin.entry(key.into()).and_modify(|held| *held = (value, index(loopback)));
        }
        Step::ReplaceIf(key, off, value) => {
            let version = version(twin, key.into(), off);
            let replaced = ready(map.replace_if(&key.into(), version, &value)).unwrap();
            let expected = off == 0 && twin.contains_key(&key.into());
            assert_eq!(replaced.map(|version| version.index().0), expected.then(|| index(loopback)));
            if expected {
                twin.insert(key.into(), (value, index(loopback)));
            }
        }
        Step::Remove(key) => {
            let before = ready(map.remove(&key.into())).unwrap();
            assert_eq!(before, value_of(twin.remove(&key.into()).as_ref()));
        }
        Step::RemoveIf(key, off) => {
            let version = version(twin, key.into(), off);
            let removed = ready(map.remove_if(&key.into(), version)).unwrap();
            assert_eq!(removed, off == 0 && twin.contains_key(&key.into()));
            if removed {
                twin.remove(&key.into());
            }
        }
        Step::Clear => {
            ready(map.clear()).unwrap();
            twin.clear();
        }
        Step::Get(key) => {
            let held = twin.get(&key.into());
            let found = ready(map.get_versioned(&key.into())).unwrap();
            assert_eq!(found.map(|found| (found.value, found.version.index().0)), held.copied());
            assert_eq!(ready(map.get(&key.into())).unwrap(), value_of(held));
            assert_eq!(ready(map.contains_key(&key.into())).unwrap(), held.is_some());
            let expected = value_of(held).unwrap_or(9);
            assert_eq!(ready(map.get_or_default(&key.into(), 9)).unwrap(), expected);
        }
        Step::Entries => {
            let mut entries = ready(map.entries()).unwrap();
            entries.sort_unstable();
            let expected: Vec<_> = twin.iter().map(|(key, (value, _))| (*key, *value)).collect();
            assert_eq!(entries, expected);
            assert_eq!(ready(map.len()).unwrap(), twin.len() as u64);
            assert_eq!(ready(map.is_empty()).unwrap(), twin.is_empty());
        }
        Step::Restore => drop(loopback.snapshot_and_restore(register(Registry::new()))),
    }
}

/// Index of the command just applied.
fn index(loopback: &Loopback) -> u64 {
    loopback.applied().0.0
}

/// Versions can be kept outside the map: they are serde types.
fn serde_version(index: u64) -> Version {
    postcard::from_bytes(&postcard::to_allocvec(&index).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn a_map_does_what_its_twin_does(steps in proptest::collection::vec((any::<bool>(), step()), 1..60)) {
        let loopback = loopback();
        let maps = [(), ()].map(|()| ready(DistributedMap::open(&loopback.session(), "/map")).unwrap());
        let mut twin = Twin::new();
        for (client, step) in &steps {
            check(&loopback, &maps[usize::from(*client)], &mut twin, step);
        }
        check(&loopback, &maps[0], &mut twin, &Step::Restore);
        check(&loopback, &maps[0], &mut twin, &Step::Entries);
    }
}

/// An envelope by hand: tag, instance, number, body.
fn envelope(instance: InstanceId, number: u8, body: &[u8]) -> Bytes {
    let instance = u8::try_from(instance.0).unwrap();
    Bytes::from([&[2, instance, number], body].concat())
}

proptest! {
    #[test]
    fn no_body_of_any_operation_stops_a_server_or_changes_what_it_refuses(
        number in 0u8..40,
        body in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..24),
    ) {
        let loopback = loopback();
        let session = loopback.session();
        let handle: Handle<MapState> = ready(Handle::open(&session, "/map", &(), Sharing::Shared)).unwrap();
        let map = DistributedMap::<String, u8>::from_handle(handle.clone());
        ready(map.put("k", &1)).unwrap();
        let bytes = envelope(handle.instance(), number, &body);
        let answer = ready(session.query(bytes.clone(), Consistency::Linearizable)).unwrap();
        prop_assert!(answer.body[0] != 0 || (32..=35).contains(&number));
        let reply = ready(session.submit(bytes)).unwrap();
        prop_assert!(reply.body[0] != 0 || (1..=7).contains(&number));
        if reply.body[0] != 0 {
            prop_assert_eq!(ready(map.entries()), Ok(vec![("k".to_owned(), 1)]));
        }
        loopback.snapshot_and_restore(register(Registry::new()));
    }
}

// Golden bytes: what is written here once is read for ever.

fn check_golden<T>(value: T, golden: &[u8])
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(postcard::to_allocvec(&value).unwrap(), golden, "{value:?}");
    assert_eq!(postcard::from_bytes::<T>(golden).unwrap(), value);
}

#[test]
fn golden_bytes_of_operations() {
    let (key, value, version) = (bytes(b"k"), bytes(b"val"), Index(300));
    check_golden(Put { key: key.clone(), value: value.clone() }, b"\x01k\x03val");
    check_golden(PutIfAbsent { key: key.clone(), value: value.clone() }, b"\x01k\x03val");
    check_golden(Replace { key: key.clone(), value: value.clone() }, b"\x01k\x03val");
    check_golden(ReplaceIf { key: key.clone(), version, value }, b"\x01k\xac\x02\x03val");
    check_golden(Remove { key: key.clone() }, b"\x01k");
    check_golden(RemoveIf { key: key.clone(), version }, b"\x01k\xac\x02");
    check_golden(Clear, b"");
    check_golden(Get { key: key.clone() }, b"\x01k");
    check_golden(ContainsKey { key: key.clone() }, b"\x01k");
    check_golden(Len, b"");
    check_golden(Entries { after: None }, b"\x00");
    check_golden(Entries { after: Some(key) }, b"\x01\x01k");
}

#[test]
fn golden_numbers() {
    let commands = [
        Put::NUMBER,
        PutIfAbsent::NUMBER,
        Replace::NUMBER,
        ReplaceIf::NUMBER,
        Remove::NUMBER,
        RemoveIf::NUMBER,
        Clear::NUMBER,
    ];
    assert_eq!(commands, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!([Get::NUMBER, ContainsKey::NUMBER, Len::NUMBER, Entries::NUMBER], [32, 33, 34, 35]);
    assert_eq!(register(Registry::new()).kinds()[0].level, 35);
    assert_eq!(MapState::KIND, "map");
}

#[test]
fn golden_bytes_of_replies() {
    let entry = Entry { value: bytes(b"val"), version: Index(300) };
    check_golden::<<Put as Operation>::Reply>(Ok(None), b"\x00\x00");
    check_golden::<<Put as Operation>::Reply>(Ok(Some(entry.clone())), b"\x00\x01\x03val\xac\x02");
    check_golden::<<Put as Operation>::Reply>(Err(MapRefusal::KeyTooLong), b"\x01\x00");
    check_golden::<<PutIfAbsent as Operation>::Reply>(Ok(Some(entry.clone())), b"\x00\x01\x03val\xac\x02");
    check_golden::<<Replace as Operation>::Reply>(Some(entry.clone()), b"\x01\x03val\xac\x02");
    check_golden::<<ReplaceIf as Operation>::Reply>(true, b"\x01");
    check_golden::<<Remove as Operation>::Reply>(Some(entry.clone()), b"\x01\x03val\xac\x02");
    check_golden::<<RemoveIf as Operation>::Reply>(false, b"\x00");
    check_golden::<<Clear as Operation>::Reply>((), b"");
    check_golden::<<Get as Operation>::Reply>(Some(entry.clone()), b"\x01\x03val\xac\x02");
    check_golden::<<ContainsKey as Operation>::Reply>(true, b"\x01");
    check_golden::<<Len as Operation>::Reply>(300, b"\xac\x02");
    let page = Page { entries: vec![(bytes(b"k"), entry)], more: true };
    check_golden::<<Entries as Operation>::Reply>(page, b"\x01\x01k\x03val\xac\x02\x01");
}

#[test]
fn golden_bytes_of_the_state_in_a_snapshot() {
    let loopback = loopback();
    let map = map::<u64>(&loopback.session());
    ready(map.put("b", &2)).unwrap();
    ready(map.put("a", &1)).unwrap();
    // Two entries; key, value and version of each. A string's encoding begins with its length.
    let golden = b"\x02\x02\x01a\x01\x01\x04\x02\x01b\x01\x02\x03";
    assert!(loopback.snapshot().windows(golden.len()).any(|bytes| bytes == golden));
    let state = MapState::restore(1, &bytes(golden)).unwrap();
    assert_eq!(postcard::to_allocvec(&state).unwrap(), golden);

    let descending = b"\x02\x02\x01b\x01\x02\x03\x02\x01a\x01\x01\x04";
    assert!(MapState::restore(1, &bytes(descending)).is_err());
    assert!(MapState::restore(2, &bytes(golden)).is_err());
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

    let handle: Handle<MapState> = ready(Handle::open(&session, "/map", &(), Sharing::Shared)).unwrap();
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
