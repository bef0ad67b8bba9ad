//! Crash points, counted: small workloads, a power cut after every prefix of their disk operations, every fate of what was not durable.
//!
//! A workload is at most twelve operations: calls of the storage (a batch, a snapshot, a compaction, a look for room), restarts, and a disk
//! that gets full or empty. Each makes a few disk operations (create, write, rename, remove, sync a file, sync names). The machine loses
//! power after each of them. What was not durable by then is kept, dropped, torn between sectors or torn at a byte ([`images`] says in which
//! combinations). An image counts once for each workload and moment, however many combinations make it: what may be found in it is
//! another thing at another moment.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod acts;
#[path = "../crash_disk/mod.rs"]
mod crash_disk;
mod crashes;
mod images;
mod tally;
mod workloads;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use acts::{ACTS, ran};
use crash_disk::Operation;
use crashes::crashes;
use tally::Tally;
use workloads::{all, named};

/// Images that are wanted at least.
const IMAGES: usize = 100_000;

#[test]
fn every_crash_point() {
    let workloads = all();
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
    let mut sum = Tally::default();
    for (name, tally) in tallies.into_inner().unwrap() {
        let Tally { operations, drawn, images, second, .. } = &tally;
        println!(
            "{name}: {operations} disk operations, {images} images ({drawn} drawn), {second} after a second crash"
        );
        sum.add(tally);
    }
    let Tally { operations, drawn, images, all, second, lost, invented, wrong } = sum;
    println!(
        "{} workloads of up to {ACTS} operations, {operations} disk operations: {images} images that differ at their workload and moment \
         ({drawn} drawn, {} that differ at all), and {second} after a second crash; \
         {lost} acknowledged records lost, {invented} records found that were never written",
        workloads.len(),
        all.len(),
    );
    assert!(wrong.is_empty(), "{} images are wrong; the first:\n{}", wrong.len(), wrong[0]);
    assert_eq!((lost, invented), (0, 0));
    assert!(images >= IMAGES, "only {images} images");
}

/// The workloads meet what they are for.
#[test]
fn the_workloads_are_not_vacuous() {
    for (name, from, to) in [
        ("recycled segments", "log-", "spare.seg"),
        ("recycled segments", "spare.seg", "log-"),
        ("recycled and prepared segments", "spare.seg", "log-"),
        ("recycled segments and truncations", "spare.seg", "log-"),
        ("the reserve", "reserve.seg", "log-"),
        ("the reserve, twice", "reserve.seg", "log-"),
        ("a full disk in a repair", "reserve.seg", "log-"),
        ("a full disk with snapshots", "spare.seg", "reserve.seg"),
    ] {
        let renamed = |done: &Operation| matches!(done, Operation::Rename { from: a, to: b } if a.starts_with(from) && b.starts_with(to));
        assert!(ran(&named(name)).disk.operations().iter().any(renamed), "{name}: {from} never became {to}");
    }
    // Of a damaged end, the segment goes on being part of the log.
    for workload in workloads::repairs::all().iter().filter(|workload| workload.name != "repair of the end") {
        let operations = ran(workload).disk.operations();
        let gone = |done: &Operation| match done {
            Operation::Rename { from, .. } => from.starts_with("log-"),
            Operation::Remove { name } => name.starts_with("log-"),
            _ => false,
        };
        assert!(operations.iter().any(gone), "{}: nothing was given up", workload.name);
    }
    for workload in all() {
        let twins = all().into_iter().filter(|other| other.name == workload.name).count();
        assert_eq!(twins, 1, "{}", workload.name);
    }
}
