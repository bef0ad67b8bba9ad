//! Ordered frames of bytes between addresses: the traits that Atomix's drivers speak through, an in-process network, and the
//! tasks that keep many connections moving.
//!
//! Deliberately not inside: Raft, sessions, encodings. A transport moves byte strings whole, in order, until the connection ends.
//! Whoever writes one runs the conformance suite of `atomix-testkit` against it.
//!
//! | item | what it is |
//! |---|---|
//! | [`Transport`], [`Listener`] | connecting and being connected to |
//! | [`Connection`], [`FrameSender`], [`FrameReceiver`] | one connection and its halves |
//! | [`MemoryNetwork`] | a network within one process |
//! | [`Links`] | many connections by number, for a driver's loop: one flush per connection and batch |

#![forbid(unsafe_code)]

mod error;
mod links;
mod memory;
mod transport;

pub use error::TransportError;
pub use links::{LinkEvent, LinkLimits, Links};
pub use memory::MemoryNetwork;
pub use transport::{Connection, FrameReceiver, FrameSender, Listener, Transport};
