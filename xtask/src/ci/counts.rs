//! How many tests ran, as their runner said it.

use std::fmt;

/// Counts of one kind of test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Counts of a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Unit and integration tests.
    pub(super) tests: Count,
    /// Examples in the documentation.
    pub(super) doctests: Count,
}

impl Counts {
    /// Whether a runner's line carries counts.
    pub(super) fn in_line(line: &str) -> bool {
        line.contains("test result:") || line.contains("Summary [")
    }
}

impl Count {
    /// Adds what nextest's summary says: `Summary [ 1.2s] 12 tests run: 11 passed (1 slow), 1 failed, 2 skipped`.
    pub(super) fn add_nextest(&mut self, lines: &[String]) {
        for line in lines.iter().filter_map(|line| line.split_once("Summary [")) {
            self.passed += before(line.1, " passed");
            self.failed += before(line.1, " failed") + before(line.1, " timed out");
            self.skipped += before(line.1, " skipped");
        }
    }

    /// Adds what libtest says once per binary: `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(super) fn add_libtest(&mut self, lines: &[String]) {
        for line in lines.iter().filter_map(|line| line.split_once("test result:")) {
            self.passed += before(line.1, " passed");
            self.failed += before(line.1, " failed");
            self.skipped += before(line.1, " ignored");
        }
    }
}

/// The number that stands right before a word; zero if it does not occur.
fn before(line: &str, word: &str) -> u64 {
    let Some(end) = line.find(word) else { return 0 };
    let digits = line[..end].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { passed, failed, skipped } = self.tests;
        write!(f, "tests: {} run: {passed} passed, {failed} failed", passed + failed)?;
        if skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        write!(f, "; doctests: {} passed", self.doctests.passed)?;
        if self.doctests.failed > 0 {
            write!(f, ", {} failed", self.doctests.failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tests: &[&str], nextest: bool, doctests: &[&str], expected: &str) {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let mut counts = Counts::default();
        if nextest {
            counts.tests.add_nextest(&own(tests));
        } else {
            counts.tests.add_libtest(&own(tests));
        }
        counts.doctests.add_libtest(&own(doctests));
        assert_eq!(counts.to_string(), expected);
    }

    #[test]
    fn nextest_is_read() {
        check(
            &["     Summary [   1.234s] 312 tests run: 312 passed (2 slow), 0 skipped"],
            true,
            &["test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s"],
            "tests: 312 run: 312 passed, 0 failed; doctests: 3 passed",
        );
        check(
            &["     Summary [   1.234s] 12/20 tests run: 9 passed, 2 failed, 1 timed out, 4 skipped"],
            true,
            &[],
            "tests: 12 run: 9 passed, 3 failed, 4 skipped; doctests: 0 passed",
        );
    }

    #[test]
    fn libtest_is_summed_over_binaries() {
        check(
            &[
                "test result: ok. 3 passed; 0 failed; 1 ignored;",
                "test result: FAILED. 4 passed; 1 failed; 0 ignored;",
            ],
            false,
            &["test result: ok. 1 passed; 0 failed;", "test result: ok. 2 passed; 0 failed;"],
            "tests: 8 run: 7 passed, 1 failed, 1 skipped; doctests: 3 passed",
        );
    }
}
