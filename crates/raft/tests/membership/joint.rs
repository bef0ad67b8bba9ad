//! Joint consensus: both sides decide until the new one does alone (§4.3).

use MemberKind::{Learner, Leaving, Voter};
use atomix_protocol::change::Tolerance;
use atomix_protocol::{EntryKind, Index, MemberKind};
use atomix_testkit::scenario::directed::{elect, membership};

use super::*;

#[test]
fn voters_change_through_a_joint_configuration() {
    let mut cluster = led_by_1(3, 1);
    let change = Change { set_kind: vec![(server(4), Voter)], ..remove(&cluster, 1, &[3]) };
    let begun = cluster.change(server(1), &change).unwrap();
    let joint = in_use(&cluster, 1).clone();
    assert_eq!(kinds(&joint), [(1, Voter), (2, Voter), (3, Leaving), (4, Voter)]);
    assert_eq!(joint.outgoing_voters, Some([1, 2, 3].map(server).to_vec()));
    assert_eq!((joint.index, cluster.raft(server(1)).is_change_pending()), (begun.index, true));
    run(&mut cluster, 200);
    for id in [1, 2, 4] {
        assert_eq!(kinds(in_use(&cluster, id)), [(1, Voter), (2, Voter), (4, Voter)]);
        assert_eq!(
            (in_use(&cluster, id).index, &in_use(&cluster, id).outgoing_voters),
            (begun.index.next(), &None)
        );
        assert!(!cluster.raft(server(id)).is_change_pending());
    }
    assert_eq!(cluster.raft(server(1)).marks().learner_promoted, 1);
    assert!(cluster.raft(server(1)).marks().committed_while_joint > 0);
}

#[test]
fn what_leaves_the_voters_alone_takes_one_entry() {
    let mut cluster = led_by_1(3, 1);
    let change = Change { set_priority: vec![(server(2), 3)], ..remove(&cluster, 1, &[4]) };
    let begun = complete(&mut cluster, &change);
    for id in 1..=3 {
        let used = in_use(&cluster, id);
        assert_eq!((used.index, used.member(server(2)).unwrap().priority), (begun.index, 3));
        assert_eq!((used.member(server(4)), &used.outgoing_voters), (None, &None));
    }
    assert_eq!(cluster.raft(server(1)).last().index, begun.index);
}

#[test]
fn a_change_is_told_once_and_in_order() {
    let mut cluster = led_by_1(3, 1);
    let promoted = make(&cluster, 1, &[(4, Voter)]);
    let first = complete(&mut cluster, &promoted).index;
    let removed = remove(&cluster, 1, &[4]);
    let second = complete(&mut cluster, &removed).index;
    let told = [first, first.next(), second, second.next()];
    for id in 1..=3 {
        assert_eq!(cluster.followed(server(id)), told, "{id}");
        assert_eq!(cluster.raft(server(id)).committed_configuration(), in_use(&cluster, id));
    }
    // A restart tells only of what comes after what the disk knew.
    cluster.crash(server(3), 0);
    let again = add(&cluster, 1, Learner);
    let third = complete(&mut cluster, &again).index;
    cluster.restart(server(3));
    assert!(committed(&cluster, 3) <= second.next());
    run(&mut cluster, 700);
    let told = cluster.followed(server(3));
    assert!(told.last() == Some(&third) && told.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
}

/// The latest configuration in the log counts, committed or not (§4.1): with 3 gone from the voters, 1 and 2 must
/// both agree; while both sides decide, 2 alone is no longer enough either.
#[test]
fn the_latest_configuration_counts_at_once() {
    let mut cluster = led_by_1(3, 0);
    let change = remove(&cluster, 1, &[3]);
    let begun = cluster.change(server(1), &change).unwrap();
    cluster.isolate(server(2));
    cluster.settle();
    assert!(
        cluster.raft(server(1)).commit_index() < begun.index,
        "1 and 3 are a majority of the old side only"
    );
    cluster.heal();
    run(&mut cluster, 200);
    assert_eq!(voters(in_use(&cluster, 2)), [1, 2]);
}

/// Fault M2, microsoft/CCF#3948; and the other histories that have gone wrong elsewhere.
#[test]
fn known_histories_are_safe() {
    assert_eq!(membership::majority_of_both_sides_together(), Ok(()));
    assert_eq!(membership::change_before_the_own_entry(), Ok(()));
    assert_eq!(membership::configuration_in_a_snapshot(), Ok(()));
    assert_eq!(membership::learners_alone(), Ok(()));
}

/// Fault M3: the leader fails between the joint configuration and the final one.
#[test]
fn the_next_leader_completes_a_change() {
    for committed_first in [false, true] {
        let mut cluster = led_by_1(3, 1);
        let change = make(&cluster, 1, &[(4, Voter)]);
        let begun = cluster.change(server(1), &change).unwrap();
        // Everyone holds the joint configuration; the leader may know that it is committed. The final one goes nowhere.
        (2..=4).for_each(|id| cluster.deliver_link(server(1), server(id)));
        cluster.all().into_iter().for_each(|id| cluster.persist(id));
        if committed_first {
            (2..=4).for_each(|id| cluster.deliver_link(server(id), server(1)));
            assert_eq!(in_use(&cluster, 1).outgoing_voters, None);
        }
        cluster.crash(server(1), 0);
        cluster.campaign(server(2));
        run(&mut cluster, 700);
        let leader = cluster.leader().unwrap();
        assert_eq!(cluster.raft(leader).marks().change_completed_by_another, 1);
        for id in 2..=4 {
            let used = in_use(&cluster, id);
            assert_eq!((voters(used), &used.outgoing_voters), (vec![1, 2, 3, 4], &None));
            assert!(used.index > begun.index && committed(&cluster, id) == used.index);
        }
        // Not before an entry of its own was committed.
        let own = cluster.raft(leader).entry(used_at(&cluster, leader.0)).unwrap();
        assert_eq!((own.kind, own.id.term), (EntryKind::Configuration, cluster.raft(leader).term()));
        cluster.restart(server(1));
        run(&mut cluster, 700);
        assert!(cluster.agreed().is_some());
    }
}

fn used_at(cluster: &Cluster, id: u64) -> Index {
    in_use(cluster, id).index
}

/// Fault M5: a configuration that was not committed goes with the suffix that held it.
#[test]
fn a_configuration_that_is_overwritten_is_left_again() {
    let mut cluster = led_by_1(3, 1);
    (2..=4).for_each(|id| cluster.cut(server(1), server(id)));
    let change = make(&cluster, 1, &[(4, Voter)]);
    let begun = cluster.change(server(1), &change).unwrap();
    cluster.persist(server(1));
    assert_eq!(voters(in_use(&cluster, 1)), [1, 2, 3, 4]);
    cluster.isolate(server(1));
    elect(&mut cluster, 2, &[3]).unwrap();
    run(&mut cluster, 100);
    cluster.propose(server(2), "over it").unwrap();
    cluster.settle();
    cluster.heal();
    run(&mut cluster, 700);
    assert_eq!(cluster.raft(server(1)).marks().configuration_rolled_back, 1);
    assert_eq!((in_use(&cluster, 1).index, committed(&cluster, 1)), (Index(0), Index(0)));
    assert_eq!(voters(in_use(&cluster, 1)), [1, 2, 3]);
    assert!(cluster.agreed().unwrap() >= begun.index);
    // The same from the disk: what is in the log counts until it is overwritten.
    let again = make(&cluster, 2, &[(4, Voter)]);
    complete(&mut cluster, &again);
    assert_eq!(voters(in_use(&cluster, 1)), [1, 2, 3, 4]);
}

#[test]
fn an_uncommitted_configuration_is_in_use_after_a_restart() {
    let mut cluster = led_by_1(3, 1);
    let change = make(&cluster, 1, &[(4, Voter)]);
    let begun = cluster.change(server(1), &change).unwrap();
    cluster.deliver_link(server(1), server(2));
    cluster.persist(server(2));
    cluster.crash(server(2), 0);
    cluster.restart(server(2));
    assert_eq!((in_use(&cluster, 2).index, committed(&cluster, 2)), (begun.index, Index(0)));
    assert!(in_use(&cluster, 2).outgoing_voters.is_some());
}

#[test]
fn a_plan_says_what_can_be_lost() {
    let mut cluster = led_by_1(3, 2);
    cluster.isolate(server(3));
    run(&mut cluster, 310);
    let tolerance = |voters, quorum, failures, answering| Tolerance { voters, quorum, failures, answering };
    let more = cluster.plan(server(1), &make(&cluster, 1, &[(4, Voter), (5, Voter)]));
    assert_eq!(more.refused, None);
    assert_eq!(voters(&more.configuration), [1, 2, 3, 4, 5]);
    assert_eq!(more.before, tolerance(3, 2, 1, 2));
    assert_eq!(more.during, Some(tolerance(5, 3, 1, 4)));
    assert_eq!(more.after, tolerance(5, 3, 2, 4));
    let apart = Change { remove: vec![server(2), server(3)], ..make(&cluster, 1, &[(4, Voter), (5, Voter)]) };
    let apart = cluster.plan(server(1), &apart);
    assert_eq!(apart.during, Some(tolerance(5, 3, 1, 4)), "1 counts on both sides");
    assert_eq!(kinds(&apart.configuration), [(1, Voter), (4, Voter), (5, Voter)]);
    let plain = cluster.plan(server(1), &remove(&cluster, 1, &[5]));
    assert_eq!((plain.during, plain.after), (None, tolerance(3, 2, 1, 2)));
    assert_eq!(kinds(&plain.configuration)[3..], [(4, Learner)]);
    assert_eq!(
        cluster.plan(server(2), &unchanged(&cluster, 2)).before,
        tolerance(3, 2, 1, 0),
        "2 does not know"
    );
}

/// Fault M17: every size, one more and one fewer, and the leader among those that go.
#[test]
fn every_size_grows_and_shrinks() {
    for size in 1..=6 {
        let mut cluster = led_by_1(size, 1);
        let change = make(&cluster, 1, &[(size + 1, Voter)]);
        complete(&mut cluster, &change);
        let all: Vec<u64> = (1..=size + 1).collect();
        for id in &all {
            assert_eq!(voters(in_use(&cluster, *id)), all);
        }
        let fewer = remove(&cluster, 1, &[1]);
        complete(&mut cluster, &fewer);
        run(&mut cluster, 1_500);
        let leader = cluster.leader().unwrap();
        assert_ne!(leader, server(1));
        assert_eq!(voters(in_use(&cluster, leader.0)), all[1..]);
        cluster.propose(leader, "x").unwrap();
        run(&mut cluster, 100);
    }
}

#[test]
fn one_becomes_three_and_one_again() {
    let mut cluster = led_by_1(1, 0);
    let (two, three) = (join(&mut cluster, Learner), join(&mut cluster, Learner));
    assert_eq!((two, three), (2, 3));
    let both = make(&cluster, 1, &[(2, Voter), (3, Voter)]);
    complete(&mut cluster, &both);
    assert_eq!(voters(in_use(&cluster, 3)), [1, 2, 3]);
    cluster.propose(server(1), "x").unwrap();
    let back = remove(&cluster, 1, &[2, 3]);
    complete(&mut cluster, &back);
    assert_eq!(voters(in_use(&cluster, 1)), [1]);
    let alone = cluster.propose(server(1), "y").unwrap();
    cluster.settle();
    assert_eq!(cluster.raft(server(1)).commit_index(), alone.index);
}
