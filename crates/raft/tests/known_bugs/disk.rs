//! Writes that fail, hang, or end out of turn.

use atomix_protocol::peer::*;
use atomix_protocol::*;
use atomix_raft::{Config, Input, Output};

use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::*;

/// canonical/raft#320: the leader's write failed after the entry had been sent, and its index was given to another
/// payload in the same term. Here a failed write is one that never ends: nothing is written in its place, and no
/// index is given twice.
#[test]
fn an_index_keeps_its_payload_whatever_becomes_of_its_write() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.hear(2, durable(1, 1, 1));
    machine.hear(3, durable(1, 1, 1));
    let writes = |machine: &Machine| {
        machine.outputs.iter().filter(|output| matches!(output, Output::Write { .. })).count()
    };
    let before = writes(&machine);
    let sent = appends(&machine.propose(b"first"));
    assert!(sent.iter().all(|message| message.entries[0].id == id(1, 2)));
    for _ in 0..4 {
        machine.pass(20);
        machine.propose(b"another");
    }
    assert_eq!(writes(&machine), before, "nothing is written in place of what has not ended");
    machine.hear(2, durable(1, 1, 2));
    machine.hear(3, durable(1, 1, 2));
    let committed = machine.committed();
    assert_eq!((committed[1].id, &committed[1].payload[..]), (id(1, 2), &b"first"[..]));
    assert_eq!((machine.raft.durable_index(), machine.raft.last()), (Index(0), id(1, 6)));
}

/// databendlabs/openraft#1960: writes were reported in another order than they had been asked for, and the progress
/// of the disk was taken from the last report.
#[test]
fn a_write_that_is_reported_out_of_turn_makes_nothing_durable() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    let (token, batch) = machine.write.clone().expect("its first entry");
    assert_eq!(batch.entries.len(), 1);
    for other in [0, token - 1, token + 1, u64::MAX] {
        machine.input(Input::Written { token: other });
        assert_eq!(machine.raft.durable_index(), Index(0), "token {other}");
    }
    machine.propose(b"command");
    machine.persist();
    assert_eq!((machine.raft.durable_index(), machine.write.is_some()), (Index(1), true));
    machine.input(Input::Written { token });
    assert_eq!(machine.raft.durable_index(), Index(1), "the first again, while the second is under way");
    machine.persist();
    assert_eq!(machine.raft.durable_index(), Index(2));
}

/// tigerbeetle#2253: entries of a new view were acknowledged before the view itself was durable.
#[test]
fn nothing_is_acknowledged_in_a_term_that_is_not_durable() {
    let mut machine = Machine::follower(3, &[1]);
    assert_eq!(machine.hear(2, append(5, id(1, 1), vec![], 0)), [], "not even a heartbeat");
    let (_, batch) = machine.write.clone().expect("the term");
    assert_eq!(batch.hard_state, Some(HardState { term: Term(5), voted_for: None }));
    assert_eq!(machine.hear(2, append(5, id(1, 1), vec![entry(5, 2)], 0)), []);
    let replies = append_replies(&machine.persist());
    assert!(replies.iter().all(|reply| reply.outcome == AppendOutcome::Durable(Index(1))), "{replies:?}");
    assert_eq!(append_replies(&machine.persist())[0].outcome, AppendOutcome::Durable(Index(2)));
    assert_eq!(machine.restart().raft.term(), Term(5));
}

/// etcd-io/etcd#14370: a cluster of one server answered a write before it had synced it, and lost it with its power.
#[test]
fn a_cluster_of_one_answers_for_what_its_disk_has() {
    for synced in 0..=2 {
        let mut machine = Machine::leader(Config::default(), 1, 0, 0, &[]);
        machine.persist();
        machine.propose(b"first");
        // Waits until the write of the first has ended.
        machine.propose(b"second");
        (0..synced).for_each(|_| drop(machine.persist()));
        let answered = machine.committed();
        assert_eq!(answered.len(), 1 + synced);
        let machine = machine.restart();
        assert!(answered.iter().all(|entry| machine.raft.entry(entry.id.index) == Some(entry)));
    }
}
