//! Reads that were answered from the past.

use atomix_protocol::*;
use atomix_raft::{Config, Output, Role};

use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::*;

/// etcd-io/etcd#20418 and etcd-io/raft#397: a leader that had been paused found answers from before its pause, took
/// them for answers to the read that it was asked now, and had been deposed meanwhile.
#[test]
fn answers_from_before_a_pause_confirm_no_read_asked_after_it() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    machine.raft.read(machine.now, 1).unwrap();
    machine.drain();
    let before = machine.raft.round().0;
    // The pause. What it wakes up to: a read, and the answers that came meanwhile, the timer last.
    machine.now = machine.now + std::time::Duration::from_secs(10);
    machine.raft.read(machine.now, 2).unwrap();
    machine.drain();
    for follower in [2, 3] {
        machine.hear(follower, durable(1, before, 1));
    }
    let ready: Vec<Vec<u64>> = machine
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::ReadsReady { reads, .. } => Some(reads.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(ready, [[1]]);
    let outputs = machine.input(atomix_raft::Input::Received {
        from: server(3),
        message: append(2, EntryId::ZERO, vec![], 0),
    });
    assert!(outputs.contains(&Output::ReadsFailed { reads: vec![2] }));
    assert_eq!(machine.raft.role(), Role::Follower);
}

/// deventlab/d-engine#381: a read was served by a leader that no quorum had answered.
#[test]
fn no_answers_confirm_no_read() {
    let mut machine = Machine::leader(Config::default(), 5, 0, 0, &[]);
    machine.persist();
    [2, 3].into_iter().for_each(|follower| drop(machine.hear(follower, durable(1, 1, 1))));
    machine.raft.read(machine.now, 1).unwrap();
    machine.drain();
    let round = machine.raft.round().0;
    // One of the four answers, many times over.
    for _ in 0..10 {
        machine.pass(20);
        machine.hear(2, durable(1, round, 1));
        machine.hear(2, durable(1, round, 1));
    }
    assert_eq!(machine.raft.counters().reads_confirmed, 0);
    machine.pass(400);
    assert_eq!(machine.raft.role(), Role::Follower);
    assert!(machine.outputs.contains(&Output::ReadsFailed { reads: vec![1] }));
}
