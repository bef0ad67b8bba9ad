//! `cargo xtask bench`: measurements of the release build on this machine, most of them with real server processes.

mod catch_up;
mod failover;
mod load;
mod lock;
mod log;
mod machine;
mod members;
mod memory;
mod paced;
mod proxy;
mod recovery;
mod write;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use atomix_cli::cluster::Cluster;
use atomix_cli::exit::Failure;

use crate::metadata::{Metadata, cargo};

const BENCHES: [&str; 8] = ["failover", "write", "lock", "members", "catch-up", "log", "recovery", "memory"];

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let bench = match args {
        [child, data] if [recovery::CHILD, recovery::KEEPING_CHILD].contains(&child.as_str()) => {
            let keeps = child == recovery::KEEPING_CHILD;
            return ended(child, recovery::child(data.as_ref(), keeps).map(|()| true));
        }
        [bench] if BENCHES.contains(&bench.as_str()) => bench.as_str(),
        _ => return crate::usage(&format!("bench takes one of {}", BENCHES.join(", "))),
    };
    // The client is measured too: it must be of the same build as the servers.
    if cfg!(debug_assertions) {
        return in_release(bench);
    }
    let result = match bench {
        "log" => log::run(),
        "recovery" => recovery::run(),
        _ => with_servers(bench),
    };
    ended(bench, result)
}

fn ended(bench: &str, result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("bench {bench}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn with_servers(bench: &str) -> Result<bool, String> {
    let executable = server_executable()?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(measure(bench, &executable))
}

async fn measure(bench: &str, executable: &Path) -> Result<bool, String> {
    let servers = if bench == "memory" { 1 } else { 3 };
    let mut cluster = Cluster::start(executable, servers, &[]).map_err(|error| error.to_string())?;
    let measured = tokio::select! {
        measured = async {
            match bench {
                "failover" => failover::run(&mut cluster).await,
                "lock" => lock::run(&cluster).await,
                "members" => members::run(&mut cluster, executable).await,
                "memory" => memory::run(&cluster).await,
                "catch-up" => catch_up::run(&mut cluster, executable).await,
                _ => write::run(&cluster).await,
            }
        } => measured,
        _ = atomix_cli::signals::interrupted() => Err("interrupted".into()),
    };
    let stopped = cluster.stop().await.map_err(|failure: Failure| failure.to_string());
    let measured = measured?;
    stopped?;
    Ok(measured)
}

fn in_release(bench: &str) -> ExitCode {
    let status = Command::new(cargo())
        .args(["run", "--quiet", "--release", "--locked", "--package", "xtask", "--", "bench", bench])
        .status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn server_executable() -> Result<PathBuf, String> {
    let status = Command::new(cargo())
        .args(["build", "--quiet", "--release", "--locked", "--package", "atomix-cli"])
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err(format!("cannot build the server: {status}"));
    }
    Ok(Metadata::load()?.target_directory.join("release/atomix"))
}
