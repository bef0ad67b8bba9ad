//! `cargo xtask ci`: everything that must hold before a change goes in. It never writes outside the target folder.
//!
//! Two compile profiles at most: `dev` for checks and the tasks, `test` for tests.

mod counts;
mod steps;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use counts::Counts;
use steps::STEPS;

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    if !args.is_empty() {
        return crate::usage("ci takes nothing");
    }
    let mut counts = Counts::default();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for step in STEPS {
        let begin = Instant::now();
        println!("== {}: {}", step.name, step.what());
        let passed = step.run(&mut counts);
        let time = begin.elapsed();
        times.push((step.name, time));
        if !passed {
            println!("== {}: FAILED after {:.1} s", step.name, time.as_secs_f64());
            print_times(&times);
            println!("ci failed in `{}`; again with: {}", step.name, step.what());
            return ExitCode::FAILURE;
        }
        println!("== {}: ok, {:.1} s", step.name, time.as_secs_f64());
    }
    print_times(&times);
    println!("ci passed");
    println!("{counts}");
    ExitCode::SUCCESS
}

fn print_times(times: &[(&str, Duration)]) {
    println!();
    for (name, time) in times {
        println!("{name:<10} {:>7.1} s", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("{:<10} {:>7.1} s", "total", total.as_secs_f64());
}
