//! `atomix serve`: one server, until somebody ends it or it can't go on.

use std::io;
use std::pin::pin;
use std::time::Duration;

use atomix::{Error, MemberKind, Replica, ReplicaBuilder};
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
    let builder = Replica::builder(args.listen.as_str()).data_dir(&args.data_dir);
    run_over(args, builder).await
}

/// Runs the command over a replica that has its address and its storage already.
///
/// # Errors
/// If the server can't start, or stopped by itself.
pub async fn run_over(args: Serve, mut builder: ReplicaBuilder) -> Result<(), Failure> {
    log();
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
    if let Some(bytes) = args.segment_bytes {
        builder = builder.segment_bytes(bytes);
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
    let mut to_end = pin!(told_to_end(args.exit_with_stdin));
    let failed = tokio::select! {
        error = replica.failed() => Some(error),
        told = &mut to_end => told.map(|()| None)?,
    };
    match &failed {
        // The server has said it, and goes on saying so in its status.
        Some(Error::DiskFailed(_)) => to_end.await?,
        Some(error) => return Err(stopped(error.clone())),
        None => {}
    }
    tracing::info!("stopping");
    match tokio::time::timeout(SHUTDOWN, replica.shutdown()).await {
        Ok(result) => result.map_err(Failure::from),
        Err(_) => {
            tracing::warn!("the server did not stop in {} s: it ends as if killed", SHUTDOWN.as_secs());
            failed.map_or(Ok(()), |error| Err(error.into()))
        }
    }
}

/// Resolves when somebody wants this process to end.
async fn told_to_end(with_stdin: bool) -> Result<(), Failure> {
    tokio::select! {
        signal = signals::interrupted() => signal.map_err(|error| no_signals(&error)),
        () = signals::parent_ended(with_stdin) => Ok(()),
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
