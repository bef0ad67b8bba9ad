//! `atomix lock`: the binary runs commands under locks.

use std::fs;
use std::path::Path;

use atomix_cli::cluster::{Cluster, until};
use rustix::process::Signal;

use crate::run::{WAIT, executable, run};
use crate::running::{Running, start};

/// Says that it has begun, and ends when it is told to.
const TILL_STDIN_CLOSES: &[&str] = &["sh", "-c", "echo begun; cat"];

async fn cluster(servers: usize) -> (Cluster, String) {
    let cluster = Cluster::start(&executable(), servers, &[]).expect("servers");
    cluster.leader(WAIT).await.expect("a leader");
    let all = cluster.addresses().join(",");
    (cluster, all)
}

/// The arguments of `lock run`.
fn lock_run<'a>(all: &'a str, path: &'a str, options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["lock", "run", path, "--cluster", all], options, &["--"], command].concat()
}

async fn status(all: &str, path: &str) -> String {
    let ended = run(&["lock", "status", path, "--cluster", all]).await;
    ended.check(0, &[]);
    ended.out.trim_end().to_owned()
}

/// Waits until nothing of a process is left but perhaps what nobody has asked for yet.
async fn gone(pid: &str) {
    until("a process to be gone", WAIT, async || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.is_empty().then_some(())
    })
    .await
    .expect("it ends");
}

#[tokio::test]
async fn a_command_has_the_token_and_its_exit_code_is_passed_on() {
    let (cluster, all) = cluster(1).await;
    run(&["lock", "status", "/l", "--cluster", &all]).await.check(1, &["no lock at /l"]);
    run(&["exists", "/l", "--cluster", &all]).await.check(1, &["/l"]);

    let command = ["sh", "-c", "echo $ATOMIX_LOCK_TOKEN $ATOMIX_LOCK_PATH; exit 7"];
    let mut before = 0;
    for _ in 0..2 {
        let ended = run(&lock_run(&all, "/l", &[], &command)).await;
        ended.check(7, &[]);
        let (token, path) = ended.out.trim_end().split_once(' ').expect("two words");
        let token: u64 = token.parse().expect("a number");
        assert!(token > before && path == "/l", "{ended:?}");
        before = token;
    }
    run(&lock_run(&all, "/l", &[], &["sh", "-c", "kill -9 $$"])).await.check(137, &[]);
    // What the command leaves behind holds the lock as well, and has its part of the output.
    let left = run(&lock_run(&all, "/l", &[], &["sh", "-c", "(sleep 0.5; echo end) & exit 4"])).await;
    left.check(4, &[]);
    assert_eq!(left.out, "end\n");
    run(&lock_run(&all, "/l", &[], &["/no/such/command"])).await.check(2, &["/no/such/command"]);
    assert_eq!(status(&all, "/l").await, "free, 0 waiting");

    run(&["map", "put", "/m", "k", "v", "--cluster", &all]).await.check(0, &[]);
    run(&lock_run(&all, "/m", &[], &["true"])).await.check(1, &["/m is a map, not a lock"]);
    run(&["lock", "status", "/m", "--cluster", &all]).await.check(1, &["/m is a map, not a lock"]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn who_does_not_get_the_lock_in_time_exits_with_1() {
    let (cluster, all) = cluster(1).await;
    let mut holder = start(&lock_run(&all, "/l", &[], TILL_STDIN_CLOSES));
    assert_eq!(holder.line().await, "begun");
    run(&lock_run(&all, "/l", &["--no-wait"], &["true"])).await.check(1, &["/l is held by another"]);
    run(&lock_run(&all, "/l", &["--wait", "50ms"], &["true"])).await.check(1, &["/l", "after 50 ms"]);
    run(&["delete", "/l", "--cluster", &all]).await.check(1, &["/l is in use", "--force"]);

    let waiter = start(&lock_run(&all, "/l", &[], &["true"]));
    let text = until("a waiter", WAIT, async || {
        Some(status(&all, "/l").await).filter(|text| text.ends_with(" 1 waiting"))
    });
    let text = text.await.expect("a waiter");
    assert!(text.starts_with("held by session "), "{text}");
    let json = run(&["lock", "status", "/l", "--json", "--cluster", &all]).await;
    json.check(0, &[]);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json["waiting"], 1);
    let words =
        format!("held by session {} with token {}", json["holder"]["session"], json["holder"]["token"]);
    assert!(text.starts_with(&words), "{text}, {json}");

    holder.close_stdin();
    holder.ended().await.check(0, &[]);
    waiter.ended().await.check(0, &[]);
    assert_eq!(status(&all, "/l").await, "free, 0 waiting");
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn two_commands_under_one_lock_never_overlap() {
    let (cluster, all) = cluster(1).await;
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("lines");
    // Long enough for another to come in between, if it could.
    let script = "i=0; while [ $i -lt 200 ]; do echo $ATOMIX_LOCK_TOKEN >> \"$0\"; i=$((i+1)); done";
    let command = ["sh", "-c", script, file.to_str().expect("a name")];
    let contenders: Vec<Running> = (0..4).map(|_| start(&lock_run(&all, "/l", &[], &command))).collect();
    for contender in contenders {
        contender.ended().await.check(0, &[]);
    }
    let text = fs::read_to_string(&file).expect("lines");
    let mut tokens: Vec<u64> = text.lines().map(|line| line.parse().expect("a token")).collect();
    assert_eq!(tokens.len(), 4 * 200);
    assert!(tokens.is_sorted(), "{tokens:?}");
    tokens.dedup();
    assert_eq!(tokens.len(), 4);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_lost_lock_ends_the_command_and_exits_with_5() {
    let (cluster, all) = cluster(3).await;
    let place = tempfile::tempdir().expect("a directory");
    let note = place.path().join("note");
    let note_name = note.to_str().expect("a name");
    let options = ["--session-timeout", "1s"];
    let waits = "; echo $$; while :; do sleep 0.05; done";
    let polite = format!("trap 'echo told > \"$0\"; exit 0' TERM{waits}");
    let stubborn = format!("trap '' TERM{waits}");
    let mut polite = start(&lock_run(&all, "/polite", &options, &["sh", "-c", &polite, note_name]));
    let mut stubborn = start(&lock_run(&all, "/stubborn", &options, &["sh", "-c", &stubborn]));
    let (polite_pid, stubborn_pid) = (polite.line().await, stubborn.line().await);
    // The whole cluster: a single server that goes on says that it has lost the others.
    for server in 0..cluster.size() {
        cluster.signal(server, Signal::STOP).expect("a signal");
    }
    polite.ended().await.check(5, &["/polite was lost"]);
    assert_eq!(fs::read_to_string(&note).expect("a note"), "told\n");
    stubborn.ended().await.check(5, &["/stubborn was lost"]);
    gone(&polite_pid).await;
    gone(&stubborn_pid).await;
    for server in 0..cluster.size() {
        cluster.signal(server, Signal::CONT).expect("a signal");
    }
    run(&lock_run(&all, "/stubborn", &[], &["true"])).await.check(0, &[]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn p3_a_lock_run_that_was_paused_ends_its_command_when_it_goes_on() {
    let (cluster, all) = cluster(1).await;
    let command = ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done"];
    let mut paused = start(&lock_run(&all, "/l", &["--session-timeout", "500ms"], &command));
    let pid = paused.line().await;
    paused.signal(Signal::STOP);
    run(&lock_run(&all, "/l", &[], &["true"])).await.check(0, &[]);
    paused.signal(Signal::CONT);
    paused.ended().await.check(5, &["/l was lost"]);
    gone(&pid).await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_forced_deletion_waits_until_the_command_has_ended() {
    let (cluster, all) = cluster(1).await;
    let place = tempfile::tempdir().expect("a directory");
    let note = place.path().join("note");
    let script = "trap 'echo told > \"$0\"; exit 0' TERM; echo begun; while :; do sleep 0.05; done";
    let command = ["sh", "-c", script, note.to_str().expect("a name")];
    let mut holder = start(&lock_run(&all, "/l", &[], &command));
    assert_eq!(holder.line().await, "begun");
    run(&["delete", "/l", "--force", "--cluster", &all]).await.check(0, &[]);
    assert_eq!(fs::read_to_string(&note).expect("a note"), "told\n", "the command was told before");
    holder.ended().await.check(5, &["/l was lost"]);
    run(&["exists", "/l", "--cluster", &all]).await.check(1, &["/l"]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn an_interrupt_is_passed_on_and_gives_the_lock_back() {
    let (cluster, all) = cluster(1).await;
    for (name, signal) in [("INT", Signal::INT), ("TERM", Signal::TERM)] {
        let script = format!("trap 'echo {name}; exit 3' {name}; echo begun; while :; do sleep 0.05; done");
        let mut holder = start(&lock_run(&all, "/l", &[], &["sh", "-c", &script]));
        assert_eq!(holder.line().await, "begun");
        let waiter = start(&lock_run(&all, "/l", &[], &["true"]));
        until("a waiter", WAIT, async || status(&all, "/l").await.ends_with(" 1 waiting").then_some(()))
            .await
            .expect("a waiter");
        waiter.signal(signal);
        waiter.ended().await.check(130, &["interrupted"]);
        assert!(status(&all, "/l").await.ends_with(" 0 waiting"), "its place in the queue is given up");
        holder.signal(signal);
        assert_eq!(holder.line().await, name);
        holder.ended().await.check(130, &["interrupted"]);
        assert_eq!(status(&all, "/l").await, "free, 0 waiting");
    }
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_killed_lock_run_takes_all_of_its_command_with_it() {
    let (cluster, all) = cluster(1).await;
    let place = tempfile::tempdir().expect("a directory");
    let grandchild = place.path().join("grandchild");
    let script = "sleep 1000 & echo $! > \"$0\"; echo $$; wait";
    let command = ["sh", "-c", script, grandchild.to_str().expect("a name")];
    let mut holder = start(&lock_run(&all, "/l", &["--session-timeout", "1s"], &command));
    let pid = holder.line().await;
    holder.signal(Signal::KILL);
    gone(&pid).await;
    gone(pid_in(&grandchild).trim_end()).await;
    run(&lock_run(&all, "/l", &[], &["true"])).await.check(0, &[]);
    cluster.stop().await.expect("stopped");
}

fn pid_in(file: &Path) -> String {
    fs::read_to_string(file).expect("a process id")
}
