//! Everything that can go wrong for an embedder.

use std::fmt;
use std::path::{Path, PathBuf};

use atomix_client::ClientError;
use atomix_resource::ResourceError;
use atomix_server::ServerError;
use atomix_storage::StorageError;
use thiserror::Error;

/// Everything that can go wrong for an embedder.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that can't work, or do not go together.
    #[error("{0}")]
    Settings(String),
    /// The data directory can't be used.
    #[error("data directory {}: {problem}: {reason}", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: DirectoryProblem,
        /// In detail.
        reason: String,
    },
    /// A storage of one's own could not be read.
    #[error("storage: {0}")]
    Storage(String),
    /// Another live process uses this server's identity: a copied data directory (I5).
    #[error("duplicate identity: {0}")]
    DuplicateIdentity(String),
    /// The address can't be listened at.
    #[error("can't listen at {address}: {reason}")]
    CannotListen {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// No server of the cluster was reached, or none that knows a leader, in time.
    #[error("no server reached in time (tried {}): {reason}", tried.join(", "))]
    Unreachable {
        /// The addresses tried.
        tried: Vec<String>,
        /// What was seen last.
        reason: String,
    },
    /// The disk of the server in this process failed. It serves no more, and says so to whoever asks for its status until the process
    /// ends; the cluster goes on without it. Only a new start helps, once the disk is mended.
    #[error("the disk failed, and this server serves no more: {0}")]
    DiskFailed(String),
    /// The server in this process has stopped serving: an invariant did not hold, say. The process has to decide.
    #[error("the server has stopped: {0}")]
    Stopped(String),
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// A resource refused an operation: nothing changed.
    #[error("{0}")]
    Refused(String),
    /// An operation of a resource has no reply.
    #[error(transparent)]
    Resource(#[from] ResourceError),
}

/// What is wrong with a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryProblem {
    /// Another process uses it.
    InUse,
    /// It can't be created, opened or written.
    Unusable,
    /// The system refused to read or to write a file in it.
    Failing,
    /// Its contents are damaged, so that no server can start with it any more: an empty one can join as a new member.
    Corrupt,
    /// Its log is damaged, and no other server has what is lost: its server is the only voter (D4).
    Irreparable,
    /// It holds what is not ours.
    Foreign,
    /// It is whole, and was written by a version whose format this one does not read.
    OtherVersion,
    /// It belongs to another cluster than the servers listed.
    OtherCluster,
}

impl fmt::Display for DirectoryProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DirectoryProblem::InUse => "in use",
            DirectoryProblem::Unusable => "unusable",
            DirectoryProblem::Failing => "failing",
            DirectoryProblem::Corrupt => "corrupt",
            DirectoryProblem::Irreparable => "damaged for good",
            DirectoryProblem::Foreign => "foreign",
            DirectoryProblem::OtherVersion => "of another version",
            DirectoryProblem::OtherCluster => "of another cluster",
        })
    }
}

impl Error {
    /// What the storage said while it was opened or read. `path` is the data directory, if that is what it is.
    pub(crate) fn opening(path: Option<&Path>, error: StorageError) -> Self {
        let problem = match &error {
            StorageError::InUse(_) => DirectoryProblem::InUse,
            StorageError::Corrupt(_) | StorageError::BadSnapshot(_) => DirectoryProblem::Corrupt,
            StorageError::Foreign(_) => DirectoryProblem::Foreign,
            StorageError::OtherVersion(_) => DirectoryProblem::OtherVersion,
            StorageError::Failed(_) | StorageError::Full(_) => DirectoryProblem::Failing,
            _ => DirectoryProblem::Unusable,
        };
        let reason = match error {
            // The problem says it already.
            StorageError::InUse(_) => "another process has it open".into(),
            StorageError::Corrupt(detail) => detail,
            other => other.to_string(),
        };
        Error::directory(path, problem, reason)
    }

    fn directory(path: Option<&Path>, problem: DirectoryProblem, reason: String) -> Self {
        match path {
            Some(path) => Error::DataDirectory { path: path.into(), problem, reason },
            None => Error::Storage(reason),
        }
    }

    /// Why the server did not start.
    pub(crate) fn starting(path: Option<&Path>, error: ServerError) -> Self {
        match error {
            ServerError::Storage(error) => Error::opening(path, error),
            ServerError::Restore(reason) => Error::opening(path, StorageError::Corrupt(reason)),
            error => Error::stopped(path, error),
        }
    }

    /// Why the server stopped by itself.
    pub(crate) fn stopped(path: Option<&Path>, error: ServerError) -> Self {
        use atomix_server::StopReason;
        match error {
            ServerError::Settings(reason) => Error::Settings(reason),
            ServerError::CannotListen { address, reason } => Error::CannotListen { address, reason },
            ServerError::MustStop(StopReason::DuplicateIdentity(reason)) => Error::DuplicateIdentity(reason),
            ServerError::MustStop(StopReason::ForeignCluster(reason)) => {
                Error::directory(path, DirectoryProblem::OtherCluster, reason)
            }
            ServerError::MustStop(StopReason::Damaged(reason)) => {
                Error::directory(path, DirectoryProblem::Irreparable, reason)
            }
            ServerError::Storage(error) => Error::DiskFailed(match path {
                Some(path) => format!("data directory {}: {error}", path.display()),
                None => error.to_string(),
            }),
            error => Error::Stopped(error.to_string()),
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Settings(reason) => Error::Settings(reason),
            ClientError::Unreachable { tried, reason } => {
                Error::Unreachable { tried: tried.iter().map(ToString::to_string).collect(), reason }
            }
            ClientError::SessionEnded => Error::SessionEnded,
            other => Error::Stopped(other.to_string()),
        }
    }
}
