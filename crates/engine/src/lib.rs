//! One whole server without its world: consensus, sessions, reads, bootstrap and handshake as one step machine.
//!
//! Deliberately not inside: sockets, files, threads, clocks, a runtime, the resources themselves (a boxed
//! [`StateMachine`](atomix_session::StateMachine) comes in from above). The driver in `atomix-server` and the simulator in
//! `atomix-testkit` feed inputs and carry out outputs; every `if` about Raft or sessions is in here.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod engine;
mod input;
mod options;
mod output;

pub use engine::{Engine, Recovered};
pub use input::Input;
pub use options::Options;
pub use output::{Notice, Output, StopReason};
