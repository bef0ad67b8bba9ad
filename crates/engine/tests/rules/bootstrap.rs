//! I1–I3.

use std::time::Duration;

use atomix_engine::Notice;
use atomix_protocol::{ClusterId, ServerId};
use atomix_session::SessionState;

use crate::world::World;

fn clusters(world: &World) -> Vec<Option<ClusterId>> {
    (0..world.servers.len()).map(|index| world.status(index).cluster).collect()
}

fn is_one_cluster(world: &World) -> bool {
    let clusters = clusters(world);
    clusters[0].is_some() && clusters.iter().all(|cluster| *cluster == clusters[0])
}

#[test]
fn i2_one_to_five_servers_form_a_cluster() {
    for count in 1..=5 {
        let mut world = World::new(count);
        world.start_all();
        world.until("one cluster", is_one_cluster);
        world.until("a leader", |world| world.leader().is_some());
        let members = world.status(0).members;
        for (index, member) in members.iter().enumerate() {
            assert_eq!(member.id, ServerId(index as u64 + 1), "ids in the order of the list");
            assert_eq!(member.peer_address, world.servers[index].address);
            assert_eq!(Some(member.incarnation), world.servers[index].disk.identity.map(|i| i.incarnation));
        }
        assert_eq!(
            world.engine(0).raft().expect("a member").configuration().next_server_id,
            count as u64 + 1
        );
        let all_vote = |world: &World| (0..count).all(|index| world.status(index).votes);
        world.until("votes", all_vote);
        world.until("peace", |world| (0..count).all(|index| world.status(index).notice.is_empty()));
    }
}

#[test]
fn i3_ids_come_in_list_order_whoever_is_the_lowest() {
    let mut world = World::new(3);
    for server in &mut world.servers {
        server.list.reverse();
    }
    world.start_all();
    world.until("one cluster", is_one_cluster);
    let addresses: Vec<_> = world.status(0).members.into_iter().map(|member| member.peer_address).collect();
    assert_eq!(addresses, world.servers[0].list);
}

#[test]
fn i2_nothing_is_formed_while_one_listed_server_is_missing() {
    let mut world = World::new(3);
    world.start(0);
    world.start(1);
    world.run(Duration::from_secs(10));
    assert_eq!(world.status(0).cluster, None);
    let status = world.status(0);
    assert_eq!((status.role.as_str(), status.votes), ("forming", false));
    assert!(status.notice.contains("server-3") && !status.notice.contains("server-2"), "{}", status.notice);
    world.start(2);
    world.until("one cluster", is_one_cluster);
}

#[test]
fn i1_nothing_is_said_before_the_incarnation_is_durable() {
    let mut world = World::new(1);
    world.start(0);
    assert_eq!(world.servers[0].disk.identity, None);
    world.run(Duration::from_millis(1));
    let first = world.servers[0].disk.identity;
    assert!(first.is_some());
    world.crash(0);
    world.start(0);
    world.until("a leader", |world| world.leader().is_some());
    assert_eq!(world.servers[0].disk.identity, first, "a directory keeps its incarnation");
}

/// Interrupts one server, or all, after each of the first so many microseconds of a bootstrap.
fn interrupted(victims: &[usize]) {
    let mut resumed = 0;
    for micros in (100..8_000).step_by(100) {
        let mut world = World::new(3);
        world.start_all();
        world.run(Duration::from_micros(micros));
        for victim in victims {
            world.crash(*victim);
        }
        world.run(Duration::from_secs(1));
        for victim in victims {
            world.start(*victim);
        }
        world.until("one cluster", is_one_cluster);
        world.until("a leader", |world| world.leader().is_some());
        resumed += (0..3).map(|index| world.engine(index).marks().bootstrap_resumed).sum::<u64>();
    }
    assert!(resumed > 0, "no interruption hit the moment between forming and taking");
}

#[test]
fn i2_a_bootstrap_interrupted_at_the_lowest_goes_on() {
    interrupted(&[0]);
}

#[test]
fn i2_a_bootstrap_interrupted_at_another_goes_on() {
    interrupted(&[1]);
}

#[test]
fn i2_a_bootstrap_interrupted_everywhere_goes_on() {
    interrupted(&[0, 1, 2]);
}

#[test]
fn i2_the_lowest_sends_the_configuration_again_after_a_restart() {
    let mut world = World::new(3);
    world.start_all();
    world.until("the first configuration", |world| world.servers[0].disk.configuration.is_some());
    assert!(world.servers[1].disk.configuration.is_none() && world.servers[2].disk.configuration.is_none());
    world.crash(0);
    world.run(Duration::from_secs(1));
    assert_eq!(clusters_on_disk(&world), 1, "the others wait");
    world.start(0);
    world.until("one cluster", is_one_cluster);
}

fn clusters_on_disk(world: &World) -> usize {
    world.servers.iter().filter(|server| server.disk.configuration.is_some()).count()
}

#[test]
fn i2_a_wiped_server_stays_up_without_a_vote_and_says_so() {
    for victim in 0..3 {
        let mut world = World::formed(3);
        world.until("one cluster", is_one_cluster);
        let cluster = world.status((victim + 1) % 3).cluster.expect("formed");
        world.crash(victim);
        world.wipe(victim);
        world.start(victim);
        world.run(Duration::from_secs(5));
        let status = world.status(victim);
        assert_eq!((status.role.as_str(), status.votes, status.cluster), ("joiner", false, None));
        assert!(status.notice.contains("does not know this data directory"), "{}", status.notice);
        assert!(status.notice.contains("--join"), "what helps: {}", status.notice);
        assert!(world.servers[victim].notices.contains(&Notice::Joiner { cluster, asks: false }));
        assert!(world.engine(victim).raft().is_none(), "it takes no part");
        let leader = world.leader().expect("the others go on");
        assert_ne!(leader, victim);
    }
}

#[test]
fn i2_three_of_three_wiped_form_a_new_cluster() {
    let mut world = World::formed(3);
    let before = world.status(0).cluster;
    for index in 0..3 {
        world.crash(index);
        world.wipe(index);
    }
    world.start_all();
    world.until("one cluster", is_one_cluster);
    assert_ne!(world.status(0).cluster, before);
}

#[test]
fn i2_an_old_session_is_refused_by_a_new_cluster() {
    let mut world = World::formed(3);
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    for index in 0..3 {
        world.crash(index);
        world.wipe(index);
    }
    world.start_all();
    world.until("a leader", |world| world.leader().is_some());
    world.until("its end", |world| world.clients[client].core.state() == SessionState::Expired);
    let leader = world.leader().expect("one");
    assert_eq!(world.lines(leader), "");
}

#[test]
fn i2_on_a_directory_in_use_the_list_only_compares() {
    let mut world = World::formed(3);
    world.until("one cluster", is_one_cluster);
    world.crash(1);
    world.servers[1].list.pop();
    world.start(1);
    world.until("its leader", |world| world.status(1).leader.is_some());
    assert!(world.servers[1].notices.contains(&Notice::BootstrapDiffers));
    assert_eq!(world.status(1).members.len(), 3);
    assert!(!world.servers[0].notices.contains(&Notice::BootstrapDiffers));
}

#[test]
fn i2_a_restart_needs_a_majority_only() {
    let mut world = World::formed(3);
    world.until("one cluster", is_one_cluster);
    for index in 0..3 {
        world.crash(index);
    }
    world.start(0);
    world.run(Duration::from_secs(2));
    assert_eq!(world.leader(), None);
    assert!(world.status(0).notice.contains("majority"), "{}", world.status(0).notice);
    world.start(2);
    world.until("a leader", |world| world.leader().is_some());
}

#[test]
fn i2_a_server_that_is_not_listed_says_so() {
    let mut world = World::new(3);
    for server in &mut world.servers {
        server.list.pop();
    }
    world.start_all();
    world.until("a leader", |world| world.leader().is_some());
    world.run(Duration::from_secs(2));
    let status = world.status(2);
    assert_eq!((status.role.as_str(), status.votes), ("joiner", false));
    assert_eq!(world.status(0).members.len(), 2);
}

#[test]
fn i2_the_same_server_under_two_addresses_forms_nothing() {
    let mut world = World::new(2);
    // The second reports the first's incarnation: a copied directory.
    world.start(0);
    world.run(Duration::from_millis(10));
    world.servers[1].disk = world.servers[0].disk.clone();
    world.start(1);
    world.run(Duration::from_secs(2));
    assert!(world.servers.iter().all(|server| server.disk.configuration.is_none()));
    assert!(world.servers.iter().any(|server| server.stopped.is_some()), "{}", world.describe());
}
