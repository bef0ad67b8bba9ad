//! Starts with what a power cut, or damage that costs nothing, left: each disk operation of the recovery is a crash point too.

use atomix_protocol::EntryId;

use super::repairs::broken_off;
use crate::acts::{Act, Begin, Workload, after, both, entries, workload};
use crate::crash_disk::workload::{Step, abstain, append, id, identify, index, replace, term, vote};
use crate::crash_disk::{CrashDisk, Fate, Image, Operation};

pub(crate) fn all() -> Vec<Workload> {
    let of = |name, begin: Begin, acts: Vec<Act>| Workload { begin, ..workload(name, acts) };
    vec![
        of("a start with a torn batch", torn(Fate::Sectors(1)), goes_on()),
        of("a start with a batch that lost its first sector", torn(Fate::Sectors(!1)), goes_on()),
        of("a start with a torn segment", torn_segment(Fate::FirstBytes(200)), goes_on()),
        of("a start with a segment that lost its head", torn_segment(Fate::Sectors(!1)), goes_on()),
        of("a start with a snapshot that the log does not reach", apart(), behind_a_snapshot()),
        of("a start in the middle of a compaction", half_compacted(), behind_a_compaction()),
        of("a start in the middle of a repair", broken_off(), repairs()),
        of("a start with a torn first copy of the manifest", torn_copy(1), votes()),
        of("a start with a torn second copy of the manifest", torn_copy(3), votes()),
        of("a start without the first copy of the manifest", without("manifest-0"), votes()),
        of("a start without the second copy of the manifest", without("manifest-1"), votes()),
        of("a start without the mark", without("mark"), goes_on()),
    ]
}

fn log() -> Vec<Step> {
    vec![identify(), vote(term(1)), append(entries(1, 1..=2, 70)), append(entries(1, 3..=5, 120))]
}

/// The last write of records.
pub(crate) fn last_log_write(disk: &CrashDisk) -> usize {
    let small = |bytes: &[u8]| bytes.len() <= 64 || bytes.starts_with(b"ATOMIXMF");
    let records = |done: &Operation| matches!(done, Operation::Write { bytes, .. } if !small(bytes));
    disk.operations().iter().rposition(records).unwrap()
}

/// With everything kept up to an operation, and that one with a fate.
fn crashed_at(disk: &CrashDisk, number: usize, fate: Fate) -> Image {
    disk.crash(number + 1, |pending| if pending == number { fate } else { Fate::Kept })
}

fn torn(fate: Fate) -> Begin {
    let disk = after(&Begin::default(), &log());
    let begin = Begin::with(crashed_at(&disk, last_log_write(&disk), fate));
    assert_eq!(begin.model.last(), id(term(1), index(2)));
    begin
}

fn torn_segment(fate: Fate) -> Begin {
    let mut steps = log();
    steps.push(append(entries(1, 6..=8, 200)));
    let disk = after(&Begin::default(), &steps);
    let begin = Begin::with(crashed_at(&disk, last_log_write(&disk), fate));
    assert_eq!(begin.model.last(), id(term(1), index(5)));
    begin
}

/// A copy of the manifest that was being written when so many operations of a vote were done: there are a write and a sync of each copy.
fn torn_copy(operations: usize) -> Begin {
    let disk = after(&Begin::default(), &log());
    let before = disk.operations().len();
    let disk = {
        let mut steps = log();
        steps.push(vote(term(6)));
        after(&Begin::default(), &steps)
    };
    let torn = before + operations - 1;
    let copy =
        matches!(&disk.operations()[torn], Operation::Write { bytes, .. } if bytes.starts_with(b"ATOMIXMF"));
    assert!(copy, "{:?}", disk.operations()[torn]);
    let begin = Begin::with(crashed_at(&disk, torn, Fate::FirstBytes(66)));
    assert_eq!(begin.model.recovered.hard_state.term, term(if operations == 1 { 1 } else { 6 }));
    begin
}

fn without(name: &str) -> Begin {
    let mut image = after(&Begin::default(), &log()).image();
    image.remove(name);
    let begin = Begin::with(image);
    assert_eq!((begin.model.last(), begin.model.recovered.abstention), (id(term(1), index(5)), None));
    begin
}

/// An installed snapshot was published, and the log not emptied.
fn apart() -> Begin {
    let mut steps = log();
    steps.push(Step::Publish(id(term(3), index(20))));
    let begin = Begin::with(after(&Begin::default(), &steps).image());
    assert!(begin.model.log.is_empty());
    begin
}

/// One of two segments that nothing needs any more is gone.
fn half_compacted() -> Begin {
    let steps = [
        identify(),
        append(entries(1, 1..=2, 350)),
        append(entries(1, 3..=4, 350)),
        append(entries(1, 5..=6, 350)),
        Step::Publish(id(term(1), index(5))),
        Step::Compact(index(5)),
    ];
    let disk = after(&Begin::default(), &steps);
    let retired = |done: &Operation| {
        matches!(done, Operation::Rename { to, .. } if to == "spare.seg")
            || matches!(done, Operation::Remove { name } if name.starts_with("log-"))
    };
    let first = disk.operations().iter().position(retired).unwrap();
    assert_eq!(disk.operations().iter().filter(|done| retired(done)).count(), 2);
    Begin::with(crashed_at(&disk, first, Fate::Kept))
}

/// Whatever it began with: votes, entries, a truncation, a snapshot.
fn goes_on() -> Vec<Act> {
    vec![
        Act::Do(vote(term(7))),
        Act::Do(replace(id(term(1), index(2)), entries(7, 3..=4, 130))),
        Act::Restart,
        Act::Do(both(8, 5..=6, 300)),
        Act::Do(Step::Publish(id(term(7), index(4)))),
        Act::Do(Step::Compact(index(4))),
        Act::Do(append(entries(8, 7..=7, 30))),
        Act::Restart,
        Act::Do(replace(id(term(8), index(6)), Vec::new())),
    ]
}

fn votes() -> Vec<Act> {
    vec![Act::Do(vote(term(7))), Act::Restart, Act::Do(both(8, 6..=6, 500))]
}

fn behind_a_snapshot() -> Vec<Act> {
    vec![
        Act::Do(append(entries(3, 21..=23, 100))),
        Act::Restart,
        Act::Do(replace(id(term(3), index(21)), entries(4, 22..=22, 500))),
        Act::Do(Step::Compact(index(20))),
        Act::Do(append(entries(4, 23..=24, 300))),
    ]
}

fn behind_a_compaction() -> Vec<Act> {
    vec![
        Act::Do(Step::Compact(index(5))),
        Act::Do(append(entries(2, 7..=8, 300))),
        Act::Restart,
        Act::Do(Step::Publish(id(term(2), index(8)))),
        Act::Do(Step::Compact(index(8))),
        Act::Do(append(entries(2, 9..=9, 700))),
    ]
}

fn repairs() -> Vec<Act> {
    vec![
        Act::Do(replace(EntryId::ZERO, entries(1, 1..=6, 45))),
        Act::Restart,
        Act::Do(append(entries(2, 7..=11, 100))),
        Act::Do(abstain(None)),
        Act::Restart,
        Act::Do(append(entries(3, 12..=13, 300))),
    ]
}
