//! Who was sent which events, and has acknowledged them, as the leader sees it (E2–E4, E6). Local to one leader's term; nothing
//! here is replicated.

use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::client::EventHeader;
use atomix_protocol::session::Acknowledged;
use atomix_protocol::{Index, Sequence, SessionId};
use bytes::{Bytes, BytesMut};

use crate::table::{Backlog, Event, SessionInfo, Table};

/// A link carries at most so many indexes with events that are not acknowledged; then it waits. One is always under way.
const EVENTS_IN_FLIGHT: u64 = 256;
/// And at most so many bytes of them.
const BYTES_IN_FLIGHT: u64 = 1 << 20;
/// Acknowledged events are folded into the log when they pass this part of a bound (E2).
const FOLD_PART: u64 = 4;
/// Most sessions in one Acknowledge entry.
const FOLDED: usize = 4_096;

/// What clients have acknowledged beside the log, and what is under way to them.
///
/// The [`Table`] says which events there are; every method that takes it wants it as it is now. No method takes longer the more
/// sessions there are, apart from the logarithm of their number, and [`Deliveries::fold`].
#[derive(Debug)]
pub struct Deliveries {
    /// A session that leaves more than this unacknowledged is to be given up (E3).
    most: Backlog,
    /// Those that were heard in this term.
    sessions: BTreeMap<SessionId, Delivery>,
    /// Those that may have acknowledged what the log has not trimmed. Invariant: all of those that have.
    untrimmed: BTreeSet<SessionId>,
    /// Those of them with so much of it that it may be worth an entry.
    pressing: BTreeSet<SessionId>,
}

/// One session.
#[derive(Debug, Default)]
struct Delivery {
    /// The last event it has acknowledged. Invariant: it exists.
    acknowledged: Index,
    /// As it says. Invariant: at most one above the last sequence applied.
    lowest_unanswered: Sequence,
    link: Option<Link>,
}

/// What went out on the link of a session.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The last event sent, or the one that the client had when it attached (E4).
    sent: Index,
    /// What was applied when it attached: events until then were published for an earlier link.
    since: Index,
}

/// The events of one index, as they travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// What they are.
    pub header: EventHeader,
    /// The bodies, one after the other.
    pub bodies: Bytes,
    /// Whether they were published before this link was attached (E4).
    pub again: bool,
}

impl Deliveries {
    /// A server that does not lead. A session that leaves more than `most` unacknowledged is [`overflowing`](Self::overflowing).
    #[must_use]
    pub fn new(most: Backlog) -> Self {
        Deliveries { most, sessions: BTreeMap::new(), untrimmed: BTreeSet::new(), pressing: BTreeSet::new() }
    }

    /// This server leads no more: everything is forgotten.
    pub fn deposed(&mut self) {
        *self = Deliveries::new(self.most);
    }

    /// A session has a link, and its client has `last_event` (E4): what is behind that is to be sent on it. Returns whether that
    /// acknowledges more than was known.
    pub fn attached(&mut self, table: &Table, session: SessionId, last_event: Index) -> bool {
        let Some(info) = table.session(session) else {
            return false;
        };
        let news = self.acknowledged(table, session, last_event, None);
        let delivery = self.sessions.entry(session).or_default();
        // A client can't have what was never published: it is sent what it has not acknowledged.
        let sent = if last_event <= info.event_index { last_event } else { delivery.acknowledged };
        delivery.link = Some(Link { sent, since: table.applied().0 });
        news
    }

    /// A session has no link any more.
    pub fn detached(&mut self, session: SessionId) {
        if let Some(delivery) = self.sessions.get_mut(&session) {
            delivery.link = None;
        }
    }

    /// A session was ended by an applied entry.
    pub fn ended(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.untrimmed.remove(&session);
        self.pressing.remove(&session);
    }

    /// A client said outside the log what it has: its events through `event` and, if it said that too, the replies below
    /// `lowest_unanswered`. What it can't have is not believed. Returns whether it acknowledges events that it had not.
    pub fn acknowledged(
        &mut self,
        table: &Table,
        session: SessionId,
        event: Index,
        lowest_unanswered: Option<Sequence>,
    ) -> bool {
        let Some(info) = table.session(session) else {
            return false;
        };
        let delivery = self.sessions.entry(session).or_default();
        let lowest = lowest_unanswered.unwrap_or_default().min(info.last_sequence.next());
        delivery.lowest_unanswered = delivery.lowest_unanswered.max(lowest);
        let news = event > delivery.acknowledged && event <= info.event_index;
        if news {
            delivery.acknowledged = event;
        }
        let untrimmed = untrimmed(table, session, delivery.acknowledged);
        if untrimmed.events > 0 || delivery.has_replies(&info) {
            self.untrimmed.insert(session);
        }
        if is_pressing(untrimmed, self.most) {
            self.pressing.insert(session);
        }
        news
    }

    /// The last event that a session has acknowledged outside the log in this term; zero if it has none.
    #[must_use]
    pub fn last_acknowledged(&self, session: SessionId) -> Index {
        self.sessions.get(&session).map_or(Index::ZERO, |delivery| delivery.acknowledged)
    }

    /// What is to be sent on a session's link now, in order: everything through `at_least`, because a reply follows that names it
    /// (E5), and further events as long as not too much is under way. More is due with the next acknowledgement. Counts as sent.
    pub fn send(&mut self, table: &Table, session: SessionId, at_least: Index) -> Vec<Parcel> {
        let Some(delivery) = self.sessions.get_mut(&session) else {
            return Vec::new();
        };
        let Some(link) = &mut delivery.link else {
            return Vec::new();
        };
        let mut events = table.events(session, link.sent).peekable();
        if events.peek().is_none() {
            return Vec::new();
        }
        let (left, unsent) =
            (table.backlog(session, delivery.acknowledged), table.backlog(session, link.sent));
        let mut under_way = Backlog {
            events: left.events.saturating_sub(unsent.events),
            bytes: left.bytes.saturating_sub(unsent.bytes),
        };
        let mut parcels = Vec::new();
        for (index, event) in events {
            let full = under_way.events >= EVENTS_IN_FLIGHT || under_way.bytes >= BYTES_IN_FLIGHT;
            if full && index > at_least {
                break;
            }
            under_way.events += 1;
            under_way.bytes += event.size();
            link.sent = index;
            parcels.push(Parcel::of(index, event, index <= link.since));
        }
        parcels
    }

    /// Whether a session leaves more unacknowledged than it may, and has not been given up yet (E3).
    #[must_use]
    pub fn overflowing(&self, table: &Table, session: SessionId) -> bool {
        let (backlog, most) = match self.sessions.get(&session) {
            Some(delivery) => (table.backlog(session, delivery.acknowledged), self.most),
            // It may have acknowledged to an earlier leader what that one did not fold into the log.
            None => {
                let Backlog { events, bytes } = self.most;
                let most = Backlog { events: events + events / 2, bytes: bytes + bytes / 2 };
                (table.backlog(session, Index::ZERO), most)
            }
        };
        backlog.events > most.events || backlog.bytes > most.bytes
    }

    /// Whether some session has acknowledged so much beside the log that it is worth an entry (E2).
    pub fn wants_fold(&mut self, table: &Table) -> bool {
        while let Some(session) = self.pressing.first().copied() {
            if is_pressing(untrimmed(table, session, self.last_acknowledged(session)), self.most) {
                return true;
            }
            self.pressing.remove(&session);
        }
        false
    }

    /// What an Acknowledge entry would have to say now: sessions with something to trim, those with most of it among the first. A
    /// bounded number.
    pub fn fold(&mut self, table: &Table) -> Vec<Acknowledged> {
        let mut said = Vec::new();
        let mut done = Vec::new();
        let rest = self.untrimmed.iter().filter(|session| !self.pressing.contains(session));
        for session in self.pressing.iter().chain(rest) {
            if said.len() >= FOLDED {
                break;
            }
            match self.sessions.get(session).and_then(|delivery| delivery.to_trim(table, *session)) {
                Some(acknowledged) => said.push(acknowledged),
                None => done.push(*session),
            }
        }
        for session in done {
            self.untrimmed.remove(&session);
            self.pressing.remove(&session);
        }
        said
    }

    /// Whether the reply of an index is held: somebody has not acknowledged the events of it (E6).
    #[must_use]
    pub fn is_held(&self, table: &Table, index: Index) -> bool {
        self.holding(table, index).next().is_some()
    }

    /// Who holds the reply of an index (E6).
    pub fn holding<'a>(&'a self, table: &'a Table, index: Index) -> impl Iterator<Item = SessionId> + 'a {
        table.awaited(index).filter(move |session| self.last_acknowledged(*session) < index)
    }

    /// The first atomic event that a session has not acknowledged: until it has, its contacts do not count (E6).
    #[must_use]
    pub fn first_atomic(&self, table: &Table, session: SessionId) -> Option<Index> {
        table.first_atomic(session, self.last_acknowledged(session))
    }
}

impl Delivery {
    /// Whether replies are kept that the client says it has.
    fn has_replies(&self, info: &SessionInfo) -> bool {
        let kept_from = info.last_sequence.next().since(Sequence(info.replies as u64));
        info.replies > 0 && self.lowest_unanswered.0 > kept_from
    }

    fn to_trim(&self, table: &Table, session: SessionId) -> Option<Acknowledged> {
        let info = table.session(session)?;
        let any = untrimmed(table, session, self.acknowledged).events > 0 || self.has_replies(&info);
        let (event, lowest_unanswered) = (self.acknowledged, self.lowest_unanswered);
        any.then_some(Acknowledged { session, event, lowest_unanswered })
    }
}

impl Parcel {
    fn of(index: Index, event: &Event, again: bool) -> Self {
        let length = |body: &Bytes| u32::try_from(body.len()).expect("events fit into frames");
        let header = EventHeader {
            index,
            previous: event.previous,
            atomic: event.atomic,
            bodies: event.bodies.iter().map(length).collect(),
            parts: event.parts.clone(),
        };
        let bodies = match &event.bodies[..] {
            [body] => body.clone(),
            bodies => {
                let mut all = BytesMut::with_capacity(bodies.iter().map(Bytes::len).sum());
                bodies.iter().for_each(|body| all.extend_from_slice(body));
                all.freeze()
            }
        };
        Parcel { header, bodies, again }
    }
}

/// What of a session's outbox is acknowledged, and not trimmed.
fn untrimmed(table: &Table, session: SessionId, acknowledged: Index) -> Backlog {
    let (all, left) = (table.backlog(session, Index::ZERO), table.backlog(session, acknowledged));
    Backlog { events: all.events - left.events, bytes: all.bytes - left.bytes }
}

fn is_pressing(untrimmed: Backlog, most: Backlog) -> bool {
    untrimmed.events > most.events / FOLD_PART || untrimmed.bytes > most.bytes / FOLD_PART
}
