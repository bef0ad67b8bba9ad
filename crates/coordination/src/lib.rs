//! Coordination: who may do something, and how everybody else can tell.
//!
//! Deliberately not inside: how it is replicated, and what is guarded. A lock is a deterministic state, hosted by servers, and a
//! handle over any [`Session`](atomix_resource::Session): a client's, or in tests a loop-back one without a cluster. It does not
//! reach into what it guards: that checks the [`Token`] for itself, with a [`Fence`], or as a map does with
//! [`fencing`](atomix_resource::fencing).
//!
//! | module | what it is |
//! |---|---|
//! | [`lock`] | [`DistributedLock`]: one holder at a time, with a guard that knows how long it counts |
//! | `guard` | [`LockGuard`]: until when what was granted counts, how its loss is learnt, how it is given back |
//! | `contender` | a call that waits for a grant, and leaves nothing behind when it is dropped |
//! | `waiting` | all that wait in this process, told by events |
//! | `token` | [`Token`], [`Holder`]: which grant it was, and whose |
//! | `fence` | [`Fence`]: refuses whoever comes with an old token |
//! | `error` | [`LockError`] |
//!
//! Every resource is a folder of the same files: `mod` its story, `op` what can be asked, `state` the state machine, `handle` what
//! users call, `tests`.

#![forbid(unsafe_code)]

#[macro_use]
mod example;
mod contender;
mod error;
mod fence;
mod guard;
pub mod lock;
mod register;
mod token;
mod waiting;

pub use atomix_resource::{NotDone, ResourceError};

pub use crate::error::LockError;
pub use crate::fence::{Fence, FenceError};
pub use crate::guard::{LockGuard, Lost};
pub use crate::lock::DistributedLock;
pub use crate::register::register;
pub use crate::token::{Holder, Token};
