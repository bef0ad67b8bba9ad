//! The conformance suite over files.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use std::rc::Rc;

use atomix_storage::Storage;
use atomix_storage_file::{Disk, FileOptions, FileStorage, FolderDisk};
use atomix_testkit::conformance::storage;
use crash_disk::{CrashDisk, Image};

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
