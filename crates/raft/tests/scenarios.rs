//! Runs the texts in `scenarios/`. `UPDATE=1` writes them anew with what happened.

use std::fs;
use std::path::Path;

use atomix_testkit::scenario::{directed, record, run};

#[test]
fn the_texts_say_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "the texts are there");
    let mut failures = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let outcome = if std::env::var_os("UPDATE").is_some() {
            record(&text).map(|recorded| fs::write(&path, recorded).unwrap())
        } else {
            run(&text)
        };
        failures.extend(outcome.err().map(|error| format!("{}: {error}", path.display())));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_directed_histories_are_safe() {
    assert_eq!(directed::figure_8(), Ok(()));
    assert_eq!(directed::commit_bound(), Ok(()));
    assert_eq!(directed::late_acknowledgement(), Ok(()));
}
