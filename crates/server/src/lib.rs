//! Drives the engine with a storage and a transport: one server in this process.
//!
//! Deliberately not inside: any decision about consensus, sessions, reads, bootstrap or handshakes. All that is
//! [`atomix_engine::Engine`]; an `if` about them in here is a bug there. This crate moves inputs and outputs in batches: it waits for
//! anything to happen, takes everything that has, and carries out what comes of it with one flush per connection and one
//! write to the disk.
//!
//! | module | what it is |
//! |---|---|
//! | `server` | [`Server`]: start, watch, shut down |
//! | `driver` | the loop |
//! | `storage_thread` | writes, publishes, compacts, in order |
//! | `snapshot_thread` | snapshots being written, own and received |
//! | `read_thread` | reads beside the storage thread |
//! | `options` | [`ServerOptions`] |
//! | `clock` | the boot clock (T1: suspend counts) |
//! | `error` | [`ServerError`] |

#![forbid(unsafe_code)]

mod clock;
mod driver;
mod error;
mod options;
mod read_thread;
mod server;
mod snapshot_thread;
mod storage_thread;

pub use atomix_engine::StopReason;
pub use error::ServerError;
pub use options::ServerOptions;
pub use server::Server;
