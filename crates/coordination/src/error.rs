//! What can go wrong for who contends.

use atomix_resource::ResourceError;
use thiserror::Error;

/// Why an operation of a lock did not return what it promises.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LockError {
    /// As many wait as may ([`LOCK_WAITERS`](atomix_resource::limits::LOCK_WAITERS)).
    #[error("not done: too many wait for the lock")]
    QueueFull,
    /// The lock was deleted, or is being deleted.
    #[error("not done: the lock was deleted")]
    Deleted,
    /// Not done, or unknown whether it was done: the error says which.
    #[error(transparent)]
    Resource(ResourceError),
}

impl LockError {
    /// Whether it is certain that the operation was not done, and never will be: who asked for the lock neither has it nor waits for
    /// it.
    #[must_use]
    pub fn is_not_done(&self) -> bool {
        match self {
            LockError::QueueFull | LockError::Deleted => true,
            LockError::Resource(error) => error.is_not_done(),
        }
    }

    /// Whether it is unknown if the operation was done, or may yet be.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, LockError::Resource(error) if error.is_unknown())
    }
}

impl From<ResourceError> for LockError {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::Deleted => LockError::Deleted,
            error => LockError::Resource(error),
        }
    }
}
