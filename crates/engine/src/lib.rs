//! One whole server without its world: consensus, sessions, reads, bootstrap and handshake as one step machine.
//!
//! Deliberately not inside: sockets, files, threads, clocks, a runtime, the resources themselves (a boxed
//! [`StateMachine`](atomix_session::StateMachine) comes in from above). The driver in `atomix-server` and the simulator in
//! `atomix-testkit` feed inputs and carry out outputs; every `if` about Raft or sessions is in here.
//!
//! | module | what it decides |
//! |---|---|
//! | `engine` | the fields, and where each input and output goes |
//! | `links` | what each link is by now, and which frames may pass on it |
//! | `handshake` | who may talk here, and which of two processes with one identity stays (I5) |
//! | `bootstrap` | from a directory to a member (I1–I3) |
//! | `peers` | where the other servers are, and when to dial again |
//! | `clients` | command, keep-alive, close (S2–S6) |
//! | `attaching` | open and attach (S1, E4) |
//! | `events` | pushing, folding, giving up, holding replies (E2–E6) |
//! | `reads` | queries (Q1–Q4) |
//! | `apply` | from committed entries to what clients are told |
//! | `leading` | liveness of sessions and time entries (S6–S9, T2) |
//! | `snapshots` | own snapshots and received ones (R6) |
//! | `status` | what this server says of itself |
//! | `marks` | what interesting has happened, for simulators |
//!
//! Rules such as S3 are those of docs/protocol.md.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod apply;
mod attaching;
mod bootstrap;
mod clients;
mod engine;
mod events;
mod handshake;
mod input;
mod leading;
mod links;
mod marks;
mod options;
mod output;
mod peers;
mod reads;
mod snapshots;
mod status;

pub use atomix_raft::{ChunkOutcome, Role};
pub use engine::{Engine, Recovered};
pub use input::Input;
pub use marks::Marks;
pub use options::Options;
pub use output::{Notice, Output, StopReason};
