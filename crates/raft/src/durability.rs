//! What the disk has, what it is writing, and the messages that wait for it (R2, §10.2.1, D2).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use atomix_protocol::peer::PeerMessage;
use core::time::Duration;

use atomix_protocol::{Configuration, EntryId, HardState, Index, LocalTime, ServerId, Term, WriteBatch};

use crate::log::Log;

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
    token: u64,
    held: VecDeque<Held>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    token: u64,
    hard_state: HardState,
    entries: u64,
    /// It ends the abstention.
    lifts: bool,
    since: LocalTime,
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
    }

    /// A durable snapshot stands for everything through `id`; the log agrees and goes on behind it.
    pub(crate) fn covered(&mut self, id: EntryId) {
        if self.written < id.index {
            self.reset(id);
        }
        self.index = self.index.max(id.index);
    }

    /// The next write, if none is outstanding and there is something to write (D2). Term and vote go with the entries
    /// of their term or before them. The configuration is the latest *committed* one: those after it are in the log. If it `lifts`
    /// the abstention, all that this hangs on is durable already (D4).
    pub(crate) fn next_write(
        &mut self,
        now: LocalTime,
        hard_state: HardState,
        log: &Log,
        committed: &Configuration,
        lifts: bool,
    ) -> Option<(u64, WriteBatch)> {
        if self.in_flight.is_some() {
            return None;
        }
        let mut batch = WriteBatch {
            abstention: lifts.then_some(None),
            truncate_after: self.truncate.take(),
            ..WriteBatch::default()
        };
        if hard_state != self.handed {
            batch.hard_state = Some(hard_state);
        }
        if committed.index > self.configuration {
            self.configuration = committed.index;
            batch.configuration = Some(committed.clone());
        }
        batch.entries = log.slice(self.written.next(), log.last().index, u64::MAX);
        if batch.is_empty() {
            return None;
        }
        self.handed = hard_state;
        self.written = log.last().index;
        self.token += 1;
        let entries = batch.entries.len() as u64;
        self.in_flight = Some(InFlight { token: self.token, hard_state, entries, lifts, since: now });
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
mod tests {
    use atomix_protocol::peer::TimeoutNow;
    use atomix_protocol::{ClusterTime, Entry, EntryKind, Round};
    use bytes::Bytes;

    use super::*;

    type Written = (Option<u64>, Vec<(u64, u64)>);

    struct Rig {
        log: Log,
        durability: Durability,
        hard_state: HardState,
    }

    impl Rig {
        fn new() -> Self {
            let log = Log::new(EntryId::ZERO, Configuration::default(), Vec::new());
            let hard_state = HardState::default();
            Rig { log, durability: Durability::new(hard_state, Index(0), Index(0)), hard_state }
        }

        fn append(&mut self, term: u64) {
            let id = EntryId::new(Term(term), self.log.last().index.next());
            self.log.append(Entry { id, time: ClusterTime(0), kind: EntryKind::NoOp, payload: Bytes::new() });
        }

        fn truncate(&mut self, index: u64) {
            self.log.truncate_after(Index(index));
            self.durability.truncated(self.log.last());
        }

        /// Where the next write truncates, and what it appends (index, term).
        fn write(&mut self) -> Option<Written> {
            let configuration = Configuration::default();
            let (_, batch) = self.durability.next_write(
                LocalTime::ZERO,
                self.hard_state,
                &self.log,
                &configuration,
                false,
            )?;
            let entries = batch.entries.iter().map(|e| (e.id.index.0, e.id.term.0)).collect();
            Some((batch.truncate_after.map(|id| id.index.0), entries))
        }

        fn complete(&mut self) -> u64 {
            let token = self.durability.token;
            assert!(self.durability.complete(token).is_some());
            assert!(self.durability.complete(token).is_none(), "a token completes once");
            self.durability.index().0
        }
    }

    #[test]
    fn one_write_is_outstanding_and_the_rest_gathers() {
        let mut rig = Rig::new();
        rig.append(1);
        assert_eq!(rig.write(), Some((None, [(1, 1)].to_vec())));
        rig.append(1);
        rig.append(1);
        assert_eq!(rig.write(), None);
        assert_eq!(rig.complete(), 1);
        assert_eq!(rig.write(), Some((None, [(2, 1), (3, 1)].to_vec())));
        assert_eq!(rig.complete(), 3);
        assert_eq!(rig.write(), None);
    }

    #[test]
    fn what_is_cut_under_a_running_write_is_truncated_by_the_next() {
        let mut rig = Rig::new();
        (0..3).for_each(|_| rig.append(1));
        rig.write();
        rig.truncate(1);
        rig.append(2);
        rig.append(2);
        rig.truncate(2);
        rig.append(3);
        assert_eq!(rig.durability.index(), Index(0));
        assert_eq!(rig.complete(), 1, "entries 2 and 3 of the finished write are not those of the log");
        assert_eq!(rig.write(), Some((Some(1), [(2, 2), (3, 3)].to_vec())));
        rig.truncate(0);
        assert_eq!(rig.complete(), 0);
        assert_eq!(rig.write(), Some((Some(0), Vec::new())));
    }

    #[test]
    fn truncating_what_was_never_written_needs_no_record() {
        let mut rig = Rig::new();
        rig.append(1);
        rig.write();
        rig.append(1);
        rig.truncate(1);
        rig.append(2);
        rig.complete();
        assert_eq!(rig.write(), Some((None, [(2, 2)].to_vec())));
    }

    #[test]
    fn a_snapshot_beyond_what_was_written_restarts_the_log() {
        let mut rig = Rig::new();
        rig.append(1);
        rig.write();
        let id = EntryId::new(Term(2), Index(9));
        rig.log.reset(id, Configuration::default());
        rig.durability.reset(id);
        rig.append(2);
        assert_eq!(rig.complete(), 9);
        assert_eq!(rig.write(), Some((Some(9), [(10, 2)].to_vec())));
    }

    #[test]
    fn messages_wait_for_their_term_and_die_with_it() {
        let mut rig = Rig::new();
        let message = |term| PeerMessage::TimeoutNow(TimeoutNow { term: Term(term), round: Round(0) });
        rig.hard_state = HardState { term: Term(1), voted_for: None };
        rig.durability.hold(Term(1), ServerId(2), message(1));
        rig.write();
        rig.hard_state = HardState { term: Term(2), voted_for: Some(ServerId(2)) };
        rig.durability.hold(Term(2), ServerId(2), message(2));
        rig.complete();
        assert!(rig.durability.release(rig.hard_state).is_empty());
        rig.write();
        rig.complete();
        assert_eq!(rig.durability.release(rig.hard_state), [(ServerId(2), message(2))]);
        (0..1_000).for_each(|_| rig.durability.hold(Term(2), ServerId(2), message(2)));
        assert_eq!(rig.durability.held.len(), HELD);
    }
}
