//! Disks that fail, or lose what was acknowledged (D4, D5). Each says what was violated, if something was.

use std::time::Duration;

use atomix_protocol::{Index, ServerId, Term};
use atomix_raft::{Config, Role};

use super::{elect, exchange, verdict};
use crate::scenario::{Cluster, Settings};

const fn server(id: u64) -> ServerId {
    ServerId(id)
}

fn unfolds(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("it did not unfold: {what}")) }
}

fn run(cluster: &mut Cluster, millis: u64) {
    for _ in 0..millis {
        cluster.tick(Duration::from_millis(1));
        cluster.settle();
    }
}

/// S1 and S2 commit what S3 never hears of. S2 loses its copy, and comes up twice. If it forgets that it must abstain, it votes for S3
/// once S1 is gone, and what was committed is lost (C07).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn a_vote_that_was_lost_with_the_log() -> Result<(), String> {
    let mut cluster = Cluster::new(Settings { voters: 3, ..Settings::default() });
    elect(&mut cluster, 1, &[2, 3])?;
    cluster.settle();
    cluster.isolate(server(3));
    for command in ["first", "second"] {
        cluster.propose(server(1), command).map_err(|refused| refused.to_string())?;
        cluster.settle();
    }
    let committed = cluster.raft(server(1)).commit_index();
    cluster.crash(server(2), 0);
    unfolds(committed == Index(3) && cluster.damage(server(2), Index(1)), "S2 loses what is committed")?;
    cluster.crash(server(1), 0);
    cluster.restart(server(2));
    cluster.crash(server(2), 0);
    cluster.restart(server(2));
    cluster.heal();
    run(&mut cluster, 3_000);
    verdict(&cluster)?;
    unfolds(cluster.leader().is_none(), "nobody leads while S1 is away")?;
    cluster.restart(server(1));
    run(&mut cluster, 3_000);
    verdict(&cluster)?;
    unfolds(cluster.leader() == Some(server(1)), "S1 leads again")?;
    unfolds(!cluster.is_damaged(server(2)), "S2 is repaired")?;
    // With its vote back, it is a majority with S3.
    cluster.crash(server(1), 0);
    run(&mut cluster, 3_000);
    verdict(&cluster)?;
    unfolds(cluster.leader().is_some_and(|leader| leader != server(1)), "S2 votes again")
}

/// S2 has an entry of S1 that S1's own disk refused, with which S1's process ended. If S1 leads on in its term when it comes up, it
/// gives the index of that entry to another (B11).
///
/// # Errors
/// The safety property that was violated, or that the history did not unfold.
pub fn a_term_ends_with_its_leader() -> Result<(), String> {
    let mut cluster = Cluster::new(Settings { voters: 3, config: Config::default(), ..Settings::default() });
    elect(&mut cluster, 1, &[2, 3])?;
    cluster.settle();
    let term = cluster.raft(server(1)).term();
    let refused = cluster.propose(server(1), "refused").map_err(|refused| refused.to_string())?;
    exchange(&mut cluster, 1, 2, 1, true);
    unfolds(cluster.raft(server(2)).last() == refused, "S2 has the entry")?;
    cluster.crash(server(1), 0);
    cluster.restart(server(1));
    cluster.isolate(server(2));
    run(&mut cluster, 20);
    let led_on = cluster.raft(server(1)).role() == Role::Leader && cluster.raft(server(1)).term() == term;
    if led_on {
        cluster.propose(server(1), "another").map_err(|refused| refused.to_string())?;
        cluster.settle();
    }
    verdict(&cluster)?;
    cluster.heal();
    run(&mut cluster, 3_000);
    verdict(&cluster)?;
    let raft = cluster.leader().map(|leader| cluster.raft(leader));
    unfolds(raft.is_some_and(|raft| raft.term() > Term(term.0)), "a later term has a leader")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_vote_that_was_lost_with_the_log() {
        assert_eq!(super::a_vote_that_was_lost_with_the_log(), Ok(()));
    }

    #[test]
    fn a_term_ends_with_its_leader() {
        assert_eq!(super::a_term_ends_with_its_leader(), Ok(()));
    }
}
