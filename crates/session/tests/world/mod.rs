//! Clients and servers joined by a bad link, without any consensus: servers share one log and apply it at their own pace.
//!
//! What consensus would do is decided by the world's stream of random numbers: which server leads, which entries are lost with
//! a leader, when a quorum round completes. Links lose, delay and cut; what a cut link still carries arrives later, beside what
//! its successor carries. Clocks drift within ρ.

mod consensus;
mod events;
mod machine;
mod met;
mod server;
mod users;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::{
    Address, ClientId, ClusterId, Entry, Index, LinkId, LocalTime, Sequence, SessionId, SessionKey, Term,
};
use atomix_session::core::{Core, Input, Options, Output};
use atomix_session::{Outcome, SessionError, SessionState};
use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use self::events::Published;
pub(crate) use self::met::Met;
pub(crate) use self::server::Server;

/// ρ.
pub(crate) const DRIFT: f64 = 0.05;
/// τ.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1_000);
pub(crate) const WINDOW: u64 = 16;
pub(crate) const RESERVE: u64 = 4;
const SERVERS: usize = 3;

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
    /// The last that ended of each instance, of those without a deadline.
    last_ended: BTreeMap<u64, Sequence>,
    /// How many events were delivered.
    pub(crate) events: usize,
    valid_until: LocalTime,
    pub(crate) statuses: usize,
}

pub(crate) struct Command {
    pub(crate) instance: u64,
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
    published: Published,
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
            published: Published::new(),
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
                Output::Event { instance, index, body } => self.delivered(client, index, instance, body),
                Output::State(state) => {
                    self.check_expiry(client, state);
                    self.met.suspended += u64::from(state == SessionState::Suspended);
                    self.clients[client].states.push(state);
                }
                Output::Status(_) => self.clients[client].statuses += 1,
                Output::Refused(_) => {}
            }
        }
        let client = &mut self.clients[client];
        let until = client.core.valid_until();
        assert!(
            until >= client.valid_until || until == LocalTime::ZERO,
            "L2: valid_until never moves back but to nothing, when the session is being closed"
        );
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
            last_ended: BTreeMap::new(),
            events: 0,
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
