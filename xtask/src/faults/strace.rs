//! System calls of a server, looked at and made to fail by strace.

use std::collections::BTreeMap;
use std::path::Path;

/// Calls that change what is on a disk.
const CALLS: &str = "pwrite64,pwritev,pwritev2,write,writev,fdatasync,fsync,rename,renameat,renameat2,\
    unlink,unlinkat,openat,mkdir,mkdirat,ftruncate,fallocate";
/// Into the background, and all threads. Without `--seccomp-bpf`, which would be quicker: no signal reaches a thread on its way into a
/// call then.
const QUIETLY: [&str; 4] = ["strace", "-D", "-f", "-qq"];

/// The n-th call of one kind by one thread: on one file, or on any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) call: String,
    /// Below the data directory; empty for that itself.
    pub(super) file: Option<String>,
    pub(super) nth: u32,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.as_deref().map_or("any file", |file| if file.is_empty() { "." } else { file });
        write!(f, "{} {} of {file}", self.call, self.nth)
    }
}

/// Words to put before a command, so that what it does to the disk is written to a file.
pub(super) fn looking(to: &Path) -> Vec<String> {
    let mut words: Vec<String> = QUIETLY.map(str::to_owned).into();
    words.extend(["-y", "-s", "0", "-e", &format!("trace={CALLS}"), "-o"].map(str::to_owned));
    words.push(to.display().to_string());
    words
}

/// Words to put before a command, so that it is killed right before a call.
pub(super) fn killing(point: &Point, directory: &Path) -> Vec<String> {
    let mut words: Vec<String> = QUIETLY.map(str::to_owned).into();
    let Point { call, file, nth } = point;
    words.extend(["-o".into(), "/dev/null".into(), "-e".into(), format!("trace={call}")]);
    words.extend(["-e".into(), format!("inject={call}:signal=SIGKILL:when={nth}")]);
    if let Some(file) = file {
        words.extend(["-P".into(), path(directory, file)]);
    }
    words
}

/// Arguments of strace that make a call of a running process fail once: the n-th of each of its threads.
pub(super) fn failing(pid: u32, call: &str, nth: u32) -> Vec<String> {
    let inject = format!("inject={call}:error=EIO:when={nth}");
    let words = ["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, "-p"];
    words.map(str::to_owned).into_iter().chain([pid.to_string()]).collect()
}

fn path(directory: &Path, file: &str) -> String {
    let path = if file.is_empty() { directory.to_owned() } else { directory.join(file) };
    path.display().to_string()
}

/// The calls below a directory in what strace wrote, in order: once as calls on their file, and once as calls on any.
pub(super) fn read(trace: &str, directory: &Path) -> Vec<(Point, Point)> {
    let directory = directory.display().to_string();
    let mut counts: BTreeMap<(&str, &str, Option<String>), u32> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !call.chars().all(|c| c.is_ascii_alphanumeric()) {
            // The rest of a call that another thread's had interrupted.
            continue;
        }
        let mut next = |file: Option<String>| {
            let nth = counts.entry((thread, call, file.clone())).or_default();
            *nth += 1;
            Point { call: call.into(), file, nth: *nth }
        };
        let any = next(None);
        let Some((_, tail)) = arguments.split_once(&directory) else { continue };
        let file: String = tail.chars().take_while(|c| !['>', '"', ','].contains(c)).collect();
        let file = next(Some(file.trim_start_matches('/').to_owned()));
        if call != "openat" || arguments.contains("O_CREAT") {
            calls.push((file, any));
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_thread_and_file() {
        let trace = "\
7 openat(AT_FDCWD</home>, \"/d/lock\", O_WRONLY|O_CREAT, 0600) = 3</d/lock>
7 openat(AT_FDCWD</home>, \"/d\", O_RDONLY) = 3</d>
8 pwritev(4</d/log>, [{iov_base=\"\"...}], 1, 0 <unfinished ...>
7 write(2</home/err>, \"\"..., 91) = 91
8 <... pwritev resumed>) = 3
8 pwritev(4</d/log>, [], 1, 0) = 3
8 pwritev(5</d/mark>, [], 1, 0) = 3
7 rename(\"/d/tmp\", \"/d/log\") = 0
8 fsync(6</d>) = 0
+++ exited with 0 +++
";
        let calls = read(trace, Path::new("/d"));
        let said: Vec<String> = calls.iter().map(|(file, any)| format!("{file}, {}", any.nth)).collect();
        assert_eq!(
            said,
            [
                "openat 1 of lock, 1",
                "pwritev 1 of log, 1",
                "pwritev 2 of log, 2",
                "pwritev 1 of mark, 3",
                "rename 1 of tmp, 1",
                "fsync 1 of ., 1",
            ]
        );
    }
}
