//! Replicated collections.
//!
//! Deliberately not inside: how they are replicated. A collection is a deterministic state, hosted by servers that never learn
//! the types of its keys and values, and a handle over any [`Session`](atomix_resource::Session): a client's, or in tests a
//! loop-back one without a cluster.
//!
//! | module | what it is |
//! |---|---|
//! | [`map`] | [`DistributedMap`]: keys and values, with versions for compare-and-set, streams of changes, fenced writes |
//!
//! Every collection is a folder of the same files: `mod` its story, `op` what can be asked, `state` the state machine, `handle`
//! what users call, `tests`. A map has more that users call, so three files more:
//! `read`, `watch`, `changes`.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod bytes_of;
pub mod map;
mod register;

pub use atomix_resource::fencing::{FenceRefusal, Fencing, FencingToken};
pub use atomix_resource::{Consistency, NotDone, ResourceError};

pub use crate::map::{
    DistributedMap, MapChange, MapError, MapRefusal, MapStream, Version, Versioned, WatchEnd,
};
pub use crate::register::register;
