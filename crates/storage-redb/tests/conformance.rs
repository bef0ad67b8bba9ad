//! The conformance suite over redb.

use std::rc::Rc;

use atomix_storage::Storage;
use atomix_storage_redb::{RedbOptions, RedbStorage};
use atomix_testkit::conformance::storage;

#[test]
fn in_a_directory() {
    storage::suite(&mut || {
        let folder = Rc::new(tempfile::tempdir().expect("a temporary directory"));
        Box::new(move || {
            let storage = RedbStorage::open(folder.path().join("data"), RedbOptions::default());
            Box::new(storage.expect("opens")) as Box<dyn Storage>
        })
    });
}

#[test]
fn one_at_a_time() {
    storage::exclusive(&mut || {
        let folder = Rc::new(tempfile::tempdir().expect("a temporary directory"));
        Box::new(move || {
            let storage = RedbStorage::open(folder.path().join("data"), RedbOptions::default())?;
            Ok(Box::new(storage) as Box<dyn Storage>)
        })
    });
}
