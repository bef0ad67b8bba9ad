//! Leaders of followers that have lost what they acknowledged (D4).

use std::time::Duration;

use atomix_protocol::change::{Change, ChangeRefused, TransferRefused};
use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{Index, MemberKind, ServerId};
use atomix_raft::{Config, Output};
use atomix_testkit::scenario::words::*;
use atomix_testkit::scenario::{Cluster, Machine, Running, Settings};

const LEADER: ServerId = ServerId(1);
const DAMAGED: ServerId = ServerId(3);

/// Leads term 1; it and both followers hold entries 1 to 6.
fn leader(config: Config) -> Machine {
    let mut machine = Machine::leader(config, 3, 0, 0, &[]);
    machine.persist();
    for index in 1..=6 {
        [2, 3].into_iter().for_each(|follower| drop(machine.hear(follower, durable(1, 1, index))));
        if index < 6 {
            machine.propose(b"command");
            machine.persist();
        }
    }
    assert_eq!((machine.matched(3), machine.raft.commit_index()), (6, Index(6)));
    machine
}

/// The process of a follower ends and another begins between two heartbeats, without a word about the link.
#[test]
fn d4_a_follower_that_has_less_than_it_said_is_sent_the_rest_again() {
    for (left, from) in [(2, 3), (0, 1)] {
        let mut machine = leader(Config::default());
        let beat = appends(&said(&machine.pass(50)));
        assert_eq!(beat[1].prev, id(1, 6));
        let hint = if left == 0 { id(0, 0) } else { id(1, left) };
        let sent = appends(&machine.hear(3, mismatch(1, 2, id(1, 6), hint)));
        assert_eq!(machine.matched(3), 0, "nothing is known of it any more");
        assert_eq!(sent[0].entries.first().unwrap().id, id(1, from));
        assert_eq!(machine.raft.marks().match_went_back, 1);
        machine.hear(3, durable(1, 2, 6));
        assert_eq!(machine.matched(3), 6);
    }
}

#[test]
fn d4_what_memory_has_dropped_is_read_from_storage() {
    let mut machine = leader(Config { log_memory_bytes: 1, ..Config::default() });
    machine.pass(50);
    machine.raft.step(
        machine.now,
        atomix_raft::Input::Received { from: server(3), message: mismatch(1, 2, id(1, 6), id(1, 2)) },
    );
    let fetch = machine.drain().into_iter().find_map(|output| match output {
        Output::Fetch { to, from, through, .. } => Some((to, from, through)),
        _ => None,
    });
    assert_eq!(fetch, Some((server(3), Index(3), Index(6))));
}

/// Three voters that agree; 1 leads. Server 3 comes up without what is behind `keep`.
fn cluster(config: Config, keep: u64) -> Cluster {
    let mut cluster = Cluster::new(Settings { config, ..Settings::default() });
    cluster.campaign(LEADER);
    cluster.settle();
    for command in ["a", "b", "c", "d", "e", "f"] {
        cluster.propose(LEADER, command).expect("it leads");
        cluster.settle();
    }
    cluster.tick(Duration::from_millis(60));
    cluster.settle();
    if config_is_small(&cluster) {
        cluster.snapshot(LEADER);
    }
    cluster.crash(DAMAGED, 0);
    assert!(cluster.damage(DAMAGED, Index(keep)));
    cluster.restart(DAMAGED);
    cluster
}

fn config_is_small(cluster: &Cluster) -> bool {
    cluster.raft(LEADER).entry(Index(1)).is_none()
}

fn agree(cluster: &mut Cluster) {
    for _ in 0..20 {
        cluster.tick(Duration::from_millis(50));
        cluster.settle();
    }
    assert_eq!(cluster.checker().violation(), None);
    assert!(cluster.agreed().is_some());
}

#[test]
fn d4_a_damaged_log_is_repaired_by_entries_or_by_a_snapshot() {
    let small = Config { log_memory_bytes: 1, log_tail_bytes: 0, ..Config::default() };
    for (config, installs) in [(Config::default(), 0), (small, 1)] {
        for keep in [0, 3, 6] {
            let mut cluster = cluster(config.clone(), keep);
            assert!(cluster.is_damaged(DAMAGED) && cluster.raft(DAMAGED).abstains_until().is_some());
            agree(&mut cluster);
            assert_eq!(cluster.leader(), Some(LEADER), "the leader stays the same");
            assert!(!cluster.is_damaged(DAMAGED), "and it votes again");
            assert_eq!(cluster.raft(DAMAGED).marks().snapshot_installed, installs, "keep {keep}");
            assert!(cluster.raft(LEADER).marks().match_went_back > 0);
        }
    }
}

/// The leader commits by an acknowledgement whose copy is lost. Whoever is elected has the entry all the same: the server that lost it
/// gives its vote to nobody until it has it again.
#[test]
fn d4_what_was_committed_by_a_copy_that_is_lost_is_not_lost() {
    let mut cluster = Cluster::new(Settings::default());
    cluster.campaign(LEADER);
    cluster.settle();
    cluster.isolate(ServerId(2));
    let entry = cluster.propose(LEADER, "counted twice").expect("it leads");
    cluster.deliver_link(LEADER, DAMAGED);
    cluster.persist(DAMAGED);
    cluster.deliver_link(DAMAGED, LEADER);
    cluster.crash(DAMAGED, 0);
    assert!(cluster.damage(DAMAGED, entry.index.previous()));
    cluster.restart(DAMAGED);
    cluster.persist(LEADER);
    assert_eq!(cluster.raft(LEADER).commit_index(), entry.index);
    cluster.crash(LEADER, 0);
    cluster.heal();
    for _ in 0..60 {
        cluster.tick(Duration::from_millis(50));
        cluster.settle();
    }
    assert_eq!(cluster.leader(), None, "server 2 lacks it");
    cluster.restart(LEADER);
    agree(&mut cluster);
    assert!(cluster.checker().ledger().contains_key(&entry.index));
}

/// Leadership is not handed to a server that would not take it.
#[test]
fn d4_nobody_who_abstains_is_to_take_over() {
    let mut running = Running::new(3, &[0, 0, 9], Config::default());
    running.elect_first(1);
    running.propose(1).unwrap();
    running.isolate(2);
    running.run(400);
    running.stop(3);
    // What it has is less than it acknowledged, and does not grow: its disk hangs.
    running.damage(3, 0);
    running.start(3);
    running.hang(3, true);
    running.run(400);
    assert_eq!(running.raft(3).unwrap().abstains_until(), Some(Index(2)));
    assert_eq!(running.leader(), Some(1), "it answers, and is a quorum with the leader");
    for to in [None, Some(3)] {
        assert_eq!(running.transfer(1, to), Err(TransferRefused::Nobody));
    }
    running.run(20_000);
    let told = running.take_sent().into_iter().any(|(_, _, m)| matches!(m, PeerMessage::TimeoutNow(_)));
    assert!(!told, "not even to the greatest priority");
    running.heal();
    running.hang(3, false);
    running.run(20_000);
    assert_eq!((running.leader(), running.raft(3).unwrap().abstains_until()), (Some(3), None));
    assert_eq!(running.verdict(), Ok(()));
}

/// A learner that abstains would count among those that a majority is taken of, and would not vote.
#[test]
fn d4_a_learner_that_abstains_is_not_promoted() {
    let mut cluster = Cluster::new(Settings { voters: 2, learners: 1, ..Settings::default() });
    cluster.campaign(LEADER);
    cluster.settle();
    cluster.propose(LEADER, "command").expect("it leads");
    cluster.settle();
    cluster.crash(DAMAGED, 0);
    assert!(cluster.damage(DAMAGED, Index(1)));
    cluster.restart(DAMAGED);
    let beat = |cluster: &mut Cluster| {
        cluster.tick_one(LEADER);
        cluster.deliver_link(LEADER, ServerId(2));
        cluster.deliver_link(ServerId(2), LEADER);
        cluster.deliver_link(LEADER, DAMAGED);
        cluster.deliver_link(DAMAGED, LEADER);
    };
    let promote = |cluster: &mut Cluster| {
        let expected = cluster.raft(LEADER).configuration().index;
        let set_kind = vec![(DAMAGED, MemberKind::Voter)];
        cluster.change(LEADER, &Change { expected, set_kind, ..Change::default() })
    };
    (0..10).for_each(|_| beat(&mut cluster));
    cluster.persist(DAMAGED);
    (0..10).for_each(|_| beat(&mut cluster));
    // It holds all, and has said so; that it needs abstain no more is on its way to the disk.
    let (raft, last) = (cluster.raft(DAMAGED), cluster.raft(LEADER).last().index);
    assert!(raft.durable_index() == last && raft.abstains_until().is_some() && cluster.is_writing(DAMAGED));
    let refused = promote(&mut cluster);
    assert_eq!(refused, Err(ChangeRefused::NotCaughtUp { server: DAMAGED, behind: 0 }));
    cluster.persist(DAMAGED);
    beat(&mut cluster);
    assert!(promote(&mut cluster).is_ok());
}
