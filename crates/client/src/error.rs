//! Why there is no session.

use atomix_protocol::Address;
use thiserror::Error;

/// Why there is no session, or no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Settings that can't work.
    #[error("{0}")]
    Settings(String),
    /// No server was reached that could do it, in time.
    #[error("no server could be reached in time (tried {}): {reason}", list(tried))]
    Unreachable {
        /// The addresses tried.
        tried: Vec<Address>,
        /// What was seen last.
        reason: String,
    },
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
}

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(Address::as_str).collect::<Vec<_>>().join(", ")
}
