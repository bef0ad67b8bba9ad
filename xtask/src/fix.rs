//! `cargo xtask fix`: writes what `ci` would complain about, as far as tools can.

use std::process::{Command, ExitCode};

use crate::metadata::cargo;

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    if !args.is_empty() {
        return crate::usage("fix takes nothing");
    }
    let steps: [&[&str]; 2] = [
        &["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"],
        &["fmt", "--all"],
    ];
    for step in steps {
        match Command::new(cargo()).args(step).status() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("fix: cargo {}: {status}", step.join(" "));
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("fix: cannot run cargo: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
