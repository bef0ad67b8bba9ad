//! What was damaged is found, and never handed out (D3, D4).

use atomix_protocol::{HardState, Index, ServerId, Term, WriteBatch};
use atomix_storage::{Recovered, Storage, StorageError};
use bytes::Bytes;
use redb::{Builder, ReadableTable, TableDefinition};

use super::device::Device;
use super::{Started, batch, entries, entry, id, identify, snapshot, start, try_start};
use crate::tables::{FORMAT, HARD_STATE, LOG, META, PIECES, SNAPSHOTS};

/// A device with a log of twenty entries, two snapshots and a vote.
fn used() -> (Device, Recovered) {
    let device = Device::default();
    let (mut storage, ..) = start(&device);
    let hard_state = Some(HardState { term: Term(1), voted_for: Some(ServerId(1)) });
    storage.write(&WriteBatch { hard_state, ..identify() }).expect("writes");
    storage.write(&batch(entries(1..=20))).expect("writes");
    snapshot(&mut storage, id(1, 5), &vec![5; 130_000]);
    snapshot(&mut storage, id(1, 10), &vec![10; 130_000]);
    storage.compact(Index(10)).expect("compacts");
    drop(storage);
    let (_, recovered, found) = start(&device);
    assert_eq!(found, entries(11..=20));
    (device, recovered)
}

/// Changes values behind the storage's back, in a database that is sound itself.
fn tamper(device: &Device, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Builder::new().create_with_backend(device.backend()).expect("opens");
    let mut transaction = database.begin_write().expect("begins");
    transaction.set_two_phase_commit(true);
    change(&transaction);
    transaction.commit().expect("commits");
}

fn flip(
    transaction: &redb::WriteTransaction,
    table: TableDefinition<'_, (u64, u64), &'static [u8]>,
    key: (u64, u64),
) {
    let mut table = transaction.open_table(table).expect("opens");
    let mut value = table.get(key).expect("reads").expect("is there").value().to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 1;
    table.insert(key, value.as_slice()).expect("inserts");
}

/// The generation of a published snapshot's pieces: they were given in order.
const NEWEST: u64 = 1;

#[test]
fn a_flipped_bit_anywhere_is_never_handed_out() {
    let (closed, sound) = used();
    let (killed, _) = used();
    // What was acknowledged last is what a one-phase commit would give up for a damaged page.
    let (mut storage, ..) = start(&killed);
    storage.write(&batch(entries(21..=22))).expect("writes");
    let snapshots = vec![Bytes::from(vec![10; 130_000]), Bytes::from(vec![5; 130_000])];
    for (device, last) in [(closed, 20), (killed, 22)] {
        let (file, named) = device.image();
        let wanted = (sound.clone(), entries(11..=last), snapshots.clone());
        let mut refused = 0;
        for number in 0..2_000 {
            let at = (number * file.len() / 2_000 + number % 61).min(file.len() - 1);
            let copy = Device::of(file.clone(), named);
            copy.change(|file| file[at] ^= 1 << (number % 8));
            match try_start(&copy) {
                Ok(started) => assert_eq!(read_all(started), wanted, "bit {} of byte {at}", number % 8),
                Err(StorageError::Corrupt(_) | StorageError::Foreign(_) | StorageError::OtherVersion(_)) => {
                    refused += 1
                }
                Err(error) => panic!("byte {at}: {error:?}"),
            }
        }
        println!("of 2000 flips {refused} were found; the others are in what nobody reads");
        assert!(refused > 500, "only {refused} were found");
    }
}

fn read_all(
    (mut storage, recovered, entries): Started,
) -> (Recovered, Vec<atomix_protocol::Entry>, Vec<Bytes>) {
    let mut reader = storage.reader().expect("a reader");
    let mut whole = |last| reader.snapshot(last, 0, usize::MAX).expect("reads").expect("is there");
    let snapshots = vec![whole(id(1, 10)), whole(id(1, 5))];
    (recovered, entries, snapshots)
}

#[test]
fn a_damaged_entry_ends_the_log_and_the_vote() {
    for (at, missing) in [(11, false), (15, false), (15, true), (20, false)] {
        let (device, sound) = used();
        tamper(&device, |transaction| {
            let mut log = transaction.open_table(LOG).expect("opens");
            let mut value = log.remove(at).expect("removes").expect("is there").value().to_vec();
            if !missing {
                value[30] ^= 4;
                log.insert(at, value.as_slice()).expect("inserts");
            }
        });
        let (mut storage, recovered, found) = start(&device);
        assert_eq!(found, entries(11..at), "{at}");
        assert_eq!(recovered.abstention, Some(Index(20)), "{at}");
        assert_eq!(recovered.damage.len(), 1, "{recovered:?}");
        assert!(recovered.damage[0].contains(&at.to_string()), "{recovered:?}");
        let gone = storage.reader().expect("a reader").entries(Index(at), Index(20), u64::MAX);
        assert_eq!(gone, Ok(None), "what was behind the damage is never handed out again");
        // The repair: what the leader has.
        storage.write(&batch(vec![entry(at, 7)])).expect("writes");
        drop(storage);
        let (_, recovered, found) = start(&device);
        assert_eq!(found, [entries(11..at), vec![entry(at, 7)]].concat(), "{at}");
        assert_eq!(recovered, Recovered { abstention: Some(Index(20)), ..sound }, "it goes on abstaining");
    }
}

#[test]
fn an_earlier_abstention_is_kept_where_it_is_greater() {
    let (device, _) = used();
    let (mut storage, ..) = start(&device);
    storage
        .write(&WriteBatch { abstention: Some(Some(Index(99))), ..WriteBatch::default() })
        .expect("writes");
    drop(storage);
    tamper(&device, |transaction| {
        transaction.open_table(LOG).expect("opens").insert(15, &b"nonsense"[..]).expect("inserts");
    });
    assert_eq!(start(&device).1.abstention, Some(Index(99)));
}

#[test]
fn the_snapshot_before_a_damaged_one_counts() {
    for description in [false, true] {
        let (device, sound) = used();
        tamper(&device, |transaction| match description {
            true => flip(transaction, SNAPSHOTS, (10, 1)),
            false => flip(transaction, PIECES, (NEWEST, 1)),
        });
        for turn in 0..2 {
            let (mut storage, recovered, found) = start(&device);
            assert_eq!(found, entries(6..=20), "the log is kept for this");
            assert_eq!(recovered.snapshot.as_ref().map(|meta| meta.last), Some(id(1, 5)));
            assert_eq!(recovered.abstention, None, "nothing is lost");
            assert_eq!(recovered.damage.is_empty(), turn == 1, "{recovered:?}");
            let mut reader = storage.reader().expect("a reader");
            assert_eq!(reader.snapshot(id(1, 10), 0, 10), Ok(None));
            assert_eq!(recovered.hard_state, sound.hard_state);
        }
        let (mut storage, ..) = start(&device);
        snapshot(&mut storage, id(1, 10), b"again");
        drop(storage);
        assert_eq!(start(&device).2, entries(11..=20));
    }
}

#[test]
fn without_any_snapshot_that_verifies_all_comes_from_the_leader() {
    let (device, _) = used();
    tamper(&device, |transaction| {
        flip(transaction, PIECES, (NEWEST, 0));
        flip(transaction, PIECES, (NEWEST - 1, 2));
    });
    for turn in 0..2 {
        let (mut storage, recovered, found) = start(&device);
        assert_eq!((found, recovered.snapshot), (vec![], None), "the log does not begin at the beginning");
        assert_eq!(recovered.abstention, Some(Index(20)));
        assert_eq!(recovered.damage.len(), if turn == 0 { 2 } else { 0 });
        assert!(recovered.identity.is_some());
        assert_eq!(storage.reader().expect("a reader").entries(Index(11), Index(20), 1), Ok(None));
    }
    let (mut storage, ..) = start(&device);
    storage.write(&batch(entries(1..=3))).expect("the log begins anew");
    drop(storage);
    assert_eq!(start(&device).2, entries(1..=3));
}

#[test]
fn a_damaged_snapshot_that_was_installed_takes_the_log_with_it() {
    let (device, _) = used();
    let (mut storage, ..) = start(&device);
    snapshot(&mut storage, id(2, 50), b"installed");
    storage.write(&WriteBatch { truncate_after: Some(id(2, 50)), ..WriteBatch::default() }).expect("writes");
    drop(storage);
    tamper(&device, |transaction| flip(transaction, PIECES, (NEWEST + 1, 0)));
    let (_, recovered, found) = start(&device);
    assert_eq!(recovered.snapshot.map(|meta| meta.last), Some(id(1, 10)), "the one before");
    assert_eq!((found, recovered.abstention), (vec![], Some(Index(50))));
}

#[test]
fn a_damaged_field_is_the_end() {
    let (device, _) = used();
    tamper(&device, |transaction| {
        let mut meta = transaction.open_table(META).expect("opens");
        meta.insert(HARD_STATE, &b"nonsense"[..]).expect("inserts");
    });
    assert!(matches!(try_start(&device), Err(StorageError::Corrupt(text)) if text.contains(HARD_STATE)));
}

#[test]
fn what_is_not_ours_is_refused() {
    let (device, _) = used();
    tamper(&device, |transaction| {
        let mut meta = transaction.open_table(META).expect("opens");
        meta.insert(FORMAT, &[2, 0, 0, 0, 9, 9][..]).expect("inserts");
    });
    let newer = try_start(&device).map(drop);
    assert!(
        matches!(&newer, Err(StorageError::OtherVersion(text)) if text.contains("version 2")),
        "{newer:?}"
    );
    let other = Device::of(Vec::new(), true);
    tamper(&other, |transaction| {
        let table: TableDefinition<'_, u64, u64> = TableDefinition::new("somebody's");
        transaction.open_table(table).expect("opens").insert(1, 1).expect("inserts");
    });
    assert!(matches!(try_start(&other).map(drop), Err(StorageError::Foreign(_))));
    let text = Device::of(b"Dear diary, ".repeat(1_000), true);
    assert!(matches!(try_start(&text).map(drop), Err(StorageError::Foreign(_))));
}

#[test]
fn a_value_that_rots_while_it_is_open_is_not_handed_out() {
    let (device, _) = used();
    let (mut storage, ..) = start(&device);
    let mut reader = storage.reader().expect("a reader");
    let (image, _) = device.image();
    let payload = entry(15, 100).payload;
    let at = image.windows(100).rposition(|window| window == payload).expect("is there");
    device.change(|file| file[at] ^= 1);
    // It may be in memory still, and sound; what comes from the device is not.
    match reader.entries(Index(15), Index(15), u64::MAX) {
        Ok(found) => assert_eq!(found, Some(entries(15..=15))),
        Err(error) => assert!(matches!(error, StorageError::Corrupt(_)), "{error:?}"),
    }
}
