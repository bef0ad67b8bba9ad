//! Settings of one server.

use core::time::Duration;

use atomix_protocol::{Address, BootNonce, ClusterId, Incarnation, MemberKind, limits};

/// Settings of one server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens, as its peers reach it.
    pub address: Address,
    /// Where clients reach it; usually the same.
    pub client_address: Address,
    /// The servers that form the cluster, this one among them (I2).
    pub bootstrap: Vec<Address>,
    /// Servers of the cluster that it asks to be taken in, until it has been what it wants to be; also after a restart, if its directory
    /// shows that it never was (R7). Instead of `bootstrap`.
    pub join: Vec<Address>,
    /// What it wants to be in the cluster that it joins.
    pub kind: MemberKind,
    /// Its priority there.
    pub priority: u8,
    /// Consensus.
    pub raft: atomix_raft::Config,
    /// Longest handshake.
    pub handshake_timeout: Duration,
    /// Longest wait of a read for the indexes of Q1.
    pub read_wait: Duration,
    /// Bounds of a session's timeout.
    pub session_timeouts: (Duration, Duration),
    /// Most open sessions. Decides what replicas do with an entry: the same on every server of a cluster, so no user sets it.
    pub sessions: usize,
    /// Most commands of one session in flight (S2), with the reserve. The same on every server, as above.
    pub window: u64,
    /// Most events that a session leaves unacknowledged; beyond them it is given up (E3).
    pub outbox_events: u64,
    /// Most bytes of them.
    pub outbox_bytes: u64,
    /// Most bytes of one command or query.
    pub command_bytes: usize,
    /// A snapshot is due when the log since the last one is longer than this and than that snapshot (R6).
    pub snapshot_log_bytes: u64,
    /// Drawn by the driver: the incarnation of a fresh directory (I1).
    pub fresh_incarnation: Incarnation,
    /// Drawn by the driver: the cluster id, should this server form one (I2).
    pub fresh_cluster: ClusterId,
    /// Drawn by the driver at each start (I5).
    pub boot_nonce: BootNonce,
    /// Drawn by the driver: decides all jitter.
    pub seed: u64,
}

impl Options {
    /// Defaults (docs/protocol.md, N) for a server at `address`. The drawn values are zero: the driver sets them.
    #[must_use]
    pub fn new(address: Address, bootstrap: Vec<Address>) -> Self {
        Options {
            client_address: address.clone(),
            address,
            bootstrap,
            join: Vec::new(),
            kind: MemberKind::Voter,
            priority: 0,
            raft: atomix_raft::Config::default(),
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            read_wait: limits::READ_WAIT,
            session_timeouts: (limits::SESSION_TIMEOUT_MIN, limits::SESSION_TIMEOUT_MAX),
            sessions: limits::SESSIONS,
            window: limits::COMMANDS_IN_FLIGHT + limits::COMMANDS_RESERVED,
            outbox_events: limits::OUTBOX_EVENTS,
            outbox_bytes: limits::OUTBOX_BYTES,
            command_bytes: limits::COMMAND_BYTES,
            snapshot_log_bytes: limits::SNAPSHOT_LOG_BYTES,
            fresh_incarnation: Incarnation(0),
            fresh_cluster: ClusterId(0),
            boot_nonce: BootNonce(0),
            seed: 0,
        }
    }
}
