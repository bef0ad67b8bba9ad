//! M3: what may be used is what every member has that holds state.

use std::time::Duration;

use atomix_protocol::MemberKind;
use atomix_protocol::envelope::{Envelope, OpenResource, Sharing};
use bytes::Bytes;

use crate::world::World;

const OLD: &[(&str, u16)] = &[("map", 2)];
const NEW: &[(&str, u16)] = &[("lock", 1), ("map", 3)];

/// Three servers with these binaries, and a leader.
fn formed(kinds: [&'static [(&'static str, u16)]; 3]) -> World {
    let mut world = World::new(3);
    for (server, kinds) in world.servers.iter_mut().zip(kinds) {
        server.kinds = kinds;
    }
    world.start_all();
    world.until("a leader", |world| world.leader().is_some());
    world
}

/// The levels of `map` and `lock`, as one server has applied them.
fn levels(world: &World, server: usize) -> (u16, u16) {
    let levels = world.engine(server).table().levels();
    (levels.of("map"), levels.of("lock"))
}

fn all_have(world: &World, expected: (u16, u16)) -> bool {
    (0..world.servers.len())
        .all(|server| world.servers[server].engine.is_none() || levels(world, server) == expected)
}

/// Restarts a server with another binary.
fn replace(world: &mut World, server: usize, kinds: &'static [(&'static str, u16)]) {
    world.crash(server);
    world.servers[server].kinds = kinds;
    world.start(server);
}

fn open(kind: &str) -> Bytes {
    let (path, kind, configuration) = ("/it".into(), kind.into(), Bytes::new());
    Envelope::Open(OpenResource { path, kind, configuration, sharing: Sharing::Shared }).encode()
}

/// How the opening of a resource ends.
fn opening(world: &mut World, client: usize, kind: &str) -> String {
    let now = world.now;
    let sequence = world.clients[client].core.submit(now, open(kind), None).expect("room");
    world.drain(crate::world::CLIENTS + client);
    world.until("an end", |world| world.clients[client].endings.contains_key(&sequence.0));
    match &world.clients[client].endings[&sequence.0] {
        Ok(_) => "done".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_level_is_the_least_of_what_the_members_have() {
    let mut world = formed([NEW, OLD, NEW]);
    world.until("levels", |world| all_have(world, (2, 0)));
    replace(&mut world, 1, NEW);
    world.until("higher levels", |world| all_have(world, (3, 1)));
}

#[test]
fn while_a_member_is_away_nothing_is_raised() {
    let mut world = formed([OLD; 3]);
    world.until("levels", |world| all_have(world, (2, 0)));
    let away = (0..3).find(|server| Some(*server) != world.leader()).expect("a follower");
    world.crash(away);
    for server in (0..3).filter(|server| *server != away) {
        replace(&mut world, server, NEW);
        world.until("a leader", |world| world.leader().is_some());
    }
    world.run(Duration::from_secs(5));
    assert!(all_have(&world, (2, 0)), "it may come back with the old binary");
    replace(&mut world, away, NEW);
    world.until("higher levels", |world| all_have(world, (3, 1)));
}

#[test]
fn what_a_removed_member_lacks_holds_nothing_back() {
    let mut world = formed([NEW, OLD, NEW]);
    world.until("levels", |world| all_have(world, (2, 0)));
    let removed = world.id(1);
    world.crash(1);
    world.changed(|change| change.remove = vec![removed]);
    world.until("higher levels", |world| all_have(world, (3, 1)));
}

#[test]
fn what_a_member_lacks_that_was_made_a_reserve_holds_nothing_back() {
    let mut world = formed([NEW, OLD, NEW]);
    world.until("levels", |world| all_have(world, (2, 0)));
    let id = world.id(1);
    world.crash(1);
    world.changed(|change| change.set_kind = vec![(id, MemberKind::Reserve)]);
    world.until("higher levels", |world| all_have(world, (3, 1)));
}

/// Its binary is not asked any more, also when it is the last one that had not said: a leader looks again.
#[test]
fn a_wiped_member_whose_old_self_lacked_something_holds_nothing_back() {
    let mut world = formed([NEW, OLD, NEW]);
    world.until("levels", |world| all_have(world, (2, 0)));
    world.crash(1);
    world.wipe(1);
    world.servers[1].kinds = NEW;
    world.servers[1].list.clear();
    world.servers[1].join = [0, 2].map(|server| world.servers[server].address.clone()).to_vec();
    // It wants no vote, so that its old record stays.
    world.options = |options| options.kind = MemberKind::Learner;
    world.start(1);
    world.until("higher levels", |world| all_have(world, (3, 1)));
    let leader = world.leader().expect("a leader");
    assert_eq!(world.status(leader).members.len(), 4);
}

/// A server that says that it listens where a live member does makes that member's binary count no less.
#[test]
fn m3_a_stray_with_the_address_of_a_live_member_raises_nothing_beyond_it() {
    let leader = formed([NEW; 3]).leader().expect("one");
    let old = (leader + 1) % 3;
    let mut kinds = [NEW; 3];
    kinds[old] = OLD;
    let mut world = formed(kinds);
    world.until("levels", |world| all_have(world, (2, 0)));
    let stray = world.joiner(&[0, 1, 2]);
    let address = world.servers[old].address.clone();
    world.servers[stray].address = address;
    world.servers[stray].kinds = NEW;
    world.start(stray);
    world.run(Duration::from_secs(10));
    // Nor if the member is away for a while, and comes back with the same binary.
    world.crash(old);
    world.run(Duration::from_millis(1));
    world.start(old);
    world.run(Duration::from_secs(10));
    for server in 0..3 {
        assert_eq!(levels(&world, server), (2, 0), "of server {server}\n{}", world.describe());
    }
}

/// Another has a live member's address and answers there, since the member has moved: that one still holds state.
#[test]
fn m3_a_member_that_is_heard_of_counts_wherever_it_is() {
    let mut world = formed([NEW, OLD, NEW]);
    world.until("levels", |world| all_have(world, (2, 0)));
    world.crash(1);
    let address = core::mem::replace(&mut world.servers[1].address, "elsewhere".into());
    world.start(1);
    world.until("a leader", |world| world.leader().is_some_and(|leader| leader != 1));
    let stray = world.joiner(&[0, 2]);
    world.servers[stray].address = address;
    world.servers[stray].kinds = NEW;
    world.options = |options| options.kind = MemberKind::Learner;
    world.start(stray);
    world.until("a member", |world| world.status(stray).server.is_some());
    world.run(Duration::from_secs(10));
    for server in [0, 2, stray] {
        assert_eq!(levels(&world, server), (2, 0), "of server {server}\n{}", world.describe());
    }
}

#[test]
fn a_level_outlives_its_leader_and_never_sinks() {
    let mut world = formed([NEW; 3]);
    world.until("levels", |world| all_have(world, (3, 1)));
    let leader = world.leader().expect("a leader");
    replace(&mut world, leader, OLD);
    world.until("another leader", |world| world.leader().is_some_and(|other| other != leader));
    world.run(Duration::from_secs(2));
    assert!(all_have(&world, (3, 1)));
}

#[test]
fn a_kind_without_a_level_is_refused_before_the_log() {
    let mut world = formed([NEW, OLD, NEW]);
    world.until("levels", |world| all_have(world, (2, 0)));
    let client = world.client(None);
    assert_eq!(opening(&mut world, client, "map"), "done");
    assert_eq!(opening(&mut world, client, "lock"), "not done: not all servers know that kind of resource");
    assert!(!world.lines(0).contains("lock"), "it is not in the log: {}", world.lines(0));
    replace(&mut world, 1, NEW);
    world.until("higher levels", |world| all_have(world, (3, 1)));
    assert_eq!(opening(&mut world, client, "lock"), "done");
}
