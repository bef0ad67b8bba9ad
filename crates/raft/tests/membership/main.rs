//! Changes of the configuration (R7, I3, §4): one test per rule and per refusal. The properties of Figure 3.2, and
//! who may follow whom (I13), are checked after every step.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not there")]

mod catching_up;
mod demoted;
mod joint;
mod leaving;
mod members;
mod refusals;

use std::time::Duration;

use atomix_protocol::change::{Change, NewMember};
use atomix_protocol::{Configuration, EntryId, Index, Member, MemberKind, ServerId};
use atomix_raft::Config;
use atomix_testkit::scenario::members::new_member;
use atomix_testkit::scenario::{Cluster, Settings};

const fn server(id: u64) -> ServerId {
    ServerId(id)
}

/// Server 1 leads, everyone has answered it, and everything is quiet.
fn led_by_1(voters: u64, learners: u64) -> Cluster {
    led_by_1_with(voters, learners, Config::default())
}

fn led_by_1_with(voters: u64, learners: u64, config: Config) -> Cluster {
    let mut cluster = Cluster::new(Settings { voters, learners, config, ..Settings::default() });
    cluster.campaign(server(1));
    run(&mut cluster, 700);
    assert_eq!(cluster.leader(), Some(server(1)));
    cluster
}

/// Time passes, links and disks work, and nothing may be violated.
fn run(cluster: &mut Cluster, millis: u64) {
    for _ in 0..millis {
        cluster.tick(Duration::from_millis(1));
        cluster.settle();
    }
    assert_eq!(cluster.checker().violation(), None);
}

/// Nothing, of the configuration that this server uses.
fn unchanged(cluster: &Cluster, of: u64) -> Change {
    Change { expected: cluster.raft(server(of)).configuration().index, ..Change::default() }
}

fn add(cluster: &Cluster, of: u64, kind: MemberKind) -> Change {
    let next = cluster.raft(server(of)).configuration().next_server_id;
    Change { add: vec![new_member(next, kind)], ..unchanged(cluster, of) }
}

/// A learner that has what another has: its address.
fn like(id: u64, other: u64) -> NewMember {
    NewMember {
        peer_address: new_member(other, MemberKind::Learner).peer_address,
        ..new_member(id, MemberKind::Learner)
    }
}

fn make(cluster: &Cluster, of: u64, kinds: &[(u64, MemberKind)]) -> Change {
    let set_kind = kinds.iter().map(|(id, kind)| (server(*id), *kind)).collect();
    Change { set_kind, ..unchanged(cluster, of) }
}

fn remove(cluster: &Cluster, of: u64, ids: &[u64]) -> Change {
    Change { remove: ids.iter().copied().map(server).collect(), ..unchanged(cluster, of) }
}

/// Has the leader make a change, and sees it through.
fn complete(cluster: &mut Cluster, change: &Change) -> EntryId {
    let leader = cluster.leader().unwrap();
    let begun = cluster.change(leader, change).unwrap();
    run(cluster, 200);
    begun
}

/// A learner joins and catches up.
fn join(cluster: &mut Cluster, kind: MemberKind) -> u64 {
    let leader = cluster.leader().unwrap();
    let id = cluster.raft(leader).configuration().next_server_id;
    let change = add(cluster, leader.0, kind);
    complete(cluster, &change);
    cluster.join(server(id), leader);
    run(cluster, 700);
    id
}

fn voters(configuration: &Configuration) -> Vec<u64> {
    configuration.voters().map(|id| id.0).collect()
}

fn kinds(configuration: &Configuration) -> Vec<(u64, MemberKind)> {
    configuration.members.iter().map(|Member { id, kind, .. }| (id.0, *kind)).collect()
}

fn in_use(cluster: &Cluster, id: u64) -> &Configuration {
    cluster.raft(server(id)).configuration()
}

fn committed(cluster: &Cluster, id: u64) -> Index {
    cluster.raft(server(id)).committed_configuration().index
}
