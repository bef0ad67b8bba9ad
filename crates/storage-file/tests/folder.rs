//! The real disk.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use atomix_storage::StorageError;
use atomix_storage_file::{Disk, FolderDisk};

const CHILD: &str = "ATOMIX_TEST_FOLDER";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// With the sticky bit.
fn all_of_mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn contents(disk: &mut FolderDisk, name: &str) -> Vec<u8> {
    let mut buffer = vec![0; 4 << 20];
    let read = disk.read_at(name, 0, &mut buffer).unwrap();
    buffer.truncate(read);
    buffer
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    let mut disk = FolderDisk::open(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    disk.allocate("one", 1_000_000).unwrap();
    assert_eq!(mode(&path.join("one")), 0o600);
    assert_eq!(contents(&mut disk, "one"), vec![0; 1_000_000]);
    disk.write_at("one", 999_998, &[b"ab", b"", b"cd"]).unwrap();
    assert_eq!(contents(&mut disk, "one")[999_998..], *b"abcd", "extended");
    disk.sync("one").unwrap();
    disk.allocate("one", 3).unwrap();
    assert_eq!(contents(&mut disk, "one"), [0; 3], "replaced");
    disk.rename("one", "two").unwrap();
    disk.sync_dir().unwrap();
    let mut names = disk.list().unwrap();
    names.sort();
    assert_eq!(names, [("lock".to_owned(), 0), ("two".to_owned(), 3)]);
    disk.remove("two").unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(disk.remove("two")), std::io::ErrorKind::NotFound);
    assert_eq!(kind(disk.write_at("two", 0, &[b"x"])), std::io::ErrorKind::NotFound);
    assert_eq!(kind(disk.read_at("two", 0, &mut [0]).map(|_| ())), std::io::ErrorKind::NotFound);
}

/// One that was made beforehand is for its owner alone as well; unless others have something in it, who may be meant to see that.
#[test]
fn a_folder_that_was_there_is_tightened() {
    for (names, from, to) in [
        (&[][..], 0o755, 0o700),
        (&["lost+found/"], 0o1777, 0o1700),
        (&["lock", "manifest-0", "log-0000000000000001.seg", "snapshot.tmp"], 0o750, 0o700),
        (&["lock", "manifest-0"], 0o500, 0o500),
        (&["lock", "manifest-0", "notes.txt"], 0o755, 0o755),
        (&["other.seg"], 0o777, 0o777),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            if name.ends_with('/') {
                std::fs::create_dir(path).unwrap();
            } else {
                std::fs::write(path, "").unwrap();
            }
        }
        let chmod = |mode| std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        chmod(from);
        drop(FolderDisk::open_read_only(folder.path()).unwrap());
        assert_eq!(all_of_mode(folder.path()), from, "to look at it changes nothing");
        drop(FolderDisk::open(folder.path()));
        assert_eq!(all_of_mode(folder.path()), to, "{names:?}");
        chmod(0o700);
    }
}

#[test]
fn more_parts_than_one_call_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FolderDisk::open(folder.path()).unwrap();
    let bytes: Vec<u8> = (0..5_000u32).map(|at| at as u8).collect();
    let parts: Vec<&[u8]> = bytes.chunks(1).collect();
    disk.allocate("file", 0).unwrap();
    disk.write_at("file", 0, &parts).unwrap();
    assert_eq!(contents(&mut disk, "file"), bytes);
}

#[test]
fn a_prepared_file_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FolderDisk::open(folder.path()).unwrap();
    disk.prepare("same", 700_000);
    disk.allocate("same", 700_000).unwrap();
    assert_eq!(contents(&mut disk, "same"), vec![0; 700_000]);
    disk.prepare("not yet", 3_000_000);
    disk.allocate("another", 10).unwrap();
    let inode = || std::fs::metadata(folder.path().join("not yet")).map(|file| file.ino()).ok();
    while std::fs::metadata(folder.path().join("not yet")).map_or(0, |file| file.len()) < 3_000_000 {
        std::thread::yield_now();
    }
    let before = inode();
    disk.allocate("not yet", 3_000_000).unwrap();
    assert_eq!(inode(), before, "made a second time, though only another file was asked for in between");
    disk.prepare("longer", 10);
    disk.allocate("longer", 20).unwrap();
    assert_eq!(contents(&mut disk, "longer"), [0; 20]);
    disk.prepare("never used", 1 << 30);
    drop(disk);
    FolderDisk::open(folder.path()).expect("the folder is free once the disk is gone");
}

#[test]
fn forks_see_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FolderDisk::open(folder.path()).unwrap();
    let mut fork = disk.fork().unwrap();
    let mut read = |name: &str| {
        let mut buffer = [0; 8];
        fork.read_at(name, 0, &mut buffer)
            .map(|length| buffer[..length].to_vec())
            .map_err(|error| error.kind())
    };
    disk.allocate("file", 3).unwrap();
    assert_eq!(read("file"), Ok(vec![0; 3]));
    disk.write_at("file", 0, &[b"old"]).unwrap();
    disk.rename("file", "other").unwrap();
    assert_eq!(read("file"), Err(std::io::ErrorKind::NotFound));
    assert_eq!(read("other"), Ok(b"old".to_vec()));
    disk.allocate("file", 0).unwrap();
    disk.write_at("file", 0, &[b"new"]).unwrap();
    disk.rename("file", "other").unwrap();
    assert_eq!(read("other"), Ok(b"new".to_vec()));
    drop(disk);
    let taken = FolderDisk::open(folder.path()).map(|_| ());
    assert!(matches!(taken, Err(StorageError::InUse(_))), "a fork holds the folder: {taken:?}");
}

#[test]
fn unusable_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [&file, &file.join("below"), &file.join("far/below"), Path::new("/proc/atomix/data")] {
        let Err(StorageError::Unusable(text)) = FolderDisk::open(path) else { panic!("{}", path.display()) };
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}

/// Not a test of its own: what [`one_process_at_a_time`] runs in another process.
#[test]
fn holds_a_folder() {
    if let Ok(path) = std::env::var(CHILD) {
        let disk = FolderDisk::open(path).unwrap();
        // The harness has begun a line of its own.
        println!("\nheld");
        std::io::stdout().flush().unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        drop(disk);
    }
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_folder", "--nocapture"])
        .env(CHILD, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"), "the child never held it");
    let refused = FolderDisk::open(folder.path()).map(|_| ());
    assert!(matches!(&refused, Err(StorageError::InUse(_))), "{refused:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    FolderDisk::open(folder.path()).expect("a killed process holds nothing");
}
