//! What is on its way to one follower: AppendEntries with entries that it has not acknowledged (§10.2.2).

use alloc::collections::VecDeque;

use atomix_protocol::Index;

use crate::Config;

/// The AppendEntries on their way, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    sent: VecDeque<Sent>,
    /// Of all their entries.
    bytes: u64,
}

/// One AppendEntries.
#[derive(Clone, Copy, Debug)]
struct Sent {
    prev: Index,
    last: Index,
    bytes: u64,
}

impl Pipeline {
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether the window has no room.
    pub(crate) fn is_full(&self, config: &Config) -> bool {
        self.sent.len() >= config.appends_in_flight || self.bytes >= config.append_bytes_in_flight
    }

    /// Entries behind `prev` through `last` were sent.
    pub(crate) fn push(&mut self, prev: Index, last: Index, bytes: u64) {
        self.sent.push_back(Sent { prev, last, bytes });
        self.bytes += bytes;
    }

    /// What ends at or before an index is acknowledged.
    pub(crate) fn acknowledge(&mut self, through: Index) {
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.last <= through) {
            self.bytes -= sent.bytes;
        }
    }

    /// Whether one of them names this entry as the one before.
    pub(crate) fn follows(&self, prev: Index) -> bool {
        self.sent.iter().any(|sent| sent.prev == prev)
    }

    /// The first entry of the oldest.
    pub(crate) fn oldest(&self) -> Option<Index> {
        self.sent.front().map(|sent| sent.prev.next())
    }
}
