//! Which kinds this family adds to a server.

use atomix_resource::Registry;

use crate::lock::LockState;

/// Adds everything that coordinates to the kinds that a server hosts.
///
/// ```
/// use atomix_resource::{Registry, StateMachine};
///
/// let registry = atomix_coordination::register(Registry::new());
/// assert_eq!(registry.kinds()[0].kind, "lock");
/// ```
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with::<LockState>()
}
