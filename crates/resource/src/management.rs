//! Resources by path, whatever their kind: is there one, and away with it.

use std::future::Future;
use std::sync::Arc;

use atomix_protocol::client::Consistency;
use atomix_protocol::codec;
use atomix_protocol::envelope::{DeleteReply, DeleteResource, Envelope};
use atomix_session::Session;

use crate::error::ResourceError;
use crate::path::is_valid_path;

/// How a deletion went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deleted {
    /// The resource is gone. Whoever has it open learns so with the next operation, and never reaches a later one at the path.
    Gone,
    /// There was none.
    NotThere,
    /// It was in use, and is being revoked: it goes as soon as its holder has let go, or the holder's session has ended (L3).
    /// [`exists`] tells when.
    Revoking,
}

/// Deletes the resource at a path, with all that is in it. One that has granted something, a lock that is held, is left alone unless
/// `force`d; then its holder is told first, and it goes when that has let go.
///
/// # Errors
/// [`ResourceError::InUse`]; *not done*; *unknown*, after which deleting again is harmless as long as nobody creates it anew.
pub fn delete(
    session: &Arc<dyn Session>,
    path: &str,
    force: bool,
) -> impl Future<Output = Result<Deleted, ResourceError>> + Send + use<> {
    let deletion = is_valid_path(path).then(|| {
        let delete = Envelope::Delete(DeleteResource { path: path.into(), force });
        session.submit(delete.encode(), &mut |_| ())
    });
    let path: Arc<str> = path.into();
    async move {
        let outcome = deletion.ok_or_else(|| ResourceError::BadPath(path.to_string()))?.await?;
        match codec::from_bytes::<DeleteReply>(&outcome.body) {
            Ok(DeleteReply::Deleted) => Ok(Deleted::Gone),
            Ok(DeleteReply::NotThere) => Ok(Deleted::NotThere),
            Ok(DeleteReply::Revoking) => Ok(Deleted::Revoking),
            Ok(DeleteReply::InUse) => Err(ResourceError::InUse(path.to_string())),
            Err(_) => Err(ResourceError::Undecodable),
        }
    }
}

/// The kind of the resource at a path; `None` if there is none. Linearizable.
///
/// # Errors
/// *not done*.
pub fn exists(
    session: &Arc<dyn Session>,
    path: &str,
) -> impl Future<Output = Result<Option<String>, ResourceError>> + Send + use<> {
    let asked = is_valid_path(path)
        .then(|| session.query(Envelope::Exists(path.into()).encode(), Consistency::Linearizable));
    let path: Arc<str> = path.into();
    async move {
        let outcome = asked.ok_or_else(|| ResourceError::BadPath(path.to_string()))?.await?;
        codec::from_bytes(&outcome.body).map_err(|_| ResourceError::Undecodable)
    }
}
