//! Both halves of a session joined by a bad link, without any cluster: the whole contract as properties, and one scenario per
//! rule.

mod ledger;
mod world;

use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::{ClusterId, Sequence};
use atomix_session::{NotDone, SessionError, SessionState};
use world::{Met, RESERVE, TIMEOUT, WINDOW, Weather, World};

const CONSISTENCIES: [Consistency; 3] =
    [Consistency::Linearizable, Consistency::Sequential, Consistency::Causal];

fn connected(clients: usize) -> World {
    world_of(7, clients)
}

/// A world whose clients are connected.
fn world_of(seed: u64, clients: usize) -> World {
    let mut world = World::new(seed, clients, Weather::FAIR);
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
            let kind = ["own", "tell", "!tell", "do"][world.below(6).min(3) as usize];
            let mut body = format!("{kind} {client}-{number}");
            if let (0, Some(session)) = (world.below(10), world.clients[1 - client].session) {
                body = format!("fill 20000 {session}");
            }
            let instance = world.below(4);
            world.submit_to(client, instance, &body, deadline);
        }
    }
    if world.below(200) == 0 {
        let timer = world.real + world.below(300);
        world.submit(client, &format!("timer {timer}"), None);
        world.submit(client, "watch", None);
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
        sum.add(met);
    }
    println!("{sum:?}");
    assert_eq!(sum.missed(), [""; 0], "vacuous: {sum:?}");
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
    for sequence in 1..=WINDOW {
        assert_eq!(core.submit(now, "x".into(), None), Ok(Sequence(sequence)));
    }
    assert_eq!(core.submit(now, "x".into(), None), Err(NotDone::Busy));
    for sequence in WINDOW + 1..=WINDOW + 2 * RESERVE {
        assert_eq!(core.submit_detached(now, "x".into()), Ok(Sequence(sequence)));
    }
    assert_eq!(core.submit(now, vec![0; 1_001].into(), None), Err(NotDone::TooLarge));
    assert_eq!(core.submit_detached(now, vec![0; 1_001].into()), Err(NotDone::TooLarge));
}

#[test]
fn rule_s3_a_reply_lost_with_its_link_is_answered_from_the_table() {
    let mut world = connected(1);
    let sequence = world.submit(0, "do", None).expect("submitted");
    world.step();
    world.silence(0, 60);
    world.run(50);
    assert!(world.servers.iter().any(|server| !server.machine.0.applied.is_empty()));
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
    assert_eq!(world.servers[0].machine.0.applied.len(), 1);
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

/// Both clients watch.
fn watching(seed: u64) -> World {
    let mut world = world_of(seed, 2);
    for client in 0..2 {
        world.submit(client, "watch", None);
    }
    world.run_until(200, World::is_quiet);
    world
}

#[test]
fn rule_e4_events_come_once_in_order_and_none_is_missing_whatever_happens_to_links_and_leaders() {
    let mut world = watching(7);
    world.weather.cuts = 5;
    for number in 0..100 {
        let from = (number % 2) as usize;
        world.submit(from, &format!("tell {number}"), None);
        world.run(10);
        if number % 9 == 0 {
            world.elect((world.leader + 1) % 3);
        }
        if number % 7 == 0 {
            world.cut_all(from);
        }
    }
    world.weather = Weather::FAIR;
    world.run_until(5_000, World::is_quiet);
    assert_eq!([world.clients[0].events, world.clients[1].events], [100, 100]);
    world.check_outcomes();
    assert!(world.met.events_resent > 0 && world.met.events_deduplicated > 0, "{:?}", world.met);
}

#[test]
fn rule_e4_what_was_published_while_the_client_was_away_waits_for_it() {
    let mut world = watching(7);
    world.silence(1, 300);
    world.cut_all(1);
    for number in 0..10 {
        world.submit(0, &format!("tell {number}"), None);
    }
    world.run(200);
    assert_eq!([world.clients[0].events, world.clients[1].events], [10, 0]);
    world.elect((world.leader + 1) % 3);
    world.run_until(1_000, World::is_quiet);
    assert_eq!(world.clients[1].events, 10);
}

#[test]
fn rule_e5_after_a_registration_completes_no_change_is_missed() {
    let mut world = connected(2);
    world.submit(1, "watch", None);
    world.run_until(200, World::is_quiet);
    // From here on, although nothing waits between the two.
    world.submit(0, "tell", None);
    world.run_until(200, |world| world.clients[1].events == 1);
}

#[test]
fn rule_e6_a_write_is_told_once_everybody_has_its_event_and_holds_back_only_its_handle() {
    let mut world = watching(7);
    world.silence(1, 500);
    let held = world.submit_to(0, 1, "!tell", None).expect("submitted");
    let behind = world.submit_to(0, 1, "do", None).expect("submitted");
    let beside = world.submit_to(0, 2, "do", None).expect("submitted");
    world.run(400);
    let end = |world: &World, sequence| world.clients[0].end(sequence).is_some();
    assert_eq!([held, behind, beside].map(|sequence| end(&world, sequence)), [false, false, true]);
    assert_eq!(world.clients[0].core.state(), SessionState::Connected, "the leader is not taken for dead");
    world.run_until(500, World::is_quiet);
    assert_eq!(world.clients.iter().map(|client| client.events).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(world.met.expired, 0);
}

#[test]
fn rule_e6_who_never_acknowledges_falls_silent_and_holds_nothing_any_more() {
    let mut world = watching(7);
    world.silence(1, 10_000);
    let held = world.submit(0, "!tell", None).expect("submitted");
    let most = TIMEOUT.as_millis() as u64 * 2;
    world.run_until(most, |world| world.clients[0].end(held).is_some());
    assert!(matches!(world.clients[0].end(held), Some(Ok(_))));
    assert_eq!(world.met.expired, 1);
}

#[test]
fn rule_e3_a_session_that_was_given_up_ends_and_nobody_waits_for_ever() {
    let mut world = watching(7);
    world.silence(1, 600);
    world.cut_all(1);
    while world.met.given_up == 0 {
        world.submit(0, "tell", None);
        world.run(3);
    }
    let waits = world.submit(1, "do", None).expect("submitted");
    world.query(1, Consistency::Sequential, None).expect("asked");
    world.run_until(4_000, |world| world.clients[1].core.state() == SessionState::Expired);
    world.run_until(200, World::is_quiet);
    assert!(world.clients[1].end(waits).is_some());
    assert!(!world.clients[0].core.state().is_final(), "the others go on");
    world.check_outcomes();
}

#[test]
fn rule_q2_an_answer_ahead_of_the_main_link_waits_for_the_events() {
    let mut ahead = 0;
    for seed in 0..8 {
        let mut world = watching(seed);
        for round in 0..30 {
            world.submit(0, &format!("tell {round}"), None);
            world.run(world.real % 7);
            world.query(1, Consistency::Sequential, None);
            world.run(3);
        }
        world.run_until(1_000, World::is_quiet);
        world.check_outcomes();
        ahead += world.met.answers_ahead;
    }
    assert!(ahead > 0, "vacuous");
}
