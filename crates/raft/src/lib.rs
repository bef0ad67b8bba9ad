//! Consensus as a pure step machine.
//!
//! Deliberately not inside: sockets, files, threads, clocks, a runtime, an I/O error path, client sessions. Time, seeds and
//! durability are inputs; messages and writes are outputs; what must wait for the disk is held back in here (R2).
//!
//! Section numbers (§) are those of Ongaro's dissertation "Consensus: Bridging Theory and Practice"; rules such as R4 are those
//! of docs/protocol.md.

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

extern crate alloc;

mod config;
mod input;
mod output;
mod raft;
mod role;

pub use config::{Config, ConfigError};
pub use input::{ChunkOutcome, Input};
pub use output::{Output, Refused};
pub use raft::{Raft, Recovered};
pub use role::Role;
