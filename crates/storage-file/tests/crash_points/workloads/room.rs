//! Disks that get full, and room that comes back.

use super::repairs::hole;
use crate::acts::{Act, Begin, Workload, after, both, entries, workload};
use crate::crash_disk::workload::{Step, abstain, append, id, identify, index, replace, term, vote};

pub(crate) fn all() -> Vec<Workload> {
    let lost_copy = Workload { begin: lost_copy(), full: true, ..workload("a start on a full disk", owed()) };
    let damaged = Workload {
        begin: damaged_and_lost_copy(),
        full: true,
        ..workload("a start on a full disk with damage", owed_abstention())
    };
    vec![
        workload("the reserve", reserve()),
        workload("the reserve, twice", twice()),
        workload("a full disk with snapshots", older_snapshot()),
        workload("no room for a snapshot", no_snapshot()),
        lost_copy,
        damaged,
        Workload { begin: hole(), ..workload("a full disk in a repair", repair()) },
    ]
}

fn reserve() -> Vec<Act> {
    let third = append(entries(1, 3..=3, 500));
    vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=1, 500))),
        Act::Fill(true),
        Act::Do(append(entries(1, 2..=2, 500))),
        Act::HasRoom(false),
        Act::Do(vote(term(3))),
        Act::Refused(third),
        Act::Restart,
        Act::Refused(both(4, 3..=3, 500)),
        Act::Fill(false),
        Act::Do(both(4, 3..=3, 500)),
        Act::HasRoom(true),
    ]
}

fn twice() -> Vec<Act> {
    vec![
        Act::Do(both(1, 1..=1, 700)),
        Act::Fill(true),
        Act::Do(append(entries(1, 2..=2, 700))),
        Act::HasRoom(false),
        Act::Fill(false),
        Act::HasRoom(true),
        Act::Fill(true),
        Act::Do(append(entries(1, 3..=3, 700))),
        Act::HasRoom(false),
        Act::Refused(replace(id(term(1), index(2)), entries(2, 3..=3, 700))),
        Act::Fill(false),
        Act::Do(replace(id(term(1), index(2)), entries(2, 3..=3, 700))),
    ]
}

/// The older snapshot goes, and the segment that only it needed becomes the reserve: nobody compacts again before there is room.
fn older_snapshot() -> Vec<Act> {
    vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=2, 350))),
        Act::Do(append(entries(1, 3..=4, 350))),
        Act::Do(Step::Publish(id(term(1), index(3)))),
        Act::Do(Step::Publish(id(term(1), index(4)))),
        Act::Do(Step::Compact(index(4))),
        Act::Fill(true),
        Act::Do(append(entries(1, 5..=5, 700))),
        Act::Do(append(entries(1, 6..=6, 700))),
        Act::HasRoom(true),
        Act::Do(append(entries(1, 7..=7, 700))),
        Act::HasRoom(false),
    ]
}

/// What was begun of it is gone, and the log goes on.
fn no_snapshot() -> Vec<Act> {
    vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=3, 150))),
        Act::Fill(true),
        Act::Refused(Step::Publish(id(term(1), index(2)))),
        Act::Do(append(entries(1, 4..=4, 150))),
        Act::Do(append(entries(1, 5..=5, 400))),
        Act::Refused(Step::Publish(id(term(1), index(4)))),
        Act::Fill(false),
        Act::Do(Step::Publish(id(term(1), index(4)))),
        Act::Do(Step::Compact(index(4))),
        Act::Do(append(entries(2, 6..=7, 300))),
        Act::HasRoom(true),
    ]
}

fn lost_copy() -> Begin {
    let steps = [identify(), vote(term(2)), append(entries(1, 1..=3, 90)), append(entries(2, 4..=4, 300))];
    let mut image = after(&Begin::default(), &steps).image();
    image.remove("manifest-1");
    Begin::with(image)
}

/// A copy of the manifest that there is no room for: nothing is written without it.
fn owed() -> Vec<Act> {
    vec![
        Act::HasRoom(false),
        Act::Refused(append(entries(2, 5..=5, 10))),
        Act::Restart,
        Act::Fill(false),
        Act::Do(append(entries(2, 5..=5, 10))),
        Act::HasRoom(true),
        Act::Do(vote(term(3))),
        Act::Restart,
    ]
}

fn damaged_and_lost_copy() -> Begin {
    let mut image = hole().image;
    image.remove("manifest-0");
    let begin = Begin::with(image);
    assert!(begin.model.recovered.abstention.is_some());
    begin
}

/// Abstention that there is no room for: nothing is repaired before it is durable.
fn owed_abstention() -> Vec<Act> {
    let rest = || replace(id(term(1), index(4)), [entries(1, 5..=6, 50), entries(2, 7..=11, 130)].concat());
    vec![
        Act::HasRoom(false),
        Act::Refused(rest()),
        Act::Restart,
        Act::Refused(rest()),
        Act::Fill(false),
        Act::Do(rest()),
        Act::HasRoom(true),
        Act::Do(abstain(None)),
        Act::Restart,
        Act::Do(append(entries(3, 12..=12, 200))),
    ]
}

fn repair() -> Vec<Act> {
    let last = hole().model.last();
    let some = || entries(1, last.index.0 + 1..=6, 50);
    vec![
        Act::Fill(true),
        Act::Do(replace(last, some())),
        Act::HasRoom(false),
        Act::Refused(append(entries(2, 7..=11, 180))),
        Act::Restart,
        Act::Refused(append(entries(2, 7..=11, 180))),
        Act::Fill(false),
        Act::Do(append(entries(2, 7..=11, 180))),
        Act::HasRoom(true),
        Act::Do(abstain(None)),
        Act::Restart,
        Act::Do(append(entries(3, 12..=12, 200))),
    ]
}
