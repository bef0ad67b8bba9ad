//! `cargo xtask examples`: the example crates do what they say, against real servers where they need some.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use atomix_cli::cluster::Cluster;

use crate::metadata::{Metadata, cargo};

/// Longest wait for a leader.
const WAIT: Duration = Duration::from_secs(30);
/// The one that builds no server.
const LOCK_CLIENT: &str = "example-lock-client";
/// The one whose servers have another storage.
const OWN_STORAGE: &str = "example-own-storage";

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let result = match args {
        [] => run_all(),
        [flag] if flag == "--build-time" => build_time(),
        _ => return crate::usage("examples takes nothing, or --build-time"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("examples: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run_all() -> Result<(), String> {
    cargo_does(&["run", "--quiet", "--locked", "--package", "example-embedded"])?;
    cargo_does(&["run", "--quiet", "--locked", "--package", OWN_STORAGE])?;
    // The same demo, by servers that keep everything in redb: whatever is killed, what was acknowledged is found.
    cargo_does(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        OWN_STORAGE,
        "--bin",
        "atomix-redb",
        "--",
        "demo",
    ])?;
    cargo_does(&["build", "--quiet", "--locked", "--package", "atomix-cli", "--package", LOCK_CLIENT])?;
    let target = Metadata::load()?.target_directory.join("debug");
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(against_servers(&target.join("atomix"), &target.join(LOCK_CLIENT)))
}

async fn against_servers(server: &Path, example: &Path) -> Result<(), String> {
    let cluster = Cluster::start(server, 3, &[]).map_err(|error| error.to_string())?;
    let run = async {
        cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
        let status = tokio::process::Command::new(example).args(cluster.addresses()).status().await;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{}: {status}", example.display())),
            Err(error) => Err(format!("{}: {error}", example.display())),
        }
    }
    .await;
    cluster.stop().await.map_err(|failure| failure.to_string())?;
    run
}

/// How long the lock-only client takes to build from nothing, and what of ours is in it.
fn build_time() -> Result<(), String> {
    let target = tempfile::tempdir().map_err(|error| error.to_string())?;
    let begin = Instant::now();
    let built = Command::new(cargo())
        .args(["build", "--quiet", "--locked", "--package", LOCK_CLIENT])
        .env("CARGO_TARGET_DIR", target.path())
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err(format!("{LOCK_CLIENT} does not build"));
    }
    println!("{LOCK_CLIENT}: built from nothing in {:.1} s", begin.elapsed().as_secs_f64());
    cargo_does(&["tree", "--locked", "--package", LOCK_CLIENT, "--edges", "normal", "--depth", "2"])
}

fn cargo_does(arguments: &[&str]) -> Result<(), String> {
    match Command::new(cargo()).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {}: {status}", arguments.join(" "))),
        Err(error) => Err(format!("cargo can't be called: {error}")),
    }
}
