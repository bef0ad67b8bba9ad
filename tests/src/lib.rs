//! Three replicas in one process, for the end-to-end tests over the public API in `tests/`.
//!
//! Deliberately not inside: anything but `atomix` and the two plug traits that the tests implement themselves.
//!
//! | item | what it is |
//! |---|---|
//! | [`Cluster`] | replicas that can be stopped and started again where they left off |
//! | [`free_addresses`] | ports of this machine that nobody listens at |

#![forbid(unsafe_code)]

mod cluster;

pub use cluster::{Cluster, free_addresses};
