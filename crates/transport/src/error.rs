//! Why a transport failed.

use thiserror::Error;

/// Why a transport failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody is reached at that address.
    #[error("can't connect to {address}: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The address can't be listened at.
    #[error("can't listen at {address}: {reason}")]
    CannotListen {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other end sent what is not a frame, or one above the limit. The connection is of no more use.
    #[error("bad frame: {0}")]
    BadFrame(String),
}
