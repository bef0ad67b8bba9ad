//! A disk that has failed for good: the last word of a leader (D5).

use std::time::Duration;

use atomix_protocol::peer::{AppendEntriesReply, PeerMessage, TimeoutNow};
use atomix_protocol::{Index, Term};
use atomix_raft::Config;
use atomix_testkit::scenario::words::*;
use atomix_testkit::scenario::{Machine, Running};

/// Leads term 1 with entry 2 durable, and entry 3 that its disk has not taken. Servers 2 and 3 say this of themselves, and so at least
/// entry 2 is committed.
fn leader(two: PeerMessage, three: PeerMessage) -> Machine {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    machine.hear(3, durable(1, 1, 1));
    machine.propose(b"durable");
    machine.persist();
    machine.propose(b"refused");
    machine.hear(2, two);
    machine.hear(3, three);
    assert!(machine.raft.durable_index() == Index(2) && machine.raft.commit_index() >= Index(2));
    machine
}

fn says(index: u64, abstains: bool) -> PeerMessage {
    let PeerMessage::AppendEntriesReply(reply) = durable(1, 1, index) else { unreachable!() };
    PeerMessage::AppendEntriesReply(AppendEntriesReply { abstains, ..reply })
}

#[test]
fn d5_the_voter_with_the_furthest_log_is_told_to_campaign() {
    for (two, three, expected) in [
        (says(2, false), says(1, false), Some(2)),
        (says(2, false), says(3, false), Some(3)),
        (says(2, true), says(1, false), None), // one abstains, the other lacks what is committed
        (says(3, true), says(2, false), Some(3)),
    ] {
        let machine = leader(two, three);
        let round = machine.raft.round();
        let told = machine.raft.abdicate(machine.now);
        let timeout = PeerMessage::TimeoutNow(TimeoutNow { term: Term(1), round });
        assert_eq!(told, expected.map(|to| (server(to), timeout)));
    }
}

#[test]
fn d5_who_does_not_lead_or_is_alone_says_nothing() {
    let follower = Machine::follower(1, &[1]);
    assert_eq!(follower.raft.abdicate(follower.now), None);
    let alone = Machine::leader(Config::default(), 1, 0, 0, &[]);
    assert_eq!(alone.raft.abdicate(alone.now), None);
    let mut silent = leader(says(2, false), says(2, false));
    silent.now = silent.now + Duration::from_millis(310);
    assert_eq!(silent.raft.abdicate(silent.now), None, "nobody has answered for long");
}

/// Two candidates at once would only take votes from each other.
#[test]
fn d5_who_was_told_already_is_not_crossed_by_another() {
    let mut machine = leader(says(3, false), says(3, false));
    machine.raft.transfer(machine.now, Some(server(3))).unwrap();
    assert_eq!(machine.raft.abdicate(machine.now), None);
}

/// The one that is told wins, though the leader that gave way does not vote.
#[test]
fn d5_a_last_word_is_enough() {
    for (leases, behind) in [(0, 0), (300, 0), (0, 2), (300, 3)] {
        let config = Config { promise: Duration::from_millis(leases), ..Config::default() };
        let mut running = Running::new(3, &[], config);
        running.elect_first(1);
        running.run(500);
        // Who has not come so far is not told.
        if behind > 0 {
            running.hold(1, behind);
        }
        running.propose(1).unwrap();
        running.run(100);
        running.fail(1);
        running.run(5);
        let heir = if behind == 2 { 3 } else { 2 };
        assert_eq!((running.leader(), running.verdict()), (Some(heir), Ok(())), "{leases} {behind}");
    }
}
