//! Every crash of a workload, and what comes after it.

use crate::acts::{Ran, Workload, ran};
use crate::crash_disk::workload::{Model, append, entry, run, term};
use crate::crash_disk::{CrashDisk, Fate, Opened};
use crate::images::{Fingerprints, Seen, each_image, salt};
use crate::tally::Tally;

/// What is done to everything that is not durable after a second crash.
const FATES: [Fate; 5] =
    [Fate::Kept, Fate::Dropped, Fate::Sectors(1), Fate::Sectors(!1), Fate::FirstBytes(70)];

pub(crate) fn crashes(workload: &Workload) -> Tally {
    let ran = ran(workload);
    let mut tally = Tally { operations: ran.disk.operations().len(), ..Tally::default() };
    for prefix in 0..=tally.operations {
        let (allowed, name) = (ran.allowed(prefix), workload.name);
        let point = ran.disk.crash_point(prefix);
        tally.drawn += each_image(&point, prefix, &mut Seen::default(), |fingerprint, image, fates| {
            tally.images += 1;
            tally.all.is_new(fingerprint);
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

/// Crashes again at every operation of the recovery, then goes on.
fn survives(disk: &CrashDisk, model: Model, tally: &mut Tally, text: &dyn Fn() -> String) {
    let (allowed, mut seen) = ([model], Seen::default());
    for prefix in 0..=disk.operations().len() {
        let point = disk.crash_point(prefix);
        let fingerprints = Fingerprints::new(&point);
        for fate in FATES {
            let (fingerprint, image) = fingerprints.image(|_| fate);
            if !seen.is_new(fingerprint) {
                continue;
            }
            tally.second += 1;
            let text = || format!("{}; again after {prefix} of the recovery, {fate:?}", text());
            if let Some((disk, opened, model)) = tally.check(image, &allowed, &text) {
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
    let mut seen = Seen::default();
    for then in prefix..all {
        // Before it has told anybody, it may as well find what the first would have.
        let point = disk.crash_point(then);
        let fingerprints = Fingerprints::new(&point);
        for turn in 0..14 {
            let fates = match turn {
                0 => &FATES[..1],
                1 => &FATES[1..2],
                _ => &FATES,
            };
            let fate = |place: usize| fates[salt(then * 31 + place * 7 + turn) as usize % fates.len()];
            let (fingerprint, image) = fingerprints.image(fate);
            if seen.is_new(fingerprint) {
                tally.second += 1;
                let text = || format!("{}, then a power cut after {then}, {turn} of {fates:?}", text());
                tally.check(image, ran.allowed(prefix), &text);
            }
        }
    }
    each_image(&disk.crash_point(all), prefix, &mut Seen::default(), |_, image, fates| {
        tally.second += 1;
        let text = || format!("{}, then a power cut: {}", text(), fates());
        tally.check(image, std::slice::from_ref(&model), &text);
    });
}
