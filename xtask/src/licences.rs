//! `cargo xtask licences`: everything that is linked may be linked.

use std::process::ExitCode;

use crate::metadata::{Metadata, Package};

/// Licences that ask for no more than attribution.
const ALLOWED: &[&str] = &["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Zlib"];

/// File-level copyleft, accepted for the persistent maps alone.
const MPL: (&str, &[&str]) = ("MPL-2.0", &["bitmaps", "imbl", "imbl-sized-chunks"]);

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    if !args.is_empty() {
        return crate::usage("licences takes nothing");
    }
    let metadata = match Metadata::load() {
        Ok(metadata) => metadata,
        Err(problem) => {
            eprintln!("licences: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let others: Vec<&Package> =
        metadata.packages.iter().filter(|package| !metadata.is_ours(package)).collect();
    let refused: Vec<String> = others.iter().filter_map(|package| refuse(package)).collect();
    for problem in &refused {
        println!("licences: VIOLATION {problem}");
    }
    println!("licences: {} crates of others, {} refused", others.len(), refused.len());
    if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn refuse(package: &Package) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    let Some(expression) = &package.license else { return Some(format!("{name} names no licence")) };
    let allowed = |licence: &str| {
        ALLOWED.contains(&licence) || (licence == MPL.0 && MPL.1.contains(&package.name.as_str()))
    };
    (!satisfied(expression, &allowed)).then(|| format!("{name}: {expression}"))
}

/// Whether an SPDX expression can be met with allowed licences. `AND` binds closer than `OR`; the slash of old manifests
/// means `OR`; an exception (`WITH`) only adds permissions, so that the licence before it decides.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) && rest.is_empty()
}

fn any(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = all(words, allowed);
    while take(words, "OR") {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = one(words, allowed);
    while take(words, "AND") {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    if take(words, "(") {
        let met = any(words, allowed);
        return take(words, ")") && met;
    }
    let Some((licence, rest)) = words.split_first() else { return false };
    *words = rest;
    if take(words, "WITH") {
        *words = words.get(1..).unwrap_or_default();
    }
    // `+` is "or any later version": this version will do.
    allowed(licence.trim_end_matches('+'))
}

fn take(words: &mut &[&str], wanted: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == wanted => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(package: &str, expression: Option<&str>, passes: bool) {
        let package = Package {
            id: package.into(),
            name: package.into(),
            version: "1.0.0".into(),
            license: expression.map(str::to_owned),
            manifest_path: "Cargo.toml".into(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        };
        assert_eq!(refuse(&package).is_none(), passes, "{expression:?}");
    }

    #[test]
    fn expressions_are_met_or_not() {
        check("a", Some("MIT OR Apache-2.0"), true);
        check("a", Some("MIT/Apache-2.0"), true);
        check("a", Some("Unlicense OR MIT"), true);
        check("a", Some("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"), true);
        check("a", Some("(MIT OR Apache-2.0) AND Unicode-3.0"), true);
        check("a", Some("(MIT OR Apache-2.0) AND GPL-3.0"), false);
        check("a", Some("GPL-3.0"), false);
        check("a", Some("MIT AND"), false);
        check("a", Some("(MIT"), false);
        check("a", Some("MIT GPL-3.0"), false);
        check("a", None, false);
    }

    #[test]
    fn copyleft_is_for_the_persistent_maps_alone() {
        check("imbl", Some("MPL-2.0+"), true);
        check("im", Some("MPL-2.0"), false);
    }
}
