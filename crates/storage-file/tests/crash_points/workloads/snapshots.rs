//! Snapshots, compaction, and segments that are used again.

use crate::acts::{Act, Begin, Workload, after, entries, steps, workload};
use crate::crash_disk::workload::{Step, append, id, identify, index, replace, term};

pub(crate) fn all() -> Vec<Workload> {
    let prepared = Workload { prepares: true, ..workload("recycled and prepared segments", recycled()) };
    vec![
        workload("snapshots and compaction", steps(compacted())),
        workload("installed snapshots", steps(installed())),
        workload("installed snapshots and restarts", installed_and_restarted()),
        workload("recycled segments", recycled()),
        prepared,
        workload("recycled segments and truncations", recycled_and_truncated()),
        workload("the same snapshot again", again()),
        Workload { begin: rotten(), ..workload("the newer of two snapshots is rotten", fallen_back()) },
    ]
}

fn compacted() -> Vec<Step> {
    vec![
        identify(),
        append(entries(1, 1..=3, 300)),
        Step::Publish(id(term(1), index(2))),
        append(entries(1, 4..=6, 300)),
        Step::Compact(index(2)),
        Step::Publish(id(term(1), index(5))),
        Step::Publish(id(term(1), index(6))),
        Step::Compact(index(6)),
        append(entries(1, 7..=9, 300)),
    ]
}

fn installed() -> Vec<Step> {
    vec![
        identify(),
        append(entries(1, 1..=3, 100)),
        Step::Publish(id(term(2), index(9))),
        replace(id(term(2), index(9)), Vec::new()),
        append(entries(2, 10..=11, 100)),
        Step::Publish(id(term(3), index(11))),
        replace(id(term(3), index(11)), Vec::new()),
        append(entries(3, 12..=12, 100)),
    ]
}

/// The log is emptied by the start after the crash, not by consensus.
fn installed_and_restarted() -> Vec<Act> {
    vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=2, 350))),
        Act::Do(append(entries(1, 3..=4, 350))),
        Act::Do(Step::Publish(id(term(2), index(9)))),
        Act::Restart,
        Act::Do(append(entries(2, 10..=11, 100))),
        Act::Do(Step::Compact(index(9))),
        Act::Do(Step::Publish(id(term(3), index(11)))),
        Act::Restart,
        Act::Restart,
        Act::Do(append(entries(3, 12..=12, 100))),
    ]
}

/// From the sixth on, segments are begun in files that were the log before.
fn recycled() -> Vec<Act> {
    let mut acts = steps([
        identify(),
        append(entries(1, 1..=2, 350)),
        append(entries(1, 3..=4, 350)),
        Step::Publish(id(term(1), index(3))),
        Step::Publish(id(term(1), index(4))),
        Step::Compact(index(4)),
        append(entries(1, 5..=5, 900)),
        append(entries(1, 6..=8, 100)),
    ]);
    acts.extend([
        Act::Restart,
        Act::Do(Step::Publish(id(term(1), index(6)))),
        Act::Do(Step::Compact(index(6))),
    ]);
    acts.push(Act::Do(append(entries(1, 9..=10, 330))));
    acts
}

/// What stood in the file before were the same indexes, in earlier terms.
fn recycled_and_truncated() -> Vec<Act> {
    steps([
        identify(),
        append(entries(1, 1..=2, 350)),
        append(entries(1, 3..=6, 140)),
        Step::Publish(id(term(1), index(2))),
        Step::Publish(id(term(1), index(3))),
        replace(id(term(1), index(4)), entries(2, 5..=6, 200)),
        Step::Compact(index(3)),
        replace(id(term(1), index(3)), entries(3, 4..=7, 140)),
        append(entries(3, 8..=8, 60)),
        replace(id(term(3), index(7)), entries(4, 8..=9, 300)),
        Step::Publish(id(term(3), index(7))),
        Step::Compact(index(7)),
    ])
}

/// One that ends where the newest does takes its place.
fn again() -> Vec<Act> {
    vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=4, 150))),
        Act::Do(Step::Publish(id(term(1), index(3)))),
        Act::Do(Step::Publish(id(term(1), index(3)))),
        Act::Restart,
        Act::Do(Step::Publish(id(term(1), index(3)))),
        Act::Do(append(entries(2, 5..=6, 300))),
        Act::Do(Step::Publish(id(term(2), index(6)))),
        Act::Do(Step::Compact(index(6))),
        Act::Do(Step::Publish(id(term(2), index(6)))),
        Act::Do(append(entries(2, 7..=7, 20))),
    ]
}

/// The older snapshot and the log behind it hold everything.
fn rotten() -> Begin {
    let disk = after(
        &Begin::default(),
        &[
            identify(),
            append(entries(1, 1..=3, 250)),
            Step::Publish(id(term(1), index(2))),
            append(entries(1, 4..=6, 250)),
            Step::Publish(id(term(1), index(5))),
            Step::Compact(index(5)),
        ],
    );
    let mut image = disk.image();
    image.file_mut("snapshot-0000000000000005-0000000000000001.snap")[300] ^= 1;
    let begin = Begin::with(image);
    let snapshot = begin.model.recovered.snapshot.as_ref().map(|meta| meta.last);
    assert_eq!((snapshot, begin.model.log.len()), (Some(id(term(1), index(2))), 4));
    assert_eq!(begin.model.recovered.abstention, None);
    begin
}

fn fallen_back() -> Vec<Act> {
    vec![
        Act::Do(append(entries(2, 7..=8, 200))),
        Act::Restart,
        Act::Do(Step::Publish(id(term(2), index(7)))),
        Act::Do(Step::Compact(index(7))),
        Act::Do(append(entries(2, 9..=9, 500))),
        Act::Restart,
        Act::Do(Step::Publish(id(term(2), index(9)))),
        Act::Do(Step::Compact(index(9))),
        Act::Do(append(entries(3, 10..=11, 200))),
    ]
}
