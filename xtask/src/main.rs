//! The project's own tasks: `cargo xtask help`.

mod bench;
mod ci;
mod examples;
mod faults;
mod fix;
mod flips;
mod layers;
mod licences;
mod metadata;
mod mutants;
mod sim;
mod spec;

use std::io::Write as _;
use std::process::ExitCode;

const HELP: &str = "\
The project's own tasks.

  cargo xtask ci                      everything that must hold before a change goes in; never writes
  cargo xtask fix                     formats, and applies clippy's suggestions
  cargo xtask layers [--plant]        the crate table, outside crates, purity and size of files;
                                      --plant adds a forbidden edge and shows that it is caught
  cargo xtask licences                licences of everything that is linked
  cargo xtask spec [RULE..]           rule, code, test, mutant: every rule has its cells; with names, those in full
  cargo xtask sim --seeds A..B        simulated clusters, one per seed; --seed N --trace for one
  cargo xtask mutants                 deliberate bugs, each to be caught by its checker
  cargo xtask bad-input               bad input against the real binary, as a table with exit codes and messages
  cargo xtask powercut [--cuts N]     a file system that loses its power under real servers: needs root, a loop device, ext4
  cargo xtask killpoints [--points N] servers killed at a system call, anywhere: needs strace; --eio: writes and syncs that fail
  cargo xtask flips [--offsets N]     flipped bits in the files of real servers: detected, never served, repaired
  cargo xtask full-disk [--rounds N]  disks without room, and with room again: needs root, a loop device, ext4
  cargo xtask examples [--build-time] runs the example crates; --build-time builds the smallest from nothing
  cargo xtask bench failover|lock|write|members|catch-up|memory
                                      measurements with real processes (release build)
  cargo xtask bench log|recovery      the log alone, beside a raw loop of writes and beside cat (release build)
  cargo xtask help                    this text";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = args.split_first().map_or(("help", &[][..]), |(task, rest)| (task.as_str(), rest));
    match task {
        "ci" => ci::run(rest),
        "fix" => fix::run(rest),
        "layers" => layers::run(rest),
        "licences" => licences::run(rest),
        "sim" => sim::run(rest),
        "spec" => spec::run(rest),
        "mutants" => mutants::run(rest),
        "bad-input" => bad_input(),
        "powercut" => faults::powercut(rest),
        "killpoints" => faults::killpoints(rest),
        "flips" => flips::run(rest),
        "full-disk" => faults::full_disk(rest),
        "examples" => examples::run(rest),
        "bench" => bench::run(rest),
        "help" | "--help" | "-h" => {
            // Whoever reads may have had enough of it.
            let _ = writeln!(std::io::stdout(), "{HELP}");
            ExitCode::SUCCESS
        }
        other => usage(&format!("unknown task `{other}`")),
    }
}

/// The table that its test prints.
fn bad_input() -> ExitCode {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments =
        ["test", "--quiet", "--package", "atomix-cli", "--test", "bad_input", "--", "--nocapture"];
    match std::process::Command::new(cargo).args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A wrong call: says so, and how it is done.
fn usage(problem: &str) -> ExitCode {
    eprintln!("xtask: {problem}\n\n{HELP}");
    ExitCode::from(2)
}
