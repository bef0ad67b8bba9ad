//! S1–S9 and T2, with real clients.

use std::time::Duration;

use atomix_engine::Notice;
use atomix_protocol::client::Consistency;
use atomix_session::SessionState;

use crate::world::{World, words};

/// All commands were done once, in order, whatever happened to the servers meanwhile.
fn stream_through(mut disturb: impl FnMut(&mut World)) -> World {
    let mut world = World::formed(3);
    let client = world.client(None);
    world.session(client);
    let sequences: Vec<_> = (1..=40).map(|number| world.submit(client, &format!("line-{number}"))).collect();
    world.run(Duration::from_micros(1_200));
    disturb(&mut world);
    let more: Vec<_> = (41..=60).map(|number| world.submit(client, &format!("line-{number}"))).collect();
    for sequence in sequences.into_iter().chain(more) {
        world.until("a reply", |world| world.clients[client].endings.contains_key(&sequence.0));
        assert_eq!(words(&world.clients[client].endings[&sequence.0]), sequence.to_string());
    }
    let expected: Vec<String> = (1..=60).map(|number| format!("line-{number}")).collect();
    assert_eq!(world.read(client, Consistency::Linearizable), expected.join(","));
    world
}

#[test]
fn s3_commands_are_done_once_and_in_order() {
    stream_through(|_| ());
}

#[test]
fn s3_once_and_in_order_through_the_loss_of_the_leader() {
    stream_through(|world| {
        let leader = world.leader().expect("one");
        world.crash(leader);
        world.run(Duration::from_millis(200));
        world.start(leader);
    });
}

#[test]
fn s3_once_and_in_order_through_a_partitioned_leader() {
    stream_through(|world| {
        let leader = world.leader().expect("one");
        world.isolate(leader);
        world.run(Duration::from_secs(2));
        world.heal();
    });
}

#[test]
fn s3_once_and_in_order_through_a_restart_of_all() {
    stream_through(|world| {
        for index in 0..3 {
            world.crash(index);
        }
        world.start_all();
    });
}

/// Cuts the client off after its commands reached the log, so that it must ask again for replies that are kept.
#[test]
fn s3_a_retry_is_answered_from_the_table_of_the_next_leader() {
    let mut after_failover = 0;
    let mut after_restart = 0;
    for micros in (500..4_000).step_by(100) {
        let mut world = World::formed(3);
        let client = world.client(None);
        world.session(client);
        for number in 1..=5 {
            world.submit(client, &format!("line-{number}"));
        }
        world.run(Duration::from_micros(micros));
        for index in 0..3 {
            world.crash(index);
        }
        world.start_all();
        world.until("replies", |world| world.clients[client].endings.len() == 5 && world.leader().is_some());
        let leader = world.leader().expect("one");
        assert_eq!(world.lines(leader), "line-1,line-2,line-3,line-4,line-5");
        let replies: Vec<String> = world.clients[client].endings.values().map(words).collect();
        assert_eq!(replies, ["1", "2", "3", "4", "5"]);
        let marks = *world.engine(leader).marks();
        after_failover += marks.retries_after_failover;
        after_restart += marks.retries_after_restart;
        assert_eq!(world.status(leader).counters.answered_from_table, marks.retries_after_failover);
    }
    assert!(after_failover > 0 && after_restart > 0, "nothing was answered from the table");
}

#[test]
fn s1_many_clients_have_sessions_of_their_own() {
    let mut world = World::formed(3);
    let clients: Vec<_> = (0..20).map(|_| world.client(None)).collect();
    let mut sessions: Vec<_> = clients.iter().map(|client| world.session(*client)).collect();
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 20);
    let leader = world.leader().expect("one");
    assert_eq!(world.status(leader).sessions, 20);
}

#[test]
fn s1_an_opening_survives_the_loss_of_the_leader() {
    for micros in (0..6_000).step_by(200) {
        let mut world = World::formed(3);
        let client = world.client(None);
        world.run(Duration::from_micros(micros));
        let leader = world.leader().expect("one");
        world.crash(leader);
        world.session(client);
        world.start(leader);
        assert_eq!(world.write(client, "a"), "1");
        let leader = world.leader().expect("one");
        assert_eq!(world.status(leader).sessions, 1, "a retry opens no second session");
    }
}

#[test]
fn s7_a_silent_session_is_expired_by_a_committed_entry_and_cleaned_up_s9() {
    let mut world = World::formed(3);
    let client = world.client(None);
    world.session(client);
    assert_eq!(world.write(client, "a"), "1");
    world.cut_off(client);
    let start = world.now;
    world.until("the end of the session", |world| {
        (0..3).all(|index| world.status(index).sessions == 0 && world.lines(index) == "a,left")
    });
    assert!(world.now.since(start) >= Duration::from_secs(4), "{:?}", world.now.since(start));
    assert!(world.now.since(start) <= Duration::from_secs(6), "{:?}", world.now.since(start));
    let leader = world.leader().expect("one");
    assert!(matches!(world.servers[leader].notices.last(), Some(Notice::Expired(_))));
    assert_eq!(world.engine(leader).marks().sessions_expired, 1);
    assert!(world.engine(leader).marks().time_entries >= 1, "the second slice needs an entry");
    assert!(!world.engine(leader).table().is_cleaning());
}

#[test]
fn s6_an_idle_session_lives_and_costs_no_entries() {
    for count in [1, 2, 3] {
        let mut world = World::formed(count);
        let client = world.client(None);
        world.session(client);
        let leader = world.leader().expect("one");
        let before = world.status(leader).last_index;
        world.run(Duration::from_secs(60));
        assert_eq!(world.status(leader).last_index, before);
        let core = &world.clients[client].core;
        assert_eq!(core.state(), SessionState::Connected);
        assert!(core.valid_until() > world.now, "its contacts are confirmed");
    }
}

#[test]
fn s7_a_new_leader_gives_every_session_its_full_timeout() {
    let mut world = World::formed(3);
    let client = world.client(None);
    world.session(client);
    world.cut_off(client);
    world.run(Duration::from_secs(4));
    let leader = world.leader().expect("one");
    world.crash(leader);
    world.until("another leader", |world| world.leader().is_some());
    let start = world.now;
    let survivors: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    world.until("the end", |world| survivors.iter().all(|index| world.status(*index).sessions == 0));
    assert!(world.now.since(start) >= Duration::from_millis(4_900), "{:?}", world.now.since(start));
}

#[test]
fn s6_a_contact_at_a_leader_without_a_majority_is_not_confirmed() {
    let mut world = World::formed(3);
    let client = world.client(None);
    world.session(client);
    let leader = world.leader().expect("one");
    for other in (0..3).filter(|index| *index != leader) {
        for more in 0..3 {
            if more != other {
                world.cut(more, other);
            }
        }
    }
    let until = world.clients[client].core.valid_until();
    world.run(Duration::from_secs(2));
    assert_eq!(world.clients[client].core.valid_until(), until);
}

#[test]
fn s9_a_closed_session_is_over_everywhere() {
    let mut world = World::formed(3);
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let now = world.now;
    world.clients[client].core.close(now);
    world.until("the end", |world| {
        (0..3).all(|index| world.status(index).sessions == 0 && world.lines(index) == "a,left")
    });
    assert_eq!(world.clients[client].core.state(), SessionState::Closed);
    assert!((0..3).all(|index| world.engine(index).marks().sessions_expired == 0));
}

#[test]
fn s4_a_command_above_the_limit_is_not_done_and_the_rest_is() {
    let mut world = World::new(3);
    world.options = |options| options.command_bytes = 10;
    world.start_all();
    let client = world.client(None);
    world.session(client);
    let commands = ["a", "far too long for a server like this", "b"];
    let sequences = commands.map(|command| world.submit(client, command));
    world.until("replies", |world| world.clients[client].endings.len() == 3);
    let endings = sequences.map(|sequence| words(&world.clients[client].endings[&sequence.0]));
    assert_eq!(endings, ["1", "not done: too large", "2"]);
    let leader = world.leader().expect("one");
    assert_eq!(world.lines(leader), "a,b");
    assert!(world.engine(leader).marks().not_logged > 0 && world.engine(leader).marks().gaps > 0);
}

#[test]
fn t2_a_timer_fires_on_every_server_without_any_command() {
    let mut world = World::formed(3);
    let client = world.client(None);
    assert_eq!(world.write(client, "timer 200"), "1");
    let start = world.now;
    world.until("the timer", |world| (0..3).all(|index| world.lines(index) == "timer 200,fired"));
    let after = world.now.since(start);
    assert!(after >= Duration::from_millis(195) && after < Duration::from_millis(300), "{after:?}");
}

#[test]
fn t2_a_timer_outlives_its_leader() {
    let mut world = World::formed(3);
    let client = world.client(None);
    assert_eq!(world.write(client, "timer 3000"), "1");
    let leader = world.leader().expect("one");
    world.crash(leader);
    world.start(leader);
    world.until("the timer", |world| (0..3).all(|index| world.lines(index) == "timer 3000,fired"));
}

#[test]
fn t2_while_a_timer_is_pending_time_is_logged_every_minute() {
    let mut world = World::formed(1);
    let client = world.client(None);
    assert_eq!(world.write(client, "timer 150000"), "1");
    let before = world.engine(0).marks().time_entries;
    world.run(Duration::from_secs(149));
    assert_eq!(world.engine(0).marks().time_entries - before, 2);
    world.run(Duration::from_secs(2));
    assert_eq!(world.lines(0), "timer 150000,fired");
    world.run(Duration::from_secs(120));
    assert_eq!(world.engine(0).marks().time_entries - before, 3, "none without a timer");
}
