//! Identity, hard state, log and snapshots of one server in the files of one directory, over a small [`Disk`] trait.
//!
//! Deliberately not inside: consensus, a runtime, clocks. The log is append-only: a truncation is a record, not an erasure (D2).
//!
//! | module | what it holds |
//! |---|---|
//! | `storage` | [`FileStorage`]: puts log and snapshots together |
//! | `options` | [`FileOptions`] |
//! | `manifest` | identity, hard state, configuration, abstention: what is not log or state, in two copies |
//! | `log` | the log's writing side: append, roll, compact |
//! | `stock` | segments' files beside the log: a spare one, and the reserve for a full disk |
//! | `batch` | a batch as bytes |
//! | `recovery` | what the files mean after a crash or damage (D3): the decision table; pure |
//! | `snapshot` | snapshot files: write, publish, verify |
//! | `reader` | log ranges and pieces of snapshots for another thread |
//! | `catalog` | where the log's entries lie, in memory |
//! | `window` | reading segments record by record |
//! | `format` | headers of segments, records and marks |
//! | `names` | names of the files |
//! | `disk` | [`Disk`]: what is needed of a disk |
//! | `folder` | [`FolderDisk`]: the real one |
//! | [`inspect`] | what a directory holds and what is wrong with it, reading only |
//!
//! ```
//! use atomix_protocol::{Identity, Incarnation, WriteBatch};
//! use atomix_storage::Storage;
//! use atomix_storage_file::{FileOptions, FileStorage, FolderDisk};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("data");
//! let options = FileOptions { segment_bytes: 64 << 10 };
//! let mut storage = FileStorage::open(Box::new(FolderDisk::open(path)?), options)?;
//! let found = storage.recover(&mut |entry| println!("{entry:?}"))?;
//! assert_eq!(found.identity, None);
//! let identity = Some(Identity { incarnation: Incarnation(7) });
//! storage.write(&WriteBatch { identity, ..WriteBatch::default() })?;
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod batch;
mod catalog;
mod disk;
mod folder;
mod format;
pub mod inspect;
mod log;
mod manifest;
mod names;
mod options;
mod reader;
mod recovery;
mod snapshot;
mod stock;
mod storage;
mod window;

pub use disk::Disk;
pub use folder::FolderDisk;
pub use options::FileOptions;
pub use storage::FileStorage;
