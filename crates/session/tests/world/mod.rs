//! Clients and servers joined by a bad link, without any consensus: servers share one log and apply it at their own pace.
//!
//! What consensus would do is decided by the world's stream of random numbers: which server leads, which entries are lost with
//! a leader, when a quorum round completes. Links lose, delay and cut; what a cut link still carries arrives later, beside what
//! its successor carries. Clocks drift within ρ.

mod server;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::{
    Address, ClientId, ClusterId, ClusterTime, Entry, EntryId, EntryKind, Index, LinkId, LocalTime, Sequence,
    SessionId, SessionKey, Term,
};
use atomix_session::core::{Core, Input, Options, Output};
use atomix_session::table::Effect;
use atomix_session::{NotDone, Outcome, SessionError, SessionState};
use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

pub(crate) use self::server::Server;

/// ρ.
pub(crate) const DRIFT: f64 = 0.05;
/// τ.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1_000);
pub(crate) const WINDOW: u64 = 16;
pub(crate) const RESERVE: u64 = 4;
const SERVERS: usize = 3;

/// What happened, so that a batch of worlds that never met the interesting cases fails.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    pub(crate) answered_from_table: u64,
    pub(crate) entries_lost: u64,
    pub(crate) gaps_before_the_log: u64,
    pub(crate) gaps_at_apply: u64,
    pub(crate) refused: u64,
    pub(crate) skipped: u64,
    pub(crate) refused_but_done: u64,
    pub(crate) expired: u64,
    pub(crate) resent: u64,
    pub(crate) window_full: u64,
    pub(crate) unknown: u64,
    pub(crate) suspended: u64,
    pub(crate) restarts: u64,
    pub(crate) redirected_reads: u64,
    pub(crate) late_reads: u64,
    pub(crate) closed: u64,
}

/// How bad the world is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// In a thousand, per millisecond: a link is cut.
    pub(crate) cuts: u64,
    /// A new leader is elected.
    pub(crate) elections: u64,
    /// A server stops doing anything for a while.
    pub(crate) pauses: u64,
    /// All links of one client carry nothing for a while.
    pub(crate) outages: u64,
    /// Per command: refused before the log.
    pub(crate) refusals: u64,
}

impl Weather {
    pub(crate) const FAIR: Weather = Weather { cuts: 0, elections: 0, pauses: 0, outages: 0, refusals: 0 };
}

/// A clock that drifts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: u64,
    rate: f64,
}

impl Clock {
    fn read(self, real: u64) -> LocalTime {
        LocalTime(self.origin + (real as f64 * 1_000.0 * self.rate) as u64)
    }
}

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    client: usize,
    link: u64,
    server: usize,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    /// The client's end is closed: what was sent still arrives, nothing comes back.
    cut: bool,
    /// Not yet known to stand.
    dialing: bool,
    greeted: bool,
    pub(crate) session: Option<SessionId>,
    read_only: bool,
}

/// One client and what was seen of it.
pub(crate) struct Client {
    pub(crate) core: Core,
    clock: Clock,
    deaf_until: u64,
    pub(crate) session: Option<SessionId>,
    pub(crate) states: Vec<SessionState>,
    /// By sequence: the command, how it ended and in which place among all endings.
    pub(crate) commands: BTreeMap<Sequence, Command>,
    pub(crate) queries: BTreeMap<u64, Query>,
    /// Index of what the caller was told of, in order of telling.
    told: Index,
    last_ended: Sequence,
    valid_until: LocalTime,
    pub(crate) statuses: usize,
}

pub(crate) struct Command {
    pub(crate) body: Bytes,
    pub(crate) limited: bool,
    pub(crate) refused: bool,
    pub(crate) end: Option<Result<Outcome, SessionError>>,
}

pub(crate) struct Query {
    consistency: Consistency,
    /// What it has to see at least.
    after: Index,
    after_sequence: Sequence,
    pub(crate) end: Option<Result<Outcome, SessionError>>,
}

pub(crate) struct World {
    pub(crate) weather: Weather,
    pub(crate) met: Met,
    random: Xoshiro256PlusPlus,
    /// Real time in milliseconds.
    pub(crate) real: u64,
    pub(crate) cluster: ClusterId,
    log: Vec<Entry>,
    committed: usize,
    term: Term,
    pub(crate) leader: usize,
    pub(crate) servers: Vec<Server>,
    wires: Vec<Wire>,
    pub(crate) clients: Vec<Client>,
    /// The highest index of a command whose caller was told that it was done.
    done: Index,
}

impl World {
    pub(crate) fn new(seed: u64, clients: usize, weather: Weather) -> Self {
        let mut world = World {
            weather,
            met: Met::default(),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            real: 1,
            cluster: ClusterId(1),
            log: Vec::new(),
            committed: 0,
            term: Term::ZERO,
            leader: 0,
            servers: Vec::new(),
            wires: Vec::new(),
            clients: Vec::new(),
            done: Index::ZERO,
        };
        for _ in 0..SERVERS {
            let clock = world.clock();
            world.servers.push(Server::new(clock));
        }
        world.elect(0);
        for client in 0..clients {
            let clock = world.clock();
            let read_from = (world.below(2) == 0).then(|| server_address(world.below(3) as usize));
            let options = Options { read_from, ..options(client) };
            let seed = world.random.next_u64();
            world.clients.push(Client::new(Core::new(options, seed, clock.read(1)), clock));
        }
        world
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn per_mille(&mut self, share: u64) -> bool {
        self.below(1_000) < share
    }

    fn clock(&mut self) -> Clock {
        let origin = self.below(1_000_000_000);
        Clock { origin, rate: 1.0 - DRIFT + 2.0 * DRIFT * self.below(1_001) as f64 / 1_000.0 }
    }

    pub(crate) fn now(&self, client: usize) -> LocalTime {
        self.clients[client].clock.read(self.real)
    }

    /// One millisecond of everything.
    pub(crate) fn step(&mut self) {
        self.real += 1;
        self.disturb();
        self.servers_act();
        self.carry();
        for client in 0..self.clients.len() {
            let now = self.now(client);
            let core = &mut self.clients[client].core;
            if core.next_deadline().is_some_and(|at| at <= now) {
                core.step(now, Input::Tick);
                let again = core.next_deadline();
                assert!(again.is_none_or(|at| at > now), "a tick leaves nothing due: {again:?} at {now:?}");
            }
            self.drain(client);
        }
    }

    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.step();
        }
    }

    /// Runs until `condition`, at most for so long.
    pub(crate) fn run_until(&mut self, most: u64, condition: impl Fn(&World) -> bool) {
        for _ in 0..most {
            if condition(self) {
                return;
            }
            self.step();
        }
        panic!("it did not come true within {most} ms");
    }

    fn disturb(&mut self) {
        let weather = self.weather;
        if self.per_mille(weather.elections) {
            let next = self.below(SERVERS as u64) as usize;
            self.elect(next);
        }
        if self.per_mille(weather.pauses) {
            let server = self.below(SERVERS as u64) as usize;
            self.servers[server].paused_until = self.real + 100 + self.below(1_500);
        }
        if self.per_mille(weather.outages) {
            let client = self.below(self.clients.len() as u64) as usize;
            self.clients[client].deaf_until = self.real + 50 + self.below(3_000);
        }
        for wire in 0..self.wires.len() {
            if !self.wires[wire].cut && self.per_mille(weather.cuts) {
                self.cut(wire, true);
            }
        }
    }

    pub(crate) fn cut(&mut self, wire: usize, tell: bool) {
        self.wires[wire].cut = true;
        // What is under way to the client is lost; what is under way to the server may arrive, or a part of it.
        self.wires[wire].to_client.clear();
        let keep = self.below(self.wires[wire].to_server.len() as u64 + 1) as usize;
        self.wires[wire].to_server.truncate(keep);
        if tell {
            let (client, link) = (self.wires[wire].client, self.wires[wire].link);
            self.input(client, Input::Closed(LinkId(link)));
        }
    }

    /// Cuts every link of a client.
    pub(crate) fn cut_all(&mut self, client: usize) {
        for wire in 0..self.wires.len() {
            if self.wires[wire].client == client && !self.wires[wire].cut {
                self.cut(wire, true);
            }
        }
    }

    pub(crate) fn silence(&mut self, client: usize, millis: u64) {
        self.clients[client].deaf_until = self.real + millis;
    }

    /// Moves frames: each wire a few, in order; a wire that was cut now and then.
    fn carry(&mut self) {
        for wire in 0..self.wires.len() {
            let deaf = self.clients[self.wires[wire].client].deaf_until > self.real;
            let slow = self.wires[wire].cut && self.below(20) != 0;
            if deaf || slow {
                continue;
            }
            if std::mem::take(&mut self.wires[wire].dialing) {
                if self.weather.cuts > 0 && self.below(8) == 0 {
                    self.cut(wire, true);
                } else {
                    let (client, link) = (self.wires[wire].client, self.wires[wire].link);
                    self.input(client, Input::Dialed(LinkId(link)));
                }
                continue;
            }
            for _ in 0..self.below(4) + u64::from(self.weather.cuts == 0) {
                if self.servers[self.wires[wire].server].paused_until <= self.real
                    && let Some(frame) = self.wires[wire].to_server.pop_front()
                {
                    self.serve(wire, &frame);
                }
                if let Some(frame) = self.wires[wire].to_client.pop_front() {
                    let (client, link) = (self.wires[wire].client, self.wires[wire].link);
                    self.input(client, Input::Frame(LinkId(link), frame));
                }
            }
        }
        self.wires.retain(|wire| !(wire.cut && wire.to_server.is_empty()));
    }

    fn input(&mut self, client: usize, input: Input) {
        let now = self.now(client);
        self.clients[client].core.step(now, input);
        self.drain(client);
    }

    pub(crate) fn drain(&mut self, client: usize) {
        let now = self.now(client);
        for output in self.clients[client].core.drain(now) {
            match output {
                Output::Dial(link, address) => self.dial(client, link, &address),
                Output::Send(link, frame) => {
                    if let Some(wire) = self.wire(client, link) {
                        self.wires[wire].to_server.push_back(frame);
                    }
                }
                Output::Close(link) => {
                    if let Some(wire) = self.wire(client, link) {
                        self.cut(wire, false);
                    }
                }
                Output::Completed(sequence, result) => self.completed(client, sequence, result),
                Output::Answered(number, result) => self.answered(client, number, result),
                Output::Opened(session) => self.clients[client].session = Some(session),
                Output::State(state) => {
                    self.met.suspended += u64::from(state == SessionState::Suspended);
                    self.clients[client].states.push(state);
                }
                Output::Status(_) => self.clients[client].statuses += 1,
            }
        }
        let client = &mut self.clients[client];
        assert!(client.core.valid_until() >= client.valid_until, "L2: valid_until never moves back");
        client.valid_until = client.core.valid_until();
        assert!(
            client.core.state() != SessionState::Connected || now < client.valid_until,
            "S10: suspended at the latest when valid_until has passed"
        );
    }

    fn wire(&self, client: usize, link: LinkId) -> Option<usize> {
        self.wires.iter().position(|wire| wire.client == client && wire.link == link.0 && !wire.cut)
    }

    fn dial(&mut self, client: usize, link: LinkId, address: &Address) {
        let server =
            (0..SERVERS).find(|server| server_address(*server) == *address).expect("a known address");
        self.wires.push(Wire { client, link: link.0, server, dialing: true, ..Wire::default() });
    }

    // --- what users do ---

    pub(crate) fn submit(
        &mut self,
        client: usize,
        body: &str,
        deadline: Option<Duration>,
    ) -> Option<Sequence> {
        let now = self.now(client);
        let reserved = self.below(8) == 0;
        let body = Bytes::copy_from_slice(body.as_bytes());
        let deadline = deadline.map(|within| now + within);
        let limited = deadline.is_some();
        let result = self.clients[client].core.submit(now, body.clone(), deadline, reserved);
        let sequence = match result {
            Ok(sequence) => sequence,
            Err(NotDone::Busy) => {
                self.met.window_full += 1;
                return None;
            }
            Err(_) => return None,
        };
        let command = Command { body, limited, refused: false, end: None };
        let earlier = self.clients[client].commands.insert(sequence, command);
        assert!(earlier.is_none(), "S2: a sequence is given once");
        self.drain(client);
        Some(sequence)
    }

    pub(crate) fn query(
        &mut self,
        client: usize,
        consistency: Consistency,
        deadline: Option<Duration>,
    ) -> Option<u64> {
        let now = self.now(client);
        let deadline = deadline.map(|within| now + within);
        let number =
            self.clients[client].core.query(now, Bytes::from_static(b"q"), consistency, deadline).ok()?;
        let told = self.clients[client].told;
        let after = if consistency == Consistency::Linearizable { self.done.max(told) } else { told };
        let last = self.clients[client].commands.keys().next_back().copied().unwrap_or(Sequence::ZERO);
        let after_sequence = if consistency == Consistency::Causal { Sequence::ZERO } else { last };
        self.clients[client].queries.insert(number, Query { consistency, after, after_sequence, end: None });
        self.drain(client);
        Some(number)
    }

    pub(crate) fn close(&mut self, client: usize) {
        let now = self.now(client);
        self.clients[client].core.close(now);
        self.drain(client);
    }

    pub(crate) fn request_status(&mut self, client: usize) {
        let now = self.now(client);
        self.clients[client].core.request_status(now);
        self.drain(client);
    }

    // --- what users are told ---

    fn completed(&mut self, client: usize, sequence: Sequence, result: Result<Outcome, SessionError>) {
        let of = &mut self.clients[client];
        let command = of.commands.get_mut(&sequence).expect("it was submitted");
        assert!(command.end.is_none(), "{sequence} ends once");
        if let Ok(outcome) = &result {
            of.told = of.told.max(outcome.index);
            self.done = self.done.max(outcome.index);
            self.met.refused_but_done += u64::from(command.refused);
        }
        self.met.unknown += u64::from(matches!(result, Err(SessionError::Unknown(_))));
        self.met.skipped += u64::from(matches!(result, Err(SessionError::NotDone(NotDone::Busy))));
        if !command.limited {
            assert!(of.last_ended < sequence, "S11: {sequence} ends after {}", of.last_ended);
            of.last_ended = sequence;
        }
        command.end = Some(result);
    }

    fn answered(&mut self, client: usize, number: u64, result: Result<Outcome, SessionError>) {
        let of = &mut self.clients[client];
        let query = of.queries.get_mut(&number).expect("it was asked");
        assert!(query.end.is_none(), "query {number} ends once");
        if let Ok(outcome) = &result {
            assert!(outcome.index >= of.told, "Q2: back in time, {} after {}", outcome.index, of.told);
            assert!(outcome.index >= query.after, "Q1, Q3: {:?} misses {}", query.consistency, query.after);
            of.told = outcome.index;
        }
        query.end = Some(result);
    }

    // --- what consensus does ---

    /// Makes a server the leader of a new term. Of what is not committed, a part may be lost.
    pub(crate) fn elect(&mut self, next: usize) {
        let pending = self.log.len() - self.committed;
        let kept = self.below(pending as u64 + 1) as usize;
        self.met.entries_lost += (pending - kept) as u64;
        self.log.truncate(self.committed + kept);
        self.servers[self.leader].depose();
        self.term = self.term.next();
        self.leader = next;
        self.servers[next].paused_until = 0;
        self.append(EntryKind::NoOp, Bytes::new());
        self.commit(self.log.len());
        let now = self.servers[next].now(self.real);
        self.servers[next].elect(now);
    }

    fn append(&mut self, kind: EntryKind, payload: Bytes) {
        let index = Index(self.log.len() as u64 + 1);
        // A new leader's clock may be behind: cluster time is what the log says (T1).
        let time = self.log.last().map_or(ClusterTime::ZERO, |last| last.time).max(ClusterTime(self.real));
        self.log.push(Entry { id: EntryId::new(self.term, index), time, kind, payload });
    }

    /// Commits through an index. The leader applies at once, and what it learns goes to the clients.
    fn commit(&mut self, through: usize) {
        self.committed = through;
        while let Some(entry) = self.next_to_apply(self.leader) {
            let first = self.servers.iter().all(|server| server.table.applied().0 < entry.id.index);
            let effects = self.servers[self.leader].apply(&entry);
            for effect in effects {
                if first {
                    self.check_end(&effect);
                }
                self.tell(effect);
            }
        }
    }

    fn next_to_apply(&self, server: usize) -> Option<Entry> {
        let applied = self.servers[server].table.applied().0.0 as usize;
        (applied < self.committed).then(|| self.log[applied].clone())
    }

    /// L2: nobody's session ends for silence while its client may still rely on it.
    fn check_end(&mut self, effect: &Effect) {
        use atomix_protocol::client::EndReason;
        let Effect::Ended { session, reason: EndReason::Expired, new: true } = effect else {
            return;
        };
        self.met.expired += 1;
        for client in self.clients.iter().filter(|client| client.session == Some(*session)) {
            let now = client.clock.read(self.real);
            assert!(
                client.core.valid_until() <= now,
                "L2: session {session} expired at {now:?}, valid until {:?}",
                client.core.valid_until()
            );
        }
    }

    /// Followers catch up, all of them.
    pub(crate) fn settle(&mut self) {
        self.commit(self.log.len());
        for server in 0..SERVERS {
            while let Some(entry) = self.next_to_apply(server) {
                self.servers[server].apply(&entry);
            }
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| {
            client.commands.values().all(|command| command.end.is_some())
                && client.queries.values().all(|query| query.end.is_some())
        })
    }

    /// S3, S5, S11, Q1: what callers were told against what was done.
    pub(crate) fn check_outcomes(&mut self) {
        self.settle();
        let digests: Vec<_> = self.servers.iter().map(|server| server.table.digest()).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "servers differ: {digests:?}");
        let ledger = self.servers[0].machine.clone();
        for client in &self.clients {
            self.met.resent += client.core.retries();
            let mine: Vec<_> =
                ledger.applied.iter().filter(|done| Some(done.session) == client.session).collect();
            let order = mine.windows(2).all(|pair| pair[0].sequence < pair[1].sequence);
            assert!(order, "S3, S11: once each, in order of submission");
            let done: BTreeMap<_, _> = mine.iter().map(|done| (Sequence(done.sequence), *done)).collect();
            for (sequence, command) in &client.commands {
                match (&command.end, done.get(sequence)) {
                    (Some(Ok(outcome)), Some(done)) => {
                        assert_eq!((outcome.index, &command.body), (Index(done.index), &done.command));
                        assert_eq!(outcome.body, crate::ledger::reply(done.index, &command.body));
                    }
                    (Some(Ok(_)), None) => panic!("S5: {sequence} was told to be done, and was not"),
                    (Some(Err(SessionError::NotDone(_))), Some(_)) => panic!("S5: {sequence} was done"),
                    (Some(Err(_)), _) => {}
                    (None, _) => panic!("{sequence} never ended"),
                }
            }
            for query in client.queries.values() {
                let Some(Ok(outcome)) = &query.end else { continue };
                let seen =
                    done.range(..=query.after_sequence).all(|(_, done)| Index(done.index) <= outcome.index);
                assert!(seen, "Q1: {:?} does not see what was submitted before", query.consistency);
            }
        }
    }
}

impl Client {
    fn new(core: Core, clock: Clock) -> Self {
        Client {
            core,
            clock,
            deaf_until: 0,
            session: None,
            states: Vec::new(),
            commands: BTreeMap::new(),
            queries: BTreeMap::new(),
            told: Index::ZERO,
            last_ended: Sequence::ZERO,
            valid_until: LocalTime::ZERO,
            statuses: 0,
        }
    }

    /// How a command ended.
    pub(crate) fn end(&self, sequence: Sequence) -> Option<&Result<Outcome, SessionError>> {
        self.commands.get(&sequence)?.end.as_ref()
    }
}

pub(crate) fn server_address(server: usize) -> Address {
    Address(format!("server-{server}"))
}

pub(crate) fn options(client: usize) -> Options {
    Options {
        client: ClientId(client as u128 + 1),
        key: SessionKey(client as u128 + 100),
        attempt: client as u64 + 1_000,
        servers: (0..SERVERS).map(server_address).collect(),
        session_timeout: TIMEOUT,
        connect_timeout: Duration::from_secs(10),
        handshake_timeout: Duration::from_secs(5),
        window: WINDOW,
        reserve: RESERVE,
        command_bytes: 1_000,
        clock_drift: DRIFT,
        read_from: None,
    }
}
