//! `atomix lock`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Cluster;
use super::values::duration;

/// What to do with a lock.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  atomix lock run /jobs/nightly --cluster 127.0.0.1:8701 -- ./nightly.sh
  atomix lock status /jobs/nightly --cluster 127.0.0.1:8701")]
pub enum Lock {
    /// Runs a command while the lock is held
    Run(LockRun),
    /// Prints who holds the lock, and how many wait for it
    Status(LockStatus),
}

/// What to run under a lock.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix lock run /jobs/nightly --cluster 127.0.0.1:8701 -- ./nightly.sh
  atomix lock run /jobs/nightly --no-wait --cluster 127.0.0.1:8701 -- sh -c 'echo \"my token is $ATOMIX_LOCK_TOKEN\"'

The lock is created if need be. Waits for it without limit, unless told otherwise; not granted in time, exits with 1. The command
gets ATOMIX_LOCK_TOKEN and ATOMIX_LOCK_PATH, and runs in a process group of its own, so it can't read from a terminal.

While the command runs, the session is kept alive. When the cluster has been out of reach for so long that only --grace is left of the
time for which nobody else can have the lock, the command's process group gets SIGTERM, and SIGKILL shortly before the end of that
time; the same if the lock is deleted. `lock run` exits with 5 then, and else with the command's own code (128 and the signal if one
ended it); with 2 if the command can't be started. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to the command; once that has
ended, with all that it started, the lock is released, and the exit code is 130. If `lock run` itself is killed, so are its command's processes.

What this can't do: end the command in time when the whole machine, or `lock run`, stands still meanwhile. Whatever the command writes to
should therefore refuse a token smaller than one that it has seen.")]
pub struct LockRun {
    /// The lock
    pub path: String,
    /// Wait no longer than this for the lock
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Do not wait for the lock
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// How long the lock stays with this holder when nothing is heard of it
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub session_timeout: Duration,
    /// How long the command has to end by itself [default: 1s, at most a fifth of the session timeout]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub grace: Option<Duration>,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Which lock to look at.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix lock status /jobs/nightly --cluster 127.0.0.1:8701
  atomix lock status /jobs/nightly --json --cluster 127.0.0.1:8701

Exits with 1 if there is no such lock; looking does not create it.")]
pub struct LockStatus {
    /// The lock
    pub path: String,
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What to keep on the leash.
#[derive(Clone, Debug, Args)]
pub struct Leash {
    /// The process that holds it.
    #[arg(long)]
    pub parent: i32,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}
