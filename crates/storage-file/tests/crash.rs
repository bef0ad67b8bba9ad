//! Crashes and errors of particular kinds: torn batches in all detail, operations that fail, disks that are full. What any crash of a
//! workload leaves is for `crash_points`.
//!
//! What was acknowledged is found; what was never written is not; and whatever was found, the server goes on from there.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use atomix_storage::{Storage, StorageError};

use crash_disk::workload::{Model, Step, append, configure, entry, id, identify, index, run, term, vote};
use crash_disk::{CrashDisk, Fate, Image, Opened, Operation, open};

const SEGMENT: u64 = 1_024;

/// A workload that was run to its end.
struct Ran {
    disk: CrashDisk,
    /// Number of operations after each step, and what must be found then. The first is before any step.
    states: Vec<(usize, Model)>,
}

fn ran(steps: &[Step]) -> Ran {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    let mut model = Model::default();
    let mut states = vec![(0, model.clone())];
    for step in steps {
        run(&mut opened.storage, step).unwrap();
        model.apply(step);
        states.push((disk.operations().len(), model.clone()));
    }
    Ran { disk, states }
}

impl Ran {
    /// What may be found after a crash that comes after `prefix` operations: what was acknowledged, or with the step under way.
    fn allowed(&self, prefix: usize) -> &[(usize, Model)] {
        let acknowledged = self.states.iter().rposition(|(operations, _)| *operations <= prefix).unwrap();
        let under_way = self.states.len().min(acknowledged + 2);
        &self.states[acknowledged..under_way]
    }
}

fn recovers(image: Image, allowed: &[(usize, Model)], text: &str) -> (CrashDisk, Model) {
    let disk = CrashDisk::new(image);
    let found = open(&disk, SEGMENT).unwrap_or_else(|error| panic!("{text}: {error}"));
    let model = allowed.iter().map(|(_, model)| model).find(|model| model.is(&found));
    let mut model = model.cloned().unwrap_or_else(|| {
        panic!("{text}: found {:?} {:?}, not one of {allowed:#?}", found.recovered, found.entries)
    });
    model.restart();
    (disk, model)
}

/// Two batches and a restart more. The entries are shorter than those of any workload, so that stale bytes would show.
fn goes_on(disk: &CrashDisk, model: &mut Model, text: &str) {
    for _ in 0..2 {
        let mut opened =
            open(disk, SEGMENT).unwrap_or_else(|error| panic!("{text}; before going on: {error}"));
        let last = model.last();
        let step = append(vec![entry(term(9), last.index.next(), 3)]);
        run(&mut opened.storage, &step).unwrap();
        model.apply(&step);
        drop(opened);
        let found = open(disk, SEGMENT).unwrap_or_else(|error| panic!("{text}; after going on: {error}"));
        assert!(model.is(&found), "{text}; after going on: {:?}, not {model:?}", found.entries);
    }
}

fn entries(of: u64, indexes: std::ops::RangeInclusive<u64>, length: usize) -> Vec<atomix_protocol::Entry> {
    indexes.map(|at| entry(term(of), index(at), length)).collect()
}

/// One batch, cut at every byte and into every two sets of sectors.
#[test]
fn a_batch_torn_anywhere() {
    let ran = ran(&[identify(), append(entries(1, 1..=2, 60)), append(entries(1, 3..=3, 200))]);
    let operations = ran.disk.operations();
    let is_log =
        |number: &usize| matches!(&operations[*number], Operation::Write { bytes, .. } if bytes.len() > 300);
    let write = (0..operations.len()).rev().find(is_log).unwrap();
    let Operation::Write { bytes, .. } = &operations[write] else { unreachable!() };
    let mut cuts: Vec<Fate> = (0..=bytes.len()).map(Fate::FirstBytes).collect();
    cuts.extend((0..4).flat_map(|sector| [Fate::FirstSectors(sector), Fate::LastSectors(sector)]));
    let (mut torn, mut whole) = (0, 0);
    for cut in cuts {
        let image = ran.disk.crash(write + 1, |number| if number == write { cut } else { Fate::Kept });
        let (disk, mut model) = recovers(image, ran.allowed(write + 1), &format!("{cut:?}"));
        *(if model.log.len() == 3 { &mut whole } else { &mut torn }) += 1;
        let image = disk.image();
        let mut segments = image.names().into_iter().filter(|name| name.ends_with(".seg"));
        let behind = image.file(&segments.next_back().unwrap())[used(&ran, model.log.len())..].iter();
        assert!(behind.clone().all(|byte| *byte == 0), "{cut:?}: stale bytes stay");
        goes_on(&disk, &mut model, &format!("{cut:?}"));
    }
    assert!(torn > 300 && whole > 0, "{torn} torn, {whole} whole");
}

/// How much of the only segment is used by the log with that many entries.
fn used(ran: &Ran, entries: usize) -> usize {
    let (operations, _) = ran.states.iter().find(|(_, model)| model.log.len() == entries).unwrap();
    let image = ran.disk.crash(*operations, |_| Fate::Kept);
    let segment = image.file("log-0000000000000001.seg");
    segment.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// The last write that begins a segment.
fn last_begun(ran: &Ran) -> usize {
    let begins =
        |done: &Operation| matches!(done, Operation::Write { bytes, .. } if bytes.starts_with(b"ATOMIXLG"));
    ran.disk.operations().iter().rposition(begins).unwrap()
}

fn segments(image: &Image) -> usize {
    image.names().iter().filter(|name| name.starts_with("log-")).count()
}

/// Of the first batch of a segment only the header came to the disk. The segment is used, and the older one goes when it may.
#[test]
fn a_segment_that_begins_with_a_torn_batch() {
    let configured = configure(index(0));
    let steps = [
        identify(),
        vote(term(1)),
        configured,
        append(entries(1, 1..=3, 150)),
        append(entries(1, 4..=5, 300)),
    ];
    let ran = ran(&steps);
    let write = last_begun(&ran);
    for header in [64, 200] {
        let image = ran
            .disk
            .crash(write + 1, |number| if number == write { Fate::FirstBytes(header) } else { Fate::Kept });
        for compact_first in [true, false] {
            let (disk, mut model) = recovers(image.clone(), ran.allowed(write + 1), "torn");
            assert_eq!(model.log.len(), 3);
            let mut opened = open(&disk, SEGMENT).unwrap();
            let covered = [Step::Publish(id(term(1), index(3))), Step::Compact(index(3))];
            let more = [append(entries(1, 4..=4, 10))];
            let steps = if compact_first { [&covered[..], &more] } else { [&more, &covered[..]] };
            for step in steps.concat() {
                run(&mut opened.storage, &step).unwrap();
                model.apply(&step);
            }
            assert_eq!(segments(&disk.image()), 1, "the older segment goes");
            assert!(disk.image().names().contains(&"spare.seg".to_owned()), "its file is kept for the next");
            drop(opened);
            assert!(model.is(&open(&disk, SEGMENT).unwrap()));
        }
    }
}

/// A segment whose header never came to the disk: its file is kept for the next.
#[test]
fn a_segment_without_a_header() {
    let ran = ran(&[identify(), append(entries(1, 1..=2, 250)), append(entries(1, 3..=4, 300))]);
    let write = last_begun(&ran);
    for fate in [Fate::Dropped, Fate::FirstBytes(10), Fate::LastSectors(1)] {
        let image = ran.disk.crash(write + 1, |number| if number == write { fate } else { Fate::Kept });
        assert_eq!(segments(&image), 2);
        let (disk, mut model) = recovers(image, ran.allowed(write + 1), &format!("{fate:?}"));
        assert_eq!((segments(&disk.image()), model.log.len()), (1, 2), "{fate:?}");
        goes_on(&disk, &mut model, &format!("{fate:?}"));
    }
}

/// The order of calls to the disk is part of the contract: one write, one sync and the mark per batch.
#[test]
fn operations_per_batch() {
    let ran = ran(&[
        identify(),
        append(entries(1, 1..=1, 10)),
        vote(term(2)),
        append(entries(2, 2..=3, 20)),
        append(entries(2, 4..=20, 20)),
    ]);
    let kinds = |from: usize, until: usize| -> Vec<&'static str> {
        let kind = |operation: &Operation| match operation {
            Operation::Allocate { .. } => "allocate",
            Operation::Write { .. } => "write",
            Operation::Sync { .. } => "sync",
            Operation::SyncDir => "sync names",
            Operation::Rename { .. } | Operation::Remove { .. } => "other",
        };
        ran.disk.operations()[from..until].iter().map(kind).collect()
    };
    let steps: Vec<_> = ran.states.windows(2).map(|pair| kinds(pair[0].0, pair[1].0)).collect();
    let copy = ["allocate", "write", "sync", "sync names"];
    assert_eq!(
        steps[0],
        [&["sync names", "allocate", "sync names"][..], &copy, &copy].concat(),
        "the manifest"
    );
    let both_copies = ["write", "sync", "write", "sync"];
    let begun = ["allocate", "sync names", "write", "sync", "write"];
    assert_eq!(
        steps[1],
        [&["allocate"][..], &begun, &both_copies].concat(),
        "the mark and the first segment"
    );
    assert_eq!(steps[2], both_copies, "term and vote");
    assert_eq!(steps[3], ["write", "sync", "write"], "a batch: one write, one sync, and the mark");
    assert_eq!(steps[4], [&begun[..], &both_copies].concat(), "in a new segment");
}

/// An error at any operation: nothing is written after it, and a restart finds what was acknowledged.
#[test]
fn failures_are_final() {
    let steps = [
        identify(),
        append(entries(1, 1..=3, 300)),
        Step::Publish(id(term(1), index(2))),
        append(entries(1, 4..=5, 300)),
        Step::Publish(id(term(1), index(4))),
        Step::Compact(index(4)),
    ];
    let operations = ran(&steps).disk.attempts();
    for number in 0..operations {
        let disk = CrashDisk::new(Image::default());
        disk.fail(number, std::io::ErrorKind::Other);
        let Ok(mut opened) = open(&disk, SEGMENT) else { continue };
        let mut states = vec![(0, Model::default())];
        for step in &steps {
            let result = run(&mut opened.storage, step);
            let mut model = states.last().unwrap().1.clone();
            model.apply(step);
            states.push((0, model));
            if result.is_err() {
                break;
            }
        }
        let failed = disk.attempts();
        if failed == number + 1 && !matches!(steps[states.len() - 2], Step::Publish(_)) {
            let again = run(&mut opened.storage, &vote(term(8)));
            assert!(again.is_err(), "operation {number} failed, and the storage went on");
            assert_eq!(disk.attempts(), failed, "something was written after operation {number} failed");
        }
        drop(opened);
        let last_two = &states[states.len() - 2..];
        recovers(disk.image(), last_two, &format!("operation {number} failed"));
    }
}

/// The vote is still there when the first copy of the manifest is rotten, and the system has lost what was not on the disk.
fn keeps_its_vote_without_the_first_copy(disk: &CrashDisk, text: &str) {
    let mut image = disk.crash(disk.operations().len(), |_| Fate::Dropped);
    image.file_mut("manifest-0")[70] ^= 1;
    let found = open(&CrashDisk::new(image), SEGMENT).unwrap();
    assert_eq!(found.recovered.hard_state.term, term(3), "{text}: {:?}", found.recovered);
}

/// The sync of the manifest's second copy fails. The next process finds that copy in the system's cache, which takes it for written.
#[test]
fn a_second_copy_whose_sync_failed_is_written_again() {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    for step in [identify(), append(entries(1, 1..=2, 50))] {
        run(&mut opened.storage, &step).unwrap();
    }
    // Write and sync of the one copy, write and sync of the other.
    disk.fail(disk.attempts() + 3, std::io::ErrorKind::Other);
    assert!(run(&mut opened.storage, &vote(term(3))).is_err());
    let fails = disk.operations();
    assert!(matches!(fails.last(), Some(Operation::Write { bytes, .. }) if bytes.starts_with(b"ATOMIXMF")));
    drop(opened);
    disk.heal();
    let mut opened = open(&disk, SEGMENT).unwrap();
    assert_eq!(opened.recovered.hard_state.term, term(3), "it is told to others from here on");
    for at in 3..5 {
        run(&mut opened.storage, &append(entries(1, at..=at, 5))).unwrap();
    }
    drop(opened);
    keeps_its_vote_without_the_first_copy(&disk, "after a failed sync");
}

/// The process dies between any two operations of a vote. What the next one finds is in both copies, whatever the system had written by
/// then.
#[test]
fn a_second_copy_that_was_never_synced_is_written_again() {
    let disk = ran(&[identify(), vote(term(3))]).disk;
    let mut voted = 0;
    for prefix in 0..=disk.operations().len() {
        let second = disk.killed_after(prefix);
        let found = open(&second, SEGMENT).unwrap();
        if found.recovered.hard_state.term == term(3) {
            voted += 1;
            keeps_its_vote_without_the_first_copy(&second, &format!("killed after {prefix}"));
        }
    }
    assert!(voted > 2, "{voted}");
}

/// No room for a new segment: the reserve is used. Then the batch is refused, nothing is lost, and once there is room it goes on (D5).
#[test]
fn a_full_disk_is_not_final() {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    let mut model = Model::default();
    let mut step = |opened: &mut Opened, step: &Step| {
        let done = run(&mut opened.storage, step);
        if done.is_ok() {
            model.apply(step);
        }
        done
    };
    for one in [identify(), append(entries(1, 1..=1, 500))] {
        step(&mut opened, &one).unwrap();
    }
    assert!(opened.storage.has_room().unwrap());
    disk.fill(true);
    step(&mut opened, &append(entries(1, 2..=2, 500))).unwrap();
    assert!(!opened.storage.has_room().unwrap(), "the reserve is used");
    step(&mut opened, &vote(term(3))).unwrap();
    let third = append(entries(1, 3..=3, 500));
    let refused = step(&mut opened, &third);
    assert!(matches!(refused, Err(StorageError::Full(_))), "{refused:?}");
    drop(opened);
    // The same in the next process.
    let mut opened = open(&disk, SEGMENT).unwrap();
    assert!(!opened.storage.has_room().unwrap());
    let refused = step(&mut opened, &third);
    assert!(matches!(refused, Err(StorageError::Full(_))), "{refused:?}");
    disk.fill(false);
    step(&mut opened, &third).unwrap();
    assert!(opened.storage.has_room().unwrap(), "there is a reserve again");
    drop(opened);
    assert!(model.is(&open(&disk, SEGMENT).unwrap()));
}

/// Of two snapshots the older goes when there is no room otherwise.
#[test]
fn a_full_disk_takes_the_older_snapshot() {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    let steps = [
        identify(),
        append(entries(1, 1..=3, 300)),
        Step::Publish(id(term(1), index(2))),
        Step::Publish(id(term(1), index(3))),
    ];
    steps.iter().for_each(|step| run(&mut opened.storage, step).unwrap());
    let snapshots =
        |disk: &CrashDisk| disk.image().names().iter().filter(|name| name.ends_with(".snap")).count();
    assert_eq!(snapshots(&disk), 2);
    disk.fill(true);
    run(&mut opened.storage, &append(entries(1, 4..=4, 700))).unwrap();
    assert!(!opened.storage.has_room().unwrap());
    assert_eq!(snapshots(&disk), 1);
}

/// A start on a full disk: also with damage, a lost copy of the manifest, or a snapshot that the log does not reach. It comes up, and
/// goes on once there is room.
#[test]
fn a_start_on_a_full_disk() {
    let installed = [identify(), append(entries(1, 1..=3, 100)), Step::Publish(id(term(2), index(9)))];
    let long = [identify(), vote(term(1)), append(entries(1, 1..=3, 100)), append(entries(1, 4..=6, 100))];
    let lose = |names: &'static [&'static str]| {
        move |image: &mut Image| names.iter().for_each(|name| image.remove(name))
    };
    type Change = Box<dyn Fn(&mut Image)>;
    let cases: [(&[Step], Change); 5] = [
        (&installed, Box::new(lose(&["reserve.seg"]))),
        (&installed, Box::new(lose(&["reserve.seg", "manifest-1", "mark"]))),
        (&long, Box::new(lose(&["reserve.seg", "manifest-0"]))),
        (&long, Box::new(lose(&["manifest-1"]))),
        (
            &long,
            Box::new(|image| {
                image.remove("reserve.seg");
                image.remove("manifest-0");
                image.file_mut("log-0000000000000001.seg")[100] ^= 1;
            }),
        ),
    ];
    for (number, (steps, change)) in cases.iter().enumerate() {
        let ran = ran(steps);
        let mut model = ran.states.last().unwrap().1.clone();
        let mut image = ran.disk.image();
        change(&mut image);
        let disk = CrashDisk::new(image);
        disk.fill(true);
        let mut found = open(&disk, SEGMENT).unwrap_or_else(|error| panic!("case {number}: {error}"));
        let damaged = number == 4;
        assert_eq!(model.is(&found), !damaged, "case {number}: {:?}", found.recovered);
        assert_eq!(found.recovered.abstention, damaged.then_some(index(6)), "case {number}");
        model.restart();
        let next =
            if damaged { entries(1, 1..=6, 10) } else { entries(3, model.last().index.0 + 1..=10, 10) };
        let step = append(next);
        // Some have room in what is there; the others are refused, and nothing of it counts.
        let refused = run(&mut found.storage, &step);
        assert!(matches!(refused, Ok(()) | Err(StorageError::Full(_))), "case {number}: {refused:?}");
        if refused.is_err() {
            disk.fill(false);
            run(&mut found.storage, &step).unwrap_or_else(|error| panic!("case {number}: {error}"));
        }
        model.apply(&step);
        drop(found);
        let found = open(&disk, SEGMENT).unwrap();
        let same = if damaged { found.entries.len() == 6 } else { model.is(&found) };
        assert!(same, "case {number}: {:?} {:?}", found.recovered, found.entries);
        assert_eq!(found.recovered.abstention, damaged.then_some(index(6)), "case {number}");
    }
}
