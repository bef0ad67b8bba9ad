//! Ordered frames of bytes over TCP: magic, length and checksum around each.
//!
//! Deliberately not inside: Raft, sessions, what a frame means. Whatever arrives is bounded before it is kept: the read buffer
//! grows only with data that has arrived, and frames are slices of it, so that their bytes are not copied on the way up.
//!
//! | module | what it is |
//! |---|---|
//! | `frame` | the layout of a frame, and cutting frames out of what arrived |
//! | `transport` | connecting and listening: [`TcpTransport`], [`TcpOptions`] |
//! | `listener` | accepting, whatever befalls single connections |
//! | `sender`, `receiver` | the halves of a connection |

#![forbid(unsafe_code)]

mod frame;
mod listener;
mod receiver;
mod sender;
mod transport;

pub use transport::{TcpOptions, TcpTransport};
