//! Events, as a leader serves them (E2–E6): what goes out when, what is folded into the log, whose outbox is full, which replies
//! wait.

use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::client::{ClientResponse, ReplyHeader};
use atomix_protocol::session::{Overflow, SessionEntry};
use atomix_protocol::{Index, LocalTime, Sequence, SessionId};
use atomix_raft::Refused;
use bytes::Bytes;

use crate::engine::Engine;

/// What a leader keeps of events for its term, beside what was sent and acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Replies that are held (E6), by the index of their commands.
    held: BTreeMap<Index, Held>,
    /// Which of them wait for whom. Invariant: as many for each as it says.
    holders: BTreeMap<SessionId, BTreeSet<Index>>,
    /// Sessions with full outboxes, to be given up by an entry (E3).
    overflowing: BTreeSet<SessionId>,
    /// Those of them whose entry is in the log.
    giving_up: BTreeSet<SessionId>,
    /// The Acknowledge entry under way; one at a time (E2).
    fold: Option<Index>,
}

/// A reply that waits.
#[derive(Debug)]
struct Held {
    session: SessionId,
    header: ReplyHeader,
    body: Bytes,
    /// For how many sessions it waits.
    waits_for: usize,
}

impl Events {
    pub(crate) fn holds_replies(&self) -> bool {
        !self.held.is_empty()
    }

    /// A session has acknowledged all events through `through`: the replies that wait for nobody else now.
    fn release(&mut self, session: SessionId, through: Index) -> Vec<Held> {
        let Some(indexes) = self.holders.get_mut(&session) else {
            return Vec::new();
        };
        let later = indexes.split_off(&through.next());
        let released = core::mem::replace(indexes, later);
        if indexes.is_empty() {
            self.holders.remove(&session);
        }
        let mut ready = Vec::new();
        for index in released {
            if let Some(held) = self.held.get_mut(&index) {
                held.waits_for -= 1;
                if held.waits_for == 0 {
                    ready.extend(self.held.remove(&index));
                }
            }
        }
        ready
    }
}

impl Engine {
    /// The reply to a command leaves, or is held while somebody has not acknowledged the events of its index (E6). A retry passes
    /// the same test. Replies to other commands do not wait for it.
    pub(crate) fn answer(&mut self, session: SessionId, header: ReplyHeader, body: Bytes, atomic: bool) {
        if self.link_of(session).is_none() {
            return;
        }
        if atomic {
            let holders: Vec<SessionId> = self.deliveries.holding(&self.table, header.index).collect();
            if !holders.is_empty() {
                self.hold(&holders, Held { session, header, body, waits_for: holders.len() });
                return;
            }
        }
        self.reply(session, header, body);
    }

    fn hold(&mut self, holders: &[SessionId], held: Held) {
        let index = held.header.index;
        if self.events.held.contains_key(&index) {
            return;
        }
        self.marks.replies_held += 1;
        for holder in holders {
            self.events.holders.entry(*holder).or_default().insert(index);
        }
        self.events.held.insert(index, held);
    }

    /// A reply leaves behind the events that it names (E5).
    fn reply(&mut self, session: SessionId, header: ReplyHeader, body: Bytes) {
        self.push_events(session, header.event_index);
        if let Some(id) = self.link_of(session) {
            self.respond(id, ClientResponse::Reply(header, body));
        }
    }

    fn release(&mut self, session: SessionId, through: Index) {
        for held in self.events.release(session, through) {
            self.reply(held.session, held.header, held.body);
        }
    }

    /// Sends a session what may go out on its link now, and everything through `at_least`.
    fn push_events(&mut self, session: SessionId, at_least: Index) {
        let Some(id) = self.link_of(session) else { return };
        for parcel in self.deliveries.send(&self.table, session, at_least) {
            self.marks.events_sent += 1;
            self.marks.events_resent += u64::from(parcel.again);
            self.respond(id, ClientResponse::Event(parcel.header, parcel.bodies));
        }
    }

    /// A session has a link, and its client has the events through `last_event`: the rest is sent on it (E4).
    pub(crate) fn go_on(&mut self, now: LocalTime, session: SessionId, last_event: Index) {
        let before = self.deliveries.first_atomic(&self.table, session);
        self.deliveries.attached(&self.table, session, last_event);
        self.release(session, self.deliveries.last_acknowledged(session));
        self.count_contacts(now, session, before);
        self.hear(now, session, None);
        self.push_events(session, Index::ZERO);
    }

    /// A client said outside the log which events it has, and which replies (E2).
    pub(crate) fn acknowledge(
        &mut self,
        now: LocalTime,
        session: SessionId,
        event: Index,
        lowest_unanswered: Option<Sequence>,
    ) {
        let before = self.deliveries.first_atomic(&self.table, session);
        if !self.deliveries.acknowledged(&self.table, session, event, lowest_unanswered) {
            return;
        }
        self.release(session, event);
        self.count_contacts(now, session, before);
        self.push_events(session, Index::ZERO);
    }

    /// Whether a session's contacts count now, which left the atomic event at `before` unacknowledged when it was last looked at. If
    /// it leaves none, they do, whichever entry or frame acknowledged it (E6).
    fn count_contacts(&mut self, now: LocalTime, session: SessionId, before: Option<Index>) {
        if self.table.session(session).is_none_or(|info| info.given_up) {
            return;
        }
        let after = self.deliveries.first_atomic(&self.table, session);
        if after.is_none() || after != before {
            self.liveness.count_again(now, session);
        }
        // The next one has a timeout of its own.
        if after.is_some() {
            self.liveness.withhold(now, session);
        }
    }

    /// A leader put events into the outbox of a session.
    pub(crate) fn on_events(&mut self, now: LocalTime, session: SessionId, atomic: bool) {
        if atomic {
            self.liveness.withhold(now, session);
        }
        self.push_events(session, Index::ZERO);
        if self.is_established()
            && !self.events.giving_up.contains(&session)
            && self.deliveries.overflowing(&self.table, session)
        {
            self.events.overflowing.insert(session);
        }
    }

    /// A leader gave up a session (E3): from now on it falls silent, whatever it says, and nobody waits for it.
    pub(crate) fn on_given_up(&mut self, now: LocalTime, session: SessionId) {
        self.marks.overflows += 1;
        self.events.giving_up.remove(&session);
        self.liveness.withhold(now, session);
        self.release(session, Index(u64::MAX));
    }

    /// A session is over: nobody waits for it.
    pub(crate) fn on_events_ended(&mut self, session: SessionId) {
        self.deliveries.ended(session);
        self.events.overflowing.remove(&session);
        self.events.giving_up.remove(&session);
        self.release(session, Index(u64::MAX));
    }

    /// This server leads no more: the next leader has it all from the log and from the clients.
    pub(crate) fn forget_events(&mut self) {
        self.deliveries.deposed();
        self.events = Events::default();
    }

    /// A leader applied entries through `index`.
    pub(crate) fn folded_through(&mut self, index: Index) {
        self.events.fold = self.events.fold.filter(|entry| *entry > index);
    }

    /// Gives up sessions with full outboxes, by entries of the term in which that was decided (E3, R8).
    pub(crate) fn give_up_overflowing(&mut self, now: LocalTime) -> Result<(), Refused> {
        let Some(term) = self.leading.as_ref().map(|leading| leading.term) else { return Ok(()) };
        while let Some(session) = self.events.overflowing.first().copied() {
            // It may have acknowledged in the meantime.
            if self.deliveries.overflowing(&self.table, session) {
                let overflow = Overflow { session, decided_in: term };
                self.propose(now, &SessionEntry::Overflow(overflow), Some(term))?;
                self.events.giving_up.insert(session);
            }
            self.events.overflowing.pop_first();
        }
        Ok(())
    }

    /// Folds acknowledgements into the log when some session has much of it (E2).
    pub(crate) fn fold_if_wanted(&mut self, now: LocalTime) -> Result<(), Refused> {
        if self.events.fold.is_some() || !self.deliveries.wants_fold(&self.table) {
            return Ok(());
        }
        self.fold(now)
    }

    fn fold(&mut self, now: LocalTime) -> Result<(), Refused> {
        let Some(term) = self.leading.as_ref().map(|leading| leading.term) else { return Ok(()) };
        if self.events.fold.is_some() || !self.is_established() {
            return Ok(());
        }
        let said = self.deliveries.fold(&self.table);
        if said.is_empty() {
            return Ok(());
        }
        self.propose(now, &SessionEntry::Acknowledge(said), Some(term))?;
        self.events.fold = self.raft.as_ref().map(|raft| raft.last().index);
        Ok(())
    }

    /// Folds what there is before a snapshot, so that it need not be in there (E2). Says whether the snapshot waits for that. If
    /// the log takes no entry now, it does not.
    pub(crate) fn fold_before_snapshot(&mut self, now: LocalTime, first: bool) -> bool {
        if first && self.fold(now).is_err() {
            return false;
        }
        self.events.fold.is_some()
    }
}
