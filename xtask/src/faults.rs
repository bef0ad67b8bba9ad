//! Real processes on real disks that lose their power, fail or are full, and processes killed in the middle of anything.
//!
//! | module | what it is |
//! |---|---|
//! | `powercut` | `cargo xtask powercut`: file systems that are shut down under servers at work |
//! | `killpoints` | `cargo xtask killpoints`: servers killed at a system call, and disks that fail |
//! | `full` | `cargo xtask full-disk`: disks without room |
//! | `load` | writers that know what must be found again |
//! | `disk` | an ext4 file system of its own |
//! | `strace` | system calls looked at, and made to fail |

mod disk;
mod full;
mod killpoints;
mod load;
mod powercut;
mod strace;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use atomix::Status;
use atomix_cli::cluster::Cluster;

use crate::metadata::{Metadata, cargo};

pub(crate) use full::run as full_disk;
pub(crate) use killpoints::run as killpoints;
pub(crate) use powercut::run as powercut;

/// Segments are short, and snapshots taken all the time: whatever happens, it happens to some change of files.
const OFTEN: [&str; 8] = [
    "--heartbeat",
    "20ms",
    "--election-timeout",
    "100ms..200ms",
    "--snapshot-log-bytes",
    "100000",
    "--segment-bytes",
    "65536",
];

/// Lines of a server's log that are shown after a failure.
const LOG_LINES: usize = 12;

/// How a task ended.
enum End {
    /// All held.
    Held,
    /// It can't be done on this machine, and why.
    Skipped(String),
}

/// Why a task failed, or could not go on.
type Outcome = Result<End, String>;

/// Settings that all these tasks take.
struct Asked {
    /// How often.
    times: u64,
    /// Decides what is drawn.
    seed: u64,
    /// The server's binary, built unless given.
    executable: Option<PathBuf>,
    /// Words that only one task knows.
    flags: Vec<String>,
}

impl Asked {
    /// Reads `--TIMES N`, `--seed N`, `--with BINARY` and the flags named.
    fn parse(args: &[String], times: &str, usual: u64, flags: &[&str]) -> Result<Self, String> {
        let seed = u64::from(std::process::id());
        let mut asked = Asked { times: usual, seed, executable: None, flags: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            let number = |text: &String| text.parse().map_err(|_| format!("`{text}` is no number"));
            match arg.as_str() {
                arg if arg == times => asked.times = number(value()?)?,
                "--seed" => asked.seed = number(value()?)?,
                "--with" => asked.executable = Some(value()?.into()),
                arg if flags.contains(&arg) => asked.flags.push(arg.into()),
                other => return Err(format!("unknown argument `{other}`")),
            }
        }
        Ok(asked)
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// The server's binary, of the same profile as this one.
    fn executable(&self) -> Result<PathBuf, String> {
        if let Some(executable) = &self.executable {
            return Ok(executable.clone());
        }
        let mut build = Command::new(cargo());
        build.args(["build", "--quiet", "--locked", "--package", "atomix-cli"]);
        let folder = if cfg!(debug_assertions) {
            "debug"
        } else {
            build.arg("--release");
            "release"
        };
        let status = build.status().map_err(|error| format!("cannot run cargo: {error}"))?;
        if !status.success() {
            return Err(format!("cannot build the server: {status}"));
        }
        Ok(Metadata::load()?.target_directory.join(folder).join("atomix"))
    }
}

/// Runs a task until it ends or is interrupted; what it made is gone in either case.
fn end(task: &str, running: impl Future<Output = Outcome>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{task}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = running => Some(ended),
            _ = atomix_cli::signals::interrupted() => None,
        }
    });
    match ended {
        Some(Ok(End::Held)) => ExitCode::SUCCESS,
        Some(Ok(End::Skipped(why))) => {
            println!("{task}: skipped: {why}");
            ExitCode::SUCCESS
        }
        Some(Err(problem)) => {
            eprintln!("{task}: FAILED: {problem}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("{task}: interrupted");
            ExitCode::from(130)
        }
    }
}

/// Resolves when a server has ended that nobody ended; how.
async fn watch(cluster: &mut Cluster) -> String {
    loop {
        for server in 0..cluster.size() {
            if let Some(how) = cluster.has_ended(server) {
                return format!("server {} of {} has ended by itself: {how}", server + 1, cluster.size());
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The last lines of what each server said.
fn logs(cluster: &Cluster) -> Vec<String> {
    let tail = |server| {
        let log = std::fs::read_to_string(cluster.log(server)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!("-- the last lines of server {} of {}:\n{last}", server + 1, cluster.size())
    };
    (0..cluster.size()).map(tail).collect()
}

/// What a server takes for damage, though it only was interrupted. One of the two copies of what it keeps twice may have been
/// half-written: that is what the other is for.
fn taken_for_damage(status: &Status) -> Option<String> {
    let damage = status.damage.iter().find(|damage| !damage.contains("the other copy is whole")).cloned();
    damage.or_else(|| status.abstains_until.map(|until| format!("it abstains until {until}")))
}
