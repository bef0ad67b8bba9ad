//! Timeouts and limits, validated once.

use core::time::Duration;

use atomix_protocol::limits;
use thiserror::Error;

/// Timeouts and limits of one server's consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Shortest and longest election timeout; each timer draws from between.
    ///
    /// A process takes the shortest for the longest promise that the one before it may have made (R3). So where leases are on, the
    /// shortest is lowered in two steps: first [`Config::promise`] on all servers, to the new value or below, then this.
    pub election_timeout: (Duration, Duration),
    /// Most entry bytes in one AppendEntries; a single larger entry goes alone.
    pub append_bytes: u64,
    /// Most AppendEntries with entries in flight to one follower.
    pub appends_in_flight: usize,
    /// Most entry bytes in flight to one follower.
    pub append_bytes_in_flight: u64,
    /// Bytes of one InstallSnapshot chunk.
    pub snapshot_chunk_bytes: usize,
    /// Most snapshot bytes in flight to one follower; one chunk at least. Heartbeats on the same link wait behind them.
    pub snapshot_bytes_in_flight: u64,
    /// Bytes of log kept in memory (R5).
    pub log_memory_bytes: u64,
    /// Bytes of entries kept before the newest snapshot's index for followers that are a little behind (R6), as far as memory still
    /// holds them when the snapshot is published.
    pub log_tail_bytes: u64,
    /// For so long after an acknowledged heartbeat followers grant no vote, so that the leader may answer reads by itself (R3).
    /// Zero: no lease. At most the shortest election timeout, of the other servers too: who has a shorter one makes no promise, and
    /// without those of a quorum there is no lease, and reads take rounds.
    pub promise: Duration,
    /// Bound on how much faster or slower than real time any clock runs, in millionths (ρ).
    pub drift_ppm: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            heartbeat: limits::HEARTBEAT,
            election_timeout: limits::ELECTION_TIMEOUT,
            append_bytes: limits::APPEND_BYTES,
            appends_in_flight: limits::APPENDS_IN_FLIGHT,
            append_bytes_in_flight: limits::APPEND_BYTES_IN_FLIGHT,
            snapshot_chunk_bytes: limits::SNAPSHOT_CHUNK_BYTES,
            snapshot_bytes_in_flight: limits::SNAPSHOT_BYTES_IN_FLIGHT,
            log_memory_bytes: limits::LOG_MEMORY_BYTES,
            log_tail_bytes: limits::LOG_TAIL_BYTES,
            promise: Duration::ZERO,
            drift_ppm: limits::CLOCK_DRIFT_PPM,
        }
    }
}

/// Why a [`Config`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Heartbeats must be at least twice as frequent as the shortest election timeout.
    #[error("the heartbeat must be at most half of the shortest election timeout")]
    HeartbeatTooSlow,
    /// The shortest election timeout must be below the longest.
    #[error("the shortest election timeout must be below the longest")]
    EmptyElectionRange,
    /// A promise must end before its maker may campaign.
    #[error("a lease must be at most the shortest election timeout: the promises it rests on last no longer")]
    PromiseTooLong,
    /// A clock that may stand still measures nothing.
    #[error("the bound on clock drift must be below 1,000,000 millionths")]
    DriftTooLarge,
    /// A limit of zero.
    #[error("a limit must not be zero: {0}")]
    Zero(&'static str),
}

impl Config {
    /// Checks that the values go together.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.heartbeat * 2 > self.election_timeout.0 {
            return Err(ConfigError::HeartbeatTooSlow);
        }
        if self.election_timeout.0 >= self.election_timeout.1 {
            return Err(ConfigError::EmptyElectionRange);
        }
        if self.promise > self.election_timeout.0 {
            return Err(ConfigError::PromiseTooLong);
        }
        if self.drift_ppm >= 1_000_000 {
            return Err(ConfigError::DriftTooLarge);
        }
        let zero = [
            ("heartbeat", self.heartbeat.is_zero()),
            ("append_bytes", self.append_bytes == 0),
            ("appends_in_flight", self.appends_in_flight == 0),
            ("append_bytes_in_flight", self.append_bytes_in_flight == 0),
            ("snapshot_chunk_bytes", self.snapshot_chunk_bytes == 0),
            ("snapshot_bytes_in_flight", self.snapshot_bytes_in_flight == 0),
            ("log_memory_bytes", self.log_memory_bytes == 0),
        ];
        match zero.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(ConfigError::Zero(name)),
            None => Ok(()),
        }
    }
}
