//! Looking at a directory: every row of the decision table by its name, the same as a start decides, and nothing changed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use atomix_protocol::{Entry, Index};
use atomix_storage::{Recovered, StorageError};
use atomix_storage_file::inspect::{Inspection, Part, Record, RecordKind, Report, Standing, Verdict};
use crash_disk::workload::{
    Step, abstain, append, configure, entry, id, identify, index, replace, run, term, vote,
};
use crash_disk::{CrashDisk, Fate, Image, open};

const SEGMENT: u64 = 1_024;
const ALL: u64 = u64::MAX;

fn entries(of: u64, indexes: std::ops::RangeInclusive<u64>, length: usize) -> Vec<Entry> {
    indexes.map(|at| entry(term(of), index(at), length)).collect()
}

fn written(steps: &[Step]) -> Image {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    steps.iter().for_each(|step| run(&mut opened.storage, step).unwrap());
    disk.image()
}

/// Entries 1 to 10 in several segments; the 4th was replaced.
fn log() -> Vec<Step> {
    vec![
        identify(),
        append(entries(1, 1..=4, 61)),
        configure(index(0)),
        vote(term(1)),
        replace(id(term(1), index(3)), entries(2, 4..=6, 100)),
        append(entries(2, 7..=9, 120)),
        append(entries(2, 10..=10, 0)),
    ]
}

/// The same, with two snapshots.
fn with_snapshots() -> Vec<Step> {
    let mut steps = log();
    steps.extend([Step::Publish(id(term(1), index(3))), Step::Publish(id(term(2), index(8)))]);
    steps
}

fn names(image: &Image, begin: &str) -> Vec<String> {
    image.names().into_iter().filter(|name| name.starts_with(begin)).collect()
}

fn used(image: &Image, name: &str) -> usize {
    image.file(name).iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Looks at a directory, all of it; nothing is changed.
fn look(image: &Image, text: &str) -> Result<(Report, Vec<Record>), StorageError> {
    let disk = CrashDisk::new(image.clone());
    let mut inspection = Inspection::of(Box::new(disk.clone()))?;
    let report = inspection.report()?;
    let mut records = Vec::new();
    inspection.records(index(0), index(ALL), &mut |record| records.push(record))?;
    assert!(disk.operations().is_empty(), "{text}: {:?}", disk.operations());
    Ok((report, records))
}

/// Looks at a directory, and then starts with it: what is said is what happens.
fn check(image: &Image, text: &str) -> Report {
    let seen = look(image, text);
    let started = open(&CrashDisk::new(image.clone()), SEGMENT);
    let (report, records) = match (seen, &started) {
        (Ok(seen), _) => seen,
        (Err(error), Err(other)) if error == *other => panic!("{text}: {error}"),
        (Err(error), _) => {
            panic!("{text}: {error}, but a start is {:?}", started.map(|found| found.recovered))
        }
    };
    let found = match started {
        Ok(found) => found,
        Err(error) => {
            let wanted = match error {
                StorageError::Corrupt(_) => Verdict::Lost,
                StorageError::OtherVersion(_) => Verdict::Foreign,
                error => panic!("{text}: {error}"),
            };
            assert_eq!(report.verdict, wanted, "{text}: {error}");
            assert!(
                !report.findings.is_empty() && report.next_start.starts_with("refused"),
                "{text}: {report:?}"
            );
            assert!(records.iter().all(|record| record.standing == Standing::NotServed), "{text}");
            return report;
        }
    };
    let Recovered { identity, hard_state, configuration, abstention, snapshot, damage } = found.recovered;
    assert_eq!((report.identity, report.hard_state), (identity, hard_state), "{text}");
    assert_eq!((&report.configuration, report.abstains_until), (&configuration, abstention), "{text}");
    assert!(damage.len() <= report.findings.len(), "{text}: {damage:?}");
    for (finding, damage) in report.findings.iter().zip(&damage) {
        // That it abstains a server says itself, and how far it has come with that.
        let said = finding.to_string();
        let rest =
            said.strip_prefix(damage.as_str()).unwrap_or_else(|| panic!("{text}: {said}, not {damage}"));
        assert!(
            rest.is_empty() || rest.starts_with("; the server abstains until "),
            "{text}: {said}, not {damage}"
        );
    }
    let after = snapshot.map_or(index(0), |meta| meta.last.index);
    let served: Vec<Entry> = records
        .iter()
        .filter(|record| record.standing == Standing::Served && record.id.index > after)
        .filter_map(|record| match record.kind {
            RecordKind::Entry(kind) => {
                let payload = record.payload.clone().expect("what is served is whole");
                Some(Entry { id: record.id, time: record.time, kind, payload })
            }
            _ => None,
        })
        .collect();
    assert_eq!(served, found.entries, "{text}: what is called served is what is served");
    assert!(found.entries.last().is_none_or(|last| last.id == report.log_last), "{text}: {report:?}");
    assert_eq!(report.torn.is_some(), report.verdict == Verdict::Truncate, "{text}");
    report
}

#[track_caller]
fn row(image: &Image, name: &str, words: &[&str]) -> Report {
    let report = check(image, name);
    assert_eq!(report.row, name, "{report:#?}");
    assert!(!report.reason.is_empty() && !report.next_start.is_empty(), "{report:#?}");
    let findings: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    let all = format!("{}\n{}\n{findings}{}", report.reason, report.next_start, report.notes.join("\n"));
    for word in words {
        assert!(all.contains(word), "{name}: `{word}` is not in\n{all}");
    }
    report
}

fn flipped(image: &Image, name: &str, at: usize) -> Image {
    let mut damaged = image.clone();
    damaged.file_mut(name)[at] ^= 1;
    damaged
}

fn without(image: &Image, gone: &[&str]) -> Image {
    let mut damaged = image.clone();
    gone.iter().for_each(|name| damaged.remove(name));
    damaged
}

#[test]
fn row_clean() {
    let report = row(&written(&with_snapshots()), "clean", &["serves all that is here"]);
    assert_eq!((report.findings.len(), report.notes.len()), (0, 0), "{report:#?}");
    assert_eq!(report.log_last, id(term(2), index(10)));
    let log: Vec<_> = report.segments.iter().filter(|segment| segment.part == Part::Log).collect();
    assert!(log.len() > 2, "{report:#?}");
    assert_eq!(log[0].entries, Some((id(term(1), index(1)), id(term(1), index(4)))), "{report:#?}");
    for (before, behind) in log.iter().zip(&log[1..]) {
        assert_eq!(behind.follows, Some((before.number.unwrap(), before.end)), "{report:#?}");
    }
    assert_eq!((log[0].follows, report.snapshots.len()), (None, 2));
    assert!(report.segments.iter().any(|segment| segment.part == Part::Reserve), "{report:#?}");
}

#[test]
fn row_fresh() {
    let report = row(&Image::default(), "fresh", &["nothing was ever acknowledged here"]);
    assert_eq!((report.verdict, report.findings.len()), (Verdict::Fresh, 0));
}

#[test]
fn row_another_format() {
    let image = written(&with_snapshots());
    let segment = names(&image, "log-").remove(0);
    for name in [segment, names(&image, "snap").remove(1), "manifest-1".to_owned()] {
        let mut newer = image.clone();
        let header = newer.file_mut(&name);
        header[8] = 9;
        let crc = crc32c::crc32c(&header[..60]);
        header[60..64].copy_from_slice(&crc.to_le_bytes());
        row(&newer, "another format", &[&name, "another version", "refused"]);
    }
}

#[test]
fn row_no_manifest() {
    let image = without(&written(&log()), &["manifest-0", "manifest-1"]);
    row(&image, "no manifest", &["identity, term and vote are lost", "new member"]);
}

#[test]
fn row_identity_lost() {
    let image = flipped(&flipped(&written(&log()), "manifest-0", 70), "manifest-1", 70);
    let report = row(&image, "identity lost", &["identity, term and vote are lost", "new member"]);
    assert_eq!(report.manifests.map(|copy| copy.to_string()), ["damaged", "damaged"]);
}

#[test]
fn row_torn() {
    let image = without(&written(&log()), &["mark"]);
    let name = names(&image, "log-").pop().unwrap();
    let report =
        row(&flipped(&image, &name, used(&image, &name) - 1), "torn", &[&name, "cuts off", "a crash broke"]);
    assert_eq!(
        (report.findings.len(), report.log_last.index),
        (0, index(9)),
        "a torn end is no damage: {report:#?}"
    );
    assert_eq!(report.torn.unwrap().file, name);
}

#[test]
fn row_a_later_record() {
    let image = without(&written(&log()), &["mark"]);
    // Two batches lie in the last segment.
    let name = names(&image, "log-").pop().unwrap();
    let words = format!("but {name} at ");
    let report = row(
        &flipped(&image, &name, 100),
        "a later record",
        &[&name, " at 64: batch 3 fails", &words, "batch 4"],
    );
    assert_eq!((report.log_last.index, report.abstains_until), (index(6), Some(index(10))));
}

/// Two things at once: what the row is named for is the reason.
#[test]
fn the_reason_is_that_of_the_row() {
    let mut steps = with_snapshots();
    steps.push(Step::Compact(index(8)));
    let image = without(&written(&steps), &["manifest-0"]);
    let snapshots = names(&image, "snap");
    let name = names(&image, "log-").pop().unwrap();
    let damaged = flipped(&without(&image, &[&snapshots[0], &snapshots[1]]), &name, used(&image, &name) - 1);
    let report = row(&damaged, "a synced batch", &["manifest-0: is missing", "nothing whole leads from 0@0"]);
    assert!(
        report.reason.starts_with(&name) && report.reason.contains("the log was synced to"),
        "{report:#?}"
    );
}

#[test]
fn row_a_synced_batch() {
    let image = written(&log());
    let name = names(&image, "log-").pop().unwrap();
    let damaged = flipped(&image, &name, used(&image, &name) - 1);
    let report = row(&damaged, "a synced batch", &[&name, " at ", "the log was synced to", "up to index 10"]);
    assert_eq!((report.log_last.index, report.abstains_until), (index(9), Some(index(10))));
}

#[test]
fn row_a_missing_segment() {
    let image = without(&written(&log()), &["mark"]);
    let name = names(&image, "log-").pop().unwrap();
    row(
        &without(&image, &[&name]),
        "a missing segment",
        &[&name, "is missing or has lost its head", "abstains until"],
    );
    row(&flipped(&image, &name, 3), "a missing segment", &[&name, "has lost its head"]);
}

#[test]
fn row_a_lost_snapshot() {
    let mut steps = log();
    steps.extend([Step::Publish(id(term(1), index(3))), Step::Publish(id(term(5), index(20)))]);
    let image = written(&steps);
    let name = names(&image, "snap").pop().unwrap();
    row(
        &without(&image, &[&name]),
        "a lost snapshot",
        &[&name, "is missing", "the log ends with 10@2", "up to index 20"],
    );
    row(&flipped(&image, &name, 70), "a lost snapshot", &[&name, "does not verify", "up to index 20"]);
}

#[test]
fn row_a_gap() {
    let mut steps = with_snapshots();
    steps.push(Step::Compact(index(8)));
    let image = written(&steps);
    let snapshots = names(&image, "snap");
    assert!(names(&image, "log-")[0] != names(&written(&log()), "log-")[0], "nothing was compacted");
    let damaged = flipped(&without(&image, &[&snapshots[0]]), &snapshots[1], 70);
    let report = row(&damaged, "a gap", &[&snapshots[1], "nothing whole leads from 0@0", "up to index 10"]);
    assert!(report.segments.iter().any(|segment| segment.part == Part::GivenUp), "{report:#?}");
}

/// Whatever is wrong with a file that a start can do without: it is found, and the row is that of what decides.
#[test]
fn everything_is_checked() {
    let image = written(&with_snapshots());
    let snapshots = names(&image, "snap");
    row(&flipped(&image, &snapshots[0], 70), "clean", &[&snapshots[0], "does not verify", "nothing is lost"]);
    row(
        &flipped(&image, &snapshots[1], 70),
        "clean",
        &[&snapshots[1], "the newest that is whole reaches 3@1"],
    );
    row(&flipped(&image, "manifest-1", 70), "clean", &["manifest-1: does not verify", "other copy is whole"]);
    row(&without(&image, &["manifest-0"]), "clean", &["manifest-0: is missing", "other copy is whole"]);
    row(
        &flipped(&image, "mark", 20),
        "clean",
        &["mark at 0: this slot does not verify", "the other one counts"],
    );
    row(&flipped(&image, "mark", 540), "clean", &["mark at 512: this slot does not verify"]);
    for damaged in [flipped(&image, &snapshots[0], 70), flipped(&image, "mark", 20)] {
        assert_eq!(check(&damaged, "one thing").findings.len(), 1);
    }
    let first = &names(&image, "log-")[0];
    row(&flipped(&image, first, 100), "clean", &[first, " at 64: batch 1 fails", "a snapshot covers it"]);
    let lost = row(&without(&image, &["mark"]), "clean", &["nothing says how far the log was synced"]);
    assert_eq!(lost.findings.len(), 0, "a crash can take the mark");
    let mut steps = log();
    steps.push(abstain(Some(index(99))));
    let abstaining =
        row(&written(&steps), "clean", &["has no vote until", "up to index 99", "an earlier start"]);
    assert_eq!((abstaining.findings.len(), abstaining.verdict), (1, Verdict::Serve));
}

/// One byte of every place in turn, in a directory with snapshots and one without, with the mark and without.
#[test]
fn flipped_bytes() {
    let mut rows = std::collections::BTreeMap::new();
    for (steps, mark) in [(log(), true), (with_snapshots(), true), (with_snapshots(), false), (log(), false)]
    {
        let image = written(&steps);
        let image = if mark { image } else { without(&image, &["mark"]) };
        for name in image.names() {
            // What is never read, or never written.
            let unused = |at: &usize| {
                ["spare.seg", "reserve.seg"].contains(&&*name) || name == "mark" && at % 512 >= 64
            };
            for at in (0..used(&image, &name)).step_by(7).filter(|at| !unused(at)) {
                let report = check(&flipped(&image, &name, at), &format!("{name} at {at}"));
                let covered = report.findings.iter().any(|finding| finding.file.as_deref() == Some(&name))
                    || report.row == "torn";
                // The zeros that align records are nobody's.
                *rows.entry((report.row, covered)).or_insert(0) += 1;
            }
            check(&without(&image, &[&name]), &format!("{name} lost"));
        }
    }
    let unsaid: usize = rows.iter().filter(|((_, said), _)| !said).map(|(_, count)| count).sum();
    let all: usize = rows.values().sum();
    assert!(all > 1_500 && unsaid * 50 < all, "{rows:?}");
    for row in ["clean", "torn", "a later record", "a synced batch"] {
        assert!(rows.contains_key(&(row, true)), "{row} was never met: {rows:?}");
    }
}

/// What a crash leaves is no damage.
#[test]
fn crashes() {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    with_snapshots().iter().for_each(|step| run(&mut opened.storage, step).unwrap());
    let (mut torn, mut all) = (0, 0);
    for prefix in 0..=disk.operations().len() {
        for fate in
            [Fate::Kept, Fate::Dropped, Fate::FirstSectors(1), Fate::FirstBytes(100), Fate::Sectors(2)]
        {
            let image = disk.crash(prefix, |_| fate);
            let text = format!("{fate:?} of what was not synced of {prefix} operations");
            let report = check(&image, &text);
            torn += usize::from(report.verdict == Verdict::Truncate);
            all += 1;
            let damage: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
            // A copy of the manifest that was being written is the one thing that can't be told from damage.
            assert!(damage.iter().all(|words| words.starts_with("manifest-")), "{text}: {damage:?}");
        }
    }
    assert!(torn >= 5 && all > 200, "{torn} of {all}");
}

/// A manifest from before a truncation knows nothing of it: what was handed out decides then, at a start, and here.
#[test]
fn an_older_manifest() {
    let before = written(&[identify(), append(entries(1, 1..=6, 10))]);
    let mut image = written(&[
        identify(),
        append(entries(1, 1..=6, 10)),
        replace(id(term(1), index(3)), entries(2, 4..=5, 10)),
    ]);
    for name in ["manifest-0", "manifest-1"] {
        *image.file_mut(name) = before.file(name).to_vec();
    }
    let report = check(&image, "an older manifest");
    assert_eq!((report.verdict, report.log_last), (Verdict::Abstain, id(term(1), index(6))), "{report:#?}");
}

#[test]
fn records_and_their_standing() {
    let image = written(&log());
    let standing = |image: &Image, wanted: Index| -> Vec<(u64, Standing)> {
        let (_, records) = look(image, "records").unwrap();
        let entries = records.iter().filter(|record| matches!(record.kind, RecordKind::Entry(_)));
        let wanted = entries.filter(|record| record.id.index == wanted);
        wanted.map(|record| (record.id.term.0, record.standing)).collect()
    };
    assert_eq!(standing(&image, index(4)), [(1, Standing::Replaced), (2, Standing::Served)]);
    let (_, records) = look(&image, "records").unwrap();
    let kinds: Vec<String> = records.iter().map(|record| record.kind.to_string()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "truncate-after").count(), 1);
    assert_eq!(kinds.iter().filter(|kind| *kind == "trailer").count(), 4, "one for each batch: {kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "no-op").count(), 1);
    // Behind damage they are found all the same, and said not to be served.
    let first = &names(&image, "log-")[0];
    let damaged = flipped(&image, first, 64 + 64 + 3);
    assert_eq!(standing(&damaged, index(1)), [(1, Standing::NotServed)]);
    let (_, records) = look(&damaged, "records").unwrap();
    let whole: Vec<bool> = records.iter().map(|record| record.payload.is_some()).collect();
    assert!(!whole[0] && whole[1..].iter().all(|whole| *whole), "{records:?}");
    let headerless = flipped(&image, first, 64 + 3);
    assert_eq!(standing(&headerless, index(1)), []);
    assert_eq!(standing(&headerless, index(10)), [(2, Standing::NotServed)]);
    // An entry that was taken back and written again the same.
    let twice = written(&[
        identify(),
        append(entries(1, 1..=4, 10)),
        replace(id(term(1), index(2)), entries(1, 3..=4, 10)),
    ]);
    assert_eq!(standing(&twice, index(4)), [(1, Standing::Replaced), (1, Standing::Served)]);
    let torn = without(&image, &["mark"]);
    let last = names(&torn, "log-").pop().unwrap();
    let torn = flipped(&torn, &last, used(&torn, &last) - 1);
    assert_eq!(standing(&torn, index(10)), [(2, Standing::Torn)]);
}

#[test]
fn a_range_of_records() {
    let disk = CrashDisk::new(written(&log()));
    let mut inspection = Inspection::of(Box::new(disk)).unwrap();
    let mut seen = Vec::new();
    inspection.records(index(5), index(6), &mut |record| seen.push(record.id.index.0)).unwrap();
    // The trailer of a batch names its last entry.
    assert_eq!(seen, [5, 6, 6]);
}
