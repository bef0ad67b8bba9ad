//! The client's half of sessions: sequence, window, events, leader, retry, keep-alive, handshake (S2–S6, S10, S11, E3, E4, E6, Q1, Q2,
//! I5).
//!
//! A step machine like the server's: the driver opens links and moves frames, all decisions are here.
//!
//! One main link leads to the leader; commands, keep-alives and linearizable queries go there in order, and events come on it. An
//! optional read link leads to a server of the user's choice, and only queries go there (Q4).

mod connection;
mod events;
mod handshake;
mod keep_alive;
mod link;
mod queries;
mod responses;
mod router;
#[cfg(test)]
mod tests;
mod window;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use atomix_protocol::client::{ClientRequest, Consistency};
use atomix_protocol::status::Status;
use atomix_protocol::{
    Address, ClientId, ClusterId, Index, InstanceId, LinkId, LocalTime, Sequence, SessionId, SessionKey,
};
use bytes::Bytes;

use self::events::Sequencer;
use self::keep_alive::Contacts;
use self::link::Link;
use self::queries::Queries;
use self::router::Router;
use self::window::{Ending, Window};
use crate::outcome::{NotDone, Outcome, SessionError};
use crate::session::SessionState;

/// Settings of one client.
#[derive(Clone)]
pub struct Options {
    /// The client's name, drawn by the driver or set by the user.
    pub client: ClientId,
    /// The secret of its session, drawn by the driver.
    pub key: SessionKey,
    /// Names this attempt to open a session, drawn by the driver.
    pub attempt: u64,
    /// Where servers may be reached.
    pub servers: Vec<Address>,
    /// The session timeout wanted (τ); the cluster may clamp it.
    pub session_timeout: Duration,
    /// A connection attempt that takes longer is given up.
    pub connect_timeout: Duration,
    /// A handshake or an unanswered attach that takes longer is given up.
    pub handshake_timeout: Duration,
    /// Most commands in flight (S2).
    pub window: u64,
    /// Room beside them for commands submitted from `Drop`.
    pub reserve: u64,
    /// Most bytes of one command.
    pub command_bytes: usize,
    /// Bound on clock drift (ρ).
    pub clock_drift: f64,
    /// Ask for sequential and causal reads at this server instead of the leader (Q4).
    pub read_from: Option<Address>,
}

/// One input.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The dialled link stands.
    Dialed(LinkId),
    /// It could not be dialled, or it closed.
    Closed(LinkId),
    /// A frame arrived on it.
    Frame(LinkId, Bytes),
}

/// One output. To be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a status is rare, and a box would be part of every match")]
pub enum Output {
    /// Open a link; report [`Input::Dialed`] or [`Input::Closed`].
    Dial(LinkId, Address),
    /// Send a frame.
    Send(LinkId, Bytes),
    /// Close the link; nothing more is reported of it.
    Close(LinkId),
    /// A command ended.
    Completed(Sequence, Result<Outcome, SessionError>),
    /// A query ended.
    Answered(u64, Result<Outcome, SessionError>),
    /// An event arrived for an instance. It counts as acknowledged from here on (E3): to be delivered before anything behind it.
    Event {
        /// For whom.
        instance: InstanceId,
        /// Where it was published.
        index: Index,
        /// What it says.
        body: Bytes,
    },
    /// The session opened: it has its id and timeout now.
    Opened(SessionId),
    /// The session's state changed.
    State(SessionState),
    /// A status that was asked for arrived.
    Status(Status),
    /// A server refused this client, and why: worth telling if no other takes it.
    Refused(String),
}

/// One client. Opens its session at once.
#[derive(Debug)]
pub struct Core {
    options: Options,
    router: Router,
    /// The main link.
    link: Option<Link>,
    /// When to dial it next. Invariant: `None` while there is one, or no server to dial.
    dial_at: Option<LocalTime>,
    /// The read link.
    reader: Option<Link>,
    /// When to dial it next.
    reader_at: Option<LocalTime>,
    reader_failures: u32,
    /// The last link id given.
    last_link: u64,
    /// Main links given up for silence since a leader last showed that it leads.
    silences: u32,
    /// The session, once open.
    session: Option<SessionId>,
    /// An open was sent: there may be a session.
    open_sent: bool,
    /// τ: as wanted, then as committed.
    timeout: Duration,
    /// The session's cluster.
    cluster: Option<ClusterId>,
    window: Window,
    resend: Resend,
    queries: Queries,
    events: Sequencer,
    contacts: Contacts,
    closing: Option<Closing>,
    /// Commands from `Drop` for which not even the reserve had room. Invariant: empty while there is room.
    detached: VecDeque<Bytes>,
    /// What was last reported (S10).
    state: SessionState,
    status_wanted: bool,
    /// The highest index in any reply, answer or event; at least the session's (Q1).
    seen: Index,
    /// The highest index that the caller was told of (Q2).
    delivered: Index,
    outputs: Vec<Output>,
}

/// Commands to be sent again on this link, after a gap or a refusal.
#[derive(Debug, Default)]
struct Resend {
    /// When, and from which sequence on.
    due: Option<(LocalTime, Sequence)>,
    /// The lowest unanswered at the last time: as long as it stands still, pauses grow.
    stuck_at: Option<Sequence>,
    tries: u32,
    /// The gap that was last answered at once: copies of it are not.
    answered_gap: Option<Sequence>,
}

#[derive(Debug)]
struct Closing {
    /// When to stop waiting for the cluster.
    give_up: LocalTime,
    /// Asked for on this link.
    asked: bool,
}

/// Pause before commands are sent again because the server said so twice, or is busy; doubles up to the longest.
const RESEND_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_RESEND_PAUSE: Duration = Duration::from_millis(500);

impl Core {
    /// A client that begins to connect. `seed` decides its jitter.
    #[must_use]
    pub fn new(options: Options, seed: u64, now: LocalTime) -> Self {
        let mut core = Core {
            router: Router::new(options.servers.clone(), seed),
            link: None,
            dial_at: Some(now),
            reader: None,
            reader_at: Some(now),
            reader_failures: 0,
            last_link: 0,
            silences: 0,
            session: None,
            open_sent: false,
            timeout: options.session_timeout,
            cluster: None,
            window: Window::new(),
            resend: Resend::default(),
            queries: Queries::default(),
            events: Sequencer::default(),
            contacts: Contacts::new(options.clock_drift),
            closing: None,
            detached: VecDeque::new(),
            state: SessionState::Suspended,
            status_wanted: false,
            seen: Index::ZERO,
            delivered: Index::ZERO,
            outputs: Vec::new(),
            options,
        };
        core.advance(now);
        core
    }

    /// Submits a command: it takes its sequence now (S2). After `deadline` it ends as unknown for the caller, but is sent until it
    /// is answered (S4).
    ///
    /// # Errors
    /// If the window is full, it is too large, or the session is over: not done.
    pub fn submit(
        &mut self,
        now: LocalTime,
        command: Bytes,
        deadline: Option<LocalTime>,
    ) -> Result<Sequence, NotDone> {
        let room = self.detached.is_empty() && self.window.len() < self.options.window;
        self.admit(&command, room)?;
        let sequence = self.window.submit(command, deadline);
        self.send_commands(now, sequence, sequence);
        self.advance(now);
        Ok(sequence)
    }

    /// Submits a command from a `Drop`: it takes its sequence now too, and is never refused for want of room, neither here nor by a
    /// server that is busy. It is sent at once if the reserve has room, else as soon as it has; nothing overtakes it.
    ///
    /// # Errors
    /// If it is too large, or the session is over or being closed: the end of a session gives back what it held.
    pub fn submit_detached(&mut self, now: LocalTime, command: Bytes) -> Result<Sequence, NotDone> {
        self.admit(&command, true)?;
        self.detached.push_back(command);
        let sequence = self.last_submitted();
        self.advance(now);
        Ok(sequence)
    }

    /// Asks a query; [`Output::Answered`] will name the number returned. After `deadline` it ends as timed out.
    ///
    /// # Errors
    /// If too many are waiting, it is too large, or the session is over.
    pub fn query(
        &mut self,
        now: LocalTime,
        query: Bytes,
        consistency: Consistency,
        deadline: Option<LocalTime>,
    ) -> Result<u64, NotDone> {
        self.admit(&query, self.queries.len() < self.options.window)?;
        let after_sequence = match consistency {
            Consistency::Causal => self.window.last_completed(),
            Consistency::Sequential | Consistency::Linearizable => self.last_submitted(),
        };
        let number = self.queries.submit(now, query, consistency, after_sequence, deadline);
        self.advance(now);
        Ok(number)
    }

    /// Asks whichever server the main link leads to, now or next, what it says of itself: [`Output::Status`] will tell. Needs no
    /// session.
    pub fn request_status(&mut self, now: LocalTime) {
        if self.state.is_final() {
            return;
        }
        self.status_wanted = true;
        self.send_status_request(now);
        self.advance(now);
    }

    /// Closes the session once all commands are answered. Gives up waiting for the cluster after a session timeout without
    /// progress: silence will then end the session.
    pub fn close(&mut self, now: LocalTime) {
        if self.state.is_final() || self.closing.is_some() {
            return;
        }
        self.closing = Some(Closing { give_up: now + self.timeout, asked: false });
        if self.session.is_none() && !self.open_sent {
            self.finish(SessionState::Closed);
        }
        self.advance(now);
    }

    /// Takes one input. Outputs gather until [`Core::drain`].
    pub fn step(&mut self, now: LocalTime, input: Input) {
        if self.state.is_final() {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Dialed(link) => self.on_dialed(now, link),
            Input::Closed(link) => self.on_closed(now, link),
            Input::Frame(link, bytes) => self.on_frame(now, link, &bytes),
        }
        self.advance(now);
    }

    /// Hands over the outputs in order.
    pub fn drain(&mut self, now: LocalTime) -> Vec<Output> {
        self.advance(now);
        self.acknowledge_events();
        std::mem::take(&mut self.outputs)
    }

    /// When to call [`Core::step`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        if self.state.is_final() {
            return None;
        }
        let main_link = self.link.as_ref().and_then(|link| link.deadline(self.patience()));
        let read_link = self.reader.as_ref().and_then(|link| link.deadline(self.patience()));
        let (main, reader) = self.bound();
        let deadlines = [
            main_link,
            read_link,
            self.dial_at,
            self.reader_at.filter(|_| self.wants_reader()),
            self.window.next_deadline(),
            self.resend.due.map(|(at, _)| at),
            self.queries.next_deadline(),
            self.queries.next_ask(|leader_only| main || (reader && !leader_only)),
            self.contacts.next_at(),
            self.next_probe(),
            self.closing.as_ref().map(|closing| closing.give_up),
            (self.state == SessionState::Connected).then_some(self.contacts.valid_until()),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The session, once open.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The cluster, once the session is open. A server of another one is refused from then on.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The session's state.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Until when the session can't have been ended for silence (L2). Never moves back, except to the beginning of time when the
    /// session is being closed: from then on it may end at any moment.
    #[must_use]
    pub fn valid_until(&self) -> LocalTime {
        self.contacts.valid_until()
    }

    /// How many commands were sent more than once.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.window.retries()
    }

    /// How many events arrived a second time, and were dropped (E4).
    #[must_use]
    pub fn events_deduplicated(&self) -> u64 {
        self.events.deduplicated()
    }

    fn admit(&self, body: &Bytes, room: bool) -> Result<(), NotDone> {
        if self.state.is_final() || self.closing.is_some() {
            Err(NotDone::SessionEnded)
        } else if body.len() > self.options.command_bytes {
            Err(NotDone::TooLarge)
        } else if room {
            Ok(())
        } else {
            Err(NotDone::Busy)
        }
    }

    /// Does everything whose time has come.
    fn advance(&mut self, now: LocalTime) {
        if self.state.is_final() {
            return;
        }
        self.give_up_links(now);
        self.dial_links(now);
        self.submit_waiting(now);
        let endings = self.window.pass_deadlines(now);
        self.conclude(endings);
        for number in self.queries.pass_deadlines(now) {
            self.outputs.push(Output::Answered(number, Err(SessionError::NotDone(NotDone::TimedOut))));
        }
        self.resend_commands(now);
        self.ask_queries(now);
        if [self.contacts.next_at(), self.next_probe()].into_iter().flatten().any(|at| at <= now) {
            self.keep_alive(now);
        }
        self.go_on_closing(now);
        self.report_state(now);
    }

    /// With those that wait for room.
    fn last_submitted(&self) -> Sequence {
        self.window.last_submitted().plus(self.detached.len() as u64)
    }

    fn submit_waiting(&mut self, now: LocalTime) {
        while self.window.len() < self.options.window + self.options.reserve {
            let Some(command) = self.detached.pop_front() else { return };
            let sequence = self.window.submit(command, None);
            self.window.insist(sequence);
            self.send_commands(now, sequence, sequence);
        }
    }

    fn conclude(&mut self, endings: Vec<Ending>) {
        for (sequence, result) in endings {
            if let Ok(outcome) = &result {
                self.delivered = self.delivered.max(outcome.index);
            }
            self.outputs.push(Output::Completed(sequence, result));
        }
    }

    /// S10: suspended as soon as there is no link to a leader that has shown that it leads; at the latest when nothing is promised
    /// any more.
    fn report_state(&mut self, now: LocalTime) {
        if self.state.is_final() {
            return;
        }
        let confirmed = self.link.as_ref().is_some_and(|link| link.is_bound() && link.confirmed);
        let state = if confirmed && now < self.contacts.valid_until() {
            SessionState::Connected
        } else {
            SessionState::Suspended
        };
        if state != self.state {
            self.state = state;
            self.outputs.push(Output::State(state));
        }
    }

    fn go_on_closing(&mut self, now: LocalTime) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        if closing.give_up <= now {
            self.finish(SessionState::Closed);
        } else if let (false, true, Some(link)) = (closing.asked, self.window.is_empty(), &mut self.link)
            && link.is_bound()
        {
            closing.asked = true;
            // From here on the session may be over, and what it held granted to others, before anybody here hears of it (L2).
            self.contacts.renounce();
            // Also if it is in doubt already: whoever sleeps until the time that was promised has to look again.
            self.state = SessionState::Suspended;
            self.outputs.push(Output::State(SessionState::Suspended));
            let link = link.id;
            self.request(now, link, ClientRequest::Close);
        }
    }

    /// The session is over: so is everything that waits for it.
    fn finish(&mut self, state: SessionState) {
        let (mut last, waiting) = (self.window.last_submitted(), std::mem::take(&mut self.detached));
        let endings = self.window.abandon();
        self.conclude(endings);
        for _ in waiting {
            last = last.next();
            self.outputs.push(Output::Completed(last, Err(SessionError::NotDone(NotDone::SessionEnded))));
        }
        for number in self.queries.abandon() {
            self.outputs.push(Output::Answered(number, Err(SessionError::NotDone(NotDone::SessionEnded))));
        }
        for link in self.link.take().into_iter().chain(self.reader.take()) {
            self.outputs.push(Output::Close(link.id));
        }
        self.state = state;
        self.outputs.push(Output::State(state));
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("client", &self.client)
            .field("servers", &self.servers)
            .field("session_timeout", &self.session_timeout)
            .field("read_from", &self.read_from)
            .finish_non_exhaustive()
    }
}
