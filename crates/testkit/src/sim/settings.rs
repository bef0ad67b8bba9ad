//! What a seed draws before anything runs: the cluster, its limits, its clients.

use core::time::Duration;

use super::Profile;
use super::random::{Component, Random};
use super::versions::Beginning;
use super::wishes::Wishes;

/// Microseconds of simulated time.
pub(super) type Time = u64;

pub(super) const MILLISECOND: Time = 1_000;
pub(super) const SECOND: Time = 1_000_000;

/// Bound on how much faster or slower than real time a clock runs, as the cores under test assume it (ρ).
pub(super) const DRIFT: f64 = 0.05;

/// How often disks are harmed without regard to what is left.
const RECKLESS: f64 = 0.1;

/// The parameters of one run.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) servers: usize,
    pub(super) clients: usize,
    pub(super) heartbeat: Duration,
    pub(super) election_timeout: (Duration, Duration),
    pub(super) append_bytes: u64,
    pub(super) appends_in_flight: usize,
    pub(super) snapshot_chunk_bytes: usize,
    pub(super) log_memory_bytes: u64,
    pub(super) snapshot_log_bytes: u64,
    pub(super) segment_bytes: u64,
    pub(super) server_sessions: usize,
    pub(super) server_window: u64,
    /// Most bytes of a command that a server takes; clients would send more.
    pub(super) command_bytes: usize,
    pub(super) client_window: u64,
    pub(super) session_timeout: (Time, Time),
    pub(super) read_wait: Duration,
    pub(super) handshake_timeout: Duration,
    /// Mean pause of a client between two operations.
    pub(super) think: Time,
    /// How many operations a client starts at once, at most.
    pub(super) burst: u64,
    pub(super) keys: u64,
    pub(super) value_bytes: u64,
    /// A caller's patience with one operation; `None` for ever.
    pub(super) patience: Option<Time>,
    /// Network: shortest delay and mean of what comes on top.
    pub(super) latency: (Time, Time),
    /// Disk: shortest duration of a job and mean of what comes on top.
    pub(super) disk_latency: (Time, Time),
    /// A woken server takes all inputs of this span in one batch.
    pub(super) batch: Time,
    /// Extra bytes in the core profile's snapshots.
    pub(super) padding: usize,
    /// How long followers promise to keep to their leader; zero: no reads by lease (R3). Drawn from a stream of its own.
    pub(super) promise: Duration,
    /// Disks are harmed without regard to what is left: then only safety is owed. Drawn from a stream of its own.
    pub(super) reckless: bool,
    /// Which versions of the program servers begin with. Drawn from a stream of its own.
    pub(super) versions: Beginning,
    /// What users want.
    pub(super) demand: Demand,
    /// What operators want.
    pub(super) operator: Wishes,
}

/// What one user does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    /// Writes and reads the map.
    pub(super) writes: bool,
    /// Wants locks.
    pub(super) contends: bool,
    /// Watches the map.
    pub(super) watches: bool,
    /// Takes what it watches slowly out of a small queue.
    pub(super) slow: bool,
}

/// What users want of resources, and what servers grant them. Drawn from a stream of its own.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// By client.
    pub(super) roles: Vec<Role>,
    pub(super) locks: u64,
    /// Mean time for which a lock is held.
    pub(super) hold: Time,
    /// Longest wait for a lock that has a limit.
    pub(super) wait: Time,
    /// Probability that a user deletes something instead of using it.
    pub(super) deletes: f64,
    /// Nobody is killed or paused, and sessions outlast every outage.
    pub(super) calm: bool,
    /// Most events, and bytes of them, that a session may leave unacknowledged.
    pub(super) outbox: (u64, u64),
}

impl Demand {
    fn draw(seed: u64, clients: usize, session: Time) -> Demand {
        let mut r = Random::stream(seed, Component::Demand, 0);
        let calm = r.chance(0.4);
        let role = |r: &mut Random| {
            let kind = r.below(20);
            Role {
                writes: matches!(kind, 0..=5 | 15..),
                contends: matches!(kind, 6..=11 | 15..),
                watches: matches!(kind, 12..),
                slow: r.chance(0.3),
            }
        };
        let outbox =
            [(10_000, 16 << 20), (10_000, 16 << 20), (200, 16 << 20), (10_000, 4 << 10), (12, 1 << 20)];
        Demand {
            roles: (0..clients).map(|_| role(&mut r)).collect(),
            locks: r.range(1, 2),
            hold: r.scale(20 * MILLISECOND, 2 * session),
            wait: r.scale(50 * MILLISECOND, 3 * session),
            deletes: r.pick(&[0.0, 0.0, 0.0, 0.01]).unwrap_or(0.0),
            calm,
            outbox: r.pick(&outbox).unwrap_or(outbox[0]),
        }
    }

    /// One who comes when all is healed has a look at everything, and is told nothing for which it could be given up.
    pub(super) fn role(&self, client: usize) -> Role {
        let visitor = Role { writes: true, contends: true, watches: false, slow: false };
        self.roles.get(client).copied().unwrap_or(visitor)
    }
}

impl Settings {
    pub(super) fn draw(seed: u64, profile: Profile) -> Settings {
        let mut r = Random::stream(seed, Component::Settings, 0);
        let servers = r.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7]).unwrap_or(3);
        let heartbeat = r.range(20, 60) * MILLISECOND;
        let shortest = heartbeat * r.range(4, 8);
        let longest = shortest + r.range(shortest / 2, shortest);
        let append_bytes = r.pick(&[1 << 20, 1 << 20, 16 << 10, 1_024, 200]).unwrap_or(1 << 20);
        let value_bytes = r.pick(&[8, 16, 64, 256, 900]).unwrap_or(16);
        let snapshot_log_bytes = match r.below(4) {
            0 => 64 << 20,
            1 => r.scale(64 << 10, 512 << 10),
            _ => r.scale(2 << 10, 32 << 10),
        };
        let session = r.scale(200, 3_000) * MILLISECOND;
        let largest_segment = if r.chance(0.5) { 16 << 10 } else { 1 << 20 };
        let client_window = r.pick(&[2, 4, 16, 1_024]).unwrap_or(16);
        let clients = if profile == Profile::Full { r.range(1, 6) as usize } else { 0 };
        let demand = Demand::draw(seed, clients, session);
        let mut leases = Random::stream(seed, Component::Lease, 1);
        let promise = if leases.chance(0.3) { leases.range(shortest / 3, shortest) / 1_000 } else { 0 };
        let calm = demand.calm && profile == Profile::Full;
        let shortest_session = if calm { session.max(2_500 * MILLISECOND) } else { session };
        Settings {
            servers,
            clients,
            heartbeat: Duration::from_micros(heartbeat),
            election_timeout: (Duration::from_micros(shortest), Duration::from_micros(longest)),
            append_bytes,
            appends_in_flight: r.pick(&[1, 2, 8, 64]).unwrap_or(8) as usize,
            snapshot_chunk_bytes: r.pick(&[64, 512, 4_096, 1 << 20]).unwrap_or(4_096) as usize,
            log_memory_bytes: r.pick(&[64 << 20, 256 << 10, 16 << 10, 4 << 10]).unwrap_or(64 << 20),
            snapshot_log_bytes,
            segment_bytes: r.scale(4 << 10, largest_segment),
            server_sessions: r.pick(&[3, 64, 65_536, 65_536]).unwrap_or(64) as usize,
            server_window: 64 + client_window,
            command_bytes: r.pick(&[1 << 20, 1 << 20, 600]).unwrap_or(1 << 20) as usize,
            client_window,
            session_timeout: (shortest_session, shortest_session * r.range(1, 3)),
            read_wait: Duration::from_micros(r.scale(100, 3_000) * MILLISECOND),
            handshake_timeout: Duration::from_micros(r.range(300, 2_000) * MILLISECOND),
            think: r.scale(20, 250) * MILLISECOND,
            burst: r.pick(&[1, 1, 2, 6]).unwrap_or(1),
            keys: r.pick(&[1, 3, 12, 40]).unwrap_or(3),
            value_bytes,
            patience: r.pick(&[None, Some(500 * MILLISECOND), Some(3 * SECOND)]).flatten(),
            latency: (r.range(20, 300), r.scale(20, 3_000)),
            disk_latency: (r.range(20, 200), r.scale(50, 4_000)),
            batch: r.pick(&[0, 0, 100, 1_000]).unwrap_or(0),
            padding: r.pick(&[0, 0, 3_000, 20_000]).unwrap_or(0) as usize,
            promise: Duration::from_millis(promise),
            reckless: Random::stream(seed, Component::Decay, 0).chance(RECKLESS),
            versions: Beginning::draw(seed, profile),
            demand,
            operator: Wishes::draw(seed),
        }
    }

    /// The longest election timeout, as a server whose clock runs slowly has it.
    pub(super) fn longest_election(&self) -> Time {
        self.election_timeout.1.as_micros() as Time * 21 / 20
    }
}
