//! `cargo xtask killpoints --eio`: a write, sync or rename of one server of three fails once, under load.
//!
//! That server says why, with the file whose call failed first, and stays up to say so, asks nothing of its disk any more, though the next call
//! would not fail, and ends with its own exit code when it is told to. If it led, another does. They go on, and no acknowledged write is
//! lost, at the server itself neither once it is started again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use atomix::Status;
use atomix_cli::cluster::{Cluster, until};
use atomix_cli::exit::Exit;
use rustix::process::Signal;
use tokio::process::Command;

use super::WRITERS;
use crate::faults::load::{Load, WAIT};
use crate::faults::{Asked, End, OFTEN, Outcome, logs, strace};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Log,
    Manifest,
    /// The snapshot that is being made.
    Snapshot,
    Directory,
}

/// Which call on what fails at which server; whether that one leads.
const ROUNDS: [(&str, Of, bool); 11] = [
    ("fdatasync", Of::Log, true),
    ("fdatasync", Of::Log, false),
    ("pwritev", Of::Log, true),
    ("pwritev", Of::Log, false),
    ("fdatasync", Of::Manifest, true),
    ("pwritev", Of::Manifest, false),
    ("pwritev", Of::Snapshot, true),
    ("fdatasync", Of::Snapshot, false),
    ("rename", Of::Snapshot, true),
    ("fsync", Of::Directory, true),
    ("fdatasync", Of::Log, true),
];
/// Segments behind the newest one in which the log may be by the time that a call fails.
const AHEAD: u64 = 32;
/// Acknowledgements that show that a cluster goes on.
const ON: u64 = 200;
/// What a server is whose disk failed.
const FAILED: &str = "failed";
/// What the data directory itself is called.
const DIRECTORY: &str = "the data directory";

/// Runs the task.
pub(super) async fn run(asked: Asked) -> Outcome {
    if let Some(why) = strace::why_not_attached() {
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
            "{} failed calls: each server named the file and stayed up, another led, the others went on; {acknowledged} acknowledged writes, 0 lost ({:.0} s)",
            ROUNDS.len(),
            begin.elapsed().as_secs_f64()
        );
    }
    ended
}

async fn rounds(cluster: &mut Cluster, load: &Load) -> Outcome {
    for (round, (call, of, leads)) in ROUNDS.into_iter().enumerate() {
        let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
        let victim = if leads { leader } else { (leader + 1) % cluster.size() };
        let role = if leads { "leader" } else { "follower" };
        let what = format!("{call} ({of:?}) of server {}, {role}", victim + 1);
        // Of the log's calls there are many, of the others few.
        let nth = if of == Of::Log { 1 + 7 * u32::try_from(round).unwrap_or(0) } else { 1 };
        let failed = fail(cluster, load, victim, call, of, nth).await;
        let (file, pause) = failed.map_err(|problem| format!("{what}: {problem}"))?;
        println!("killpoints --eio: {what}: {file} is named; acknowledged again after {pause} ms");
    }
    Ok(End::Held)
}

/// The file whose call failed, and how long nothing was acknowledged, in milliseconds.
async fn fail(
    cluster: &mut Cluster,
    load: &Load,
    victim: usize,
    call: &str,
    of: Of,
    nth: u32,
) -> Result<(String, u128), String> {
    let problem = |failure: atomix_cli::exit::Failure| failure.to_string();
    // At work, so that the call comes.
    acknowledged(load, load.acknowledged() + ON).await?;
    let pid = cluster.pid(victim).ok_or("it does not run")?;
    let led = cluster.status(victim).await.filter(|status| status.role == "leader");
    let directory = cluster.directory(victim);
    let trace = cluster.log(victim).with_extension("trace");
    let mut strace = Command::new("strace")
        .args(strace::failing(pid, call, &of.files(&directory)?, nth, &directory, &trace))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let pause = watched(cluster, load, victim, &mut strace).await?;
    strace.kill().await.map_err(|error| error.to_string())?;
    let trace = fs::read(&trace).map_err(|error| format!("no trace: {error}"))?;
    let files = strace::injected(&String::from_utf8_lossy(&trace), &directory);
    let files = files.ok_or("no call was made to fail")?;
    another_leads(cluster, victim, led).await?;
    acknowledged(load, load.acknowledged() + ON).await?;
    load.check().await?;
    let file = still_says_so(cluster, load, victim, &files).await?;
    cluster.signal(victim, Signal::TERM).map_err(|error| error.to_string())?;
    let code = cluster.ended(victim, WAIT).await.map_err(problem)?;
    if code != Some(Exit::DataDirectory as i32) {
        return Err(format!("it ended with {code:?}"));
    }
    cluster.start_server(victim).map_err(|error| error.to_string())?;
    cluster.caught_up(victim, WAIT).await.map_err(problem)?;
    load.check_at(&cluster.addresses()[victim]).await?;
    Ok((file, pause))
}

impl Of {
    /// The files, empty for the directory itself.
    fn files(self, directory: &Path) -> Result<Vec<String>, String> {
        Ok(match self {
            Of::Log => {
                let numbers = files(directory)?.into_iter().filter_map(|(name, ..)| {
                    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
                    u64::from_str_radix(digits, 16).ok()
                });
                let newest = numbers.max().ok_or("it has no log")?;
                let near = newest.saturating_sub(2)..=newest + AHEAD;
                near.map(|number| format!("log-{number:016x}.seg")).collect()
            }
            Of::Manifest => ["manifest-0", "manifest-1"].map(str::to_owned).into(),
            Of::Snapshot => vec!["snapshot.tmp".into()],
            Of::Directory => vec![String::new()],
        })
    }
}

/// Another one leads: in a later term, if the one that failed did before.
async fn another_leads(cluster: &Cluster, victim: usize, led: Option<Status>) -> Result<(), String> {
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let status = cluster.status(leader).await.ok_or("the leader does not answer")?;
    if leader == victim || led.is_some_and(|led| status.term <= led.term) {
        return Err(format!("server {} leads in term {}", leader + 1, status.term));
    }
    Ok(())
}

/// Waits until the server says that its disk failed, and the others have gone on; for how long nothing was acknowledged, in
/// milliseconds.
async fn watched(
    cluster: &mut Cluster,
    load: &Load,
    victim: usize,
    strace: &mut tokio::process::Child,
) -> Result<u128, String> {
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
        if let Some(how) = strace.try_wait().map_err(|error| error.to_string())? {
            return Err(format!("strace has ended: {how}"));
        }
        if said.is_some_and(|before| load.acknowledged() >= before + ON) {
            return Ok(pause.as_millis());
        }
        let status = cluster.status(victim).await;
        if said.is_none() && status.is_some_and(|status| status.role == FAILED) {
            said = Some(load.acknowledged());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(format!("it does not say that its disk failed, or the others do not go on ({said:?})"))
}

/// It answers, has said so once in its log, with one of the files whose call failed, and changes nothing on its disk. Which file.
async fn still_says_so(
    cluster: &mut Cluster,
    load: &Load,
    victim: usize,
    files_of_call: &[String],
) -> Result<String, String> {
    let before = files(&cluster.directory(victim))?;
    acknowledged(load, load.acknowledged() + ON).await?;
    let status = cluster.status(victim).await.ok_or("it does not answer any more")?;
    let names = files_of_call.iter().map(|file| if file.is_empty() { DIRECTORY } else { file });
    let Some(file) = names.clone().find(|file| status.notice.contains(file)) else {
        let names: Vec<&str> = names.collect();
        return Err(format!("a call on {names:?} failed first, and it says {:?}", status.notice));
    };
    let says = |words: &str| words.contains("Input/output error") && words.contains(file);
    if !says(&status.notice) || status.role != FAILED || status.is_ready() || status.votes {
        return Err(format!("it says {status:?}"));
    }
    let after = files(&cluster.directory(victim))?;
    if before != after {
        return Err(format!("it goes on to write: {before:?}, then {after:?}"));
    }
    let log = fs::read_to_string(cluster.log(victim)).map_err(|error| error.to_string())?;
    let last_start = log.rsplit(" listening ").next().unwrap_or_default();
    let errors: Vec<&str> = last_start.lines().filter(|line| line.contains("ERROR")).collect();
    match errors[..] {
        [one] if says(one) => Ok(file.to_owned()),
        _ => Err(format!("its log has as errors: {errors:?}")),
    }
}

/// Names, lengths and times of what is in a directory.
fn files(directory: &Path) -> Result<Vec<(String, u64, SystemTime)>, String> {
    let list = || -> std::io::Result<Vec<_>> {
        let files = fs::read_dir(directory)?.map(|file| {
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
