//! What `cargo metadata` says, as far as the checks need it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// The workspace and everything that it links.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Every package, ours and others'.
    pub(crate) packages: Vec<Package>,
    /// Package ids of the workspace's members.
    pub(crate) workspace_members: BTreeSet<String>,
    /// Where the workspace lies.
    pub(crate) workspace_root: PathBuf,
    /// Where cargo builds.
    pub(crate) target_directory: PathBuf,
}

/// One package.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Package {
    /// Unique, with the place it comes from.
    pub(crate) id: String,
    /// As named in its manifest.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    /// Its `Cargo.toml`.
    pub(crate) manifest_path: PathBuf,
    /// What it declares, of all kinds, optional ones included.
    pub(crate) dependencies: Vec<Dependency>,
    /// Libraries, binaries, tests.
    pub(crate) targets: Vec<Target>,
}

/// One declared dependency.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package depended on.
    pub(crate) name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// Features asked for.
    pub(crate) features: Vec<String>,
    /// Whether its default features come along.
    pub(crate) uses_default_features: bool,
}

/// One thing to build.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, …
    pub(crate) kind: Vec<String>,
}

impl Metadata {
    /// Asks cargo. Never changes the lock file.
    pub(crate) fn load() -> Result<Self, String> {
        let output = Command::new(cargo())
            .args(["metadata", "--format-version", "1", "--locked"])
            .output()
            .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cannot read cargo metadata: {error}"))
    }

    /// The workspace's own packages.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.is_ours(package))
    }

    /// Whether a package is a member of the workspace.
    pub(crate) fn is_ours(&self, package: &Package) -> bool {
        self.workspace_members.contains(&package.id)
    }
}

impl Package {
    /// The folder of its manifest.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("."))
    }

    /// Its binaries.
    pub(crate) fn binaries(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().filter(|t| t.kind.iter().any(|k| k == "bin")).map(|t| t.name.as_str())
    }
}

impl Dependency {
    /// Whether it is linked into what is shipped, or helps to build it.
    pub(crate) fn ships(&self) -> bool {
        self.kind.as_deref() != Some("dev")
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}
