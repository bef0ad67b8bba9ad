//! Voters that are none any more, and hear of it in their own time: behind a snapshot, a restart, or a tail that never was
//! committed (R7). A reserve gets no entries that would put it right, and must not campaign for ever beside a cluster that is well.

use MemberKind::{Learner, Reserve, Voter};
use atomix_protocol::peer::{AppendEntries, Configure, PeerMessage};
use atomix_protocol::{ClusterTime, Entry, EntryKind, HardState, LocalTime, MemberKind, Round, Term, codec};
use atomix_raft::{Input, Raft, Recovered, Role};
use atomix_testkit::scenario::members::member;
use atomix_testkit::scenario::words::{entry, id};

use super::*;

fn kind(cluster: &Cluster, id: u64) -> Option<MemberKind> {
    in_use(cluster, id).member(server(id)).map(|member| member.kind)
}

#[test]
fn a_voter_no_more_does_not_campaign_after_a_restart() {
    for (snapshot, made) in [(false, Learner), (false, Reserve), (true, Learner), (true, Reserve)] {
        let mut cluster = led_by_1(3, 0);
        if snapshot {
            cluster.snapshot(server(3));
        }
        let change = make(&cluster, 1, &[(3, made)]);
        complete(&mut cluster, &change);
        run(&mut cluster, 300);
        let known = committed(&cluster, 3);
        assert_eq!(kind(&cluster, 3), Some(made));
        cluster.crash(server(3), 0);
        if made == Learner {
            cluster.isolate(server(3));
        }
        cluster.restart(server(3));
        assert_eq!(committed(&cluster, 3), known, "it knows");
        run(&mut cluster, 10_000);
        assert_eq!(cluster.raft(server(3)).role(), Role::Follower, "{made:?}, with a snapshot: {snapshot}");
    }
}

/// The same when the leader dies before anything else is written: it would even be elected.
#[test]
fn a_reserve_is_not_elected_after_a_restart() {
    let mut cluster = led_by_1(4, 0);
    cluster.snapshot(server(3));
    let change = make(&cluster, 1, &[(3, Reserve)]);
    complete(&mut cluster, &change);
    run(&mut cluster, 300);
    cluster.crash(server(3), 0);
    cluster.restart(server(3));
    cluster.crash(server(1), 0);
    for _ in 0..3 {
        cluster.campaign(server(3));
        for _ in 0..6 {
            cluster.busy_links().into_iter().for_each(|(from, to, _)| cluster.deliver_link(from, to));
            cluster.up().into_iter().for_each(|id| cluster.persist(id));
            assert_ne!(cluster.leader(), Some(server(3)), "it is a {:?}", kind(&cluster, 3));
        }
    }
}

/// A leader, server 3, is cut off with a tail that never is committed, and is made a reserve meanwhile. It has been told.
fn reserve_with_a_tail(snapshot: bool, tail_with_change: bool) -> Cluster {
    let mut cluster = led_by_1(3, 0);
    cluster.transfer(server(1), Some(server(3))).unwrap();
    run(&mut cluster, 700);
    assert_eq!(cluster.leader(), Some(server(3)));
    if snapshot {
        cluster.snapshot(server(3));
    }
    cluster.isolate(server(3));
    for _ in 0..10 {
        cluster.propose(server(3), "lost").unwrap();
    }
    if tail_with_change {
        let change = add(&cluster, 3, Learner);
        cluster.change(server(3), &change).unwrap();
    }
    run(&mut cluster, 3_000);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, server(3));
    let change = make(&cluster, leader.0, &[(3, Reserve)]);
    cluster.change(leader, &change).unwrap();
    run(&mut cluster, 8_000);
    cluster.heal();
    run(&mut cluster, 3_000);
    let known = committed(&cluster, leader.0);
    assert_eq!(committed(&cluster, 3), known, "it was told");
    assert!(cluster.raft(server(3)).last().index > known);
    cluster
}

#[test]
fn a_reserve_with_a_tail_that_never_was_committed_stays_one_after_a_restart() {
    for (snapshot, tail_with_change) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut cluster = reserve_with_a_tail(snapshot, tail_with_change);
        assert_eq!(kind(&cluster, 3), Some(Reserve));
        cluster.crash(server(3), 0);
        cluster.restart(server(3));
        run(&mut cluster, 5_000);
        let what = (kind(&cluster, 3), cluster.raft(server(3)).role());
        assert_eq!(what, (Some(Reserve), Role::Follower), "{snapshot} {tail_with_change}");
    }
}

#[test]
fn a_reserve_forgets_a_change_that_never_was_committed() {
    let cluster = reserve_with_a_tail(false, true);
    assert_eq!((kind(&cluster, 3), cluster.raft(server(3)).role()), (Some(Reserve), Role::Follower));
}

/// A leader that was deposed and does not know it still sends its tail to somebody who has been made a reserve since.
#[test]
fn a_reserve_that_is_told_again_forgets_a_change_that_came_with_an_old_leaders_tail() {
    let now = LocalTime::from_millis(1_000);
    let configuration = |index: u64, kind| Configuration {
        members: vec![member(1, Voter), member(2, Voter), member(3, kind)],
        index: Index(index),
        next_server_id: 4,
        ..Configuration::default()
    };
    let hard_state = HardState { term: Term(4), voted_for: None };
    let kept = configuration(2, Reserve);
    let recovered =
        Recovered { hard_state, configuration: kept, snapshot: None, entries: vec![], abstention: None };
    let mut raft = Raft::new(Config::default(), server(3), recovered, 1, now);
    let payload = codec::to_bytes(&Configuration { next_server_id: 5, ..configuration(3, Voter) });
    let change = Entry { id: id(4, 3), time: ClusterTime(30), kind: EntryKind::Configuration, payload };
    let tail = AppendEntries {
        term: Term(4),
        prev: EntryId::ZERO,
        leader_commit: Index(1),
        last_index: Index(0),
        time: ClusterTime(30),
        promise_ms: 0,
        round: Round(1),
        entries: vec![entry(4, 1), entry(4, 2), change],
    };
    let mut hear = |from, message| {
        raft.step(now, Input::Received { from: server(from), message });
        raft.drain(now);
        (raft.configuration().clone(), raft.committed_configuration().clone())
    };
    let (used, committed) = hear(1, PeerMessage::AppendEntries(tail));
    assert_eq!((used.index, committed), (Index(3), configuration(2, Reserve)));
    let told = |configuration| PeerMessage::Configure(Configure { term: Term(5), configuration });
    for configuration in [configuration(1, Voter), configuration(2, Voter), configuration(2, Reserve)] {
        let (used, committed) = hear(2, told(configuration));
        assert_eq!((used.index, &committed), (Index(2), &used));
        assert_eq!(used.member(server(3)).map(|member| member.kind), Some(Reserve));
    }
}
