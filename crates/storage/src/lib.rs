//! What must survive a crash: the traits that a server writes through, and an implementation in memory for tests.
//!
//! Deliberately not inside: files, threads, consensus. A storage decides nothing; it keeps what it is told, in order, and
//! gives it back. Whoever writes one runs the conformance suite of `atomix-testkit` against it.
//!
//! | item | what it is |
//! |---|---|
//! | [`Storage`] | identity, hard state, configuration, log and snapshots of one server (D1) |
//! | [`SnapshotWriter`] | writes a snapshot on another thread; visible only once published |
//! | [`receive`] | puts a snapshot together that comes in chunks |
//! | [`StorageReader`] | reads log ranges and snapshot chunks on another thread |
//! | [`load`] | reads a whole snapshot back, verified |
//! | [`MemoryStorage`] | keeps everything in memory; survives a restart within one process |

#![forbid(unsafe_code)]

mod error;
mod load;
mod memory;
mod receive;
mod storage;

pub use error::StorageError;
pub use load::load;
pub use memory::MemoryStorage;
pub use receive::{Received, receive};
pub use storage::{Recovered, SnapshotWriter, Storage, StorageReader};
