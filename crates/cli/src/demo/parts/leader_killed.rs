//! (b) The leader is killed under a stream of writes.

use std::path::Path;
use std::time::Instant;

use super::super::client::Client;
use super::super::report::{Report, milliseconds};
use super::super::tally::{Tally, Writer};
use super::super::writer::{COUNTER, COUNTERS, KEYS};
use super::WAIT;
use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};

/// Commands that the writer keeps in flight.
const OUTSTANDING: usize = 64;
/// Acknowledgements before a leader is killed, and again before it is restarted.
const STRETCH: u64 = 300;
/// The leader is killed again if no retry met the table, at most so often.
const ROUNDS: usize = 5;

/// What it has written, for later parts to look for.
pub(super) async fn run(
    executable: &Path,
    cluster: &mut Cluster,
    report: &mut Report,
) -> Result<Tally, Failure> {
    report.part("(b) the leader is killed under a stream of writes");
    let mut writer = Writer::start(executable, &cluster.addresses(), OUTSTANDING)?;
    writer.more(STRETCH, WAIT).await?;
    report.step(&format!(
        "a writer has {OUTSTANDING} commands in flight; {} acknowledged",
        writer.acknowledged()
    ));
    let mut from_table = 0;
    let mut kills = Vec::new();
    while from_table == 0 && kills.len() < ROUNDS {
        let (found, kill) = kill_once(cluster, &mut writer, report).await?;
        from_table += found;
        kills.push(kill);
    }
    let tally = writer.finish(WAIT).await?;
    report.step(&format!(
        "the writer has finished: {} keys, {} additions",
        tally.keys.len(),
        tally.additions
    ));
    let pauses: Vec<String> =
        kills.iter().map(|(from, through)| milliseconds(tally.longest_pause(*from, *through))).collect();
    let worst =
        kills.iter().map(|(from, through)| tally.longest_pause(*from, *through)).max().unwrap_or_default();
    report.check("the writer went on after the kill", format!("paused {}", pauses.join(", ")), worst < WAIT);
    report.check(
        "retries were answered from the table",
        format!("{} commands retried, {from_table} answered from the table", tally.retries),
        tally.retries > 0 && from_table > 0,
    );
    report.check("no command was done twice", format!("{} found", tally.done_twice), tally.done_twice == 0);
    check_written(&Client::new(executable, &cluster.addresses()), report, "after the kill", &tally).await?;
    Ok(tally)
}

/// When a kill happened, and when the writer was well past it.
type Span = (Instant, Instant);

/// Kills the leader and restarts it once the writer has gone on without it. How many retries met the table, and when.
async fn kill_once(
    cluster: &mut Cluster,
    writer: &mut Writer,
    report: &mut Report,
) -> Result<(u64, Span), Failure> {
    let victim = cluster.leader(WAIT).await?;
    let before = answered_from_table(cluster).await;
    let kill = Instant::now();
    cluster.kill(victim).await?;
    writer.more(STRETCH, WAIT).await?;
    let through = Instant::now();
    let leader = cluster.leader(WAIT).await?;
    let after = answered_from_table(cluster).await;
    let place = leader;
    report.step(&format!(
        "server {} led and was killed; server {} leads, the writer goes on",
        victim + 1,
        leader + 1
    ));
    cluster.start_server(victim)?;
    cluster.caught_up(victim, WAIT).await?;
    report.step(&format!("server {} was restarted and has caught up", victim + 1));
    Ok((after[place].saturating_sub(before[place]), (kill, through)))
}

async fn answered_from_table(cluster: &Cluster) -> Vec<u64> {
    let statuses = cluster.statuses().await;
    statuses.iter().map(|status| status.as_ref().map_or(0, |s| s.counters.answered_from_table)).collect()
}

/// Every acknowledged key is there, no other but those of unknown outcome, and the counter was added to as often as acknowledged.
pub(super) async fn check_written(
    client: &Client,
    report: &mut Report,
    when: &str,
    tally: &Tally,
) -> Result<(), Failure> {
    let found = client.list(KEYS).await?;
    let there = tally.keys.iter().filter(|key| found.contains_key(*key)).count();
    let others = found.keys().filter(|key| !tally.keys.contains(*key));
    let strange = others.filter(|key| !tally.unknown_keys.contains(*key)).count();
    report.check(
        &format!("every acknowledged key is there {when}"),
        format!("{there} of {}, {} unknown, {strange} strange", tally.keys.len(), tally.unknown_keys.len()),
        there == tally.keys.len() && strange == 0 && there > 0,
    );
    let counter: u64 = client
        .get(COUNTERS, COUNTER)
        .await?
        .parse()
        .map_err(|_| Failure::new(Exit::Refused, "the counter is not a number"))?;
    let most = tally.additions + tally.unknown_additions;
    report.check(
        &format!("the counter is right {when}"),
        format!("{counter}; {} acknowledged, {} unknown", tally.additions, tally.unknown_additions),
        (tally.additions..=most).contains(&counter) && counter > 0,
    );
    Ok(())
}
