//! Events: each once, in order, none missing, and acknowledged (E3, E4, E6).

use atomix_protocol::client::{ClientRequest, EventHeader};
use atomix_protocol::codec::Frame;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Index, InstanceId, LocalTime};
use bytes::Bytes;

use super::connection::Which;
use super::{Core, Output};
use crate::session::SessionState;

/// So many indexes with events are delivered without an acknowledgement at most. A server that sends 1 MiB ahead never has to wait.
const UNACKNOWLEDGED_EVENTS: u64 = 64;
/// So many bytes of them.
const UNACKNOWLEDGED_BYTES: usize = 64 << 10;

/// What an event is, by the chain of E1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// The next one.
    Next,
    /// Delivered before.
    Duplicate,
    /// Not the next one: some were lost on the way.
    Gap,
    /// Not the next one, and asking for those between did not bring them.
    Lost,
}

/// The end of the chain of events, as this client has it.
#[derive(Debug, Default)]
pub(super) struct Sequencer {
    /// The last event delivered; zero for none. Invariant: all events of the session up to here were delivered, each once.
    last: Index,
    /// A link was left for a gap behind `last`.
    asked_again: bool,
    deduplicated: u64,
    /// Indexes with events delivered since the last acknowledgement was sent, and the bytes of their bodies.
    events: u64,
    bytes: usize,
    /// An acknowledgement in a frame of its own is due, whatever else carries one (E6).
    at_once: bool,
}

impl Sequencer {
    /// The last event delivered: what a link states when it is attached (E4).
    pub(super) fn last(&self) -> Index {
        self.last
    }

    /// The last event acknowledged: delivering is all that it takes (E3).
    pub(super) fn acknowledged(&self) -> Index {
        if Mutant::C04.active() { Index::ZERO } else { self.last }
    }

    pub(super) fn deduplicated(&self) -> u64 {
        self.deduplicated
    }

    /// Something that carries an acknowledgement is sent.
    pub(super) fn acknowledging(&mut self) {
        (self.events, self.bytes) = (0, 0);
    }

    /// Without a link there is nobody to tell; the next one is told as soon as it stands.
    pub(super) fn pause(&mut self) {
        self.acknowledging();
        self.at_once = false;
    }

    fn take(&mut self, header: &EventHeader, bytes: usize) -> Arrival {
        if header.index <= self.last && !Mutant::B31.active() {
            self.deduplicated += 1;
            // The server sent it because it does not know.
            self.at_once = true;
            return Arrival::Duplicate;
        }
        if header.previous != self.last && header.index > self.last {
            return if std::mem::replace(&mut self.asked_again, true) { Arrival::Lost } else { Arrival::Gap };
        }
        self.last = self.last.max(header.index);
        self.asked_again = false;
        self.events += 1;
        self.bytes += bytes;
        self.at_once |= header.atomic;
        Arrival::Next
    }

    fn is_acknowledgement_due(&self) -> bool {
        self.at_once || self.events >= UNACKNOWLEDGED_EVENTS || self.bytes >= UNACKNOWLEDGED_BYTES
    }
}

impl Core {
    /// Events of one index arrived on the main link. A gap is never silent: what is missing is asked for once more, by attaching again;
    /// if that does not bring it, nothing will, and the session can't go on as if nothing had happened (E4).
    pub(super) fn on_event(&mut self, now: LocalTime, header: &EventHeader, bodies: &Bytes) {
        let Some(parts) = split(header, bodies) else {
            return self.leave(now, Which::Main);
        };
        match self.events.take(header, bodies.len()) {
            Arrival::Duplicate => {}
            Arrival::Gap => self.leave(now, Which::Main),
            Arrival::Lost => self.finish(SessionState::Expired),
            Arrival::Next => {
                let index = header.index;
                let deliver = |(instance, body)| Output::Event { instance, index, body };
                self.outputs.extend(parts.into_iter().map(deliver));
                self.seen = self.seen.max(index);
                self.delivered = self.delivered.max(index);
                self.release(now);
            }
        }
    }

    /// What waited for events goes behind them (Q2). Answers first: of what is released together, none lies below what was told.
    fn release(&mut self, now: LocalTime) {
        let through = self.events.last();
        for (number, outcome) in self.queries.release(through) {
            self.tell_answer(number, outcome);
        }
        let lowest = self.window.lowest_unanswered();
        let endings = self.window.release(through);
        self.conclude_from(now, lowest, endings);
    }

    /// Sends an acknowledgement that can't wait for a command or a keep-alive to carry it: one for everything that came together.
    pub(super) fn acknowledge_events(&mut self) {
        if !self.events.is_acknowledgement_due() {
            return;
        }
        if let Some(link) = self.link.as_ref().filter(|link| link.is_bound()) {
            let (link, event) = (link.id, self.events.acknowledged());
            self.send(link, &Frame::Request(ClientRequest::Acknowledge { event }));
        }
        self.events.pause();
    }
}

/// The events of one index, each for its instance; `None` if the header does not fit the bytes behind it.
fn split(header: &EventHeader, bytes: &Bytes) -> Option<Vec<(InstanceId, Bytes)>> {
    let mut rest = bytes.clone();
    let mut bodies = Vec::new();
    for length in &header.bodies {
        let length = usize::try_from(*length).ok().filter(|length| *length <= rest.len())?;
        bodies.push(rest.split_to(length));
    }
    let part = |(instance, body): &(InstanceId, u32)| {
        Some((*instance, bodies.get(usize::try_from(*body).ok()?)?.clone()))
    };
    let parts = header.parts.iter().map(part).collect::<Option<_>>()?;
    rest.is_empty().then_some(parts)
}
