//! Faults: the classes, which of them a seed has and how often, and the stream of single faults of each.
//!
//! Each class draws from a stream of its own, so that leaving one out shifts none of the others: a failing seed is made smaller by
//! leaving out classes.

use super::Profile;
use super::loss::Loss;
use super::random::{Component, Random};
use super::settings::{MILLISECOND, SECOND, Settings, Time};

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Loss, delay, reordering.
    N1,
    /// Duplicates and very late messages; of whole servers, whose links are ordered, only events that are sent again.
    N2,
    /// Symmetric partitions: one server isolated, or the cluster split.
    N3,
    /// One-way partitions.
    N4,
    /// Partial partitions: a few pairs are cut, others see both.
    N5,
    /// Bridges and rings of majorities.
    N6,
    /// Connections reset with the loss of what is in flight, false closures, half-open connections.
    N9,
    /// A connection stalls, then bursts.
    N10,
    /// A server process is killed and started again.
    P1,
    /// A server is killed again while it recovers, between two durable steps.
    P2,
    /// A server process is paused while time goes on.
    P3,
    /// All servers are killed or lose power at once.
    P9,
    /// A server loses power, and with it writes that were not synced.
    D1,
    /// Writes are torn at a sector or a byte.
    D2,
    /// Slow and hung disks.
    D13,
    /// Clocks drift against each other.
    C2,
    /// A whole machine is suspended, its disk with it.
    C3,
    /// A server comes back with an empty directory.
    M13,
    /// Servers are late while the cluster forms (rule I2; no fault of the list has this as its own).
    Late,
    /// A client's connection is cut: replies are lost, commands retried.
    S1,
    /// A client is killed: its session must expire.
    S7,
    /// A client is paused beyond its session's timeout.
    S8,
    /// A leader goes while it ends a session.
    S9,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 23] = [
        Class::N1,
        Class::N2,
        Class::N3,
        Class::N4,
        Class::N5,
        Class::N6,
        Class::N9,
        Class::N10,
        Class::P1,
        Class::P2,
        Class::P3,
        Class::P9,
        Class::D1,
        Class::D2,
        Class::D13,
        Class::C2,
        Class::C3,
        Class::M13,
        Class::Late,
        Class::S1,
        Class::S7,
        Class::S8,
        Class::S9,
    ];

    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::N1 => "loss, delay, reordering",
            Class::N2 => "duplicates, late messages",
            Class::N3 => "symmetric partitions",
            Class::N4 => "one-way partitions",
            Class::N5 => "partial partitions",
            Class::N6 => "bridges and rings",
            Class::N9 => "resets, half-open links",
            Class::N10 => "stalled links",
            Class::P1 => "process killed",
            Class::P2 => "killed while recovering",
            Class::P3 => "process paused",
            Class::P9 => "whole cluster down",
            Class::D1 => "power cut, unsynced lost",
            Class::D2 => "torn writes",
            Class::D13 => "slow and hung disks",
            Class::C2 => "clock drift",
            Class::C3 => "machine suspended",
            Class::M13 => "directory wiped",
            Class::Late => "late at bootstrap",
            Class::S1 => "client links cut",
            Class::S7 => "client killed",
            Class::S8 => "client paused",
            Class::S9 => "leader gone during an expiry",
        }
    }

    /// Whether it can happen in a profile.
    #[must_use]
    pub fn is_in(self, profile: Profile) -> bool {
        match self {
            Class::M13 | Class::Late | Class::S1 | Class::S7 | Class::S8 | Class::S9 => {
                profile == Profile::Full
            }
            _ => true,
        }
    }

    /// Whether it happens all the time rather than now and then.
    pub(super) const fn is_constant(self) -> bool {
        matches!(self, Class::N1 | Class::N2 | Class::D2 | Class::P2 | Class::Late | Class::S9)
    }
}

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Server(usize),
    /// Whoever leads, if anyone does; else that server.
    Leader(usize),
}

/// The shape of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// One server alone.
    Isolate,
    /// Two sides.
    Split,
    /// The victim and as many others as are no majority; then one of these alone, while the leader of the rest sleeps.
    Moving,
    /// The victim is heard by nobody.
    Mute,
    /// The victim hears nobody.
    Deaf,
    /// Some directed links.
    Directed,
    /// Some pairs.
    Pairs,
    /// Two sides and one server that sees both.
    Bridge,
    /// Each server sees only its neighbours, which with it are a majority where that can be.
    Ring,
}

/// One fault.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Cut { class: Class, shape: Shape, victim: Target, with_clients: bool, lasts: Time },
    Reset { victim: Target, half_open: bool },
    Clog { victim: Target, lasts: Time },
    Crash { class: Class, victim: Target, loss: Loss, silent: bool, down: Time },
    CrashAll { loss: Loss, down: Time, stagger: Time },
    Pause { class: Class, victim: Target, lasts: Time },
    Disk { victim: Target, slower: Option<u64>, lasts: Time },
    Drift { victim: Target, rate: f64 },
    Wipe { victim: Target, down: Time },
    CutClient { client: usize },
    KillClient { client: usize, down: Time },
    PauseClient { client: usize, lasts: Time },
}

/// What a seed draws of faults.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) classes: Vec<Class>,
    /// Probability that a message is lost or delayed far (N1), and that it comes twice (N2).
    pub(super) loss: f64,
    pub(super) duplicates: f64,
    /// Probability that a crash comes while a server recovers (P2).
    pub(super) recovery_crash: f64,
    streams: Vec<Stream>,
}

/// The faults of one class.
#[derive(Clone, Debug)]
struct Stream {
    class: Class,
    mean: Time,
}

impl Swarm {
    pub(super) fn draw(seed: u64, profile: Profile, settings: &Settings, without: &[Class]) -> Swarm {
        let mut r = Random::stream(seed, Component::Swarm, 0);
        let mut possible: Vec<Class> = Class::ALL.into_iter().filter(|class| class.is_in(profile)).collect();
        match r.below(20) {
            0 => possible.clear(),
            1 | 2 => {
                let only = r.pick(&possible);
                possible.retain(|class| Some(*class) == only);
            }
            draw => {
                let share = if draw < 10 { 0.3 } else { 0.7 };
                possible.retain(|_| r.chance(share));
            }
        }
        let loss = r.pick(&[0.002, 0.02, 0.1, 0.3]).unwrap_or(0.02);
        let duplicates = r.pick(&[0.02, 0.2, 0.5]).unwrap_or(0.1);
        let mut streams = Vec::new();
        for class in Class::ALL {
            // Drawn for all, so that leaving one out shifts nothing.
            let mean = r.scale(400, 8_000) * MILLISECOND;
            if possible.contains(&class) && !class.is_constant() && !without.contains(&class) {
                streams.push(Stream { class, mean });
            }
        }
        if profile == Profile::Full && settings.demand.calm {
            possible.retain(|class| !matches!(class, Class::S7 | Class::S8));
            streams.retain(|stream| !matches!(stream.class, Class::S7 | Class::S8));
        }
        possible.retain(|class| !without.contains(class));
        let has = |class| possible.contains(&class);
        Swarm {
            loss: if has(Class::N1) { loss } else { 0.0 },
            duplicates: if has(Class::N2) { duplicates } else { 0.0 },
            recovery_crash: if has(Class::P2) { 0.3 } else { 0.0 },
            classes: possible,
            streams,
        }
    }

    pub(super) fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    /// One generator per class of single faults.
    pub(super) fn generators(&self, seed: u64) -> Vec<Generator> {
        let start = |stream: &Stream| Generator {
            class: stream.class,
            mean: stream.mean,
            random: Random::stream(seed, Component::Fault, stream.class as u64),
        };
        self.streams.iter().map(start).collect()
    }
}

/// Draws the faults of one class, one after the other.
#[derive(Debug)]
pub(super) struct Generator {
    class: Class,
    mean: Time,
    random: Random,
}

impl Generator {
    /// How long until the next one.
    pub(super) fn wait(&mut self) -> Time {
        self.random.exponential(self.mean) + MILLISECOND
    }

    /// The next one.
    pub(super) fn draw(&mut self, settings: &Settings) -> Fault {
        let election = settings.longest_election();
        let r = &mut self.random;
        let server = r.below(settings.servers as u64) as usize;
        let victim = if r.chance(0.5) { Target::Leader(server) } else { Target::Server(server) };
        let client = r.below(settings.clients.max(1) as u64) as usize;
        // From a blink to several elections.
        let lasts = r.scale(10 * MILLISECOND, 8 * election);
        let down = r.scale(5 * MILLISECOND, 4 * election);
        let loss = if r.chance(0.5) { Loss::Power } else { Loss::Process };
        let with_clients = r.chance(0.5);
        let silent = r.chance(0.4);
        let session = settings.session_timeout.1;
        match self.class {
            Class::N3 => {
                let shape = pick(r, &[Shape::Isolate, Shape::Split, Shape::Moving, Shape::Moving]);
                // One that moves must last until there is another leader.
                let (victim, lasts) = match shape {
                    Shape::Moving => (Target::Leader(server), r.range(election, 4 * election)),
                    _ => (victim, lasts),
                };
                Fault::Cut { class: self.class, shape, victim, with_clients, lasts }
            }
            Class::N4 => {
                let shape = pick(r, &[Shape::Mute, Shape::Deaf, Shape::Directed]);
                Fault::Cut { class: self.class, shape, victim, with_clients, lasts }
            }
            Class::N5 => {
                Fault::Cut { class: self.class, shape: Shape::Pairs, victim, with_clients: false, lasts }
            }
            Class::N6 => Fault::Cut {
                class: self.class,
                shape: pick(r, &[Shape::Bridge, Shape::Ring]),
                victim,
                with_clients: false,
                lasts,
            },
            Class::N9 => Fault::Reset { victim, half_open: silent },
            Class::N10 => Fault::Clog { victim, lasts },
            Class::P1 => Fault::Crash { class: Class::P1, victim, loss: Loss::Process, silent: false, down },
            Class::P9 => Fault::CrashAll { loss, down, stagger: r.below(2 * election) },
            Class::D1 => Fault::Crash { class: Class::D1, victim, loss: Loss::Power, silent, down },
            Class::P3 | Class::C3 => Fault::Pause { class: self.class, victim, lasts },
            Class::D13 => {
                let slower = if r.chance(0.6) { Some(r.scale(10, 1_000)) } else { None };
                Fault::Disk { victim, slower, lasts }
            }
            Class::C2 => {
                let half = super::settings::DRIFT / 2.0;
                Fault::Drift { victim: Target::Server(server), rate: 1.0 - half + 2.0 * half * r.unit() }
            }
            Class::M13 => Fault::Wipe { victim, down },
            Class::S1 => Fault::CutClient { client },
            Class::S7 => Fault::KillClient { client, down: down + r.below(session) },
            Class::S8 => {
                Fault::PauseClient { client, lasts: r.scale(session / 8, 2 * session + SECOND / 10) }
            }
            Class::N1 | Class::N2 | Class::D2 | Class::P2 | Class::Late | Class::S9 => {
                unreachable!("{:?} is constant and has no single faults", self.class)
            }
        }
    }
}

fn pick(r: &mut Random, of: &[Shape]) -> Shape {
    r.pick(of).unwrap_or(Shape::Isolate)
}

/// The directed links, from and to, that a partition of this shape cuts among `servers`, in the order in which these are drawn.
pub(super) fn cut_links(
    shape: Shape,
    servers: usize,
    victim: usize,
    random: &mut Random,
) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..servers).filter(|server| *server != victim).collect();
    random.shuffle(&mut order);
    order.insert(0, victim);
    let place = |server: usize| order.iter().position(|at| *at == server).unwrap_or(0);
    // Of all sides that the victim can be on, the largest without a majority is the most telling.
    let minority = (servers.max(3) - 1) / 2;
    let others = minority.max(2) - 1;
    let side =
        if random.chance(0.5) { minority } else { random.range(1, (servers as u64).max(2) - 1) as usize };
    let half = servers / 2;
    let mut drawn: Vec<bool> = (0..servers * servers).map(|_| random.chance(0.3)).collect();
    if !drawn.iter().any(|cut| *cut) {
        drawn.fill(true);
    }
    let is_cut = |from: usize, to: usize| {
        let (a, b) = (place(from), place(to));
        let (low, high) = (a.min(b), a.max(b));
        match shape {
            Shape::Isolate => low == 0,
            Shape::Moving => (a <= others) != (b <= others),
            Shape::Split => (a < side) != (b < side),
            Shape::Mute => a == 0,
            Shape::Deaf => b == 0,
            Shape::Directed => drawn[from * servers + to],
            Shape::Pairs => drawn[low * servers + high],
            // The victim is the bridge.
            Shape::Bridge => low != 0 && (a <= half) != (b <= half),
            Shape::Ring => {
                let distance = (high - low).min(servers - (high - low));
                distance > servers.div_ceil(4)
            }
        }
    };
    let pairs = (0..servers).flat_map(|from| (0..servers).map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to && is_cut(*from, *to)).collect()
}
