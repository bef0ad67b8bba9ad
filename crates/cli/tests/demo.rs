//! The demo: passes, and leaves nothing behind, however it ends.

use std::fs;
use std::path::{Path, PathBuf};

use atomix_cli::cluster::until;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::run::{WAIT, command, ended};

#[tokio::test]
async fn the_demo_passes_and_leaves_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = command(&["demo"]);
    let ended = ended(command.env("TMPDIR", place.path()).spawn().expect("the binary starts")).await;
    ended.check(0, &[]);
    assert!(ended.out.contains("every check held"), "{}", ended.out);
    assert_eq!(left(place.path()), Vec::<PathBuf>::new());
    assert_eq!(processes_in(place.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_and_exits_with_130() {
    let place = tempfile::tempdir().expect("a directory");
    let (child, pid) = under_way(place.path(), "commands in flight").await;
    kill(pid, Signal::INT);
    ended(child).await.check(130, &["interrupted"]);
    assert_eq!(left(place.path()), Vec::<PathBuf>::new());
    assert_eq!(processes_in(place.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn a_killed_demo_leaves_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let (child, pid) = under_way(place.path(), "commands in flight").await;
    kill(pid, Signal::KILL);
    assert_eq!(ended(child).await.code, None);
    until("everything to be gone", WAIT, async || {
        (left(place.path()).is_empty() && processes_in(place.path()).is_empty()).then_some(())
    })
    .await
    .expect("nothing is left");
}

/// A process that is stopped takes no notice of anything, so that of its parent's end has to be seen to.
#[tokio::test]
async fn a_demo_killed_while_a_holder_is_stopped_leaves_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let (child, pid) = under_way(place.path(), "another waits for the lock").await;
    until("a holder to be stopped", WAIT, async || {
        processes_in(place.path()).into_iter().any(is_stopped).then_some(())
    })
    .await
    .expect("a stopped holder");
    kill(pid, Signal::KILL);
    assert_eq!(ended(child).await.code, None);
    until("everything to be gone", WAIT, async || {
        (left(place.path()).is_empty() && processes_in(place.path()).is_empty()).then_some(())
    })
    .await
    .expect("nothing is left");
}

fn is_stopped(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tT"))
}

/// A demo that has come to a line with these words: its servers, its guard and its clients run.
async fn under_way(place: &Path, words: &str) -> (Child, u32) {
    let mut child = command(&["demo"]).env("TMPDIR", place).spawn().expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("standard output")).lines();
    let begun = async {
        while let Some(line) = out.next_line().await.expect("a line") {
            if line.contains(words) {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(WAIT, begun).await.expect("in time"), "the demo ended early");
    assert!(processes_in(place).len() >= 4, "three servers and a guard");
    // What it goes on to say is for nobody, but must not block it.
    tokio::spawn(async move { while let Ok(Some(_)) = out.next_line().await {} });
    let pid = child.id().expect("a process id");
    (child, pid)
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, signal).expect("a signal");
}

/// Files that lie in a directory.
fn left(place: &Path) -> Vec<PathBuf> {
    fs::read_dir(place).expect("a directory").flatten().map(|entry| entry.path()).collect()
}

/// Processes that were started with a path below a directory among their arguments, or with it in their environment.
fn processes_in(place: &Path) -> Vec<u32> {
    let place = place.to_str().expect("a name");
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        ["cmdline", "environ"].iter().any(|what| {
            let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(place)
        })
    })
    .collect()
}
