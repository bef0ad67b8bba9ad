//! Edges: between our crates, and to those of others.

use super::{Ours, Outside, row};
use crate::metadata::{Dependency, Metadata, Package};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    /// Crates of ours.
    pub(crate) crates: usize,
    /// Edges between them.
    pub(crate) edges: usize,
    /// What the table does not allow.
    pub(crate) violations: Vec<String>,
}

/// Holds what cargo says against the table.
pub(crate) fn check(metadata: &Metadata) -> Edges {
    let mut found = Edges::default();
    let ours: Vec<&str> = metadata.ours().map(|package| package.name.as_str()).collect();
    for package in metadata.ours() {
        found.crates += 1;
        for dependency in package.dependencies.iter().filter(|dependency| dependency.ships()) {
            if ours.contains(&dependency.name.as_str()) {
                found.edges += 1;
            }
        }
        found.violations.extend(check_package(metadata, package, &ours));
    }
    found.violations.extend(check_binaries(metadata));
    found
}

fn check_package(metadata: &Metadata, package: &Package, ours: &[&str]) -> Vec<String> {
    // End-to-end tests and examples stand where users stand: they may use anything.
    if package.folder().starts_with(metadata.workspace_root.join("tests")) {
        return Vec::new();
    }
    let Some(row) = row(&package.name) else {
        return vec![format!("{} is not in the crate table (xtask/src/layers.rs)", package.name)];
    };
    let mut violations = Vec::new();
    for dependency in package.dependencies.iter().filter(|dependency| dependency.ships()) {
        let name = dependency.name.as_str();
        if ours.contains(&name) || super::row(name).is_some() {
            let allowed = match row.may_use {
                Ours::Only(names) => names.contains(&name),
                Ours::AllBut(names) => !names.contains(&name) && name != package.name,
            };
            if !allowed {
                violations.push(format!("{} -> {name}: not an edge of the crate table", package.name));
            }
        } else {
            violations.extend(check_outside(package, dependency, row.outside));
        }
    }
    violations
}

fn check_outside(package: &Package, dependency: &Dependency, allowed: Outside) -> Option<String> {
    let name = dependency.name.as_str();
    let (Outside::Only(list) | Outside::Driver(list)) = allowed else { return None };
    if !list.contains(&name) {
        return Some(format!("{} -> {name}: not in its list of outside crates", package.name));
    }
    if matches!(allowed, Outside::Only(_)) && name == "tokio" {
        let excess = dependency.features.iter().find(|feature| *feature != "sync");
        if let Some(feature) = excess {
            return Some(format!("{} -> tokio with feature `{feature}`: at most `sync`", package.name));
        }
        if dependency.uses_default_features {
            return Some(format!("{} -> tokio with default features: at most `sync`", package.name));
        }
    }
    None
}

/// `cargo run` must know what to run: one binary under `crates/`, named like the product.
fn check_binaries(metadata: &Metadata) -> Vec<String> {
    let crates = metadata.workspace_root.join("crates");
    metadata
        .ours()
        .filter(|package| package.folder().starts_with(&crates))
        .flat_map(|package| package.binaries().map(move |binary| (package.name.as_str(), binary)))
        .filter(|found| *found != ("atomix-cli", "atomix"))
        .map(|(package, binary)| format!("{package} has the binary `{binary}`: the only one is `atomix`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, kind, features.
    type Edge<'a> = (&'a str, Option<&'a str>, &'a [&'a str]);

    fn metadata(packages: &[(&str, &[Edge<'_>])]) -> Metadata {
        let id = |name: &str| format!("path+file:///w/{name}");
        Metadata {
            packages: packages
                .iter()
                .map(|(name, dependencies)| Package {
                    id: id(name),
                    name: (*name).into(),
                    version: "0.1.0".into(),
                    license: None,
                    manifest_path: format!("/w/crates/{name}/Cargo.toml").into(),
                    dependencies: dependencies
                        .iter()
                        .map(|(name, kind, features)| Dependency {
                            name: (*name).into(),
                            kind: kind.map(str::to_owned),
                            features: features.iter().map(|f| (*f).to_owned()).collect(),
                            uses_default_features: false,
                        })
                        .collect(),
                    targets: Vec::new(),
                })
                .collect(),
            workspace_members: packages.iter().map(|(name, _)| id(name)).collect(),
            workspace_root: "/w".into(),
            target_directory: "/w/target".into(),
        }
    }

    #[track_caller]
    fn check_one(package: &str, dependency: Edge<'_>, expected: Option<&str>) {
        let found = check(&metadata(&[(package, &[dependency])])).violations;
        match expected {
            None => assert_eq!(found, Vec::<String>::new()),
            Some(words) => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].contains(words), "{found:?}");
            }
        }
    }

    #[test]
    fn edges_of_the_table_pass() {
        check_one("atomix-raft", ("atomix-protocol", None, &[]), None);
        check_one("atomix-server", ("atomix-engine", None, &[]), None);
        check_one("atomix-cli", ("atomix", None, &[]), None);
        check_one("atomix", ("atomix-server", None, &[]), None);
    }

    #[test]
    fn a_planted_edge_fails() {
        check_one("atomix-raft", ("atomix-storage", None, &[]), Some("atomix-raft -> atomix-storage"));
        check_one(
            "atomix-collections",
            ("atomix-raft", Some("build"), &[]),
            Some("atomix-collections -> atomix-raft"),
        );
        check_one("atomix-testkit", ("atomix", None, &[]), Some("atomix-testkit -> atomix"));
    }

    #[test]
    fn tests_may_use_the_testkit() {
        check_one("atomix-collections", ("atomix-testkit", Some("dev"), &[]), None);
        check_one("atomix-collections", ("atomix-testkit", None, &[]), Some("not an edge"));
    }

    #[test]
    fn a_crate_outside_the_table_fails() {
        check_one("atomix-misc", ("bytes", None, &[]), Some("not in the crate table"));
    }

    #[test]
    fn outside_crates_and_features_are_bounded_where_purity_matters() {
        check_one("atomix-raft", ("bytes", None, &[]), None);
        check_one("atomix-raft", ("tokio", None, &[]), Some("outside crates"));
        check_one("atomix-session", ("tokio", None, &["sync"]), None);
        check_one("atomix-session", ("tokio", None, &["sync", "rt"]), Some("feature `rt`"));
        check_one("atomix-server", ("tokio", None, &["rt", "net"]), None);
        check_one("atomix-engine", ("tracing", None, &[]), Some("outside crates"));
        check_one("atomix-cli", ("clap", None, &[]), None);
    }

    #[test]
    fn a_second_binary_fails() {
        let mut metadata = metadata(&[("atomix-server", &[])]);
        metadata.packages[0].targets =
            vec![crate::metadata::Target { name: "atomixd".into(), kind: vec!["bin".into()] }];
        assert_eq!(check(&metadata).violations.len(), 1);
    }
}
