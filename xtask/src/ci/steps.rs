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
    /// Whether it could be done on this machine.
    Skips,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Passed,
    Failed,
    /// It could not be done on this machine, and why: in its own words.
    Skipped(String),
}

const fn step(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, arguments, environment: &[], reads: Reads::Nothing }
}

/// A step that says so if it can't be done on a machine.
const fn may_skip(step: Step) -> Step {
    Step { reads: Reads::Skips, ..step }
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
    may_skip(step("kills", xtask!["killpoints", "--points", "30"])),
    may_skip(step("eio", xtask!["killpoints", "--eio"])),
    may_skip(step("powercuts", xtask!["powercut", "--cuts", "40"])),
    may_skip(step("full disks", xtask!["full-disk", "--rounds", "1"])),
    step("flips", xtask!["flips", "--offsets", "400"]),
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

    /// Runs it.
    pub(super) fn run(&self, counts: &mut Counts) -> Ran {
        let mut command = Command::new(cargo());
        self.ran(command.args(self.arguments()).envs(self.environment.iter().copied()), counts)
    }

    fn ran(&self, command: &mut Command, counts: &mut Counts) -> Ran {
        if self.reads == Reads::Nothing {
            let passed = command.status().is_ok_and(|status| status.success());
            return if passed { Ran::Passed } else { Ran::Failed };
        }
        let Ok(mut child) = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
            return Ran::Failed;
        };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let errors = thread::spawn(move || echoed(err, |line| eprintln!("{line}")));
        let mut lines = echoed(out, |line| println!("{line}"));
        lines.extend(errors.join().unwrap_or_default());
        match self.reads {
            Reads::Nothing | Reads::Skips => {}
            Reads::Doctests => counts.doctests.add_libtest(&lines),
            _ if nextest() => counts.tests.add_nextest(&lines),
            _ => counts.tests.add_libtest(&lines),
        }
        if !child.wait().is_ok_and(|status| status.success()) {
            return Ran::Failed;
        }
        let skipped = lines.iter().find_map(|line| skipped(line)).filter(|_| self.reads == Reads::Skips);
        skipped.map_or(Ran::Passed, |why| Ran::Skipped(why.to_owned()))
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

/// Why a task can't be done on this machine, if a line says that: `powercut: skipped: needs root`.
fn skipped(line: &str) -> Option<&str> {
    let (task, why) = line.split_once(": skipped: ")?;
    let named = task.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '-' | ' '));
    named.then_some(why)
}

/// Passes each line on as it comes, and keeps those that are read.
fn echoed(stream: Option<impl Read>, print: impl Fn(&str)) -> Vec<String> {
    let Some(stream) = stream else { return Vec::new() };
    let mut kept = Vec::new();
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        print(&line);
        if Counts::in_line(&line) || skipped(&line).is_some() {
            kept.push(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &'static [&'static str], expected: Ran) {
        let step = Step { reads: Reads::Skips, ..step("a step", &[]) };
        let ran = step.ran(Command::new(command[0]).args(&command[1..]), &mut Counts::default());
        assert_eq!(ran, expected);
    }

    #[test]
    fn a_step_that_skips_has_not_passed() {
        check(&["echo", "killpoints: 30 points"], Ran::Passed);
        check(&["echo", "powercut: skipped: needs root"], Ran::Skipped("needs root".into()));
        check(&["echo", "killpoints --eio: skipped: no strace"], Ran::Skipped("no strace".into()));
        check(&["sh", "-c", "echo powercut: skipped: x; exit 1"], Ran::Failed);
        check(&["false"], Ran::Failed);
    }

    #[test]
    fn only_a_task_says_that_it_is_skipped() {
        assert_eq!(skipped("powercut: skipped: needs root"), Some("needs root"));
        for line in ["12 tests run: 9 passed, 4 skipped", "it said: x: skipped: y", "test a::b: skipped: c"] {
            assert_eq!(skipped(line), None, "{line}");
        }
    }
}
