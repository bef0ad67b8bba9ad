//! Why a storage failed.

use thiserror::Error;

/// Why a storage failed. All but [`StorageError::Full`] and [`StorageError::BadSnapshot`] are final for the server (D5): it never retries.
/// The texts are for operators: what could not be done, to which file, and what the system said.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The device or file system refused a write, a sync or a read.
    #[error("{0}")]
    Failed(String),
    /// No space left. What was asked for did not count, and may be asked for again.
    #[error("no space left: {0}")]
    Full(String),
    /// The data is damaged: not a torn tail, and never truncated (D3).
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// Another process uses the data directory.
    #[error("in use by another process: {0}")]
    InUse(String),
    /// The data directory can't be created, opened or written.
    #[error("{0}")]
    Unusable(String),
    /// The data directory holds what is not ours.
    #[error("{0}")]
    Foreign(String),
    /// The data is whole, and in a format that this version does not read.
    #[error("{0}")]
    OtherVersion(String),
    /// A snapshot's bytes are not what its description says, or there is none of that description. Nothing has changed.
    #[error("snapshot does not verify: {0}")]
    BadSnapshot(String),
}
