//! From committed command to reply and event, once and in order.
//!
//! Both halves of one contract live here, so that a test can join them by a bad link without any cluster: on the server the
//! replicated [`table`] and, beside it, the leader's own [`liveness`] and [`deliveries`]; on the client the [`core`]. And the two
//! faces of the contract: [`StateMachine`] below, [`Session`] above.
//!
//! Deliberately not inside: consensus, sockets, files, threads, clocks, a runtime. Rules such as S3 are those of docs/protocol.md.
//!
//! | module | what it holds |
//! |---|---|
//! | `state_machine` | what is replicated, in bytes: [`StateMachine`], its context and its snapshot |
//! | `timers` | its timers, on cluster time (T2) |
//! | [`table`] | who is open, what was applied, which replies and events are kept (S1–S5, S9, E1, E2) |
//! | [`liveness`] | who has fallen silent, as one leader sees it (S6–S8) |
//! | [`deliveries`] | who was sent which events, and has acknowledged them, as one leader sees it (E2–E4, E6) |
//! | [`core`] | the client's half: sequence, window, events, leader, retry, keep-alive, handshake |
//! | `session` | what a resource's handle needs: [`Session`] |
//! | `levels` | which operations of a kind all servers have (M3) |
//! | `outcome` | how a command or query ends (S5) |

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod core;
pub mod deliveries;
mod levels;
pub mod liveness;
mod outcome;
mod session;
mod state_machine;
pub mod table;
mod timers;

pub use levels::Levels;
pub use outcome::{NotDone, Outcome, SessionError};
pub use session::{Completion, EventSink, Session, SessionState, Subscription};
pub use state_machine::{
    Context, KindLevel, Publication, Published, QueryContext, RestoreError, Slice, SnapshotSource,
    StateMachine,
};
pub use timers::{TimerId, Timers};
