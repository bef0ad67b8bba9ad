//! Coordination for distributed Rust programs: replicated resources, kept consistent by Raft, embedded in your process.
//!
//! Deliberately not inside: consensus, sessions, sockets, files, resources. This crate chooses defaults, wires the parts together
//! and names them once.
//!
//! | item | what it is |
//! |---|---|
//! | [`Replica`] | server and client in this process |
//! | [`Atomix`] | a client of a cluster, and the way to its resources |
//! | [`cluster_status`] | what one server says of itself |
//! | [`admin`] | what operators ask: changes of the configuration and of the leader |
//! | [`Error`] | everything that can go wrong for an embedder |
//! | `inspect` | what the data directory of a stopped server holds |
//! | [`resource`] | for authors of resources of their own |
//!
//! | feature | adds |
//! |---|---|
//! | `collections` (default) | `DistributedMap` |
//! | `coordination` (default) | `DistributedLock`, `Fence` |
//! | `tcp` (default) | TCP, as the transport unless another is given |
//! | `file` (default) | data directories, as the storage unless another is given |

#![forbid(unsafe_code)]
// The code in the README compiles.
#![cfg_attr(doctest, doc = include_str!("../../../README.md"))]

pub mod admin;
mod atomix;
mod error;
mod families;
#[cfg(feature = "file")]
pub mod inspect;
mod replica;
mod status;

pub use crate::atomix::{Atomix, AtomixBuilder};
pub use crate::error::{DirectoryProblem, Error};
pub use crate::replica::{Replica, ReplicaBuilder};
#[cfg(feature = "tcp")]
pub use crate::status::cluster_status;
pub use crate::status::cluster_status_over;
#[cfg(feature = "collections")]
pub use atomix_collections::{
    self as collections, DistributedMap, MapChange, MapError, MapStream, Version, Versioned, WatchEnd,
};
#[cfg(feature = "coordination")]
pub use atomix_coordination::{self as coordination, DistributedLock, LockError, LockGuard};
pub use atomix_protocol::client::Consistency;
pub use atomix_protocol::member::{Member, MemberKind};
pub use atomix_protocol::status::{Counters, Status};
pub use atomix_protocol::{Address, ClientId, ClusterId, Incarnation, Index, ServerId, SessionId, Term};
pub use atomix_resource as resource;
pub use atomix_resource::ResourceError;
pub use atomix_resource::fencing::{FenceRefusal, Fencing, FencingToken};
pub use atomix_resource::management::Deleted;
pub use atomix_session::{NotDone, Session, SessionState};
pub use atomix_storage::Storage;
pub use atomix_transport::Transport;
