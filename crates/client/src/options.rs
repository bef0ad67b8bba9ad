//! Settings of a client.

use std::time::Duration;

use atomix_protocol::{Address, ClientId, limits};

/// Settings of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Where servers may be reached: some of the cluster suffice. The others are learned from it, and asked first from then on.
    pub servers: Vec<Address>,
    /// The client's name across its sessions; drawn unless set (S10).
    pub client: Option<ClientId>,
    /// The session timeout wanted; the cluster may clamp it. After that much silence the session is ended.
    pub session_timeout: Duration,
    /// Longest wait for the session to open.
    pub connect_timeout: Duration,
    /// A single connection attempt that takes longer is given up, for another server.
    pub attempt_timeout: Duration,
    /// A handshake, or an attempt to open or attach the session on a connection, that takes longer is given up.
    pub handshake_timeout: Duration,
    /// After this long a command ends as unknown for its caller, and a query as timed out. `None`: never.
    pub operation_timeout: Option<Duration>,
    /// Most commands in flight (S2).
    pub window: u64,
    /// Room beside them for what is submitted from `Drop` (S2).
    pub reserve: u64,
    /// Most bytes of one command or query.
    pub command_bytes: usize,
    /// Bound on how much faster or slower than real time any clock runs (ρ).
    pub clock_drift: f64,
    /// Ask for sequential and causal reads at this server instead of the leader (Q4).
    pub read_from: Option<Address>,
}

impl ClientOptions {
    /// Defaults, for a cluster that is reached at these addresses.
    pub fn new<A: Into<Address>>(servers: impl IntoIterator<Item = A>) -> Self {
        ClientOptions {
            servers: servers.into_iter().map(Into::into).collect(),
            client: None,
            session_timeout: limits::SESSION_TIMEOUT,
            connect_timeout: limits::CONNECT_TIMEOUT,
            attempt_timeout: Duration::from_secs(2),
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            operation_timeout: Some(Duration::from_secs(30)),
            window: limits::COMMANDS_IN_FLIGHT,
            reserve: limits::COMMANDS_RESERVED,
            command_bytes: limits::COMMAND_BYTES,
            clock_drift: limits::CLOCK_DRIFT,
            read_from: None,
        }
    }
}
