//! The world: simulated time, a queue of events, and who is struck by them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use atomix_protocol::{Configuration, Index};
use atomix_raft::Role;

use super::bare::Emitted;
use super::checker::{Broken, Check, Checker};
use super::client::{Client, Shared};
use super::clock::Clock;
use super::console::Console;
use super::contender::Guard;
use super::coverage::Coverage;
use super::disk::Job;
use super::faults::{Class, Planned, Source, Swarm};
use super::frames::Parcel;
use super::guarded::Guarded;
use super::impostor::Impostor;
use super::inject::Ending;
use super::model::Model;
use super::network::{ConnectionId, Network, Node, Reach, Signal};
use super::operator::Step;
use super::plan;
use super::proposals::Proposals;
use super::random::{Component, Random, mix};
use super::server::{Armed, Server};
use super::settings::{DRIFT, SECOND, Settings, Time};
use super::trace::Trace;
use super::{Options, Profile};

/// How many propose at once when many do.
const BURST: u64 = 6;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// To a connection.
    Network(ConnectionId, Signal),
    /// A message of bare consensus arrives.
    Message(Box<Parcel>),
    /// A server without a configuration is given one.
    Form(Node, Box<Configuration>),
    /// What a client is in the middle of goes wrong.
    Mishap(Class),
    /// Somebody hostile says something.
    Hostile,
    /// An operator wants something.
    Operate(Step),
    /// A link of bare consensus is up, or is no more.
    Link { at: Node, other: Node, up: bool },
    /// A node's deadline.
    Timer { node: Node, epoch: u32 },
    /// A machine that stood still behind a batch goes on: what came of that is carried out.
    Resume { server: Node, epoch: u32, emitted: Vec<Emitted> },
    /// A server looks at its inbox.
    Wake { server: Node, epoch: u32 },
    /// A storage thread's task is over.
    Lane { server: Node, epoch: u32, lane: usize, job: Job },
    /// A client's user does something.
    Think { client: usize, epoch: u32 },
    /// Somebody proposes to bare consensus.
    Propose,
    /// Many propose to one server of bare consensus at once.
    Burst(Node),
    /// A fault of a class.
    Fault(usize),
    /// A fault ends.
    End(u64),
    /// A server loses power in the middle of a write.
    PowerCut { server: Node, epoch: u32, armed: Armed },
    /// A server goes down for what is wrong with its disk.
    Relapse { server: Node, epoch: u32, seed: u64 },
    /// A storage thread tries again what found no room.
    Room { server: Node, epoch: u32, lane: usize },
    /// A server's process comes up.
    Boot(Node),
    /// A client's process comes up, unless something else happened to it since.
    StartClient { client: usize, epoch: u32 },
    /// A holder's write reaches what its lock guards.
    Write(Guard),
    /// A leader goes in the middle of something.
    Usurp(Node, u64),
}

struct Scheduled {
    time: Time,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.number).cmp(&(other.time, other.number))
    }
}

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) profile: Profile,
    pub(super) settings: Settings,
    pub(super) swarm: Swarm,
    pub(super) now: Time,
    pub(super) events: u64,
    pub(super) hash: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(super) servers: Vec<Server>,
    pub(super) clients: Vec<Client>,
    pub(super) network: Network,
    pub(super) checker: Checker,
    pub(super) model: Model,
    pub(super) completed: Index,
    pub(super) guarded: Guarded,
    pub(super) proposals: Proposals,
    pub(super) console: Console,
    pub(super) impostor: Impostor,
    pub(super) coverage: Coverage,
    pub(super) trace: Trace,
    pub(super) sources: Vec<Source>,
    /// By source: what strikes next.
    pub(super) next_faults: Vec<Option<Planned>>,
    /// What has struck.
    pub(super) struck: Vec<Planned>,
    pub(super) active: BTreeMap<u64, Ending>,
    /// Who stays down whatever else was to happen.
    pub(super) left_out: BTreeSet<Node>,
    pub(super) next_ending: u64,
    /// Servers that hear nobody: since when, in which term and process.
    pub(super) deaf: BTreeMap<Node, (Time, u64, u32)>,
    pub(super) faults_on: bool,
    /// When all was healed.
    pub(super) healed_at: Option<Time>,
    /// A leader is going while it ends a session: what follows is drawn from this.
    pub(super) usurping: Option<u64>,
    /// Nobody proposes.
    pub(super) quiet: bool,
    pub(super) randoms: Randoms,
}

/// The world's own streams.
#[derive(Debug)]
pub(super) struct Randoms {
    pub(super) storage: Random,
    pub(super) message: Random,
    pub(super) workload: Random,
    pub(super) guarded: Random,
    pub(super) side: Random,
    pub(super) operator: Random,
    pub(super) frames: Random,
    pub(super) hostile: Random,
    pub(super) lease: Random,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options) -> World {
        let profile = options.profile;
        let (settings, swarm, sources) = plan::begin(seed, options);
        let mut clocks = Random::stream(seed, Component::Clock, 0);
        let mut clock = || {
            let rate = 1.0 - DRIFT + 2.0 * DRIFT * clocks.unit();
            let shown = clocks.below(1_000 * SECOND);
            Clock::new(shown, if swarm.has(Class::C2) { rate } else { 1.0 })
        };
        let all = settings.servers + settings.operator.spares;
        let servers = (0..all).map(|n| Server::new(seed, n, clock(), &settings)).collect();
        // One more each for the users who come when all is healed, for the last scan, and when a majority is on its own.
        let clients = if profile == Profile::Full { settings.clients + 3 } else { 0 };
        let clients: Vec<Client> = (0..clients).map(|n| Client::new(seed, n, clock(), &settings)).collect();
        // And an operator's console, and an impostor.
        let nodes = all + clients.len() + 2;
        let stream = |component| Random::stream(seed, component, u64::MAX);
        World {
            seed,
            profile,
            now: 0,
            events: 0,
            hash: mix(seed, profile as u64),
            queue: BinaryHeap::new(),
            scheduled: 0,
            servers,
            clients,
            network: Network::new(seed, nodes, &settings, swarm.loss),
            checker: Checker::new(all),
            model: Model::new(settings.server_sessions, settings.server_window),
            completed: Index::ZERO,
            guarded: Guarded::default(),
            proposals: Proposals::new(seed),
            console: Console::default(),
            impostor: Impostor::default(),
            coverage: Coverage::default(),
            trace: Trace::new(options.trace),
            next_faults: vec![None; sources.len()],
            sources,
            struck: Vec::new(),
            active: BTreeMap::new(),
            left_out: BTreeSet::new(),
            next_ending: 0,
            deaf: BTreeMap::new(),
            faults_on: true,
            healed_at: None,
            usurping: None,
            quiet: false,
            randoms: Randoms {
                storage: stream(Component::Storage),
                message: stream(Component::Network),
                workload: stream(Component::Workload),
                guarded: stream(Component::Guarded),
                side: stream(Component::Side),
                operator: stream(Component::Operator),
                frames: stream(Component::Frames),
                hostile: stream(Component::Hostile),
                lease: stream(Component::Lease),
            },
            settings,
            swarm,
        }
    }

    pub(super) fn schedule(&mut self, time: Time, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { time: time.max(self.now), number: self.scheduled, event }));
    }

    pub(super) fn after(&mut self, wait: Time, event: Event) {
        self.schedule(self.now + wait, event);
    }

    /// Handles events until `done` says so, or `deadline` has passed. Whether `done` did.
    pub(super) fn run(&mut self, deadline: Time, done: impl Fn(&World) -> bool) -> Result<bool, Broken> {
        while !done(self) {
            match self.queue.peek() {
                Some(Reverse(next)) if next.time <= deadline => {}
                _ => {
                    self.now = self.now.max(deadline);
                    return Ok(done(self));
                }
            }
            let Some(Reverse(next)) = self.queue.pop() else { return Ok(false) };
            self.now = next.time;
            // A fault that strikes no more is no event: a plan without it must be as long.
            self.events += u64::from(!matches!(next.event, Event::Fault(_)));
            self.handle(next.event)?;
        }
        Ok(true)
    }

    /// Adds to the hash by which two runs are compared (I18).
    pub(super) fn note(&mut self, what: u64) {
        self.hash = mix(self.hash ^ what, self.now);
    }

    fn handle(&mut self, event: Event) -> Check {
        match event {
            Event::Network(connection, signal) => self.on_network(connection, signal),
            Event::Message(parcel) => self.on_message(*parcel),
            Event::Form(server, configuration) => self.on_form(server, *configuration),
            Event::Operate(step) => self.on_operate(step),
            Event::Mishap(Class::S2) => self.after_install(),
            Event::Mishap(_) => self.doze(),
            Event::Hostile => self.on_hostile(),
            Event::Link { at, other, up } => self.on_link(at, other, up),
            Event::Timer { node, epoch } if node < self.servers.len() => self.on_server_timer(node, epoch),
            Event::Timer { node, epoch } => self.on_client_timer(node - self.servers.len(), epoch),
            Event::Resume { server, epoch, emitted } => self.on_resume(server, epoch, emitted),
            Event::Wake { server, epoch } => self.on_wake(server, epoch),
            Event::Lane { server, epoch, lane, job } => self.on_lane(server, epoch, lane, job),
            Event::Think { client, epoch } => self.on_think(client, epoch),
            Event::Propose => self.on_propose(),
            Event::Burst(server) => self.propose(server, BURST),
            Event::Fault(source) => self.on_fault(source),
            Event::End(ending) => self.on_end(ending),
            Event::PowerCut { server, epoch, armed } => {
                self.on_power_cut(server, epoch, armed);
                Ok(())
            }
            Event::Relapse { server, epoch, seed } => {
                self.on_relapse(server, epoch, seed);
                Ok(())
            }
            Event::Room { server, epoch, lane } => self.on_room(server, epoch, lane),
            Event::Boot(server) => self.boot(server),
            Event::StartClient { client, epoch } if self.clients[client].epoch == epoch => {
                self.start_client(client)
            }
            Event::StartClient { .. } => Ok(()),
            Event::Usurp(server, seed) => self.usurp(server, seed),
            Event::Write(guard) => self.guarded.write(guard, &self.model, &mut self.coverage),
        }
    }

    fn on_network(&mut self, connection: ConnectionId, signal: Signal) -> Check {
        let servers = &self.servers;
        let reach = |node: Node| servers.get(node).map_or(Reach::Up, |server| server.reach);
        let told = self.network.signal(self.now, connection, signal, reach);
        self.settle_network();
        match told {
            Some((node, told)) => self.deliver(node, told),
            None => Ok(()),
        }
    }

    /// Schedules what the network asked for.
    pub(super) fn settle_network(&mut self) {
        for (time, connection, signal) in self.network.take_later() {
            self.schedule(time, Event::Network(connection, signal));
        }
    }

    /// Who leads in the highest term, if anyone does.
    pub(super) fn leader(&self) -> Option<Node> {
        let leads = |server: &&Server| server.raft().is_some_and(|raft| raft.role() == Role::Leader);
        let by_term = |server: &&Server| server.raft().map(atomix_raft::Raft::term);
        self.servers.iter().filter(leads).max_by_key(by_term).map(|server| server.number)
    }

    /// The parts of the world that a client's user works with.
    pub(super) fn client_and_shared(&mut self, client: usize) -> (&mut Client, Shared<'_>) {
        let shared = Shared {
            settings: &self.settings,
            model: &mut self.model,
            coverage: &mut self.coverage,
            completed: &mut self.completed,
            faults_on: self.faults_on,
        };
        (&mut self.clients[client], shared)
    }
}
