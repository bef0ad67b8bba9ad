//! Consensus as a pure step machine.
//!
//! Deliberately not inside: sockets, files, threads, clocks, a runtime, an I/O error path, client sessions. Time, seeds and durability are inputs; messages and writes are outputs; what must wait for the disk is held
//! back in here (R2).
//!
//! Section numbers (§) are those of Ongaro's dissertation "Consensus: Bridging Theory and Practice"; rules such as R4 are those
//! of docs/protocol.md.
//!
//! | module | what it holds |
//! |---|---|
//! | `raft` | the machine: recover, step, drain; dispatches to the rest |
//! | `input`, `output` | every way the world can touch it, everything it can ask for |
//! | `config` | timeouts and limits, validated once |
//! | `role` | the four roles and the ways between them (§3.4) |
//! | `timer` | election, fast pre-vote (R4), heartbeat |
//! | `log` | entries in memory, terms since the snapshot, configurations |
//! | `durability` | what the disk has, and what waits for it (R2) |
//! | `abstention` | no vote while a damaged log is repaired (D4) |
//! | `propose` | appending to the leader's log, the memory bound (R5) |
//! | `progress`, `pipeline`, `chunks` | what a leader knows of a follower, and what is on its way there: entries (§10.2.2), a snapshot |
//! | `quorum` | majorities, plain and joint |
//! | `membership` | changes of the configuration (§4, R7) |
//! | `transfer` | handing leadership over (§3.10) |
//! | `room` | whether the disks that must take commands have room (D5) |
//! | `commit` | the commit rule (§3.6.2) and handing entries on |
//! | `read_index` | linearizable reads and quorum rounds (§6.4) |
//! | `lease` | linearizable reads without a round, and what followers promise (R3) |
//! | `clock` | cluster time (T1) |
//! | `snapshot` | what a snapshot replaces (§5) |
//! | `rpc` | one file per RPC: send, receive, reply |
//! | `view` | what others may know of the machine |
//! | `marks` | rare events, counted |
//! | `invariant` | the local part of Figure 3.2, always checked |

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

extern crate alloc;

mod abstention;
mod chunks;
mod clock;
mod commit;
mod config;
mod durability;
mod input;
mod invariant;
mod lease;
mod log;
mod marks;
mod membership;
mod output;
mod pipeline;
mod progress;
mod propose;
mod quorum;
mod raft;
mod read_index;
mod role;
mod room;
mod rpc;
mod snapshot;
mod timer;
mod transfer;
mod view;

pub use config::{Config, ConfigError};
pub use input::{ChunkOutcome, Input};
pub use marks::Marks;
pub use output::{Output, Refused};
pub use raft::{Raft, Recovered};
pub use role::Role;
