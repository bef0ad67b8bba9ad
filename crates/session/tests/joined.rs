//! Both halves of a session joined by a bad link, without any cluster: the whole contract as properties, and one scenario per
//! rule.

mod ledger;
mod world;

use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::{ClusterId, Sequence};
use atomix_session::{NotDone, SessionError, SessionState};
use world::{Met, TIMEOUT, WINDOW, Weather, World};

const CONSISTENCIES: [Consistency; 3] =
    [Consistency::Linearizable, Consistency::Sequential, Consistency::Causal];

/// A world whose clients are connected.
fn connected(clients: usize) -> World {
    let mut world = World::new(7, clients, Weather::FAIR);
    world.run_until(500, |world| {
        world.clients.iter().all(|client| client.core.state() == SessionState::Connected)
    });
    world
}

fn pulse(world: &mut World, client: usize, number: &mut u64) {
    if world.below(12) == 0 {
        for _ in 0..=world.below(6) {
            *number += 1;
            let deadline = (world.below(5) == 0).then(|| Duration::from_millis(20 + world.below(300)));
            let kind = if world.below(5) == 0 { "own" } else { "do" };
            world.submit(client, &format!("{kind} {client}-{number}"), deadline);
        }
    }
    if world.below(20) == 0 {
        let consistency = CONSISTENCIES[world.below(3) as usize];
        let deadline = (world.below(3) == 0).then(|| Duration::from_millis(20 + world.below(500)));
        world.query(client, consistency, deadline);
    }
}

/// One world: a stormy time, then a healed one in which everything has to end.
fn live(seed: u64) -> Met {
    let mut random = World::new(seed, 1, Weather::FAIR);
    let mut some = |most: u64| if random.below(3) == 0 { 0 } else { random.below(most + 1) };
    let weather =
        Weather { cuts: some(8), elections: some(6), pauses: some(3), outages: some(1), refusals: some(150) };
    let mut world = World::new(seed, 2, weather);
    let mut numbers = [0, 0];
    for _ in 0..6_000 {
        for (client, number) in numbers.iter_mut().enumerate() {
            pulse(&mut world, client, number);
        }
        world.step();
    }
    world.weather = Weather::FAIR;
    world.run_until(15_000, World::is_quiet);
    for client in 0..2 {
        world.close(client);
    }
    world.run_until(10_000, |world| world.clients.iter().all(|client| client.core.state().is_final()));
    assert!(world.clients.iter().all(|client| client.core.next_deadline().is_none()));
    world.run(200);
    world.check_outcomes();
    world.met
}

#[test]
fn the_contract_holds_over_bad_links() {
    let mut sum = Met::default();
    for seed in 0..150 {
        let met = std::panic::catch_unwind(|| live(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        sum.answered_from_table += met.answered_from_table;
        sum.entries_lost += met.entries_lost;
        sum.gaps_before_the_log += met.gaps_before_the_log;
        sum.gaps_at_apply += met.gaps_at_apply;
        sum.refused += met.refused;
        sum.skipped += met.skipped;
        sum.refused_but_done += met.refused_but_done;
        sum.expired += met.expired;
        sum.resent += met.resent;
        sum.window_full += met.window_full;
        sum.unknown += met.unknown;
        sum.suspended += met.suspended;
        sum.restarts += met.restarts;
        sum.redirected_reads += met.redirected_reads;
        sum.late_reads += met.late_reads;
        sum.closed += met.closed;
    }
    println!("{sum:?}");
    let Met {
        answered_from_table,
        entries_lost,
        gaps_before_the_log,
        gaps_at_apply,
        refused,
        skipped,
        refused_but_done,
        expired,
        resent,
        window_full,
        unknown,
        suspended,
        restarts,
        redirected_reads,
        late_reads,
        closed,
    } = sum;
    let all = [
        answered_from_table,
        entries_lost,
        gaps_before_the_log,
        gaps_at_apply,
        refused,
        skipped,
        refused_but_done,
        expired,
        resent,
        window_full,
        unknown,
        suspended,
        restarts,
        redirected_reads,
        late_reads,
        closed,
    ];
    assert!(all.iter().all(|count| *count > 0), "vacuous: {sum:?}");
}

#[test]
fn rule_s1_a_session_is_opened_once_however_often_it_is_asked_for() {
    let mut world = World::new(7, 1, Weather::FAIR);
    for _ in 0..20 {
        world.run(4);
        world.cut_all(0);
    }
    world.run_until(2_000, |world| world.clients[0].session.is_some());
    world.settle();
    assert_eq!(world.servers[0].table.len(), 1);
}

#[test]
fn rule_s2_the_window_is_bounded_and_has_reserved_room() {
    let mut world = connected(1);
    world.silence(0, 100);
    let now = world.now(0);
    let core = &mut world.clients[0].core;
    let mut submit = |reserved| core.submit(now, "x".into(), None, reserved);
    for sequence in 1..=WINDOW {
        assert_eq!(submit(false), Ok(Sequence(sequence)));
    }
    assert_eq!(submit(false), Err(NotDone::Busy));
    assert_eq!(submit(true), Ok(Sequence(WINDOW + 1)));
    assert_eq!(core.submit(now, vec![0; 1_001].into(), None, false), Err(NotDone::TooLarge));
}

#[test]
fn rule_s3_a_reply_lost_with_its_link_is_answered_from_the_table() {
    let mut world = connected(1);
    let sequence = world.submit(0, "do", None).expect("submitted");
    world.step();
    world.silence(0, 60);
    world.run(50);
    assert!(world.servers.iter().any(|server| !server.machine.applied.is_empty()));
    assert!(world.clients[0].end(sequence).is_none());
    world.cut_all(0);
    world.run_until(500, World::is_quiet);
    assert!(matches!(world.clients[0].end(sequence), Some(Ok(_))));
    assert!(world.clients[0].core.retries() > 0 && world.met.answered_from_table > 0);
    world.check_outcomes();
}

#[test]
fn rule_s4_a_refusal_before_the_log_ends_by_a_skip() {
    let mut world = connected(1);
    world.weather.refusals = 1_000;
    let sequences: Vec<_> = (0..5).filter_map(|_| world.submit(0, "do", None)).collect();
    world.run_until(5_000, World::is_quiet);
    for sequence in sequences {
        let not_done = Err(SessionError::NotDone(NotDone::Busy));
        assert_eq!(world.clients[0].end(sequence), Some(&not_done));
    }
    // The sequences were consumed: what follows is done.
    world.weather.refusals = 0;
    let next = world.submit(0, "do", None).expect("submitted");
    world.run_until(500, World::is_quiet);
    assert!(matches!(world.clients[0].end(next), Some(Ok(_))));
    world.check_outcomes();
}

#[test]
fn rule_s4_past_its_deadline_a_command_is_unknown_and_still_done() {
    let mut world = connected(1);
    world.silence(0, 300);
    let sequence = world.submit(0, "do", Some(Duration::from_millis(50))).expect("submitted");
    world.run(100);
    assert!(matches!(world.clients[0].end(sequence), Some(Err(SessionError::Unknown(_)))));
    world.run(1_000);
    world.settle();
    assert_eq!(world.servers[0].machine.applied.len(), 1);
    world.check_outcomes();
}

#[test]
fn rule_s6_s10_the_state_follows_the_contact() {
    let mut world = connected(1);
    world.run(3_000);
    assert_eq!(world.clients[0].states, [SessionState::Connected], "an idle session stays connected");
    world.cut_all(0);
    assert_eq!(world.clients[0].core.state(), SessionState::Suspended);
    world.run_until(300, |world| world.clients[0].core.state() == SessionState::Connected);
}

#[test]
fn rule_s7_a_session_that_fell_silent_expires_and_its_commands_are_unknown() {
    let mut world = connected(1);
    world.silence(0, 3_000);
    let sent = world.submit(0, "do", None).expect("submitted");
    world.run_until(4_000, |world| world.clients[0].core.state() == SessionState::Expired);
    assert_eq!(world.met.expired, 1);
    assert!(matches!(world.clients[0].end(sent), Some(Err(SessionError::Unknown(_)))));
    let states = [SessionState::Connected, SessionState::Suspended, SessionState::Expired];
    assert_eq!(world.clients[0].states, states);
    assert!(world.submit(0, "late", None).is_none());
    world.check_outcomes();
}

#[test]
fn rule_s10_a_closed_session_is_closed_after_its_commands() {
    let mut world = connected(1);
    let sequence = world.submit(0, "do", None).expect("submitted");
    world.close(0);
    assert!(world.submit(0, "late", None).is_none());
    world.run_until(500, |world| world.clients[0].core.state() == SessionState::Closed);
    assert!(matches!(world.clients[0].end(sequence), Some(Ok(_))));
    world.settle();
    assert!(world.servers[0].table.is_empty());
}

#[test]
fn a_close_is_given_up_after_a_session_timeout() {
    let mut world = connected(1);
    world.silence(0, 100_000);
    let sequence = world.submit(0, "do", None).expect("submitted");
    world.close(0);
    let most = TIMEOUT.as_millis() as u64 * 2;
    world.run_until(most, |world| world.clients[0].core.state() == SessionState::Closed);
    assert!(matches!(world.clients[0].end(sequence), Some(Err(SessionError::Unknown(_)))));
}

#[test]
fn a_leader_that_says_nothing_is_left_within_a_fraction_of_the_timeout() {
    let mut world = connected(1);
    let old = world.leader;
    world.servers[old].paused_until = u64::MAX;
    world.elect((old + 1) % 3);
    let sequence = world.submit(0, "do", None).expect("submitted");
    let most = TIMEOUT.as_millis() as u64 / 2 + 100;
    world.run_until(most, |world| world.clients[0].end(sequence).is_some());
    assert!(world.clients[0].core.valid_until() > world.now(0), "the session was never in danger");
}

#[test]
fn a_change_of_leader_costs_some_tens_of_milliseconds() {
    let mut world = connected(1);
    for change in 1..20 {
        let next = (world.leader + 1) % 3;
        world.elect(next);
        world.cut_all(0);
        let sequence = world.submit(0, "do", None).expect("submitted");
        world.run_until(150, |world| world.clients[0].end(sequence).is_some());
        assert!(matches!(world.clients[0].end(sequence), Some(Ok(_))), "change {change}");
        world.run(200);
    }
    world.check_outcomes();
}

#[test]
fn rule_i5_a_cluster_formed_anew_is_not_the_sessions() {
    let mut world = connected(1);
    let sequence = world.submit(0, "do", None).expect("submitted");
    world.run_until(200, World::is_quiet);
    assert!(world.clients[0].end(sequence).is_some());
    world.cluster = ClusterId(2);
    world.cut_all(0);
    let unsent = world.submit(0, "late", None).expect("submitted");
    world.run_until(1_000, |world| world.clients[0].core.state() == SessionState::Expired);
    let ended = Err(SessionError::NotDone(NotDone::SessionEnded));
    assert_eq!(world.clients[0].end(unsent), Some(&ended), "S5: it was never sent");
    world.check_outcomes();
}

#[test]
fn rule_q1_a_read_sees_what_was_submitted_before_it() {
    let mut world = connected(1);
    for _ in 0..WINDOW {
        world.submit(0, "do", None);
    }
    let numbers: Vec<_> = CONSISTENCIES.iter().filter_map(|how| world.query(0, *how, None)).collect();
    world.run_until(500, World::is_quiet);
    for number in numbers {
        assert!(matches!(world.clients[0].queries[&number].end, Some(Ok(_))));
    }
    world.check_outcomes();
}

#[test]
fn rule_q2_a_read_ends_by_its_deadline_and_changed_nothing() {
    let mut world = connected(1);
    world.silence(0, 10_000);
    let number = world.query(0, Consistency::Linearizable, Some(Duration::from_millis(80))).expect("asked");
    world.run(100);
    let timed_out = Err(SessionError::NotDone(NotDone::TimedOut));
    assert_eq!(world.clients[0].queries[&number].end, Some(timed_out));
}

#[test]
fn a_status_needs_no_session() {
    let mut world = World::new(7, 1, Weather::FAIR);
    world.request_status(0);
    world.run_until(200, |world| world.clients[0].statuses == 1);
    world.run(1_000);
    world.request_status(0);
    world.run_until(200, |world| world.clients[0].statuses == 2);
}
