//! What the demo tells its own processes.

use std::time::Duration;

use clap::Args;

use super::Cluster;
use super::values::duration;

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

/// Settings of the demo's writer of numbers.
#[derive(Clone, Debug, Args)]
pub struct DemoSequence {
    /// The cluster.
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Settings of the demo's holders.
#[derive(Clone, Debug, Args)]
pub struct DemoHolder {
    /// The cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Its session's timeout.
    #[arg(long, value_parser = duration)]
    pub session_timeout: Duration,
    /// Where the guarded resource listens on loopback.
    #[arg(long)]
    pub guarded: u16,
}
