//! A few servers and clients in one thread, on virtual time: links are queues with a delay, a write is durable a while after it was
//! asked for, and what was not durable is lost in a crash. Same seed, same run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atomix_engine::{Engine, Input, Notice, Options, Output, Recovered, StopReason};
use atomix_protocol::status::Status;
use atomix_protocol::{Address, BootNonce, ClientId, ClusterId, Incarnation, LinkId, LocalTime, SessionKey};
use atomix_session::core::{Core, Input as ClientInput, Options as ClientOptions, Output as ClientOutput};
use atomix_session::{Outcome, SessionError};
use bytes::Bytes;

use crate::disk::Disk;
use crate::journal::Journal;
pub(crate) use crate::users::words;

const LATENCY: Duration = Duration::from_micros(500);
const WRITE: Duration = Duration::from_micros(300);

pub(crate) type Ending = Result<Outcome, SessionError>;

/// A server's or a client's end of a link: which node, which of its starts, which link.
type End = (usize, u64, LinkId);

enum Event {
    Dial { from: End, to: Address },
    Frame(End, Bytes),
    Closed(End),
    Wrote { server: usize, start: u64, output: Output },
}

pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) list: Vec<Address>,
    /// Whom it is told to join through, instead.
    pub(crate) join: Vec<Address>,
    pub(crate) disk: Disk,
    pub(crate) engine: Option<Engine>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) stopped: Option<StopReason>,
    /// What its binary knows (M3).
    pub(crate) kinds: &'static [(&'static str, u16)],
    starts: u64,
}

pub(crate) struct Client {
    pub(crate) core: Core,
    pub(crate) endings: BTreeMap<u64, Ending>,
    pub(crate) answers: BTreeMap<u64, Ending>,
    /// Index and text of each, in order.
    pub(crate) events: Vec<(u64, String)>,
}

pub(crate) struct World {
    pub(crate) now: LocalTime,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    pub(crate) options: fn(&mut Options),
    events: BTreeMap<(LocalTime, u64), Event>,
    sequence: u64,
    /// Both ends of every link that stands.
    links: BTreeMap<End, End>,
    /// Pairs of servers that do not reach each other.
    cut: BTreeSet<(usize, usize)>,
    drawn: u128,
    /// Frames on links whose other end is the test itself: server, link, frame.
    pub(crate) heard: Vec<(usize, LinkId, Bytes)>,
}

pub(crate) const CLIENTS: usize = 100;

impl World {
    /// `count` servers on empty directories, each told to form a cluster of all of them. None runs yet.
    pub(crate) fn new(count: usize) -> Self {
        let list: Vec<Address> = (1..=count).map(|number| Address::new(format!("server-{number}"))).collect();
        let servers = list.iter().map(|address| Server {
            address: address.clone(),
            list: list.clone(),
            join: Vec::new(),
            disk: Disk::default(),
            engine: None,
            notices: Vec::new(),
            stopped: None,
            kinds: &[],
            starts: 0,
        });
        World {
            now: LocalTime::from_millis(1),
            servers: servers.collect(),
            clients: Vec::new(),
            options: |_| (),
            events: BTreeMap::new(),
            sequence: 0,
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            drawn: 0,
            heard: Vec::new(),
        }
    }

    /// Another run of the same.
    pub(crate) fn seeded(mut self, seed: u64) -> Self {
        self.drawn = u128::from(seed) << 32;
        self
    }

    /// A cluster of `count` that has a leader.
    pub(crate) fn formed(count: usize) -> Self {
        let mut world = World::new(count);
        world.start_all();
        world.until("a leader", |world| world.leader().is_some());
        world
    }

    pub(crate) fn draw(&mut self) -> u128 {
        self.drawn += 1;
        self.drawn << 64 | self.drawn
    }

    pub(crate) fn start_all(&mut self) {
        for index in 0..self.servers.len() {
            self.start(index);
        }
    }

    pub(crate) fn start(&mut self, index: usize) {
        let (incarnation, cluster, nonce) = (self.draw(), self.draw(), self.draw());
        let server = &mut self.servers[index];
        server.starts += 1;
        server.stopped = None;
        let mut options = Options::new(server.address.clone(), server.list.clone());
        options.join.clone_from(&server.join);
        options.fresh_incarnation = Incarnation(incarnation);
        options.fresh_cluster = ClusterId(cluster);
        options.boot_nonce = BootNonce(nonce as u64);
        options.seed = nonce as u64;
        (self.options)(&mut options);
        let recovered: Recovered = server.disk.recover();
        let machine = Box::new(Journal::of_kinds(server.kinds));
        let engine = Engine::new(options, recovered, machine, self.now).expect("a sound snapshot");
        server.engine = Some(engine);
        self.drain(index);
    }

    /// The process is gone, and with it what was not durable; its links close.
    pub(crate) fn crash(&mut self, index: usize) {
        self.servers[index].engine = None;
        for end in self.ends_of(index) {
            self.hang_up(end);
        }
    }

    fn start_of(&self, node: usize) -> u64 {
        self.servers.get(node).map_or(0, |server| server.starts)
    }

    /// The process is gone with its machine: nobody is told.
    pub(crate) fn vanish(&mut self, index: usize) {
        self.servers[index].engine = None;
    }

    pub(crate) fn wipe(&mut self, index: usize) {
        self.servers[index].disk = Disk::default();
    }

    /// Neither reaches the other, and no link between them stays.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
        let links: Vec<(End, End)> = self.links.iter().map(|(a, b)| (*a, *b)).collect();
        for (near, far) in links {
            if self.is_cut(near.0, far.0) {
                self.hang_up(near);
            }
        }
    }

    pub(crate) fn isolate(&mut self, index: usize) {
        for other in (0..self.servers.len()).chain(CLIENTS..CLIENTS + self.clients.len()) {
            if other != index {
                self.cut(index, other);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn ends_of(&self, node: usize) -> Vec<End> {
        self.links.keys().filter(|end| end.0 == node).copied().collect()
    }

    pub(crate) fn links_between(&self, a: usize, b: usize) -> usize {
        self.links.iter().filter(|(near, far)| near.0 == a && far.0 == b).count()
    }

    /// Ends a link as seen by both.
    fn hang_up(&mut self, near: End) {
        if let Some(far) = self.links.remove(&near) {
            self.links.remove(&far);
            self.schedule(LATENCY, Event::Closed(near));
            self.schedule(LATENCY, Event::Closed(far));
        }
    }

    pub(crate) fn client(&mut self, read_from: Option<usize>) -> usize {
        let client = ClientId(self.draw());
        self.client_with(|world, options| {
            options.client = client;
            options.read_from = read_from.map(|index| world.servers[index].address.clone());
        })
    }

    pub(crate) fn client_with(&mut self, change: impl FnOnce(&World, &mut ClientOptions)) -> usize {
        let (key, attempt) = (SessionKey(self.draw()), self.draw() as u64);
        let servers = self.servers.iter().map(|server| server.address.clone()).collect();
        let mut options = ClientOptions {
            client: ClientId(attempt.into()),
            key,
            attempt,
            servers,
            session_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(1),
            window: 1_024,
            reserve: 64,
            command_bytes: 1 << 20,
            clock_drift: 0.05,
            read_from: None,
        };
        change(self, &mut options);
        let core = Core::new(options, attempt, self.now);
        let (endings, answers) = (BTreeMap::new(), BTreeMap::new());
        self.clients.push(Client { core, endings, answers, events: Vec::new() });
        let index = self.clients.len() - 1;
        self.drain(CLIENTS + index);
        index
    }

    /// The client reaches nobody: as good as gone, unless the cut heals.
    pub(crate) fn cut_off(&mut self, client: usize) {
        for server in 0..self.servers.len() {
            self.cut(server, CLIENTS + client);
        }
    }

    pub(crate) fn engine(&self, index: usize) -> &Engine {
        self.servers[index].engine.as_ref().expect("a server that runs")
    }

    pub(crate) fn status(&self, index: usize) -> Status {
        self.engine(index).status(self.now)
    }

    pub(crate) fn lines(&self, index: usize) -> String {
        Journal::lines_of(self.engine(index).machine())
    }

    /// The server that leads in the latest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |index: &usize| {
            let raft = self.servers[*index].engine.as_ref().and_then(Engine::raft);
            raft.is_some_and(atomix_raft::Raft::is_established)
        };
        let leaders = (0..self.servers.len()).filter(leads);
        leaders.max_by_key(|index| self.engine(*index).raft().map(atomix_raft::Raft::term))
    }

    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.next_time().is_some_and(|at| at <= end) {
            self.turn();
        }
        self.now = end;
    }

    /// Runs until something holds. The limit is far beyond what anything here takes.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&World) -> bool) {
        let limit = self.now + Duration::from_secs(60);
        while !done(self) {
            assert!(
                self.now < limit && self.next_time().is_some(),
                "no {what} in time:\n{}",
                self.describe()
            );
            self.turn();
        }
    }

    pub(crate) fn describe(&self) -> String {
        let describe = |server: &Server| match &server.engine {
            Some(engine) => format!("{} {:?}\n", server.address, engine.status(self.now)),
            None => format!("{} down {:?}\n", server.address, server.stopped),
        };
        self.servers.iter().map(describe).collect()
    }

    fn next_time(&self) -> Option<LocalTime> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let servers = self.servers.iter().filter_map(|server| server.engine.as_ref()?.next_deadline());
        let clients = self.clients.iter().filter_map(|client| client.core.next_deadline());
        servers.chain(clients).chain(event).min()
    }

    fn turn(&mut self) {
        let Some(at) = self.next_time() else { return };
        self.now = self.now.max(at);
        let due = |deadline: Option<LocalTime>| deadline.is_some_and(|at| at <= self.now);
        if due(self.events.keys().next().map(|(at, _)| *at)) {
            let (_, event) = self.events.pop_first().expect("just seen");
            self.happen(event);
            return;
        }
        let servers = self.servers.iter().enumerate();
        let ticks = servers.filter(|(_, server)| due(server.engine.as_ref().and_then(Engine::next_deadline)));
        let ticks: Vec<usize> = ticks.map(|(index, _)| index).collect();
        let clients = self.clients.iter().enumerate();
        let clients = clients.filter(|(_, client)| due(client.core.next_deadline()));
        let clients: Vec<usize> = clients.map(|(index, _)| CLIENTS + index).collect();
        for node in ticks.into_iter().chain(clients) {
            self.tick(node);
        }
    }

    fn tick(&mut self, node: usize) {
        if node >= CLIENTS {
            self.clients[node - CLIENTS].core.step(self.now, ClientInput::Tick);
            self.drain(node);
        } else {
            self.step(node, Input::Tick);
        }
    }

    pub(crate) fn step(&mut self, server: usize, input: Input) {
        if let Some(engine) = &mut self.servers[server].engine {
            engine.step(self.now, input);
            self.drain(server);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Dial { from, to } => self.dial(from, &to),
            Event::Frame(end, frame) if self.links.contains_key(&end) => self.deliver(end, frame),
            Event::Frame(..) => {}
            Event::Closed(end) => self.closed(end),
            Event::Wrote { server, start, output } => {
                if self.servers[server].starts == start && self.servers[server].engine.is_some() {
                    let answers = self.servers[server].disk.carry_out(output);
                    for answer in answers {
                        self.step(server, answer);
                    }
                }
            }
        }
    }

    fn closed(&mut self, end: End) {
        self.links.remove(&end);
        let (node, start, link) = end;
        if node >= CLIENTS {
            self.clients[node - CLIENTS].core.step(self.now, ClientInput::Closed(link));
            self.drain(node);
        } else if start == self.start_of(node) {
            self.step(node, Input::Closed(link));
        }
    }

    fn deliver(&mut self, (node, start, link): End, frame: Bytes) {
        if start != self.start_of(node) {
            return;
        }
        if node >= CLIENTS {
            self.clients[node - CLIENTS].core.step(self.now, ClientInput::Frame(link, frame));
            self.drain(node);
        } else {
            self.step(node, Input::Frame(link, frame));
        }
    }

    fn dial(&mut self, from: End, to: &Address) {
        if from.1 != self.start_of(from.0) {
            return;
        }
        let found = self.servers.iter().position(|server| server.address == *to && server.engine.is_some());
        let Some(server) = found.filter(|server| !self.is_cut(from.0, *server)) else {
            self.happen(Event::Closed(from));
            return;
        };
        let link = self.servers[server].engine.as_mut().expect("just seen").accept();
        let to = (server, self.start_of(server), link);
        self.links.insert(from, to);
        self.links.insert(to, from);
        self.step(server, Input::Accepted(link));
        if from.0 >= CLIENTS {
            self.clients[from.0 - CLIENTS].core.step(self.now, ClientInput::Dialed(from.2));
            self.drain(from.0);
        } else {
            self.step(from.0, Input::Dialed(from.2));
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    pub(crate) fn drain(&mut self, node: usize) {
        if node >= CLIENTS {
            for output in self.clients[node - CLIENTS].core.drain(self.now) {
                self.carry_out_client(node, output);
            }
        } else if let Some(engine) = &mut self.servers[node].engine {
            for output in engine.drain(self.now) {
                self.carry_out(node, output);
            }
        }
    }

    fn carry_out(&mut self, server: usize, output: Output) {
        let start = self.start_of(server);
        match output {
            Output::Dial(link, to) => self.schedule(LATENCY, Event::Dial { from: (server, start, link), to }),
            Output::Send(link, frame) => self.send((server, start, link), frame),
            Output::Close(link) => self.close((server, start, link)),
            Output::Notice(notice) => self.servers[server].notices.push(notice),
            Output::Stop(reason) => {
                self.crash(server);
                self.servers[server].stopped = Some(reason);
            }
            output => self.schedule(WRITE, Event::Wrote { server, start, output }),
        }
    }

    fn carry_out_client(&mut self, node: usize, output: ClientOutput) {
        let client = &mut self.clients[node - CLIENTS];
        match output {
            ClientOutput::Dial(link, to) => self.schedule(LATENCY, Event::Dial { from: (node, 0, link), to }),
            ClientOutput::Send(link, frame) => self.send((node, 0, link), frame),
            ClientOutput::Close(link) => self.close((node, 0, link)),
            ClientOutput::Completed(sequence, ending) => {
                let before = client.endings.insert(sequence.0, ending);
                assert!(before.is_none(), "command {sequence} ended twice");
            }
            ClientOutput::Answered(number, ending) => {
                client.answers.insert(number, ending);
            }
            ClientOutput::Event { index, body, .. } => {
                client.events.push((index.0, String::from_utf8_lossy(&body).into_owned()));
            }
            _ => {}
        }
    }

    fn send(&mut self, from: End, frame: Bytes) {
        if let Some(to) = self.links.get(&from).copied() {
            self.schedule(LATENCY, Event::Frame(to, frame));
        } else if from.0 < CLIENTS {
            self.heard.push((from.0, from.2, frame));
        }
    }

    /// The other end gets what was sent before, then hears of the end.
    fn close(&mut self, from: End) {
        if let Some(to) = self.links.remove(&from) {
            // Frames that are under way still find their link: it goes with the event.
            self.schedule(LATENCY, Event::Closed(to));
        }
    }
}
