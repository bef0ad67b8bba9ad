//! Links: dialling, binding, giving up, and what is sent on them.

use std::time::Duration;

use atomix_protocol::client::{Attach, ClientRequest, KeepAlive, OpenSession};
use atomix_protocol::codec::Frame;
use atomix_protocol::{Address, GroupId, LinkId, LocalTime, Sequence};
use bytes::Bytes;

use super::handshake::{self, Greeting};
use super::link::{Link, Stage};
use super::{Core, LONGEST_RESEND_PAUSE, Output, RESEND_PAUSE, Resend};
use crate::session::SessionState;

/// Bounds of a link's patience.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(500));
/// Pause before the read link is dialled again; doubles up to the longest.
const READER_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_READER_PAUSE: Duration = Duration::from_millis(3_200);

/// Which of the two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Main,
    Reader,
}

impl Core {
    /// How long a link may leave requests without any frame: a quarter of τ, within bounds, so that a leader that hangs is left in
    /// time to find the next one. Longer if leaving did not help: a slow cluster is not made faster by reconnecting.
    pub(super) fn patience(&self) -> Duration {
        (self.timeout / 4).clamp(PATIENCE.0, PATIENCE.1) * (1 << self.silences.min(3))
    }

    /// Whether the main link and the read link are in use.
    pub(super) fn bound(&self) -> (bool, bool) {
        let is_bound = |link: &Option<Link>| link.as_ref().is_some_and(Link::is_bound);
        (is_bound(&self.link), is_bound(&self.reader))
    }

    pub(super) fn wants_reader(&self) -> bool {
        self.reader.is_none() && self.session.is_some() && self.options.read_from.is_some()
    }

    pub(super) fn dial_links(&mut self, now: LocalTime) {
        if self.link.is_none() && self.dial_at.is_some_and(|at| at <= now) {
            self.dial_at = None;
            if let Some(server) = self.router.pick() {
                let patience = self.router.patience().min(self.options.connect_timeout);
                self.link = Some(self.dial(server, now + patience));
            }
        }
        if self.wants_reader() && self.reader_at.is_some_and(|at| at <= now) {
            self.reader_at = None;
            if let Some(server) = self.options.read_from.clone() {
                self.reader = Some(self.dial(server, now + self.options.connect_timeout));
            }
        }
    }

    fn dial(&mut self, server: Address, give_up: LocalTime) -> Link {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        self.outputs.push(Output::Dial(id, server.clone()));
        Link::new(id, server, give_up)
    }

    /// Leaves links that took too long.
    pub(super) fn give_up_links(&mut self, now: LocalTime) {
        let patience = self.patience();
        let late = |link: &Link| link.deadline(patience).is_some_and(|at| at <= now);
        if let Some(link) = self.link.as_ref().filter(|link| late(link)) {
            self.silences = self.silences.saturating_add(u32::from(link.is_bound()));
            self.router.shun(link.to.clone());
            self.leave(now, Which::Main);
        }
        if self.reader.as_ref().is_some_and(late) {
            self.leave(now, Which::Reader);
        }
    }

    pub(super) fn on_dialed(&mut self, now: LocalTime, link: LinkId) {
        let Some(which) = self.which(link) else {
            return;
        };
        let give_up = self.handshake_deadline(now, which);
        if let Some(link) = self.link_mut(which).filter(|link| link.stage == Stage::Dialing) {
            link.stage = Stage::Greeting;
            link.give_up = give_up;
            let link = link.id;
            self.send(link, &handshake::hello(self.cluster, self.options.attempt));
        }
    }

    pub(super) fn on_closed(&mut self, now: LocalTime, link: LinkId) {
        match self.which(link) {
            Some(Which::Main) => {
                let next = self.router.failed(now);
                self.main_link_gone(now, next);
            }
            Some(Which::Reader) => self.read_link_gone(now),
            None => {}
        }
    }

    pub(super) fn on_frame(&mut self, now: LocalTime, link: LinkId, bytes: &Bytes) {
        let Some(which) = self.which(link) else {
            return;
        };
        let stage = self.link_mut(which).map(|link| link.stage);
        match (stage, Frame::decode(bytes)) {
            (Some(Stage::Greeting), Ok(frame)) => self.on_greeting(now, which, &frame),
            (Some(Stage::Binding | Stage::Bound), Ok(Frame::Response(response))) => {
                self.on_response(now, which, response);
                self.note_heard(now, which);
            }
            (Some(Stage::Binding | Stage::Bound), Ok(Frame::Ping(token))) => {
                self.send(link, &Frame::Pong(token));
            }
            _ => self.leave(now, which),
        }
    }

    /// I5.
    fn on_greeting(&mut self, now: LocalTime, which: Which, frame: &Frame) {
        let meant = self.cluster;
        let Some(link) = self.link_mut(which) else {
            return;
        };
        match (handshake::judge(frame, meant), which) {
            (Greeting::Accepted(cluster), _) => {
                link.cluster = cluster;
                self.bind(now, which);
            }
            (Greeting::Foreign, Which::Main) => {
                let server = link.to.clone();
                if self.router.is_lost(&server) {
                    self.finish(SessionState::Expired);
                } else {
                    self.leave(now, which);
                }
            }
            (Greeting::Foreign, Which::Reader) | (Greeting::Rejected, _) => self.leave(now, which),
        }
    }

    /// Opens the session, or attaches to it.
    fn bind(&mut self, now: LocalTime, which: Which) {
        let give_up = self.handshake_deadline(now, which);
        let Some(link) = self.link_mut(which) else {
            return;
        };
        link.stage = Stage::Binding;
        link.give_up = give_up;
        let id = link.id;
        if which == Which::Main {
            self.send_status_request(now);
        }
        let key = self.options.key;
        let request = match self.session {
            Some(session) => {
                let (last_event, read_only) = (self.events.last(), which == Which::Reader);
                ClientRequest::Attach(Attach { session, key, last_event, read_only })
            }
            None => {
                self.open_sent = true;
                ClientRequest::Open(OpenSession {
                    client: self.options.client,
                    attempt: self.options.attempt,
                    key,
                    timeout_ms: u64::try_from(self.options.session_timeout.as_millis()).unwrap_or(u64::MAX),
                })
            }
        };
        self.send(id, &Frame::Request(request));
    }

    /// The main link is in use: the session's cluster is known, and whatever was under way on another link is sent again.
    pub(super) fn on_main_link_bound(&mut self, now: LocalTime, timeout_ms: u64) {
        self.timeout = Duration::from_millis(timeout_ms.max(1));
        let Some(link) = &mut self.link else {
            return;
        };
        link.stage = Stage::Bound;
        self.cluster = self.cluster.or(link.cluster);
        self.keep_alive(now);
        self.send_commands(now, Sequence::ZERO, self.window.last_submitted());
    }

    /// Sends the unanswered of the commands `from` through `through`, in order.
    pub(super) fn send_commands(&mut self, now: LocalTime, from: Sequence, through: Sequence) {
        let (Some(link), Some(session)) = (self.link.as_ref().filter(|link| link.is_bound()), self.session)
        else {
            return;
        };
        let link = link.id;
        let entries = self.window.send(from, through, session, self.events.acknowledged());
        if !entries.is_empty() {
            self.events.acknowledging();
        }
        for entry in entries {
            self.request(now, link, ClientRequest::Command(entry));
        }
    }

    /// Commands from `from` on are sent again after a pause that grows while nothing moves.
    pub(super) fn resend_later(&mut self, now: LocalTime, from: Sequence) {
        if let Some((_, earliest)) = &mut self.resend.due {
            *earliest = from.min(*earliest);
            return;
        }
        let lowest = self.window.lowest_unanswered();
        let stuck = self.resend.stuck_at.replace(lowest) == Some(lowest);
        self.resend.tries = if stuck { self.resend.tries.saturating_add(1) } else { 0 };
        let pause = (RESEND_PAUSE * (1 << self.resend.tries.min(8))).min(LONGEST_RESEND_PAUSE);
        self.resend.due = Some((now + pause, from));
    }

    pub(super) fn resend_commands(&mut self, now: LocalTime) {
        if let Some((_, from)) = self.resend.due.filter(|(at, _)| *at <= now) {
            self.resend.due = None;
            self.send_commands(now, from, self.window.last_submitted());
        }
    }

    pub(super) fn ask_queries(&mut self, now: LocalTime) {
        let (main, reader) = self.bound();
        let seen = self.seen;
        for (which, bound) in [(Which::Reader, reader), (Which::Main, main)] {
            let Some(link) = self.link_mut(which).filter(|_| bound).map(|link| link.id) else {
                continue;
            };
            let accepts =
                |leader_only| (which == Which::Main && !reader) || leader_only == (which == Which::Main);
            for (header, body) in self.queries.ask(now, link, seen, accepts) {
                self.request(now, link, ClientRequest::Query(header, body));
            }
        }
    }

    /// Sends a contact. The clock is read before it is sent (L2).
    pub(super) fn keep_alive(&mut self, now: LocalTime) {
        let Some(link) = self.link.as_ref().filter(|link| link.is_bound()).map(|link| link.id) else {
            return;
        };
        let contact = self.contacts.begin(now, self.timeout);
        let lowest_unanswered = self.window.lowest_unanswered();
        let acknowledged_event = self.events.acknowledged();
        self.events.acknowledging();
        let keep_alive = KeepAlive { contact, acknowledged_event, lowest_unanswered };
        self.request(now, link, ClientRequest::KeepAlive(keep_alive));
        if let Some(link) = &mut self.link {
            link.probed();
        }
        // A server that could not log the end of the session does not say so: it is asked again as long as nothing comes of it.
        if let Some(closing) = &mut self.closing {
            closing.asked = false;
        }
    }

    /// When a contact is to be sent because the main link has been silent for long: a reply may be held back for as long as somebody
    /// else takes (E6), and a leader that holds it is not to be taken for one that hangs.
    pub(super) fn next_probe(&self) -> Option<LocalTime> {
        self.link.as_ref()?.probe_at(self.patience())
    }

    pub(super) fn send_status_request(&mut self, now: LocalTime) {
        let greeted = |link: &&Link| matches!(link.stage, Stage::Binding | Stage::Bound);
        if let Some(link) = self.link.as_ref().filter(greeted).filter(|_| self.status_wanted) {
            let link = link.id;
            self.request(now, link, ClientRequest::Status);
        }
    }

    /// Sends a request that wants an answer.
    pub(super) fn request(&mut self, now: LocalTime, link: LinkId, request: ClientRequest) {
        if let Some(which) = self.which(link)
            && let Some(link) = self.link_mut(which)
        {
            link.asked(now);
        }
        self.send(link, &Frame::Request(request));
    }

    pub(super) fn send(&mut self, link: LinkId, frame: &Frame) {
        self.outputs.push(Output::Send(link, frame.encode(GroupId::DEFAULT)));
    }

    /// Closes a link that is of no use.
    pub(super) fn leave(&mut self, now: LocalTime, which: Which) {
        let next = match which {
            Which::Main => self.router.failed(now),
            Which::Reader => now,
        };
        self.leave_until(now, which, next);
    }

    /// Closes a link that is of no use; the main link's successor is dialled at `next`.
    pub(super) fn leave_until(&mut self, now: LocalTime, which: Which, next: LocalTime) {
        if let Some(link) = self.link_mut(which) {
            let id = link.id;
            self.outputs.push(Output::Close(id));
        }
        match which {
            Which::Main => self.main_link_gone(now, next),
            Which::Reader => self.read_link_gone(now),
        }
    }

    fn main_link_gone(&mut self, now: LocalTime, next: LocalTime) {
        if let Some(link) = self.link.take() {
            self.queries.link_lost(now, link.id);
        }
        self.contacts.pause();
        self.events.pause();
        self.resend = Resend::default();
        if let Some(closing) = &mut self.closing {
            closing.asked = false;
        }
        self.dial_at = Some(next);
    }

    fn read_link_gone(&mut self, now: LocalTime) {
        if let Some(link) = self.reader.take() {
            self.queries.link_lost(now, link.id);
        }
        let pause = (READER_PAUSE * (1 << self.reader_failures.min(8))).min(LONGEST_READER_PAUSE);
        self.reader_failures = self.reader_failures.saturating_add(1);
        self.reader_at = Some(now + pause);
    }

    fn note_heard(&mut self, now: LocalTime, which: Which) {
        let Some(link) = self.link_mut(which) else {
            return;
        };
        let id = link.id;
        let awaits = self.queries.awaits_answer(id)
            || which == Which::Main
                && (self.window.awaits_answer()
                    || self.contacts.awaits_confirmation()
                    || self.status_wanted
                    || self.closing.as_ref().is_some_and(|closing| closing.asked));
        if let Some(link) = self.link_mut(which) {
            link.heard(now, awaits);
        }
    }

    fn handshake_deadline(&self, now: LocalTime, which: Which) -> LocalTime {
        let patience = match which {
            Which::Main => self.router.patience().min(self.options.handshake_timeout),
            Which::Reader => self.options.handshake_timeout,
        };
        now + patience
    }

    fn which(&self, link: LinkId) -> Option<Which> {
        let is = |candidate: &Option<Link>| candidate.as_ref().is_some_and(|candidate| candidate.id == link);
        match (is(&self.link), is(&self.reader)) {
            (true, _) => Some(Which::Main),
            (_, true) => Some(Which::Reader),
            _ => None,
        }
    }

    pub(super) fn link_mut(&mut self, which: Which) -> Option<&mut Link> {
        match which {
            Which::Main => self.link.as_mut(),
            Which::Reader => self.reader.as_mut(),
        }
    }
}
