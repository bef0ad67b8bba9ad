//! Servers that leave: they learn of it, and then disturb nobody; the leader itself included (§4.2.2, §4.2.3).

use MemberKind::{Learner, Reserve, Voter};
use atomix_protocol::peer::{PeerMessage, PreVote, RequestVote};
use atomix_protocol::{MemberKind, Term};
use atomix_raft::{Input, Role};

use super::*;

/// Fault M4.
#[test]
fn a_leader_that_leaves_leads_until_that_is_committed_and_hands_over() {
    let mut cluster = led_by_1(3, 0);
    let first = cluster.raft(server(1)).term();
    let change = remove(&cluster, 1, &[1]);
    let begun = cluster.change(server(1), &change).unwrap();
    // It still leads, and counts on the old side, when the final configuration is in its log.
    while in_use(&cluster, 1).outgoing_voters.is_some() {
        cluster.busy_links().into_iter().for_each(|(from, to, _)| cluster.deliver_link(from, to));
        cluster.all().into_iter().for_each(|id| cluster.persist(id));
    }
    assert_eq!((cluster.leader(), voters(in_use(&cluster, 1))), (Some(server(1)), vec![2, 3]));
    // Its own copy does not count any more: with only one of the two others it commits nothing.
    cluster.isolate(server(3));
    cluster.settle();
    assert_eq!(cluster.raft(server(1)).commit_index(), begun.index);
    cluster.heal();
    run(&mut cluster, 300);
    let leader = cluster.leader().unwrap();
    assert!([2, 3].contains(&leader.0), "{leader}");
    assert_eq!(cluster.raft(server(1)).role(), Role::Follower);
    assert_eq!(cluster.raft(server(1)).marks().leader_removed_itself, 1);
    assert_eq!(committed(&cluster, 1), begun.index.next(), "it knows that it is out");
    let term = cluster.raft(leader).term();
    assert_eq!(term, first.next(), "one campaign, by the one that was told to");
    run(&mut cluster, 3_000);
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
    assert_eq!(cluster.raft(server(1)).role(), Role::Follower, "it never campaigns again");
}

#[test]
fn a_leader_that_becomes_a_learner_hands_over_and_goes_on_learning() {
    let mut cluster = led_by_1(3, 0);
    let change = make(&cluster, 1, &[(1, Learner)]);
    complete(&mut cluster, &change);
    run(&mut cluster, 700);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, server(1));
    cluster.propose(leader, "x").unwrap();
    run(&mut cluster, 200);
    assert!(cluster.agreed().is_some(), "1 too");
}

#[test]
fn the_only_other_voter_takes_over_from_a_leader_that_leaves() {
    let mut cluster = led_by_1(2, 0);
    let change = remove(&cluster, 1, &[1]);
    complete(&mut cluster, &change);
    run(&mut cluster, 1_500);
    assert_eq!((cluster.leader(), voters(in_use(&cluster, 2))), (Some(server(2)), vec![2]));
}

#[test]
fn whoever_leaves_is_told_so_and_forgotten_then() {
    let mut cluster = led_by_1(3, 1);
    let change = remove(&cluster, 1, &[3, 4]);
    let begun = complete(&mut cluster, &change);
    for id in [3, 4] {
        let raft = cluster.raft(server(id));
        assert!(raft.committed_configuration().index >= begun.index, "{id}");
        assert_eq!(raft.committed_configuration().member(server(id)), None, "{id}");
    }
    let followers =
        |cluster: &Cluster| cluster.raft(server(1)).matches().map(|(id, _)| id.0).collect::<Vec<_>>();
    assert_eq!(followers(&cluster), [2]);
    // One that is down is given up in the end.
    cluster.crash(server(2), 0);
    let mut cluster = led_by_1(4, 0);
    cluster.crash(server(4), 0);
    let change = remove(&cluster, 1, &[4]);
    complete(&mut cluster, &change);
    assert_eq!(followers(&cluster), [2, 3, 4]);
    run(&mut cluster, 6_000);
    assert_eq!(followers(&cluster), [2, 3]);
}

/// Fault M14: whatever a removed server says, nobody listens, and its id is never given again.
#[test]
fn a_removed_server_disturbs_nobody_and_its_id_never_comes_back() {
    let mut cluster = led_by_1(4, 0);
    let term = cluster.raft(server(1)).term();
    cluster.isolate(server(4));
    let change = remove(&cluster, 1, &[4]);
    complete(&mut cluster, &change);
    cluster.heal();
    (1..=3).for_each(|id| cluster.cut(server(id), server(4)));
    let last = cluster.raft(server(4)).last();
    assert!(in_use(&cluster, 4).is_voter(server(4)), "it never heard");
    // It asks in every way, and its terms are far ahead. The leader hears it too.
    for id in 1..=3 {
        for term in [5, 50, 500].map(Term) {
            for message in [
                PeerMessage::PreVote(PreVote { term, last }),
                PeerMessage::RequestVote(RequestVote { term, last, transfer: None }),
                PeerMessage::RequestVote(RequestVote {
                    term,
                    last,
                    transfer: Some(cluster.raft(server(1)).round()),
                }),
            ] {
                cluster.input(server(id), Input::Received { from: server(4), message });
            }
        }
        assert_eq!(cluster.raft(server(id)).marks().removed_ignored, 9);
    }
    run(&mut cluster, 3_000);
    assert_eq!((cluster.leader(), cluster.raft(server(1)).term()), (Some(server(1)), term));
    assert_eq!(join(&mut cluster, Learner), 5);
    let change = remove(&cluster, 1, &[5]);
    complete(&mut cluster, &change);
    assert_eq!(join(&mut cluster, Reserve), 6);
    assert_eq!(kinds(in_use(&cluster, 1)), [(1, Voter), (2, Voter), (3, Voter), (6, Reserve)]);
}

/// A server with a new id is heard by those that do not know it yet, a removed one by nobody who knows that.
#[test]
fn strangers_are_heard_and_removed_servers_are_not() {
    let mut cluster = led_by_1(3, 1);
    let change = remove(&cluster, 1, &[4]);
    complete(&mut cluster, &change);
    run(&mut cluster, 700);
    let later = Term(cluster.raft(server(2)).term().0 + 1);
    let ask = |cluster: &mut Cluster, from: u64| {
        let message = PeerMessage::RequestVote(RequestVote {
            term: later,
            last: cluster.raft(server(2)).last(),
            transfer: Some(cluster.raft(server(1)).round()),
        });
        cluster.input(server(2), Input::Received { from: server(from), message });
        cluster.raft(server(2)).term()
    };
    let before = cluster.raft(server(2)).term();
    assert_eq!(ask(&mut cluster, 4), before, "4 was removed");
    assert_eq!(ask(&mut cluster, 5), later, "5 may have joined since");
}

/// What a leader that leaves wrote last may be on its own disk only. If others need its vote, which it gives to no shorter log, it
/// must campaign itself (§4.2.2).
#[test]
fn a_server_that_leaves_campaigns_while_that_is_not_committed() {
    let mut cluster = led_by_1(2, 0);
    let change = remove(&cluster, 1, &[1]);
    cluster.change(server(1), &change).unwrap();
    // The joint configuration is everywhere and committed; the final one gets no further than this.
    while in_use(&cluster, 1).outgoing_voters.is_some() || committed(&cluster, 1) == Index(0) {
        cluster.busy_links().into_iter().for_each(|(from, to, _)| cluster.deliver_link(from, to));
        cluster.all().into_iter().for_each(|id| cluster.persist(id));
    }
    cluster.persist(server(1));
    cluster.isolate(server(1));
    assert!(in_use(&cluster, 2).outgoing_voters.is_some());
    run(&mut cluster, 2_000);
    assert_eq!(cluster.leader(), None, "nobody has a quorum, and the old leader has given up");
    cluster.heal();
    run(&mut cluster, 3_000);
    assert_eq!((cluster.leader(), voters(in_use(&cluster, 2))), (Some(server(2)), vec![2]));
    assert_eq!(cluster.raft(server(1)).role(), Role::Follower);
}
