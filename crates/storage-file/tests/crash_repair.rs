//! What somebody would do who wants the log to lose data: crashes in repairs, room that runs out in the wrong moment, damage of what
//! was made to mend damage.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use std::io::ErrorKind;

use atomix_protocol::Entry;
use atomix_storage::{Storage, StorageError};
use crash_disk::workload::{
    Model, Step, append, describe, entry, id, identify, index, replace, run, snapshot_data, term, vote,
};
use crash_disk::{CrashDisk, Fate, Image, Operation, open};

const SEGMENT: u64 = 1_024;

fn entries(of: u64, indexes: std::ops::RangeInclusive<u64>, length: usize) -> Vec<Entry> {
    indexes.map(|at| entry(term(of), index(at), length)).collect()
}

/// A disk after some steps.
fn ran(steps: &[Step]) -> CrashDisk {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    steps.iter().for_each(|step| run(&mut opened.storage, step).unwrap());
    disk
}

/// The last write that begins a segment.
fn last_begun(disk: &CrashDisk) -> usize {
    let begins =
        |done: &Operation| matches!(done, Operation::Write { bytes, .. } if bytes.starts_with(b"ATOMIXLG"));
    disk.operations().iter().rposition(begins).unwrap()
}

/// Of a segment's first batch everything came to the disk but the header. The next batch takes the number again, begins with the same
/// entries, is shorter, and is torn too: it must not be completed by what the first one left.
#[test]
fn a_torn_batch_does_not_complete_another() {
    let steps = [identify(), append(entries(1, 1..=2, 250)), append(entries(1, 3..=7, 70))];
    let disk = ran(&steps);
    let write = last_begun(&disk);
    let image =
        disk.crash(write + 1, |number| if number == write { Fate::LastSectors(1) } else { Fate::Kept });
    let disk = CrashDisk::new(image);
    let mut found = open(&disk, SEGMENT).unwrap();
    assert_eq!(found.entries.len(), 2);
    run(&mut found.storage, &append(entries(1, 3..=6, 70))).unwrap();
    let write = last_begun(&disk);
    let mut seen = Vec::new();
    for kept in 0..3_usize {
        let image = disk
            .crash(write + 1, |number| if number == write { Fate::FirstSectors(kept) } else { Fate::Kept });
        let found = open(&CrashDisk::new(image), SEGMENT).unwrap();
        seen.push(found.entries.len());
        assert!(found.entries.len() <= 6, "{kept} sectors: {:?}", found.entries.last());
    }
    assert!(seen.contains(&2), "{seen:?}");
}

/// What a torn batch left in a new segment says nothing of where the one before it ends.
#[test]
fn what_a_torn_segment_left_is_not_erased_in_another() {
    let disk = ran(&[identify(), append(entries(1, 1..=2, 250)), append(entries(1, 3..=3, 3_000))]);
    let write = last_begun(&disk);
    let image =
        disk.crash(write + 1, |number| if number == write { Fate::LastSectors(1) } else { Fate::Kept });
    let before = image.file("log-0000000000000001.seg").len();
    let disk = CrashDisk::new(image);
    drop(open(&disk, SEGMENT).unwrap());
    assert_eq!(disk.image().file("log-0000000000000001.seg").len(), before);
}

/// A copy of the manifest for which there was no room half-way is the one to be written first next time: the other is whole.
#[test]
fn no_room_in_the_middle_of_a_manifest() {
    let steps = [identify(), vote(term(1)), append(entries(1, 1..=2, 20))];
    // The write of one copy and its sync, then the other's.
    for failing in [0, 2] {
        for bytes in [30, 70] {
            let disk = CrashDisk::new(ran(&steps).image());
            let mut found = open(&disk, SEGMENT).unwrap();
            let opened = disk.attempts();
            disk.fail_after(opened + failing, ErrorKind::StorageFull, bytes);
            let refused = run(&mut found.storage, &vote(term(2)));
            assert!(matches!(refused, Err(StorageError::Full(_))), "{refused:?}");
            disk.heal();
            run(&mut found.storage, &vote(term(2))).unwrap();
            drop(found);
            for prefix in opened..=disk.operations().len() {
                for fate in [Fate::Kept, Fate::Dropped, Fate::FirstBytes(70), Fate::FirstBytes(20)] {
                    let text = format!("{failing} after {bytes} bytes, {prefix}, {fate:?}");
                    let found = open(&CrashDisk::new(disk.crash(prefix, |_| fate)), SEGMENT);
                    let found = found.unwrap_or_else(|error| panic!("{text}: {error}"));
                    let voted = found.recovered.hard_state.term;
                    assert!(voted == term(1) || voted == term(2), "{text}: {voted:?}");
                }
            }
        }
    }
}

/// A snapshot for which there is no room takes none.
#[test]
fn a_snapshot_without_room_leaves_nothing_behind() {
    let disk = ran(&[identify(), append(entries(1, 1..=3, 100))]);
    let last = id(term(1), index(3));
    let mut model = Model::default();
    for step in [identify(), append(entries(1, 1..=3, 100))] {
        model.apply(&step);
    }
    let disk = CrashDisk::new(disk.image());
    let opened = open(&disk, SEGMENT).unwrap().storage;
    drop(opened);
    let mut probe = 0;
    loop {
        let disk = CrashDisk::new(disk.image());
        let mut storage = open(&disk, SEGMENT).unwrap().storage;
        let mut writer = storage.snapshot_writer().unwrap();
        disk.fail_after(disk.attempts() + probe, ErrorKind::StorageFull, 100);
        let data = [snapshot_data(last), vec![7; 2 << 20]].concat();
        let meta = atomix_protocol::peer::SnapshotMeta {
            size: data.len() as u64,
            checksum: crc32c::crc32c(&data),
            ..describe(last)
        };
        let done = writer.begin(last).and_then(|()| writer.write(&data[..100]));
        let done = done.and_then(|()| writer.write(&data[100..])).and_then(|()| writer.finish(&meta));
        if done.is_ok() {
            break;
        }
        assert!(matches!(done, Err(StorageError::Full(_))), "operation {probe}: {done:?}");
        assert!(
            !disk.image().names().contains(&"snapshot.tmp".to_owned()),
            "operation {probe}: the space stays taken"
        );
        disk.heal();
        writer.begin(last).unwrap();
        writer.write(&data).unwrap();
        writer.finish(&meta).unwrap();
        storage.publish(&meta).unwrap();
        probe += 1;
    }
    assert!(probe > 4, "{probe} operations");
}

/// The second copy of the manifest is begun only once the first is whole: if both fail, identity was there, and is lost.
#[test]
fn two_damaged_manifests_are_no_fresh_directory() {
    let mut image = ran(&[identify(), vote(term(3))]).image();
    for name in ["manifest-0", "manifest-1"] {
        image.file_mut(name)[70] ^= 1;
    }
    let refused = open(&CrashDisk::new(image.clone()), SEGMENT).map(|_| ());
    assert!(matches!(refused, Err(StorageError::Corrupt(_))), "{refused:?}");
    image.remove("manifest-0");
    let refused = open(&CrashDisk::new(image), SEGMENT).map(|_| ());
    assert!(matches!(refused, Err(StorageError::Corrupt(_))), "{refused:?}");
    let _ = replace;
}
