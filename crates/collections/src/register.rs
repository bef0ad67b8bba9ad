//! Which kinds this family adds to a server.

use atomix_resource::Registry;

use crate::map::MapState;

/// Adds every collection to the kinds that a server hosts.
///
/// ```
/// use atomix_resource::{Registry, StateMachine};
///
/// let registry = atomix_collections::register(Registry::new());
/// assert_eq!(registry.kinds()[0].kind, "map");
/// ```
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with::<MapState>()
}
