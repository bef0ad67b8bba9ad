//! What the manifests cannot say: `no_std`, the ban list, the length of files, the common lints.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Purity, row};
use crate::metadata::{Metadata, Package};

const BAN_LIST: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
const NO_STD: &str = "#![no_std]";

/// Most lines of a file, without its tests.
const FILE_LINES: usize = 500;
/// The same in the consensus core.
const RAFT_FILE_LINES: usize = 350;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Files read.
    pub(crate) files: usize,
    /// The longest of the consensus core.
    pub(crate) longest_in_raft: Option<(String, usize)>,
    /// The longest of all others.
    pub(crate) longest: Option<(String, usize)>,
    /// What must not be.
    pub(crate) violations: Vec<String>,
}

/// Reads the sources of all members.
pub(crate) fn check(metadata: &Metadata) -> Source {
    let mut found = Source::default();
    for package in metadata.ours() {
        check_package(metadata, package, &mut found);
    }
    found
}

fn check_package(metadata: &Metadata, package: &Package, found: &mut Source) {
    let manifest = read(&package.manifest_path, found);
    if !inherits_lints(&manifest) {
        found.violations.push(format!("{} does not inherit the workspace's lints", package.name));
    }
    let purity = row(&package.name).map_or(Purity::Driver, |row| row.purity);
    let root = read_if_there(&package.folder().join("src/lib.rs")).unwrap_or_default();
    if purity == Purity::NoStd && !has_line(&root, NO_STD) {
        found.violations.push(format!("{} lacks {NO_STD} in its root", package.name));
    }
    if purity != Purity::Driver && !has_line(&root, BAN_LIST) {
        found.violations.push(format!("{} lacks {BAN_LIST} in its root", package.name));
    }
    for path in rust_files(&package.folder().join("src")) {
        let text = read(&path, found);
        let name = path.strip_prefix(&metadata.workspace_root).unwrap_or(&path).display().to_string();
        found.files += 1;
        if decides(package, &path) && !has_line(&root, BAN_LIST) && !has_line(&text, BAN_LIST) {
            found.violations.push(format!("{name} decides, and neither it nor its root has {BAN_LIST}"));
        }
        if !is_test_file(&path) {
            check_length(package, name, lines_without_tests(&text), found);
        }
    }
}

fn check_length(package: &Package, name: String, lines: usize, found: &mut Source) {
    let raft = package.name == "atomix-raft";
    let (most, longest) =
        if raft { (RAFT_FILE_LINES, &mut found.longest_in_raft) } else { (FILE_LINES, &mut found.longest) };
    if lines > most {
        found.violations.push(format!("{name} has {lines} lines without its tests; at most {most}"));
    }
    if longest.as_ref().is_none_or(|(_, other)| lines > *other) {
        *longest = Some((name, lines));
    }
}

/// Files that decide inside a crate that otherwise touches the world: every resource's state, and the log's recovery.
fn decides(package: &Package, path: &Path) -> bool {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let in_folder = path.parent().is_some_and(|folder| folder != package.folder().join("src"));
    let resource = package.folder().parent().is_some_and(|crates| crates.ends_with("crates"));
    let recovery = package.name == "atomix-storage-file" && file.starts_with("recover");
    (resource && in_folder && file == "state.rs") || recovery
}

/// Lines before the first test module.
fn lines_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line.trim() == wanted)
}

fn inherits_lints(manifest: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.replace(' ', "") == "workspace=true")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return files };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path, found: &mut Source) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| {
        found.violations.push(format!("{}: {error}", path.display()));
        String::new()
    })
}

fn read_if_there(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_up_to_the_tests() {
        assert_eq!(lines_without_tests("a\nb\n    #[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(lines_without_tests("a\nb\n"), 2);
    }

    #[test]
    fn lints_must_be_inherited_in_their_own_table() {
        assert!(inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nedition.workspace = true\n"));
        assert!(!inherits_lints("[lints]\n[dependencies]\nworkspace = true\n"));
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        let package = |name: &str| Package {
            id: name.into(),
            name: name.into(),
            version: "0.1.0".into(),
            license: None,
            manifest_path: format!("/w/crates/{name}/Cargo.toml").into(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        };
        for (name, lines, violations) in [
            ("atomix-raft", 350, 0),
            ("atomix-raft", 351, 1),
            ("atomix-engine", 500, 0),
            ("atomix-engine", 501, 1),
        ] {
            let mut found = Source::default();
            check_length(&package(name), "x.rs".into(), lines, &mut found);
            assert_eq!(found.violations.len(), violations, "{name} {lines}");
        }
    }

    #[test]
    fn states_of_resources_and_the_recovery_decide() {
        let package = |name: &str| Package {
            id: name.into(),
            name: name.into(),
            version: "0.1.0".into(),
            license: None,
            manifest_path: format!("/w/crates/{}/Cargo.toml", name.trim_start_matches("atomix-")).into(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        };
        let collections = package("atomix-collections");
        assert!(decides(&collections, Path::new("/w/crates/collections/src/map/state.rs")));
        assert!(!decides(&collections, Path::new("/w/crates/collections/src/map/handle.rs")));
        assert!(decides(
            &package("atomix-storage-file"),
            Path::new("/w/crates/storage-file/src/recovery.rs")
        ));
    }
}
