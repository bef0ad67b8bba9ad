//! `atomix demo`: three servers and their clients, all processes of their own, on this machine.
//!
//! (a) A map is written and read through every server. (b) The leader is killed under a stream of writes. (c) All servers are
//! killed. After each, everything that was acknowledged must be there, and nothing may have been done twice. (d) A holder of a lock is
//! stopped, (e) another is killed: what the lock guards takes no write from them any more. (f) A third process watches a map while the
//! leader is killed, and sees each change once.
//!
//! | module | what it is |
//! |---|---|
//! | `parts` | the parts, with their checks |
//! | `report` | what is printed |
//! | [`writer`], [`sequence`], [`holder`], [`guarded`] | processes of the demo, and the lines that they say |
//! | `tally`, `process`, `client` | how the demo starts those and hears them, and runs commands |

mod client;
pub mod guarded;
pub mod holder;
mod parts;
mod process;
mod report;
pub mod sequence;
mod tally;
pub mod writer;

use std::time::Duration;

use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};
use crate::signals;
use report::Report;

/// The demo gives up after this.
const AT_MOST: Duration = Duration::from_secs(50);
/// Lines of a server's log that are shown after a failure.
const LOG_LINES: usize = 15;

/// Runs the command.
///
/// # Errors
/// If a check did not hold, something took too long, or the demo was interrupted.
pub async fn run() -> Result<(), Failure> {
    let executable = std::env::current_exe()?;
    let mut report = Report::new();
    let mut cluster = Cluster::start(&executable, 3, &[])?;
    let result = tokio::select! {
        result = tokio::time::timeout(AT_MOST, parts::run(&executable, &mut cluster, &mut report)) => {
            result.unwrap_or_else(|_| Err(Failure::new(Exit::Refused, "the demo took too long")))
        }
        signal = signals::interrupted() => {
            Err(signal.map_or_else(Failure::from, |()| Failure::new(Exit::Interrupted, "interrupted")))
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
