//! From what a state machine published to the outboxes, and out of them (E1, E2, E6).

use std::collections::BTreeMap;
use std::mem;

use atomix_protocol::session::{Acknowledged, Overflow};
use atomix_protocol::{Index, Sequence, SessionId, Term};
use bytes::Bytes;

use super::outbox::Draft;
use super::{Backlog, Effect, Event, State, Table};
use crate::state_machine::Publication;

impl Table {
    /// The events of a session behind an index, in order (E4). Those that the log has trimmed are gone.
    pub fn events(&self, session: SessionId, after: Index) -> impl Iterator<Item = (Index, &Event)> + '_ {
        let record = self.state.sessions.get(&session);
        record.into_iter().flat_map(move |record| record.outbox.behind(after))
    }

    /// How many events a session has in its outbox behind an index, and their bytes. Takes no longer the more there are.
    #[must_use]
    pub fn backlog(&self, session: SessionId, after: Index) -> Backlog {
        let record = self.state.sessions.get(&session);
        record.map_or_else(Backlog::default, |record| record.outbox.backlog(after))
    }

    /// The sessions whose acknowledgement the reply of an index waits for, if it does (E6): live ones that were sent atomic events
    /// of that index and, as far as the log knows, have not acknowledged them. Ascending.
    pub fn awaited(&self, index: Index) -> impl Iterator<Item = SessionId> + '_ {
        let range = (index, SessionId(0))..=(index, SessionId(u64::MAX));
        self.state.awaited.range(range).map(|(_, session)| *session)
    }

    /// The first atomic event behind `after` that is in a session's outbox (E6).
    #[must_use]
    pub fn first_atomic(&self, session: SessionId, after: Index) -> Option<Index> {
        self.state.sessions.get(&session)?.outbox.first_atomic(after)
    }

    /// Sessions whose contacts do not count as the log stands, ascending: they were given up (E3), or leave an atomic event
    /// unacknowledged (E6). A new leader begins with these.
    pub fn withheld(&self) -> impl Iterator<Item = SessionId> + '_ {
        let withheld = self
            .state
            .sessions
            .iter()
            .filter(|(_, record)| record.given_up || record.outbox.first_atomic(Index::ZERO).is_some());
        withheld.map(|(session, _)| *session)
    }

    /// Puts what was published with this entry into the outboxes: one event for each session, in order of publishing, each
    /// different body once (E1). Returns whether any session got some.
    pub(super) fn put_out(&mut self, atomic: bool, effects: &mut Vec<Effect>) -> bool {
        let published = mem::take(&mut self.published);
        let mut any = false;
        for (session, draft) in self.state.draft(published.events) {
            if !draft.fits() {
                self.state.give_up(session, effects);
                continue;
            }
            any = true;
            let index = self.state.index;
            if atomic {
                self.state.awaited.insert((index, session));
            }
            let record = self.state.sessions.get_mut(&session).expect("drafts are for open sessions");
            record.outbox.push(index, atomic, draft);
            effects.push(Effect::Published { session, atomic });
        }
        any
    }

    pub(super) fn apply_acknowledge(&mut self, list: &[Acknowledged], effects: &mut Vec<Effect>) {
        let trimmed = list
            .iter()
            .filter(|said| self.state.acknowledge(said.session, said.event, said.lowest_unanswered));
        let sessions = trimmed.count() as u64;
        if sessions > 0 {
            effects.push(Effect::Trimmed { sessions });
        }
    }

    /// E3, R8.
    pub(super) fn apply_overflow(&mut self, term: Term, overflow: Overflow, effects: &mut Vec<Effect>) {
        if overflow.decided_in == term && self.state.takes_events(overflow.session) {
            self.state.give_up(overflow.session, effects);
        }
    }
}

impl State {
    fn takes_events(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|record| !record.given_up)
    }

    /// What is published, by session. Bodies are copied, each different one once for all sessions: the state machine's may be
    /// slices that keep whole commands in memory.
    fn draft(&self, events: Vec<Publication>) -> BTreeMap<SessionId, Draft> {
        let mut drafts: BTreeMap<SessionId, Draft> = BTreeMap::new();
        let mut numbers: BTreeMap<Bytes, u32> = BTreeMap::new();
        for Publication { to, body } in events {
            let mut shared = None;
            for (session, instance) in to {
                if !self.takes_events(session) {
                    continue;
                }
                let (body, number) = shared.get_or_insert_with(|| number(&mut numbers, &body));
                drafts.entry(session).or_default().add(instance, *number, body);
            }
        }
        drafts
    }

    /// Drops what a client says it has, replies (S4) and events (E2). Returns whether there was any.
    pub(super) fn acknowledge(
        &mut self,
        session: SessionId,
        event: Index,
        lowest_unanswered: Sequence,
    ) -> bool {
        let Some(record) = self.sessions.get_mut(&session) else {
            return false;
        };
        let replies = record.trim(lowest_unanswered);
        let (events, atomic) = record.outbox.trim(event);
        for index in atomic {
            self.awaited.remove(&(index, session));
        }
        replies || events
    }

    /// Drops the events of a session, and keeps no more for it.
    fn give_up(&mut self, session: SessionId, effects: &mut Vec<Effect>) {
        let Some(record) = self.sessions.get_mut(&session) else {
            return;
        };
        record.given_up = true;
        let (_, atomic) = record.outbox.trim(record.outbox.last());
        self.await_no_more(session, &atomic);
        effects.push(Effect::GivenUp { session });
    }

    /// Nobody waits for these acknowledgements any more.
    pub(super) fn await_no_more(&mut self, session: SessionId, atomic: &[Index]) {
        for index in atomic {
            self.awaited.remove(&(*index, session));
        }
    }
}

fn number(numbers: &mut BTreeMap<Bytes, u32>, body: &Bytes) -> (Bytes, u32) {
    if let Some((known, number)) = numbers.get_key_value(body) {
        return (known.clone(), *number);
    }
    let (own, number) =
        (Bytes::copy_from_slice(body), u32::try_from(numbers.len()).expect("fewer bodies than bytes"));
    numbers.insert(own.clone(), number);
    (own, number)
}
