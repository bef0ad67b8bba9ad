//! One whole server without its world: consensus, sessions, reads, bootstrap and handshake as one step machine.
//!
//! Deliberately not inside: sockets, files, threads, clocks, a runtime, the resources themselves (a boxed
//! [`StateMachine`](atomix_session::StateMachine) comes in from above). The driver in `atomix-server` and the simulator in
//! `atomix-testkit` feed inputs and carry out outputs; every `if` about Raft or sessions is in here.
//!
//! | module | what it decides |
//! |---|---|
//! | `engine` | the fields, and where each input and output goes |
//! | `levels` | which operations all members have (M3) |
//! | `links` | what each link is by now, and which frames may pass on it |
//! | `handshake` | who may talk here, and which of two processes with one identity stays (I5) |
//! | `bootstrap` | from a directory to a member (I1–I3) |
//! | `joining` | from an empty directory to a member of a cluster that exists (R7, I3) |
//! | `members` | changes of the configuration and of the leader, as operators and joining servers ask for them (R7) |
//! | `peers` | where the other servers are, and when to dial again |
//! | `clients` | command, keep-alive, close (S2–S6) |
//! | `attaching` | open and attach (S1, E4) |
//! | `events` | pushing, folding, giving up, holding replies (E2–E6) |
//! | `reads` | queries (Q1–Q4) |
//! | `apply` | from committed entries to what clients are told |
//! | `leading` | liveness of sessions and time entries (S6–S9, T2) |
//! | `snapshots` | own snapshots and received ones (R6) |
//! | `disk` | damaged, full, failed (D4, D5) |
//! | `restore` | a received snapshot becomes a state of its own, beside the loop (R6) |
//! | `status` | what this server says of itself |
//! | `input`, `output`, `options` | all that the world can tell it, all that it can ask for, and its settings |
//! | `marks` | what interesting has happened, for simulators |
//!
//! Rules such as S3 are those of docs/protocol.md.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod apply;
mod attaching;
mod bootstrap;
mod clients;
mod disk;
mod engine;
mod events;
mod handshake;
mod input;
mod joining;
mod leading;
mod levels;
mod links;
mod marks;
mod members;
mod options;
mod output;
mod peers;
mod reads;
mod restore;
mod snapshots;
mod status;

pub use atomix_raft::{ChunkOutcome, Role};
pub use engine::{Engine, Recovered};
pub use input::Input;
pub use marks::Marks;
pub use options::Options;
pub use output::{Notice, Output, StopReason};
pub use reads::LateRead;
pub use restore::{Restored, Restoring, Retired};
