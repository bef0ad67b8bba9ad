//! The rows: a name and what the rule says, then indented cells.
//!
//! ```text
//! append_entries_1 [Figure 3.1, §3.5] A request of an earlier term is refused.
//!   code: raft/src/rpc/append_entries.rs::on_append_entries
//!   test: raft::append_entries_1_a_stale_term_is_refused
//!   mutant: - what is refused leaves nothing behind that a checker could see
//! ```
//!
//! In brackets stands what the code cites; without them it is the name. A cell may have several references, and
//! several lines, each with its key.

/// One rule.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    /// Any of these is a citation of it.
    pub(super) cited_as: Vec<String>,
    /// Whether they were given, as those of the dissertation are.
    pub(super) sections: bool,
    pub(super) words: String,
    pub(super) code: Cell,
    pub(super) test: Cell,
    pub(super) mutant: Cell,
}

/// What a rule has of one kind.
#[derive(Debug, Default)]
pub(super) enum Cell {
    #[default]
    Empty,
    References(Vec<String>),
    /// None, for this reason.
    Exception(String),
}

impl Row {
    pub(super) fn cells(&self) -> [(&'static str, &Cell); 3] {
        [("code", &self.code), ("test", &self.test), ("mutant", &self.mutant)]
    }
}

impl Cell {
    pub(super) fn references(&self) -> impl Iterator<Item = &str> {
        let references = if let Cell::References(references) = self { references.as_slice() } else { &[] };
        references.iter().map(String::as_str)
    }

    pub(super) fn in_full(&self, between: &str) -> String {
        match self {
            Cell::Empty => "MISSING".into(),
            Cell::References(references) => references.join(between),
            Cell::Exception(reason) => format!("- {reason}"),
        }
    }

    /// The first, and how many there are beside it.
    pub(super) fn in_short(&self, width: usize) -> String {
        let first = match self {
            Cell::References(references) if references.len() > 1 => {
                format!("{} +{}", references[0], references.len() - 1)
            }
            other => other.in_full(" "),
        };
        let too_long = first.chars().count() > width;
        if too_long { first.chars().take(width - 1).chain(['…']).collect() } else { first }
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let reason = text.strip_prefix('-').map(str::trim);
        match (reason, &mut *self) {
            (Some(""), _) => return Err("an exception needs a reason".into()),
            (Some(reason), Cell::Empty) => *self = Cell::Exception(reason.into()),
            (Some(more), Cell::Exception(reason)) => *reason = format!("{reason} {more}"),
            (None, Cell::Empty) => {
                *self = Cell::References(text.split_whitespace().map(Into::into).collect())
            }
            (None, Cell::References(references)) => {
                references.extend(text.split_whitespace().map(String::from));
            }
            _ => return Err(format!("`{text}`: a cell has references or an exception")),
        }
        Ok(())
    }
}

/// Reads the rows of a ledger.
pub(super) fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if !line.starts_with(' ') {
            let row = head(line);
            if rows.iter().any(|other| other.name == row.name) {
                return Err(format!("{} stands twice", row.name));
            }
            rows.push(row);
            continue;
        }
        let row = rows.last_mut().ok_or(format!("`{}` belongs to no rule", line.trim()))?;
        match line.trim().split_once(':') {
            Some(("code", text)) => row.code.add(text.trim())?,
            Some(("test", text)) => row.test.add(text.trim())?,
            Some(("mutant", text)) => row.mutant.add(text.trim())?,
            _ => return Err(format!("{}: `{}` is no cell", row.name, line.trim())),
        }
    }
    Ok(rows)
}

fn head(line: &str) -> Row {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let given = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (cited_as, words) = match given {
        Some((sections, words)) => {
            (sections.split(',').map(|section| section.trim().into()).collect(), words)
        }
        None => (vec![name.into()], rest),
    };
    Row {
        name: name.into(),
        cited_as,
        sections: given.is_some(),
        words: words.trim().into(),
        ..Row::default()
    }
}

/// The names of the rules of a page: `- **R1** …`.
pub(super) fn rules(page: &str) -> Vec<String> {
    let names = page.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**"));
    names.map(|(name, _)| name.into()).collect()
}

/// What stands in the first cells of a page's tables, each name by itself.
pub(super) fn first_cells(page: &str) -> Vec<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    cells.flat_map(|(cell, _)| cell.split(", ")).map(|name| name.trim_matches('`').into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let rows = parse("# a comment\n\nR1 It leads.\n  code: a::b c::d\n  code: e::f\n  mutant: - none\n")
            .unwrap();
        assert_eq!((rows.len(), rows[0].name.as_str(), rows[0].words.as_str()), (1, "R1", "It leads."));
        assert_eq!(rows[0].code.references().collect::<Vec<_>>(), ["a::b", "c::d", "e::f"]);
        assert!(matches!(rows[0].test, Cell::Empty));
        assert_eq!(rows[0].mutant.in_full(" "), "- none");
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for text in [
            "R1 a\n  code: -",
            "  code: a",
            "R1 a\n  what: b",
            "R1 a\nR1 b",
            "R1 a\n  code: b\n  code: - c",
            "R1 a\n  code: - b\n  code: c",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pages_are_read() {
        assert_eq!(rules("text\n- **R1** Always on.\n- **E2** Only\n- no rule\n"), ["R1", "E2"]);
        assert_eq!(first_cells("| I1 | a |\n|---|---|\n| `stop`, `spin` | b |\n"), ["I1", "stop", "spin"]);
    }
}
