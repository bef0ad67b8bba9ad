//! `atomix log`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to say of a data directory.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  atomix log verify data/1
  atomix log inspect data/1
  atomix log dump data/1 --from 100 --to 120

The server must be stopped: exits with 6 while one runs, and if it is no data directory. Nothing is changed, no right to write is
needed, and no server can start there meanwhile.")]
pub enum Log {
    /// Says whether anything is wrong, where, and what follows from it
    #[command(after_help = "\
Examples:
  atomix log verify data/1
  atomix log verify data/1 --json

Reads everything. Exits with 0 if nothing is wrong; else prints a line for each thing that is, and exits with 6. What a crash leaves,
as a batch that it broke off, is said and not wrong: a start cuts it off.")]
    Verify(LogDirectory),
    /// Says what is in it: identity, term and vote, configuration, segments, snapshots, and what the next start makes of it
    #[command(after_help = "\
Examples:
  atomix log inspect data/1
  atomix log inspect data/1 --json

Exits with 0 whatever is wrong with what it holds: see `atomix log verify`.")]
    Inspect(LogDirectory),
    /// Prints the records of the log, one a line, those that are not served among them
    Dump(LogDump),
}

/// Which data directory.
#[derive(Clone, Debug, Args)]
pub struct LogDirectory {
    /// The data directory
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// For programs: one object
    #[arg(long)]
    pub json: bool,
}

/// What to print.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix log dump data/1 --from 100 --to 120
  atomix log dump data/1 --json

A line is index, term, kind, whether it is served, cluster time in milliseconds, length of the payload, its first bytes, batch, file and
offset, with tabs between. Segment by segment, in the order in which they lie there: `replaced` is what a later truncation took back,
`torn` what a crash broke off, `not served` what lies behind damage. A trailer ends a batch, and names its last entry.")]
pub struct LogDump {
    /// The data directory
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// The first index
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    pub from: u64,
    /// The last index [default: all]
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    pub to: u64,
    /// For programs: one object a line
    #[arg(long)]
    pub json: bool,
}
