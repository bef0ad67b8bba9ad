//! The files of the workspace: items, what comments cite, tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Sources, pages and texts by their path from the root.
pub(super) struct Tree {
    files: BTreeMap<String, String>,
    /// Tests by their crate.
    tests: BTreeSet<(String, String)>,
}

impl Tree {
    /// Reads what may be referred to.
    pub(super) fn read(root: &Path) -> Result<Tree, String> {
        let mut files = BTreeMap::new();
        for folder in ["crates", "docs", "tests", "xtask"] {
            read(root, &root.join(folder), &mut files)?;
        }
        Ok(Tree::from(files))
    }

    #[cfg(test)]
    pub(super) fn of<const N: usize>(files: [(&str, &str); N]) -> Tree {
        Tree::from(files.map(|(path, text)| (path.into(), text.into())).into())
    }

    fn from(files: BTreeMap<String, String>) -> Tree {
        let mut tests = BTreeSet::new();
        for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".rs")) {
            let in_crates = path.strip_prefix("crates/").unwrap_or(path);
            let member = in_crates.split('/').next().unwrap_or_default();
            tests.extend(tests_of(text).map(|name| (member.into(), name.into())));
        }
        Tree { files, tests }
    }

    pub(super) fn text(&self, path: &str) -> Result<&str, String> {
        self.files.get(path).map(String::as_str).ok_or(format!("there is no {path}"))
    }

    /// Whether there is a test `crate::name`, or a text that a test runs, by its path below `crates`.
    pub(super) fn has_test(&self, reference: &str) -> bool {
        match reference.split_once("::") {
            Some((member, name)) => self.tests.contains(&(member.into(), name.into())),
            None => self.files.contains_key(&format!("crates/{reference}")),
        }
    }

    /// The tests of the files whose path begins so.
    pub(super) fn tests_below(&self, path: &str) -> Vec<&str> {
        let files = self.files.iter().filter(|(file, _)| file.starts_with(path));
        files.flat_map(|(_, text)| tests_of(text)).collect()
    }

    /// Whether `crate/src/file.rs::item`, or the head of its file, cites one of `names` in a comment. Without an
    /// item: whether the head does.
    pub(super) fn cites(&self, reference: &str, names: &[String]) -> Result<(), String> {
        let (path, item) = reference.split_once("::").unwrap_or((reference, ""));
        let path = format!("crates/{path}");
        let text = self.text(&path)?;
        let mut cited = citations(head(text));
        if !item.is_empty() {
            let item = item_text(text, item).ok_or(format!("{path} has no item `{item}`"))?;
            cited.extend(citations(item));
        }
        if names.iter().any(|name| cited.contains(name)) {
            return Ok(());
        }
        Err(format!("crates/{reference} does not cite {}", names.join(" or ")))
    }
}

fn read(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) -> Result<(), String> {
    let problem = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(problem)? {
        let path = entry.map_err(problem)?.path();
        let wanted =
            path.extension().is_some_and(|extension| ["rs", "md", "txt"].iter().any(|e| extension == *e));
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            read(root, &path, files)?;
        } else if wanted {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            files.insert(name, text);
        }
    }
    Ok(())
}

/// The names of the functions behind `#[test]` and `#[tokio::test]` that are run: one behind `#[ignore]` shows nothing.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    let (mut marked, mut ignored) = (false, false);
    text.lines().map(str::trim).filter_map(move |line| {
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        ignored |=
            line.starts_with("#[ignore") || (line.starts_with("#[cfg_attr") && line.contains("ignore"));
        let name = line.split_once("fn ").filter(|(before, _)| matches!(*before, "" | "async "))?.1;
        let (marked, ignored) = (core::mem::take(&mut marked), core::mem::take(&mut ignored));
        (marked && !ignored).then(|| &name[..name.find(['(', '<']).unwrap_or(name.len())])
    })
}

/// The module comment.
fn head(text: &str) -> &str {
    let lines = text.split_inclusive('\n').take_while(|line| line.starts_with("//!"));
    &text[..lines.map(str::len).sum()]
}

/// A function, type, constant, trait or module with the comments before it, through the line that ends it at its
/// indentation. The sources are formatted, so that needs no parser.
fn item_text<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let is_comment = |line: &str| line.starts_with("//") || line.starts_with("#[");
    let (mut begin, mut at, mut indentation) = (0, 0, None);
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        at += line.len();
        match indentation {
            None if is_comment(trimmed) => continue,
            None if is_number(trimmed, name) => return Some(&text[begin..at]),
            None if is_item(trimmed, name) => indentation = Some(line.len() - line.trim_start().len()),
            None => begin = at,
            Some(_) => {}
        }
        let ends = trimmed.split("//").next().is_some_and(|code| code.trim_end().ends_with([';', '}']));
        if indentation == Some(line.len() - line.trim_start().len()) && ends {
            return Some(&text[begin..at]);
        }
    }
    None
}

/// A type as the macros of `ids.rs` declare it: `GroupId(u32)`.
fn is_number(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.starts_with("(u") && rest.ends_with(')'))
}

fn is_item(line: &str, name: &str) -> bool {
    ["fn ", "struct ", "enum ", "const ", "static ", "trait ", "type ", "mod "].iter().any(|kind| {
        let Some((before, rest)) = line.split_once(kind) else { return false };
        let ends = rest
            .strip_prefix(name)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
        ends && before
            .split_whitespace()
            .all(|word| word.starts_with("pub") || ["const", "async", "unsafe"].contains(&word))
    })
}

/// What the comments of a text cite: `R7`, `S6–S8`, `§3.6.2`, `Figure 3.1`.
fn citations(text: &str) -> BTreeSet<String> {
    let mut cited = BTreeSet::new();
    for (_, comment) in text.lines().filter_map(|line| line.split_once("//")) {
        let parts = |c: char| !c.is_alphanumeric() && !"§._–".contains(c);
        let mut figure = false;
        for word in comment.split(parts).map(|word| word.trim_matches('.')).filter(|word| !word.is_empty()) {
            if figure {
                cited.insert(format!("Figure {word}"));
            }
            figure = word == "Figure";
            match word.split_once('–') {
                Some((first, last)) => cited.extend(range(first, last)),
                None => drop(cited.insert(word.into())),
            }
        }
    }
    cited
}

/// `S6`, `S8`: and what lies between.
fn range(first: &str, last: &str) -> Vec<String> {
    let split = |name: &str| {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (before, number) = name.split_at(name.len() - digits);
        number.parse::<u32>().ok().map(|number| (before.to_owned(), number))
    };
    match (split(first), split(last)) {
        (Some((before, from)), Some((same, through))) if before == same => {
            (from..=through).map(|number| format!("{before}{number}")).collect()
        }
        _ => vec![first.into(), last.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_those_of_comments() {
        let text =
            "//! Of (R1, S6–S8). §4.1–§4.3, Figure 5.3 rules 6 to 8.\nlet e1 = \"R9\"; // inv_I4, R22\n";
        let cited = citations(text);
        for name in ["R1", "S6", "S7", "S8", "§4.1", "§4.2", "§4.3", "Figure 5.3", "R22"] {
            assert!(cited.contains(name), "{name}");
        }
        for name in ["R9", "R2", "I4", "§4", "§4.4", "S5"] {
            assert!(!cited.contains(name), "{name}");
        }
    }

    #[test]
    fn an_item_is_its_comments_and_its_body() {
        let text = "const A: u8 = 1; // R1\n\nimpl B {\n    // No.\n\n    /// Yes.\n    #[must_use]\n    \
                    pub(crate) fn a_b(\n        c: u8,\n    ) -> u8 {\n        1\n    }\n\n    fn a() {}\n}\n";
        let item = item_text(text, "a_b").expect("an item");
        assert!(item.starts_with("    /// Yes.") && item.ends_with("        1\n    }\n"), "{item}");
        assert_eq!(item_text(text, "A"), Some("const A: u8 = 1; // R1\n"));
        assert_eq!(item_text(text, "a"), Some("    fn a() {}\n"));
        assert_eq!(item_text(text, "b"), None);
    }

    #[test]
    fn tests_are_what_is_marked_so() {
        let text = "#[test]\n#[should_panic]\nfn one() {}\nfn two() {}\n\
                    #[tokio::test(start_paused = true)]\nasync fn three() {}\n\
                    #[test]\n#[ignore = \"slow\"]\nfn four() {}\n#[ignore]\n#[test]\nfn five() {}\n#[test]\nfn six() {}\n";
        assert_eq!(tests_of(text).collect::<Vec<_>>(), ["one", "three", "six"]);
    }
}
