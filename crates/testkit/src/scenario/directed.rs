//! Histories that hardly any random run finds. Each says what was violated, if something was: so a deliberate bug can be shown
//! to be caught.

pub mod damage;
pub mod membership;

use atomix_protocol::{HardState, Index, ServerId, Term};
use atomix_raft::{Config, Role};

use super::text::entries;
use super::{Cluster, Settings};

fn server(id: u64) -> ServerId {
    ServerId(id)
}

fn cluster(voters: u64, config: Config, terms: &[(u64, &[u64])]) -> Cluster {
    let mut cluster = Cluster::new(Settings { voters, config, ..Settings::default() });
    for (id, terms) in terms {
        let term = terms.last().copied().unwrap_or(0);
        cluster.prepare(server(*id), HardState { term: Term(term), voted_for: None }, entries(terms));
    }
    cluster
}

/// Has a server elected by the voters named; nobody else hears of it, and nothing that it sends as a leader arrives.
///
/// # Errors
/// If it is not elected.
pub fn elect(cluster: &mut Cluster, id: u64, voters: &[u64]) -> Result<(), String> {
    let candidate = server(id);
    for _ in 0..3 {
        cluster.campaign(candidate);
        for _ in 0..2 {
            cluster.persist(candidate);
            for voter in voters.iter().copied().map(server) {
                if cluster.raft(candidate).role() != Role::Leader {
                    cluster.deliver_link(candidate, voter);
                    cluster.persist(voter);
                    cluster.deliver_link(voter, candidate);
                }
            }
        }
        if cluster.raft(candidate).role() == Role::Leader {
            return Ok(());
        }
        cluster.all().into_iter().for_each(|other| cluster.drop_link(candidate, other));
    }
    Err(format!("{id} is not elected"))
}

/// Delivers in turn from the leader to one follower and back, `turns` times; the follower's disk writes at once if `persists`.
fn exchange(cluster: &mut Cluster, leader: u64, follower: u64, turns: usize, persists: bool) {
    for _ in 0..turns {
        cluster.deliver_link(server(leader), server(follower));
        if persists {
            cluster.persist(server(follower));
        }
        cluster.deliver_link(server(follower), server(leader));
    }
}

fn verdict(cluster: &Cluster) -> Result<(), String> {
    cluster.checker().violation().map_or(Ok(()), |violation| Err(violation.to_owned()))
}

/// Figure 8 of the Raft paper (3.7 of the dissertation): an entry of an older term is on a majority, and is overwritten all
/// the same. A leader that commits it by counting replicas loses a committed entry (B01).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn figure_8() -> Result<(), String> {
    let config = Config { append_bytes: 1, ..Config::default() };
    let mut cluster = cluster(5, config, &[(1, &[1]), (2, &[1]), (3, &[1]), (4, &[1]), (5, &[1])]);
    // (a) S1 leads term 2 and replicates index 2 to S2 only.
    elect(&mut cluster, 1, &[2, 3, 4])?;
    cluster.persist(server(1));
    exchange(&mut cluster, 1, 2, 1, true);
    // (b) S1 crashes. S5 leads term 3 and has another entry at index 2.
    cluster.crash(server(1), 0);
    elect(&mut cluster, 5, &[3, 4])?;
    cluster.persist(server(5));
    // (c) S5 crashes. S1 leads term 4 and goes on: index 2 of term 2 is on a majority.
    cluster.crash(server(5), 0);
    cluster.restart(server(1));
    elect(&mut cluster, 1, &[2, 3, 4])?;
    exchange(&mut cluster, 1, 2, 1, false);
    exchange(&mut cluster, 1, 3, 2, true);
    let leader = cluster.raft(server(1));
    let on_majority =
        leader.marks().old_term_entry_on_majority_uncommitted > 0 || leader.commit_index() >= Index(2);
    if !on_majority || leader.entry_term(Index(2)) != Some(Term(2)) {
        return Err("figure 8 did not unfold: index 2 of term 2 is not on a majority".into());
    }
    // (d) S1 crashes. S5 leads term 5 and overwrites index 2 everywhere.
    cluster.crash(server(1), 0);
    cluster.restart(server(5));
    elect(&mut cluster, 5, &[3, 4])?;
    verdict(&cluster)?;
    cluster.settle();
    verdict(&cluster)?;
    match cluster.raft(server(3)).entry_term(Index(2)) {
        Some(Term(3)) => Ok(()),
        other => Err(format!("figure 8 did not unfold: index 2 of S3 has term {other:?}")),
    }
}

/// A follower with a stale suffix hears the leader's commit index in a message that says nothing of that suffix. If it commits
/// past the last entry that the message vouches for, it commits what was never committed (B16).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn commit_bound() -> Result<(), String> {
    let config = Config { log_memory_bytes: 1, ..Config::default() };
    let mut cluster = cluster(3, config, &[(1, &[1]), (2, &[1, 1, 1]), (3, &[1])]);
    // S1 leads term 2 and commits index 2 and 3 with S3; S2, with a suffix of its own there, hears nothing.
    elect(&mut cluster, 1, &[3])?;
    cluster.cut(server(1), server(2));
    cluster.settle();
    let proposed = cluster.propose(server(1), "x").map_err(|refused| refused.to_string())?;
    cluster.settle();
    if cluster.raft(server(1)).commit_index() != proposed.index {
        return Err("the bound is not tested: nothing was committed".into());
    }
    // S1 forgets the entries that S2 lacks, so that S2 gets a snapshot. It is lost; heartbeats go on.
    cluster.snapshot(server(1));
    cluster.tick_one(server(1));
    cluster.heal();
    cluster.tick_one(server(1));
    exchange(&mut cluster, 1, 2, 1, true);
    let follower = cluster.raft(server(2));
    if follower.leader() != Some(server(1)) || follower.snapshot_index() >= proposed.index {
        return Err("the bound is not tested: S2 was to hear a heartbeat and no snapshot".into());
    }
    verdict(&cluster)?;
    // The snapshot comes in the end, and all agree.
    for _ in 0..20 {
        cluster.tick_one(server(1));
        cluster.settle();
    }
    verdict(&cluster)?;
    cluster.agreed().map(|_| ()).ok_or_else(|| "they do not agree in the end".into())
}

/// An acknowledgement of entries that were overwritten since arrives when its leader leads again, terms later. If it counts,
/// entries are committed that a follower does not have (B17).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn late_acknowledgement() -> Result<(), String> {
    let propose = |cluster: &mut Cluster| {
        (0..4).try_for_each(|_| {
            cluster.propose(server(1), "x").map(|_| ()).map_err(|refused| refused.to_string())
        })
    };
    let mut cluster = cluster(5, Config::default(), &[(1, &[1]), (2, &[1]), (3, &[1]), (4, &[1]), (5, &[1])]);
    // S1 leads term 2; only S2 has its entries, durably. What S2 says of it stays on the way.
    elect(&mut cluster, 1, &[2, 3, 4])?;
    exchange(&mut cluster, 1, 2, 1, true);
    propose(&mut cluster)?;
    for _ in 0..2 {
        cluster.persist(server(1));
        cluster.deliver_link(server(1), server(2));
        cluster.persist(server(2));
    }
    (3..=5).for_each(|other| cluster.drop_link(server(1), server(other)));
    let late = cluster.raft(server(2)).durable_index();
    // S5 leads term 3 and overwrites them.
    elect(&mut cluster, 5, &[3, 4])?;
    for _ in 0..4 {
        cluster.persist(server(5));
        for other in [1, 2] {
            cluster.deliver_link(server(5), server(other));
            cluster.persist(server(other));
            cluster.deliver_link(server(other), server(5));
        }
    }
    let cut = cluster.raft(server(2)).last();
    // S1 leads term 4; only S3 has its entries. Now the answer of term 2 arrives.
    elect(&mut cluster, 1, &[3, 4])?;
    propose(&mut cluster)?;
    (0..3).for_each(|_| cluster.persist(server(1)));
    exchange(&mut cluster, 1, 3, 3, true);
    let leader = cluster.raft(server(1));
    if cut.term != Term(3)
        || cut.index >= late
        || leader.durable_index() < late
        || leader.commit_index() >= late
    {
        return Err("the late answer is not tested: it says nothing new".into());
    }
    cluster.deliver_link(server(2), server(1));
    verdict(&cluster)?;
    cluster.settle();
    verdict(&cluster)
}

/// S2 has voted for S1 in term 1. S4 asks it for a pre-vote, for the term after. If that makes S2 forget its vote, it votes for S3 in
/// term 1 as well, and there are two leaders (canonical/raft PR 247; B13).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn pre_vote_keeps_the_vote() -> Result<(), String> {
    let mut cluster = cluster(5, Config::default(), &[]);
    let pass = |cluster: &mut Cluster, from: u64, to: u64| cluster.deliver_link(server(from), server(to));
    // S1 and S3 both may campaign in term 1.
    for (candidate, voters) in [(3, [2, 5]), (1, [2, 4])] {
        cluster.campaign(server(candidate));
        for voter in voters {
            pass(&mut cluster, candidate, voter);
            pass(&mut cluster, voter, candidate);
        }
        cluster.persist(server(candidate));
    }
    // S1 leads with S2 and S4, and nobody hears of it.
    for voter in [2, 4] {
        pass(&mut cluster, 1, voter);
        cluster.persist(server(voter));
        pass(&mut cluster, voter, 1);
    }
    if cluster.leader() != Some(server(1)) {
        return Err("it did not unfold: S1 is not elected".into());
    }
    cluster.all().into_iter().for_each(|other| cluster.drop_link(server(1), other));
    cluster.campaign(server(4));
    pass(&mut cluster, 4, 2);
    // What S3 asked for in term 1 arrives late.
    for voter in [2, 5] {
        pass(&mut cluster, 3, voter);
        cluster.persist(server(voter));
        cluster.persist(server(voter));
        pass(&mut cluster, voter, 3);
    }
    verdict(&cluster)
}

/// A transfer is cut short by a newer snapshot, whose first chunk comes while the file still holds chunks of the one before. If it is
/// appended there, and the whole is not verified, a state is installed that never was (B35).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn chunk_behind_a_stale_one() -> Result<(), String> {
    let config = Config { log_memory_bytes: 1, snapshot_chunk_bytes: 2, ..Config::default() };
    let mut cluster = cluster(3, config, &[]);
    elect(&mut cluster, 1, &[2])?;
    cluster.settle();
    cluster.isolate(server(3));
    let write = |cluster: &mut Cluster, command: &str| {
        let proposed = cluster.propose(server(1), command).map(|_| ()).map_err(|refused| refused.to_string());
        cluster.settle();
        proposed
    };
    (0..4).try_for_each(|_| write(&mut cluster, "first"))?;
    cluster.snapshot(server(1));
    cluster.heal();
    for _ in 0..6 {
        if cluster.raft(server(3)).is_installing() {
            break;
        }
        cluster.tick_one(server(1));
        exchange(&mut cluster, 1, 3, 2, true);
    }
    let last = cluster.raft(server(1)).snapshot_index();
    if !cluster.raft(server(3)).is_installing() {
        return Err("a stale chunk is not tested: nothing was sent".into());
    }
    cluster.isolate(server(3));
    write(&mut cluster, "second")?;
    cluster.snapshot(server(1));
    cluster.heal();
    for _ in 0..40 {
        cluster.tick_one(server(1));
        cluster.settle();
    }
    verdict(&cluster).map_err(|violation| format!("I5: {violation}"))?;
    if cluster.raft(server(3)).snapshot_index() <= last {
        return Err("a stale chunk is not tested: the newer snapshot was not installed".into());
    }
    cluster.agreed().map(|_| ()).ok_or_else(|| "they do not agree in the end".into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn late_acknowledgement() {
        assert_eq!(super::late_acknowledgement(), Ok(()));
    }

    #[test]
    fn figure_8() {
        assert_eq!(super::figure_8(), Ok(()));
    }

    #[test]
    fn commit_bound() {
        assert_eq!(super::commit_bound(), Ok(()));
    }

    #[test]
    fn pre_vote_keeps_the_vote() {
        assert_eq!(super::pre_vote_keeps_the_vote(), Ok(()));
    }

    #[test]
    fn chunk_behind_a_stale_one() {
        assert_eq!(super::chunk_behind_a_stale_one(), Ok(()));
    }
}
