//! Identity, hard state, log and snapshots of one server in the files of one directory, over a small [`Disk`] trait.
//!
//! Deliberately not inside: consensus, threads, a runtime. The log is append-only: a truncation is a record, not an erasure (D2).

#![deny(unsafe_code)]

mod disk;

pub use disk::Disk;
