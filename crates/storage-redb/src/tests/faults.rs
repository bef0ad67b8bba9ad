//! A full disk is not the end; any other error is (D5).

use atomix_protocol::Index;
use atomix_storage::{Storage, StorageError};
use bytes::Bytes;

use super::device::{Call, Device};
use super::{batch, describe, entries, entry, id, identify, snapshot, start, try_start};

/// Appends until there is no room: the last entry that was written, and whether the reserve was said to be in use before that.
fn fill(storage: &mut dyn Storage, first: u64) -> (u64, bool) {
    let mut warned = false;
    for at in first..first + 5_000 {
        match storage.write(&batch(vec![entry(at, 3_000)])) {
            Ok(()) => warned |= storage.has_room() == Ok(false),
            Err(StorageError::Full(_)) => return (at - 1, warned),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk was never full");
}

#[test]
fn a_full_disk_is_said_before_and_passes() {
    let device = Device::default();
    device.set_room(600);
    let (mut storage, ..) = start(&device);
    storage.write(&identify()).expect("writes");
    assert_eq!(storage.has_room(), Ok(true));
    let mut reader = storage.reader().expect("a reader");
    let (last, warned) = fill(&mut storage, 1);
    assert!(warned, "the reserve was used without a word");
    for _ in 0..3 {
        let next = batch(vec![entry(last + 1, 3_000)]);
        assert!(matches!(storage.write(&next), Err(StorageError::Full(_))));
        assert_eq!(storage.has_room(), Ok(false));
        assert_eq!(reader.entries(Index(last + 1), Index(last + 1), 1), Ok(None), "it does not count");
        assert_eq!(
            reader.entries(Index(last), Index(last), 1),
            Ok(Some(vec![entry(last, 3_000)])),
            "what was written is there"
        );
    }
    device.set_room(400);
    assert_eq!(storage.has_room(), Ok(true), "it came back by itself");
    // Another leader's entry in its place: nothing of the one that did not count comes back.
    storage.write(&batch(vec![entry(last + 1, 10)])).expect("there is room");
    assert_eq!(reader.entries(Index(last + 1), Index(last + 9), 1), Ok(Some(vec![entry(last + 1, 10)])));
    drop((storage, reader));
    let (_, recovered, found) = start(&device);
    let mut wanted: Vec<_> = (1..=last).map(|at| entry(at, 3_000)).collect();
    wanted.push(entry(last + 1, 10));
    assert_eq!(found, wanted);
    assert_eq!(recovered.damage, Vec::<String>::new());
}

#[test]
fn small_writes_live_on_the_reserve() {
    let device = Device::default();
    device.set_room(600);
    let (mut storage, ..) = start(&device);
    let mut last = 0;
    while storage.has_room() == Ok(true) {
        last += 1;
        storage.write(&batch(vec![entry(last, 3_000)])).expect("the reserve is there");
    }
    for _ in 0..20 {
        storage.write(&identify()).expect("the reserve is for this");
    }
}

#[test]
fn a_snapshot_that_finds_no_room_is_begun_again() {
    let device = Device::default();
    device.set_room(600);
    let (mut storage, ..) = start(&device);
    storage.write(&identify()).expect("writes");
    storage.write(&batch(entries(1..=9))).expect("writes");
    let mut writer = storage.snapshot_writer().expect("a snapshot writer");
    let data = vec![5; 400_000];
    let meta = describe(id(1, 5), &data);
    device.set_room(20);
    writer.begin(meta.last).expect("begins");
    let written = writer.write(&data).and_then(|()| writer.finish(&meta));
    assert!(matches!(written, Err(StorageError::Full(_))), "{written:?}");
    assert_eq!(writer.writing(), None, "what was begun is dropped");
    assert!(matches!(storage.publish(&meta), Err(StorageError::BadSnapshot(_))));
    device.set_room(600);
    storage.write(&batch(entries(10..=12))).expect("the log goes on");
    writer.begin(meta.last).expect("begins");
    writer.write(&data).expect("takes bytes");
    writer.finish(&meta).expect("finishes");
    storage.publish(&meta).expect("publishes");
    let found = storage.reader().expect("a reader").snapshot(meta.last, 0, usize::MAX);
    assert_eq!(found, Ok(Some(Bytes::from(data))));
    drop((storage, writer));
    let (_, recovered, found) = start(&device);
    assert_eq!((recovered.snapshot, found), (Some(meta), entries(6..=12)));
}

/// What a server does in its life, until something fails: the last entry acknowledged, whether it identified itself, and what failed.
fn live(device: &Device) -> (u64, bool, Option<StorageError>) {
    let (mut acknowledged, mut identified) = (0, false);
    let mut storage = None;
    let mut run = || {
        let storage = storage.insert(try_start(device)?.0);
        storage.write(&identify())?;
        identified = true;
        for at in 1..=12 {
            storage.write(&batch(entries(at * 10 - 9..=at * 10)))?;
            acknowledged = at * 10;
            if at % 4 == 0 {
                let mut writer = storage.snapshot_writer()?;
                let meta = describe(id(1, at * 10 - 5), b"some");
                writer.begin(meta.last)?;
                writer.write(b"some")?;
                writer.finish(&meta)?;
                storage.publish(&meta)?;
                storage.compact(meta.last.index)?;
            }
        }
        Ok(())
    };
    let failed = run().err();
    if let (Some(error), Some(mut storage)) = (&failed, storage.filter(|_| identified)) {
        let before = device.operations().len();
        let again = batch(entries(acknowledged + 1..=acknowledged + 10));
        // After a failure on its own thread it stays so; a side object's is found by the first write.
        let refused = storage.write(&again);
        assert_eq!(refused.as_ref().err(), Some(error), "final");
        assert_eq!(storage.publish(&describe(id(1, 1), b"")).err().as_ref(), Some(error));
        assert_eq!(device.operations().len(), before, "nothing is tried again");
    }
    (acknowledged, identified, failed)
}

#[test]
fn an_error_of_the_device_is_final_and_loses_nothing() {
    let mut met = 0;
    for call in [Call::Read, Call::Extend, Call::Write, Call::Sync] {
        for after in 0..400 {
            let device = Device::default();
            device.fail(call, after);
            let (acknowledged, identified, failed) = live(&device);
            let Some(error) = failed else { break };
            assert!(matches!(error, StorageError::Failed(_)), "{call:?} after {after}: {error:?}");
            assert!(error.to_string().contains("the device is gone"), "{error}");
            met += 1;
            let (file, named) = device.image();
            let (_, recovered, found) = start(&Device::of(file, named));
            assert!(recovered.identity.is_some() >= identified, "{call:?} after {after}");
            let begin = recovered.snapshot.map_or(0, |meta| meta.last.index.0);
            let end = found.last().map_or(begin, |entry| entry.id.index.0);
            assert!(end >= acknowledged, "{call:?} after {after}: {end} of {acknowledged}");
            assert_eq!(found, entries(begin + 1..=end), "{call:?} after {after}");
        }
    }
    println!("{met} failures");
    assert!(met > 150, "only {met} failures were met");
}

#[test]
fn side_objects_say_what_failed() {
    let device = Device::default();
    let (mut storage, ..) = start(&device);
    storage.write(&batch(entries(1..=9))).expect("writes");
    snapshot(&mut storage, id(1, 5), b"5");
    let (mut reader, mut writer) = (storage.reader().expect("one"), storage.snapshot_writer().expect("one"));
    device.fail(Call::Sync, 0);
    let failed = storage.write(&batch(entries(10..=10))).expect_err("the sync fails");
    assert!(matches!(failed, StorageError::Failed(_)), "{failed:?}");
    writer.begin(id(1, 7)).expect("nothing to be done on the device");
    writer.write(&vec![7; 100_000]).expect_err("nothing can be written any more");
    if let Err(error) = reader.entries(Index(1), Index(9), u64::MAX) {
        assert_eq!(error, failed);
    }
}
