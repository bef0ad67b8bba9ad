//! Typed resources over an untyped session, and many resources in one state machine.
//!
//! Deliberately not inside: any resource (those are the families, or yours), sessions, servers, consensus, I/O, a runtime. On a
//! server this crate is a [`Registry`], a state machine that speaks bytes; on a client a [`Handle`] over whatever implements
//! [`Session`]. Rules such as M2 are those of docs/protocol.md.
//!
//! # A resource of one's own
//!
//! Operations are types that name their replies; the state says what each does; the face is what users call. Here is all of a
//! counter:
//!
//! ```
//! use atomix_resource::{
//!     Answer, Apply, BadConfiguration, CommandContext, Consistency, Handle, NoEvent, QueryContext, Registry,
//!     Resource, ResourceError, Sharing,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// Adds; the reply is the new count.
//! #[derive(Serialize, Deserialize)]
//! pub struct Add(u64);
//! /// The count.
//! #[derive(Serialize, Deserialize)]
//! pub struct Count;
//!
//! atomix_resource::operations! {
//!     /// What can be asked of a counter.
//!     pub struct CounterOperations;
//!     commands { 1: Add -> u64 }
//!     queries { 32: Count -> u64 }
//! }
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! pub struct Counter(u64);
//!
//! impl Resource for Counter {
//!     const KIND: &'static str = "example/counter";
//!     type Operations = CounterOperations;
//!     type Configuration = ();
//!     type Event = NoEvent;
//!
//!     fn create((): ()) -> Result<Self, BadConfiguration> {
//!         Ok(Counter(0))
//!     }
//! }
//!
//! impl Apply<Add> for Counter {
//!     fn apply(&mut self, _: &mut CommandContext<'_>, Add(amount): Add) -> u64 {
//!         self.0 = self.0.saturating_add(amount);
//!         self.0
//!     }
//! }
//!
//! impl Answer<Count> for Counter {
//!     fn answer(&self, _: &QueryContext, Count: Count) -> u64 {
//!         self.0
//!     }
//! }
//!
//! // A test of it needs no cluster.
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ResourceError> {
//! let session = atomix_testkit::loopback::Loopback::new(Registry::new().with::<Counter>()).session();
//! let counter = Handle::<Counter>::open(&session, "/visits", &(), Sharing::Shared).await?;
//! let (first, _) = (counter.command(&Add(2)), counter.command(&Add(3)).await?);
//! assert_eq!(first.await?.1, 2);
//! assert_eq!(counter.query(&Count, Consistency::Linearizable).await?.1, 5);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `resource` | [`Resource`]: where a state comes from, and what happens to it without being asked |
//! | [`operation`] | [`operations!`], [`Apply`], [`Answer`]: what can be asked of it |
//! | `context` | [`CommandContext`], [`Context`], [`QueryContext`]: what it may know and do |
//! | `registry` | [`Registry`]: many resources in one state machine |
//! | `machine` | one resource as the registry sees it: its type erased |
//! | `state` | everything that a registry replicates |
//! | `snapshot` | how states become bytes and back (M4) |
//! | `handle` | [`Handle`]: the client side |
//! | [`stream`] | events on their way to the user's task, bounded |
//! | [`fencing`] | writes that only the present holder of a lock can make |
//! | [`management`] | deleting, and asking what is there |
//! | [`ordered`] | large ordered state in snapshots |
//! | `path` | where resources live |
//! | `error` | [`ResourceError`] |

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod context;
mod error;
pub mod fencing;
mod handle;
mod machine;
pub mod management;
pub mod operation;
pub mod ordered;
mod path;
mod registry;
mod resource;
mod snapshot;
mod state;
pub mod stream;

#[cfg(test)]
mod tests;

pub use atomix_protocol::client::Consistency;
pub use atomix_protocol::envelope::{OperationStatus, Sharing};
#[doc(hidden)]
pub use atomix_protocol::mutant::Mutant;
pub use atomix_protocol::{
    ClusterTime, Index, InstanceId, LocalTime, ResourceId, Sequence, SessionId, limits,
};
pub use atomix_session::{
    NotDone, RestoreError, Session, SessionState, Slice, StateMachine, Subscription, TimerId,
};
pub use bytes::Bytes;

pub use crate::context::{Caller, CommandContext, Context, QueryContext};
pub use crate::error::ResourceError;
pub use crate::handle::{Call, Handle, Opening, ResourceHandle, open};
pub use crate::operation::{Answer, Apply, Operation, Operations, Reply};
pub use crate::path::is_valid_path;
pub use crate::registry::Registry;
pub use crate::resource::{BadConfiguration, Deletion, NoEvent, Resource};
