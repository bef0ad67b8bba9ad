//! The conformance suite over files.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use std::rc::Rc;

use atomix_storage::Storage;
use atomix_storage_file::{Disk, FileOptions, FileStorage, FolderDisk};
use atomix_testkit::conformance::storage::{self, Moment, Place, Recorded};
use crash_disk::{CrashDisk, Fate, Image};

fn check(segment_bytes: u64, mut fresh: impl FnMut() -> Box<dyn FnMut() -> Box<dyn Disk>>) {
    storage::suite(&mut || {
        let mut disk = fresh();
        Box::new(move || {
            let options = FileOptions { segment_bytes };
            Box::new(FileStorage::open(disk(), options).unwrap()) as Box<dyn Storage>
        })
    });
}

fn check_in_memory(segment_bytes: u64) {
    check(segment_bytes, || {
        let disk = CrashDisk::new(Image::default());
        Box::new(move || Box::new(disk.clone()) as Box<dyn Disk>)
    });
}

#[test]
fn segments_that_hold_one_batch() {
    check_in_memory(512);
}

#[test]
fn one_segment_that_holds_all() {
    check_in_memory(1 << 20);
}

#[test]
fn in_a_folder() {
    check(8 << 10, || {
        let folder = Rc::new(tempfile::tempdir().unwrap());
        Box::new(move || Box::new(FolderDisk::open(folder.path().join("data")).unwrap()) as Box<dyn Disk>)
    });
}

#[test]
fn one_process_at_a_time() {
    storage::exclusive(&mut || {
        let folder = Rc::new(tempfile::tempdir().unwrap());
        Box::new(move || {
            let disk = Box::new(FolderDisk::open(folder.path().join("data"))?);
            Ok(Box::new(FileStorage::open(disk, FileOptions { segment_bytes: 8 << 10 })?) as Box<dyn Storage>)
        })
    });
}

/// A disk, and how many operations came before the watch.
struct Watched {
    disk: CrashDisk,
    before: usize,
}

fn over(disk: CrashDisk) -> Place {
    Box::new(move || {
        let options = FileOptions { segment_bytes: 1_024 };
        Box::new(FileStorage::open(Box::new(disk.clone()), options).unwrap()) as Box<dyn Storage>
    })
}

impl Recorded for Watched {
    fn open(&mut self) -> Box<dyn Storage> {
        over(self.disk.clone())()
    }

    fn watch(&mut self) {
        self.before = self.disk.operations().len();
    }

    fn crashes(&mut self, at: Moment, state: &mut dyn FnMut(Place)) {
        let end = self.disk.operations().len();
        let begin = if at == Moment::After { end } else { self.before };
        for prefix in begin..=end {
            let mut play = |fate: &dyn Fn(usize) -> Fate| {
                state(over(CrashDisk::new(self.disk.crash(prefix, fate))));
            };
            play(&|_| Fate::Kept);
            for one in self.disk.pending(prefix) {
                let alone = |fate, others| move |number| if number == one { fate } else { others };
                play(&alone(Fate::Dropped, Fate::Kept));
                play(&alone(Fate::Kept, Fate::Dropped));
                play(&alone(Fate::FirstBytes(70), Fate::Kept));
                play(&alone(Fate::FirstBytes(70), Fate::Dropped));
            }
            play(&|_| Fate::Dropped);
        }
    }
}

#[test]
fn power_cuts() {
    let played = storage::crashes(&mut || {
        Box::new(Watched { disk: CrashDisk::new(Image::default()), before: 0 }) as Box<dyn Recorded>
    });
    assert!(played > 500, "only {played} crashes were played");
}
