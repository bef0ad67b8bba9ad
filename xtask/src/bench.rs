//! `cargo xtask bench`: measurements with real server processes of the release build on this machine.

mod catch_up;
mod failover;
mod load;
mod lock;
mod machine;
mod members;
mod paced;
mod proxy;
mod write;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use atomix_cli::cluster::Cluster;
use atomix_cli::exit::Failure;

use crate::metadata::{Metadata, cargo};

const BENCHES: [&str; 5] = ["failover", "write", "lock", "members", "catch-up"];

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let bench = match args {
        [bench] if BENCHES.contains(&bench.as_str()) => bench.as_str(),
        _ => return crate::usage(&format!("bench takes one of {}", BENCHES.join(", "))),
    };
    // The client is measured too: it must be of the same build as the servers.
    if cfg!(debug_assertions) {
        return in_release(bench);
    }
    let result = server_executable().and_then(|executable| {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        runtime.block_on(measure(bench, &executable))
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("bench {bench}: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(bench: &str, executable: &Path) -> Result<bool, String> {
    let mut cluster = Cluster::start(executable, 3, &[]).map_err(|error| error.to_string())?;
    let measured = tokio::select! {
        measured = async {
            match bench {
                "failover" => failover::run(&mut cluster).await,
                "lock" => lock::run(&cluster).await,
                "members" => members::run(&mut cluster, executable).await,
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
