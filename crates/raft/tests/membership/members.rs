//! Learners and reserve members: they follow, and never count (§4.2.1, R7).

use MemberKind::{Learner, Reserve, Voter};
use atomix_protocol::peer::{Configure, PeerMessage, TimeoutNow};
use atomix_protocol::{HardState, LocalTime, MemberKind, Round, Term};
use atomix_raft::{Input, Output, Raft, Recovered, Role};
use atomix_testkit::scenario::members::member;

use super::*;

/// Fault M7: neither for commits nor for reads, nor for a leader's hold on the others; and none ever campaigns.
#[test]
fn learners_never_count_and_never_campaign() {
    let mut cluster = led_by_1(3, 4);
    cluster.isolate(server(2));
    cluster.isolate(server(3));
    let before = cluster.raft(server(1)).commit_index();
    cluster.propose(server(1), "x").unwrap();
    cluster.read(server(1), 7).unwrap();
    run(&mut cluster, 100);
    assert_eq!((cluster.raft(server(1)).commit_index(), cluster.take_ready(server(1)).len()), (before, 0));
    run(&mut cluster, 5_000);
    assert_eq!(cluster.leader(), None, "no quorum answers");
    assert_eq!(cluster.take_failed(server(1)), [7]);
    for id in 4..=7 {
        let now = TimeoutNow { term: Term(1), round: Round(1) };
        let told = Input::Received { from: server(1), message: PeerMessage::TimeoutNow(now) };
        cluster.input(server(id), told);
        cluster.input(server(id), Input::LinkClosed { from: server(1) });
    }
    run(&mut cluster, 2_000);
    for id in 4..=7 {
        assert_eq!(
            (cluster.raft(server(id)).role(), cluster.raft(server(id)).term()),
            (Role::Follower, Term(1))
        );
        assert_eq!(cluster.raft(server(id)).counters().elections, 0);
    }
    cluster.heal();
    run(&mut cluster, 2_000);
    assert!(cluster.agreed().is_some(), "learners too");
}

/// §4.2.1: a learner that is behind is promoted when it has caught up, while commands keep coming.
#[test]
fn a_learner_catches_up_while_commands_keep_coming() {
    let mut cluster = led_by_1(3, 1);
    cluster.isolate(server(4));
    for _ in 0..50 {
        cluster.propose(server(1), "x").unwrap();
        run(&mut cluster, 10);
    }
    let change = make(&cluster, 1, &[(4, Voter)]);
    assert!(cluster.change(server(1), &change).is_err());
    cluster.heal();
    let mut waited = 0;
    // There is always a command that it does not have yet.
    while {
        cluster.propose(server(1), "x").unwrap();
        cluster.change(server(1), &change).is_err()
    } {
        run(&mut cluster, 10);
        waited += 10;
        assert!(waited < 1_000);
    }
    run(&mut cluster, 200);
    assert_eq!(voters(in_use(&cluster, 4)), [1, 2, 3, 4]);
}

#[test]
fn a_reserve_member_holds_no_log_and_learns_every_configuration() {
    let mut cluster = led_by_1(3, 0);
    let id = join(&mut cluster, Reserve);
    let known = committed(&cluster, 1);
    assert_eq!((committed(&cluster, id), cluster.raft(server(id)).last()), (known, EntryId::ZERO));
    let change = Change { set_priority: vec![(server(1), 1)], ..unchanged(&cluster, 1) };
    let plain = complete(&mut cluster, &change).index;
    assert_eq!((committed(&cluster, id), in_use(&cluster, id).index), (plain, plain));
    assert_eq!(cluster.followed(server(id)), [plain]);
    // It is durable, and what was lost is said again.
    cluster.crash(server(id), 0);
    cluster.restart(server(id));
    assert_eq!(committed(&cluster, id), plain);
    cluster.isolate(server(id));
    let change = remove(&cluster, 1, &[3]);
    let begun = complete(&mut cluster, &change).index;
    assert_eq!(committed(&cluster, id), plain);
    cluster.heal();
    run(&mut cluster, 1_100);
    assert_eq!(cluster.followed(server(id)), [begun.next()]);
    // A new link is told at once.
    cluster.isolate(server(id));
    let change = Change { set_priority: vec![(server(1), 2)], ..unchanged(&cluster, 1) };
    let plain = complete(&mut cluster, &change).index;
    cluster.heal();
    cluster.input(server(1), Input::LinkOpened { to: server(id) });
    cluster.settle();
    assert_eq!(committed(&cluster, id), plain);
    assert_eq!((cluster.raft(server(id)).last(), cluster.raft(server(id)).term()), (EntryId::ZERO, Term(0)));
}

#[test]
fn a_reserve_member_becomes_a_learner_a_voter_and_a_reserve_again() {
    let mut cluster = led_by_1(3, 0);
    let id = join(&mut cluster, Reserve);
    let change = make(&cluster, 1, &[(id, Learner)]);
    complete(&mut cluster, &change);
    run(&mut cluster, 700);
    assert_eq!(cluster.raft(server(id)).last(), cluster.raft(server(1)).last());
    let change = make(&cluster, 1, &[(id, Voter)]);
    complete(&mut cluster, &change);
    assert_eq!(voters(in_use(&cluster, id)), [1, 2, 3, id]);
    // A voter that is made a reserve while it is away hears of it from a message of its own.
    cluster.isolate(server(id));
    let change = make(&cluster, 1, &[(id, Reserve)]);
    let begun = complete(&mut cluster, &change).index;
    run(&mut cluster, 7_000);
    assert!(in_use(&cluster, id).is_voter(server(id)));
    cluster.heal();
    run(&mut cluster, 1_100);
    assert_eq!((committed(&cluster, id), in_use(&cluster, id).index), (begun.next(), begun.next()));
    assert_eq!(cluster.raft(server(id)).role(), Role::Follower);
    let last = cluster.raft(server(id)).last();
    cluster.propose(server(1), "x").unwrap();
    run(&mut cluster, 2_000);
    assert_eq!((cluster.raft(server(id)).last(), cluster.leader()), (last, Some(server(1))));
    let change = make(&cluster, 1, &[(id, Learner)]);
    complete(&mut cluster, &change);
    run(&mut cluster, 700);
    assert!(cluster.agreed().is_some());
}

#[test]
fn a_configuration_is_taken_from_no_older_term_and_never_turns_back() {
    let now = LocalTime::from_millis(1_000);
    let configuration = |index: u64| Configuration {
        members: vec![member(1, Voter), member(2, Reserve)],
        index: Index(index),
        next_server_id: 3,
        ..Configuration::default()
    };
    let hard_state = HardState { term: Term(4), voted_for: None };
    let kept = configuration(10);
    let recovered =
        Recovered { hard_state, configuration: kept, snapshot: None, entries: vec![], abstention: None };
    let mut raft = Raft::new(Config::default(), server(2), recovered, 1, now);
    let mut tell = |term: u64, configuration: Configuration| {
        let message = PeerMessage::Configure(Configure { term: Term(term), configuration });
        raft.step(now, Input::Received { from: server(1), message });
        let told = raft.drain(now);
        let written = told.iter().filter(|output| {
            matches!(output, Output::Write { batch, .. } if batch.configuration.as_ref() == Some(raft.configuration()))
        });
        let written = written.count();
        let news =
            told.iter().filter(|output| matches!(output, Output::ConfigurationCommitted { .. })).count();
        assert_eq!((raft.term(), raft.committed_configuration() == raft.configuration()), (Term(4), true));
        (raft.configuration().index.0, news, written)
    };
    let with = |how: &dyn Fn(&mut Configuration)| {
        let mut configuration = configuration(50);
        how(&mut configuration);
        configuration
    };
    for (term, configuration, expected) in [
        (3, configuration(50), (10, 0, 0)),
        (4, with(&|c| c.members.swap(0, 1)), (10, 0, 0)),
        (4, with(&|c| c.next_server_id = 2), (10, 0, 0)),
        (4, with(&|c| c.members[0].kind = Learner), (10, 0, 0)),
        (4, with(&|c| c.index = Index(u64::MAX)), (10, 0, 0)),
        (4, configuration(10), (10, 0, 0)),
        (4, configuration(50), (50, 1, 1)),
        (5, configuration(40), (50, 0, 0)),
    ] {
        let what = format!("{term} {configuration:?}");
        assert_eq!(tell(term, configuration), expected, "{what}");
    }
}
