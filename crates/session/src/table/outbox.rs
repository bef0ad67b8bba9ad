//! The events of one session that the log has not trimmed yet (E1, E2).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use atomix_protocol::{Index, InstanceId, limits};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use super::{Backlog, Event};

/// What one index with events costs beside them.
const EVENT_CHARGE: u64 = 64;
/// What a body costs beside its bytes. Invariant: at least what its length takes in a frame.
const BODY_CHARGE: u64 = 16;
/// What a part costs. Invariant: at least what it takes in a frame.
const PART_CHARGE: u64 = 16;

/// The events of one session. Cheap to clone; bodies are shared with other outboxes.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    /// The last event that there was. Invariant: the last of `events`, or `trimmed` if there are none.
    last: Index,
    /// The last event that is not in here any more.
    trimmed: Index,
    /// What all events through `trimmed` came to. Counted since this replica came up: only differences mean anything.
    trimmed_total: Backlog,
    /// Invariant: a chain from `trimmed` on, each naming the one before (E1).
    events: OrdMap<Index, Arc<Stored>>,
    /// Invariant: those of `events` that are atomic (E6).
    atomic: OrdSet<Index>,
}

/// The events of one index.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) event: Event,
    /// For each body its number among all bodies of that index: what is shared is told by that.
    pub(super) numbers: Vec<u32>,
    /// What all events through this one came to.
    total: Backlog,
}

/// The events of one index for one session, while they are gathered.
#[derive(Debug, Default)]
pub(super) struct Draft {
    bodies: Vec<Bytes>,
    numbers: Vec<u32>,
    /// Where the body of each number stands.
    places: BTreeMap<u32, u32>,
    parts: Vec<(InstanceId, u32)>,
    bytes: u64,
}

impl Draft {
    /// Adds an event with the body of that number. What is too large already grows no more. Returns where the body stands.
    pub(super) fn add(&mut self, instance: InstanceId, number: u32, body: &Bytes) -> u32 {
        if !self.fits() {
            return 0;
        }
        let place = match self.places.get(&number) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(self.bodies.len()).expect("far fewer bodies than bytes");
                self.places.insert(number, place);
                self.bodies.push(body.clone());
                self.numbers.push(number);
                self.bytes += body.len() as u64 + BODY_CHARGE;
                place
            }
        };
        self.parts.push((instance, place));
        self.bytes += PART_CHARGE;
        place
    }

    /// Whether it can travel in one frame.
    pub(super) fn fits(&self) -> bool {
        self.bytes + EVENT_CHARGE <= limits::EVENT_BYTES as u64
    }
}

impl Event {
    /// What it counts for in a [`Backlog`].
    pub(crate) fn size(&self) -> u64 {
        let bodies: u64 = self.bodies.iter().map(|body| body.len() as u64 + BODY_CHARGE).sum();
        EVENT_CHARGE + bodies + self.parts.len() as u64 * PART_CHARGE
    }
}

impl Outbox {
    /// One whose events through `trimmed` are gone.
    pub(super) fn after(trimmed: Index) -> Self {
        Outbox { last: trimmed, trimmed, ..Outbox::default() }
    }

    /// The last event that there was; zero if there was none.
    pub(super) fn last(&self) -> Index {
        self.last
    }

    /// The last event that was trimmed; zero if none was.
    pub(super) fn trimmed(&self) -> Index {
        self.trimmed
    }

    pub(super) fn push(&mut self, index: Index, atomic: bool, draft: Draft) {
        let Draft { bodies, numbers, parts, .. } = draft;
        let event = Event { previous: self.last, atomic, bodies, parts };
        let before = self.total_through(self.last);
        let total = Backlog { events: before.events + 1, bytes: before.bytes + event.size() };
        self.events.insert(index, Arc::new(Stored { event, numbers, total }));
        if atomic {
            self.atomic.insert(index);
        }
        self.last = index;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Index, &Stored)> {
        self.events.iter().map(|(index, stored)| (*index, &**stored))
    }

    /// The events behind an index.
    pub(super) fn behind(&self, after: Index) -> impl Iterator<Item = (Index, &Event)> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        self.events.range(range).map(|(index, stored)| (*index, &stored.event))
    }

    pub(super) fn backlog(&self, after: Index) -> Backlog {
        let (all, before) = (self.total_through(self.last), self.total_through(after));
        Backlog { events: all.events - before.events, bytes: all.bytes - before.bytes }
    }

    /// The first atomic event behind an index (E6).
    pub(super) fn first_atomic(&self, after: Index) -> Option<Index> {
        self.atomic.get_next(&after.next()).copied()
    }

    /// Drops what the client says it has (E2). What it can't have is not believed. Returns whether anything was dropped, and
    /// which of that was atomic.
    pub(super) fn trim(&mut self, acknowledged: Index) -> (bool, Vec<Index>) {
        if acknowledged > self.last {
            return (false, Vec::new());
        }
        let before = self.trimmed;
        while let Some((index, stored)) = self.events.get_min().filter(|(index, _)| *index <= acknowledged) {
            (self.trimmed, self.trimmed_total) = (*index, stored.total);
            self.events.remove(&self.trimmed);
        }
        let mut atomic = Vec::new();
        while let Some(index) = self.atomic.get_min().copied().filter(|index| *index <= acknowledged) {
            self.atomic.remove(&index);
            atomic.push(index);
        }
        (self.trimmed > before, atomic)
    }

    fn total_through(&self, index: Index) -> Backlog {
        self.events.get_prev(&index).map_or(self.trimmed_total, |(_, stored)| stored.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        let mut outbox = Outbox::default();
        for index in [3, 5, 9, 10] {
            let mut draft = Draft::default();
            draft.add(InstanceId(1), 0, &Bytes::from(vec![0; index]));
            outbox.push(Index(index as u64), index == 5 || index == 10, draft);
        }
        outbox
    }

    fn backlog(events: u64, bodies: u64) -> Backlog {
        Backlog { events, bytes: bodies + events * (EVENT_CHARGE + BODY_CHARGE + PART_CHARGE) }
    }

    #[test]
    fn the_backlog_is_the_same_before_and_after_trimming() {
        for trimmed in [0, 3, 4, 9] {
            let mut outbox = outbox();
            outbox.trim(Index(trimmed));
            let expected = [(4, 2, 19), (9, 1, 10), (10, 0, 0), (99, 0, 0)];
            for (after, events, bodies) in expected.into_iter().filter(|(after, ..)| *after >= trimmed) {
                assert_eq!(
                    outbox.backlog(Index(after)),
                    backlog(events + u64::from(after == 4), bodies + if after == 4 { 5 } else { 0 }),
                    "after {after}"
                );
            }
        }
    }

    #[test]
    fn trimming_believes_only_what_can_be() {
        let mut outbox = outbox();
        for impossible in [11, u64::MAX] {
            assert_eq!(outbox.trim(Index(impossible)), (false, Vec::new()));
        }
        assert_eq!(outbox.backlog(Index::ZERO), backlog(4, 27));
        assert_eq!(outbox.trim(Index(4)), (true, Vec::new()));
        assert_eq!((outbox.trimmed(), outbox.first_atomic(Index::ZERO)), (Index(3), Some(Index(5))));
        assert_eq!(outbox.trim(Index(4)), (false, Vec::new()));
        assert_eq!(outbox.trim(Index(10)), (true, vec![Index(5), Index(10)]));
        assert_eq!(
            (outbox.trimmed(), outbox.last(), outbox.first_atomic(Index::ZERO)),
            (Index(10), Index(10), None)
        );
    }

    #[test]
    fn a_draft_that_fits_no_frame_is_known_for_it() {
        let mut draft = Draft::default();
        let large = Bytes::from(vec![0; limits::EVENT_BYTES / 2]);
        draft.add(InstanceId(1), 0, &large);
        draft.add(InstanceId(2), 0, &large);
        assert!(draft.fits(), "the same body counts once");
        draft.add(InstanceId(1), 1, &large);
        assert!(!draft.fits());
    }
}
