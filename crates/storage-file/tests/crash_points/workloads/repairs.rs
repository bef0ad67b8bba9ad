//! Damage, abstention, and what a leader gives again (D4).

use atomix_protocol::{Entry, EntryId};

use crate::acts::{Act, Begin, Workload, after, entries, steps, workload};
use crate::crash_disk::workload::{Step, abstain, append, id, identify, index, replace, term, vote};
use crate::crash_disk::{Fate, Image};

pub(crate) fn all() -> Vec<Workload> {
    let of = |name, begin: Begin, acts: Vec<Act>| Workload { begin, ..workload(name, acts) };
    let hole_repair = || repair(hole().model.last());
    vec![
        of("repair of a hole", hole(), hole_repair()),
        Workload { prepares: true, ..of("repair of a hole, and prepared segments", hole(), hole_repair()) },
        of("repair of a hole with a snapshot", hole(), by_snapshot()),
        of("repair of a hole while leaders change", hole(), leaders_change()),
        of("repair of a repair", hole_in_a_repair(), repair(hole_in_a_repair().model.last())),
        of("repair of the end", damaged_end(), end()),
        of("repair of a lost segment", lost_segment(), repair(EntryId::ZERO)),
        of("repair of a lost snapshot", lost_snapshot(), again()),
        of("repair of a lost snapshot entry by entry", lost_snapshot(), entry_by_entry()),
    ]
}

pub(crate) fn log() -> Vec<Step> {
    vec![
        identify(),
        vote(term(1)),
        append(entries(1, 1..=4, 61)),
        append(entries(1, 5..=6, 100)),
        append(entries(2, 7..=9, 120)),
        append(entries(2, 10..=11, 200)),
    ]
}

/// What the leader has from there on.
fn behind(after: EntryId) -> Vec<Entry> {
    let all = [entries(1, 1..=6, 50), entries(2, 7..=11, 130)].concat();
    all.into_iter().filter(|entry| entry.id.index > after.index).collect()
}

/// A directory after some steps and then some damage.
fn damaged(steps: &[Step], damage: impl FnOnce(&mut Image)) -> Begin {
    let mut image = after(&Begin::default(), steps).image();
    damage(&mut image);
    abstaining(image)
}

fn abstaining(image: Image) -> Begin {
    let begin = Begin::with(image);
    assert!(begin.model.recovered.abstention.is_some());
    begin
}

fn segment(image: &Image, place: usize) -> String {
    image.names().into_iter().filter(|name| name.starts_with("log-")).nth(place).unwrap()
}

fn newest_segment(image: &Image) -> String {
    image.names().into_iter().rfind(|name| name.starts_with("log-")).unwrap()
}

/// The second batch of entries is bad, and what comes before and after it is not.
pub(crate) fn hole() -> Begin {
    let hole = damaged(&log(), |image| {
        let name = segment(image, 1);
        image.file_mut(&name)[200] ^= 1;
    });
    assert_eq!(hole.model.last(), id(term(1), index(4)));
    hole
}

/// The last batch of entries is bad, and its mark is there.
fn damaged_end() -> Begin {
    damaged(&log(), |image| {
        let name = newest_segment(image);
        let last = image.file(&name).iter().rposition(|byte| *byte != 0).unwrap();
        image.file_mut(&name)[last] ^= 1;
    })
}

fn lost_segment() -> Begin {
    damaged(&log(), |image| image.remove(&segment(image, 0)))
}

fn lost_snapshot() -> Begin {
    let mut steps = log();
    steps.extend([Step::Publish(id(term(2), index(8))), Step::Compact(index(8))]);
    damaged(&steps, |image| image.remove("snapshot-0000000000000008-0000000000000002.snap"))
}

/// What was repaired is damaged again, while what was damaged first is still kept.
fn hole_in_a_repair() -> Begin {
    let first = hole();
    let rest = behind(first.model.last());
    let (some, others) = rest.split_at(3);
    let steps = [replace(first.model.last(), some.to_vec()), append(others.to_vec())];
    let mut image = after(&first, &steps).image();
    let newest = newest_segment(&image);
    let last = image.file(&newest).iter().rposition(|byte| *byte != 0).unwrap();
    image.file_mut(&newest)[last / 2] ^= 1;
    let begin = abstaining(image);
    assert!(begin.model.last().index.0 < 11);
    begin
}

/// In two parts, and then it goes on.
fn repair(after: EntryId) -> Vec<Act> {
    let rest = behind(after);
    let (some, others) = rest.split_at(3);
    let mut acts = steps([replace(after, some.to_vec()), append(others.to_vec())]);
    acts.extend([Act::Restart, Act::Do(abstain(None)), Act::Do(append(entries(3, 12..=13, 250)))]);
    acts.extend([Act::Do(append(entries(3, 14..=15, 300))), Act::Restart]);
    acts
}

/// The leader has compacted its log.
fn by_snapshot() -> Vec<Act> {
    vec![
        Act::Do(Step::Publish(id(term(3), index(15)))),
        Act::Restart,
        Act::Do(append(entries(3, 16..=17, 130))),
        Act::Do(abstain(None)),
        Act::Restart,
        Act::Do(append(entries(3, 18..=19, 300))),
        Act::Do(Step::Publish(id(term(3), index(18)))),
        Act::Do(Step::Compact(index(18))),
        Act::Do(append(entries(3, 20..=20, 300))),
    ]
}

/// Each takes back what the one before has given.
fn leaders_change() -> Vec<Act> {
    let last = hole().model.last();
    let next = last.index.0 + 1;
    vec![
        Act::Do(replace(last, entries(2, next..=next + 2, 90))),
        Act::Do(vote(term(4))),
        Act::Do(replace(last, entries(4, next..=next + 1, 200))),
        Act::Restart,
        Act::Do(replace(id(term(4), index(next)), entries(5, next + 1..=11, 40))),
        Act::Do(replace(EntryId::ZERO, entries(6, 1..=4, 150))),
        Act::Restart,
        Act::Do(append(entries(6, 5..=11, 20))),
        Act::Do(abstain(None)),
        Act::Restart,
    ]
}

fn end() -> Vec<Act> {
    let last = damaged_end().model.last();
    vec![
        Act::Do(replace(last, entries(2, last.index.0 + 1..=11, 40))),
        Act::Restart,
        Act::Do(abstain(None)),
        Act::Do(append(entries(3, 12..=13, 250))),
        Act::Restart,
    ]
}

fn again() -> Vec<Act> {
    let mut again = steps([
        Step::Publish(id(term(3), index(20))),
        replace(id(term(3), index(20)), entries(3, 21..=22, 20)),
    ]);
    again.extend([
        Act::Restart,
        Act::Do(abstain(None)),
        Act::Do(append(entries(3, 23..=24, 400))),
        Act::Restart,
    ]);
    again
}

fn entry_by_entry() -> Vec<Act> {
    vec![
        Act::Do(append(entries(1, 1..=3, 30))),
        Act::Restart,
        Act::Do(append([entries(1, 4..=6, 30), entries(2, 7..=7, 30)].concat())),
        Act::Restart,
        Act::Do(append(entries(2, 8..=12, 100))),
        Act::Do(abstain(None)),
        Act::Restart,
    ]
}

/// A power cut in the middle of a repair, which is torn.
pub(crate) fn broken_off() -> Begin {
    let first = hole();
    let disk = after(&first, &[replace(first.model.last(), behind(first.model.last()))]);
    let write = super::starts::last_log_write(&disk);
    abstaining(
        disk.crash(write + 1, |number| if number == write { Fate::FirstBytes(300) } else { Fate::Kept }),
    )
}
