//! The storage traits over redb: everything of one server in one database file. The proof that storage can be swapped.
//!
//! Deliberately not inside: consensus, a log format of its own. Each batch is one transaction, so that of a batch all is found or nothing;
//! tearing, ordering and page checksums are redb's. What redb leaves open is closed here:
//!
//! - **Two phases.** redb's one-phase commit takes a damaged page of the newest transaction for a crash, and silently goes back to the
//!   one before: an acknowledged write would be lost. With two phases, damage is damage (D3).
//! - **Checked when opened.** Every page is verified before anything is handed out, and each value carries a CRC of its own, since pages
//!   are not verified when they are read later: damage is never served.
//! - **A full disk is not the end** (D5). redb takes nothing more after an error of the file; it is opened anew, and what was being
//!   written did not count. Some room is kept in reserve.
//!
//! Slower than the file log: a commit rewrites pages from leaf to root and syncs twice. Opening reads the whole file.
//!
//! | module | what it holds |
//! |---|---|
//! | `storage` | [`RedbStorage`]: the storage thread's side |
//! | `recovery` | what is there after a start, and how far it is whole |
//! | `snapshot` | the side object that writes snapshots |
//! | `reader` | the side object that reads |
//! | `tables` | the tables, and values as bytes |
//! | `database` | transactions on a database that may have to be opened anew |
//! | `medium` | the file as redb sees it: remembers why it failed |
//! | `directory` | the data directory: locked, private, with its reserve |
//! | `options` | [`RedbOptions`] |
//!
//! ```
//! use atomix_protocol::{Identity, Incarnation, WriteBatch};
//! use atomix_storage::Storage;
//! use atomix_storage_redb::{RedbOptions, RedbStorage};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("data");
//! let mut storage = RedbStorage::open(path, RedbOptions::default())?;
//! let found = storage.recover(&mut |entry| println!("{entry:?}"))?;
//! assert_eq!(found.identity, None);
//! let identity = Some(Identity { incarnation: Incarnation(7) });
//! storage.write(&WriteBatch { identity, ..WriteBatch::default() })?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod database;
mod directory;
mod medium;
mod options;
mod reader;
mod recovery;
mod snapshot;
mod storage;
mod tables;
#[cfg(test)]
mod tests;

pub use options::RedbOptions;
pub use storage::RedbStorage;
