//! Drives the client core over a transport: one session with a cluster.
//!
//! Deliberately not inside: any decision. Which server to ask, what to send again and when, when the session is in doubt: all that is
//! [`atomix_session::core::Core`]. This crate moves its frames, tells it the time and completes what it says is complete.
//!
//! | module | what it is |
//! |---|---|
//! | `client` | [`Client`]: connect, close |
//! | `session` | the [`Session`](atomix_session::Session) that resource handles use |
//! | `driver` | the loop: events in, outputs out, one flush per connection and batch |
//! | `status` | [`status`]: asking one server what it says of itself |
//! | `manage` | [`manage`]: what an operator asks of the leader |
//! | `dialogue` | questions to one server, without a session |
//! | `options` | [`ClientOptions`] |
//! | `clock` | the boot clock (L2: clocks count suspend) |
//! | `error` | [`ClientError`] |

#![forbid(unsafe_code)]

mod client;
mod clock;
mod dialogue;
mod driver;
mod error;
mod manage;
mod options;
mod session;
mod status;

pub use client::Client;
pub use error::ClientError;
pub use manage::manage;
pub use options::ClientOptions;
pub use status::status;
