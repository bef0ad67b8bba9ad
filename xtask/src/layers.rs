//! `cargo xtask layers`: the boundaries of the crates, as law.
//!
//! [`TABLE`] is the crate table of docs/architecture.md. What is checked: every normal and build edge between our crates,
//! the outside crates of those that must stay pure or small, tokio's features, `no_std`, the ban list of the deciders, the
//! one binary, the length of files. What clippy checks better (length of functions, `unwrap`) is left to it.

mod edges;
mod source;

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::metadata::{Dependency, Metadata, cargo};

/// One row of the crate table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The package.
    pub(crate) package: &'static str,
    /// Which of ours it may depend on, other than for its tests.
    pub(crate) may_use: Ours,
    /// Which crates of others it may depend on.
    pub(crate) outside: Outside,
    /// How pure it is.
    pub(crate) purity: Purity,
}

/// Which of our crates a crate may use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ours {
    /// These.
    Only(&'static [&'static str]),
    /// All but these.
    AllBut(&'static [&'static str]),
}

/// Which crates of others a crate may use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outside {
    /// These; of tokio at most the feature `sync`.
    Only(&'static [&'static str]),
    /// These, with whatever features.
    Driver(&'static [&'static str]),
    /// Any: it is linked into nothing that users depend on as a library.
    Any,
}

/// How pure a crate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purity {
    /// Decides, and knows no operating system: `#![no_std]` and the ban list.
    NoStd,
    /// Decides: the ban list.
    Decider,
    /// Touches the world.
    Driver,
}

use Purity::{Decider, NoStd};

const FAMILY: Outside = Outside::Only(&[
    "bytes",
    "futures-core",
    "imbl",
    "parking_lot",
    "postcard",
    "serde",
    "thiserror",
    "tokio",
]);
const DRIVER: Outside = Outside::Driver(&[
    "async-trait",
    "bytes",
    "crc32c",
    "crossbeam-channel",
    "getrandom",
    "parking_lot",
    "postcard",
    "rand",
    "rustix",
    "serde",
    "thiserror",
    "tokio",
    "tokio-util",
    "tracing",
]);

/// The crate table, bottom up.
pub(crate) const TABLE: &[Row] = &[
    Row {
        package: "atomix-protocol",
        may_use: Ours::Only(&[]),
        outside: Outside::Only(&["bytes", "postcard", "serde", "thiserror"]),
        purity: NoStd,
    },
    Row {
        package: "atomix-transport",
        may_use: Ours::Only(&[]),
        outside: Outside::Driver(&["async-trait", "bytes", "thiserror", "tokio"]),
        purity: Purity::Driver,
    },
    Row {
        package: "atomix-raft",
        may_use: Ours::Only(&["atomix-protocol"]),
        outside: Outside::Only(&["bytes", "rand", "thiserror"]),
        purity: NoStd,
    },
    Row {
        package: "atomix-session",
        may_use: Ours::Only(&["atomix-protocol"]),
        outside: Outside::Only(&[
            "async-trait",
            "bytes",
            "imbl",
            "postcard",
            "rand",
            "serde",
            "thiserror",
            "tokio",
        ]),
        purity: Decider,
    },
    Row {
        package: "atomix-storage",
        may_use: Ours::Only(&["atomix-protocol"]),
        outside: Outside::Only(&["bytes", "crc32c", "parking_lot", "thiserror"]),
        purity: Purity::Driver,
    },
    driver("atomix-transport-tcp", &["atomix-transport"]),
    Row {
        package: "atomix-engine",
        may_use: Ours::Only(&["atomix-protocol", "atomix-raft", "atomix-session"]),
        outside: Outside::Only(&["bytes", "rand", "thiserror"]),
        purity: Decider,
    },
    driver("atomix-storage-file", &["atomix-protocol", "atomix-storage"]),
    Row {
        package: "atomix-storage-redb",
        may_use: Ours::Only(&["atomix-protocol", "atomix-storage"]),
        outside: Outside::Driver(&["bytes", "crc32c", "parking_lot", "redb", "rustix", "serde"]),
        purity: Purity::Driver,
    },
    driver("atomix-client", &["atomix-protocol", "atomix-session", "atomix-transport"]),
    Row {
        package: "atomix-resource",
        may_use: Ours::Only(&["atomix-protocol", "atomix-session"]),
        outside: Outside::Only(&[
            "bytes",
            "imbl",
            "parking_lot",
            "postcard",
            "rand",
            "serde",
            "thiserror",
            "tokio",
        ]),
        purity: Purity::Driver,
    },
    driver(
        "atomix-server",
        &["atomix-engine", "atomix-protocol", "atomix-session", "atomix-storage", "atomix-transport"],
    ),
    family("atomix-collections", &["atomix-resource"]),
    family("atomix-variables", &["atomix-resource"]),
    family("atomix-coordination", &["atomix-resource"]),
    family("atomix-messaging", &["atomix-resource", "atomix-transport"]),
    Row {
        package: "atomix",
        may_use: Ours::AllBut(&[
            "atomix-cli",
            "atomix-storage-redb",
            "atomix-testkit",
            "atomix-tests",
            "xtask",
        ]),
        outside: DRIVER,
        purity: Purity::Driver,
    },
    tool("atomix-cli", Ours::Only(&["atomix"])),
    tool("atomix-testkit", Ours::AllBut(&["atomix", "atomix-cli", "atomix-tests", "xtask"])),
    tool(
        "xtask",
        Ours::Only(&[
            "atomix",
            "atomix-cli",
            "atomix-protocol",
            "atomix-server",
            "atomix-storage",
            "atomix-storage-file",
            "atomix-testkit",
            "atomix-transport",
        ]),
    ),
    tool("atomix-tests", Ours::AllBut(&[])),
    tool("example-embedded", Ours::Only(&["atomix"])),
    tool(
        "example-lock-client",
        Ours::Only(&["atomix-client", "atomix-coordination", "atomix-transport-tcp"]),
    ),
    tool("example-lock-test", Ours::Only(&["atomix-coordination"])),
    tool("example-own-storage", Ours::Only(&["atomix", "atomix-cli", "atomix-storage-redb"])),
];

const fn driver(package: &'static str, may_use: &'static [&'static str]) -> Row {
    Row { package, may_use: Ours::Only(may_use), outside: DRIVER, purity: Purity::Driver }
}

/// What handles and state machines of resources are written in: no runtime, no I/O. Its deciding part is `state.rs`.
const fn family(package: &'static str, may_use: &'static [&'static str]) -> Row {
    Row { package, may_use: Ours::Only(may_use), outside: FAMILY, purity: Purity::Driver }
}

const fn tool(package: &'static str, may_use: Ours) -> Row {
    Row { package, may_use, outside: Outside::Any, purity: Purity::Driver }
}

/// The row of a package.
pub(crate) fn row(package: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.package == package)
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let plant = match args {
        [] => false,
        [flag] if flag == "--plant" => true,
        _ => return crate::usage("layers takes nothing, or --plant"),
    };
    let metadata = match Metadata::load() {
        Ok(metadata) => metadata,
        Err(problem) => {
            eprintln!("layers: {problem}");
            return ExitCode::FAILURE;
        }
    };
    if plant { planted(metadata) } else { real(&metadata) }
}

fn real(metadata: &Metadata) -> ExitCode {
    let edges = edges::check(metadata);
    let tokio = tokio_of_families(metadata);
    let source = source::check(metadata);
    println!("layers: {} crates, {} edges between them, {} files", edges.crates, edges.edges, source.files);
    for (name, longest) in [("raft", &source.longest_in_raft), ("others", &source.longest)] {
        if let Some((path, lines)) = longest {
            println!("layers: longest file of {name}: {lines} lines without its tests, {path}");
        }
    }
    let violations: Vec<String> = [edges.violations, tokio, source.violations].concat();
    for violation in &violations {
        println!("layers: VIOLATION {violation}");
    }
    if violations.is_empty() {
        println!("layers: ok");
        ExitCode::SUCCESS
    } else {
        println!("layers: {} violations", violations.len());
        ExitCode::FAILURE
    }
}

/// Adds an edge that the table forbids to what cargo says, and passes iff the check finds just that.
fn planted(mut metadata: Metadata) -> ExitCode {
    const FROM: &str = "atomix-collections";
    const TO: &str = "atomix-raft";
    let before = edges::check(&metadata).violations;
    let Some(package) = metadata.packages.iter_mut().find(|package| package.name == FROM) else {
        eprintln!("layers: there is no {FROM} to plant an edge in");
        return ExitCode::FAILURE;
    };
    package.dependencies.push(Dependency {
        name: TO.into(),
        kind: None,
        features: Vec::new(),
        uses_default_features: false,
    });
    let after = edges::check(&metadata).violations;
    let caught: Vec<&String> = after.iter().filter(|violation| !before.contains(violation)).collect();
    println!("layers: planted {FROM} -> {TO}");
    for violation in &caught {
        println!("layers: caught: {violation}");
    }
    if caught.iter().any(|violation| violation.contains(FROM) && violation.contains(TO)) {
        ExitCode::SUCCESS
    } else {
        println!("layers: the planted edge was NOT caught");
        ExitCode::FAILURE
    }
}

/// Features of tokio that reach a small crate through anything it links, as cargo resolves that crate alone.
fn tokio_of_families(metadata: &Metadata) -> Vec<String> {
    let small = metadata.ours().filter(|package| {
        matches!(row(&package.name), Some(Row { outside: Outside::Only(list), .. }) if list.contains(&"tokio"))
    });
    small.flat_map(|package| tokio_features(&metadata.workspace_root, &package.name)).collect()
}

fn tokio_features(root: &Path, package: &str) -> Vec<String> {
    let output = Command::new(cargo())
        .args(["tree", "--locked", "--prefix", "none", "--edges", "normal,features", "--package", package])
        .current_dir(root)
        .output();
    let text = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => return vec![format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim())],
        Err(error) => return vec![format!("cargo tree: {error}")],
    };
    excess_tokio_features(&text)
        .into_iter()
        .map(|feature| format!("{package} brings tokio's feature `{feature}`; at most `sync` is allowed"))
        .collect()
}

/// Features of tokio named in the output of `cargo tree` beyond what a small crate may have.
fn excess_tokio_features(tree: &str) -> Vec<String> {
    let mut found: Vec<String> = tree
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tokio feature \""))
        .filter_map(|rest| rest.split('"').next())
        .filter(|feature| !["sync", "default"].contains(feature))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_table_is_a_row_of_it() {
        for row in TABLE {
            let (Ours::Only(names) | Ours::AllBut(names)) = row.may_use;
            for name in names {
                assert!(super::row(name).is_some(), "{} names {name}", row.package);
            }
        }
    }

    #[test]
    fn excess_features_are_found_in_a_tree() {
        let tree =
            "atomix-resource v0.1.0\ntokio feature \"sync\"\ntokio v1.54.0\ntokio feature \"net\" (*)\n";
        assert_eq!(excess_tokio_features(tree), ["net"]);
    }
}
