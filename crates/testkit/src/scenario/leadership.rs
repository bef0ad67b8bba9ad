//! Leadership and what hangs on time: leases, disks that hang. Each says which invariant did not hold, if one did not.

use std::time::Duration;

use atomix_protocol::mutant::Mutant;
use atomix_raft::{Config, Raft, Refused};

use super::Running;

/// The leader's clock is slow and its followers' are fast, as far as the bound allows. It is cut off, its links
/// close, and the others elect another as soon as they may; it goes on answering reads by lease. With a lease that is
/// not shortened for drift, it answers from before what the next leader commits (sofastack/sofa-jraft#26, #34; B24).
///
/// # Errors
/// The invariant that did not hold.
pub fn a_lease_ends_before_its_promises() -> Result<(), String> {
    let config = Config { promise: Duration::from_millis(300), drift_ppm: 200_000, ..Config::default() };
    cut_off(config, [800_000, 1_200_000, 1_200_000])
}

/// The same with clocks that agree: links of the leader close, as they do when it dies. If that overrides the
/// promise, another leads within milliseconds (R3 against R4; C09).
///
/// # Errors
/// The invariant that did not hold.
pub fn a_closed_link_lifts_no_promise() -> Result<(), String> {
    let config = Config { promise: Duration::from_millis(300), ..Config::default() };
    cut_off(config, [1_000_000; 3])
}

fn cut_off(config: Config, rates: [u64; 3]) -> Result<(), String> {
    let mut running = Running::new(3, &[], config);
    rates.into_iter().zip(1..).for_each(|(rate, id)| running.rate(id, rate));
    running.elect_first(1);
    running.run(500);
    running.isolate(1);
    [2, 3].into_iter().for_each(|other| running.close(1, other));
    let mut by_lease = 0;
    for _ in 0..1_000 {
        running.run(1);
        let next = running.leader().filter(|leader| *leader != 1);
        if next.is_some_and(|next| running.raft(next).is_some_and(Raft::is_established)) {
            let _ = next.map(|next| running.propose(next));
        }
        by_lease += u64::from(running.raft(1).is_some_and(|raft| raft.lease_holds(running.local(1))));
        let _ = running.read(1);
        running.verdict()?;
    }
    match (by_lease, running.leader()) {
        (50.., Some(2 | 3)) => Ok(()),
        other => Err(format!("it did not unfold: {other:?}")),
    }
}

/// Followers answer a round of the leader, which stands still before it hears them; another is elected and commits.
/// When it wakes it is asked, and the old answers arrive. If they count for the read, it sees nothing of the new
/// leader's (etcd-io/etcd#20418, etcd-io/raft#397; B23).
///
/// # Errors
/// The invariant that did not hold.
pub fn old_answers_confirm_no_read() -> Result<(), String> {
    let mut running = Running::new(3, &[], Config::default());
    running.elect_first(1);
    running.run(500);
    for other in [2, 3] {
        running.hold(other, 1);
    }
    running.run(60);
    running.pause(1, true);
    let next = running.elect_but(1).ok_or("nobody else was elected")?;
    running.propose(next).map_err(|refused| refused.to_string())?;
    running.run(5);
    for other in [2, 3] {
        running.cut(1, other);
    }
    running.pause(1, false);
    running.read(1).map_err(|refused| refused.to_string())?;
    for other in [2, 3] {
        running.release(other, 1);
    }
    running.verdict()
}

/// The leader's disk hangs. It can commit by the others' copies, but its memory fills with what it can't write, and
/// then it takes no more. If it goes on leading, no command commits any more (hashicorp/raft#503, #612, #666; D6;
/// B36).
///
/// # Errors
/// The invariant that did not hold.
pub fn a_leader_whose_disk_hangs_gives_way() -> Result<(), String> {
    let config = Config { log_memory_bytes: 4_096, ..Config::default() };
    let mut running = Running::new(3, &[], config);
    running.elect_first(1);
    running.hang(1, true);
    let mut busy = false;
    let mut before = running.committed();
    for second in 0..5 {
        for _ in 0..200 {
            running.run(5);
            let Some(leader) = running.leader() else { continue };
            busy |= running.propose(leader) == Err(Refused::Busy);
        }
        let after = running.committed();
        if second > 1 && after <= before {
            let leader = running.leader();
            return Err(format!("L2: nothing commits, though two disks of three work; {leader:?} leads"));
        }
        before = after;
    }
    running.verdict()?;
    if Mutant::B36.active() && !busy {
        return Err("it did not unfold: its memory never filled".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_lease_ends_before_its_promises() {
        assert_eq!(super::a_lease_ends_before_its_promises(), Ok(()));
    }

    #[test]
    fn a_closed_link_lifts_no_promise() {
        assert_eq!(super::a_closed_link_lifts_no_promise(), Ok(()));
    }

    #[test]
    fn old_answers_confirm_no_read() {
        assert_eq!(super::old_answers_confirm_no_read(), Ok(()));
    }

    #[test]
    fn a_leader_whose_disk_hangs_gives_way() {
        assert_eq!(super::a_leader_whose_disk_hangs_gives_way(), Ok(()));
    }
}
