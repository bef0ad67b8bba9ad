//! What a leader knows of one follower, and how much it sends ahead (§3.5, §10.2.2).

use alloc::boxed::Box;

use atomix_protocol::{EntryId, Index, LocalTime, Round};

use crate::Config;
use crate::chunks::Transfer;
use crate::log::Log;
use crate::membership::Departure;
use crate::pipeline::Pipeline;

/// So many snapshots of the leader may be published while a follower catches up behind the one that it was sent, and the log that
/// it needs still stays. Else writes that outrun it would have it installed one after the other, for ever.
const SNAPSHOTS_OUTLASTED: u8 = 4;

/// How entries go to a follower.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Not known whether the logs agree right before `next_index`: one AppendEntries at a time.
    Probe,
    /// They agree: the pipeline is open.
    Replicate,
    /// The entries it needs are gone: it gets a snapshot.
    Snapshot(Box<Transfer>),
}

/// One follower.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The follower said that it holds the leader's log durably through here. Invariant: never above what was sent; back only to zero,
    /// if it says that its log is shorter: then it was damaged since (D4).
    match_index: Index,
    /// The next entry to send. Invariant: behind `match_index`.
    next_index: Index,
    /// The last entry that any message of this term named.
    highest_sent: Index,
    pub(crate) mode: Mode,
    /// It was sent a snapshot and catches up behind it: for so many more snapshots the log stays that it needs.
    catching_up: u8,
    in_flight: Pipeline,
    /// `prev` of the last heartbeat since the pipeline was last reset.
    heartbeat_prev: Option<Index>,
    /// First index of a read from storage that is under way for it (R5).
    pub(crate) fetching: Option<Index>,
    /// That read found nothing, and no snapshot helps: the next heartbeat tries again.
    pub(crate) unavailable: bool,
    /// When it last answered in this term.
    pub(crate) contact: LocalTime,
    /// The greatest round it answered.
    pub(crate) round: Round,
    /// The greatest round whose promise it has made (R3).
    pub(crate) promised: Round,
    /// The greatest round with which it has acknowledged anything.
    pub(crate) acknowledged: Round,
    /// Whether it has answered at all in this term.
    pub(crate) answered: bool,
    /// Whether its disk has room (D5), as it said last.
    pub(crate) room: bool,
    /// Whether it abstains (D4), as it said last.
    pub(crate) abstains: bool,
    /// Set if the configuration in use has no log for it.
    pub(crate) departure: Option<Departure>,
}

impl Progress {
    /// As a new leader knows a follower: not at all (§3.3: `next_index` behind the leader's last entry).
    pub(crate) fn new(last: Index, now: LocalTime) -> Self {
        Progress {
            match_index: Index::ZERO,
            next_index: last.next(),
            highest_sent: last,
            mode: Mode::Probe,
            catching_up: 0,
            in_flight: Pipeline::default(),
            heartbeat_prev: None,
            fetching: None,
            unavailable: false,
            contact: now,
            round: Round::ZERO,
            promised: Round::ZERO,
            acknowledged: Round::ZERO,
            answered: false,
            room: false,
            abstains: false,
            departure: None,
        }
    }

    pub(crate) fn match_index(&self) -> Index {
        self.match_index
    }

    pub(crate) fn next_index(&self) -> Index {
        self.next_index
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether more entries may be sent now.
    pub(crate) fn may_send(&self, config: &Config) -> bool {
        match self.mode {
            _ if self.fetching.is_some() => false,
            Mode::Probe => self.in_flight.is_empty(),
            Mode::Replicate => !self.is_full(config),
            Mode::Snapshot(_) => false,
        }
    }

    /// Whether an open pipeline has no room.
    pub(crate) fn is_full(&self, config: &Config) -> bool {
        self.in_flight.is_full(config)
    }

    /// Entries from `next_index` through `last` were sent.
    pub(crate) fn sent(&mut self, last: Index, bytes: u64) {
        self.in_flight.push(self.next_index.previous(), last, bytes);
        self.next_index = last.next();
        self.highest_sent = self.highest_sent.max(last);
    }

    /// The index a heartbeat names as `prev`: what was sent last, so that a loss shows. None while a snapshot is on its way.
    pub(crate) fn heartbeat_prev(&mut self) -> Option<Index> {
        let snapshot = matches!(self.mode, Mode::Snapshot(_));
        self.heartbeat_prev = (!snapshot).then(|| self.next_index.previous());
        self.heartbeat_prev
    }

    /// The follower holds everything through `index`. Whether that was news.
    pub(crate) fn durable(&mut self, index: Index) -> bool {
        if index > self.highest_sent {
            return false;
        }
        let news = index > self.match_index;
        self.match_index = self.match_index.max(index);
        self.in_flight.acknowledge(self.match_index);
        self.next_index = self.next_index.max(self.match_index.next());
        match &self.mode {
            Mode::Probe if self.oldest_sent() <= self.match_index.next() => self.mode = Mode::Replicate,
            Mode::Snapshot(transfer) if transfer.meta.last.index <= self.match_index => self.probe(),
            _ => {}
        }
        news
    }

    /// As the mutant B17 takes a late acknowledgement: whatever it says.
    pub(crate) fn durable_unchecked(&mut self, index: Index) {
        self.highest_sent = self.highest_sent.max(index);
        self.durable(index);
    }

    /// The follower has no entry `prev`, having received `round`; `hint` is the greatest of its entries that could match. Whether it was
    /// believed: an answer to nothing that is outstanding is late.
    ///
    /// If it has less than it acknowledged, and that in an earlier round, it has lost it since (D4). Then nothing is known of it any
    /// more, and what is counted of it goes back to nothing.
    pub(crate) fn mismatch(&mut self, prev: EntryId, hint: EntryId, round: Round, log: &Log) -> bool {
        let outstanding = self.heartbeat_prev == Some(prev.index) || self.in_flight.follows(prev.index);
        let plausible = hint.index < prev.index && log.contains(prev);
        let less = prev.index <= self.match_index || hint.index < self.match_index;
        let late = less && round <= self.acknowledged;
        if !outstanding || !plausible || late || matches!(self.mode, Mode::Snapshot(_)) {
            return false;
        }
        if less {
            self.match_index = Index::ZERO;
        }
        self.clear_pipeline();
        self.mode = Mode::Probe;
        self.next_index = log.could_match(hint).max(self.match_index).next();
        true
    }

    /// Allows a read from storage that found nothing to be tried again.
    pub(crate) fn retry_fetch(&mut self) {
        if core::mem::take(&mut self.unavailable) {
            self.fetching = None;
        }
    }

    /// What was in flight may be lost: goes on from the oldest that was not acknowledged, probing.
    pub(crate) fn probe(&mut self) {
        self.next_index = self.oldest_sent().max(self.match_index.next());
        self.clear_pipeline();
        self.mode = Mode::Probe;
    }

    /// Begins to send a snapshot.
    pub(crate) fn transfer(&mut self, transfer: Transfer) {
        self.clear_pipeline();
        let last = transfer.meta.last.index;
        self.next_index = last.next();
        self.highest_sent = self.highest_sent.max(last);
        self.mode = Mode::Snapshot(Box::new(transfer));
    }

    /// It has put a snapshot through `index` in place, of the transfer that is current or of one before: its log goes on behind it.
    pub(crate) fn installed(&mut self, index: Index) {
        if self.durable(index) {
            if matches!(self.mode, Mode::Snapshot(_)) {
                self.clear_pipeline();
                self.mode = Mode::Probe;
                self.next_index = self.match_index.next();
            }
            self.catching_up = SNAPSHOTS_OUTLASTED;
        }
    }

    /// What it lacks is in memory, or it is silent: the log need not stay for it.
    pub(crate) fn caught_up(&mut self) {
        self.catching_up = 0;
    }

    /// The leader has published a snapshot of its own.
    pub(crate) fn outlast(&mut self) {
        self.catching_up = self.catching_up.saturating_sub(1);
    }

    /// The log behind this index must stay for it, however old that is.
    pub(crate) fn held_back(&self) -> Option<Index> {
        match &self.mode {
            Mode::Snapshot(transfer) => Some(transfer.meta.last.index),
            _ => (self.catching_up > 0).then_some(self.match_index),
        }
    }

    fn oldest_sent(&self) -> Index {
        self.in_flight.oldest().unwrap_or(self.next_index)
    }

    fn clear_pipeline(&mut self) {
        self.in_flight = Pipeline::default();
        self.heartbeat_prev = None;
        self.fetching = None;
        self.unavailable = false;
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{ClusterTime, Configuration, Entry, EntryKind, Term};
    use bytes::Bytes;

    use super::*;

    fn log(terms: &[u64]) -> Log {
        let entries = terms.iter().enumerate().map(|(at, term)| Entry {
            id: EntryId::new(Term(*term), Index(at as u64 + 1)),
            time: ClusterTime(0),
            kind: EntryKind::NoOp,
            payload: Bytes::new(),
        });
        Log::new(EntryId::ZERO, Configuration::default(), entries.collect())
    }

    fn id(term: u64, index: u64) -> EntryId {
        EntryId::new(Term(term), Index(index))
    }

    fn replicating() -> Progress {
        let mut progress = Progress::new(Index(4), LocalTime::ZERO);
        progress.sent(Index(5), 64);
        assert!(progress.durable(Index(4)));
        assert!(matches!(progress.mode, Mode::Replicate));
        progress
    }

    #[test]
    fn probing_sends_one_at_a_time_until_the_logs_agree() {
        let config = Config::default();
        let mut progress = Progress::new(Index(4), LocalTime::ZERO);
        assert!(progress.may_send(&config));
        progress.sent(Index(5), 64);
        assert!(!progress.may_send(&config));
        assert!(progress.durable(Index(3)), "durable less far than the probe: agreement is not known");
        assert!(!progress.may_send(&config));
        progress.durable(Index(4));
        assert!(progress.may_send(&config));
        assert_eq!((progress.next_index(), progress.in_flight()), (Index(6), 1));
    }

    #[test]
    fn the_window_closes_by_count_and_by_bytes() {
        let count = Config { appends_in_flight: 2, ..Config::default() };
        let bytes = Config { append_bytes_in_flight: 100, ..Config::default() };
        let mut progress = replicating();
        assert!(progress.may_send(&count) && progress.may_send(&bytes));
        progress.sent(Index(7), 64);
        assert!(!progress.may_send(&count) && !progress.may_send(&bytes));
        progress.durable(Index(6));
        assert!(progress.may_send(&count) && progress.may_send(&bytes), "the first is acknowledged");
        progress.durable(Index(7));
        assert_eq!((progress.in_flight(), progress.match_index()), (0, Index(7)));
    }

    #[test]
    fn an_acknowledgement_moves_match_neither_back_nor_above_what_was_sent() {
        let mut progress = replicating();
        assert!(!progress.durable(Index(9)));
        assert!(!progress.durable(Index(u64::MAX)));
        assert!(!progress.durable(Index(2)));
        assert_eq!(progress.match_index(), Index(4));
        progress.probe();
        assert_eq!((progress.match_index(), progress.next_index()), (Index(4), Index(5)));
    }

    #[test]
    fn a_mismatch_counts_only_for_what_is_outstanding() {
        let log = log(&[1, 1, 1, 2, 2, 2, 2]);
        let mut progress = replicating();
        progress.sent(Index(6), 64);
        progress.sent(Index(7), 64);
        for (prev, hint, believed) in [
            (id(2, 7), id(1, 3), false),                   // nothing was sent behind 7
            (id(1, 3), id(1, 2), false),                   // nothing was sent behind 3
            (id(1, 6), id(1, 4), false),                   // not our entry 6
            (id(2, 6), id(2, 6), false),                   // a hint not below prev
            (id(2, u64::MAX), id(2, u64::MAX - 1), false), // absurd
            (id(2, 6), id(2, 5), true),                    // entry 6 was lost
            (id(2, 6), id(2, 5), false),                   // once
        ] {
            assert_eq!(progress.mismatch(prev, hint, Round(1), &log), believed, "{prev:?} {hint:?}");
        }
        assert_eq!((progress.next_index(), progress.in_flight()), (Index(6), 0));
        progress.heartbeat_prev();
        assert!(
            progress.mismatch(id(2, 5), id(2, 4), Round(1), &log),
            "a heartbeat's prev is outstanding too"
        );
        assert_eq!((progress.next_index(), progress.match_index()), (Index(5), Index(4)));
    }

    #[test]
    fn d4_a_follower_that_lost_what_it_acknowledged_is_asked_anew_how_far_it_has_come() {
        let log = log(&[1, 1, 1, 2, 2, 2, 2]);
        // The refused entry is one that it acknowledged; or one behind those, and it has less.
        for (sent, hint) in [(4, id(1, 2)), (6, id(1, 2)), (6, EntryId::ZERO)] {
            let mut progress = replicating();
            progress.sent(Index(6), 64);
            if sent == 4 {
                // A new link, and nothing outstanding on it.
                assert!(progress.durable(Index(6)));
                progress.probe();
            }
            let prev = progress.heartbeat_prev().unwrap();
            progress.acknowledged = Round(3);
            for (round, believed) in [(2, false), (3, false), (4, true)] {
                assert_eq!(progress.mismatch(log.id(prev).unwrap(), hint, Round(round), &log), believed);
            }
            assert_eq!((progress.match_index(), progress.next_index()), (Index::ZERO, hint.index.next()));
            assert!(matches!(progress.mode, Mode::Probe));
            // From there it comes back, also if what it said before it lost it arrives late.
            progress.sent(Index(7), 64);
            assert!(progress.durable(Index(7)));
            assert_eq!((progress.match_index(), progress.next_index()), (Index(7), Index(8)));
        }
    }

    #[test]
    fn a_hint_skips_terms() {
        let log = log(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
        let mut progress = Progress::new(Index(10), LocalTime::ZERO);
        progress.heartbeat_prev();
        assert!(progress.mismatch(id(6, 10), id(3, 9), Round(1), &log));
        assert_eq!(progress.next_index(), Index(4));
    }

    #[test]
    fn a_transfer_ends_when_the_follower_has_caught_up() {
        let mut progress = replicating();
        let meta = atomix_protocol::peer::SnapshotMeta {
            last: id(2, 9),
            time: ClusterTime(0),
            configuration: Configuration::default(),
            size: 0,
            checksum: 0,
        };
        progress.transfer(Transfer::new(meta, Round(1), LocalTime::ZERO, LocalTime::ZERO));
        assert_eq!(progress.held_back(), Some(Index(9)));
        assert!(!progress.may_send(&Config::default()));
        assert_eq!(progress.heartbeat_prev(), None);
        progress.durable(Index(4));
        assert!(matches!(progress.mode, Mode::Snapshot(_)));
        progress.durable(Index(9));
        assert_eq!((progress.next_index(), progress.may_send(&Config::default())), (Index(10), true));
        assert!(progress.in_flight.is_empty());
    }
}
