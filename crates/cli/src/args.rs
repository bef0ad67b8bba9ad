//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  atomix demo
  atomix serve --listen 127.0.0.1:8701 --bootstrap 127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703 --data-dir data/1
  export ATOMIX_CLUSTER=127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703
  atomix map put /users ada \"Ada Lovelace\"
  atomix map get /users ada
  atomix status

Exit codes:
  0 done · 1 refused · 2 usage · 3 unreachable · 4 outcome unknown · 5 lock lost
  6 data directory foreign, unwritable, in use or corrupt · 7 duplicate identity · 130 interrupted";

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
    /// Shows on this machine what a cluster survives: three servers, a killed leader, a killed cluster.
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
    /// What the servers of a cluster say of themselves.
    Status(Status),
    /// Writes as fast as it can and reports each acknowledgement; ends with its standard input.
    #[command(hide = true)]
    DemoWriter(DemoWriter),
    /// Creates a directory, prints its path, and removes it when standard input closes.
    #[command(hide = true)]
    Guard {
        /// In which directory.
        place: PathBuf,
    },
}

/// Settings of one server.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example, the first of three servers:
  atomix serve --listen 127.0.0.1:8701 --bootstrap 127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703 --data-dir data/1

The servers listed form the cluster together the first time: all must be up. After that a majority is enough, and
the same arguments restart a server. Logs go to standard error; ATOMIX_LOG=debug says more. SIGTERM and SIGINT end
the server cleanly.")]
pub struct Serve {
    /// Where to listen, as the other servers and clients reach it
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub listen: String,
    /// All servers of the cluster, this one among them
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', required = true, value_parser = address)]
    pub bootstrap: Vec<String>,
    /// Where this server keeps its log and snapshots
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
    /// Between two heartbeats of a leader [default: 50ms]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub heartbeat: Option<Duration>,
    /// Shortest and longest election timeout [default: 300ms..600ms]
    #[arg(long, value_name = "SHORTEST..LONGEST", value_parser = range)]
    pub election_timeout: Option<(Duration, Duration)>,
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

/// One operation on a map.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  atomix map put /users ada \"Ada Lovelace\" --cluster 127.0.0.1:8701
  atomix map get /users ada --cluster 127.0.0.1:8701
  atomix map list /users --cluster 127.0.0.1:8701

Keys and values are strings. `get` and `remove` of a key that is not there exit with 1.")]
pub enum Map {
    /// Sets a key's value; prints the value that it replaces, if any
    #[command(after_help = "\
Example:
  atomix map put /users ada \"Ada Lovelace\" --cluster 127.0.0.1:8701

The map is created if need be. If the outcome is not known in time, exits with 4: it may have been done.")]
    Put {
        /// The map
        path: String,
        /// The key
        key: String,
        /// Its new value
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Prints a key's value
    #[command(after_help = "\
Example:
  atomix map get /users ada --cluster 127.0.0.1:8701

Sees every put that was acknowledged before. Exits with 1 if the key is not there.")]
    Get {
        /// The map
        path: String,
        /// The key
        key: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Removes a key; prints the value that it had
    #[command(after_help = "\
Example:
  atomix map remove /users ada --cluster 127.0.0.1:8701

Exits with 1 if the key was not there.")]
    Remove {
        /// The map
        path: String,
        /// The key
        key: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Prints all keys with their values, a tab between them
    #[command(after_help = "\
Example:
  atomix map list /users --cluster 127.0.0.1:8701")]
    List {
        /// The map
        path: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
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

/// Settings of the demo's writer.
#[derive(Clone, Debug, Args)]
pub struct DemoWriter {
    /// The cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Commands in flight.
    #[arg(long)]
    pub outstanding: usize,
}

/// `127.0.0.1:8701`, `[::1]:8701`, `server-1.example.org:8701`.
fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.map(str::parse::<u16>) {
        Some(Ok(_)) => Ok(text.into()),
        _ => Err(format!("`{text}` is not an address such as 127.0.0.1:8701")),
    }
}

/// `50ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 =
        text[..digits].parse().map_err(|_| format!("`{text}` is not a duration such as 50ms or 5s"))?;
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("`{text}` needs a unit: ms, s or m")),
    };
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// `300ms..600ms`.
fn range(text: &str) -> Result<(Duration, Duration), String> {
    let (shortest, longest) =
        text.split_once("..").ok_or_else(|| format!("`{text}` is not a range such as 300ms..600ms"))?;
    let (shortest, longest) = (duration(shortest)?, duration(longest)?);
    if shortest < longest { Ok((shortest, longest)) } else { Err(format!("`{text}` is an empty range")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "ms", "-5s", "5h", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_have_a_port() {
        for right in ["127.0.0.1:8701", "[::1]:8701", "server-1.example.org:8701", "127.0.0.1:0"] {
            assert_eq!(address(right), Ok(right.into()));
        }
        for wrong in ["", "127.0.0.1", ":8701", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_are_not_empty() {
        assert_eq!(range("300ms..1s"), Ok((Duration::from_millis(300), Duration::from_secs(1))));
        for wrong in ["300ms", "1s..300ms", "1s..1s", "300..600"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
