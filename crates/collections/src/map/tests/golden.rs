//! Golden bytes: what is written here once is read for ever.

use atomix_resource::fencing::{FenceRefusal, Fenced, FencingToken};
use atomix_resource::{Operation, Resource, ResourceId, Sequence};

use super::fencing::Guard;
use super::*;

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
    check_golden(Watch { scope: Scope::All }, b"\x00");
    check_golden(Watch { scope: Scope::Key(key.clone()) }, b"\x01\x01k");
    check_golden(Unwatch { watch: Sequence(300) }, b"\xac\x02");
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
        Watch::NUMBER,
        Unwatch::NUMBER,
    ];
    assert_eq!(commands, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let fenced = [
        Fenced::<Put>::NUMBER,
        Fenced::<PutIfAbsent>::NUMBER,
        Fenced::<Replace>::NUMBER,
        Fenced::<ReplaceIf>::NUMBER,
        Fenced::<Remove>::NUMBER,
        Fenced::<RemoveIf>::NUMBER,
        Fenced::<Clear>::NUMBER,
    ];
    assert_eq!(fenced, [64, 65, 66, 67, 68, 69, 70]);
    assert_eq!([Get::NUMBER, ContainsKey::NUMBER, Len::NUMBER, Entries::NUMBER], [32, 33, 34, 35]);
    assert_eq!(register(Registry::new()).kinds()[0].level, 70);
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
    check_golden::<<Watch as Operation>::Reply>(Ok(Some(entry.clone())), b"\x00\x01\x03val\xac\x02");
    check_golden::<<Watch as Operation>::Reply>(Err(MapRefusal::TooManyWatches), b"\x01\x01");
    check_golden::<<Unwatch as Operation>::Reply>((), b"");
    check_golden::<<Get as Operation>::Reply>(Some(entry.clone()), b"\x01\x03val\xac\x02");
    check_golden::<<ContainsKey as Operation>::Reply>(true, b"\x01");
    check_golden::<<Len as Operation>::Reply>(300, b"\xac\x02");
    let page = Page { entries: vec![(bytes(b"k"), entry)], more: true };
    check_golden::<<Entries as Operation>::Reply>(page, b"\x01\x01k\x03val\xac\x02\x01");
}

#[test]
fn golden_bytes_of_fenced_operations() {
    let (key, value, version) = (bytes(b"k"), bytes(b"val"), Index(300));
    let token = FencingToken { lock: ResourceId(5), token: Index(300) };
    check_golden(
        Fenced { token, operation: Put { key: key.clone(), value: value.clone() } },
        b"\x05\xac\x02\x01k\x03val",
    );
    check_golden(
        Fenced { token, operation: PutIfAbsent { key: key.clone(), value: value.clone() } },
        b"\x05\xac\x02\x01k\x03val",
    );
    check_golden(
        Fenced { token, operation: Replace { key: key.clone(), value: value.clone() } },
        b"\x05\xac\x02\x01k\x03val",
    );
    check_golden(
        Fenced { token, operation: ReplaceIf { key: key.clone(), version, value } },
        b"\x05\xac\x02\x01k\xac\x02\x03val",
    );
    check_golden(Fenced { token, operation: Remove { key: key.clone() } }, b"\x05\xac\x02\x01k");
    check_golden(Fenced { token, operation: RemoveIf { key, version } }, b"\x05\xac\x02\x01k\xac\x02");
    check_golden(Fenced { token, operation: Clear }, b"\x05\xac\x02");

    type Reply<O> = <Fenced<O> as Operation>::Reply;
    check_golden::<Reply<Put>>(Ok(Ok(None)), b"\x00\x00\x00");
    check_golden::<Reply<Put>>(Ok(Err(MapRefusal::KeyTooLong)), b"\x00\x01\x00");
    check_golden::<Reply<Clear>>(Ok(()), b"\x00");
    let out_of_date = FenceRefusal::OutOfDate { token: Index(300), greatest: Index(301) };
    check_golden::<Reply<Clear>>(Err(out_of_date), b"\x01\x00\xac\x02\xad\x02");
}

#[test]
fn golden_bytes_of_events() {
    let key = bytes(b"k");
    let old = Entry { value: bytes(b"val"), version: Index(300) };
    let new = Entry { value: bytes(b"new"), version: Index(301) };
    check_golden(MapEvent::Added { key: key.clone(), entry: old.clone() }, b"\x00\x01k\x03val\xac\x02");
    check_golden(
        MapEvent::Updated { key: key.clone(), old: old.clone(), new },
        b"\x01\x01k\x03val\xac\x02\x03new\xad\x02",
    );
    check_golden(MapEvent::Removed { key, old }, b"\x02\x01k\x03val\xac\x02");
    check_golden(MapEvent::Cleared, b"\x03");
    check_golden(MapEvent::Deleted, b"\x04");
}

#[test]
fn golden_bytes_of_the_state_in_a_snapshot() {
    let loopback = loopback();
    let session = loopback.session();
    let map = map::<u64>(&session);
    ready(map.put("b", &2)).unwrap();
    ready(map.put("a", &1)).unwrap();
    let _streams = (ready(map.watch_key("b")).unwrap(), ready(map.watch()).unwrap());
    let fenced = map.fenced(&Guard(FencingToken { lock: handle(&session).resource(), token: Index(3) }));
    ready(fenced.remove("c")).unwrap();
    let golden: Vec<u8> = [
        // Two entries; key, value and version of each. A string's encoding begins with its length.
        &b"\x02\x02\x01a\x01\x01\x04\x02\x01b\x01\x02\x03"[..],
        // Two watches; session, instance and sequence of each, and its scope: a key, and all.
        b"\x02\x01\x02\x04\x01\x02\x01b\x01\x02\x05\x00",
        // A lock and its greatest token.
        b"\x01\x02\x03",
    ]
    .concat();
    assert!(loopback.snapshot().windows(golden.len()).any(|bytes| bytes == golden));
    let golden = Bytes::from(golden);
    let state = MapState::restore(1, &golden).unwrap();
    assert_eq!(postcard::to_allocvec(&state).unwrap(), golden);

    let descending = b"\x02\x02\x01b\x01\x02\x03\x02\x01a\x01\x01\x04\x00\x00";
    assert!(MapState::restore(1, &bytes(descending)).is_err());
    assert!(MapState::restore(2, &golden).is_err());
}
