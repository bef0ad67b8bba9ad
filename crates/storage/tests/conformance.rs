//! The conformance suite over the storage in memory.

use atomix_storage::{MemoryStorage, Storage};
use atomix_testkit::conformance::storage;

#[test]
fn memory() {
    storage::suite(&mut || {
        // Clones share what is stored: each plays the process that starts next.
        let place = MemoryStorage::new();
        Box::new(move || Box::new(place.clone()) as Box<dyn Storage>)
    });
}
