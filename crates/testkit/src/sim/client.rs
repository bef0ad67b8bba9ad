//! A client: the real client core, and a user who submits, asks, and checks every answer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use atomix_protocol::client::{Consistency, EndReason};
use atomix_protocol::{Address, ClientId, Index, InstanceId, LocalTime, Sequence, SessionId, SessionKey};
use atomix_session::core::{Core, Input, Options};
use atomix_session::{NotDone, Outcome, SessionError, SessionState};

use super::checker::{Broken, Check, hold};
use super::clock::Clock;
use super::coverage::{Coverage, Mark};
use super::model::Model;
use super::operation::{Command, Query};
use super::random::{Component, Random};
use super::settings::{DRIFT, Settings, Time};

/// A user waits when so much is under way: load beyond what a cluster carries shows nothing new.
const OUTSTANDING: usize = 40;

/// A query under way.
#[derive(Clone, Debug)]
struct Asked {
    query: Query,
    consistency: Consistency,
    /// Highest index that anybody had been told of when it was asked.
    completed: Index,
    /// The last command submitted before it.
    after: Sequence,
}

/// A command under way.
#[derive(Clone, Debug)]
struct Submitted {
    command: Command,
    /// The last committed index when it was submitted.
    committed: Index,
}

/// One client and its user.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) core: Option<Core>,
    pub(super) clock: Clock,
    pub(super) epoch: u32,
    pub(super) paused: u32,
    pub(super) inbox: VecDeque<Input>,
    pub(super) timer: Option<Time>,
    pub(super) spins: u32,
    /// Whether the user wants anything.
    pub(super) active: bool,
    name: ClientId,
    renames: bool,
    session: Option<SessionId>,
    instance: Option<InstanceId>,
    opening: bool,
    commands: BTreeMap<Sequence, Submitted>,
    queries: BTreeMap<u64, Asked>,
    last_submitted: Sequence,
    observed: Index,
    written: u64,
    random: Random,
}

/// What all clients and their checks share.
pub(super) struct Shared<'a> {
    pub(super) settings: &'a Settings,
    pub(super) model: &'a mut Model,
    pub(super) coverage: &'a mut Coverage,
    /// Highest index that any client has been told of.
    pub(super) completed: &'a mut Index,
}

impl Client {
    pub(super) fn new(seed: u64, number: usize, clock: Clock) -> Self {
        let mut random = Random::stream(seed, Component::Client, number as u64);
        Client {
            number,
            core: None,
            clock,
            epoch: 0,
            paused: 0,
            inbox: VecDeque::new(),
            timer: None,
            spins: 0,
            active: true,
            name: ClientId(random.token()),
            renames: random.chance(0.5),
            session: None,
            instance: None,
            opening: false,
            commands: BTreeMap::new(),
            queries: BTreeMap::new(),
            last_submitted: Sequence::ZERO,
            observed: Index::ZERO,
            written: 0,
            random,
        }
    }

    /// Starts the process, or opens a new session in it.
    pub(super) fn start(&mut self, now: LocalTime, settings: &Settings, servers: Vec<Address>) {
        self.stop();
        if self.renames {
            self.name = ClientId(self.random.token());
        }
        let (low, high) = settings.session_timeout;
        let read_from = servers.get(self.random.below(2 * servers.len() as u64) as usize).cloned();
        let options = Options {
            client: self.name,
            key: SessionKey(self.random.token()),
            attempt: self.random.next(),
            servers,
            session_timeout: Duration::from_micros(self.random.range(low, high)),
            connect_timeout: Duration::from_micros(self.random.range(200_000, 1_000_000)),
            handshake_timeout: settings.handshake_timeout,
            window: settings.client_window,
            reserve: 4,
            command_bytes: 1 << 20,
            clock_drift: DRIFT,
            read_from,
        };
        self.core = Some(Core::new(options, self.random.next(), now));
    }

    /// The process is gone, and all that it knew.
    pub(super) fn stop(&mut self) {
        self.core = None;
        self.epoch += 1;
        self.inbox.clear();
        self.timer = None;
        self.session = None;
        self.instance = None;
        self.opening = false;
        self.commands.clear();
        self.queries.clear();
        self.last_submitted = Sequence::ZERO;
        self.observed = Index::ZERO;
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Whether its map is open.
    pub(super) fn is_ready(&self) -> bool {
        self.instance.is_some()
    }

    /// Whether the session is over for good.
    pub(super) fn is_over(&self) -> bool {
        self.core.as_ref().is_none_or(|core| core.state().is_final())
    }

    /// What has not ended.
    pub(super) fn outstanding(&self) -> usize {
        self.commands.len() + self.queries.len()
    }

    /// How long the user thinks.
    pub(super) fn think(&mut self, settings: &Settings) -> Time {
        self.random.exponential(settings.think) + 1
    }

    /// The user does something, if it may.
    pub(super) fn act(&mut self, now: LocalTime, shared: &mut Shared<'_>) -> Check {
        let impatient = self.outstanding() >= OUTSTANDING;
        if !self.active || impatient || self.session.is_none() || self.is_over() {
            return Ok(());
        }
        if self.instance.is_none() {
            if !self.opening {
                self.opening = self.submit(now, Command::Open, None, shared);
            }
            return Ok(());
        }
        let patience = shared.settings.patience.map(|patience| now + Duration::from_micros(patience));
        for _ in 0..=self.random.below(shared.settings.burst) {
            if self.random.chance(0.35) {
                let consistency = match self.random.below(4) {
                    0 => Consistency::Causal,
                    1 => Consistency::Sequential,
                    _ => Consistency::Linearizable,
                };
                let query = Query::draw(&mut self.random, shared.settings);
                self.ask(now, query, consistency, patience, shared);
            } else {
                self.written += 1;
                let tag = (self.number as u64) << 32 | self.written;
                let hint = self.observed;
                let command = Command::draw(&mut self.random, shared.settings, tag, hint);
                self.submit(now, command, patience, shared);
            }
        }
        Ok(())
    }

    /// Submits a command; whether it was taken.
    pub(super) fn submit(
        &mut self,
        now: LocalTime,
        command: Command,
        deadline: Option<LocalTime>,
        shared: &mut Shared<'_>,
    ) -> bool {
        let (Some(core), Some(session)) = (self.core.as_mut(), self.session) else { return false };
        let bytes = command.encode(self.instance.unwrap_or_default());
        match core.submit(now, bytes, deadline, false) {
            Ok(sequence) => {
                shared.model.submitted(session, sequence, command.clone());
                self.last_submitted = sequence;
                let committed = shared.model.applied();
                self.commands.insert(sequence, Submitted { command, committed });
                true
            }
            Err(refused) => {
                shared.coverage.mark(Mark::WindowFull, u64::from(refused == NotDone::Busy));
                false
            }
        }
    }

    /// Asks a query; whether it was taken.
    pub(super) fn ask(
        &mut self,
        now: LocalTime,
        query: Query,
        consistency: Consistency,
        deadline: Option<LocalTime>,
        shared: &mut Shared<'_>,
    ) -> bool {
        let (Some(core), Some(instance)) = (self.core.as_mut(), self.instance) else { return false };
        let Ok(number) = core.query(now, query.encode(instance), consistency, deadline) else { return false };
        let asked = Asked { query, consistency, completed: *shared.completed, after: self.last_submitted };
        self.queries.insert(number, asked);
        true
    }

    /// The session has its id.
    pub(super) fn opened(&mut self, session: SessionId, shared: &mut Shared<'_>) -> Check {
        self.session = Some(session);
        shared.coverage.sessions += 1;
        hold("I21", shared.model.session(session).is_some(), || {
            format!("client {} was told of session {session}, which no committed entry opened", self.number)
        })
    }

    /// The session's state changed. I21: it is over only if a committed entry says so.
    pub(super) fn state(&mut self, state: SessionState, shared: &mut Shared<'_>) -> Check {
        let (SessionState::Expired, Some(session)) = (state, self.session) else { return Ok(()) };
        let twin = shared.model.session(session);
        hold("I21", twin.is_some_and(|twin| twin.ended.is_some()), || {
            format!(
                "client {} was told that session {session} is over, and no committed entry says so",
                self.number
            )
        })
    }

    /// I7, I8, I9: a command ended.
    pub(super) fn completed(
        &mut self,
        sequence: Sequence,
        result: &Result<Outcome, SessionError>,
        shared: &mut Shared<'_>,
    ) -> Check {
        let Some(session) = self.session else { return Ok(()) };
        let Some(submitted) = self.commands.remove(&sequence) else {
            return Err(Broken {
                name: "I7",
                detail: format!("command {sequence} of {session} ended twice"),
            });
        };
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(SessionError::NotDone(_)) => {
                self.opening &= !matches!(submitted.command, Command::Open);
                return shared.model.not_done(session, sequence);
            }
            Err(_) => {
                self.opening &= !matches!(submitted.command, Command::Open);
                return Ok(());
            }
        };
        let place = || format!("command {sequence} of session {session} ({:?})", submitted.command);
        let effect = shared.model.session(session).and_then(|twin| twin.effect(sequence));
        let Some(effect) = effect else {
            return Err(Broken {
                name: "I7",
                detail: format!("{} was answered and is not committed", place()),
            });
        };
        hold("I7", effect.index == outcome.index && effect.reply.as_ref() == Some(&outcome.body), || {
            format!("{} was answered {outcome:?}, must be {effect:?}", place())
        })?;
        hold("I9", outcome.index > submitted.committed, || {
            format!("{} took effect at {}, before it was submitted", place(), outcome.index)
        })?;
        if let Command::Open = submitted.command {
            self.instance = Command::instance(&outcome.body);
        }
        shared.coverage.operations += 1;
        self.tell(outcome.index, shared);
        Ok(())
    }

    /// I9, I10: a query was answered.
    pub(super) fn answered(
        &mut self,
        number: u64,
        result: &Result<Outcome, SessionError>,
        shared: &mut Shared<'_>,
    ) -> Check {
        let Some(session) = self.session else { return Ok(()) };
        let Some(asked) = self.queries.remove(&number) else {
            return Err(Broken { name: "I10", detail: format!("query {number} of {session} ended twice") });
        };
        let Ok(outcome) = result else { return Ok(()) };
        let place = || {
            format!(
                "{:?} {:?} of session {session} read at {}",
                asked.consistency, asked.query, outcome.index
            )
        };
        hold("I9", outcome.index <= shared.model.applied(), || {
            format!("{}, which is not committed", place())
        })?;
        hold(
            "I9",
            asked.consistency != Consistency::Linearizable || outcome.index >= asked.completed,
            || format!("{}, when {} had been completed before", place(), asked.completed),
        )?;
        hold("I10", outcome.index >= self.observed, || format!("{} after {}", place(), self.observed))?;
        let Some(twin) = shared.model.session(session) else { return Ok(()) };
        if asked.consistency != Consistency::Causal && asked.after > Sequence::ZERO {
            let own = twin.effect(asked.after).map(|effect| effect.index);
            hold("I10", own.is_some_and(|own| own <= outcome.index), || {
                format!("{}, its own command {} is at {own:?}", place(), asked.after)
            })?;
        }
        let over = twin.ended.is_some_and(|(index, _)| index <= outcome.index);
        let expected = shared.model.answer(&asked.query, outcome.index);
        hold("I9", over || expected == outcome.body, || {
            format!("{}: answered {:?}, must be {expected:?}", place(), outcome.body)
        })?;
        shared.coverage.reads += 1;
        self.tell(outcome.index, shared);
        Ok(())
    }

    fn tell(&mut self, index: Index, shared: &mut Shared<'_>) {
        self.observed = self.observed.max(index);
        *shared.completed = index.max(*shared.completed);
    }

    /// A session ended in the log. I20: not while its client may count on it.
    pub(super) fn check_ended(&self, now: Time, session: SessionId, reason: EndReason) -> Check {
        let Some(core) = self.core.as_ref().filter(|_| self.session == Some(session)) else { return Ok(()) };
        let (local, until) = (self.clock.read(now), core.valid_until());
        hold("I20", reason != EndReason::Expired || local >= until, || {
            format!(
                "session {session} expired while client {} at {local:?} counts on it until {until:?}",
                self.number
            )
        })
    }
}
