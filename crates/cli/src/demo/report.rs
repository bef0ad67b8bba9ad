//! What the demo prints: each step as it happens, and a closing table.

use std::time::{Duration, Instant};

use crate::exit::say;
use crate::table::Table;

/// What the demo prints.
#[derive(Debug)]
pub(super) struct Report {
    begin: Instant,
    step: Instant,
    checks: Table,
    all_held: bool,
}

impl Report {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let checks = Table::new(["check", "measured", "held"]);
        Report { begin: now, step: now, checks, all_held: true }
    }

    /// A new part begins.
    pub(super) fn part(&mut self, title: &str) {
        say!("\n{title}");
        self.step = Instant::now();
    }

    /// A step is done; its time is that since the step before.
    pub(super) fn step(&mut self, what: &str) {
        let time = self.step.elapsed();
        say!("  {:>6.2} s  {what} ({})", self.begin.elapsed().as_secs_f64(), milliseconds(time));
        self.step = Instant::now();
    }

    /// Something was checked.
    pub(super) fn check(&mut self, what: &str, measured: impl Into<String>, held: bool) {
        let measured = measured.into();
        let verdict = if held { "yes" } else { "NO" };
        say!("  {:>6.2} s  check: {what}: {measured}: {verdict}", self.begin.elapsed().as_secs_f64());
        self.checks.row([what, measured.as_str(), verdict]);
        self.all_held &= held;
    }

    /// Whether every check held.
    pub(super) fn all_held(&self) -> bool {
        self.all_held
    }

    /// Prints the table.
    pub(super) fn close(&self) {
        say!("\n{}", self.checks);
        let verdict = if self.all_held { "every check held" } else { "a check did NOT hold" };
        say!("{verdict}; {:.1} s; no process and no file is left", self.begin.elapsed().as_secs_f64());
    }
}

/// A time, for people.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1_000.0)
}
