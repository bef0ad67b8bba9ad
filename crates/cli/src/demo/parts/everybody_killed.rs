//! (c) All servers are killed, and restarted.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::client::Client;
use super::super::report::Report;
use super::super::tally::Tally;
use super::WAIT;
use super::every_server::USERS;
use super::leader_killed::check_written;
use crate::cluster::Cluster;
use crate::exit::Failure;

pub(super) async fn run(
    executable: &Path,
    cluster: &mut Cluster,
    report: &mut Report,
    users: &BTreeMap<String, String>,
    written: &Tally,
) -> Result<(), Failure> {
    report.part("(c) all three are killed, and restarted");
    for server in 0..cluster.size() {
        cluster.kill(server).await?;
    }
    report.step("all three were killed");
    for server in 0..cluster.size() {
        cluster.start_server(server)?;
    }
    let leader = cluster.leader(WAIT).await?;
    report.step(&format!("all three were restarted; server {} leads", leader + 1));
    let client = Client::new(executable, &cluster.addresses());
    let found = client.list(USERS).await?;
    report.check(
        "the map of (a) is there",
        format!("{} of {} keys", found.len(), users.len()),
        found == *users,
    );
    check_written(&client, report, "after the restart", written).await
}
