//! Changes of the configuration at the moments at which they have gone wrong elsewhere. Each says what was violated,
//! if something was.

use std::time::Duration;

use atomix_protocol::change::{Change, ChangeRefused};
use atomix_protocol::{MemberKind, ServerId};
use atomix_raft::Config;

use super::elect;
use crate::scenario::{Cluster, Settings};

const fn server(id: u64) -> ServerId {
    ServerId(id)
}

/// Server 1 leads, everyone has answered it, and everything is quiet.
fn led_by_1(voters: u64, learners: u64, config: Config) -> Cluster {
    let mut cluster = Cluster::new(Settings { voters, learners, config, ..Settings::default() });
    cluster.campaign(server(1));
    run(&mut cluster, 700);
    cluster
}

fn run(cluster: &mut Cluster, millis: u64) {
    for _ in 0..millis {
        cluster.tick(Duration::from_millis(1));
        cluster.settle();
    }
}

/// A change of the configuration that this server uses.
fn change(cluster: &Cluster, of: u64, kinds: &[(u64, MemberKind)], remove: &[u64]) -> Change {
    Change {
        expected: cluster.raft(server(of)).configuration().index,
        set_kind: kinds.iter().map(|(id, kind)| (server(*id), *kind)).collect(),
        remove: remove.iter().copied().map(server).collect(),
        ..Change::default()
    }
}

fn verdict(cluster: &Cluster) -> Result<(), String> {
    cluster.checker().violation().map_or(Ok(()), |violation| Err(violation.to_owned()))
}

fn unfolds(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("it did not unfold: {what}")) }
}

/// Two of three voters are replaced, and are cut off before they hear of it. The three that remain are a majority of
/// all five, and none of the old three (microsoft/CCF#3948, B18).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn majority_of_both_sides_together() -> Result<(), String> {
    let mut cluster = led_by_1(3, 2, Config::default());
    let voters = [(4, MemberKind::Voter), (5, MemberKind::Voter)];
    let asked = change(&cluster, 1, &voters, &[2, 3]);
    cluster.isolate(server(2));
    cluster.isolate(server(3));
    let begun = cluster.change(server(1), &asked).map_err(|refused| refused.to_string())?;
    cluster.settle();
    verdict(&cluster)?;
    let leader = cluster.raft(server(1));
    unfolds(leader.commit_index() < begun.index, "the old voters were not asked")?;
    // They come back, and all goes well.
    cluster.heal();
    run(&mut cluster, 1_000);
    verdict(&cluster)?;
    let voters: Vec<ServerId> = cluster.raft(server(4)).configuration().voters().collect();
    unfolds(voters == [1, 4, 5].map(server), "the change never ended")
}

/// The leader of a new term is asked for a change before it has committed anything in it: it can't know yet what
/// others began (Ongaro 2015, §4.1, B19).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn change_before_the_own_entry() -> Result<(), String> {
    let mut cluster = led_by_1(3, 1, Config::default());
    elect(&mut cluster, 2, &[1, 3])?;
    // They answer, and no disk but the leader's has written its entry.
    cluster.persist(server(2));
    for voter in [1, 3].map(server) {
        cluster.deliver_link(server(2), voter);
        cluster.deliver_link(voter, server(2));
    }
    let leader = cluster.raft(server(2));
    unfolds(leader.commit_index() < leader.last().index, "the leader's entry is committed")?;
    let mut asked = change(&cluster, 2, &[], &[]);
    asked.set_priority.push((server(3), 7));
    let refused = cluster.change(server(2), &asked);
    verdict(&cluster)?;
    unfolds(refused == Err(ChangeRefused::NotEstablished), "the change was not refused")?;
    run(&mut cluster, 200);
    let taken = cluster.change(server(2), &asked);
    run(&mut cluster, 200);
    verdict(&cluster)?;
    unfolds(taken.is_ok(), "the change was refused for good")
}

/// A follower is away while the configuration changes and the log is compacted. If the snapshot that it gets does not
/// bring the configuration along, it goes by one that is long gone (databendlabs/openraft#1808, B20).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn configuration_in_a_snapshot() -> Result<(), String> {
    let config = Config { log_memory_bytes: 1, log_tail_bytes: 0, ..Config::default() };
    let mut cluster = led_by_1(3, 2, config);
    cluster.isolate(server(3));
    let asked = change(&cluster, 1, &[(4, MemberKind::Voter), (5, MemberKind::Voter)], &[2]);
    let begun = cluster.change(server(1), &asked).map_err(|refused| refused.to_string())?;
    run(&mut cluster, 200);
    cluster.propose(server(1), "x").map_err(|refused| refused.to_string())?;
    cluster.settle();
    cluster.snapshot(server(1));
    unfolds(cluster.raft(server(1)).snapshot_index() > begun.index, "no snapshot was taken")?;
    cluster.heal();
    run(&mut cluster, 500);
    verdict(&cluster)?;
    unfolds(cluster.raft(server(3)).marks().snapshot_installed == 1, "no snapshot was installed")?;
    let used = cluster.raft(server(3)).configuration();
    unfolds(*used == *cluster.raft(server(1)).configuration(), "the configuration is another")
}

/// Learners hold every entry, and no other voter holds one: nothing may be committed (atomix/copycat PR 155, B21).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn learners_alone() -> Result<(), String> {
    let mut cluster = led_by_1(3, 2, Config::default());
    cluster.isolate(server(2));
    cluster.isolate(server(3));
    let proposed = cluster.propose(server(1), "x").map_err(|refused| refused.to_string())?;
    cluster.settle();
    verdict(&cluster)?;
    unfolds(cluster.raft(server(4)).last() == proposed, "the learners hold nothing")?;
    unfolds(cluster.raft(server(1)).commit_index() < proposed.index, "it is committed")?;
    cluster.heal();
    run(&mut cluster, 1_500);
    verdict(&cluster)
}

#[cfg(test)]
mod tests {
    #[test]
    fn majority_of_both_sides_together() {
        assert_eq!(super::majority_of_both_sides_together(), Ok(()));
    }

    #[test]
    fn change_before_the_own_entry() {
        assert_eq!(super::change_before_the_own_entry(), Ok(()));
    }

    #[test]
    fn configuration_in_a_snapshot() {
        assert_eq!(super::configuration_in_a_snapshot(), Ok(()));
    }

    #[test]
    fn learners_alone() {
        assert_eq!(super::learners_alone(), Ok(()));
    }
}
