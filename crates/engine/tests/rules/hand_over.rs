//! §3.10 as clients and operators see it: a leader that hands over on request, and before it is shut down.

use std::time::Duration;

use atomix_engine::Input;
use atomix_protocol::change::TransferRefused;
use atomix_protocol::client::{ManageAction, ManageOutcome};
use atomix_protocol::{ServerId, Term};
use atomix_session::SessionState;

use crate::operator::not_transferred;
use crate::world::World;

fn formed() -> World {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).leader.is_some()));
    world.run(Duration::from_secs(1));
    world
}

fn elections(world: &World) -> u64 {
    (0..world.servers.len()).map(|server| world.status(server).counters.elections).sum()
}

#[test]
fn leadership_is_handed_over_on_request() {
    for named in [false, true] {
        let mut world = formed();
        let leader = world.leader().expect("one");
        let (term, before) = (world.status(leader).term, elections(&world));
        let to = named.then(|| world.id((leader + 2) % 3));
        let desk = world.desk(leader);
        let ManageOutcome::Transferred(other) = world.ordered(desk, 1, ManageAction::Transfer(to)) else {
            panic!("{:?}", world.outcome(desk, 1));
        };
        assert!(other != world.id(leader) && to.is_none_or(|to| to == other));
        world.until("its lead", |world| world.leader().is_some_and(|now| world.id(now) == other));
        assert_eq!((world.status(leader).term, elections(&world)), (term.next(), before + 1));
    }
}

#[test]
fn what_can_not_be_handed_over_is_refused() {
    let mut world = formed();
    let leader = world.leader().expect("one");
    let (desk, own) = (world.desk(leader), world.id(leader));
    for (ticket, to) in [(1, own), (2, ServerId(9))] {
        let outcome = world.ordered(desk, ticket, ManageAction::Transfer(Some(to)));
        assert_eq!(not_transferred(outcome), TransferRefused::NotATarget(to));
    }
    let mut alone = World::formed(1);
    let desk = alone.desk(0);
    let outcome = alone.ordered(desk, 1, ManageAction::Transfer(None));
    assert_eq!(not_transferred(outcome), TransferRefused::Nobody);
}

#[test]
fn commands_during_a_hand_over_wait_for_the_next_leader() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "0"), "1");
    let leader = world.leader().expect("one");
    let desk = world.desk(leader);
    // Under way before, during and after.
    for number in 1..=20 {
        if number == 5 {
            world.order(desk, 1, ManageAction::Transfer(None));
        }
        world.submit(client, &number.to_string());
        world.run(Duration::from_micros(200));
    }
    world.until("all of them", |world| world.clients[client].endings.len() == 21);
    let expected: Vec<String> = (0..=20).map(|number| number.to_string()).collect();
    let next = world.leader().expect("another");
    assert_ne!(next, leader);
    assert_eq!(world.lines(next), expected.join(","));
    assert!(world.clients[client].endings.values().all(Result::is_ok));
    assert_eq!(world.engine(leader).marks().not_logged, 0, "none was refused");
}

#[test]
fn commands_during_a_hand_over_that_fails_are_done_afterwards() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "0"), "1");
    let leader = world.leader().expect("one");
    let term = world.status(leader).term;
    let target = (leader + 1) % 3;
    let desk = world.desk(leader);
    let to = Some(world.id(target));
    world.order(desk, 1, ManageAction::Transfer(to));
    // It never hears that it should.
    world.isolate(target);
    for number in 1..=20 {
        world.submit(client, &number.to_string());
        world.run(Duration::from_millis(5));
    }
    assert_eq!(world.clients[client].endings.len(), 1, "nothing is done meanwhile");
    assert_eq!(world.outcome(desk, 1), None);
    world.until("its failure", |world| world.outcome(desk, 1).is_some());
    assert_eq!(not_transferred(world.outcome(desk, 1).expect("just seen")), TransferRefused::TimedOut);
    world.until("all of them", |world| world.clients[client].endings.len() == 21);
    let expected: Vec<String> = (0..=20).map(|number| number.to_string()).collect();
    assert_eq!((world.lines(leader), world.leader()), (expected.join(","), Some(leader)));
    assert!(world.clients[client].endings.values().all(Result::is_ok));
    assert_eq!(world.clients[client].core.state(), SessionState::Connected);
    let marks = world.engine(leader).marks();
    assert_eq!(
        (marks.not_logged, marks.resumed_after_hand_over),
        (0, 1),
        "one answer for all that was dropped"
    );
    assert_eq!(world.status(leader).term, term);
}

#[test]
fn a_session_is_opened_though_a_hand_over_fails_meanwhile() {
    let mut world = formed();
    let leader = world.leader().expect("one");
    let target = (leader + 1) % 3;
    let (desk, to) = (world.desk(leader), Some(world.id(target)));
    world.order(desk, 1, ManageAction::Transfer(to));
    world.isolate(target);
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    assert_eq!(world.leader(), Some(leader));
}

#[test]
fn a_leader_that_is_shut_down_hands_over_first() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = world.leader().expect("one");
    let (term, before) = (world.status(leader).term, elections(&world));
    world.step(leader, Input::HandOver);
    assert!(world.engine(leader).is_handing_over());
    world.until("its end", |world| !world.engine(leader).is_handing_over());
    let next = world.status(leader).leader;
    assert!(next.is_some() && next != Some(world.id(leader)), "another leads already");
    world.crash(leader);
    assert_eq!(world.write(client, "b"), "2");
    let rest = (0..3).filter(|server| *server != leader);
    let terms: Vec<Term> = rest.clone().map(|server| world.status(server).term).collect();
    assert_eq!(
        terms,
        [term.next(), term.next()],
        "one election, and nobody waited for a timeout to begin it"
    );
    let elections: u64 = rest.map(|server| world.status(server).counters.elections).sum();
    assert_eq!(elections, before, "the old leader's own is gone with it, and one has come");
}

#[test]
fn who_does_not_lead_or_has_nobody_to_hand_over_to_is_shut_down_at_once() {
    let mut world = formed();
    let follower = (world.leader().expect("one") + 1) % 3;
    world.step(follower, Input::HandOver);
    assert!(!world.engine(follower).is_handing_over());
    let mut alone = World::formed(1);
    alone.step(0, Input::HandOver);
    assert!(!alone.engine(0).is_handing_over());
}

#[test]
fn a_shutdown_waits_for_nobody_longer_than_two_election_timeouts() {
    let mut world = formed();
    let leader = world.leader().expect("one");
    world.step(leader, Input::HandOver);
    world.isolate(leader);
    let start = world.now;
    world.until("its end", |world| !world.engine(leader).is_handing_over());
    assert!(world.now.since(start) <= Duration::from_millis(1_200), "{:?}", world.now.since(start));
}

/// A review of the real binary found it: the removed leader waited for a successor that had no reason to tell it anything, and those
/// who came to it waited with it.
#[test]
fn nobody_waits_at_a_leader_that_was_removed() {
    let mut world = formed();
    let leader = world.leader().expect("one");
    let id = world.id(leader);
    let (_, change) = world.change_at_leader(|change| change.remove = vec![id]);
    let desk = world.desk(leader);
    world.order(desk, 1, ManageAction::Change(change));
    let opened = |world: &World| world.clients.iter().filter(|c| c.core.session().is_some()).count();
    for _ in 0..20 {
        world.client(None);
        world.run(Duration::from_millis(1));
    }
    world.run(Duration::from_millis(100));
    assert_eq!(opened(&world), 20, "{}", world.describe());
    assert_eq!(world.status(leader).role, "removed");
}
