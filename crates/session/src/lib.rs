//! From committed command to reply and event, once and in order.
//!
//! Both halves of one contract live here, so that a test can join them by a bad link without any cluster: on the server the
//! replicated [`table`] and, beside it, the leader's own [`liveness`]; on the client the [`core`]. And the two faces of the
//! contract: [`StateMachine`] below, [`Session`] above.
//!
//! Deliberately not inside: consensus, sockets, files, threads, clocks, a runtime. Rules such as S3 are those of docs/protocol.md.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod core;
pub mod liveness;
mod outcome;
mod session;
mod state_machine;
pub mod table;

pub use outcome::{NotDone, Outcome, SessionError};
pub use session::{Completion, Session, SessionState};
pub use state_machine::{
    Context, KindLevel, QueryContext, RestoreError, Slice, SnapshotSource, StateMachine, TimerId, Timers,
};
