//! What counts towards a commit, and what is handed on.

use atomix_protocol::*;
use atomix_raft::{Config, Input, Output, Role};

use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::*;

/// databendlabs/openraft#1802: the acknowledgements were not sorted before the median was taken, which made quorums
/// of nothing.
#[test]
fn a_quorum_is_counted_right_in_whatever_order_its_acknowledgements_come() {
    for case in 0..5_u32.pow(4) {
        let acknowledged: Vec<u64> = (0..4).map(|place| u64::from(case / 5_u32.pow(place) % 5) + 1).collect();
        let mut machine = Machine::leader(Config::default(), 5, 0, 0, &[]);
        machine.persist();
        (2..=5).for_each(|follower| drop(machine.hear(follower, durable(1, 1, 1))));
        for _ in 0..4 {
            machine.propose(b"command");
        }
        machine.persist();
        machine.persist();
        assert_eq!(machine.raft.durable_index(), Index(5));
        let mut held = vec![5, 1, 1, 1, 1];
        for follower in 0..4 {
            machine.hear(follower as u64 + 2, durable(1, 1, acknowledged[follower]));
            held[follower + 1] = acknowledged[follower];
            let mut sorted = held.clone();
            sorted.sort_unstable();
            assert_eq!(machine.raft.commit_index(), Index(sorted[2]), "{held:?}");
        }
    }
}

/// atomix/copycat PR 155 and databendlabs/openraft@beb0302b: servers without a vote were counted.
#[test]
fn a_learner_counts_for_nothing() {
    let mut machine = Machine::new(3, 3, 0, &[]);
    machine.pass(700);
    (4..=6).for_each(|learner| drop(machine.hear(learner, pre_vote_granted(1, 0))));
    assert_eq!(machine.raft.role(), Role::PreCandidate);
    machine.hear(2, pre_vote_granted(1, 0));
    machine.persist();
    (4..=6).for_each(|learner| drop(machine.hear(learner, vote_granted(1))));
    assert_eq!(machine.raft.role(), Role::Candidate);
    machine.hear(2, vote_granted(1));
    machine.persist();
    assert_eq!(machine.raft.role(), Role::Leader);
    (4..=6).for_each(|learner| drop(machine.hear(learner, durable(1, 1, 1))));
    assert_eq!(machine.raft.commit_index(), Index(0));
    machine.hear(3, durable(1, 1, 1));
    assert_eq!(machine.raft.commit_index(), Index(1));
    machine.raft.read(machine.now, 7).unwrap();
    machine.drain();
    let round = machine.raft.round().0;
    (4..=6).for_each(|learner| drop(machine.hear(learner, durable(1, round, 1))));
    assert_eq!(machine.raft.counters().reads_confirmed, 0);
    // They are heard all the time, and no voter is.
    for _ in 0..8 {
        machine.pass(50);
        (4..=6).for_each(|learner| drop(machine.hear(learner, durable(1, 1, 1))));
    }
    assert_eq!(machine.raft.role(), Role::Follower);
    assert!(machine.outputs.contains(&Output::ReadsFailed { reads: vec![7] }));
}

/// etcd-io/etcd#10063: entries were handed on page by page, and a page that came late skipped some or took the commit
/// index back.
#[test]
fn what_is_handed_on_has_no_gap_and_no_repetition_however_slowly_it_is_applied() {
    let mut machine = Machine::follower(1, &[]);
    machine.applies = false;
    let mut commit = Index(0);
    for index in 1..=20 {
        let prev = if index == 1 { EntryId::ZERO } else { id(1, index - 1) };
        // The leader's commit index lags, leaps, and comes out of order.
        let leader_commit = [0, index, index / 2, index + 5][index as usize % 4];
        machine.hear(2, append(1, prev, vec![entry(1, index)], leader_commit));
        assert!(machine.raft.commit_index() >= commit);
        commit = machine.raft.commit_index();
        if index % 3 == 0 {
            let handed = machine.committed().len() as u64;
            machine.raft.applied(Index(handed / 2));
        }
        machine.persist();
    }
    machine.hear(2, append(1, id(1, 20), vec![], 20));
    assert_eq!(machine.committed(), log(&[1; 20]));
}

/// microsoft/CCF#5674: a negative acknowledgement from before took back what had been acknowledged, and a leader that
/// stepped down rolled back what was committed by it.
#[test]
fn a_stale_refusal_takes_back_nothing() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 2, &[1, 2, 2]);
    machine.persist();
    machine.hear(2, durable(3, 1, 4));
    assert_eq!((machine.raft.commit_index(), machine.matched(2)), (Index(4), 4));
    for stale in [
        mismatch(2, 1, id(2, 3), id(1, 1)),      // said in an earlier term
        mismatch(3, 1, id(2, 3), id(1, 1)),      // of what it has acknowledged since
        mismatch(3, 1, id(3, 4), EntryId::ZERO), // the same, at the very end
    ] {
        assert_eq!(appends(&machine.hear(2, stale)), [], "nothing is sent again");
        assert_eq!((machine.raft.commit_index(), machine.matched(2)), (Index(4), 4));
    }
    // Nor when entry 4 is what a heartbeat names. A follower that has less says so in a later round than it had more.
    machine.pass(50);
    machine.hear(2, mismatch(3, 1, id(3, 4), EntryId::ZERO));
    assert_eq!(machine.matched(2), 4);
    // Entry 5 may be on a quorum by now, though nobody here knows.
    machine.propose(b"command");
    machine.hear(2, append(9, EntryId::ZERO, vec![], 0));
    assert_eq!((machine.raft.role(), machine.terms()), (Role::Follower, vec![1, 2, 2, 3, 3]));
}

/// databendlabs/openraft#1500: the second copy of a conflict that had been resolved was taken for a log that had lost
/// entries.
#[test]
fn a_conflict_that_comes_late_is_no_loss() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 2, &[1, 2, 2]);
    machine.persist();
    let conflict = mismatch(3, 1, id(2, 3), id(1, 1));
    let again = appends(&machine.hear(2, conflict.clone()));
    assert_eq!((again[0].prev, again[0].entries.len()), (id(1, 1), 3), "it goes on where the logs may agree");
    machine.hear(2, durable(3, 1, 4));
    for _ in 0..2 {
        assert_eq!(appends(&machine.hear(2, conflict.clone())), []);
        assert_eq!((machine.matched(2), machine.raft.commit_index()), (4, Index(4)));
    }
    let next = appends(&machine.propose(b"command"));
    assert!(next.iter().any(|message| message.prev == id(3, 4)), "the pipeline stays open: {next:?}");
}

/// apache/ratis RATIS-2154: a leader that had heard of a later term sent its entries once more.
#[test]
fn nothing_is_appended_or_sent_in_a_term_that_is_over() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    machine.outputs.clear();
    machine.propose_quietly(b"before").expect("it leads");
    // Heard before the entry went out.
    machine.raft.step(machine.now, Input::Received { from: server(3), message: request_vote(2, id(1, 9)) });
    machine
        .raft
        .step(machine.now, Input::Received { from: server(3), message: append(2, id(1, 1), vec![], 1) });
    assert!(machine.propose_quietly(b"after").is_err());
    machine.drain();
    machine.persist();
    assert_eq!(appends(&said(&machine.outputs)), []);
    assert_eq!(machine.raft.last(), id(1, 2), "what was appended stays, until the leader says otherwise");
}
