//! The parts of the demo, one after another on the same cluster.

mod every_server;
mod everybody_killed;
mod fenced;
mod leader_killed;
mod watched;

use std::path::Path;
use std::time::Duration;

use super::report::Report;
use crate::cluster::Cluster;
use crate::exit::Failure;
use crate::exit::say;

/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(15);

/// Runs all parts.
pub(super) async fn run(
    executable: &Path,
    cluster: &mut Cluster,
    report: &mut Report,
) -> Result<(), Failure> {
    let servers = cluster.addresses();
    say!("three servers: {}", servers.join(", "));
    let leader = cluster.leader(WAIT).await?;
    report.step(&format!("the cluster has formed; server {} leads", leader + 1));
    let users = every_server::run(executable, &servers, report).await?;
    let written = leader_killed::run(executable, cluster, report).await?;
    everybody_killed::run(executable, cluster, report, &users, &written).await?;
    fenced::run(executable, &servers, report).await?;
    watched::run(executable, cluster, report).await
}
