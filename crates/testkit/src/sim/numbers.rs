//! Settings by name, so that a plan can say them: it means the same when seeds draw other settings one day.

use std::time::Duration;

use super::settings::{Settings, Time};

/// A setting as a number.
trait Number {
    fn number(&self) -> u64;
    fn put(&mut self, value: u64);
}

impl Number for u64 {
    fn number(&self) -> u64 {
        *self
    }

    fn put(&mut self, value: u64) {
        *self = value;
    }
}

impl Number for usize {
    fn number(&self) -> u64 {
        *self as u64
    }

    fn put(&mut self, value: u64) {
        *self = usize::try_from(value).unwrap_or(usize::MAX);
    }
}

/// A level.
impl Number for u16 {
    fn number(&self) -> u64 {
        u64::from(*self)
    }

    fn put(&mut self, value: u64) {
        *self = u16::try_from(value).unwrap_or(u16::MAX);
    }
}

/// In microseconds.
impl Number for Duration {
    fn number(&self) -> u64 {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX)
    }

    fn put(&mut self, value: u64) {
        *self = Duration::from_micros(value);
    }
}

/// Zero is none.
impl Number for Option<Time> {
    fn number(&self) -> u64 {
        self.unwrap_or(0)
    }

    fn put(&mut self, value: u64) {
        *self = (value > 0).then_some(value);
    }
}

impl Number for bool {
    fn number(&self) -> u64 {
        u64::from(*self)
    }

    fn put(&mut self, value: u64) {
        *self = value > 0;
    }
}

macro_rules! numbers {
    ($($name:literal $($field:tt).+;)*) => {
        impl Settings {
            /// Name and value of all that can be set.
            pub(super) fn numbers(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$($field).+.number())),*]
            }

            /// Sets one; whether there is one of that name.
            pub(super) fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $($name => self.$($field).+.put(value),)*
                    _ => return false,
                }
                true
            }
        }
    };
}

numbers! {
    "servers" servers;
    "clients" clients;
    "heartbeat" heartbeat;
    "shortest_election_timeout" election_timeout.0;
    "longest_election_timeout" election_timeout.1;
    "append_bytes" append_bytes;
    "appends_in_flight" appends_in_flight;
    "snapshot_chunk_bytes" snapshot_chunk_bytes;
    "log_memory_bytes" log_memory_bytes;
    "snapshot_log_bytes" snapshot_log_bytes;
    "segment_bytes" segment_bytes;
    "server_sessions" server_sessions;
    "server_window" server_window;
    "command_bytes" command_bytes;
    "client_window" client_window;
    "shortest_session_timeout" session_timeout.0;
    "longest_session_timeout" session_timeout.1;
    "read_wait" read_wait;
    "handshake_timeout" handshake_timeout;
    "think" think;
    "burst" burst;
    "keys" keys;
    "value_bytes" value_bytes;
    "patience" patience;
    "least_latency" latency.0;
    "more_latency" latency.1;
    "least_disk_latency" disk_latency.0;
    "more_disk_latency" disk_latency.1;
    "batch" batch;
    "padding" padding;
    "promise" promise;
    "reckless" reckless;
    "earlier_map" versions.earlier.map;
    "earlier_lock" versions.earlier.lock;
    "earlier_servers" versions.servers;
    "locks" demand.locks;
    "hold" demand.hold;
    "wait" demand.wait;
    "calm" demand.calm;
    "outbox_events" demand.outbox.0;
    "outbox_bytes" demand.outbox.1;
    "spares" operator.spares;
    "operate" operator.mean;
}
