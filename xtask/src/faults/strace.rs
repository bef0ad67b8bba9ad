//! System calls of a server, looked at, delayed and made to fail by strace.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::disk;

/// Calls that change what is on a disk.
const CALLS: &str = "pwrite64,pwritev,pwritev2,write,writev,fdatasync,fsync,rename,renameat,renameat2,\
    unlink,unlinkat,openat,mkdir,mkdirat,ftruncate,fallocate";
/// Into the background, and all threads. Without `--seccomp-bpf`, which would be quicker: no signal reaches a thread on its way into a
/// call then.
const QUIETLY: [&str; 4] = ["strace", "-D", "-f", "-qq"];

/// Longest wait for strace to be attached to a process.
const ATTACHED: Duration = Duration::from_secs(10);

/// Why nothing can be done with strace here, found out with a program that has nothing to do with any server.
pub(super) fn why_not() -> Option<String> {
    let missing = disk::missing("strace");
    missing.or_else(|| tried().err().map(|problem| format!("strace does not work here: {problem}")))
}

/// The same where strace must attach to a process that runs already.
pub(super) fn why_not_attached() -> Option<String> {
    why_not().or_else(|| {
        attached().err().map(|problem| format!("strace can't attach to a process here: {problem}"))
    })
}

/// Whether a shell is killed at a call that only strace can kill it at.
fn tried() -> Result<(), String> {
    let mut words: Vec<String> = QUIETLY.map(str::to_owned).into();
    words.extend(["-o", "/dev/null", "-e", "trace=chdir"].map(str::to_owned));
    words.extend(["-e", "inject=chdir:signal=SIGKILL:when=1", "sh", "-c", "cd /"].map(str::to_owned));
    let ran = Command::new(&words[0]).args(&words[1..]).output().map_err(|error| error.to_string())?;
    if ran.status.signal() == Some(rustix::process::Signal::KILL.as_raw()) {
        return Ok(());
    }
    Err(format!("{}; {}", ran.status, String::from_utf8_lossy(&ran.stderr).trim()))
}

/// Whether a call of a shell that runs already can be made to fail.
fn attached() -> Result<(), String> {
    let words = |error: std::io::Error| error.to_string();
    let mut shell = Command::new("sh")
        .args(["-c", "read line; cd /"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(words)?;
    let inject = ["-qq", "-o", "/dev/null", "-e", "trace=chdir", "-e", "inject=chdir:error=EIO", "-p"];
    let pid = shell.id().to_string();
    let strace = Command::new("strace").args(inject).arg(&pid).stderr(Stdio::piped()).spawn();
    let mut strace = strace.map_err(words)?;
    let traced = traced(&pid, &mut strace);
    // The line that it waits for, or the end of it.
    drop(shell.stdin.take());
    let ended = shell.wait().map_err(words)?;
    let _ = strace.kill();
    let said = strace.wait_with_output().map_err(words)?.stderr;
    if traced && !ended.success() {
        return Ok(());
    }
    Err(format!("{ended}; {}", String::from_utf8_lossy(&said).trim()))
}

/// Waits until a process is traced; false if it never is.
fn traced(pid: &str, strace: &mut Child) -> bool {
    let begin = Instant::now();
    let tracer = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:").map(str::trim));
        tracer.is_some_and(|tracer| tracer != "0")
    };
    while begin.elapsed() < ATTACHED {
        if tracer() {
            return true;
        }
        if !matches!(strace.try_wait(), Ok(None)) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

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

/// Words to put before a command, so that each of its syncs begins late. What was written before it waits meanwhile.
pub(super) fn delaying(by: Duration) -> Vec<String> {
    let mut words: Vec<String> = QUIETLY.map(str::to_owned).into();
    let inject = format!("inject=fdatasync:delay_enter={}", by.as_micros());
    let delay = ["--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    words.extend(delay.map(str::to_owned));
    words
}

/// Arguments of strace that make a call of a running process on some files fail once: the n-th of each of its threads. What it did is
/// written to a file.
pub(super) fn failing(
    pid: u32,
    call: &str,
    files: &[String],
    nth: u32,
    directory: &Path,
    to: &Path,
) -> Vec<String> {
    let inject = format!("inject={call}:error=EIO:when={nth}");
    let (to, pid) = (to.display().to_string(), pid.to_string());
    let words = ["-f", "-qq", "-y", "-s", "0", "-o", &to, "-e", &format!("trace={call}"), "-e", &inject];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.extend(files.iter().flat_map(|file| ["-P".to_owned(), path(directory, file)]));
    words.extend(["-p".to_owned(), pid]);
    words
}

/// The files of the first call that was made to fail, below a directory, in what strace wrote: a rename has two.
pub(super) fn injected(trace: &str, directory: &Path) -> Option<Vec<String>> {
    let directory = directory.display().to_string();
    // What a thread's call began with, if another thread's had interrupted it.
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        if rest.ends_with("<unfinished ...>") {
            begun.insert(thread, rest);
        } else if rest.ends_with("(INJECTED)") {
            let call = begun.get(thread).filter(|_| rest.contains(" resumed>")).copied().unwrap_or(rest);
            return Some(call.split(&directory).skip(1).map(name).collect());
        } else {
            begun.remove(thread);
        }
    }
    None
}

/// The name that a text begins with, which follows the directory's.
fn name(text: &str) -> String {
    let name: String = text.chars().take_while(|c| !['>', '"', ','].contains(c)).collect();
    name.trim_start_matches('/').to_owned()
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
        let file = next(Some(name(tail)));
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

    #[test]
    fn the_first_call_that_fails_is_found_with_its_files() {
        let begin = "7 fdatasync(5</d/log-1.seg>) = 0\n8 pwritev(4</d/mark>, [], 1, 0 <unfinished ...>\n";
        let files = |rest: &str| injected(&format!("{begin}{rest}\n"), Path::new("/d"));
        assert_eq!(files("7 fsync(6</d>) = 0"), None);
        let whole = "7 fdatasync(5</d/log-2.seg>) = -1 EIO (Input/output error) (INJECTED)";
        assert_eq!(files(whole), Some(vec!["log-2.seg".into()]));
        let resumed = "8 <... pwritev resumed>) = -1 EIO (Input/output error) (INJECTED)";
        assert_eq!(files(&format!("{resumed}\n{whole}")), Some(vec!["mark".into()]));
        let rename = "8 rename(\"/d/tmp\", \"/d/snap\") = -1 EIO (Input/output error) (INJECTED)";
        assert_eq!(files(rename), Some(vec!["tmp".into(), "snap".into()]));
        assert_eq!(
            files("9 fsync(6</d>) = -1 EIO (Input/output error) (INJECTED)"),
            Some(vec![String::new()])
        );
    }
}
