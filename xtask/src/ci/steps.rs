//! The steps, in the order in which they fail fastest.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;

use super::counts::Counts;
use crate::metadata::cargo;

/// One step: a call of cargo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// What it is called in reports.
    pub(super) name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    reads: Reads,
}

/// What a step's output tells beyond its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Nothing,
    Tests,
    Doctests,
}

const fn step(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, arguments, environment: &[], reads: Reads::Nothing }
}

const XTASK: [&str; 5] = ["run", "--quiet", "--locked", "--package", "xtask"];

macro_rules! xtask {
    ($($argument:literal),* $(; $($feature:literal),*)?) => {
        &[XTASK[0], XTASK[1], XTASK[2], XTASK[3], XTASK[4], $("--features", $($feature,)*)? "--", $($argument),*]
    };
}

/// All of them. Tasks of ours are run through cargo, because building the workspace may replace the running binary.
pub(super) const STEPS: &[Step] = &[
    step("format", &["fmt", "--all", "--check"]),
    step("layers", xtask!["layers"]),
    step("planted", xtask!["layers", "--plant"]),
    step("spec", xtask!["spec"]),
    step("licences", xtask!["licences"]),
    step("clippy", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    Step { reads: Reads::Tests, ..step("tests", &["nextest", "run", "--workspace", "--locked"]) },
    Step { reads: Reads::Doctests, ..step("doctests", &["test", "--doc", "--workspace", "--locked"]) },
    Step {
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        ..step("docs", &["doc", "--no-deps", "--workspace", "--locked"])
    },
    step("examples", xtask!["examples"]),
    step("sim", xtask!["sim", "--seeds", "0..600"]),
    step("mutants", xtask!["mutants", "--rotating"; "mutants"]),
    step("kills", xtask!["killpoints", "--points", "30"]),
    step("eio", xtask!["killpoints", "--eio"]),
    step("powercuts", xtask!["powercut", "--cuts", "40"]),
    step("full disks", xtask!["full-disk", "--rounds", "1"]),
    step("demo", &["run", "--quiet", "--locked", "--", "demo"]),
];

/// The tests where cargo-nextest is not installed. Doctests are a step of their own.
const WITHOUT_NEXTEST: &[&str] =
    &["test", "--workspace", "--locked", "--lib", "--bins", "--tests", "--examples"];

impl Step {
    /// The command, for people.
    pub(super) fn what(&self) -> String {
        let environment: String =
            self.environment.iter().map(|(name, value)| format!("{name}={value:?} ")).collect();
        format!("{environment}cargo {}", self.arguments().join(" "))
    }

    /// Runs it; whether it passed.
    pub(super) fn run(&self, counts: &mut Counts) -> bool {
        let mut command = Command::new(cargo());
        command.args(self.arguments()).envs(self.environment.iter().copied());
        if self.reads == Reads::Nothing {
            return command.status().is_ok_and(|status| status.success());
        }
        let Ok(mut child) = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
            return false;
        };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let errors = thread::spawn(move || echoed(err, |line| eprintln!("{line}")));
        let mut lines = echoed(out, |line| println!("{line}"));
        lines.extend(errors.join().unwrap_or_default());
        match self.reads {
            Reads::Doctests => counts.doctests.add_libtest(&lines),
            _ if nextest() => counts.tests.add_nextest(&lines),
            _ => counts.tests.add_libtest(&lines),
        }
        child.wait().is_ok_and(|status| status.success())
    }

    fn arguments(&self) -> &'static [&'static str] {
        if self.reads == Reads::Tests && !nextest() { WITHOUT_NEXTEST } else { self.arguments }
    }
}

/// Whether cargo-nextest is installed.
fn nextest() -> bool {
    Command::new(cargo())
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Passes each line on as it comes, and keeps those that carry counts.
fn echoed(stream: Option<impl Read>, print: impl Fn(&str)) -> Vec<String> {
    let Some(stream) = stream else { return Vec::new() };
    let mut kept = Vec::new();
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        print(&line);
        if Counts::in_line(&line) {
            kept.push(line);
        }
    }
    kept
}
