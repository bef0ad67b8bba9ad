//! R4 and what a change of leader does to links and clients.

use std::time::Duration;

use atomix_engine::Output;
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Hello;

use crate::solo::{Solo, address, peer};
use crate::world::World;

#[test]
fn r4_a_closed_link_from_the_leader_brings_another_leader_soon() {
    let mut world = World::formed(3);
    world.run(Duration::from_secs(2));
    let leader = world.leader().expect("one");
    world.crash(leader);
    let start = world.now;
    world.until("another leader", |world| world.leader().is_some());
    assert!(world.now.since(start) < Duration::from_millis(150), "{:?}", world.now.since(start));
}

#[test]
fn a_vanished_server_comes_back_over_its_half_open_links() {
    let mut world = World::formed(3);
    world.run(Duration::from_secs(2));
    let victim = (world.leader().expect("one") + 1) % 3;
    world.vanish(victim);
    world.run(Duration::from_millis(100));
    world.start(victim);
    let start = world.now;
    world.until("its leader", |world| world.status(victim).leader.is_some());
    assert!(world.now.since(start) < Duration::from_millis(2_500), "{:?}", world.now.since(start));
    assert!(world.servers.iter().all(|server| server.stopped.is_none()));
}

#[test]
fn a_dialled_link_without_answers_is_given_up() {
    let forming = Hello { cluster: None, server: None, ..peer(2) };
    for (answers, hello) in [(true, peer(2)), (false, peer(2)), (true, forming.clone()), (false, forming)] {
        let mut solo = if hello.cluster.is_some() { Solo::member(3) } else { Solo::empty(3) };
        let link = solo.dialed(&address(2));
        solo.hear(link, &Frame::Hello(hello));
        for _ in 0..15 {
            solo.wait(Duration::from_millis(450));
            for frame in solo.sent(link) {
                if let (Frame::Ping(token), true) = (frame, answers) {
                    solo.hear(link, &Frame::Pong(token));
                }
            }
        }
        assert_eq!(solo.is_closed(link), !answers);
        let dials =
            solo.outputs.iter().filter(|o| matches!(o, Output::Dial(_, to) if *to == address(2))).count();
        assert_eq!(dials, if answers { 1 } else { 2 }, "it dials again");
    }
}

#[test]
fn an_accepted_link_without_probes_is_given_up() {
    for hello in [peer(2), Hello { cluster: None, server: None, ..peer(2) }] {
        let mut solo = Solo::member(3);
        let link = solo.greeted_by(hello);
        for _ in 0..30 {
            solo.wait(Duration::from_secs(1));
            solo.hear(link, &Frame::Ping(1));
        }
        assert!(!solo.is_closed(link));
        solo.wait(Duration::from_secs(21));
        assert!(solo.is_closed(link));
    }
}

#[test]
fn a_dialled_link_that_went_dead_is_found_out_and_replaced() {
    let mut world = World::formed(3);
    world.run(Duration::from_secs(2));
    let leader = world.leader().expect("one");
    let victim = (leader + 1) % 3;
    world.vanish(victim);
    world.run(Duration::from_secs(10));
    world.start(victim);
    world.until("its leader", |world| world.status(victim).leader.is_some());
    assert_eq!(world.leader(), Some(leader));
}

#[test]
fn a_deposed_leader_sends_its_clients_away() {
    let mut world = World::formed(3);
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = world.leader().expect("one");
    for other in (0..3).filter(|other| *other != leader) {
        world.cut(leader, other);
    }
    let sequence = world.submit(client, "b");
    world.until("a reply", |world| world.clients[client].endings.contains_key(&sequence.0));
    let other = world.leader().expect("another");
    assert_ne!(other, leader);
    assert_eq!(world.lines(other), "a,b");
    assert_eq!(world.engine(leader).marks().deposed_in_flight, 1);
}
