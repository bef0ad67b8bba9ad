//! A received snapshot is read into a state of its own, beside the loop and beside the state that still stands.

use std::fmt;

use atomix_session::table::Restored as Sessions;
use atomix_session::{RestoreError, StateMachine};
use bytes::Bytes;

/// Takes the bytes of a snapshot, on whatever thread has time for it.
pub struct Restoring(pub(crate) Box<dyn StateMachine>);

/// What came of it.
pub struct Restored(pub(crate) Result<(Sessions, Box<dyn StateMachine>), RestoreError>);

/// A state that is not needed any more: to be dropped where nothing waits for it, because that takes its time.
#[expect(dead_code, reason = "held only to be dropped")]
pub struct Retired(pub(crate) Sessions, pub(crate) Box<dyn StateMachine>);

impl Restoring {
    /// Reads the whole of a verified snapshot. Takes long if it is large.
    #[must_use]
    pub fn read(self, snapshot: &Bytes) -> Restored {
        let Restoring(mut machine) = self;
        Restored(Sessions::read(snapshot, machine.as_mut()).map(|sessions| (sessions, machine)))
    }
}

impl fmt::Debug for Restoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restoring").finish_non_exhaustive()
    }
}

impl fmt::Debug for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Restored").field(&self.0.as_ref().map(|_| ())).finish()
    }
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired").finish_non_exhaustive()
    }
}
