//! Settings of a server.

use std::time::Duration;

use atomix_protocol::{Address, MemberKind, limits};

/// Settings of a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Where it listens, which is also where its peers reach it. Port zero, over TCP, is for a server alone in its cluster.
    pub address: Address,
    /// Where clients reach it; the same address unless set.
    pub client_address: Option<Address>,
    /// The servers that form the cluster, this one among them (I2).
    pub bootstrap: Vec<Address>,
    /// Servers of a cluster that exists, which this one joins instead. On a member's directory they are only compared; one that
    /// was stopped on its way to its place goes on asking (R7).
    pub join: Vec<Address>,
    /// What it wants to be in the cluster that it joins: a voter, unless set. It is a learner first, until it has caught up.
    pub kind: MemberKind,
    /// Its priority in the cluster that it joins: greater is preferred as leader.
    pub priority: u8,
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest and longest election timeout.
    pub election_timeout: (Duration, Duration),
    /// A leader answers linearizable reads by itself while a majority has promised, for this long each time, to elect nobody else:
    /// sound as long as no clock runs more than 5 % faster or slower than real time. Zero, the default: each read asks a majority.
    /// At most the shortest election timeout of every server (R3).
    pub lease: Duration,
    /// Bounds of a session's timeout.
    pub session_timeouts: (Duration, Duration),
    /// Most bytes of one command or query.
    pub command_bytes: usize,
    /// A snapshot is due when the log since the last one is longer than this and than that snapshot (R6).
    pub snapshot_log_bytes: u64,
    /// Most events, and most bytes of them, that a session leaves unacknowledged: one that leaves more is given up and expires.
    pub outbox: (u64, u64),
    /// Most bytes of log kept in memory (R5).
    pub log_memory_bytes: u64,
    /// A connection attempt to a peer that takes longer is given up.
    pub connect_timeout: Duration,
    /// A connection whose other end leaves more bytes than this waiting is closed.
    pub link_bytes: usize,
    /// With that many connections, whoever connects is turned away.
    pub links: usize,
    /// Decides all jitter; drawn from the system unless set.
    pub seed: Option<u64>,
}

impl ServerOptions {
    /// Defaults, for a server at `address` that forms a cluster with those listed.
    pub fn new<A: Into<Address>>(
        address: impl Into<Address>,
        bootstrap: impl IntoIterator<Item = A>,
    ) -> Self {
        ServerOptions {
            address: address.into(),
            client_address: None,
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            join: Vec::new(),
            kind: MemberKind::Voter,
            priority: 0,
            heartbeat: limits::HEARTBEAT,
            election_timeout: limits::ELECTION_TIMEOUT,
            lease: Duration::ZERO,
            session_timeouts: (limits::SESSION_TIMEOUT_MIN, limits::SESSION_TIMEOUT_MAX),
            command_bytes: limits::COMMAND_BYTES,
            snapshot_log_bytes: limits::SNAPSHOT_LOG_BYTES,
            outbox: (limits::OUTBOX_EVENTS, limits::OUTBOX_BYTES),
            log_memory_bytes: limits::LOG_MEMORY_BYTES,
            connect_timeout: Duration::from_secs(2),
            link_bytes: 64 << 20,
            links: limits::SESSIONS + 464,
            seed: None,
        }
    }
}
