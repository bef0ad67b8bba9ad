//! A client: the real client core, and its users, who submit and ask. What they are told is checked in `answers`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::{
    Address, ClientId, Index, InstanceId, LocalTime, ResourceId, Sequence, SessionId, SessionKey,
};
use atomix_session::NotDone;
use atomix_session::core::{Core, Input, Options};

use super::checker::Check;
use super::clock::Clock;
use super::contender::{Contender, Guard, Lock, Wish};
use super::coverage::{Coverage, Mark};
use super::map_operation::{MapCommand, MapQuery, value};
use super::model::Model;
use super::operation::{Command, LockCommand, Place, Query};
use super::random::{Component, Random};
use super::server::server_at;
use super::settings::{DRIFT, Role, Settings, Time};
use super::watcher::Watcher;

/// A user waits when so much is under way: load beyond what a cluster carries shows nothing new.
const OUTSTANDING: usize = 40;

/// A query under way.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) query: Query,
    pub(super) instance: InstanceId,
    pub(super) consistency: Consistency,
    /// Highest index that anybody had been told of when it was asked.
    pub(super) completed: Index,
    /// The last command submitted before it.
    pub(super) after: Sequence,
}

/// How a command is submitted.
struct How {
    deadline: Option<LocalTime>,
    /// As from a `Drop`.
    detached: bool,
}

/// A command under way.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) command: Command,
    /// Whom it was sent to, if not to the session itself.
    pub(super) to: Option<(Place, Handle)>,
    /// The last committed index when it was submitted.
    pub(super) committed: Index,
}

/// A resource that a client has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) instance: InstanceId,
    pub(super) resource: ResourceId,
}

/// One client and its users.
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
    /// Whether the users want anything.
    pub(super) active: bool,
    /// Whether they have left for good.
    pub(super) retired: bool,
    pub(super) contender: Contender,
    pub(super) watcher: Watcher,
    /// Writes to what locks guard, on their way.
    pub(super) writes: Vec<Guard>,
    pub(super) session: Option<SessionId>,
    pub(super) handles: BTreeMap<Place, Handle>,
    pub(super) opening: BTreeMap<Sequence, Place>,
    pub(super) commands: BTreeMap<Sequence, Submitted>,
    pub(super) queries: BTreeMap<u64, Asked>,
    pub(super) observed: Index,
    /// How many events of its session it was told.
    pub(super) told: usize,
    pub(super) deduplicated: u64,
    name: ClientId,
    renames: bool,
    reads_from: Option<usize>,
    role: Role,
    last_submitted: Sequence,
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
    /// Whether things may still go wrong.
    pub(super) faults_on: bool,
}

impl Client {
    pub(super) fn new(seed: u64, number: usize, clock: Clock, settings: &Settings) -> Self {
        let mut random = Random::stream(seed, Component::Client, number as u64);
        let role = settings.demand.role(number);
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
            retired: false,
            contender: Contender::new(seed, number),
            watcher: Watcher::new(seed, number, role),
            writes: Vec::new(),
            session: None,
            handles: BTreeMap::new(),
            opening: BTreeMap::new(),
            commands: BTreeMap::new(),
            queries: BTreeMap::new(),
            observed: Index::ZERO,
            told: 0,
            deduplicated: 0,
            name: ClientId(random.token()),
            renames: random.chance(0.5),
            reads_from: None,
            role,
            last_submitted: Sequence::ZERO,
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
        self.reads_from = read_from.as_ref().and_then(server_at);
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
        self.handles.clear();
        self.opening.clear();
        self.commands.clear();
        self.queries.clear();
        self.contender.forget();
        self.watcher.forget();
        self.last_submitted = Sequence::ZERO;
        self.observed = Index::ZERO;
        self.told = 0;
        self.deduplicated = 0;
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// What its users want to have open.
    fn places(&self, settings: &Settings) -> Vec<Place> {
        let map = self.role.writes || self.role.watches;
        let locks = if self.role.contends { settings.demand.locks } else { 0 };
        map.then_some(Place::Map).into_iter().chain((0..locks).map(Place::Lock)).collect()
    }

    /// Whether everything that it wants is open.
    pub(super) fn is_ready(&self, settings: &Settings) -> bool {
        self.places(settings).iter().all(|place| self.handles.contains_key(place))
    }

    /// Whether the session is over for good.
    pub(super) fn is_over(&self) -> bool {
        self.core.as_ref().is_none_or(|core| core.state().is_final())
    }

    /// What has not ended.
    pub(super) fn outstanding(&self) -> usize {
        self.commands.len() + self.queries.len()
    }

    /// How long the users think.
    pub(super) fn think(&mut self, settings: &Settings) -> Time {
        self.random.exponential(settings.think) + 1
    }

    /// The session is given up in good order.
    pub(super) fn close(&mut self, now: LocalTime) {
        self.active = false;
        self.retired = true;
        self.contender.forget();
        if let Some(core) = self.core.as_mut() {
            core.close(now);
        }
    }

    /// The users do something, if they may.
    pub(super) fn act(&mut self, now: LocalTime, shared: &mut Shared<'_>) -> Check {
        self.watcher.take(shared.coverage)?;
        let impatient = self.outstanding() >= OUTSTANDING;
        if !self.active || impatient || self.session.is_none() || self.is_over() {
            return Ok(());
        }
        let wanted = self.places(shared.settings);
        let missing = wanted.iter().find(|place| {
            !self.handles.contains_key(place) && !self.opening.values().any(|opening| opening == *place)
        });
        if let Some(place) = missing.copied() {
            if let Some(sequence) = self.submit(now, Command::Open(place), None, shared) {
                self.opening.insert(sequence, place);
            }
            return Ok(());
        }
        if shared.faults_on && self.random.chance(shared.settings.demand.deletes) {
            if let Some(place) = self.random.pick(&wanted) {
                let force = self.random.chance(0.5);
                self.submit(now, Command::Delete(place, force), None, shared);
            }
            return Ok(());
        }
        if self.role.watches && self.handles.contains_key(&Place::Map) {
            self.watch(now, shared);
        }
        if self.role.contends {
            self.contend(now, shared);
        }
        if self.role.writes && self.handles.contains_key(&Place::Map) {
            self.write(now, shared);
        }
        Ok(())
    }

    fn watch(&mut self, now: LocalTime, shared: &mut Shared<'_>) {
        let Some(command) = self.watcher.plan(shared.settings) else { return };
        let begins = matches!(command, MapCommand::Watch(_));
        if let Some(sequence) = self.submit(now, Command::Map(command), None, shared)
            && begins
        {
            self.watcher.watching(sequence);
        }
    }

    /// Asks for very many watches.
    pub(super) fn hoard(&mut self, now: LocalTime, count: usize, shared: &mut Shared<'_>) {
        if !self.role.watches || !self.handles.contains_key(&Place::Map) {
            return;
        }
        for _ in 0..count {
            let key = self.random.below(shared.settings.keys);
            let Some(watch) = self.submit(now, Command::Map(MapCommand::Watch(Some(key))), None, shared)
            else {
                return;
            };
            self.watcher.watching(watch);
        }
    }

    /// Puts, whatever its users are at, as long as there is room for it.
    pub(super) fn flood(&mut self, now: LocalTime, count: u64, shared: &mut Shared<'_>) {
        for _ in 0..count {
            let (key, value) = (self.random.below(shared.settings.keys), self.value(shared.settings));
            let put = Command::Map(MapCommand::Put(key, value));
            if !self.handles.contains_key(&Place::Map) || self.submit(now, put, None, shared).is_none() {
                return;
            }
        }
    }

    /// How many things its session owns or has asked for.
    pub(super) fn owns(&self) -> usize {
        self.watcher.watches()
    }

    /// Whether it has one name for life.
    pub(super) fn comes_back(&self) -> bool {
        !self.renames
    }

    /// The server that it reads from, if that is not left to its session's link.
    pub(super) fn reads_from(&self) -> Option<usize> {
        self.reads_from.filter(|_| self.session.is_some())
    }

    fn contend(&mut self, now: LocalTime, shared: &mut Shared<'_>) {
        let Some(core) = &self.core else { return };
        let valid_until = core.valid_until();
        let open = self.handles.iter().filter(|(place, _)| matches!(place, Place::Lock(_)));
        let locks: Vec<Lock> =
            open.map(|(place, handle)| Lock { place: *place, resource: handle.resource }).collect();
        for wish in self.contender.plan(now, valid_until, &locks, shared.settings) {
            match wish {
                Wish::Command(lock, command) => {
                    let gives_back = !matches!(command, LockCommand::Acquire(_));
                    let deadline = if gives_back { None } else { patience(now, shared.settings) };
                    match self.submit_to(
                        now,
                        lock.place,
                        Command::Lock(command),
                        How { deadline, detached: gives_back },
                        shared,
                    ) {
                        Some(sequence) => self.contender.submitted(lock, sequence, command),
                        None => self.contender.refused(lock, command),
                    }
                }
                Wish::Inspect(lock) => {
                    let consistency = self.consistency();
                    self.ask(now, lock.place, Query::Inspect, consistency, None, shared);
                }
                Wish::Write(guard) => self.writes.push(guard),
                Wish::FencedPut(guard) => {
                    let token = atomix_resource::fencing::FencingToken {
                        lock: guard.lock.resource,
                        token: guard.token,
                    };
                    let key = self.random.below(shared.settings.keys);
                    let value = self.value(shared.settings);
                    let put = Command::Map(MapCommand::FencedPut(token, key, value));
                    if self.handles.contains_key(&Place::Map) {
                        self.submit(now, put, None, shared);
                    }
                }
            }
        }
    }

    fn write(&mut self, now: LocalTime, shared: &mut Shared<'_>) {
        let patience = patience(now, shared.settings);
        for _ in 0..=self.random.below(shared.settings.burst) {
            if self.random.chance(0.35) {
                let consistency = self.consistency();
                let query = MapQuery::draw(&mut self.random, shared.settings);
                self.ask(now, Place::Map, Query::Map(query), consistency, patience, shared);
            } else {
                let tag = self.tag();
                let hint = self.observed;
                let command = MapCommand::draw(&mut self.random, shared.settings, tag, hint);
                let command = command.map_or_else(|| Command::garbage(&mut self.random), Command::Map);
                self.submit(now, command, patience, shared);
            }
        }
    }

    fn consistency(&mut self) -> Consistency {
        match self.random.below(4) {
            0 => Consistency::Causal,
            1 => Consistency::Sequential,
            _ => Consistency::Linearizable,
        }
    }

    fn tag(&mut self) -> u64 {
        self.written += 1;
        (self.number as u64) << 32 | self.written
    }

    fn value(&mut self, settings: &Settings) -> bytes::Bytes {
        let tag = self.tag();
        value(&mut self.random, settings, tag)
    }

    /// Submits a command of the map, or of none; its sequence, if it was taken.
    pub(super) fn submit(
        &mut self,
        now: LocalTime,
        command: Command,
        deadline: Option<LocalTime>,
        shared: &mut Shared<'_>,
    ) -> Option<Sequence> {
        self.submit_to(now, Place::Map, command, How { deadline, detached: false }, shared)
    }

    fn submit_to(
        &mut self,
        now: LocalTime,
        place: Place,
        command: Command,
        how: How,
        shared: &mut Shared<'_>,
    ) -> Option<Sequence> {
        let (core, session) = (self.core.as_mut()?, self.session?);
        let own = matches!(command, Command::Open(_) | Command::Delete(..));
        let to = if own { None } else { Some((place, *self.handles.get(&place)?)) };
        let instance = to.map(|(_, handle)| handle.instance).unwrap_or_default();
        let bytes = command.encode(instance);
        let taken = if how.detached {
            core.submit_detached(now, bytes)
        } else {
            core.submit(now, bytes, how.deadline)
        };
        match taken {
            Ok(sequence) => {
                shared.model.submitted(session, sequence, instance, command.clone());
                self.last_submitted = sequence;
                let committed = shared.model.applied();
                self.commands.insert(sequence, Submitted { command, to, committed });
                Some(sequence)
            }
            Err(refused) => {
                shared.coverage.mark(Mark::WindowFull, u64::from(refused == NotDone::Busy));
                None
            }
        }
    }

    /// Asks a query; whether it was taken.
    pub(super) fn ask(
        &mut self,
        now: LocalTime,
        place: Place,
        query: Query,
        consistency: Consistency,
        deadline: Option<LocalTime>,
        shared: &mut Shared<'_>,
    ) -> bool {
        let (Some(core), Some(handle)) = (self.core.as_mut(), self.handles.get(&place)) else { return false };
        let instance = handle.instance;
        let Ok(number) = core.query(now, query.encode(instance), consistency, deadline) else { return false };
        let (completed, after) = (*shared.completed, self.last_submitted);
        self.queries.insert(number, Asked { query, instance, consistency, completed, after });
        true
    }
}

fn patience(now: LocalTime, settings: &Settings) -> Option<LocalTime> {
    settings.patience.map(|patience| now + Duration::from_micros(patience))
}
