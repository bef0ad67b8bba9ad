//! `cargo xtask killpoints --eio`: a write or sync of one server of three fails once, under load.
//!
//! That server says why and stays up to say so, asks nothing of its disk any more, though the next call would not fail, and ends with
//! its own exit code when it is told to. The others go on, and no acknowledged write is lost, at the server itself neither once it is started
//! again.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use atomix_cli::cluster::{Cluster, until};
use atomix_cli::exit::Exit;
use rustix::process::Signal;
use tokio::process::Command;

use super::{WRITERS, why_not};
use crate::faults::load::{Load, WAIT};
use crate::faults::{Asked, End, OFTEN, Outcome, logs, strace};

/// Which call fails at which server; whether that one leads.
const ROUNDS: [(&str, bool); 6] = [
    ("fdatasync", true),
    ("fdatasync", false),
    ("pwritev", true),
    ("pwritev", false),
    ("fsync", true),
    ("fdatasync", true),
];
/// Acknowledgements that show that a cluster goes on.
const ON: u64 = 200;

/// Runs the task.
pub(super) async fn run(asked: Asked) -> Outcome {
    if let Some(why) = why_not() {
        return Ok(End::Skipped(why));
    }
    let executable = asked.executable()?;
    let begin = Instant::now();
    let mut cluster = Cluster::start(&executable, 3, &OFTEN).map_err(|error| error.to_string())?;
    let load = Load::start(cluster.addresses(), WRITERS);
    let ended = rounds(&mut cluster, &load).await;
    if ended.is_err() {
        logs(&cluster).iter().for_each(|log| eprintln!("{log}"));
    }
    let acknowledged = load.acknowledged();
    drop(load);
    cluster.stop().await.map_err(|failure| failure.to_string())?;
    if matches!(ended, Ok(End::Held)) {
        println!(
            "{} failed calls: each server said why and stayed up, the others went on; {acknowledged} acknowledged writes, 0 lost ({:.0} s)",
            ROUNDS.len(),
            begin.elapsed().as_secs_f64()
        );
    }
    ended
}

async fn rounds(cluster: &mut Cluster, load: &Load) -> Outcome {
    for (round, (call, leads)) in ROUNDS.into_iter().enumerate() {
        let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
        let victim = if leads { leader } else { (leader + 1) % cluster.size() };
        let what = format!("{call} of server {}, {}", victim + 1, if leads { "leader" } else { "follower" });
        let nth = 1 + 7 * u32::try_from(round).unwrap_or(0);
        match fail(cluster, load, victim, call, nth).await.map_err(|problem| format!("{what}: {problem}"))? {
            Some(pause) => println!("killpoints --eio: {what}: acknowledged again after {pause} ms"),
            None => return Ok(End::Skipped("strace can't attach to a process here".into())),
        }
    }
    Ok(End::Held)
}

/// How long nothing was acknowledged, in milliseconds; `None` if strace can't do it.
async fn fail(
    cluster: &mut Cluster,
    load: &Load,
    victim: usize,
    call: &str,
    nth: u32,
) -> Result<Option<u128>, String> {
    let problem = |failure: atomix_cli::exit::Failure| failure.to_string();
    // At work, so that the call comes.
    acknowledged(load, load.acknowledged() + ON).await?;
    let pid = cluster.pid(victim).ok_or("it does not run")?;
    let mut strace = Command::new("strace")
        .args(strace::failing(pid, call, nth))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let Some(pause) = watched(cluster, load, victim, &mut strace).await? else { return Ok(None) };
    strace.kill().await.map_err(|error| error.to_string())?;
    acknowledged(load, load.acknowledged() + ON).await?;
    load.check().await?;
    still_says_so(cluster, load, victim).await?;
    cluster.signal(victim, Signal::TERM).map_err(|error| error.to_string())?;
    let code = cluster.ended(victim, WAIT).await.map_err(problem)?;
    if code != Some(Exit::DataDirectory as i32) {
        return Err(format!("it ended with {code:?}"));
    }
    cluster.start_server(victim).map_err(|error| error.to_string())?;
    cluster.caught_up(victim, WAIT).await.map_err(problem)?;
    load.check_at(&cluster.addresses()[victim]).await?;
    Ok(Some(pause))
}

/// Waits until the server says that its disk failed, and the others have gone on; for how long nothing was acknowledged, in
/// milliseconds.
async fn watched(
    cluster: &mut Cluster,
    load: &Load,
    victim: usize,
    strace: &mut tokio::process::Child,
) -> Result<Option<u128>, String> {
    let (mut last, mut pause) = ((load.acknowledged(), Instant::now()), Duration::ZERO);
    let begin = Instant::now();
    let mut said: Option<u64> = None;
    while begin.elapsed() < WAIT {
        if last.0 < load.acknowledged() {
            last = (load.acknowledged(), Instant::now());
        } else {
            pause = pause.max(last.1.elapsed());
        }
        if let Some(how) = cluster.has_ended(victim) {
            return Err(format!("it has ended: {how}"));
        }
        if said.is_none() && strace.try_wait().map_err(|error| error.to_string())?.is_some() {
            return Ok(None);
        }
        if said.is_some_and(|before| load.acknowledged() >= before + ON) {
            return Ok(Some(pause.as_millis()));
        }
        let status = cluster.status(victim).await;
        if said.is_none() && status.is_some_and(|status| status.role == "failed") {
            said = Some(load.acknowledged());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(format!("it does not say that its disk failed, or the others do not go on ({said:?})"))
}

/// It answers, has said so once in its log, and changes nothing on its disk.
async fn still_says_so(cluster: &mut Cluster, load: &Load, victim: usize) -> Result<(), String> {
    let before = files(&cluster.directory(victim))?;
    acknowledged(load, load.acknowledged() + ON).await?;
    let status = cluster.status(victim).await.ok_or("it does not answer any more")?;
    if !status.notice.contains("Input/output error") || status.is_ready() || status.votes {
        return Err(format!("it says {status:?}"));
    }
    let after = files(&cluster.directory(victim))?;
    if before != after {
        return Err(format!("it goes on to write: {before:?}, then {after:?}"));
    }
    let log = std::fs::read_to_string(cluster.log(victim)).map_err(|error| error.to_string())?;
    let last_start = log.rsplit(" listening ").next().unwrap_or_default();
    let errors: Vec<&str> = last_start.lines().filter(|line| line.contains("ERROR")).collect();
    match errors[..] {
        [one] if one.contains("Input/output error") => Ok(()),
        _ => Err(format!("its log has as errors: {errors:?}")),
    }
}

/// Names, lengths and times of what is in a directory.
fn files(directory: &Path) -> Result<Vec<(String, u64, SystemTime)>, String> {
    let list = || -> std::io::Result<Vec<_>> {
        let files = std::fs::read_dir(directory)?.map(|file| {
            let file = file?;
            let metadata = file.metadata()?;
            Ok((file.file_name().display().to_string(), metadata.len(), metadata.modified()?))
        });
        let mut files = files.collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    };
    list().map_err(|error| error.to_string())
}

async fn acknowledged(load: &Load, goal: u64) -> Result<(), String> {
    let enough = until("acknowledgements", WAIT, async || (load.acknowledged() >= goal).then_some(()));
    enough.await.map_err(|failure| failure.to_string())
}
