//! `cargo xtask spec`: rule → code → test → mutant.
//!
//! The rules are those of Ongaro's dissertation (Figures 3.1 and 3.2, chapters 4 to 6 and what else is used of it)
//! and of docs/protocol.md. `docs/spec/*.txt` says for each where it is obeyed, what shows it, and which planted bug
//! breaks it; this task believes none of that: the code must exist and cite the rule in a comment, the test must
//! exist, the mutant must exist and stand in docs/testing.md. An empty cell fails. An exception is a `-` with its
//! reason.
//!
//! The other way round: every rule of docs/protocol.md has a row, every mutant breaks a rule, and docs/known-bugs.md
//! names only what there is.

mod bugs;
mod ledger;
mod tree;

use std::path::Path;
use std::process::ExitCode;

use atomix_protocol::mutant::Mutant;

use ledger::{Cell, Row};
use tree::Tree;

/// Where the rows are, and how a source of rules is called.
const LEDGERS: [(&str, &str); 2] =
    [("docs/spec/dissertation.txt", "the dissertation"), ("docs/spec/protocol.txt", "docs/protocol.md")];
const RULES: &str = "docs/protocol.md";
const MUTANTS: &str = "docs/testing.md";

/// Runs the task. With names of rules it prints those in full.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match Spec::read(root) {
        Ok(spec) if args.is_empty() => spec.report(),
        Ok(spec) => spec.tell(args),
        Err(problem) => {
            eprintln!("spec: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that is compared.
struct Spec {
    tree: Tree,
    /// The rows of each ledger.
    rows: Vec<(&'static str, Vec<Row>)>,
    /// Names of the rules of docs/protocol.md.
    rules: Vec<String>,
    /// Names of the rows of docs/testing.md: checkers and mutants.
    documented: Vec<String>,
    mutants: Vec<String>,
    bugs: Vec<bugs::Bug>,
}

impl Spec {
    fn read(root: &Path) -> Result<Spec, String> {
        let tree = Tree::read(root)?;
        let mut rows = Vec::new();
        for (path, source) in LEDGERS {
            let parsed = ledger::parse(tree.text(path)?);
            rows.push((source, parsed.map_err(|problem| format!("{path}: {problem}"))?));
        }
        Ok(Spec {
            rules: ledger::rules(tree.text(RULES)?),
            documented: ledger::first_cells(tree.text(MUTANTS)?),
            mutants: Mutant::ALL.iter().map(|mutant| format!("{mutant:?}")).collect(),
            bugs: bugs::parse(tree.text(bugs::PAGE)?),
            rows,
            tree,
        })
    }

    /// What does not hold.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (_, rows) in &self.rows {
            rows.iter().for_each(|row| self.check(row, &mut problems));
        }
        let rows = || self.rows.iter().flat_map(|(_, rows)| rows);
        for rule in self.rules.iter().filter(|rule| !rows().any(|row| row.name == **rule)) {
            problems.push(format!("{rule}: stands in {RULES} and has no row"));
        }
        let known = |row: &&Row| row.sections || self.rules.contains(&row.name);
        for row in rows().filter(|row| !known(row)) {
            problems.push(format!("{}: has a row and does not stand in {RULES}", row.name));
        }
        let breaks = |row: &Row, mutant: &str| row.mutant.references().any(|other| other == mutant);
        for mutant in self.mutants.iter().filter(|mutant| !rows().any(|row| breaks(row, mutant))) {
            problems.push(format!("{mutant}: no rule names this mutant"));
        }
        bugs::check(&self.bugs, &self.tree, &self.documented, &mut problems);
        problems
    }

    fn check(&self, row: &Row, problems: &mut Vec<String>) {
        for (kind, cell) in row.cells() {
            if let Cell::Empty = cell {
                problems.push(format!("{}: no {kind}", row.name));
            }
        }
        for code in row.code.references() {
            if let Err(problem) = self.tree.cites(code, &row.cited_as) {
                problems.push(format!("{}: {problem}", row.name));
            }
        }
        for test in row.test.references().filter(|test| !self.tree.has_test(test)) {
            problems.push(format!("{}: there is no test {test}", row.name));
        }
        for mutant in row.mutant.references() {
            if !self.mutants.iter().any(|other| other == mutant) {
                problems.push(format!("{}: there is no mutant {mutant}", row.name));
            } else if !self.documented.iter().any(|other| other == mutant) {
                problems.push(format!("{}: {mutant} has no row in {MUTANTS}", row.name));
            }
        }
    }

    /// The table, and what does not hold.
    fn report(&self) -> ExitCode {
        println!("{:<24} {:<50} {:<70} mutant", "rule", "code", "test");
        for (source, rows) in &self.rows {
            println!("-- {source}");
            for row in rows {
                let [code, test, mutant] = row.cells().map(|(_, cell)| cell);
                let (code, test) = (code.in_short(50), test.in_short(70));
                println!("{:<24} {code:<50} {test:<70} {}", row.name, mutant.in_full(" "));
            }
        }
        let problems = self.problems();
        problems.iter().for_each(|problem| println!("spec: {problem}"));
        let cells = || self.rows.iter().flat_map(|(_, rows)| rows).flat_map(Row::cells);
        let count = |wanted: &str| {
            cells()
                .filter(|(kind, _)| *kind == wanted)
                .map(|(_, cell)| cell.references().count())
                .sum::<usize>()
        };
        let rules: Vec<String> =
            self.rows.iter().map(|(source, rows)| format!("{} rules of {source}", rows.len())).collect();
        println!(
            "\nspec: {}: {} places in code, {} tests, {} mutants ({} named); {} cells are exceptions; \
             {} known bugs, {} of them shown; {} problems",
            rules.join(", "),
            count("code"),
            count("test"),
            self.mutants.len(),
            count("mutant"),
            cells().filter(|(_, cell)| matches!(cell, Cell::Exception(_))).count(),
            self.bugs.len(),
            self.bugs.iter().filter(|bug| bug.is_shown()).count(),
            problems.len()
        );
        if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Some rules in full.
    fn tell(&self, names: &[String]) -> ExitCode {
        let mut all = ExitCode::SUCCESS;
        for name in names {
            let Some(row) = self.rows.iter().flat_map(|(_, rows)| rows).find(|row| row.name == *name) else {
                eprintln!("spec: no rule `{name}`");
                all = ExitCode::FAILURE;
                continue;
            };
            println!("{} ({}): {}", row.name, row.cited_as.join(", "), row.words);
            for (kind, cell) in row.cells() {
                println!("  {kind:<7} {}", cell.in_full("\n          "));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(row: &str) -> Spec {
        let files = [
            (
                "crates/raft/src/commit.rs",
                "//! What is committed (§3.5).\n\n\
                 /// Commits (R1).\nfn advance() {\n    // By counting (R2, S1–S3).\n}\n\n\
                 fn other() {}\n",
            ),
            ("crates/raft/tests/paper.rs", "#[test]\nfn r1_is_shown() {}\n\nfn no_test() {}\n"),
        ];
        Spec {
            tree: Tree::of(files),
            rows: vec![("a page", ledger::parse(row).expect("a row"))],
            rules: vec!["R1".into()],
            documented: vec!["B01".into()],
            mutants: vec!["B01".into()],
            bugs: Vec::new(),
        }
    }

    const GOOD: &str =
        "R1 It commits.\n  code: raft/src/commit.rs::advance\n  test: raft::r1_is_shown\n  mutant: B01\n";

    #[test]
    fn a_complete_row_passes() {
        assert_eq!(spec(GOOD).problems(), [""; 0]);
        let by_range = GOOD.replace("R1 It", "R1 [S2] It");
        assert_eq!(spec(&by_range).problems(), [""; 0], "S1–S3 cites S2");
        let by_head = GOOD.replace("R1 It", "R1 [§3.5] It").replace("::advance", "::other");
        assert_eq!(spec(&by_head).problems(), [""; 0], "the head of a file speaks for all in it");
        let exception = GOOD.replace("test: raft::r1_is_shown", "test: - it is a matter of types");
        assert_eq!(spec(&exception).problems(), [""; 0]);
    }

    #[test]
    fn a_planted_missing_reference_is_found() {
        for (good, planted, problem) in [
            ("::advance", "::gone", "R1: crates/raft/src/commit.rs has no item `gone`"),
            ("::advance", "::other", "R1: crates/raft/src/commit.rs::other does not cite R1"),
            ("commit.rs", "gone.rs", "R1: there is no crates/raft/src/gone.rs"),
            ("r1_is_shown", "r1_is_gone", "R1: there is no test raft::r1_is_gone"),
            ("r1_is_shown", "no_test", "R1: there is no test raft::no_test"),
            ("raft::r1", "engine::r1", "R1: there is no test engine::r1_is_shown"),
            ("  test: raft::r1_is_shown\n", "", "R1: no test"),
            ("  code: raft/src/commit.rs::advance\n", "", "R1: no code"),
        ] {
            assert!(GOOD.contains(good));
            assert_eq!(spec(&GOOD.replace(good, planted)).problems(), [problem], "{good} -> {planted}");
        }
        let unknown = spec(&GOOD.replace("B01", "B02")).problems();
        assert_eq!(unknown, ["R1: there is no mutant B02", "B01: no rule names this mutant"]);
        let mut undocumented = spec(GOOD);
        undocumented.documented.clear();
        assert_eq!(undocumented.problems(), [format!("R1: B01 has no row in {MUTANTS}")]);
    }

    #[test]
    fn a_rule_without_a_row_and_a_row_without_a_rule_are_found() {
        let problems = spec(&GOOD.replace("R1 It", "R2 It")).problems();
        assert_eq!(
            problems,
            [
                format!("R1: stands in {RULES} and has no row"),
                format!("R2: has a row and does not stand in {RULES}")
            ]
        );
    }
}
