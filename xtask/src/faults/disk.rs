//! An ext4 file system of its own, on a file of this machine.
//!
//! Nothing of it outlives its owner, however that ends: a process of its own, the keeper, waits until the owner's end of a pipe closes, then
//! unmounts it and removes everything.

use std::fs;
use std::io::{self, PipeWriter};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `EXT4_IOC_SHUTDOWN`: nothing reaches the disk any more, as if its power was cut.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// What it needs.
const TOOLS: [&str; 4] = ["mkfs.ext4", "mount", "umount", "filefrag"];
/// Of one that is only tried.
const TRIED_MEGABYTES: u64 = 16;
/// Longest wait for a file system that is still in use.
const BUSY: Duration = Duration::from_secs(10);

/// What becomes of the file system's own journal when the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Journal {
    /// What it has in memory of it is lost too.
    Lost = 2,
    /// It had just been written: names and lengths may be there whose contents are not.
    Written = 1,
}

/// A file system.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Held so that the keeper waits.
    _lease: PipeWriter,
    keeper: Child,
}

impl Disk {
    /// Why there can be none here, or none whose power can be cut: found out with one that nobody uses.
    pub(super) fn why_not() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root, to mount a file system".into());
        }
        TOOLS.iter().find_map(|tool| missing(tool)).or_else(|| {
            let tried = Disk::make(TRIED_MEGABYTES).and_then(|disk| {
                disk.cut(Journal::Lost)?;
                disk.unmount()?;
                disk.mount("defaults")
            });
            tried.err()
        })
    }

    /// Makes one of so many megabytes and mounts it. In memory, if there is a file system in memory.
    pub(super) fn make(megabytes: u64) -> Result<Self, String> {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let made = tempfile::Builder::new().prefix("atomix-disk-").tempdir_in(place);
        let root = made.map_err(|error| error.to_string())?.keep();
        let (reader, lease) = io::pipe().map_err(|error| error.to_string())?;
        let keeper = Command::new("sh")
            .args(["-c", "cat; umount -l \"$0/mounted\" 2>/dev/null; rm -rf \"$0\""])
            .arg(&root)
            .stdin(Stdio::from(reader))
            // Ctrl-C in a terminal is meant for the owner alone.
            .process_group(0)
            .spawn()
            .map_err(|error| error.to_string())?;
        let disk = Disk { root, _lease: lease, keeper };
        fs::create_dir(disk.mounted()).map_err(|error| error.to_string())?;
        let image = fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(megabytes << 20).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()))?;
        disk.mount("defaults")?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(super) fn mounted(&self) -> PathBuf {
        self.root.join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.root.join("image")
    }

    /// Mounts it; what its journal holds is put in place. The loop device goes with the mount.
    pub(super) fn mount(&self, options: &str) -> Result<(), String> {
        let options = format!("loop,noatime,{options}");
        let mut mount = Command::new("mount");
        run(mount.args(["-t", "ext4", "-o", &options]).arg(self.image()).arg(self.mounted()))
    }

    /// Cuts its power: what was not synced may be gone, and it answers no call any more.
    pub(super) fn cut(&self, journal: Journal) -> Result<(), String> {
        let folder = fs::File::open(self.mounted()).map_err(|error| error.to_string())?;
        // Sound: the call reads one `u32`, and it is only made on a file system that this process mounted.
        #[expect(unsafe_code, reason = "there is no other way to cut a file system's power")]
        let cut = unsafe { ioctl(&folder, Setter::<SHUTDOWN, u32>::new(journal as u32)) };
        cut.map_err(|error| format!("the file system can't be shut down: {error}"))
    }

    /// Writes to the disk itself, which is not mounted.
    pub(super) fn put(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        let image = fs::OpenOptions::new().write(true).open(self.image());
        image.and_then(|image| image.write_all_at(bytes, at)).map_err(|error| error.to_string())
    }

    /// Unmounts it, once nobody uses it any more.
    pub(super) fn unmount(&self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            match run(Command::new("umount").arg(self.mounted())) {
                Err(problem) if begin.elapsed() > BUSY => return Err(problem),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
                Ok(()) => return Ok(()),
            }
        }
    }
}

impl Drop for Disk {
    /// Ends the keeper's wait, and waits for the keeper.
    fn drop(&mut self) {
        // The pipe closes first.
        let (_, closed) = match io::pipe() {
            Ok(pipe) => pipe,
            Err(_) => return,
        };
        drop(std::mem::replace(&mut self._lease, closed));
        let _ = self.keeper.wait();
    }
}

/// Runs a command; what it said if it failed.
pub(super) fn run(command: &mut Command) -> Result<(), String> {
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{}: {}", command.get_program().display(), said(&output))),
        Err(error) => Err(format!("{}: {error}", command.get_program().display())),
    }
}

/// That a program is not there.
pub(super) fn missing(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    (!is_there).then(|| format!("{program} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_the_one_of_the_kernel() {
        assert_eq!(SHUTDOWN, 0x8004_587d);
    }
}
