//! Why a server did not start, or stopped.

use atomix_engine::StopReason;
use atomix_storage::StorageError;
use thiserror::Error;

/// Why a server did not start, or stopped by itself. Final: only a new start, after the cause is gone, helps.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Settings that can't work, or do not go together.
    #[error("{0}")]
    Settings(String),
    /// The storage failed (D5).
    #[error("storage: {0}")]
    Storage(#[source] StorageError),
    /// The address can't be listened at.
    #[error("can't listen at {address}: {reason}")]
    CannotListen {
        /// The address.
        address: String,
        /// What the transport said.
        reason: String,
    },
    /// The state can't be read back from its snapshot.
    #[error("{0}")]
    Restore(String),
    /// The server found that it must not go on.
    #[error("{0}")]
    MustStop(#[source] StopReason),
    /// An invariant did not hold, or the state machine panicked on a committed command.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It was shut down.
    #[error("shut down")]
    ShutDown,
    /// The system refused a thread, or randomness.
    #[error("{0}")]
    System(String),
}
