//! One seed or one plan: told line by line, or made smaller and written down.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use atomix_testkit::sim::{self, Plan, Report, Verbosity, Violation};

/// Where the smallest plans of whatever once failed are kept; tests run all of them.
const REGRESSIONS: &str = "crates/testkit/regressions";
/// Most runs, and most time, for making a plan smaller.
const RUNS: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(180);

/// A plan from a file.
pub(super) fn read(path: &Path) -> Result<Plan, String> {
    let place = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
    text.parse().map_err(|problem| format!("{place}: {problem}"))
}

/// Prints what a run told and how it ended; `replay` shows it again.
pub(super) fn tell(report: &Report, replay: Option<&str>) -> ExitCode {
    let mut out = std::io::stdout().lock();
    for line in &report.trace {
        // Whoever reads only the beginning has seen enough.
        if writeln!(out, "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{} events, {:.3} s simulated, {} faults, hash {:016x}",
        report.events,
        report.elapsed.as_secs_f64(),
        report.plan.faults(),
        report.hash
    );
    match report.violation.clone() {
        None => {
            println!("0 violations");
            ExitCode::SUCCESS
        }
        Some(mut violation) => {
            if let Some(replay) = replay {
                violation.replay = replay.to_owned();
            }
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves out of what happened what is not needed for the same checker to fire, and writes down the rest.
pub(super) fn shrink(report: &Report, mutant: Option<&str>, to_stdout: bool) -> ExitCode {
    let Some(first) = &report.violation else {
        println!("seed {} shows no violation", report.seed);
        return ExitCode::SUCCESS;
    };
    println!("{first}");
    let begin = Instant::now();
    let mut runs = 0;
    let smallest = sim::shrink(&report.plan, |plan| {
        if runs >= RUNS || begin.elapsed() >= PATIENCE {
            return None;
        }
        runs += 1;
        let found = sim::run_plan(plan, Verbosity::Silent).violation;
        Some(found.is_some_and(|found| found.name == first.name))
    });
    let again = sim::run_plan(&smallest, Verbosity::Silent).violation;
    let Some(violation) = again.filter(|again| again.name == first.name) else {
        // What was written down must be what happened, or the simulator is broken.
        println!("the plan does not show again what the seed showed: {}", first.name);
        return ExitCode::FAILURE;
    };
    println!(
        "{} of {} faults are left, after {runs} runs in {:.1} s",
        smallest.faults(),
        report.plan.faults(),
        begin.elapsed().as_secs_f64()
    );
    let text = text(&violation, &smallest, mutant);
    if to_stdout {
        print!("{text}");
        return ExitCode::FAILURE;
    }
    let path = path(&violation, mutant);
    match fs::write(&path, text) {
        Ok(()) => {
            let with = mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant}"));
            println!("replay: cargo xtask sim --plan {} --trace{with}", path.display());
        }
        Err(error) => println!("{} can't be written: {error}", path.display()),
    }
    ExitCode::FAILURE
}

fn path(violation: &Violation, mutant: Option<&str>) -> PathBuf {
    let planted = mutant.map_or(String::new(), |mutant| format!("-{mutant}"));
    let Violation { name, profile, seed, .. } = violation;
    Path::new(REGRESSIONS).join(format!("{name}-{}-{seed}{planted}.txt", profile.as_str()))
}

fn text(violation: &Violation, plan: &Plan, mutant: Option<&str>) -> String {
    let Violation { name, detail, at, .. } = violation;
    let planted = mutant.map_or(String::new(), |mutant| format!(" with mutant {mutant}"));
    format!("# {name} at {:.6} s{planted}: {detail}\n{plan}", at.as_secs_f64())
}
