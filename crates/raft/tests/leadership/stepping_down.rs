//! Who stops leading, and who may make it: a disk that hangs (D6), a server that comes back (fault N7). One test per
//! rule, and one per bug that others had, named after what broke.

use atomix_protocol::Term;
use atomix_raft::{Config, Raft, Role};
use atomix_testkit::scenario::Running;

use crate::{role, term, three, told_to_campaign};

// D6.

/// hashicorp/raft#503, #612, #666 and robustirc#164: a leader whose disk hung kept its followers from electing another.
#[test]
fn hashicorp_raft_503_a_leader_whose_disk_hangs_hands_over() {
    let mut running = three();
    running.hang(1, true);
    let before = term(&running, 1);
    running.propose(1).unwrap();
    running.run(250);
    let (leader, last) = (running.leader(), running.raft(1).map(Raft::last).map(|id| id.index));
    assert_eq!(leader, Some(1), "a disk may be slow");
    assert_eq!(Some(running.committed()), last, "others' copies are enough (§10.2.1)");
    running.run(150);
    assert!(running.leader().is_some_and(|leader| leader != 1));
    let marks = *running.raft(1).expect("it is up").marks();
    assert_eq!((marks.stalled_hand_over, marks.stalled_step_down), (1, 0));
    // It does not flap, though it is cut off and hears no leader.
    running.isolate(1);
    running.run(5_000);
    assert_eq!((role(&running, 1), term(&running, 1)), (Role::Follower, before.next()));
    assert_eq!(running.raft(1).map(|raft| raft.counters().elections), Some(1));
    running.heal();
    running.hang(1, false);
    running.run(1_000);
    let agreed: Vec<_> = (1..=3).map(|id| running.raft(id).map(Raft::applied_index)).collect();
    assert_eq!(agreed, [Some(running.committed()); 3]);
    assert_eq!(running.verdict(), Ok(()));
}

#[test]
fn d6_it_stops_leading_if_nobody_takes_over() {
    let mut running = three();
    (1..=3).for_each(|id| running.hang(id, true));
    running.propose(1).unwrap();
    running.run(300);
    assert_eq!(running.leader(), Some(1));
    running.run(800);
    assert_eq!((running.leader(), told_to_campaign(&mut running)), (None, vec![]));
    assert_eq!(running.raft(1).map(|raft| raft.marks().stalled_step_down), Some(1));
    running.run(3_000);
    assert_eq!(running.leader(), None, "nobody could make a vote durable");
    (1..=3).for_each(|id| running.hang(id, false));
    assert!(running.elect().is_some());
}

#[test]
fn d6_a_disk_that_works_again_in_time_changes_nothing() {
    let mut running = three();
    let before = term(&running, 1);
    for _ in 0..10 {
        running.hang(1, true);
        running.propose(1).unwrap();
        running.run(280);
        running.hang(1, false);
        running.run(1);
    }
    assert_eq!((running.leader(), term(&running, 1)), (Some(1), before));
    assert_eq!(running.raft(1).map(|raft| raft.marks().hand_over_begun), Some(0));
}

#[test]
fn d6_a_single_voter_waits_for_its_disk() {
    let mut alone = Running::new(1, &[], Config::default());
    alone.elect();
    alone.hang(1, true);
    alone.propose(1).unwrap();
    alone.run(5_000);
    assert_eq!(alone.leader(), Some(1));
}

#[test]
fn d6_a_follower_whose_disk_hangs_does_not_campaign() {
    let mut running = three();
    running.hang(3, true);
    running.propose(1).unwrap();
    running.run(10);
    running.stop(1);
    assert_eq!(running.elect(), None, "3 can't make its vote durable, and 2 has no quorum without it");
    assert_eq!(role(&running, 3), Role::Follower);
    running.hang(3, false);
    assert!(running.elect().is_some());
}

// Who may disturb a leader (fault N7).

#[test]
fn n7_a_server_that_was_cut_off_comes_back_and_disturbs_nobody() {
    let mut running = three();
    let before = term(&running, 1);
    running.isolate(3);
    running.run(20_000);
    assert_eq!(
        (role(&running, 3), term(&running, 3)),
        (Role::PreCandidate, before),
        "pre-votes raise no term"
    );
    running.heal();
    running.run(2_000);
    assert_eq!((running.leader(), term(&running, 1), term(&running, 3)), (Some(1), before, before));
}

#[test]
fn n7_a_server_that_comes_back_with_a_huge_term_costs_one_election() {
    let mut running = three();
    running.stop(3);
    running.raise_term(3, 1_000_000);
    running.run(500);
    running.start(3);
    running.run(5_000);
    let after = term(&running, 1);
    assert_eq!(after, Term(1_000_001));
    assert!(running.leader().is_some());
    running.run(10_000);
    assert_eq!((term(&running, 1), running.verdict()), (after, Ok(())));
}

/// tikv/raft-rs#84 and databendlabs/openraft#1796: the one whose log could win was behind in term, so its pre-votes
/// were refused; the one ahead in term had the shorter log. With pre-vote and check-quorum nobody led any more.
#[test]
fn raft_rs_84_a_peer_with_a_later_term_and_a_shorter_log_is_needed_for_the_quorum() {
    let mut running = three();
    running.stop(3);
    running.raise_term(3, 50);
    running.propose(1).unwrap();
    running.run(100);
    running.stop(1);
    running.start(3);
    assert_eq!(running.elect(), Some(2), "it learns the term from a refusal");
    assert!(term(&running, 2) > Term(50));
    assert_eq!(running.verdict(), Ok(()));
}

/// canonical/raft PR 281: two servers asked each other, and each took the other for one that campaigned already.
#[test]
fn canonical_raft_281_pre_candidates_do_not_wait_for_each_other() {
    for seed in 0..20 {
        let mut running = three();
        running.stop(1);
        running.run(100 + seed * 25);
        // What they say crosses.
        running.hold(2, 3);
        running.hold(3, 2);
        running.run(700);
        running.heal();
        assert!(running.elect().is_some(), "seed {seed}");
    }
}
