//! The command line.

mod demo;
mod lock;
mod log;
mod map;
mod member;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

pub use self::demo::{DemoHolder, DemoSequence, DemoWriter};
pub use self::lock::{Leash, Lock, LockRun, LockStatus};
pub use self::log::{Log, LogDirectory, LogDump};
pub use self::map::{Map, MapWatch};
pub use self::member::{
    Greater, Lesser, Making, Member, MemberAdd, MemberDemote, MemberList, MemberPlan, MemberPromote,
    MemberRemove, MemberTransfer, Wanted,
};
use self::values::{address, duration, range};

const EXAMPLES: &str = "\
Examples:
  atomix demo
  atomix serve --listen 127.0.0.1:8701 --bootstrap 127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703 --data-dir data/1
  export ATOMIX_CLUSTER=127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703
  atomix map put /users ada \"Ada Lovelace\"
  atomix map get /users ada
  atomix map watch /users
  atomix lock run /jobs/nightly -- ./nightly.sh
  atomix status
  atomix member list
  atomix log verify data/1

Exit codes:
  0 done · 1 refused · 2 usage · 3 unreachable · 4 outcome unknown · 5 lock lost
  6 data directory foreign, unwritable, in use or corrupt, or its disk failed · 7 duplicate identity
  130 interrupted
  `lock run` passes on its command's own, 128 and the signal if one ended it.";

/// Coordination that survives the loss of any minority of its servers.
#[derive(Clone, Debug, Parser)]
#[command(name = "atomix", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Shows on this machine what a cluster survives: a killed leader, a killed cluster, holders of a lock that stop.
    #[command(after_help = "\
Example:
  atomix demo

Starts three servers on loopback with data in a temporary directory, and removes everything at the end.
Exits with 0 only if every check held.")]
    Demo,
    /// Runs one server.
    Serve(Serve),
    /// One operation on a replicated map of strings.
    #[command(subcommand)]
    Map(Map),
    /// Runs a command while a lock is held, or tells who holds it.
    #[command(subcommand)]
    Lock(Lock),
    /// Deletes the resource at a path, with all that is in it.
    Delete(Delete),
    /// Prints the kind of the resource at a path; exits with 1 if there is none.
    Exists(Exists),
    /// What the servers of a cluster say of themselves.
    Status(Status),
    /// What the data directory of a stopped server holds, and what is wrong with it.
    #[command(subcommand)]
    Log(Log),
    /// Who belongs to the cluster, and who leads it: members are listed, added, removed, promoted, demoted.
    #[command(subcommand)]
    Member(Member),
    /// Writes as fast as it can and reports each acknowledgement; ends with its standard input.
    #[command(hide = true)]
    DemoWriter(DemoWriter),
    /// Writes one number after another and reports each acknowledgement; ends with its standard input.
    #[command(hide = true)]
    DemoSequence(DemoSequence),
    /// A resource that checks fencing tokens and knows nothing else of locks; ends with its standard input.
    #[command(hide = true)]
    DemoGuarded,
    /// Holds a lock and writes to the guarded resource, whether or not it still may; ends with its standard input.
    #[command(hide = true)]
    DemoHolder(DemoHolder),
    /// Runs a command in this process group, and ends the group when the process that asked for it is gone.
    #[command(hide = true)]
    Leash(Leash),
    /// Creates a directory, prints its path, and removes it when standard input closes.
    #[command(hide = true)]
    Guard {
        /// In which directory.
        place: PathBuf,
    },
}

/// Settings of one server.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("entry").args(["bootstrap", "join"]).required(true), after_help = "\
Examples, the first of three servers, and a fourth that comes later:
  atomix serve --listen 127.0.0.1:8701 --bootstrap 127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703 --data-dir data/1
  atomix serve --listen 127.0.0.1:8704 --join 127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703 --data-dir data/4

The servers listed form the cluster together the first time: all must be up. After that a majority is enough, and
the same arguments restart a server. One that joins is taken in by the leader, and votes when it has caught up; ended before that,
it goes on when it is started again, unless its log no longer shows that it never had its vote (a snapshot took its place): then its
status says so, and `atomix member promote` gives it one. With --as learner it waits for `atomix member add`, which gives it its vote.
A disk that fails ends a server's service, not its process: it lets another lead, says why in its log and its status, and exits with 6
when it is ended. While a disk is full, the server is not ready, and the cluster takes commands if enough others have room.
Never put an older copy of a data directory in the place of a member's while others live: what it has acknowledged since would be
lost with its vote. A server that has lost its directory comes back with an empty one and --join.
Logs go to standard error; ATOMIX_LOG=debug says more. SIGTERM and SIGINT end the server cleanly: a leader hands
over first.")]
pub struct Serve {
    /// Where to listen, as the other servers and clients reach it
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub listen: String,
    /// All servers of a cluster that is to be formed, this one among them
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        conflicts_with = "join",
        value_parser = address
    )]
    pub bootstrap: Vec<String>,
    /// Servers of a cluster that is there: asks to be taken in
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', value_parser = address)]
    pub join: Vec<String>,
    /// What it wants to be in the cluster that it joins [default: voter]
    #[arg(long = "as", value_name = "KIND", conflicts_with = "bootstrap")]
    pub wanted: Option<Wanted>,
    /// Voters with a greater one are preferred as leaders [default: 0]
    #[arg(long, value_name = "NUMBER", conflicts_with = "bootstrap")]
    pub priority: Option<u8>,
    /// Where this server keeps its log and snapshots
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
    /// Between two heartbeats of a leader [default: 50ms]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub heartbeat: Option<Duration>,
    /// Shortest and longest election timeout [default: 300ms..600ms]
    #[arg(long, value_name = "SHORTEST..LONGEST", value_parser = range)]
    pub election_timeout: Option<(Duration, Duration)>,
    /// When it leads, answer linearizable reads without asking a majority, on promises that last so long: sound while no clock runs more
    /// than 5 % fast or slow. At most the shortest election timeout [default: none]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub lease: Option<Duration>,
    /// Take a snapshot when the log since the last one is longer than this, and than that snapshot [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    pub snapshot_log_bytes: Option<u64>,
    /// Length of a segment of the log
    #[arg(long, value_name = "BYTES", hide = true)]
    pub segment_bytes: Option<u64>,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

/// How to reach a cluster.
#[derive(Clone, Debug, Args)]
pub struct Cluster {
    /// Servers of the cluster; one that is up is enough
    #[arg(
        long,
        env = "ATOMIX_CLUSTER",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        required = true,
        value_parser = address
    )]
    pub cluster: Vec<String>,
    /// Longest wait for the cluster
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

/// What to say of a cluster.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix status --cluster 127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703
  atomix status --json --cluster 127.0.0.1:8701

Asks the servers named and those that they name, and exits with 3 if none answers.")]
pub struct Status {
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What to delete.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix delete /users --cluster 127.0.0.1:8701
  atomix delete /jobs/nightly --force --cluster 127.0.0.1:8701

Exits with 1 if there is nothing, or if it has granted something, as a lock that is held. --force revokes that first, and waits
for the holder to let go, or for its session to end; until then nothing is granted at this path. If that takes longer than
--timeout, exits with 4: it goes later.")]
pub struct Delete {
    /// Where it is
    pub path: String,
    /// Also if it has granted something
    #[arg(long)]
    pub force: bool,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What to look for.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  atomix exists /users --cluster 127.0.0.1:8701")]
pub struct Exists {
    /// Where to look
    pub path: String,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
