//! Ordered frames of bytes between addresses: the traits that Atomix's drivers speak through, and an in-process network.
//!
//! Deliberately not inside: Raft, sessions, encodings. A transport moves byte strings whole, in order, until the connection ends.
//!
//! | item | what it is |
//! |---|---|
//! | [`Transport`], [`Listener`] | connecting and being connected to |
//! | [`Connection`], [`FrameSender`], [`FrameReceiver`] | one connection and its halves |
//! | [`MemoryNetwork`] | a network within one process |

#![forbid(unsafe_code)]

mod error;
mod memory;
mod transport;

pub use error::TransportError;
pub use memory::MemoryNetwork;
pub use transport::{Connection, FrameReceiver, FrameSender, Listener, Transport};
