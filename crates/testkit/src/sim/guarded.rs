//! What locks guard, outside of the cluster: keeps the greatest token that it has seen of each lock, and refuses all smaller ones.

use std::collections::BTreeMap;

use atomix_protocol::{Index, ResourceId};

use super::checker::{Check, hold};
use super::contender::Guard;
use super::coverage::{Coverage, Mark};
use super::model::Model;

/// What locks guard.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    /// By lock: the greatest token, and where it stands among the grants.
    accepted: BTreeMap<ResourceId, (Index, usize)>,
}

impl Guarded {
    /// A write arrives. I12: what is accepted follows the order of grants.
    pub(super) fn write(&mut self, guard: Guard, model: &Model, coverage: &mut Coverage) -> Check {
        let Guard { lock, token } = guard;
        let (greatest, last) = self.accepted.get(&lock.resource).copied().unwrap_or_default();
        if token < greatest {
            coverage.mark(Mark::StaleWriteRefused, 1);
            return Ok(());
        }
        let place = model.lock(lock.resource).and_then(|lock| lock.grant_of(token)).map(|(place, _)| place);
        hold("I12", place.is_some_and(|place| place >= last), || {
            format!(
                "a write with {token} of {lock:?} is accepted, that is grant {place:?} behind grant {last}"
            )
        })?;
        self.accepted.insert(lock.resource, (token, place.unwrap_or(last)));
        Ok(())
    }
}
