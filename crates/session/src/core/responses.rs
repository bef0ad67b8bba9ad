//! What each answer of a server means.

use atomix_protocol::client::{
    AnswerHeader, ClientResponse, EndReason, NotAnswered, NotLogged, Opened, ReplyHeader, ReplyOutcome,
};
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Index, LinkId, LocalTime, Sequence, SessionId};
use bytes::Bytes;

use super::connection::Which;
use super::link::Stage;
use super::window::{self, Ending};
use super::{Core, Output};
use crate::outcome::{Outcome, SessionError};
use crate::session::SessionState;

impl Core {
    pub(super) fn on_response(&mut self, now: LocalTime, which: Which, response: ClientResponse) {
        let Some((id, bound)) = self.link_mut(which).map(|link| (link.id, link.stage == Stage::Bound)) else {
            return;
        };
        match (response, which, bound) {
            (ClientResponse::Servers(servers), ..) => self.router.learn(servers),
            (ClientResponse::Answer(header, body), _, true) => self.on_answer(now, id, header, body),
            (ClientResponse::NotAnswered { ticket, reason }, _, true) => {
                // Another server than the leader need not be asked a second time what it can't serve.
                let redirected = matches!(reason, NotAnswered::Redirect(_));
                self.queries.again(now, id, ticket, redirected && which == Which::Reader);
            }
            (response, Which::Reader, _) => self.on_reader_response(now, response),
            (ClientResponse::Opened(opened), _, false) => self.on_opened(now, &opened),
            (ClientResponse::Attached(attached), _, false) if self.session == Some(attached.session) => {
                self.on_main_link_bound(now, attached.timeout_ms);
            }
            (ClientResponse::Reply(header, body), _, true) => self.on_reply(now, header, body),
            (ClientResponse::NotLogged { sequence, reason }, _, true) => {
                self.on_not_logged(now, sequence, reason);
            }
            (ClientResponse::Gap { expected }, _, true) => self.on_gap(now, expected),
            (ClientResponse::Event(header, bodies), _, true) => self.on_event(now, &header, &bodies),
            (ClientResponse::Confirmed { contact }, _, true) => self.on_confirmed(now, contact),
            (ClientResponse::NotLeader { leader, .. }, _, _) => {
                let next = self.router.redirected(now, leader);
                self.leave_until(now, which, next);
            }
            (ClientResponse::Ended { session, reason }, _, _) => self.on_ended(session, reason),
            (ClientResponse::Status(status), _, _) => {
                self.status_wanted = false;
                self.outputs.push(Output::Status(*status));
            }
            (ClientResponse::Refused { detail }, _, _) => {
                self.outputs.push(Output::Refused(detail));
                self.leave(now, which);
            }
            // Anything else has no meaning at this stage.
            _ => {}
        }
    }

    /// The server behind the read link may lag behind, or be cut off: whatever it says of the session, only the leader ends it.
    fn on_reader_response(&mut self, now: LocalTime, response: ClientResponse) {
        match response {
            ClientResponse::Attached(attached) if self.session == Some(attached.session) => {
                self.reader_failures = 0;
                if let Some(reader) = &mut self.reader {
                    reader.stage = Stage::Bound;
                }
            }
            // Events come on the main link, in order.
            ClientResponse::Event(..) | ClientResponse::Status(_) => {}
            _ => self.leave(now, Which::Reader),
        }
    }

    /// S1.
    fn on_opened(&mut self, now: LocalTime, opened: &Opened) {
        if self.session.is_some() || opened.attempt != self.options.attempt {
            return;
        }
        self.session = Some(opened.session);
        self.seen = self.seen.max(Index(opened.session.0));
        self.outputs.push(Output::Opened(opened.session));
        self.on_main_link_bound(now, opened.timeout_ms);
    }

    /// S5.
    fn on_reply(&mut self, now: LocalTime, header: ReplyHeader, body: Bytes) {
        self.seen = self.seen.max(header.index);
        let result = match header.outcome {
            ReplyOutcome::Applied => Ok(Outcome { index: header.index, body }),
            ReplyOutcome::ReplyGone => {
                Err(SessionError::Unknown("it was done, but its reply is no longer kept".into()))
            }
            ReplyOutcome::Skipped => Err(self.window.skipped(header.sequence)),
        };
        self.end_command(now, header.sequence, result, header.event_index);
    }

    fn end_command(
        &mut self,
        now: LocalTime,
        sequence: Sequence,
        result: Result<Outcome, SessionError>,
        event: Index,
    ) {
        let lowest = self.window.lowest_unanswered();
        let endings = self.window.answer(sequence, result, event);
        self.conclude_from(now, lowest, endings);
    }

    /// Commands ended, the lowest of which was `lowest`: a close that waits for them goes on waiting.
    pub(super) fn conclude_from(&mut self, now: LocalTime, lowest: Sequence, endings: Vec<Ending>) {
        if let Some(closing) = self.closing.as_mut().filter(|_| self.window.lowest_unanswered() > lowest) {
            closing.give_up = now + self.timeout;
        }
        self.conclude(endings);
    }

    /// S4: the sequence must be consumed all the same, or nothing after it is ever applied. And an earlier copy of the command may
    /// be in the log: only the reply to the skip tells.
    fn on_not_logged(&mut self, now: LocalTime, sequence: Sequence, reason: NotLogged) {
        if Mutant::C08.active() {
            return self.end_command(now, sequence, Err(window::not_logged(reason)), Index::ZERO);
        }
        let news = self.window.refuse(sequence, reason);
        // A skip takes room too: where there is none, it comes a little later, and no more than one after the other.
        if news && !window::passes(reason) && self.resend.due.is_none() {
            // What follows in the window is refused as a gap: that is when it is sent again.
            self.send_commands(now, sequence, sequence);
        } else {
            self.resend_later(now, sequence);
        }
    }

    /// S3: sent again from there. Each of the commands behind a gap is answered by one: only the first is acted upon at once.
    fn on_gap(&mut self, now: LocalTime, expected: Sequence) {
        let (lowest, last) = (self.window.lowest_unanswered(), self.window.last_submitted());
        // A server that expects anything else lags behind, or answers what was sent long ago.
        let plausible = (lowest..=last).contains(&expected);
        if plausible && self.resend.due.is_none() && self.resend.answered_gap != Some(expected) {
            self.resend.answered_gap = Some(expected);
            self.send_commands(now, expected, last);
        } else {
            self.resend_later(now, if plausible { expected } else { lowest });
        }
    }

    /// L2.
    fn on_confirmed(&mut self, now: LocalTime, contact: u64) {
        if self.contacts.confirm(now, contact, self.timeout) {
            self.silences = 0;
            self.router.found();
            if let Some(link) = &mut self.link {
                link.confirmed = true;
            }
        }
    }

    fn on_ended(&mut self, session: SessionId, reason: EndReason) {
        if self.session != Some(session) {
            return;
        }
        let closed = match reason {
            EndReason::Closed => true,
            // The close may have been applied and its answer lost.
            EndReason::Unknown => self.closing.is_some(),
            EndReason::Expired | EndReason::TakenOver | EndReason::WrongKey => false,
        };
        self.finish(if closed { SessionState::Closed } else { SessionState::Expired });
    }

    /// Q2: a session never goes back in time, and what it read comes behind the events of it. A read link may be ahead of the main
    /// link.
    fn on_answer(&mut self, now: LocalTime, link: LinkId, header: AnswerHeader, body: Bytes) {
        if header.index < self.delivered && !Mutant::B32.active() {
            return self.queries.again(now, link, header.ticket, false);
        }
        let outcome = Outcome { index: header.index, body };
        if header.event_index > self.events.last() {
            self.queries.hold(link, header.ticket, header.event_index, outcome);
        } else if let Some(number) = self.queries.answer(link, header.ticket) {
            self.tell_answer(number, outcome);
        }
    }

    pub(super) fn tell_answer(&mut self, number: u64, outcome: Outcome) {
        self.seen = self.seen.max(outcome.index);
        self.delivered = self.delivered.max(outcome.index);
        self.outputs.push(Output::Answered(number, Ok(outcome)));
    }
}
