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
    pub election_timeout: (Duration, Duration),
    /// Most entry bytes in one AppendEntries; a single larger entry goes alone.
    pub append_bytes: u64,
    /// Most AppendEntries with entries in flight to one follower.
    pub appends_in_flight: usize,
    /// Most entry bytes in flight to one follower.
    pub append_bytes_in_flight: u64,
    /// Bytes of one InstallSnapshot chunk.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of log kept in memory (R5).
    pub log_memory_bytes: u64,
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
            log_memory_bytes: limits::LOG_MEMORY_BYTES,
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
        let zero = [
            ("heartbeat", self.heartbeat.is_zero()),
            ("append_bytes", self.append_bytes == 0),
            ("appends_in_flight", self.appends_in_flight == 0),
            ("append_bytes_in_flight", self.append_bytes_in_flight == 0),
            ("snapshot_chunk_bytes", self.snapshot_chunk_bytes == 0),
            ("log_memory_bytes", self.log_memory_bytes == 0),
        ];
        match zero.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(ConfigError::Zero(name)),
            None => Ok(()),
        }
    }
}
