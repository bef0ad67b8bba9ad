//! Events between the leader and its clients, and what is true of them: each once, in order, none missing, before what comes
//! behind them (I11).

use std::collections::BTreeMap;

use atomix_protocol::client::{ClientResponse, ReplyHeader};
use atomix_protocol::session::{Overflow, SessionEntry};
use atomix_protocol::{EntryKind, Index, InstanceId, Sequence, SessionId};
use atomix_session::table::{Backlog, Effect};
use bytes::Bytes;

use super::World;

/// A session that leaves more than this unacknowledged is given up (E3). Clients acknowledge after 64 events or 64 KiB.
pub(super) const OUTBOX: Backlog = Backlog { events: 100, bytes: 160 << 10 };
/// Between two looks of the leader at what has gathered, in milliseconds.
const LOOK: u64 = 20;

/// One event for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    index: Index,
    instance: InstanceId,
    body: Bytes,
}

/// A reply that waits for acknowledgements (E6).
pub(super) struct Held {
    session: SessionId,
    header: ReplyHeader,
    body: Bytes,
}

/// What was published to each session.
pub(super) type Published = BTreeMap<SessionId, Vec<Told>>;

impl World {
    // --- the leader ---

    /// An entry was applied for the first time anywhere.
    pub(super) fn note_published(&mut self, effect: &Effect) {
        if let Effect::Published { session, .. } = effect {
            let table = &self.servers[self.leader].table;
            let now = table.applied().0;
            let (index, event) = table.events(*session, now.previous()).next().expect("it was published");
            assert_eq!(index, now);
            let of = self.published.entry(*session).or_default();
            for (instance, body) in &event.parts {
                let body = event.bodies[*body as usize].clone();
                of.push(Told { index, instance: *instance, body });
            }
        }
    }

    /// Whether a session's contacts do not count for now, or count again (E3, E6).
    pub(super) fn judge_contacts(&mut self) {
        let now = self.servers[self.leader].now(self.real);
        let of = &mut self.servers[self.leader];
        for (session, _) in of.table.sessions() {
            let given_up = of.table.session(session).is_some_and(|info| info.given_up);
            if given_up || of.deliveries.first_atomic(&of.table, session).is_some() {
                of.liveness.withhold(now, session);
            } else {
                of.liveness.count_again(now, session);
            }
        }
    }

    /// The leader sends what may be sent, lets go of replies, and looks after the outboxes.
    pub(super) fn lead_events(&mut self) {
        self.judge_contacts();
        let sessions: Vec<_> =
            self.servers[self.leader].table.sessions().map(|(session, _)| session).collect();
        for session in &sessions {
            self.send_events(*session, Index::ZERO);
        }
        for held in std::mem::take(&mut self.servers[self.leader].held) {
            if self.is_held(held.header.index) {
                self.servers[self.leader].held.push(held);
            } else {
                self.let_go(held);
            }
        }
        if !self.real.is_multiple_of(LOOK) {
            return;
        }
        for session in sessions {
            let of = &self.servers[self.leader];
            if of.deliveries.overflowing(&of.table, session)
                && !of.table.session(session).expect("open").given_up
            {
                let overflow = Overflow { session, decided_in: self.term };
                self.append(EntryKind::Session, SessionEntry::Overflow(overflow).encode());
            }
        }
        let of = &mut self.servers[self.leader];
        let due = of.deliveries.wants_fold(&of.table) || self.real.is_multiple_of(10 * LOOK);
        let said = if due { of.deliveries.fold(&of.table) } else { Vec::new() };
        if !said.is_empty() {
            self.met.folded += 1;
            self.append(EntryKind::Session, SessionEntry::Acknowledge(said).encode());
        }
    }

    pub(super) fn attach_events(&mut self, session: SessionId, last_event: Index) {
        // A server may send more than it was asked for.
        let repeat = self.weather.cuts > 0 && self.below(4) == 0;
        let from = if repeat { Index(self.below(last_event.0 + 1)) } else { last_event };
        let of = &mut self.servers[self.leader];
        of.deliveries.attached(&of.table, session, from);
    }

    pub(super) fn acknowledged(&mut self, session: SessionId, event: Index, lowest: Option<Sequence>) {
        let of = &mut self.servers[self.leader];
        of.deliveries.acknowledged(&of.table, session, event, lowest);
    }

    /// E5: events through `at_least`, whatever is under way.
    fn send_events(&mut self, session: SessionId, at_least: Index) {
        let of = &mut self.servers[self.leader];
        for parcel in of.deliveries.send(&of.table, session, at_least) {
            self.met.events_resent += u64::from(parcel.again);
            let response = ClientResponse::Event(parcel.header, parcel.bodies);
            self.send_to_session(session, &response);
            if self.weather.cuts > 0 && self.below(20) == 0 {
                self.send_to_session(session, &response);
            }
        }
    }

    /// A reply goes behind its events (E5), and waits while somebody has not acknowledged those of its index (E6).
    pub(super) fn send_reply(&mut self, session: SessionId, header: ReplyHeader, body: Bytes, atomic: bool) {
        let held = Held { session, header, body };
        if atomic && self.is_held(header.index) {
            self.met.held += 1;
            self.servers[self.leader].held.push(held);
        } else {
            self.let_go(held);
        }
    }

    fn is_held(&self, index: Index) -> bool {
        let of = &self.servers[self.leader];
        of.deliveries.is_held(&of.table, index)
    }

    fn let_go(&mut self, reply: Held) {
        self.send_events(reply.session, reply.header.event_index);
        self.send_to_session(reply.session, &ClientResponse::Reply(reply.header, reply.body));
    }

    // --- the client ---

    pub(super) fn delivered(&mut self, client: usize, index: Index, instance: InstanceId, body: Bytes) {
        let told = Told { index, instance, body };
        let of = &self.clients[client];
        let session = of.session.expect("events come behind the opening");
        let expected = self.published.get(&session).and_then(|events| events.get(of.events));
        assert_eq!(Some(&told), expected, "I11: event {} of session {session}", of.events);
        assert!(index > of.told, "I11, E5: an event of {index} after a reply or an answer at {}", of.told);
        self.clients[client].events += 1;
        self.met.events += 1;
    }

    /// Q2, E5: everything published at or before an index was delivered. What ends with its session does not wait.
    pub(super) fn check_events_before(&self, client: usize, index: Index) {
        let of = &self.clients[client];
        let next = self.next_event(client);
        assert!(
            of.core.state().is_final() || next.is_none_or(|next| next.index > index),
            "I11, Q2: {next:?} comes after what was told at {index}"
        );
    }

    fn next_event(&self, client: usize) -> Option<&Told> {
        let of = &self.clients[client];
        self.published.get(&of.session?)?.get(of.events)
    }

    /// The last event that was delivered to a client.
    pub(super) fn last_event(&self, client: usize) -> Index {
        let of = &self.clients[client];
        let events = of.session.and_then(|session| self.published.get(&session));
        let last = of.events.checked_sub(1).and_then(|last| events?.get(last));
        last.map_or(Index::ZERO, |told| told.index)
    }

    /// Whether a client has all events of its session, or no session any more.
    pub(crate) fn has_all_events(&self, client: usize) -> bool {
        self.clients[client].core.state().is_final() || self.next_event(client).is_none()
    }
}
