//! D5 with a full disk: who takes commands, what is refused and how, and what goes on.

use std::time::Duration;

use atomix_engine::{Input, Notice, Output, Recovered};
use atomix_protocol::MemberKind;
use atomix_protocol::client::Consistency;
use atomix_session::SessionState;
use bytes::Bytes;

use crate::solo::{Solo, address};
use crate::world::World;

const FULL: &str = "not done: the servers' disks are full";

fn formed() -> World {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).leader.is_some()));
    world.run(Duration::from_secs(1));
    world
}

fn fill(world: &mut World, servers: &[usize], room: bool) {
    for server in servers {
        world.step(*server, Input::Room(room));
    }
}

/// All three, those who do not lead first, and each has had time to say so.
fn fill_all(world: &mut World) -> usize {
    let leader = world.leader().expect("one");
    fill(world, &[(leader + 1) % 3, (leader + 2) % 3], false);
    world.run(Duration::from_millis(200));
    fill(world, &[leader], false);
    world.run(Duration::from_millis(200));
    assert_eq!(world.leader(), Some(leader));
    leader
}

/// A quorum has room again, and the leader has heard of it.
fn empty_two(world: &mut World, leader: usize) {
    fill(world, &[leader, (leader + 1) % 3], true);
    world.run(Duration::from_millis(200));
}

#[test]
fn d5_commands_go_to_a_server_with_room() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = world.leader().expect("one");
    fill(&mut world, &[leader], false);
    for number in 2..=20 {
        assert_eq!(world.write(client, "more"), number.to_string());
    }
    assert_ne!(world.leader(), Some(leader));
    assert!((0..3).all(|server| world.engine(server).marks().not_logged == 0), "none was refused");
    let status = world.status(leader);
    assert!(status.full && status.notice.contains("the disk is full"), "{}", status.notice);
    assert!(!world.status((leader + 2) % 3).full);
    assert!(world.servers[leader].notices.contains(&Notice::Full(true)));
}

/// What two of three keep in reserve is not for commands of the third: without it no leader could begin its term.
#[test]
fn d5_a_leader_with_room_takes_no_commands_that_nobody_else_has_room_for() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = world.leader().expect("one");
    fill(&mut world, &[(leader + 1) % 3, (leader + 2) % 3], false);
    world.run(Duration::from_millis(200));
    assert_eq!(world.write(client, "b"), FULL);
    assert_eq!(world.read(client, Consistency::Linearizable), "a");
    let status = world.status(leader);
    assert!(!status.full && status.notice.contains("no commands are taken"), "{}", status.notice);
    fill(&mut world, &[(leader + 2) % 3], true);
    world.run(Duration::from_millis(200));
    assert_eq!((world.write(client, "c"), world.leader()), ("2".into(), Some(leader)));
    assert_eq!(world.status(leader).notice, "");
}

#[test]
fn d5_where_none_has_room_commands_are_refused_and_reads_are_not() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = fill_all(&mut world);
    let before = world.status(leader).last_index;
    for _ in 0..5 {
        assert_eq!(world.write(client, "b"), FULL);
    }
    assert_eq!(world.read(client, Consistency::Linearizable), "a");
    assert_eq!(world.engine(leader).marks().full_refused, 5);
    let notice = world.status(leader).notice;
    assert!(notice.contains("no commands are taken"), "{notice}");
    assert_eq!(world.status(leader).last_index.since(before), 5, "a skip for each, and nothing else");
    // It comes back by itself.
    empty_two(&mut world, leader);
    assert_eq!((world.write(client, "c"), world.status(leader).notice), ("2".into(), String::new()));
    assert_eq!(world.leader(), Some(leader), "nobody else had a reason to lead");
    assert!(world.servers[leader].notices.contains(&Notice::Full(false)));
    assert_eq!(world.clients[client].core.state(), SessionState::Connected);
}

/// All that were under way together.
#[test]
fn d5_a_window_full_of_commands_is_refused_one_by_one() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = fill_all(&mut world);
    let sequences: Vec<u64> = (0..30).map(|_| world.submit(client, "b").0).collect();
    world.until("all of them", |world| {
        sequences.iter().all(|sequence| world.clients[client].endings.contains_key(sequence))
    });
    for sequence in sequences {
        assert_eq!(crate::world::words(&world.clients[client].endings[&sequence]), FULL);
    }
    assert_eq!(world.lines(leader), "a");
}

#[test]
fn d5_sessions_are_opened_when_there_is_room_and_end_all_the_same() {
    let mut world = formed();
    let silent = world.client(None);
    world.session(silent);
    let leader = fill_all(&mut world);
    let waiting = world.client(None);
    world.cut_off(silent);
    let sessions = world.status(leader).sessions;
    world.until("an expiry", |world| world.status(leader).sessions < sessions);
    assert!(world.clients[waiting].core.session().is_none());
    assert!(world.engine(leader).marks().full_refused > 0);
    empty_two(&mut world, leader);
    world.session(waiting);
    assert_eq!(world.write(waiting, "a"), "2", "behind what the other left");
}

/// What is given back finds room as soon as there is some, and nobody has to ask for it again.
#[test]
fn d5_what_is_given_back_waits_for_room() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = fill_all(&mut world);
    let now = world.now;
    let given =
        world.clients[client].core.submit_detached(now, Bytes::from_static(b"given back")).expect("open");
    world.drain(crate::world::CLIENTS + client);
    world.run(Duration::from_secs(3));
    assert!(!world.clients[client].endings.contains_key(&given.next().0));
    empty_two(&mut world, leader);
    world.until("it", |world| world.lines(leader) == "a,given back");
}

/// The configuration may need to change for there to be room.
#[test]
fn d5_the_configuration_changes_on_what_is_kept_in_reserve() {
    let mut world = formed();
    let leader = fill_all(&mut world);
    let removed = world.id((leader + 1) % 3);
    let configuration = world.changed(|change| change.remove = vec![removed]);
    assert_eq!(configuration.members.iter().filter(|m| m.kind == MemberKind::Voter).count(), 2);
}

/// An empty directory on a full disk: who it is finds no room, and is written when there is some.
#[test]
fn d5_an_identity_without_room_is_written_later() {
    let mut solo = Solo::recovered(Recovered::default(), vec![address(1)]);
    let write = |solo: &mut Solo| {
        let place = solo.outputs.iter().position(|output| matches!(output, Output::Write(..)));
        place.map(|place| match solo.outputs.remove(place) {
            Output::Write(token, batch) => (token, batch),
            _ => unreachable!(),
        })
    };
    let (token, batch) = write(&mut solo).expect("its identity");
    assert!(batch.identity.is_some());
    solo.step(Input::NotWritten(token, batch.clone()));
    assert!(write(&mut solo).is_none(), "not at once");
    solo.step(Input::Room(false));
    let (token, again) = write(&mut solo).expect("with every word of room");
    assert_eq!(again, batch);
    solo.step(Input::Written(token));
    solo.step(Input::Room(true));
    solo.write();
    solo.wait(Duration::from_secs(5));
    solo.write();
    assert_eq!(solo.engine.status(solo.now).role, "leader");
}

/// It was told before it was a member.
#[test]
fn d5_a_disk_that_was_full_from_the_start_is_no_less_so() {
    let mut world = World::new(1);
    world.start(0);
    world.step(0, Input::Room(false));
    world.until("a leader", |world| world.leader().is_some());
    assert!(world.status(0).full);
    let client = world.client(None);
    world.run(Duration::from_secs(1));
    assert!(world.clients[client].core.session().is_none());
    world.step(0, Input::Room(true));
    world.session(client);
}
