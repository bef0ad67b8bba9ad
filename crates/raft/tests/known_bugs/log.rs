//! Logs that must agree, whatever was read, compacted or sent again.

use atomix_protocol::peer::*;
use atomix_protocol::*;
use atomix_raft::{Config, Input, Output, Raft, Recovered};

use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::*;

/// A leader of term 1 with entries 1 and 2 that memory has dropped, which it reads for follower 3 now.
fn reading() -> (Machine, Vec<Entry>) {
    let mut machine = Machine::leader(Config { log_memory_bytes: 1, ..Config::default() }, 3, 0, 0, &[]);
    let mut entries = vec![machine.raft.entry(Index(1)).cloned().expect("its own first entry")];
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    machine.propose(b"command");
    entries.push(machine.raft.entry(Index(2)).cloned().expect("not applied yet"));
    machine.persist();
    machine.hear(2, durable(1, 1, 2));
    machine.pass(50);
    let outputs =
        machine.input(Input::Received { from: server(3), message: mismatch(1, 2, id(1, 1), EntryId::ZERO) });
    assert!(outputs.iter().any(|output| matches!(output, Output::Fetch { .. })), "{outputs:?}");
    (machine, entries)
}

/// databendlabs/openraft#1795: a leader's read of its own log failed, and what it sent instead was appended by the
/// follower.
#[test]
fn what_a_leader_reads_wrong_is_never_sent() {
    let foreign = |index| Entry { payload: Default::default(), ..entry(9, index) };
    type Read = fn(&[Entry], &dyn Fn(u64) -> Entry) -> Vec<Entry>;
    let reads: [(Read, usize); 5] = [
        (|own, _| own.to_vec(), 2),
        (|own, foreign| vec![own[0].clone(), foreign(2)], 1), // ends with what is not its own
        (|own, foreign| vec![foreign(1), own[1].clone()], 0),
        (|own, _| vec![own[1].clone()], 0), // begins too late
        (|own, _| vec![own[0].clone(), own[0].clone()], 1),
    ];
    for (at, (read, expected)) in reads.into_iter().enumerate() {
        let (mut machine, own) = reading();
        let entries = Some(read(&own, &foreign));
        let outputs = machine.input(Input::Fetched { to: server(3), from: Index(1), entries });
        let sent = appends(&said(&outputs));
        let entries: Vec<Entry> = sent.iter().flat_map(|message| message.entries.clone()).collect();
        assert_eq!(entries, own[..expected], "read {at}");
        assert!(sent.iter().all(|message| message.prev == EntryId::ZERO), "read {at}");
    }
}

/// etcd-io/raft PR 31: an empty AppendEntries that named an entry before the follower's snapshot stopped the
/// follower.
#[test]
fn an_append_before_the_snapshot_is_answered() {
    let meta = SnapshotMeta {
        last: id(2, 9),
        time: ClusterTime(77),
        configuration: configuration(3, 0),
        size: 0,
        checksum: 0,
    };
    let recovered = Recovered {
        hard_state: HardState { term: Term(3), voted_for: None },
        configuration: configuration(3, 0),
        snapshot: Some(meta),
        entries: vec![entry(2, 10)],
        abstention: None,
    };
    let mut machine = Machine::follower(3, &[]);
    machine.raft = Raft::new(Config::default(), server(1), recovered, 7, machine.now);
    let replies = append_replies(&machine.hear(2, append(3, id(1, 3), vec![], 4)));
    assert_eq!(replies[0].outcome, AppendOutcome::Durable(Index(3)));
    let covered = (4..=10).map(|index| entry(2, index)).collect();
    let replies = append_replies(&machine.hear(2, append(3, id(1, 3), covered, 10)));
    assert_eq!(replies[0].outcome, AppendOutcome::Durable(Index(10)));
    assert_eq!((machine.raft.last(), machine.raft.commit_index()), (id(2, 10), Index(10)));
    assert!(machine.write.is_none(), "it has them all");
}
