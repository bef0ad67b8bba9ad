//! `atomix serve`: one server, until somebody ends it or it can't go on.

use std::io;
use std::time::Duration;

use atomix::{Error, MemberKind, Replica};
use tracing_subscriber::EnvFilter;

use crate::args::{Serve, Wanted};
use crate::exit::{Exit, Failure};
use crate::signals;

/// A clean end waits at most this long for the rest of the cluster.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
/// If the server can't start, or stopped by itself.
pub async fn run(args: Serve) -> Result<(), Failure> {
    log();
    let mut builder = Replica::builder(args.listen.as_str()).data_dir(&args.data_dir);
    if let Some(heartbeat) = args.heartbeat {
        builder = builder.heartbeat(heartbeat);
    }
    if let Some((shortest, longest)) = args.election_timeout {
        builder = builder.election_timeout(shortest, longest);
    }
    if let Some(lease) = args.lease {
        builder = builder.lease_reads(lease);
    }
    if let Some(bytes) = args.snapshot_log_bytes {
        builder = builder.snapshot_log_bytes(bytes);
    }
    if let Some(wanted) = args.wanted {
        builder = builder.member_kind(match wanted {
            Wanted::Voter => MemberKind::Voter,
            Wanted::Learner => MemberKind::Learner,
            Wanted::Reserve => MemberKind::Reserve,
        });
    }
    if let Some(priority) = args.priority {
        builder = builder.priority(priority);
    }
    let replica = if args.join.is_empty() {
        builder.bootstrap(args.bootstrap.iter().map(String::as_str)).await?
    } else {
        builder.join(args.join.iter().map(String::as_str)).await?
    };
    tracing::info!(listen = %replica.address(), data = %args.data_dir.display(), "serving");
    tokio::select! {
        error = replica.failed() => return Err(stopped(error)),
        signal = signals::interrupted() => signal.map_err(|error| no_signals(&error))?,
        () = signals::parent_ended(args.exit_with_stdin) => {}
    }
    tracing::info!("stopping");
    match tokio::time::timeout(SHUTDOWN, replica.shutdown()).await {
        Ok(result) => result.map_err(stopped),
        Err(_) => {
            tracing::warn!("the server did not stop in {} s: it ends as if killed", SHUTDOWN.as_secs());
            Ok(())
        }
    }
}

fn stopped(error: Error) -> Failure {
    tracing::error!("{error}");
    error.into()
}

fn no_signals(error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot listen for signals: {error}"))
}

fn log() {
    let filter = EnvFilter::try_from_env("ATOMIX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi).init();
}
