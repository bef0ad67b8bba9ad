//! What a run tells: one line per change of role, fault and violation, or one per event.

use super::settings::Time;

/// How much a run tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Nothing.
    #[default]
    Silent,
    /// Changes of role, faults, violations.
    Changes,
    /// Everything.
    All,
}

/// Where it goes.
#[derive(Debug)]
pub(super) struct Trace {
    verbosity: Verbosity,
    lines: Vec<String>,
}

impl Trace {
    pub(super) fn new(verbosity: Verbosity) -> Self {
        Trace { verbosity, lines: Vec::new() }
    }

    /// Something worth a line.
    pub(super) fn change(&mut self, now: Time, text: impl FnOnce() -> String) {
        self.line(Verbosity::Changes, now, text);
    }

    /// Anything at all.
    pub(super) fn event(&mut self, now: Time, text: impl FnOnce() -> String) {
        self.line(Verbosity::All, now, text);
    }

    fn line(&mut self, from: Verbosity, now: Time, text: impl FnOnce() -> String) {
        if self.verbosity >= from {
            self.lines.push(format!("{:>4}.{:06} {}", now / 1_000_000, now % 1_000_000, text()));
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
