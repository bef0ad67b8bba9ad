//! `atomix demo`: three servers and their clients, all processes of their own, on this machine.
//!
//! (a) A map is written and read through every server. (b) The leader is killed under a stream of writes. (c) All servers are
//! killed. After each, everything that was acknowledged must be there, and nothing may have been done twice.

mod client;
mod report;
mod steps;
mod tally;
pub mod writer;

use std::time::Duration;

use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};
use crate::signals;
use report::Report;

/// The demo gives up after this.
const AT_MOST: Duration = Duration::from_secs(38);
/// Lines of a server's log that are shown after a failure.
const LOG_LINES: usize = 15;

/// Runs the command.
///
/// # Errors
/// If a check did not hold, something took too long, or the demo was interrupted.
pub async fn run() -> Result<(), Failure> {
    let refused = |error: std::io::Error| Failure::new(Exit::Refused, error.to_string());
    let executable = std::env::current_exe().map_err(refused)?;
    let mut report = Report::new();
    let mut cluster = Cluster::start(&executable, 3, &[]).map_err(refused)?;
    let result = tokio::select! {
        result = tokio::time::timeout(AT_MOST, steps::run(&executable, &mut cluster, &mut report)) => {
            result.unwrap_or_else(|_| Err(Failure::new(Exit::Refused, "the demo took too long")))
        }
        signal = signals::interrupted() => {
            Err(signal.map_or_else(refused, |()| Failure::new(Exit::Interrupted, "interrupted")))
        }
    };
    let interrupted = matches!(&result, Err(failure) if failure.exit == Exit::Interrupted);
    if !interrupted && (result.is_err() || !report.all_held()) {
        show_logs(&cluster);
    }
    cluster.stop().await?;
    result?;
    report.close();
    if report.all_held() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Refused, "a check of the demo did not hold"))
    }
}

fn show_logs(cluster: &Cluster) {
    for server in 0..cluster.size() {
        let log = std::fs::read_to_string(cluster.log(server)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("-- the last lines of server {}:", server + 1);
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            eprintln!("{line}");
        }
    }
}
