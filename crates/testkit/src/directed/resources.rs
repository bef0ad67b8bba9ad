//! Histories of resources, over the loop-back session.

use std::sync::Arc;

use atomix_collections::map::MapState;
use atomix_collections::map::op::{Get, Put};
use atomix_resource::management::{Deleted, delete};
use atomix_resource::{Consistency, Handle, Registry, ResourceError, Session, Sharing};
use bytes::Bytes;

use crate::loopback::{Loopback, ready};

/// A map is deleted and created again. The handle of the old one must not reach the new one (M1).
///
/// # Errors
/// `M1` if it does.
pub fn deleted_and_created_again() -> Result<(), String> {
    let loopback = Loopback::new(Registry::new().with::<MapState>());
    let (ada, bob) = (loopback.session(), loopback.session());
    let open = |session: &Arc<dyn Session>| {
        ready(Handle::<MapState>::open(session, "/orders", &(), Sharing::Shared)).map_err(|e| e.to_string())
    };
    let put = Put { key: Bytes::from_static(b"key"), value: Bytes::from_static(b"old") };
    let old = open(&ada)?;
    let deleted = ready(delete(&bob, "/orders", false)).map_err(|error| error.to_string())?;
    if deleted != Deleted::Gone {
        return Err(format!("M1: a map that nobody locks was {deleted:?}"));
    }
    let new = open(&bob)?;
    if ready(old.command(&put)) != Err(ResourceError::Deleted) {
        return Err("M1: the handle of a deleted map is served".into());
    }
    let get = Get { key: put.key };
    match ready(new.query(&get, Consistency::Linearizable)) {
        Ok((_, None)) => Ok(()),
        found => Err(format!("M1: a write to the old map is found in the new one: {found:?}")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn passes_as_shipped() {
        assert_eq!(super::deleted_and_created_again(), Ok(()));
    }
}
