//! Looking at a folder: nothing in it is changed, and no right to change it is needed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use atomix_storage::{Storage, StorageError};
use atomix_storage_file::inspect::Inspection;
use atomix_storage_file::{Disk, FileOptions, FileStorage, FolderDisk};
use crash_disk::workload::{Step, append, entry, id, identify, index, run, term};

const SEGMENT: u64 = 1_024;

/// A log of three segments, and a snapshot.
fn write(path: &Path) {
    let disk = Box::new(FolderDisk::open(path).unwrap());
    let mut storage = FileStorage::open(disk, FileOptions { segment_bytes: SEGMENT }).unwrap();
    storage.recover(&mut |_| ()).unwrap();
    let entries = |indexes: std::ops::RangeInclusive<u64>| {
        append(indexes.map(|at| entry(term(1), index(at), 150)).collect())
    };
    for step in
        [identify(), entries(1..=4), entries(5..=8), entries(9..=12), Step::Publish(id(term(1), index(6)))]
    {
        run(&mut storage, &step).unwrap();
    }
}

/// Everything of a folder: names, bytes, modes and times of change.
fn folder(path: &Path) -> Vec<(String, Vec<u8>, u32, std::time::SystemTime)> {
    let mut all: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|item| {
            let item = item.unwrap();
            let (name, metadata) = (item.file_name().into_string().unwrap(), item.metadata().unwrap());
            let modified = metadata.modified().unwrap();
            (name, std::fs::read(item.path()).unwrap(), metadata.permissions().mode(), modified)
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_folder_is_left_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("data");
    write(&path);
    let lock = path.join("lock");
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for locked in [true, false] {
        if !locked {
            std::fs::remove_file(&lock).unwrap();
        }
        for item in std::fs::read_dir(&path).unwrap() {
            set(&item.unwrap().path(), 0o400);
        }
        set(&path, 0o500);
        let before = folder(&path);
        let mut inspection = Inspection::of_directory(&path).unwrap();
        let report = inspection.report().unwrap();
        assert_eq!(
            (report.row, report.findings.len(), report.snapshots.len()),
            ("clean", 0, 1),
            "{report:?}"
        );
        let mut records = 0;
        inspection.records(index(0), index(u64::MAX), &mut |_| records += 1).unwrap();
        assert_eq!(records, 12 + 3);
        drop(inspection);
        assert_eq!(folder(&path), before, "with a lock: {locked}");
        set(&path, 0o700);
    }
}

#[test]
fn nobody_looks_at_what_is_in_use() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("data");
    write(&path);
    let one = Inspection::of_directory(&path).unwrap();
    let other = Inspection::of_directory(&path).unwrap();
    assert!(matches!(FolderDisk::open(&path), Err(StorageError::InUse(_))), "somebody looks");
    drop((one, other));
    let server = FolderDisk::open(&path).unwrap();
    assert!(matches!(Inspection::of_directory(&path), Err(StorageError::InUse(_))));
    drop(server);
    assert!(Inspection::of_directory(&path).is_ok());
}

#[test]
fn a_disk_that_only_reads() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("one"), "abc").unwrap();
    let before = folder(place.path());
    let mut disk = FolderDisk::open_read_only(place.path()).unwrap();
    let refused = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    };
    refused(disk.allocate("one", 3));
    refused(disk.allocate("two", 3));
    refused(disk.set_aside("two", 3));
    refused(disk.write_at("one", 0, &[b"x"]));
    refused(disk.rename("one", "two"));
    refused(disk.remove("one"));
    disk.prepare("two", 3);
    let mut fork = disk.fork().unwrap();
    refused(fork.write_at("one", 0, &[b"x"]));
    let mut bytes = [0; 4];
    assert_eq!((fork.read_at("one", 0, &mut bytes).unwrap(), &bytes), (3, b"abc\0"));
    drop((disk, fork));
    assert_eq!(folder(place.path()), before);
}

#[test]
fn what_is_no_data_directory() {
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("missing");
    assert!(matches!(Inspection::of_directory(&missing), Err(StorageError::Unusable(_))));
    assert!(!missing.exists(), "it was made");
    assert!(matches!(Inspection::of_directory(place.path()), Err(StorageError::Foreign(_))), "nothing in it");
    std::fs::write(place.path().join("notes.txt"), "x").unwrap();
    assert!(
        matches!(Inspection::of_directory(place.path()), Err(StorageError::Foreign(_))),
        "nothing of ours"
    );
    let file = place.path().join("notes.txt");
    assert!(matches!(Inspection::of_directory(file), Err(StorageError::Unusable(_))), "a file");
    std::fs::write(place.path().join("other.seg"), "x").unwrap();
    assert!(
        matches!(Inspection::of_directory(place.path()), Err(StorageError::Foreign(_))),
        "named as if ours"
    );
    let begun = place.path().join("begun");
    drop(FolderDisk::open(&begun).unwrap());
    assert_eq!(Inspection::of_directory(begun).unwrap().report().unwrap().row, "fresh");
}
