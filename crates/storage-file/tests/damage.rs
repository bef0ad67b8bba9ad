//! Damage that no crash does: flipped bits, lost files, misdirected writes, foreign files. It is detected, or it changed nothing; it is
//! never served and never taken for a torn tail (D3). What is whole before it is served, the server abstains until a leader has given
//! the rest again, and then everything is as if nothing had been (D4).

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, WriteBatch};
use atomix_storage::{Storage, StorageError};
use atomix_storage_file::Disk;
use crash_disk::workload::{
    Model, Step, abstain, append, configure, describe, entry, id, identify, index, replace, run, term, vote,
};
use crash_disk::{CrashDisk, Fate, Image, Opened, open};

const SEGMENT: u64 = 1_024;

/// A directory after some steps and a clean end, what must be found, and everything that was ever in the log.
struct Written {
    image: Image,
    model: Model,
    ever: Vec<Entry>,
}

fn written(steps: &[Step]) -> Written {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    let mut model = Model::default();
    let mut ever = Vec::new();
    for step in steps {
        run(&mut opened.storage, step).unwrap();
        model.apply(step);
        if let Step::Write(batch) = step {
            ever.extend_from_slice(&batch.entries);
        }
    }
    Written { image: disk.image(), model, ever }
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
    image.names().into_iter().filter(|name| name.starts_with("log-")).collect()
}

fn snapshots(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| name.ends_with(".snap")).collect()
}

/// How much of a file is not zeros at its end.
fn used(image: &Image, name: &str) -> usize {
    image.file(name).iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// What becomes of a directory.
#[derive(Debug, PartialEq)]
enum Found {
    Refused,
    /// Part of it is not handed out, and the server abstains.
    Abstains,
    /// Everything is there, and it was said that something is damaged.
    Mended,
    Unchanged,
}

/// What was missing is written again, as by a leader; abstention ends; and everything is there. With a power cut at each operation: what
/// abstains goes on abstaining until then.
fn repair(before: &Image, written: &Written, text: &str) {
    let disk = CrashDisk::new(before.clone());
    let Opened { mut storage, recovered, entries } = open(&disk, SEGMENT).unwrap();
    let opened = disk.operations().len();
    let mut model = written.model.clone();
    let held = entries.last().map(|entry| entry.id).or(recovered.snapshot.as_ref().map(|meta| meta.last));
    let held = held.unwrap_or_default();
    let mut missing: Vec<Step> = Vec::new();
    let newest = model.recovered.snapshot.as_ref().map(|meta| meta.last);
    if newest.is_some_and(|newest| newest.index > held.index) {
        let newest = newest.unwrap();
        missing.push(Step::Publish(newest));
        missing.push(replace(
            newest,
            model.log.iter().filter(|entry| entry.id.index > newest.index).cloned().collect(),
        ));
    } else {
        // A leader knows where the logs agree.
        let agree = entries.iter().rev().map(|entry| entry.id).find(|id| model.id_at(id.index) == Some(*id));
        let agree = agree.or(recovered.snapshot.as_ref().map(|meta| meta.last)).unwrap_or_default();
        let rest = model.log.iter().filter(|entry| entry.id.index > agree.index).cloned();
        missing.extend(rest.map(|entry| append(vec![entry])));
        missing.insert(0, replace(agree, Vec::new()));
    }
    for step in &missing {
        run(&mut storage, step).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let repaired = disk.operations().len();
    run(&mut storage, &abstain(None)).unwrap();
    drop(storage);
    model.recovered.abstention = None;
    let whole = |found: &Opened| {
        let all: Vec<&Entry> =
            model.log.iter().filter(|entry| entry.id.index > recovered_index(found)).collect();
        found.entries.iter().collect::<Vec<_>>() == all && found.recovered.abstention.is_none()
    };
    let found = open(&disk, SEGMENT).unwrap();
    assert!(whole(&found), "{text}: repaired: {:?} {:?}", found.recovered, found.entries);
    assert_eq!(found.recovered.damage, [] as [&str; 0], "{text}: the damage is gone");
    for prefix in (0..repaired).step_by(3) {
        for fate in [Fate::Kept, Fate::Dropped, Fate::FirstSectors(1)] {
            let image = disk.crash(prefix, |_| fate);
            let text = format!(
                "{text}; power cut after {prefix} of {opened} operations of recovery and {repaired} of repair, {fate:?}"
            );
            let found =
                open(&CrashDisk::new(image), SEGMENT).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(found.recovered.abstention >= recovered.abstention, "{text}: {:?}", found.recovered);
        }
    }
}

fn recovered_index(found: &Opened) -> atomix_protocol::Index {
    found.recovered.snapshot.as_ref().map_or(index(0), |meta| meta.last.index)
}

/// Opens a damaged directory, and checks that nothing is handed out that was not written, nothing is missing unnoticed, and nothing that
/// was damaged is touched.
fn find(image: Image, written: &Written, text: &str) -> Found {
    let disk = CrashDisk::new(image.clone());
    let found = match open(&disk, SEGMENT) {
        Err(StorageError::Corrupt(_) | StorageError::OtherVersion(_)) => {
            assert_eq!(
                disk.image(),
                image,
                "{text}: something was written to a directory that can't be used"
            );
            return Found::Refused;
        }
        Err(error) => panic!("{text}: {error}"),
        Ok(found) => found,
    };
    let Written { model, ever, .. } = written;
    if model.is(&found) {
        return if found.recovered.damage.is_empty() { Found::Unchanged } else { Found::Mended };
    }
    let (recovered, wanted) = (&found.recovered, &model.recovered);
    assert_eq!(
        (recovered.identity, recovered.hard_state, &recovered.configuration),
        (wanted.identity, wanted.hard_state, &wanted.configuration),
        "{text}"
    );
    let mut next = recovered_index(&found).next();
    for entry in &found.entries {
        assert_eq!(entry.id.index, next, "{text}: a hole before {entry:?}");
        assert!(ever.contains(entry), "{text}: {entry:?} was never written");
        next = next.next();
    }
    assert!(
        recovered.damage.iter().all(|words| !words.is_empty()) && !recovered.damage.is_empty(),
        "{text}: in silence"
    );
    if recovered.abstention == wanted.abstention && recovered.snapshot != wanted.snapshot {
        // The older snapshot, and everything behind it.
        let all: Vec<&Entry> =
            model.log.iter().filter(|entry| entry.id.index >= recovered_index(&found).next()).collect();
        assert_eq!(found.entries.iter().collect::<Vec<_>>(), all, "{text}: something is missing");
        return Found::Mended;
    }
    let snapshot = wanted.snapshot.as_ref().map_or(index(0), |meta| meta.last.index);
    let acknowledged = model.last().index.max(snapshot);
    assert!(
        recovered.abstention >= Some(acknowledged),
        "{text}: abstains until {:?}, not {acknowledged}",
        recovered.abstention
    );
    for name in segments(&image) {
        let kept =
            disk.image().file(&name)[..used(&image, &name)] == image.file(&name)[..used(&image, &name)];
        assert!(kept, "{text}: {name} was touched");
    }
    // Again, after a crash of the machine right behind: the same.
    let again =
        open(&CrashDisk::new(disk.crash(disk.operations().len(), |_| Fate::Dropped)), SEGMENT).unwrap();
    assert_eq!(
        (&again.recovered.abstention, &again.entries),
        (&recovered.abstention, &found.entries),
        "{text}: again"
    );
    Found::Abstains
}

#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    abstains: usize,
    mended: usize,
    unchanged: usize,
}

impl Tally {
    fn count(&mut self, found: &Found) {
        *match found {
            Found::Refused => &mut self.refused,
            Found::Abstains => &mut self.abstains,
            Found::Mended => &mut self.mended,
            Found::Unchanged => &mut self.unchanged,
        } += 1;
    }
}

/// Each bit of the log in turn. Whatever is damaged in its middle is noticed, and repaired.
#[test]
fn flipped_bits_in_the_log() {
    let written = written(&log());
    assert!(segments(&written.image).len() >= 2);
    let mut tally = Tally::default();
    for name in segments(&written.image) {
        for at in 0..used(&written.image, &name) {
            let mut damaged = written.image.clone();
            damaged.file_mut(&name)[at] ^= 1 << (at % 8);
            let text = format!("{name} at {at}");
            let found = find(damaged.clone(), &written, &text);
            tally.count(&found);
            if found == Found::Abstains && at % 7 == 0 {
                repair(&damaged, &written, &text);
            }
        }
    }
    // Unchanged: the zeros that align records.
    assert!(tally.abstains > 1_200 && tally.unchanged < tally.abstains / 20, "{tally:?}");
    assert_eq!((tally.refused, tally.mended), (0, 0), "{tally:?}");
}

#[test]
fn damage_of_several_bytes_in_the_log() {
    let written = written(&log());
    for name in segments(&written.image) {
        let used = used(&written.image, &name);
        for at in (0..used).step_by(64) {
            for fill in [0, 0xFF] {
                let mut damaged = written.image.clone();
                damaged.file_mut(&name)[at..used.min(at + 64)].fill(fill);
                let text = format!("{name} at {at}");
                assert_eq!(find(damaged.clone(), &written, &text), Found::Abstains, "{text}");
                repair(&damaged, &written, &text);
            }
        }
        for length in (0..used).step_by(64) {
            let mut damaged = written.image.clone();
            damaged.file_mut(&name).truncate(length);
            let text = format!("{name} cut at {length}");
            assert_eq!(find(damaged.clone(), &written, &text), Found::Abstains, "{text}");
            repair(&damaged, &written, &text);
        }
    }
}

/// Without a mark the last batch can't be told from one that a crash tore. All before it can.
#[test]
fn flipped_bits_without_a_mark() {
    let mut written = written(&log());
    written.image.remove("mark");
    let mut before = Model::default();
    log()[..log().len() - 1].iter().for_each(|step| before.apply(step));
    let (mut tally, mut torn) = (Tally::default(), 0);
    for name in segments(&written.image) {
        for at in 0..used(&written.image, &name) {
            let mut damaged = written.image.clone();
            damaged.file_mut(&name)[at] ^= 1 << (at % 8);
            let found = open(&CrashDisk::new(damaged.clone()), SEGMENT);
            if found.is_ok_and(|found| before.is(&found)) {
                torn += 1;
            } else {
                tally.count(&find(damaged, &written, &format!("{name} at {at}")));
            }
        }
    }
    assert!(tally.abstains > 1_200 && torn < 300, "{tally:?}, {torn} torn");
}

#[test]
fn a_damaged_mark_is_no_mark() {
    let written = written(&log());
    for at in 0..written.image.file("mark").len() {
        let mut damaged = written.image.clone();
        damaged.file_mut("mark")[at] ^= 0x10;
        assert_eq!(find(damaged, &written, &format!("mark at {at}")), Found::Unchanged);
    }
    let mut missing = written.image.clone();
    missing.remove("mark");
    assert_eq!(find(missing, &written, "no mark"), Found::Unchanged);
}

/// What a recovery has found and synced is marked: damage that comes later is no torn tail, though no batch was written since.
#[test]
fn recovery_renews_the_mark() {
    let mut written = written(&log());
    written.image.remove("mark");
    let disk = CrashDisk::new(written.image.clone());
    drop(open(&disk, SEGMENT).unwrap());
    let mut damaged = disk.image();
    let name = segments(&damaged).pop().unwrap();
    let last = used(&damaged, &name) - 1;
    damaged.file_mut(&name)[last] ^= 1;
    assert_eq!(find(damaged, &written, "the last byte"), Found::Abstains);
}

/// One copy of the manifest is enough, and is copied again. Without any, identity and vote are lost.
#[test]
fn damaged_manifests() {
    let written = written(&log());
    for name in ["manifest-0", "manifest-1"] {
        for at in 0..used(&written.image, name) {
            let mut damaged = written.image.clone();
            damaged.file_mut(name)[at] ^= 1 << (at % 8);
            let text = format!("{name} at {at}");
            let disk = CrashDisk::new(damaged.clone());
            assert_eq!(find(damaged, &written, &text), Found::Mended, "{text}");
            drop(open(&disk, SEGMENT).unwrap());
            assert_eq!(find(disk.image(), &written, &text), Found::Unchanged, "{text}: copied again");
        }
        let mut lost = written.image.clone();
        lost.remove(name);
        assert_eq!(find(lost.clone(), &written, name), Found::Mended, "{name} lost");
        // Whichever is whole is not written before the other is.
        let disk = CrashDisk::new(lost);
        drop(open(&disk, SEGMENT).unwrap());
        for prefix in 0..disk.operations().len() {
            for fate in [Fate::Kept, Fate::Dropped, Fate::FirstSectors(1), Fate::FirstBytes(70)] {
                let found = find(disk.crash(prefix, |_| fate), &written, name);
                assert!(
                    matches!(found, Found::Mended | Found::Unchanged),
                    "{name}, {prefix}, {fate:?}: {found:?}"
                );
            }
        }
    }
    let mut lost = written.image.clone();
    for name in ["manifest-0", "manifest-1"] {
        lost.file_mut(name)[70] ^= 1;
    }
    assert_eq!(find(lost.clone(), &written, "both"), Found::Refused);
    lost.remove("manifest-0");
    lost.remove("manifest-1");
    assert_eq!(find(lost, &written, "none"), Found::Refused);
}

#[test]
fn lost_segments() {
    let written = written(&log());
    for name in segments(&written.image) {
        let mut damaged = written.image.clone();
        damaged.remove(&name);
        assert_eq!(find(damaged.clone(), &written, &name), Found::Abstains, "{name} lost");
        repair(&damaged, &written, &name);
    }
    let mut damaged = written.image.clone();
    segments(&written.image).iter().for_each(|name| damaged.remove(name));
    assert_eq!(find(damaged.clone(), &written, "all"), Found::Abstains, "a lost log is no fresh directory");
    repair(&damaged, &written, "all");
    // The mark may be lost as well, or be old: the manifest knows the newest segment.
    let mut damaged = written.image.clone();
    damaged.remove("mark");
    damaged.remove(&segments(&written.image).pop().unwrap());
    let found = open(&CrashDisk::new(damaged), SEGMENT).unwrap();
    assert!(found.recovered.abstention.is_some(), "the last segment and the mark");
}

#[test]
fn exchanged_segments() {
    let written = written(&log());
    let names = segments(&written.image);
    let (first, second) = (written.image.file(&names[0]).to_vec(), written.image.file(&names[1]).to_vec());
    let mut damaged = written.image.clone();
    damaged.add(&names[0], second.clone());
    assert_eq!(find(damaged.clone(), &written, "the second twice"), Found::Abstains);
    repair(&damaged, &written, "the second twice");
    let mut damaged = written.image.clone();
    damaged.add(&names[1], first);
    assert_eq!(find(damaged.clone(), &written, "the first twice"), Found::Abstains);
    repair(&damaged, &written, "the first twice");
}

/// A sector of one segment lands in another, or at another place of its own; and a sector keeps what it held before.
#[test]
fn misdirected_and_lost_writes() {
    let written = written(&log());
    let names = segments(&written.image);
    let mut tally = Tally::default();
    for from in &names {
        for to in &names {
            for source in (0..used(&written.image, from)).step_by(128) {
                for target in (0..used(&written.image, to))
                    .step_by(128)
                    .filter(|target| from != to || *target != source)
                {
                    let mut damaged = written.image.clone();
                    let piece = written.image.file(from)
                        [source..used(&written.image, from).min(source + 128)]
                        .to_vec();
                    let file = damaged.file_mut(to);
                    let end = file.len().min(target + piece.len());
                    file[target..end].copy_from_slice(&piece[..end - target]);
                    tally.count(&find(
                        damaged,
                        &written,
                        &format!("{from} at {source} over {to} at {target}"),
                    ));
                }
            }
        }
    }
    assert!(tally.abstains > 300 && tally.refused + tally.mended == 0, "{tally:?}");
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
    let written = written(&with_snapshots(true));
    let names = snapshots(&written.image);
    for at in 0..written.image.file(&names[1]).len() {
        let mut damaged = written.image.clone();
        damaged.file_mut(&names[1])[at] ^= 0x04;
        assert_eq!(find(damaged, &written, &format!("newest at {at}")), Found::Mended);
    }
    for at in 0..written.image.file(&names[0]).len() {
        let mut damaged = written.image.clone();
        damaged.file_mut(&names[0])[at] ^= 0x04;
        assert_eq!(find(damaged, &written, &format!("older at {at}")), Found::Unchanged, "it is not needed");
    }
    // A newer one replaces the damaged one.
    let mut damaged = written.image.clone();
    damaged.file_mut(&names[1])[100] ^= 1;
    let disk = CrashDisk::new(damaged);
    let mut found = open(&disk, SEGMENT).unwrap();
    run(&mut found.storage, &Step::Publish(id(term(2), index(9)))).unwrap();
    assert!(!disk.image().names().contains(&names[1]), "the damaged one stays");
    drop(found);
    let mut model = written.model.clone();
    model.apply(&Step::Publish(id(term(2), index(9))));
    assert!(model.is(&open(&disk, SEGMENT).unwrap()));
}

/// Nothing leads to what the newest snapshot held: the server abstains until a leader has given it again.
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
        let written = written(steps);
        let name = &snapshots(&written.image)[0];
        for at in 0..written.image.file(name).len() {
            let mut damaged = written.image.clone();
            damaged.file_mut(name)[at] ^= 0x80;
            let text = format!("{name} at {at}");
            assert_eq!(find(damaged.clone(), &written, &text), Found::Abstains, "{text}");
            if at % 31 == 0 {
                repair(&damaged, &written, &text);
            }
        }
        let mut damaged = written.image.clone();
        damaged.remove(name);
        assert_eq!(find(damaged.clone(), &written, "lost"), Found::Abstains, "lost");
        repair(&damaged, &written, "lost");
    }
}

/// What is damaged and covered by a snapshot is not needed: it is said, and everything is there.
#[test]
fn damage_before_a_snapshot() {
    let mut steps = with_snapshots(false);
    steps.push(abstain(None));
    let written = written(&steps);
    let first = &segments(&written.image)[0];
    let mut tally = Tally::default();
    for at in 0..used(&written.image, first) {
        let mut damaged = written.image.clone();
        damaged.file_mut(first)[at] ^= 1 << (at % 8);
        let disk = CrashDisk::new(damaged.clone());
        let found = find(damaged, &written, &format!("{first} at {at}"));
        tally.count(&found);
        if found == Found::Mended {
            drop(open(&disk, SEGMENT).unwrap());
            assert!(!disk.image().names().contains(first), "{first} at {at} stays");
            assert_eq!(find(disk.image(), &written, "again"), Found::Unchanged);
        }
    }
    assert!(tally.mended > 500 && tally.abstains + tally.refused == 0, "{tally:?}");
}

#[test]
fn snapshots_without_a_log() {
    let mut written = written(&with_snapshots(false));
    segments(&written.image).iter().for_each(|name| written.image.remove(name));
    assert_eq!(find(written.image.clone(), &written, "no log"), Found::Abstains);
    repair(&written.image, &written, "no log");
}

/// Damage that comes during a repair, in what is whole and in what was just written.
#[test]
fn damage_during_a_repair() {
    let written = written(&log());
    let first = segments(&written.image)[0].clone();
    let mut damaged = written.image.clone();
    damaged.file_mut(&first)[used(&written.image, &first) / 2] ^= 1;
    let disk = CrashDisk::new(damaged);
    let mut found = open(&disk, SEGMENT).unwrap();
    let until = found.recovered.abstention;
    let last = found.entries.last().map(|entry| entry.id).unwrap_or_default();
    let missing =
        written.model.log.iter().filter(|entry| entry.id.index > last.index).cloned().collect::<Vec<_>>();
    assert!(missing.len() > 2, "{missing:?}");
    let agree =
        WriteBatch { truncate_after: Some(last), entries: missing[..2].to_vec(), ..WriteBatch::default() };
    run(&mut found.storage, &Step::Write(agree)).unwrap();
    drop(found);
    let half = disk.image();
    let mut abstains = 0;
    for name in segments(&half) {
        for at in (0..used(&half, &name)).step_by(5) {
            let mut twice = half.clone();
            twice.file_mut(&name)[at] ^= 0x20;
            let found = open(&CrashDisk::new(twice.clone()), SEGMENT).unwrap();
            assert!(found.recovered.abstention >= until, "{name} at {at}: {:?}", found.recovered);
            assert!(found.entries.iter().all(|entry| written.ever.contains(entry)), "{name} at {at}");
            repair(&twice, &written, &format!("{name} at {at}"));
            abstains += 1;
        }
    }
    assert!(abstains > 300, "{abstains}");
}

#[test]
fn foreign_directories() {
    for name in ["other.seg", "log-2.seg", "x.snap"] {
        let mut image = Image::default();
        image.add(name, vec![1; 100]);
        let refused = open(&CrashDisk::new(image), SEGMENT).map(|_| ());
        assert!(matches!(&refused, Err(StorageError::Foreign(why)) if why.contains(name)), "{refused:?}");
    }
    let mut image = Image::default();
    image.add("notes.txt", vec![1; 100]);
    image.add("lock", Vec::new());
    let nothing = written(&[]);
    assert_eq!(find(image, &nothing, "other files"), Found::Unchanged);
}

/// Files of a newer version, of another checksum algorithm or another group: whole, and not ours to read.
#[test]
fn newer_versions() {
    let Written { image, .. } = written(&with_snapshots(false));
    let logs = segments(&image);
    let names = [logs[0].clone(), logs[1].clone(), snapshots(&image)[1].clone(), "manifest-1".into()];
    for name in names {
        for at in [8, 10, 12] {
            let mut newer = image.clone();
            let header = newer.file_mut(&name);
            header[at] = 9;
            let crc = crc32c::crc32c(&header[..60]);
            header[60..64].copy_from_slice(&crc.to_le_bytes());
            let refused = open(&CrashDisk::new(newer), SEGMENT).map(|_| ());
            let Err(StorageError::OtherVersion(why)) = refused else { panic!("{name} at {at}: {refused:?}") };
            assert!(why.starts_with(&format!("{name} was written by another version")), "{why}");
        }
    }
}

/// A client can't make a torn batch look corrupt by sending bytes that look like the records of a log.
#[test]
fn payloads_that_look_like_records() {
    let Written { image, .. } = written(&log());
    let mut feigned = image.file(&segments(&image)[0])[64..600].to_vec();
    // Their batch number, where a record has it, is far ahead.
    feigned.chunks_exact_mut(8).for_each(|word| {
        if word == 1u64.to_le_bytes() {
            word.copy_from_slice(&999u64.to_le_bytes());
        }
    });
    let payload = Entry { payload: feigned.into(), ..entry(term(1), index(2), 1) };
    let mut written = written(&[identify(), append(entries(1, 1..=1, 700))]);
    let disk = CrashDisk::new(written.image.clone());
    run(&mut open(&disk, 4 << 10).unwrap().storage, &append(vec![payload])).unwrap();
    // The same, torn: its first bytes are lost, and nothing knows of the new segment yet.
    let torn = disk.image();
    let name = segments(&torn).pop().unwrap();
    assert!(!segments(&written.image).contains(&name), "the batch went to a segment of its own");
    let bytes = [&[0; 128], &torn.file(&name)[128..]].concat();
    written.image.add(&name, bytes);
    written.model.restart();
    assert_eq!(find(written.image.clone(), &written, "feigned"), Found::Unchanged);
}

/// A snapshot that gets damaged while it is in use: no piece of it that does not verify reaches anybody.
#[test]
fn a_snapshot_damaged_in_use() {
    let data: Vec<u8> = (0..200_000u32).map(|at| (at * 7) as u8).collect();
    let last = id(term(1), index(2));
    let meta = SnapshotMeta { size: data.len() as u64, checksum: crc32c::crc32c(&data), ..describe(last) };
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    run(&mut opened.storage, &identify()).unwrap();
    let mut writer = opened.storage.snapshot_writer().unwrap();
    writer.begin(last).unwrap();
    data.chunks(77_777).for_each(|piece| writer.write(piece).unwrap());
    writer.finish(&meta).unwrap();
    opened.storage.publish(&meta).unwrap();
    let reads =
        [(0, 200_000), (0, 10), (65_530, 20), (70_000, 1), (131_072, 65_536), (199_999, 9), (200_000, 9)];
    for found_by_recovery in [false, true] {
        if found_by_recovery {
            opened = open(&disk, SEGMENT).unwrap();
        }
        let mut reader = opened.storage.reader().unwrap();
        for (offset, bytes) in reads {
            let read = reader.snapshot(last, offset, bytes).unwrap().unwrap();
            let end = data.len().min(offset as usize + bytes);
            assert_eq!(read, data[offset as usize..end], "{bytes} at {offset}");
        }
        let name = snapshots(&disk.image()).pop().unwrap();
        for at in [0, 65_535, 65_536, 199_999] {
            let flip = |disk: &CrashDisk| {
                let mut byte = [0];
                Disk::read_at(&mut disk.clone(), &name, 64 + at, &mut byte).unwrap();
                Disk::write_at(&mut disk.clone(), &name, 64 + at, &[&[byte[0] ^ 1]]).unwrap();
            };
            flip(&disk);
            let piece = at / 65_536 * 65_536;
            for (offset, bytes) in reads {
                let end = (offset + bytes as u64).min(200_000);
                let touched = offset < end && (piece..piece + 65_536).any(|at| (offset..end).contains(&at));
                let read = reader.snapshot(last, offset, bytes);
                assert_eq!(
                    matches!(read, Err(StorageError::Corrupt(_))),
                    touched,
                    "{bytes} at {offset}, flipped {at}"
                );
            }
            flip(&disk);
        }
    }
}
