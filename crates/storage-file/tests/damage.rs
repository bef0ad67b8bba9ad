//! Damage that no crash does: flipped bits, lost files, foreign files. It is detected, or it changed nothing; it is never served
//! and never taken for a torn tail (D3).

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use atomix_protocol::Entry;
use atomix_storage::StorageError;
use crash_disk::workload::{
    Model, Step, abstain, append, configure, entry, id, identify, index, replace, run, term, vote,
};
use crash_disk::{CrashDisk, Image, open};

const SEGMENT: u64 = 1_024;

/// A directory after some steps and a clean end, and what must be found.
fn written(steps: &[Step]) -> (Image, Model) {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    let mut model = Model::default();
    for step in steps {
        run(&mut opened.storage, step).unwrap();
        model.apply(step);
    }
    (disk.image(), model)
}

fn entries(of: u64, indexes: std::ops::RangeInclusive<u64>, length: usize) -> Vec<Entry> {
    indexes.map(|at| entry(term(of), index(at), length)).collect()
}

fn log() -> Vec<Step> {
    vec![
        identify(),
        append(entries(1, 1..=4, 61)),
        configure(index(0)),
        vote(term(1)),
        abstain(Some(index(3))),
        replace(id(term(1), index(3)), entries(2, 4..=6, 100)),
        append(entries(2, 7..=9, 120)),
        append(entries(2, 10..=10, 0)),
    ]
}

fn segments(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| name.ends_with(".seg")).collect()
}

fn snapshots(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| name.ends_with(".snap")).collect()
}

/// What becomes of a directory.
#[derive(Debug, PartialEq)]
enum Found {
    Refused,
    Unchanged,
}

fn find(image: Image, model: &Model, text: &str) -> Found {
    let before = image.clone();
    let disk = CrashDisk::new(image);
    match open(&disk, SEGMENT) {
        Err(StorageError::Corrupt(_) | StorageError::Foreign(_)) => {
            assert_eq!(disk.image(), before, "{text}: something was written to a damaged directory");
            Found::Refused
        }
        Err(error) => panic!("{text}: {error}"),
        Ok(found) if model.is(&found) => Found::Unchanged,
        Ok(found) => panic!("{text}: served {:?} {:?}", found.recovered, found.entries),
    }
}

#[test]
fn flipped_bits_in_the_log() {
    let (image, model) = written(&log());
    assert!(segments(&image).len() >= 2);
    let (mut refused, mut unchanged) = (0, 0);
    for name in segments(&image) {
        let used = image.file(&name).iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for at in 0..used {
            let mut damaged = image.clone();
            damaged.file_mut(&name)[at] ^= 1 << (at % 8);
            match find(damaged, &model, &format!("{name} at {at}")) {
                Found::Refused => refused += 1,
                Found::Unchanged => unchanged += 1,
            }
        }
    }
    // Unchanged: the zeros that align records.
    assert!(refused > 1_500 && unchanged < refused / 20, "{refused} refused, {unchanged} unchanged");
}

#[test]
fn damage_of_several_bytes_in_the_log() {
    let (image, model) = written(&log());
    for name in segments(&image) {
        let used = image.file(&name).iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for at in (0..used).step_by(64) {
            for fill in [0, 0xFF] {
                let mut damaged = image.clone();
                damaged.file_mut(&name)[at..used.min(at + 64)].fill(fill);
                assert_eq!(
                    find(damaged, &model, &format!("{name} at {at}")),
                    Found::Refused,
                    "{name} at {at}"
                );
            }
        }
        for length in (0..used).step_by(64) {
            let mut damaged = image.clone();
            damaged.file_mut(&name).truncate(length);
            assert_eq!(
                find(damaged, &model, &format!("{name} cut")),
                Found::Refused,
                "{name} cut at {length}"
            );
        }
    }
}

/// Without a mark the last batch can't be told from one that a crash tore. All before it can.
#[test]
fn flipped_bits_without_a_mark() {
    let (mut image, model) = written(&log());
    image.remove("mark");
    let mut before = Model::default();
    log()[..log().len() - 1].iter().for_each(|step| before.apply(step));
    let (mut refused, mut torn) = (0, 0);
    for name in segments(&image) {
        let used = image.file(&name).iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for at in 0..used {
            let mut damaged = image.clone();
            damaged.file_mut(&name)[at] ^= 1 << (at % 8);
            let disk = CrashDisk::new(damaged);
            match open(&disk, SEGMENT) {
                Err(StorageError::Corrupt(_) | StorageError::Foreign(_)) => refused += 1,
                Err(error) => panic!("{name} at {at}: {error}"),
                Ok(found) if model.is(&found) => {}
                Ok(found) => {
                    assert!(before.is(&found), "{name} at {at}: served {:?}", found.entries);
                    torn += 1;
                }
            }
        }
    }
    assert!(refused > 1_500 && torn < 600, "{refused} refused, {torn} torn");
}

#[test]
fn a_damaged_mark_is_no_mark() {
    let (image, model) = written(&log());
    for at in 0..image.file("mark").len() {
        let mut damaged = image.clone();
        damaged.file_mut("mark")[at] ^= 0x10;
        assert_eq!(find(damaged, &model, &format!("mark at {at}")), Found::Unchanged);
    }
    let mut missing = image.clone();
    missing.remove("mark");
    assert_eq!(find(missing, &model, "no mark"), Found::Unchanged);
}

/// What a recovery has found and synced is marked: damage that comes later is no torn tail, though no batch was written since.
#[test]
fn recovery_renews_the_mark() {
    let (mut image, model) = written(&log());
    image.remove("mark");
    let disk = CrashDisk::new(image);
    drop(open(&disk, SEGMENT).unwrap());
    let mut damaged = disk.image();
    let name = segments(&damaged).pop().unwrap();
    let used = damaged.file(&name).iter().rposition(|byte| *byte != 0).unwrap();
    damaged.file_mut(&name)[used] ^= 1;
    assert_eq!(find(damaged, &model, "the last byte"), Found::Refused);
}

#[test]
fn lost_segments() {
    let (image, model) = written(&log());
    for name in segments(&image) {
        let mut damaged = image.clone();
        damaged.remove(&name);
        assert_eq!(find(damaged, &model, &name), Found::Refused, "{name} lost");
    }
    let mut damaged = image.clone();
    segments(&image).iter().for_each(|name| damaged.remove(name));
    assert_eq!(find(damaged, &model, "all"), Found::Refused, "a lost log is no fresh directory");
}

#[test]
fn exchanged_segments() {
    let (image, model) = written(&log());
    let names = segments(&image);
    let (first, second) = (image.file(&names[0]).to_vec(), image.file(&names[1]).to_vec());
    let mut damaged = image.clone();
    damaged.add(&names[0], second.clone());
    assert_eq!(find(damaged, &model, "the second twice"), Found::Refused);
    let mut damaged = image.clone();
    damaged.add(&names[1], first);
    assert_eq!(find(damaged, &model, "the first twice"), Found::Refused);
}

/// Two snapshots, and the log from the older one on.
fn with_snapshots(compact: bool) -> Vec<Step> {
    let mut steps = log();
    steps.push(Step::Publish(id(term(1), index(3))));
    steps.push(Step::Publish(id(term(2), index(8))));
    if compact {
        steps.push(Step::Compact(index(8)));
    }
    steps
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_older_one() {
    let (image, model) = written(&with_snapshots(true));
    let mut fallen_back = model.clone();
    fallen_back.apply(&Step::Publish(id(term(1), index(3))));
    let names = snapshots(&image);
    for at in 0..image.file(&names[1]).len() {
        let mut damaged = image.clone();
        damaged.file_mut(&names[1])[at] ^= 0x04;
        assert_eq!(find(damaged, &fallen_back, &format!("newest at {at}")), Found::Unchanged);
    }
    for at in 0..image.file(&names[0]).len() {
        let mut damaged = image.clone();
        damaged.file_mut(&names[0])[at] ^= 0x04;
        assert_eq!(find(damaged, &model, &format!("older at {at}")), Found::Unchanged, "it is not needed");
    }
    // A newer one replaces the damaged one.
    let mut damaged = image.clone();
    damaged.file_mut(&names[1])[100] ^= 1;
    let disk = CrashDisk::new(damaged);
    let mut found = open(&disk, SEGMENT).unwrap();
    run(&mut found.storage, &Step::Publish(id(term(2), index(9)))).unwrap();
    assert!(!disk.image().names().contains(&names[1]), "the damaged one stays");
    drop(found);
    fallen_back.apply(&Step::Publish(id(term(2), index(9))));
    assert!(fallen_back.is(&open(&disk, SEGMENT).unwrap()));
}

#[test]
fn a_damaged_snapshot_that_nothing_covers() {
    let installed = [
        identify(),
        append(entries(1, 1..=3, 100)),
        Step::Publish(id(term(2), index(9))),
        replace(id(term(2), index(9)), entries(2, 10..=11, 10)),
    ];
    let mut compacted = log();
    compacted.extend([Step::Publish(id(term(2), index(8))), Step::Compact(index(8))]);
    for steps in [&installed[..], &compacted] {
        let (image, model) = written(steps);
        let name = &snapshots(&image)[0];
        for at in 0..image.file(name).len() {
            let mut damaged = image.clone();
            damaged.file_mut(name)[at] ^= 0x80;
            assert_eq!(find(damaged, &model, &format!("{name} at {at}")), Found::Refused, "{name} at {at}");
        }
        let mut damaged = image.clone();
        damaged.remove(name);
        assert_eq!(find(damaged, &model, "lost"), Found::Refused, "lost");
    }
}

#[test]
fn snapshots_without_a_log() {
    let (mut image, model) = written(&with_snapshots(false));
    segments(&image).iter().for_each(|name| image.remove(name));
    image.remove("mark");
    assert_eq!(find(image, &model, "no log"), Found::Refused, "the vote is lost with the log");
}

#[test]
fn foreign_directories() {
    for name in ["other.seg", "log-2.seg", "x.snap"] {
        let mut image = Image::default();
        image.add(name, vec![1; 100]);
        let refused = open(&CrashDisk::new(image), SEGMENT).map(|_| ());
        assert!(matches!(refused, Err(StorageError::Foreign(_))), "{name}: {refused:?}");
    }
    let mut image = Image::default();
    image.add("notes.txt", vec![1; 100]);
    image.add("lock", Vec::new());
    assert_eq!(find(image, &Model::default(), "other files"), Found::Unchanged);
}

/// Files of a newer version, of another checksum algorithm or another group: whole, and not ours to read.
#[test]
fn newer_versions() {
    let (image, _) = written(&with_snapshots(false));
    let names = [segments(&image)[0].clone(), segments(&image)[1].clone(), snapshots(&image)[1].clone()];
    for name in names {
        for at in [8, 10, 12] {
            let mut newer = image.clone();
            let header = newer.file_mut(&name);
            header[at] = 9;
            let crc = crc32c::crc32c(&header[..60]);
            header[60..64].copy_from_slice(&crc.to_le_bytes());
            let refused = open(&CrashDisk::new(newer), SEGMENT).map(|_| ());
            assert!(matches!(refused, Err(StorageError::Foreign(_))), "{name} at {at}: {refused:?}");
        }
    }
}

/// A client can't make a torn batch look corrupt by sending bytes that look like the records of a log.
#[test]
fn payloads_that_look_like_records() {
    let (image, _) = written(&log());
    let mut feigned = image.file(&segments(&image)[0])[64..600].to_vec();
    // Their batch number, where a record has it, is far ahead.
    feigned.chunks_exact_mut(8).for_each(|word| {
        if word == 1u64.to_le_bytes() {
            word.copy_from_slice(&999u64.to_le_bytes());
        }
    });
    let payload = Entry { payload: feigned.into(), ..entry(term(1), index(2), 1) };
    let (mut image, mut model) = written(&[identify(), append(entries(1, 1..=1, 50))]);
    let disk = CrashDisk::new(image.clone());
    run(&mut open(&disk, 4 << 10).unwrap().storage, &append(vec![payload])).unwrap();
    // The same, torn: its first bytes are lost.
    let torn = disk.image();
    let name = segments(&torn).pop().unwrap();
    let bytes = torn.file(&name);
    let is_new = !segments(&image).contains(&name);
    image.add(&name, if is_new { [&[0; 128], &bytes[128..]].concat() } else { bytes.to_vec() });
    assert!(is_new, "the batch went to a segment of its own");
    model.restart();
    assert_eq!(find(image, &model, "feigned"), Found::Unchanged);
}
