//! The client's half of sessions: sequence, window, leader, retry, keep-alive, handshake (S2–S6, S10, S11, Q1, Q2, I5).
//!
//! A step machine like the server's: the driver opens links and moves frames, all decisions are here.

use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::status::Status;
use atomix_protocol::{Address, ClientId, ClusterId, LinkId, LocalTime, Sequence, SessionId, SessionKey};
use bytes::Bytes;

use crate::outcome::{NotDone, Outcome, SessionError};
use crate::session::SessionState;

/// Settings of one client.
#[derive(Clone, Debug)]
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
    /// The session opened: it has its id and timeout now.
    Opened(SessionId),
    /// The session's state changed.
    State(SessionState),
    /// A status that was asked for arrived.
    Status(Status),
}

/// One client. Opens its session at once.
#[derive(Debug)]
pub struct Core {}

impl Core {
    /// A client that begins to connect. `seed` decides its jitter.
    #[must_use]
    pub fn new(_options: Options, _seed: u64, _now: LocalTime) -> Self {
        unimplemented!()
    }

    /// Submits a command: it takes its sequence now (S2). After `deadline` it ends as unknown for the caller, but is sent until it
    /// is answered (S4). `reserved` uses the room for commands submitted from `Drop`.
    ///
    /// # Errors
    /// If the window is full, it is too large, or the session is over: not done.
    pub fn submit(
        &mut self,
        _now: LocalTime,
        _command: Bytes,
        _deadline: Option<LocalTime>,
        _reserved: bool,
    ) -> Result<Sequence, NotDone> {
        unimplemented!()
    }

    /// Asks a query; [`Output::Answered`] will name the number returned. After `deadline` it ends as timed out.
    ///
    /// # Errors
    /// If too many are waiting, it is too large, or the session is over.
    pub fn query(
        &mut self,
        _now: LocalTime,
        _query: Bytes,
        _consistency: Consistency,
        _deadline: Option<LocalTime>,
    ) -> Result<u64, NotDone> {
        unimplemented!()
    }

    /// Closes the session once all commands are answered.
    pub fn close(&mut self, _now: LocalTime) {
        unimplemented!()
    }

    /// Takes one input. Outputs gather until [`Core::drain`].
    pub fn step(&mut self, _now: LocalTime, _input: Input) {
        unimplemented!()
    }

    /// Hands over the outputs in order.
    pub fn drain(&mut self, _now: LocalTime) -> Vec<Output> {
        unimplemented!()
    }

    /// When to call [`Core::step`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        unimplemented!()
    }

    /// The session, once open.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        unimplemented!()
    }

    /// The cluster, once known. A server of another one is refused from then on.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        unimplemented!()
    }

    /// The session's state.
    #[must_use]
    pub fn state(&self) -> SessionState {
        unimplemented!()
    }

    /// Until when the session can't have been ended for silence (L2). Never moves back.
    #[must_use]
    pub fn valid_until(&self) -> LocalTime {
        unimplemented!()
    }

    /// How many commands were sent more than once.
    #[must_use]
    pub fn retries(&self) -> u64 {
        unimplemented!()
    }
}
