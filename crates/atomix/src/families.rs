//! The resources that come with Atomix: one feature per family.

use atomix_resource::Registry;

/// A registry with every kind of every family that is built in.
pub(crate) fn families() -> Registry {
    let registry = Registry::new();
    #[cfg(feature = "collections")]
    let registry = atomix_collections::register(registry);
    #[cfg(feature = "coordination")]
    let registry = atomix_coordination::register(registry);
    registry
}

#[cfg(feature = "collections")]
mod collections {
    use atomix_collections::{DistributedMap, MapError};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::{Atomix, Error};

    impl Atomix {
        /// The map at `path`, created if need be: as [`Atomix::get`].
        ///
        /// # Errors
        /// As [`Atomix::get`].
        pub async fn map<K, V>(&self, path: &str) -> Result<DistributedMap<K, V>, Error>
        where
            K: Serialize + DeserializeOwned,
            V: Serialize + DeserializeOwned,
        {
            self.get(path).await
        }
    }

    impl From<MapError> for Error {
        fn from(error: MapError) -> Self {
            match error {
                MapError::Resource(error) => Error::Resource(error),
                refusal => Error::Refused(refusal.to_string()),
            }
        }
    }
}

#[cfg(feature = "coordination")]
mod coordination {
    use atomix_coordination::{DistributedLock, LockError};

    use crate::{Atomix, Error};

    impl Atomix {
        /// The lock at `path`, created if need be: as [`Atomix::get`].
        ///
        /// # Errors
        /// As [`Atomix::get`].
        pub async fn lock(&self, path: &str) -> Result<DistributedLock, Error> {
            self.get(path).await
        }
    }

    impl From<LockError> for Error {
        fn from(error: LockError) -> Self {
            match error {
                LockError::Resource(error) => Error::Resource(error),
                refusal => Error::Refused(refusal.to_string()),
            }
        }
    }
}
