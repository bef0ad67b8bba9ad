//! The timers of the state machine, on cluster time (T2).

use atomix_protocol::ClusterTime;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::state_machine::RestoreError;

/// Names a timer of the state machine. Given in order of creation, the same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimerId(pub u64);

/// The timers of the state machine, on cluster time (T2). Part of the snapshot; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Image", into = "Image")]
pub struct Timers {
    /// Invariant: above every id that was ever given.
    next: u64,
    /// In the order in which they fire: deadline, then creation. Invariant: the same timers as `deadlines`.
    pending: OrdSet<(ClusterTime, TimerId)>,
    deadlines: OrdMap<TimerId, ClusterTime>,
}

impl Timers {
    /// Sets a timer: it fires before the first entry whose time is at or past `deadline`. One that is set by a timer as it fires
    /// waits for the next entry, however early its deadline.
    pub fn set(&mut self, deadline: ClusterTime) -> TimerId {
        let id = TimerId(self.next);
        self.next = self.next.saturating_add(1);
        self.pending.insert((deadline, id));
        self.deadlines.insert(id, deadline);
        id
    }

    /// Cancels a timer. Returns whether it was still pending.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        match self.deadlines.remove(&timer) {
            Some(deadline) => self.pending.remove(&(deadline, timer)).is_some(),
            None => false,
        }
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        self.pending.get_min().map(|(deadline, _)| *deadline)
    }

    /// Takes the first timer that is due at `time`.
    pub fn take_due(&mut self, time: ClusterTime) -> Option<TimerId> {
        let (deadline, id) = *self.pending.get_min()?;
        if deadline > time {
            return None;
        }
        self.cancel(id);
        Some(id)
    }

    /// The timers that are due at `time`, in the order in which they fire. They stay pending.
    #[must_use]
    pub fn due(&self, time: ClusterTime) -> Vec<TimerId> {
        self.pending.iter().take_while(|(deadline, _)| *deadline <= time).map(|(_, id)| *id).collect()
    }
}

/// How timers stand in a snapshot.
#[derive(Serialize, Deserialize)]
struct Image {
    next: u64,
    pending: Vec<(ClusterTime, TimerId)>,
}

impl From<Timers> for Image {
    fn from(timers: Timers) -> Self {
        Image { next: timers.next, pending: timers.pending.iter().copied().collect() }
    }
}

impl TryFrom<Image> for Timers {
    type Error = RestoreError;

    fn try_from(image: Image) -> Result<Self, RestoreError> {
        let ordered = image.pending.is_sorted_by(|a, b| a < b);
        let deadlines: OrdMap<_, _> = image.pending.iter().map(|(deadline, id)| (*id, *deadline)).collect();
        let given = image.pending.iter().all(|(_, id)| id.0 < image.next);
        if !ordered || !given || deadlines.len() != image.pending.len() {
            return Err(RestoreError("timers out of order".into()));
        }
        Ok(Timers { next: image.next, pending: image.pending.into_iter().collect(), deadlines })
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::codec;

    use super::*;

    #[test]
    fn timers_fire_by_deadline_then_creation() {
        let mut timers = Timers::default();
        let late = timers.set(ClusterTime(20));
        let first = timers.set(ClusterTime(10));
        let second = timers.set(ClusterTime(10));
        let cancelled = timers.set(ClusterTime(5));
        assert!(timers.cancel(cancelled));
        assert!(!timers.cancel(cancelled));
        assert_eq!(timers.next_deadline(), Some(ClusterTime(10)));
        assert_eq!(timers.due(ClusterTime(15)), [first, second]);
        assert_eq!(timers.take_due(ClusterTime(15)), Some(first));
        assert_eq!(timers.take_due(ClusterTime(15)), Some(second));
        assert_eq!(timers.take_due(ClusterTime(15)), None);
        assert_eq!(timers.take_due(ClusterTime(20)), Some(late));
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn images_are_read_strictly() {
        let mut timers = Timers::default();
        timers.set(ClusterTime(20));
        timers.set(ClusterTime(10));
        assert_eq!(codec::from_bytes::<Timers>(&codec::to_bytes(&timers)), Ok(timers));
        let at = |deadline, id| (ClusterTime(deadline), TimerId(id));
        for pending in
            [vec![at(2, 0), at(1, 1)], vec![at(1, 0), at(2, 0)], vec![at(1, 0), at(1, 0)], vec![at(1, 7)]]
        {
            let image = codec::to_bytes(&Image { next: 2, pending });
            assert!(codec::from_bytes::<Timers>(&image).is_err());
        }
    }
}
