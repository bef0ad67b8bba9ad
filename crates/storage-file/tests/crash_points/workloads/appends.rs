//! Batches of all kinds, and restarts between.

use atomix_protocol::EntryId;

use crate::acts::{Act, Workload, both, entries, steps, workload};
use crate::crash_disk::workload::{
    Step, abstain, append, configure, id, identify, index, populate, replace, term, vote,
};

pub(crate) fn all() -> Vec<Workload> {
    let prepared = Workload { prepares: true, ..workload("prepared segments", steps(growing())) };
    vec![
        workload("appending", steps(growing())),
        prepared,
        workload("batches longer than a segment", steps(long())),
        workload("all kinds of state", steps(fields())),
        workload("a manifest of several sectors", populated()),
        workload("truncating", steps(truncated())),
        workload("truncating over the edges of segments", far()),
        workload("restarts", restarts()),
        Workload { prepares: true, ..workload("restarts and prepared segments", restarts()) },
        workload("many batches", steps(many())),
    ]
}

fn growing() -> Vec<Step> {
    vec![
        identify(),
        vote(term(1)),
        append(entries(1, 1..=1, 0)),
        append(entries(1, 2..=3, 100)),
        append(entries(1, 4..=4, 500)),
        append(entries(1, 5..=9, 61)),
    ]
}

fn long() -> Vec<Step> {
    vec![
        identify(),
        append(entries(1, 1..=3, 900)),
        append(entries(1, 4..=6, 40)),
        append(entries(1, 7..=8, 1_500)),
        append(entries(1, 9..=9, 10)),
    ]
}

fn fields() -> Vec<Step> {
    vec![
        identify(),
        configure(index(0)),
        abstain(Some(index(4))),
        append(entries(1, 1..=2, 400)),
        vote(term(2)),
        both(3, 3..=4, 400),
        abstain(None),
        configure(index(4)),
        both(4, 5..=7, 300),
    ]
}

/// Half of a copy may be new, and half old.
fn populated() -> Vec<Act> {
    let mut acts = steps([
        identify(),
        populate(index(0), 3),
        vote(term(1)),
        append(entries(1, 1..=2, 40)),
        populate(index(2), 7),
        both(2, 3..=3, 700),
        populate(index(3), 5),
    ]);
    acts.extend([Act::Restart, Act::Do(both(3, 4..=5, 90)), Act::Do(populate(index(5), 7))]);
    acts
}

fn truncated() -> Vec<Step> {
    vec![
        identify(),
        append(entries(1, 1..=4, 100)),
        replace(id(term(1), index(2)), entries(2, 3..=5, 60)),
        replace(id(term(2), index(4)), Vec::new()),
        append(entries(3, 5..=6, 300)),
        replace(id(term(1), index(1)), entries(4, 2..=2, 10)),
        append(entries(4, 3..=5, 290)),
    ]
}

/// What is truncated lies in segments before, up to the very first entry.
fn far() -> Vec<Act> {
    let mut acts = steps([
        identify(),
        append(entries(1, 1..=2, 300)),
        append(entries(1, 3..=4, 300)),
        append(entries(1, 5..=6, 300)),
        replace(id(term(1), index(3)), entries(2, 4..=6, 100)),
        replace(id(term(1), index(1)), Vec::new()),
    ]);
    acts.extend([
        Act::Restart,
        Act::Do(append(entries(3, 2..=5, 150))),
        Act::Do(replace(EntryId::ZERO, entries(4, 1..=2, 30))),
        Act::Restart,
        Act::Do(replace(EntryId::ZERO, Vec::new())),
        Act::Do(append(entries(5, 1..=3, 250))),
    ]);
    acts
}

fn restarts() -> Vec<Act> {
    vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=2, 200))),
        Act::Restart,
        Act::Do(append(entries(1, 3..=4, 200))),
        Act::Do(append(entries(1, 5..=5, 30))),
        Act::Restart,
        Act::Do(replace(id(term(1), index(4)), entries(2, 5..=6, 400))),
        Act::Restart,
    ]
}

/// The mark of each is never synced.
fn many() -> Vec<Step> {
    let mut many = vec![identify()];
    many.extend((1..=10).map(|at| append(entries(1 + at / 4, at..=at, 17 * at as usize % 90))));
    many
}
