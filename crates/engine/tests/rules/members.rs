//! R7: changes of the configuration as operators ask for them.

use std::time::Duration;

use atomix_engine::{Input, Notice};
use atomix_protocol::change::ChangeRefused;
use atomix_protocol::client::{ClientResponse, ManageAction, ManageOutcome};
use atomix_protocol::codec::Frame;
use atomix_protocol::{Address, MemberKind, ServerId};
use atomix_session::SessionState;

use crate::operator::Desk;
use crate::world::World;

/// A cluster of three and a fourth server, on an empty directory, that nobody listed.
fn with_a_stranger() -> World {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let fourth = world.joiner(&[]);
    world.servers[fourth].list = world.servers[0].list.clone();
    world.start(fourth);
    world.until("that it is nobody", |world| world.status(fourth).role == "joiner");
    world
}

#[test]
fn r7_a_server_is_added_promoted_and_removed_by_an_operator() {
    let mut world = with_a_stranger();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let newcomer = world.newcomer(3, MemberKind::Learner);

    let configuration = world.changed(|change| change.add = vec![newcomer.clone()]);
    let record = configuration.member(ServerId(4)).expect("added");
    assert_eq!((record.kind, record.incarnation), (MemberKind::Learner, newcomer.incarnation));
    world.until("the state", |world| world.lines(3) == "a");
    assert_eq!((world.status(3).server, world.status(3).votes), (Some(ServerId(4)), false));
    assert_eq!(world.status(3).notice, "");

    let configuration = world.changed(|change| change.set_kind = vec![(ServerId(4), MemberKind::Voter)]);
    assert!(configuration.is_voter(ServerId(4)) && configuration.outgoing_voters.is_none());
    world.until("one configuration", |world| world.agree(&[0, 1, 2, 3], &[1, 2, 3, 4]));
    assert_eq!(world.write(client, "b"), "2");

    let leaves = (0..3).find(|server| Some(*server) != world.leader()).expect("a follower");
    let id = world.id(leaves);
    world.changed(|change| change.remove = vec![id]);
    world.until("its end", |world| world.status(leaves).role == "removed");
    let status = world.status(leaves);
    assert!(!status.votes && status.notice.contains("removed from the cluster"), "{}", status.notice);
    let index = status.committed_configuration;
    assert!(world.servers[leaves].notices.contains(&Notice::Removed { configuration: index }));
    assert_eq!(world.write(client, "c"), "3");
    let leader = world.leader().expect("one");
    assert_eq!(world.engine(leader).raft().expect("a member").configuration().next_server_id, 5);
    // Nobody talks with it any more once the grace is over, and it talks to nobody.
    world.run(Duration::from_secs(10));
    let term = world.status(leader).term;
    world.run(Duration::from_secs(10));
    assert_eq!((world.leader(), world.status(leader).term), (Some(leader), term));
    assert_eq!((world.status(leaves).term, world.engine(leaves).next_deadline().is_some()), (term, true));
}

#[test]
fn r7_a_plan_is_answered_at_once_and_changes_nothing() {
    let mut world = World::formed(3);
    let (leader, change) = world.change_at_leader(|change| change.remove = vec![ServerId(1)]);
    let desk = world.desk(leader);
    world.order(desk, 7, ManageAction::Plan(change));
    let Some(ManageOutcome::Planned(plan)) = world.outcome(desk, 7) else { panic!("not at once") };
    assert_eq!((plan.refused.clone(), plan.before.voters, plan.after.voters), (None, 3, 2));
    assert_eq!((plan.before.failures, plan.after.failures), (1, 0));
    world.run(Duration::from_secs(1));
    assert_eq!(world.voters(leader), [1, 2, 3]);
}

#[test]
fn r7_who_does_not_lead_says_who_does() {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).leader.is_some()));
    let (leader, change) = world.change_at_leader(|change| change.remove = vec![ServerId(1)]);
    let expected = Some(world.servers[leader].address.clone());
    let desk = world.desk((leader + 1) % 3);
    let refused = |leader: &Option<Address>| {
        ManageOutcome::ChangeRefused(ChangeRefused::NotLeader { leader: leader.clone() })
    };
    assert_eq!(world.ordered(desk, 1, ManageAction::Plan(change.clone())), refused(&expected));
    assert_eq!(world.ordered(desk, 2, ManageAction::Change(change)), refused(&expected));
    let outcome = world.ordered(desk, 3, ManageAction::Transfer(None));
    let expected = atomix_protocol::change::TransferRefused::NotLeader { leader: expected };
    assert_eq!(outcome, ManageOutcome::TransferRefused(expected));
}

#[test]
fn r7_a_second_change_is_refused_while_one_is_under_way() {
    let mut world = World::formed(3);
    let (leader, change) = world.change_at_leader(|change| change.set_priority = vec![(ServerId(1), 3)]);
    let desk = world.desk(leader);
    world.order(desk, 1, ManageAction::Change(change.clone()));
    world.order(desk, 2, ManageAction::Change(change.clone()));
    let index = world.status(leader).configuration_index;
    let refused = ManageOutcome::ChangeRefused(ChangeRefused::Pending(index));
    assert_eq!((world.outcome(desk, 1), world.outcome(desk, 2)), (None, Some(refused)));
    world.until("an answer", |world| world.outcome(desk, 1).is_some());
    let stale = ManageOutcome::ChangeRefused(ChangeRefused::Changed(index));
    assert_eq!(world.ordered(desk, 3, ManageAction::Change(change)), stale);
}

#[test]
fn r7_a_leader_removes_itself() {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let client = world.client(None);
    let reader = world.client(world.leader());
    assert_eq!((world.write(client, "a"), world.write(reader, "b")), ("1".into(), "2".into()));
    let leader = world.leader().expect("one");
    let (id, term) = (world.id(leader), world.status(leader).term);
    let configuration = world.changed(|change| change.remove = vec![id]);
    assert_eq!(configuration.members.len(), 2);
    let others: Vec<usize> = (0..3).filter(|server| *server != leader).collect();
    world.until("its end", |world| world.status(leader).role == "removed");
    world.until("another leader", |world| world.leader().is_some_and(|other| other != leader));
    assert_eq!((world.write(client, "c"), world.write(reader, "d")), ("3".into(), "4".into()));
    world.until("its session", |world| world.clients[client].core.state() == SessionState::Connected);
    let voters: Vec<u64> = others.iter().map(|server| world.id(*server).0).collect();
    world.until("one configuration", |world| world.agree(&others, &voters));
    assert_eq!(world.status(others[0]).term, term.next(), "it handed over");
    assert_eq!(world.engine(leader).marks().left, 1);
}

#[test]
fn r7_a_change_whose_leader_is_deposed_is_unknown() {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let (leader, change) = world.change_at_leader(|change| change.remove = vec![ServerId(1), ServerId(2)]);
    let desk = world.desk(leader);
    world.isolate(leader);
    let before = world.status(leader).configuration_index;
    world.order(desk, 1, ManageAction::Change(change));
    assert!(world.status(leader).joint && world.status(leader).configuration_index > before);
    world.until("an answer", |world| world.outcome(desk, 1).is_some());
    assert_eq!(world.outcome(desk, 1), Some(ManageOutcome::Unknown));
    world.heal();
    world.until("its own entry gone", |world| world.status(leader).configuration_index == before);
    world.until("one configuration", |world| world.agree(&[0, 1, 2], &[1, 2, 3]));
    // It is aimed at the others again: the whole cluster works.
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    world.until("all", |world| (0..3).all(|server| world.lines(server) == "a"));
}

#[test]
fn r7_who_hung_up_is_not_answered() {
    let mut world = World::formed(3);
    let (leader, change) = world.change_at_leader(|change| change.set_priority = vec![(ServerId(1), 3)]);
    let desk = world.desk(leader);
    world.order(desk, 1, ManageAction::Change(change));
    world.step(leader, Input::Closed(desk.link));
    world.run(Duration::from_secs(1));
    assert_eq!(world.status(leader).members[0].priority, 3);
    assert_eq!(world.outcome(desk, 1), None);
}

#[test]
fn m3_the_next_leader_completes_a_change_and_links_follow() {
    let mut world = with_a_stranger();
    let newcomer = world.newcomer(3, MemberKind::Learner);
    world.changed(|change| change.add = vec![newcomer.clone()]);
    world.until("a member", |world| world.status(3).server.is_some());
    world.run(Duration::from_secs(1));
    let (leader, change) =
        world.change_at_leader(|change| change.set_kind = vec![(ServerId(4), MemberKind::Voter)]);
    let desk = world.desk(leader);
    world.order(desk, 1, ManageAction::Change(change));
    world.until("its spread", |world| {
        (0..4).filter(|server| *server != leader).all(|server| world.status(server).joint)
    });
    world.crash(leader);
    let rest: Vec<usize> = (0..4).filter(|server| *server != leader).collect();
    world.until("one configuration", |world| world.agree(&rest, &[1, 2, 3, 4]));
}

/// A cluster of three, its leader, and the one that was down when it was removed.
fn removed_while_down() -> (World, usize, usize) {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let leader = world.leader().expect("one");
    let victim = (leader + 1) % 3;
    let id = world.id(victim);
    world.crash(victim);
    world.changed(|change| change.remove = vec![id]);
    (world, leader, victim)
}

#[test]
fn r7_a_server_that_was_down_when_it_was_removed_is_refused_and_says_why() {
    let (mut world, leader, victim) = removed_while_down();
    // Longer than anybody waits for it to learn of it.
    world.run(Duration::from_secs(20));
    let term = world.status(leader).term;
    world.start(victim);
    world.run(Duration::from_secs(20));
    let status = world.status(victim);
    assert!(status.leader.is_none() && status.notice.contains("it was removed"), "{}", status.notice);
    assert_eq!((world.leader(), world.status(leader).term), (Some(leader), term), "it disturbs nobody");
    assert!(world.engine(leader).marks().removed_refused > 0);
}

/// A review of the real binary found it: after a rolling replacement clients looked for the next leader where nobody was any more.
#[test]
fn clients_are_told_where_the_cluster_is_also_by_a_removed_server() {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let told = |world: &World, desk: Desk| -> Vec<Vec<String>> {
        let heard =
            world.heard.iter().filter(|(server, link, _)| (*server, *link) == (desk.server, desk.link));
        let servers = heard.filter_map(|(_, _, frame)| match Frame::decode(frame) {
            Ok(Frame::Response(ClientResponse::Servers(servers))) => Some(servers.addresses),
            _ => None,
        });
        servers.map(|addresses| addresses.iter().map(ToString::to_string).collect()).collect()
    };
    let leader = world.leader().expect("one");
    let victim = (leader + 1) % 3;
    let desk = world.desk(leader);
    let all = ["server-1", "server-2", "server-3"].map(String::from).to_vec();
    assert_eq!(told(&world, desk), std::slice::from_ref(&all));
    let id = world.id(victim);
    world.changed(|change| change.remove = vec![id]);
    let rest: Vec<String> = all.iter().filter(|name| !name.ends_with(&id.to_string())).cloned().collect();
    assert_eq!(told(&world, desk), [all, rest.clone()]);
    world.until("its end", |world| world.status(victim).role == "removed");
    let late = world.desk(victim);
    assert_eq!(told(&world, late), [rest]);
}

#[test]
fn r7_a_server_that_comes_back_soon_learns_that_it_was_removed_and_remembers_it() {
    let (mut world, leader, victim) = removed_while_down();
    world.start(victim);
    world.until("its end", |world| world.status(victim).role == "removed");
    world.run(Duration::from_secs(1));
    world.crash(victim);
    world.start(victim);
    world.run(Duration::from_secs(1));
    let status = world.status(victim);
    assert_eq!((status.role.as_str(), status.votes), ("removed", false));
    assert!(status.notice.contains("removed from the cluster by configuration"), "{}", status.notice);
    assert!(world.engine(victim).raft().is_none());
    // It knocks nowhere, and nobody knocks there any more, though its address is listed.
    world.run(Duration::from_secs(10));
    let refused = |world: &World| world.status(leader).counters.frames_refused;
    let before = refused(&world);
    world.run(Duration::from_secs(20));
    assert_eq!(refused(&world), before);
}
