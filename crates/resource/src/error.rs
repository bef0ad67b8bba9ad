//! What can go wrong for who uses a resource.

use atomix_session::{NotDone, SessionError};
use thiserror::Error;

/// Why an operation has no reply.
///
/// Three kinds never mix (S5). Of *not done* and *refused* it is certain that nothing happened ([`ResourceError::is_not_done`]);
/// of *unknown* nothing is certain ([`ResourceError::is_unknown`]). What a resource itself refuses, such as a key that is too
/// long, is a reply, and has a type of the resource's own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResourceError {
    /// Not done, and never will be.
    #[error("not done: {0}")]
    NotDone(NotDone),
    /// It may have been done, or may yet be.
    #[error("unknown whether it was done: {0}")]
    Unknown(String),
    /// Not done: the value refused to be encoded.
    #[error("not done: can't be encoded")]
    Unencodable,
    /// Done, but what came back is not of the type that this handle expects.
    #[error("done, but the answer does not decode as the expected type")]
    Undecodable,
    /// The path holds a resource of another kind.
    #[error("{path} is a {found}, not a {wanted}")]
    WrongKind {
        /// The path.
        path: String,
        /// What was asked for.
        wanted: &'static str,
        /// What is there.
        found: String,
    },
    /// Not all of the cluster's servers are known to have the kind (M3).
    #[error("not all servers of the cluster know a kind of resource named {0}")]
    UnknownKind(&'static str),
    /// Not a path: `/` and names, at most 512 bytes.
    #[error("not a path: {0:?}")]
    BadPath(String),
    /// The configuration makes no sense.
    #[error("the configuration of {0} makes no sense")]
    BadConfiguration(String),
    /// The resource was deleted after it was opened here.
    #[error("the resource was deleted")]
    Deleted,
    /// Not deleted: it is in use.
    #[error("{0} is in use")]
    InUse(String),
    /// The resource is not open in this session.
    #[error("the resource is not open in this session")]
    NotOpen,
    /// The cluster's servers do not know the operation, or could not read it: they run another version.
    #[error("the cluster does not understand operation {operation} of a {kind}")]
    NotUnderstood {
        /// The kind of the resource.
        kind: &'static str,
        /// The operation's number.
        operation: u16,
    },
}

impl ResourceError {
    /// Whether it is certain that the operation was not done, and never will be.
    #[must_use]
    pub fn is_not_done(&self) -> bool {
        !matches!(self, ResourceError::Unknown(_) | ResourceError::Undecodable)
    }

    /// Whether it is unknown if the operation was done, or may yet be.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, ResourceError::Unknown(_))
    }
}

impl From<SessionError> for ResourceError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NotDone(reason) => ResourceError::NotDone(reason),
            SessionError::Unknown(reason) => ResourceError::Unknown(reason),
            // Whatever a later version adds: the cautious reading.
            other => ResourceError::Unknown(other.to_string()),
        }
    }
}
