//! A simulated server: its machine, its process, and what of it survives.

use std::collections::VecDeque;
use std::time::Duration;

use atomix_engine::{Engine, Input as EngineInput, Marks as EngineMarks};
use atomix_protocol::{
    Address, BootNonce, ClusterId, Configuration, Incarnation, Index, LinkId, LocalTime, Member, MemberKind,
    ServerId,
};
use atomix_raft::{Input as RaftInput, Marks as RaftMarks, Raft};
use atomix_storage::StorageError;

use super::Profile;
use super::bare::{Bare, Emitted};
use super::checker::id_of;
use super::clock::Clock;
use super::damage::Scars;
use super::disk::{Job, SimDisk};
use super::faults::Class;
use super::ills::Ills;
use super::loss::Loss;
use super::network::Reach;
use super::random::{Component, Random};
use super::settings::{Settings, Time};
use super::storage::{Found, Moment, Threads};
use super::strangers::Stranger;
use super::versions::Version;

/// What reaches a server.
#[derive(Debug)]
pub(super) enum Input {
    /// What any server can be told.
    Common(EngineInput),
    /// What only bare consensus is told by the world.
    Raft(RaftInput),
}

/// The decider under test.
pub(super) enum Machine {
    Full(Box<Engine>),
    Core(Box<Bare>),
}

/// A running process.
pub(super) struct Process {
    pub(super) machine: Machine,
    pub(super) threads: Threads,
    /// When its next tick is scheduled.
    pub(super) timer: Option<Time>,
    /// Whether its inbox will be looked at.
    pub(super) wake: bool,
    /// Ticks in a row without progress of time.
    pub(super) spins: u32,
    pub(super) raft_marks: RaftMarks,
    pub(super) engine_marks: EngineMarks,
}

/// How a server will go down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed {
    pub(super) class: Class,
    /// In the middle of that.
    pub(super) moment: Moment,
    pub(super) loss: Loss,
    /// The machine answers nothing any more.
    pub(super) silent: bool,
    /// Comes back after so long.
    pub(super) down: Time,
    pub(super) seed: u64,
}

/// A server: what survives its processes, and its process, if it runs.
pub(super) struct Server {
    pub(super) number: usize,
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
    /// Counts processes.
    pub(super) epoch: u32,
    pub(super) process: Option<Process>,
    pub(super) reach: Reach,
    pub(super) inbox: VecDeque<Input>,
    /// Reasons for which the process stands still.
    pub(super) paused: u32,
    /// Reasons for which its disk does.
    pub(super) hung: u32,
    /// How many times slower its disk is.
    pub(super) slower: u64,
    pub(super) wiped: bool,
    /// The version of the program that runs, or will run next.
    pub(super) version: Version,
    /// The data directory, as bare consensus' members know it; a whole server draws its own.
    pub(super) incarnation: Incarnation,
    /// What bare consensus was given when it joined. Durable.
    pub(super) given: Option<Configuration>,
    /// Who it was when it was last seen, with this directory.
    pub(super) id: Option<ServerId>,
    /// Whether it asks to be taken in: it was no founder, or lost its directory.
    pub(super) joins: bool,
    /// What it wants to be then.
    pub(super) wants: MemberKind,
    /// Whether it was receiving a snapshot when it was last seen.
    pub(super) receives: bool,
    /// Goes down in the middle of something.
    pub(super) armed: Option<Armed>,
    /// Whether its next start is cut short is drawn from what killed it.
    pub(super) rising: Option<Random>,
    pub(super) ills: Ills,
    pub(super) scars: Scars,
    /// It has a directory of another cluster.
    pub(super) stranger: Option<Box<Stranger>>,
    next_job: Job,
    boot: Random,
}

pub(super) fn address_of(server: usize) -> Address {
    Address::new(format!("s{}", server + 1))
}

pub(super) fn server_at(address: &Address) -> Option<usize> {
    address.as_str().strip_prefix('s')?.parse::<usize>().ok()?.checked_sub(1)
}

impl Server {
    pub(super) fn new(seed: u64, number: usize, clock: Clock, settings: &Settings) -> Self {
        let founder = number < settings.servers;
        Server {
            number,
            disk: SimDisk::default(),
            clock,
            epoch: 0,
            process: None,
            reach: Reach::Refuses,
            inbox: VecDeque::new(),
            paused: 0,
            hung: 0,
            slower: 1,
            wiped: false,
            version: settings.versions.of(number),
            incarnation: Incarnation(number as u128 + 1),
            given: founder.then(|| configuration(settings.servers)),
            id: None,
            receives: false,
            joins: !founder,
            wants: wanted(seed, number),
            armed: None,
            rising: None,
            ills: Ills::default(),
            scars: Scars::default(),
            stranger: None,
            next_job: 1,
            boot: Random::stream(seed, Component::Boot, number as u64),
        }
    }

    /// Opens the disk for a start.
    pub(super) fn open_disk(&mut self, settings: &Settings) -> Result<(Threads, Found, Job), StorageError> {
        let job = self.next_job;
        self.next_job += 1;
        Threads::open(&self.disk, settings.segment_bytes, job).map(|(threads, found)| (threads, found, job))
    }

    /// The process comes up.
    pub(super) fn start(
        &mut self,
        now: Time,
        profile: Profile,
        settings: &Settings,
        threads: Threads,
        found: Found,
    ) -> Result<(), String> {
        let local = self.clock.read(now);
        let machine = match profile {
            Profile::Full => Machine::Full(Box::new(self.engine(local, settings, found)?)),
            Profile::Core => match self.bare(local, settings, found) {
                Some(bare) => Machine::Core(Box::new(bare)),
                // It waits for a configuration with its directory in it (I1).
                None => return Ok(()),
            },
        };
        self.epoch += 1;
        self.reach = Reach::Up;
        self.inbox.clear();
        self.process = Some(Process {
            machine,
            threads,
            timer: None,
            wake: false,
            spins: 0,
            raft_marks: RaftMarks::default(),
            engine_marks: EngineMarks::default(),
        });
        Ok(())
    }

    fn raft_config(settings: &Settings) -> atomix_raft::Config {
        atomix_raft::Config {
            heartbeat: settings.heartbeat,
            election_timeout: settings.election_timeout,
            append_bytes: settings.append_bytes,
            appends_in_flight: settings.appends_in_flight,
            append_bytes_in_flight: 8 << 20,
            snapshot_chunk_bytes: settings.snapshot_chunk_bytes,
            snapshot_bytes_in_flight: 4 * settings.snapshot_chunk_bytes as u64,
            // Seldom any: who is served from the tail needs no snapshot.
            log_tail_bytes: if settings.snapshot_log_bytes.is_multiple_of(4) {
                settings.snapshot_log_bytes / 4
            } else {
                0
            },
            log_memory_bytes: settings.log_memory_bytes,
            promise: settings.promise,
            ..atomix_raft::Config::default()
        }
    }

    fn engine(&mut self, now: LocalTime, settings: &Settings, found: Found) -> Result<Engine, String> {
        let founders = (0..settings.servers).map(address_of).collect();
        let mut options = atomix_engine::Options::new(address_of(self.number), founders);
        if self.joins {
            let others = (0..settings.servers + settings.operator.spares).filter(|n| *n != self.number);
            options.join = others.map(address_of).collect();
            options.bootstrap = Vec::new();
            options.kind = self.wants;
        }
        options.raft = Self::raft_config(settings);
        options.handshake_timeout = settings.handshake_timeout;
        options.read_wait = settings.read_wait;
        options.session_timeouts = (Duration::from_millis(200), Duration::from_secs(60));
        options.sessions = settings.server_sessions;
        options.window = settings.server_window;
        (options.outbox_events, options.outbox_bytes) = settings.demand.outbox;
        options.command_bytes = settings.command_bytes;
        options.snapshot_log_bytes = self.ills.snapshot_bytes(settings.snapshot_log_bytes);
        options.fresh_incarnation = Incarnation(self.boot.token());
        options.fresh_cluster = ClusterId(self.boot.token());
        options.boot_nonce = BootNonce(self.boot.next());
        options.seed = self.boot.next();
        let recovered = atomix_engine::Recovered {
            identity: found.recovered.identity,
            hard_state: found.recovered.hard_state,
            configuration: found.recovered.configuration,
            abstention: found.recovered.abstention,
            damage: found.recovered.damage.clone(),
            snapshot: found.recovered.snapshot.zip(found.snapshot),
            entries: found.entries,
        };
        let registry = Box::new(self.version.registry());
        Engine::new(options, recovered, registry, now).map_err(|error| error.to_string())
    }

    fn bare(&mut self, now: LocalTime, settings: &Settings, found: Found) -> Option<Bare> {
        let configuration = found.recovered.configuration.or_else(|| self.given.clone())?;
        let id = configuration.member_by_incarnation(self.incarnation)?.id;
        let recovered = atomix_raft::Recovered {
            hard_state: found.recovered.hard_state,
            configuration,
            snapshot: found.recovered.snapshot,
            entries: found.entries,
            abstention: found.recovered.abstention,
        };
        let seed = self.boot.next();
        let snapshot_log_bytes = self.ills.snapshot_bytes(settings.snapshot_log_bytes);
        let raft = Raft::new(Self::raft_config(settings), id, recovered, seed, now);
        Some(Bare::new(raft, found.snapshot.as_ref(), snapshot_log_bytes, settings.padding))
    }

    /// Whether anybody ever started it.
    pub(super) fn has_begun(&self) -> bool {
        !self.joins || self.epoch > 0 || self.given.is_some()
    }

    /// The directory is emptied: what comes up next is another server.
    pub(super) fn wipe(&mut self) {
        self.disk.wipe();
        self.scars = Scars::default();
        self.stranger = None;
        self.wiped = true;
        self.incarnation = Incarnation(self.boot.token());
        self.given = None;
        self.id = None;
        self.receives = false;
        self.joins = true;
    }

    /// The process is gone.
    pub(super) fn stop(&mut self, reach: Reach) {
        if let Some(process) = self.process.take() {
            self.next_job = process.threads.next_job();
        }
        self.inbox.clear();
        self.reach = reach;
    }

    pub(super) fn raft(&self) -> Option<&Raft> {
        if self.stranger.is_some() { None } else { self.process.as_ref()?.machine.raft() }
    }

    /// The configuration in use, if its process takes part in this cluster.
    pub(super) fn configuration(&self) -> Option<&Configuration> {
        self.raft().map(Raft::configuration)
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some() && self.paused == 0
    }
}

/// What most want is to vote.
fn wanted(seed: u64, number: usize) -> MemberKind {
    let kinds =
        [MemberKind::Voter, MemberKind::Voter, MemberKind::Voter, MemberKind::Learner, MemberKind::Reserve];
    let mut random = Random::stream(seed, Component::Operator, number as u64 + 1);
    random.pick(&kinds).unwrap_or(MemberKind::Voter)
}

/// The configuration of a cluster that was formed before time began.
pub(super) fn configuration(servers: usize) -> Configuration {
    let member = |server: usize| Member {
        id: id_of(server),
        incarnation: Incarnation(server as u128 + 1),
        peer_address: address_of(server),
        client_address: address_of(server),
        kind: MemberKind::Voter,
        priority: 0,
    };
    Configuration {
        cluster: ClusterId(1),
        index: Index::ZERO,
        members: (0..servers).map(member).collect(),
        outgoing_voters: None,
        next_server_id: servers as u64 + 1,
    }
}

impl Machine {
    pub(super) fn raft(&self) -> Option<&Raft> {
        match self {
            Machine::Full(engine) => engine.raft(),
            Machine::Core(bare) => Some(bare.raft()),
        }
    }

    pub(super) fn step(&mut self, now: LocalTime, input: Input) {
        match (self, input) {
            (Machine::Full(engine), Input::Common(input)) => engine.step(now, input),
            (Machine::Core(bare), Input::Common(input)) => bare.answer(now, input),
            (Machine::Core(bare), Input::Raft(input)) => bare.step(now, input),
            (Machine::Full(_), Input::Raft(_)) => {
                unreachable!("a whole server has its messages from its links")
            }
        }
    }

    pub(super) fn drain(&mut self, now: LocalTime) -> Vec<Emitted> {
        match self {
            Machine::Full(engine) => engine.drain(now).into_iter().map(Emitted::Common).collect(),
            Machine::Core(bare) => bare.drain(now),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<LocalTime> {
        match self {
            Machine::Full(engine) => engine.next_deadline(),
            Machine::Core(bare) => bare.raft().next_deadline(),
        }
    }

    /// A name for a connection that was accepted; `None` if this machine takes none.
    pub(super) fn accept(&mut self) -> Option<LinkId> {
        match self {
            Machine::Full(engine) => Some(engine.accept()),
            Machine::Core(_) => None,
        }
    }
}
