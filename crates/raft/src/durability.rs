//! What the disk has, what it is writing, and the messages that wait for it (R2, §10.2.1, D2).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use atomix_protocol::peer::PeerMessage;
use core::time::Duration;

use atomix_protocol::{Configuration, EntryId, HardState, Index, LocalTime, ServerId, Term, WriteBatch};

use crate::log::Log;

/// Most bytes of entries in one write, but for a single longer one.
const WRITE_BYTES: u64 = 4 << 20;
/// The same while the disk is full: what it keeps in reserve has room for little.
const WRITE_BYTES_FULL: u64 = 64 << 10;
/// Most messages that wait for the disk; the oldest are lost first, as messages may be.
const HELD: usize = 256;

/// What is durable, and what is on its way.
#[derive(Debug)]
pub(crate) struct Durability {
    /// Durable term and vote.
    hard_state: HardState,
    /// Term and vote as last handed to storage.
    handed: HardState,
    /// The log is durable through here. Invariant: at most `written`.
    index: Index,
    /// Entries of the present log through here were handed to storage.
    written: Index,
    /// To be truncated by the next write: storage holds another suffix behind `written`.
    truncate: Option<EntryId>,
    /// Index of the configuration as last handed to storage.
    configuration: Index,
    /// Storage has forgotten the abstention (D4), and nobody has taken note.
    lifted: bool,
    in_flight: Option<InFlight>,
    /// Parts for which there was no room: not asked for again before there may be some.
    stalled: Parts,
    token: u64,
    held: VecDeque<Held>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    token: u64,
    parts: Parts,
    /// What storage was handed before, and was to truncate with this one.
    before: (Index, Option<EntryId>),
    configuration: Index,
    /// A snapshot took the place of the log meanwhile: `before` says nothing any more.
    reset: bool,
    /// A snapshot became durable meanwhile that the log agrees with.
    covered: Option<EntryId>,
    hard_state: HardState,
    entries: u64,
    /// It ends the abstention.
    lifts: bool,
    since: LocalTime,
}

/// Parts of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parts {
    /// What is not entries: term and vote, configuration, abstention.
    fields: bool,
    /// Entries, and a truncation before them.
    log: bool,
}

#[derive(Debug)]
struct Held {
    term: Term,
    to: ServerId,
    message: PeerMessage,
}

impl Durability {
    /// As recovered: everything is durable.
    pub(crate) fn new(hard_state: HardState, last: Index, configuration: Index) -> Self {
        Durability {
            hard_state,
            handed: hard_state,
            index: last,
            written: last,
            truncate: None,
            configuration,
            lifted: false,
            in_flight: None,
            stalled: Parts::default(),
            token: 0,
            held: VecDeque::new(),
        }
    }

    pub(crate) fn index(&self) -> Index {
        self.index
    }

    /// Durable term and vote.
    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The log was cut after `id`. A write in flight may still put down what was cut; the next one removes it.
    pub(crate) fn truncated(&mut self, id: EntryId) {
        if self.written > id.index {
            self.written = id.index;
            self.truncate = Some(id);
        }
        self.index = self.index.min(id.index);
    }

    /// A durable snapshot stands for everything through `id`; the log behind it is empty.
    pub(crate) fn reset(&mut self, id: EntryId) {
        self.truncate = Some(id);
        self.written = id.index;
        self.index = id.index;
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.reset = true;
        }
    }

    /// A durable snapshot stands for everything through `id`; the log agrees and goes on behind it.
    pub(crate) fn covered(&mut self, id: EntryId) {
        if self.written < id.index {
            self.reset(id);
        } else if let Some(in_flight) = &mut self.in_flight {
            in_flight.covered = Some(id);
        }
        self.index = self.index.max(id.index);
    }

    /// The next write, if none is outstanding and there is something to write (D2). Term and vote go with the entries
    /// of their term or before them. The configuration is the latest *committed* one: those after it are in the log. If it `lifts`
    /// the abstention, all that this hangs on is durable already (D4). Bounded, so that term and vote never wait for much before them, and on
    /// a full disk, without `room`, what is kept in reserve lasts.
    pub(crate) fn next_write(
        &mut self,
        now: LocalTime,
        hard_state: HardState,
        log: &Log,
        committed: &Configuration,
        lifts: bool,
        room: bool,
    ) -> Option<(u64, WriteBatch)> {
        if self.in_flight.is_some() {
            return None;
        }
        let (before, configuration) = ((self.written, self.truncate), self.configuration);
        let mut batch = WriteBatch::default();
        if !self.stalled.fields {
            batch.abstention = lifts.then_some(None);
            batch.hard_state = (hard_state != self.handed).then_some(hard_state);
            batch.configuration = (committed.index > configuration).then(|| committed.clone());
        }
        let fields = !batch.is_empty();
        // Term and vote go before the entries of their term (D1).
        if !self.stalled.log && !self.stalled.fields {
            batch.truncate_after = self.truncate.take();
            let bytes = if room { WRITE_BYTES } else { WRITE_BYTES_FULL };
            batch.entries = log.slice(self.written.next(), log.last().index, bytes);
        }
        if batch.is_empty() {
            return None;
        }
        if fields {
            self.handed = hard_state;
            self.configuration = configuration.max(committed.index);
        }
        let last = batch.entries.last().map(|last| last.id.index);
        self.written = last.unwrap_or(self.written);
        self.token += 1;
        self.in_flight = Some(InFlight {
            token: self.token,
            parts: Parts { fields, log: batch.truncate_after.is_some() || last.is_some() },
            before,
            configuration,
            reset: false,
            covered: None,
            hard_state: self.handed,
            entries: batch.entries.len() as u64,
            lifts: batch.abstention.is_some(),
            since: now,
        });
        Some((self.token, batch))
    }

    /// For how long a write has been outstanding.
    pub(crate) fn outstanding_for(&self, now: LocalTime) -> Option<Duration> {
        self.in_flight.map(|in_flight| now.since(in_flight.since))
    }

    /// A write is durable: how many entries it had. `None` for a token that is not outstanding.
    pub(crate) fn complete(&mut self, token: u64) -> Option<u64> {
        let in_flight = self.in_flight.filter(|in_flight| in_flight.token == token)?;
        self.in_flight = None;
        self.hard_state = in_flight.hard_state;
        self.lifted |= in_flight.lifts;
        // What was cut while the write ran is no longer counted in `written`.
        self.index = self.written;
        Some(in_flight.entries)
    }

    /// There was no room for a write (D5): nothing of it counts. What is not entries is asked for by itself then, as it needs none, entries when
    /// [`Durability::try_again`] says so. False for a token that is not outstanding.
    pub(crate) fn refuse(&mut self, token: u64) -> bool {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.token == token) else {
            return false;
        };
        self.handed = self.hard_state;
        self.configuration = in_flight.configuration;
        if in_flight.parts.log {
            self.stalled.log = true;
        } else {
            self.stalled.fields = true;
        }
        if in_flight.reset {
            return true;
        }
        let (written, truncate) = in_flight.before;
        if self.truncate.is_none_or(|id| id.index >= written) {
            // What was cut since was never put down.
            (self.written, self.truncate) = (written, truncate);
        }
        if let Some(id) = in_flight.covered.filter(|id| self.written < id.index) {
            self.reset(id);
        }
        true
    }

    /// There may be room for what there was none for.
    pub(crate) fn try_again(&mut self) {
        self.stalled = Parts::default();
    }

    /// Whether a write that ended the abstention has become durable since the last time.
    pub(crate) fn take_lifted(&mut self) -> bool {
        core::mem::take(&mut self.lifted)
    }

    /// Keeps a message back until term and vote are durable.
    pub(crate) fn hold(&mut self, term: Term, to: ServerId, message: PeerMessage) {
        if self.held.len() == HELD {
            self.held.pop_front();
        }
        self.held.push_back(Held { term, to, message });
    }

    /// The messages that need wait no longer. What was said in an earlier term is dropped.
    pub(crate) fn release(&mut self, hard_state: HardState) -> Vec<(ServerId, PeerMessage)> {
        if self.hard_state != hard_state {
            return Vec::new();
        }
        let held = self.held.drain(..).filter(|held| held.term == hard_state.term);
        held.map(|held| (held.to, held.message)).collect()
    }
}

#[cfg(test)]
mod tests;
