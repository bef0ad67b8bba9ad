//! Writes, with and without room.

use alloc::vec;

use atomix_protocol::peer::TimeoutNow;
use atomix_protocol::{ClusterTime, Entry, EntryKind, Round};
use bytes::Bytes;

use super::*;

type Written = (Option<u64>, Vec<(u64, u64)>);

struct Rig {
    log: Log,
    durability: Durability,
    hard_state: HardState,
    room: bool,
}

impl Rig {
    fn new() -> Self {
        let log = Log::new(EntryId::ZERO, Configuration::default(), Vec::new());
        let hard_state = HardState::default();
        Rig { log, durability: Durability::new(hard_state, Index(0), Index(0)), hard_state, room: true }
    }

    fn append(&mut self, term: u64) {
        self.append_bytes(term, &[]);
    }

    fn append_bytes(&mut self, term: u64, payload: &[u8]) {
        let id = EntryId::new(Term(term), self.log.last().index.next());
        let payload = Bytes::copy_from_slice(payload);
        self.log.append(Entry { id, time: ClusterTime(0), kind: EntryKind::NoOp, payload });
    }

    fn refuse(&mut self) {
        let token = self.durability.token;
        assert!(self.durability.refuse(token));
        assert!(!self.durability.refuse(token) && self.durability.complete(token).is_none());
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
            self.room,
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
fn a_write_is_bounded_and_the_rest_follows() {
    let mut rig = Rig::new();
    let payload = vec![0; WRITE_BYTES as usize / 2];
    (0..3).for_each(|_| rig.append_bytes(1, &payload));
    assert_eq!(rig.write(), Some((None, [(1, 1)].to_vec())), "two are longer");
    assert_eq!(rig.complete(), 1);
    rig.room = false;
    assert_eq!(rig.write(), Some((None, [(2, 1)].to_vec())), "one goes, however long");
    assert_eq!(rig.complete(), 2);
}

#[test]
fn entries_without_room_wait_and_term_and_vote_do_not() {
    let mut rig = Rig::new();
    rig.append(1);
    rig.hard_state = HardState { term: Term(1), voted_for: None };
    assert_eq!(rig.write(), Some((None, [(1, 1)].to_vec())));
    rig.refuse();
    assert_eq!(rig.write(), Some((None, Vec::new())), "the term by itself");
    rig.complete();
    assert_eq!((rig.durability.hard_state(), rig.durability.index()), (rig.hard_state, Index(0)));
    assert_eq!(rig.write(), None);
    rig.hard_state = HardState { term: Term(2), voted_for: Some(ServerId(2)) };
    assert_eq!(rig.write(), Some((None, Vec::new())), "a vote by itself");
    rig.refuse();
    assert_eq!(rig.write(), None, "there is no room even for that");
    rig.durability.try_again();
    rig.append(2);
    assert_eq!(rig.write(), Some((None, [(1, 1), (2, 2)].to_vec())));
    assert_eq!(rig.complete(), 2);
    assert_eq!(rig.durability.hard_state(), rig.hard_state);
}

#[test]
fn what_was_cut_under_a_refused_write_was_never_there() {
    // Through entry 2 it is durable; 3 and 4 are refused; then it is cut.
    for (cut, expected) in
        [(3, (None, vec![(3, 1), (4, 3)])), (2, (None, vec![(3, 3)])), (1, (Some(1), vec![(2, 3)]))]
    {
        let mut rig = Rig::new();
        (0..2).for_each(|_| rig.append(1));
        rig.write();
        rig.complete();
        (0..2).for_each(|_| rig.append(1));
        rig.write();
        rig.truncate(cut);
        rig.refuse();
        rig.append(3);
        rig.durability.try_again();
        assert_eq!(rig.write(), Some(expected), "cut after {cut}");
        assert_eq!(rig.complete(), rig.log.last().index.0);
    }
}

#[test]
fn a_truncation_that_was_refused_is_asked_for_again() {
    for (cut, expected) in [(None, (Some(2), vec![(3, 2)])), (Some(1), (Some(1), vec![(2, 3)]))] {
        let mut rig = Rig::new();
        (0..3).for_each(|_| rig.append(1));
        rig.write();
        rig.complete();
        rig.truncate(2);
        rig.append(2);
        assert_eq!(rig.write(), Some((Some(2), vec![(3, 2)])));
        if let Some(cut) = cut {
            rig.truncate(cut);
            rig.append(3);
        }
        rig.refuse();
        rig.durability.try_again();
        assert_eq!(rig.write(), Some(expected));
    }
}

#[test]
fn a_snapshot_stands_for_what_was_refused() {
    // The log agrees with it, and memory may not hold what it covers any more.
    let mut rig = Rig::new();
    (0..4).for_each(|_| rig.append(1));
    rig.write();
    rig.durability.covered(EntryId::new(Term(1), Index(3)));
    rig.refuse();
    assert_eq!(rig.durability.index(), Index(3));
    rig.durability.try_again();
    assert_eq!(rig.write(), Some((Some(3), vec![(4, 1)])));
    assert_eq!(rig.complete(), 4);
    // It took the place of the log.
    let mut rig = Rig::new();
    (0..4).for_each(|_| rig.append(1));
    rig.write();
    let id = EntryId::new(Term(2), Index(9));
    rig.log.reset(id, Configuration::default());
    rig.durability.reset(id);
    rig.refuse();
    rig.append(2);
    rig.durability.try_again();
    assert_eq!(rig.write(), Some((Some(9), vec![(10, 2)])));
    assert_eq!(rig.complete(), 10);
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
