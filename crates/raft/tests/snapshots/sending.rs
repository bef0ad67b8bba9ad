//! A leader that sends a snapshot, by itself: when it goes on, when it waits, and when it gives up (R6).

use atomix_protocol::peer::{
    InstallOutcome, InstallSnapshot, InstallSnapshotReply, PeerMessage, SnapshotMeta,
};
use atomix_protocol::{ClusterTime, EntryId, HardState, ServerId, Term};
use atomix_raft::{Config, Input, Output, Recovered, Role};
use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::{configuration, durable, entry, id, mismatch, vote_granted};
use bytes::Bytes;

/// Heartbeats of a minute.
const MINUTE: u64 = 20 * 60;
const FOLLOWER: u64 = 3;

/// A leader with a snapshot of thirty bytes through entry 5, entry 6 of an earlier term and its own entry 7. Server 2 has everything,
/// server 3 needs the snapshot.
struct Sender {
    leader: Machine,
    meta: SnapshotMeta,
    /// What storage was asked for and has not answered.
    reads: Vec<(EntryId, u64)>,
}

impl Sender {
    fn new() -> Self {
        let meta = SnapshotMeta {
            last: id(1, 5),
            time: ClusterTime(0),
            configuration: configuration(3, 0),
            size: 30,
            checksum: 0,
        };
        let recovered = Recovered {
            hard_state: HardState { term: Term(1), voted_for: None },
            configuration: configuration(3, 0),
            snapshot: Some(meta.clone()),
            entries: vec![entry(1, 6)],
            abstention: None,
        };
        let config = Config { snapshot_chunk_bytes: 10, log_tail_bytes: 0, ..Config::default() };
        let mut leader = Machine::recovered(config, 1, recovered);
        leader.campaign();
        leader.persist();
        leader.hear(2, vote_granted(2));
        assert_eq!(leader.raft.role(), Role::Leader);
        leader.persist();
        leader.hear(2, durable(2, 1, 7));
        leader.hear(FOLLOWER, mismatch(2, 1, id(1, 6), EntryId::ZERO));
        let mut sender = Sender { leader, meta, reads: Vec::new() };
        sender.look();
        sender
    }

    /// Takes what was asked of storage, and the chunks that were sent.
    fn look(&mut self) -> Vec<InstallSnapshot> {
        let mut chunks = Vec::new();
        for output in std::mem::take(&mut self.leader.outputs) {
            match output {
                Output::ReadChunk { meta, offset, .. } => self.reads.push((meta.last, offset)),
                Output::Send { message: PeerMessage::InstallSnapshot(chunk), .. } => chunks.push(chunk),
                _ => {}
            }
        }
        chunks
    }

    /// Storage answers so many bytes; the chunks that were sent.
    fn read_bytes(&mut self, bytes: &'static [u8]) -> Vec<InstallSnapshot> {
        let mut chunks = self.look();
        while let Some((last, offset)) = self.reads.pop() {
            let data = Some(Bytes::from_static(bytes));
            self.leader.input(Input::ChunkRead { to: ServerId(FOLLOWER), last, offset, data });
            chunks.extend(self.look());
        }
        chunks
    }

    fn read(&mut self) -> Vec<InstallSnapshot> {
        self.read_bytes(&[0; 10])
    }

    fn answer(&mut self, outcome: InstallOutcome) {
        let (round, last) = (self.leader.raft.round(), self.meta.last);
        let reply = InstallSnapshotReply { term: Term(2), round, last, outcome };
        self.leader.hear(FOLLOWER, PeerMessage::InstallSnapshotReply(reply));
    }

    /// A heartbeat, which server 2 answers.
    fn beat(&mut self) {
        self.leader.pass(50);
        let (round, last) = (self.leader.raft.round().0, self.leader.raft.last().index.0);
        self.leader.hear(2, durable(2, round, last));
        self.leader.persist();
    }

    /// The same, and server 3 answers that it has this much of the log.
    fn beat_both(&mut self, third: u64) {
        self.beat();
        self.leader.hear(FOLLOWER, durable(2, self.leader.raft.round().0, third));
    }

    /// Sends all, and has all answered but the last chunk.
    fn send_all(&mut self) {
        for (next, expected) in [(10, &[0][..]), (20, &[10, 20])] {
            let sent: Vec<u64> = self.read().iter().map(|chunk| chunk.offset).collect();
            assert_eq!(sent, expected);
            self.answer(InstallOutcome::Next(next));
        }
    }

    /// The leader takes a snapshot of its own, which covers all.
    fn take_another(&mut self) {
        assert!(self.leader.raft.may_take_snapshot());
        let meta = SnapshotMeta { last: id(2, 7), ..self.meta.clone() };
        self.leader.input(Input::SnapshotPublished { meta });
    }
}

/// The leader must come to take another, or it sends this one, and lets its log grow, for ever.
#[test]
fn r6_a_snapshot_that_never_verifies_does_not_keep_the_leader_from_taking_another() {
    let mut sender = Sender::new();
    let mut failed = 0;
    for _ in 0..2 * MINUTE {
        sender.beat_both(0);
        let mut chunks = sender.read();
        while let Some(chunk) = chunks.pop() {
            if chunk.done {
                failed += 1;
                sender.answer(InstallOutcome::Restart);
            } else {
                sender.answer(InstallOutcome::Next(chunk.offset + chunk.data.len() as u64));
            }
            chunks.extend(sender.read());
        }
        if sender.leader.raft.may_take_snapshot() {
            return;
        }
    }
    panic!("after two minutes and {failed} whole transfers it still may not");
}

#[test]
fn r6_a_follower_that_takes_long_to_put_a_snapshot_in_place_is_sent_no_other() {
    let mut sender = Sender::new();
    sender.send_all();
    for _ in 0..MINUTE * 3 / 2 {
        sender.beat_both(0);
        assert!(!sender.leader.raft.may_take_snapshot());
        let again = sender.read();
        assert!(again.iter().all(|chunk| chunk.done && chunk.meta == sender.meta), "{again:?}");
    }
    sender.answer(InstallOutcome::Installed);
    for _ in 0..40 {
        sender.beat_both(5);
        assert_eq!(sender.read(), []);
    }
}

#[test]
fn r6_a_follower_that_never_puts_it_in_place_does_not_hold_the_log_for_ever() {
    let mut sender = Sender::new();
    sender.send_all();
    for _ in 0..10 * MINUTE {
        sender.beat_both(0);
        sender.read();
    }
    sender.beat_both(0);
    assert!(sender.leader.raft.may_take_snapshot());
}

/// What was given up comes to its end all the same, while another is on its way.
#[test]
fn r6_a_snapshot_that_is_put_in_place_late_counts_whichever_is_on_its_way() {
    let mut sender = Sender::new();
    sender.send_all();
    while !sender.leader.raft.may_take_snapshot() {
        sender.beat(); // Nothing is heard of server 3.
    }
    sender.take_another();
    let round = sender.leader.raft.round().0;
    sender.leader.hear(FOLLOWER, mismatch(2, round, id(1, 5), EntryId::ZERO));
    assert!(sender.read().iter().all(|chunk| chunk.meta.last == id(2, 7)));
    assert!(!sender.leader.raft.may_take_snapshot(), "another is on its way");
    assert_eq!(sender.leader.matched(FOLLOWER), 0);
    sender.answer(InstallOutcome::Installed);
    assert_eq!((sender.leader.matched(FOLLOWER), sender.leader.raft.may_take_snapshot()), (5, true));
    sender.beat_both(7);
    assert_eq!((sender.read(), sender.leader.matched(FOLLOWER)), (vec![], 7), "entries did the rest");
}

/// One that ends with an entry that this leader does not hold says nothing of its log.
#[test]
fn r6_a_snapshot_that_no_leader_of_this_log_sent_counts_for_nothing() {
    let mut sender = Sender::new();
    sender.meta.last = id(2, 5);
    sender.answer(InstallOutcome::Installed);
    assert_eq!(sender.leader.matched(FOLLOWER), 0);
}

#[test]
fn r6_a_chunk_of_nothing_is_not_sent() {
    let mut sender = Sender::new();
    assert_eq!(sender.read_bytes(&[]), []);
    for _ in 0..20 {
        sender.beat_both(0);
    }
    assert!(!sender.read().is_empty(), "it is tried again");
}
