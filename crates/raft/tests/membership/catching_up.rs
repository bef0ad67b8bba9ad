//! Servers that come to a configuration late: from behind, from a snapshot, from nothing.

use MemberKind::{Learner, Voter};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{ClusterTime, Entry, EntryKind, HardState, LocalTime, Member, MemberKind, Term, codec};
use atomix_raft::{Raft, Recovered, Role};
use atomix_testkit::scenario::members::member;
use bytes::Bytes;

use super::*;

/// §4.1: the leader and the voters of now are unknown to a server that has been away; it takes their entries all the
/// same, and gives them its vote.
#[test]
fn a_server_behind_two_configurations_follows_and_votes_for_those_it_does_not_know() {
    let mut cluster = led_by_1(3, 2);
    cluster.isolate(server(3));
    let first = make(&cluster, 1, &[(4, Voter), (5, Voter)]);
    complete(&mut cluster, &first);
    let sixth = join(&mut cluster, Learner);
    let second = Change { remove: vec![server(1), server(2)], ..make(&cluster, 1, &[(sixth, Voter)]) };
    complete(&mut cluster, &second);
    run(&mut cluster, 1_500);
    let leader = cluster.leader().unwrap();
    assert!(leader.0 >= 4 && voters(in_use(&cluster, leader.0)) == [3, 4, 5, 6]);
    assert_eq!(voters(in_use(&cluster, 3)), [1, 2, 3]);
    [1, 2].into_iter().for_each(|id| cluster.crash(server(id), 0));
    // Three of four are needed: 6 is new to server 3, and needs its vote.
    cluster.crash(leader, 0);
    cluster.heal();
    run(&mut cluster, 3_000);
    let next = cluster.leader().expect("3 voted for one it does not know, or was elected");
    assert_ne!(next, leader);
    assert_eq!(voters(in_use(&cluster, 3)), [3, 4, 5, 6]);
    assert!(cluster.agreed().is_some());
}

/// A server that joins knows the configuration that takes it in, and has an empty log. What it reads on its way there
/// is old.
#[test]
fn a_joiner_does_not_go_by_the_configurations_that_it_replays() {
    let config = Config { append_bytes: 1, appends_in_flight: 1, ..Config::default() };
    let mut cluster = led_by_1_with(3, 1, config);
    let promoted = make(&cluster, 1, &[(4, Voter)]);
    complete(&mut cluster, &promoted);
    let back = make(&cluster, 1, &[(4, Learner)]);
    complete(&mut cluster, &back);
    let change = add(&cluster, 1, Learner);
    let floor = complete(&mut cluster, &change).index;
    cluster.join(server(5), server(1));
    assert_eq!((in_use(&cluster, 5).index, committed(&cluster, 5)), (floor, floor));
    cluster.tick_one(server(1));
    let mut seen = 0;
    while cluster.raft(server(5)).last().index < floor {
        assert_eq!((in_use(&cluster, 5).index, committed(&cluster, 5)), (floor, floor));
        assert_eq!(cluster.checker().violation(), None);
        let before = cluster.raft(server(5)).last().index;
        cluster.deliver_link(server(1), server(5));
        cluster.persist(server(5));
        cluster.deliver_link(server(5), server(1));
        if cluster.raft(server(5)).last().index > before {
            seen += 1;
            // In the middle of it, it starts again.
            if seen == 4 {
                cluster.crash(server(5), 0);
                cluster.restart(server(5));
                assert_eq!((in_use(&cluster, 5).index, cluster.raft(server(5)).last().index.0), (floor, 4));
                run(&mut cluster, 0);
                cluster.input(server(1), atomix_raft::Input::LinkOpened { to: server(5) });
            }
        }
    }
    assert!(seen > 4);
    run(&mut cluster, 300);
    assert_eq!(cluster.followed(server(5)), [], "nothing that it did not know");
    let change = make(&cluster, 1, &[(5, Voter)]);
    let begun = complete(&mut cluster, &change).index;
    assert_eq!(cluster.followed(server(5)), [begun, begun.next()]);
    assert_eq!(voters(in_use(&cluster, 5)), [1, 2, 3, 5]);
}

/// openraft#1808: a snapshot brings its configuration along, and it is told.
#[test]
fn a_snapshot_brings_the_configuration_along() {
    let config = Config { log_memory_bytes: 1, log_tail_bytes: 0, ..Config::default() };
    let mut cluster = led_by_1_with(3, 2, config);
    cluster.isolate(server(3));
    let change = make(&cluster, 1, &[(4, Voter), (5, Voter)]);
    complete(&mut cluster, &change);
    let out = remove(&cluster, 1, &[3]);
    let begun = complete(&mut cluster, &out).index;
    let again = add(&cluster, 1, Learner);
    let latest = complete(&mut cluster, &again).index;
    cluster.propose(server(1), "x").unwrap();
    run(&mut cluster, 100);
    cluster.snapshot(server(1));
    // Server 6 joins by a snapshot that is later than what it knew, server 3 has left and learns it from nobody.
    cluster.join(server(6), server(1));
    run(&mut cluster, 700);
    assert_eq!(cluster.raft(server(6)).marks().snapshot_installed, 1);
    assert_eq!((in_use(&cluster, 6).index, latest > begun), (latest, true));
    let change = make(&cluster, 1, &[(6, Voter)]);
    complete(&mut cluster, &change);
    assert_eq!(voters(in_use(&cluster, 6)), [1, 2, 4, 5, 6]);
    // What it has now outlives a restart.
    cluster.crash(server(6), 0);
    cluster.restart(server(6));
    assert_eq!(voters(in_use(&cluster, 6)), [1, 2, 4, 5, 6]);
}

fn configuration(index: u64, voters: &[u64]) -> Configuration {
    let members: Vec<Member> = voters.iter().map(|id| member(*id, Voter)).collect();
    Configuration { members, index: Index(index), next_server_id: 9, ..Configuration::default() }
}

/// Entries from index `from` on, those at the indexes given with configurations.
fn entries(from: u64, through: u64, configurations: &[(u64, &[u64])]) -> Vec<Entry> {
    let entry = |index: u64| {
        let carried = configurations.iter().find(|(at, _)| *at == index);
        let (kind, payload) = match carried {
            Some((at, voters)) => (EntryKind::Configuration, codec::to_bytes(&configuration(*at, voters))),
            None => (EntryKind::NoOp, Bytes::new()),
        };
        Entry { id: EntryId::new(Term(1), Index(index)), time: ClusterTime(index), kind, payload }
    };
    (from..=through).map(entry).collect()
}

/// What a disk holds: a configuration, a snapshot (its last entry and its configuration), entries. Which is in use?
#[test]
fn what_is_recovered_is_the_latest_that_may_count() {
    let snapshot = |last: u64, index: u64, voters: &[u64]| SnapshotMeta {
        last: EntryId::new(Term(1), Index(last)),
        time: ClusterTime(0),
        configuration: configuration(index, voters),
        size: 0,
        checksum: 0,
    };
    let (one, two, three) = (&[1][..], &[1, 2][..], &[1, 2, 3][..]);
    for (kept, snapshot, entries, used, committed) in [
        // The log goes on behind the configuration that was kept.
        (configuration(0, one), None, entries(1, 4, &[(3, two)]), 3, 0),
        (configuration(3, two), None, entries(1, 6, &[(3, two), (5, three)]), 5, 3),
        (configuration(3, two), None, entries(1, 6, &[(2, one), (3, two)]), 3, 3),
        // It has not come to it yet.
        (configuration(9, three), None, entries(1, 6, &[(3, two)]), 9, 9),
        (configuration(9, three), None, Vec::new(), 9, 9),
        // A snapshot is later than what was kept, or earlier.
        (configuration(2, one), Some(snapshot(4, 3, two)), entries(5, 6, &[]), 3, 3),
        (configuration(2, one), Some(snapshot(4, 3, two)), entries(5, 6, &[(6, three)]), 6, 3),
        (configuration(6, three), Some(snapshot(4, 3, two)), entries(5, 6, &[(6, three)]), 6, 6),
        (configuration(9, three), Some(snapshot(4, 3, two)), entries(5, 6, &[(6, one)]), 9, 9),
        (configuration(9, three), Some(snapshot(4, 3, two)), Vec::new(), 9, 9),
    ] {
        let what = format!("{kept:?} {snapshot:?} {entries:?}");
        let hard_state = HardState { term: Term(1), voted_for: None };
        let recovered = Recovered { hard_state, configuration: kept, snapshot, entries, abstention: None };
        let raft = Raft::new(Config::default(), server(1), recovered, 1, LocalTime::from_millis(1_000));
        assert_eq!(raft.configuration().index, Index(used), "{what}");
        assert_eq!(raft.committed_configuration().index, Index(committed), "{what}");
    }
}

/// A directory whose last configuration names it no more starts. As long as it does not know that this is committed, it asks
/// whether it is needed (§4.2.2), and no more.
#[test]
fn a_server_that_has_left_starts_again_and_only_asks() {
    let recovered = Recovered {
        hard_state: HardState { term: Term(1), voted_for: None },
        configuration: configuration(0, &[1, 2, 3]),
        snapshot: None,
        entries: entries(1, 4, &[(4, &[1, 2])]),
        abstention: None,
    };
    let mut raft = Raft::new(Config::default(), server(3), recovered, 1, LocalTime::from_millis(1_000));
    let mut seen = Vec::new();
    for millis in (1_000..20_000).step_by(50) {
        raft.step(LocalTime::from_millis(millis), atomix_raft::Input::Tick);
        if !seen.contains(&raft.role()) {
            seen.push(raft.role());
        }
    }
    assert_eq!((seen, raft.term()), (vec![Role::Follower, Role::PreCandidate], Term(1)));
}
