//! docs/known-bugs.md: bugs that others had, and what of ours catches each.

use super::tree::Tree;

pub(super) const PAGE: &str = "docs/known-bugs.md";
/// Every test there is one of the page.
const TESTS: &str = "crates/raft/tests/known_bugs";
/// What stands in a row whose bug nothing catches so far.
const NOT_YET: &str = "not built yet";

/// One row.
pub(super) struct Bug {
    name: String,
    /// Whether the page says that something is missing.
    not_yet: bool,
    /// What is said to catch it: tests, texts, checkers, mutants.
    caught_by: Vec<String>,
}

/// Reads the rows of the page's tables: bug, what broke, caught by.
pub(super) fn parse(page: &str) -> Vec<Bug> {
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| ")).skip_while(|row| row.starts_with("bug"));
    let cells = rows.filter_map(|row| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        (cells.len() == 3 && cells[0] != "bug").then_some(cells)
    });
    cells
        .map(|cells| Bug {
            name: cells[0].into(),
            not_yet: cells[2].contains(NOT_YET),
            caught_by: cells[2].split('`').skip(1).step_by(2).map(Into::into).collect(),
        })
        .collect()
}

impl Bug {
    /// Whether anything catches it.
    pub(super) fn is_shown(&self) -> bool {
        !self.caught_by.is_empty()
    }
}

/// Adds what the page names and is not there, and tests that it does not name.
pub(super) fn check(bugs: &[Bug], tree: &Tree, documented: &[String], problems: &mut Vec<String>) {
    for bug in bugs {
        if !bug.is_shown() && !bug.not_yet {
            problems.push(format!("{PAGE}: {}: nothing catches it", bug.name));
        }
        for name in &bug.caught_by {
            let test = name.contains("::") || name.contains('/');
            let there = if test { tree.has_test(name) } else { documented.contains(name) };
            if !there {
                problems.push(format!("{PAGE}: {}: there is no {name}", bug.name));
            }
        }
    }
    let named = |test: &str| {
        bugs.iter().flat_map(|bug| &bug.caught_by).any(|name| name.rsplit("::").next() == Some(test))
    };
    for test in tree.tests_below(TESTS).into_iter().filter(|test| !named(test)) {
        problems.push(format!("{PAGE}: {TESTS} has {test}, and no bug is caught by it"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_found() {
        let tree =
            Tree::of([("crates/raft/tests/known_bugs/log.rs", "#[test]\nfn a() {}\n#[test]\nfn b() {}\n")]);
        let page = "| bug | what broke | caught by |\n|---|---|---|\n\
                    | x#1 | it | `raft::a`, `B01` |\n| x#2 | it | `raft::c`, `B02` |\n\
                    | x#3 | it | luck |\n| x#4 | it | not built yet: disks |\n";
        let bugs = parse(page);
        assert_eq!((bugs.len(), bugs.iter().filter(|bug| bug.is_shown()).count()), (4, 2));
        let mut problems = Vec::new();
        check(&bugs, &tree, &["B01".into()], &mut problems);
        assert_eq!(
            problems,
            [
                "docs/known-bugs.md: x#2: there is no raft::c",
                "docs/known-bugs.md: x#2: there is no B02",
                "docs/known-bugs.md: x#3: nothing catches it",
                "docs/known-bugs.md: crates/raft/tests/known_bugs has b, and no bug is caught by it",
            ]
        );
    }
}
