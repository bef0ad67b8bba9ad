//! `cargo xtask ci`: everything that must hold before a change goes in. It never writes outside the target folder.
//!
//! Two compile profiles at most: `dev` for checks and the tasks, `test` for tests.

mod counts;
mod steps;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use counts::Counts;
use steps::{Ran, STEPS};

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    if !args.is_empty() {
        return crate::usage("ci takes nothing");
    }
    let mut counts = Counts::default();
    let mut done: Vec<Done> = Vec::new();
    for step in STEPS {
        let begin = Instant::now();
        println!("== {}: {}", step.name, step.what());
        let ran = step.run(&mut counts);
        done.push(Done { name: step.name, time: begin.elapsed(), ran });
        let last = &done[done.len() - 1];
        println!("== {}: {}", last.name, last.in_words());
        if last.ran == Ran::Failed {
            print_times(&done);
            println!("ci failed in `{}`; again with: {}", step.name, step.what());
            return ExitCode::FAILURE;
        }
    }
    print_times(&done);
    println!("{}", passed(&done));
    println!("{counts}");
    ExitCode::SUCCESS
}

/// A step that has ended.
struct Done {
    name: &'static str,
    time: Duration,
    ran: Ran,
}

impl Done {
    fn in_words(&self) -> String {
        let seconds = self.time.as_secs_f64();
        match &self.ran {
            Ran::Passed => format!("ok, {seconds:.1} s"),
            Ran::Failed => format!("FAILED after {seconds:.1} s"),
            Ran::Skipped(why) => format!("skipped: {why}"),
        }
    }
}

/// The last word of a run in which nothing failed. What was not done is not called passed.
fn passed(done: &[Done]) -> String {
    let skipped: Vec<&str> =
        done.iter().filter(|done| matches!(done.ran, Ran::Skipped(_))).map(|done| done.name).collect();
    match skipped[..] {
        [] => "ci passed".into(),
        _ => format!("ci passed; skipped, since this machine can't do it: {}", skipped.join(", ")),
    }
}

fn print_times(done: &[Done]) {
    println!();
    for Done { name, time, ran } in done {
        let time = format!("{:.1} s", time.as_secs_f64());
        let said = if let Ran::Skipped(_) = ran { "skipped" } else { &time };
        println!("{name:<10} {said:>9}");
    }
    let total: Duration = done.iter().map(|done| done.time).sum();
    println!("{:<10} {:>7.1} s", "total", total.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_names_what_was_skipped() {
        let done = |name, ran| Done { name, time: Duration::from_secs(2), ran };
        let all = [done("a", Ran::Passed), done("b", Ran::Skipped("needs root".into()))];
        assert_eq!(all.each_ref().map(Done::in_words), ["ok, 2.0 s", "skipped: needs root"]);
        assert_eq!(passed(&all[..1]), "ci passed");
        assert_eq!(passed(&all), "ci passed; skipped, since this machine can't do it: b");
    }
}
