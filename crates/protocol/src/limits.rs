//! The defaults of every limit (docs/protocol.md, N). Each is a setting somewhere above; these are the numbers.

use core::time::Duration;

/// Most voters of a cluster (R1).
pub const VOTERS: usize = 7;
/// Most members, whatever they are. Each costs every other member two links, and a line in every configuration.
pub const MEMBERS: usize = 64;
/// Longest address: a host name has at most 253 bytes. A configuration with all its members then fits in any frame.
pub const ADDRESS_BYTES: usize = 512;
/// Most kinds of resources that a server's binary has, as other servers take it (M3).
pub const KINDS: usize = 1_024;
/// Between two heartbeats of a leader.
pub const HEARTBEAT: Duration = Duration::from_millis(50);
/// Shortest and longest election timeout; each timer draws from between.
pub const ELECTION_TIMEOUT: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(600));
/// A session's timeout, and its bounds.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest session timeout a server grants.
pub const SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(200);
/// Longest session timeout a server grants.
pub const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bound on how much faster or slower than real time any clock runs (ρ).
pub const CLOCK_DRIFT: f64 = 0.05;
/// The same, in millionths.
pub const CLOCK_DRIFT_PPM: u32 = 50_000;
/// A handshake that takes longer is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection attempt that takes longer is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest frame.
pub const FRAME_BYTES: usize = 4 << 20;
/// Longest command or query body.
pub const COMMAND_BYTES: usize = 1 << 20;
/// Longest key.
pub const KEY_BYTES: usize = 64 << 10;
/// Longest path.
pub const PATH_BYTES: usize = 512;
/// Most entry bytes in one AppendEntries (a single larger entry goes alone).
pub const APPEND_BYTES: u64 = 1 << 20;
/// Most AppendEntries in flight to one follower.
pub const APPENDS_IN_FLIGHT: usize = 64;
/// Most entry bytes in flight to one follower.
pub const APPEND_BYTES_IN_FLIGHT: u64 = 8 << 20;
/// Bytes of one InstallSnapshot chunk.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Most snapshot bytes in flight to one follower.
pub const SNAPSHOT_BYTES_IN_FLIGHT: u64 = 2 << 20;
/// Most commands of one session in flight (S2).
pub const COMMANDS_IN_FLIGHT: u64 = 1_024;
/// Room kept beside them for releases and cancels sent from `Drop` (S2).
pub const COMMANDS_RESERVED: u64 = 64;
/// Most events that a session leaves unacknowledged (E3).
pub const OUTBOX_EVENTS: u64 = 10_000;
/// Most bytes of them.
pub const OUTBOX_BYTES: u64 = 16 << 20;
/// Most bytes of the different events that one entry publishes to one session: they travel in one frame.
pub const EVENT_BYTES: usize = 3 << 20;
/// Most events that wait in the queue of one handle's stream; beyond them it has lagged (E3).
pub const HANDLE_QUEUE: usize = 1_024;
/// Most who wait for one lock.
pub const LOCK_WAITERS: usize = 10_000;
/// Most open sessions.
pub const SESSIONS: usize = 65_536;
/// Bytes of log that consensus keeps in memory (R5).
pub const LOG_MEMORY_BYTES: u64 = 64 << 20;
/// Bytes of entries kept before the newest snapshot's index for followers that are a little behind (R6).
pub const LOG_TAIL_BYTES: u64 = 16 << 20;
/// Size of a log segment file.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// A snapshot is due when the log since the last one is longer than this and than that snapshot (R6).
pub const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;
/// The port of a stand-alone server.
pub const PORT: u16 = 8_700;
/// A read waits at most this long for the indexes of Q1.
pub const READ_WAIT: Duration = Duration::from_secs(5);
