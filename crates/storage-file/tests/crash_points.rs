//! Crash points, counted: small workloads, a power cut after every prefix of their disk operations, every fate of what was not synced.
//!
//! A workload is at most twelve operations: calls of the storage (a batch, a snapshot, a compaction, a look for room), restarts, and a disk
//! that gets full or empty. Each makes a few disk operations (create, write, rename, remove, sync a file, sync names). The machine loses
//! power after each of them. What was not synced by then is kept, dropped, torn at a sector or torn at a byte, in every combination for the
//! last three, and all kept or all dropped before those.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use atomix_protocol::{Entry, WriteBatch};
use atomix_storage::{Recovered, Storage, StorageError};
use crash_disk::workload::{
    Model, Step, abstain, append, configure, entry, id, identify, index, replace, run, term, vote,
};
use crash_disk::{CrashDisk, CrashPoint, Fate, Image, Opened, Operation, open};

/// Operations that are not durable, the last ones, of which every combination of fates is tried.
const COMBINED: usize = 3;
/// Most operations of a workload.
const ACTS: usize = 12;
/// Images that are wanted at least.
const IMAGES: usize = 100_000;
const SEGMENT: u64 = 1_024;

#[derive(Clone, Debug)]
enum Act {
    Do(Step),
    /// There is no room for it, and it changes nothing.
    Refused(Step),
    Restart,
    Fill(bool),
    HasRoom(bool),
}

struct Workload {
    name: &'static str,
    /// What the directory holds at first, and what is found in it.
    begin: (Image, Model),
    acts: Vec<Act>,
    /// Whether segments are made in the background.
    prepares: bool,
}

fn workload(name: &'static str, acts: Vec<Act>) -> Workload {
    Workload { name, begin: (Image::default(), Model::default()), acts, prepares: false }
}

fn steps(steps: impl IntoIterator<Item = Step>) -> Vec<Act> {
    steps.into_iter().map(Act::Do).collect()
}

fn entries(of: u64, indexes: RangeInclusive<u64>, length: usize) -> Vec<Entry> {
    indexes.map(|at| entry(term(of), index(at), length)).collect()
}

/// Vote and entries in one batch.
fn both(of: u64, indexes: RangeInclusive<u64>, length: usize) -> Step {
    let (Step::Write(voted), entries) = (vote(term(of)), entries(of, indexes, length)) else {
        unreachable!()
    };
    Step::Write(WriteBatch { entries, ..voted })
}

/// A directory after some steps and then some damage, and what is left of it.
fn damaged(steps: &[Step], damage: impl FnOnce(&mut Image)) -> (Image, Model) {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    steps.iter().for_each(|step| run(&mut opened.storage, step).unwrap());
    let mut image = disk.image();
    damage(&mut image);
    let Opened { recovered, entries, .. } = open(&CrashDisk::new(image.clone()), SEGMENT).unwrap();
    assert!(recovered.abstention.is_some() && !recovered.damage.is_empty(), "{recovered:?}");
    let base = recovered.snapshot.as_ref().map(|meta| meta.last).unwrap_or_default();
    (image, Model { recovered: Recovered { damage: Vec::new(), ..recovered }, base, log: entries })
}

fn segment(image: &Image, place: usize) -> String {
    image.names().into_iter().filter(|name| name.starts_with("log-")).nth(place).unwrap()
}

fn appends() -> Vec<Workload> {
    let growing = steps([
        identify(),
        vote(term(1)),
        append(entries(1, 1..=1, 0)),
        append(entries(1, 2..=3, 100)),
        append(entries(1, 4..=4, 500)),
        append(entries(1, 5..=9, 61)),
    ]);
    let long = steps([
        identify(),
        append(entries(1, 1..=3, 900)),
        append(entries(1, 4..=6, 40)),
        append(entries(1, 7..=8, 1_500)),
        append(entries(1, 9..=9, 10)),
    ]);
    let fields = steps([
        identify(),
        configure(index(0)),
        abstain(Some(index(4))),
        append(entries(1, 1..=2, 400)),
        vote(term(2)),
        both(3, 3..=4, 400),
        abstain(None),
        configure(index(4)),
        both(4, 5..=7, 300),
    ]);
    let truncated = steps([
        identify(),
        append(entries(1, 1..=4, 100)),
        replace(id(term(1), index(2)), entries(2, 3..=5, 60)),
        replace(id(term(2), index(4)), Vec::new()),
        append(entries(3, 5..=6, 300)),
        replace(id(term(1), index(1)), entries(4, 2..=2, 10)),
        append(entries(4, 3..=5, 290)),
    ]);
    let restarts = vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=2, 200))),
        Act::Restart,
        Act::Do(append(entries(1, 3..=4, 200))),
        Act::Do(append(entries(1, 5..=5, 30))),
        Act::Restart,
        Act::Do(replace(id(term(1), index(4)), entries(2, 5..=6, 400))),
        Act::Restart,
    ];
    let prepared = Workload { prepares: true, ..workload("prepared segments", growing.clone()) };
    vec![
        workload("appending", growing),
        prepared,
        workload("batches longer than a segment", long),
        workload("all kinds of state", fields),
        workload("truncating", truncated),
        workload("restarts", restarts),
    ]
}

fn snapshots() -> Vec<Workload> {
    let compacted = steps([
        identify(),
        append(entries(1, 1..=3, 300)),
        Step::Publish(id(term(1), index(2))),
        append(entries(1, 4..=6, 300)),
        Step::Compact(index(2)),
        Step::Publish(id(term(1), index(5))),
        Step::Publish(id(term(1), index(6))),
        Step::Compact(index(6)),
        append(entries(1, 7..=9, 300)),
    ]);
    let installed = steps([
        identify(),
        append(entries(1, 1..=3, 100)),
        Step::Publish(id(term(2), index(9))),
        replace(id(term(2), index(9)), Vec::new()),
        append(entries(2, 10..=11, 100)),
        Step::Publish(id(term(3), index(11))),
        replace(id(term(3), index(11)), Vec::new()),
        append(entries(3, 12..=12, 100)),
    ]);
    // From the sixth on, segments are begun in files that were the log before.
    let recycled = || {
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
    };
    let prepared = Workload { prepares: true, ..workload("recycled and prepared segments", recycled()) };
    vec![
        workload("snapshots and compaction", compacted),
        workload("installed snapshots", installed),
        workload("recycled segments", recycled()),
        prepared,
    ]
}

fn full_disks() -> Vec<Workload> {
    let third = append(entries(1, 3..=3, 500));
    let reserve = vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=1, 500))),
        Act::Fill(true),
        Act::Do(append(entries(1, 2..=2, 500))),
        Act::HasRoom(false),
        Act::Do(vote(term(3))),
        Act::Refused(third.clone()),
        Act::Restart,
        Act::Refused(both(4, 3..=3, 500)),
        Act::Fill(false),
        Act::Do(both(4, 3..=3, 500)),
        Act::HasRoom(true),
    ];
    let snapshots = vec![
        Act::Do(identify()),
        Act::Do(append(entries(1, 1..=2, 350))),
        Act::Do(append(entries(1, 3..=4, 350))),
        Act::Do(Step::Publish(id(term(1), index(3)))),
        Act::Do(Step::Publish(id(term(1), index(4)))),
        Act::Do(Step::Compact(index(4))),
        Act::Fill(true),
        Act::Do(append(entries(1, 5..=5, 700))),
        Act::Do(append(entries(1, 6..=6, 700))),
        // The older snapshot goes; the segment that only it needed becomes the reserve.
        Act::HasRoom(false),
        Act::Do(Step::Compact(index(4))),
        Act::HasRoom(true),
    ];
    vec![workload("the reserve", reserve), workload("a full disk with snapshots", snapshots)]
}

fn repairs() -> Vec<Workload> {
    let log = [
        identify(),
        vote(term(1)),
        append(entries(1, 1..=4, 61)),
        append(entries(1, 5..=6, 100)),
        append(entries(2, 7..=9, 120)),
        append(entries(2, 10..=11, 200)),
    ];
    let repair = |after: u64| {
        let all: Vec<Entry> = [entries(1, 1..=6, 50), entries(2, 7..=11, 130)].concat();
        let rest: Vec<Entry> = all.into_iter().filter(|entry| entry.id.index.0 > after).collect();
        let agree = if after == 0 { id(term(0), index(0)) } else { id(term(1), index(after)) };
        let (some, others) = rest.split_at(3);
        let mut acts = steps([replace(agree, some.to_vec()), append(others.to_vec())]);
        acts.extend([Act::Restart, Act::Do(abstain(None)), Act::Do(append(entries(3, 12..=13, 250)))]);
        acts.extend([Act::Do(append(entries(3, 14..=15, 300))), Act::Restart]);
        acts
    };
    let in_the_middle = damaged(&log, |image| {
        let name = segment(image, 0);
        image.file_mut(&name)[620] ^= 1;
    });
    let after = in_the_middle.1.last().index.0;
    let at_the_end = damaged(&log, |image| {
        let name = segment(image, 1);
        let last = image.file(&name).iter().rposition(|byte| *byte != 0).unwrap();
        image.file_mut(&name)[last] ^= 1;
    });
    let last = at_the_end.1.last();
    let lost = damaged(&log, |image| image.remove(&segment(image, 0)));
    let mut compacted = log.to_vec();
    compacted.extend([Step::Publish(id(term(2), index(8))), Step::Compact(index(8))]);
    let no_snapshot =
        damaged(&compacted, |image| image.remove("snapshot-0000000000000008-0000000000000002.snap"));
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
    let entry_by_entry = vec![
        Act::Do(append(entries(1, 1..=3, 30))),
        Act::Restart,
        Act::Do(append([entries(1, 4..=6, 30), entries(2, 7..=7, 30)].concat())),
        Act::Restart,
        Act::Do(append(entries(2, 8..=12, 100))),
        Act::Do(abstain(None)),
        Act::Restart,
    ];
    let end = vec![
        Act::Do(replace(last, entries(2, last.index.0 + 1..=11, 40))),
        Act::Restart,
        Act::Do(abstain(None)),
        Act::Do(append(entries(3, 12..=13, 250))),
        Act::Restart,
    ];
    vec![
        Workload { begin: in_the_middle, ..workload("repair of a hole", repair(after)) },
        Workload { begin: at_the_end, ..workload("repair of the end", end) },
        Workload { begin: lost, ..workload("repair of a lost segment", repair(0)) },
        Workload { begin: no_snapshot.clone(), ..workload("repair of a lost snapshot", again) },
        Workload {
            begin: no_snapshot,
            ..workload("repair of a lost snapshot entry by entry", entry_by_entry)
        },
    ]
}

/// What may be found from a number of disk operations on.
struct State {
    operations: usize,
    /// Whether that is so right then only: an operation has ended, and the next has not begun.
    settled: bool,
    allowed: Vec<Model>,
}

/// A workload that was run to its end.
struct Ran {
    disk: CrashDisk,
    states: Vec<State>,
}

fn ran(workload: &Workload) -> Ran {
    assert!(workload.acts.len() <= ACTS, "{}", workload.name);
    let (image, mut model) = workload.begin.clone();
    let disk = CrashDisk::new(image);
    if workload.prepares {
        disk.prepares();
    }
    let mut opened = open(&disk, SEGMENT).unwrap();
    let mut states = vec![State { operations: 0, settled: false, allowed: vec![model.clone()] }];
    for act in &workload.acts {
        let before = disk.operations().len();
        states.push(State { operations: before, settled: true, allowed: vec![model.clone()] });
        let mut allowed = vec![model.clone()];
        match act {
            Act::Do(step) => {
                let done = run(&mut opened.storage, step);
                done.unwrap_or_else(|error| panic!("{}: {step:?}: {error}", workload.name));
                allowed = model.prefixes(step);
                model.apply(step);
            }
            Act::Refused(step) => {
                let refused = run(&mut opened.storage, step);
                assert!(
                    matches!(refused, Err(StorageError::Full(_))),
                    "{}: {step:?}: {refused:?}",
                    workload.name
                );
                // What is not log may be there already: it comes again, with the rest.
                allowed = model.prefixes(step);
                allowed.pop();
                model = allowed.last().unwrap().clone();
            }
            Act::Restart => {
                drop(opened);
                opened = open(&disk, SEGMENT).unwrap();
                assert!(found(&model, &opened), "{}: {:?}, not {model:?}", workload.name, opened.recovered);
                model.restart();
            }
            Act::Fill(full) => disk.fill(*full),
            Act::HasRoom(room) => assert_eq!(opened.storage.has_room().unwrap(), *room, "{}", workload.name),
        }
        states.push(State { operations: before, settled: false, allowed });
    }
    states.push(State { operations: disk.operations().len(), settled: true, allowed: vec![model] });
    Ran { disk, states }
}

/// Whether that is what was found. While a server abstains, what a torn repair left may put its end off.
fn found(model: &Model, found: &Opened) -> bool {
    let put_off =
        found.recovered.abstention > model.recovered.abstention && !found.recovered.damage.is_empty();
    let mut model = model.clone();
    if model.recovered.abstention.is_some() && put_off {
        model.recovered.abstention = found.recovered.abstention;
    }
    model.is(found)
}

impl Ran {
    /// What may be found after so many disk operations.
    fn allowed(&self, prefix: usize) -> &[Model] {
        let settled = self.states.iter().rfind(|state| state.settled && state.operations == prefix);
        let under_way = || self.states.iter().rfind(|state| !state.settled && state.operations < prefix);
        &settled.or_else(under_way).unwrap_or(&self.states[0]).allowed
    }
}

/// What was tried, and what went wrong.
#[derive(Debug, Default)]
struct Tally {
    operations: usize,
    images: usize,
    /// Images of a crash in the recovery of another, or after a killed process was started again.
    second: usize,
    lost: usize,
    invented: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Opens an image, and compares what is found.
    fn check(
        &mut self,
        image: Image,
        allowed: &[Model],
        text: &dyn Fn() -> String,
    ) -> Option<(CrashDisk, Opened, Model)> {
        self.check_disk(CrashDisk::new(image), allowed, text)
    }

    fn check_disk(
        &mut self,
        disk: CrashDisk,
        allowed: &[Model],
        text: &dyn Fn() -> String,
    ) -> Option<(CrashDisk, Opened, Model)> {
        let opened = match open(&disk, SEGMENT) {
            Ok(opened) => opened,
            Err(error) => {
                self.wrong.push(format!("{}: {error}", text()));
                return None;
            }
        };
        if let Some(model) = allowed.iter().find(|model| found(model, &opened)) {
            let mut model = model.clone();
            model.recovered.abstention = opened.recovered.abstention;
            model.restart();
            return Some((disk, opened, model));
        }
        let keys =
            |entries: &[Entry]| entries.iter().map(|entry| format!("{entry:?}")).collect::<BTreeSet<_>>();
        let there = keys(&opened.entries);
        let models: Vec<_> = allowed.iter().map(|model| keys(&model.handed_out())).collect();
        self.lost += models[0]
            .iter()
            .filter(|key| models.iter().all(|held| held.contains(*key)) && !there.contains(*key))
            .count();
        self.invented += there.iter().filter(|key| !models.iter().any(|held| held.contains(*key))).count();
        self.wrong.push(format!(
            "{}: found {:?} {:?}, not one of {allowed:#?}",
            text(),
            opened.recovered,
            opened.entries
        ));
        None
    }
}

/// A number that looks random.
fn salt(of: usize) -> u64 {
    let mixed = (of as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}

/// Every combination of fates at a moment.
fn each_image(point: &CrashPoint, seed: usize, mut check: impl FnMut(Image, &dyn Fn() -> String)) {
    let (pending, combined) = (point.pending.len(), point.pending.len().min(COMBINED));
    let fates: Vec<Vec<Fate>> =
        (pending - combined..pending).map(|place| point.fates(place, salt(seed + place))).collect();
    let combinations: usize = fates.iter().map(Vec::len).product();
    let older: &[Fate] = if pending > combined { &[Fate::Kept, Fate::Dropped] } else { &[Fate::Kept] };
    for older in older {
        for combination in 0..combinations {
            let mut rest = combination;
            let mut chosen = vec![*older; pending - combined];
            for fates in &fates {
                chosen.push(fates[rest % fates.len()]);
                rest /= fates.len();
            }
            check(point.image(|place| chosen[place]), &|| format!("{chosen:?}"));
        }
    }
}

/// Every crash of a workload.
fn crashes(workload: &Workload) -> Tally {
    let ran = ran(workload);
    let mut tally = Tally { operations: ran.disk.operations().len(), ..Tally::default() };
    for prefix in 0..=tally.operations {
        let (allowed, name) = (ran.allowed(prefix), workload.name);
        each_image(&ran.disk.crash_point(prefix), prefix, |image, fates| {
            tally.images += 1;
            let text = || format!("{name}, {prefix} disk operations, {}", fates());
            let found = tally.check(image, allowed, &text);
            // The rest of the way for a part of them, spread evenly.
            if let Some((disk, opened, model)) = found.filter(|_| tally.images.is_multiple_of(61)) {
                drop(opened);
                survives(&disk, model, &mut tally, &text);
            }
        });
        killed(&ran, prefix, workload, &mut tally);
    }
    tally
}

const FATES: [Fate; 5] =
    [Fate::Kept, Fate::Dropped, Fate::Sectors(1), Fate::Sectors(!1), Fate::FirstBytes(70)];

/// Crashes again at every operation of the recovery, then goes on.
fn survives(disk: &CrashDisk, model: Model, tally: &mut Tally, text: &dyn Fn() -> String) {
    let allowed = [model];
    for prefix in 0..=disk.operations().len() {
        let point = disk.crash_point(prefix);
        for fate in FATES {
            tally.second += 1;
            let text = || format!("{}; again after {prefix} of the recovery, {fate:?}", text());
            let found = tally.check(point.image(|_| fate), &allowed, &text);
            if let Some((disk, opened, model)) = found {
                goes_on(&disk, opened, model, tally, &text);
            }
        }
    }
}

/// Two batches and restarts more. The entries are shorter than those of any workload, so that stale bytes would show.
fn goes_on(
    disk: &CrashDisk,
    mut opened: Opened,
    mut model: Model,
    tally: &mut Tally,
    text: &dyn Fn() -> String,
) {
    for _ in 0..2 {
        let step = append(vec![entry(term(9), model.last().index.next(), 3)]);
        if let Err(error) = run(&mut opened.storage, &step) {
            return tally.wrong.push(format!("{}; going on: {error}", text()));
        }
        model.apply(&step);
        drop(opened);
        let text = || format!("{}; after going on", text());
        let Some((_, next, _)) = tally.check_disk(disk.clone(), std::slice::from_ref(&model), &text) else {
            return;
        };
        opened = next;
    }
}

/// The process dies, and starts again; then the machine loses power. What the second process found is still there: it has told others of
/// it, though some of it was never synced by the first.
fn killed(ran: &Ran, prefix: usize, workload: &Workload, tally: &mut Tally) {
    let text = || format!("{}, killed after {prefix} disk operations", workload.name);
    let disk = ran.disk.killed_after(prefix);
    let Some((disk, opened, model)) = tally.check_disk(disk, ran.allowed(prefix), &text) else { return };
    drop(opened);
    let all = disk.operations().len();
    for then in prefix..all {
        // Before it has told anybody, it may as well find what the first would have.
        let point = disk.crash_point(then);
        for fates in [&FATES[..1], &FATES[1..2], &FATES] {
            for turn in 0..(if fates.len() == 1 { 1 } else { 12 }) {
                tally.second += 1;
                let fate = |place: usize| fates[salt(then * 31 + place * 7 + turn) as usize % fates.len()];
                let text = || format!("{}, then a power cut after {then}, {turn} of {fates:?}", text());
                tally.check(point.image(fate), ran.allowed(prefix), &text);
            }
        }
    }
    let point = disk.crash_point(all);
    each_image(&point, prefix, |image, fates| {
        tally.second += 1;
        let text = || format!("{}, then a power cut: {}", text(), fates());
        tally.check(image, std::slice::from_ref(&model), &text);
    });
}

#[test]
fn every_crash_point() {
    let workloads: Vec<Workload> =
        [appends(), snapshots(), full_disks(), repairs()].into_iter().flatten().collect();
    let (next, tallies) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(workload) = workloads.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tally = crashes(workload);
            tallies.lock().unwrap_or_else(PoisonError::into_inner).push((workload.name, tally));
        }
    };
    std::thread::scope(|scope| {
        let running = [scope.spawn(work), scope.spawn(work)];
        running.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let mut all = Tally::default();
    for (name, tally) in tallies.into_inner().unwrap() {
        println!(
            "{name}: {} disk operations, {} images, {} after a second crash",
            tally.operations, tally.images, tally.second
        );
        all.operations += tally.operations;
        all.images += tally.images;
        all.second += tally.second;
        all.lost += tally.lost;
        all.invented += tally.invented;
        all.wrong.extend(tally.wrong);
    }
    let Tally { operations, images, second, lost, invented, wrong } = all;
    println!(
        "{} workloads of up to {ACTS} operations, {operations} disk operations: {images} images and {second} after a second crash; \
         {lost} acknowledged records lost, {invented} records found that were never written",
        workloads.len()
    );
    assert!(wrong.is_empty(), "{} images are wrong; the first:\n{}", wrong.len(), wrong[0]);
    assert_eq!((lost, invented), (0, 0));
    assert!(images >= IMAGES, "only {images} images");
}

/// The workloads meet what they are for.
#[test]
fn the_workloads_are_not_vacuous() {
    let all: Vec<Workload> = [snapshots(), full_disks()].into_iter().flatten().collect();
    for (name, from, to) in [
        ("recycled segments", "spare.seg", "log-"),
        ("recycled and prepared segments", "spare.seg", "log-"),
        ("the reserve", "reserve.seg", "log-"),
        ("a full disk with snapshots", "spare.seg", "reserve.seg"),
        ("recycled segments", "log-", "spare.seg"),
    ] {
        let workload = all.iter().find(|workload| workload.name == name).unwrap();
        let renamed = |done: &Operation| matches!(done, Operation::Rename { from: a, to: b } if a.starts_with(from) && b.starts_with(to));
        assert!(ran(workload).disk.operations().iter().any(renamed), "{name}: {from} never became {to}");
    }
    for workload in repairs() {
        let operations = ran(&workload).disk.operations();
        let gone = |done: &Operation| match done {
            Operation::Rename { from, to } => from.starts_with("log-") && to == "spare.seg",
            Operation::Remove { name } => name.starts_with("log-"),
            _ => false,
        };
        assert!(operations.iter().any(gone), "{}: nothing was given up", workload.name);
    }
}
