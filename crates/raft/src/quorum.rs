//! Majorities, plain and joint (§3.3, §4.3). Learners and reserves never count.

use alloc::vec::Vec;

use atomix_protocol::change::Tolerance;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Configuration, MemberKind, ServerId};

/// Whether a server's vote counts in this configuration.
pub(crate) fn votes(configuration: &Configuration, server: ServerId) -> bool {
    configuration.is_voter(server) || outgoing(configuration).contains(&server)
}

/// Whether a server holds a log in this configuration.
pub(crate) fn holds_log(configuration: &Configuration, server: ServerId) -> bool {
    let member = configuration.member(server);
    member.is_some_and(|m| m.kind != MemberKind::Reserve) || outgoing(configuration).contains(&server)
}

/// Every server that holds a log, ascending.
pub(crate) fn log_holders(configuration: &Configuration) -> Vec<ServerId> {
    let mut servers: Vec<ServerId> = configuration.members.iter().map(|m| m.id).collect();
    servers.extend_from_slice(outgoing(configuration));
    servers.sort_unstable();
    servers.dedup();
    servers.retain(|server| holds_log(configuration, *server));
    servers
}

/// The greatest value that a quorum has reached; while a change is under way, a quorum of each side. `None` without
/// voters.
pub(crate) fn reached<T: Ord + Copy>(
    configuration: &Configuration,
    value: impl Fn(ServerId) -> T,
) -> Option<T> {
    if Mutant::B18.active() {
        return majority(all_voters(configuration).into_iter().map(&value).collect());
    }
    let holders = |id: &ServerId| Mutant::B21.active() && holds_log(configuration, *id);
    let counts =
        configuration.members.iter().map(|m| m.id).filter(|id| configuration.is_voter(*id) || holders(id));
    let current = majority(counts.map(&value).collect())?;
    match &configuration.outgoing_voters {
        Some(outgoing) => {
            majority(outgoing.iter().copied().map(&value).collect()).map(|other| other.min(current))
        }
        None => Some(current),
    }
}

/// Whether a quorum is among those that hold.
pub(crate) fn holds(configuration: &Configuration, of: impl Fn(ServerId) -> bool) -> bool {
    reached(configuration, of).unwrap_or(false)
}

/// What a configuration can lose and still decide, and how many of its voters answer.
pub(crate) fn tolerance(configuration: &Configuration, answers: impl Fn(ServerId) -> bool) -> Tolerance {
    let all = all_voters(configuration);
    let incoming = configuration.voters().count();
    let outgoing = configuration.outgoing_voters.as_ref().map_or(incoming, Vec::len);
    // A server on both sides is counted by both: of the least that decide, as many as possible are such.
    let both =
        incoming + outgoing - if configuration.outgoing_voters.is_some() { all.len() } else { incoming };
    let (one, other) = (incoming / 2 + 1, outgoing / 2 + 1);
    let quorum = one + other - both.min(one).min(other);
    let failures = incoming.min(outgoing).saturating_sub(1) / 2;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Tolerance {
        voters: count(all.len()),
        quorum: count(quorum),
        failures: count(failures),
        answering: count(all.iter().filter(|server| answers(**server)).count()),
    }
}

/// The voters of both sides, ascending.
fn all_voters(configuration: &Configuration) -> Vec<ServerId> {
    let mut all: Vec<ServerId> =
        configuration.voters().chain(outgoing(configuration).iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn outgoing(configuration: &Configuration) -> &[ServerId] {
    configuration.outgoing_voters.as_deref().unwrap_or(&[])
}

fn majority<T: Ord>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable_by(|a, b| b.cmp(a));
    let place = values.len() / 2;
    values.into_iter().nth(place)
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{Address, Incarnation, Member};

    use super::*;

    fn configuration(voters: &[u64], learners: &[u64], outgoing: Option<&[u64]>) -> Configuration {
        let member = |id: &u64, kind| Member {
            id: ServerId(*id),
            incarnation: Incarnation(u128::from(*id)),
            peer_address: Address::default(),
            client_address: Address::default(),
            kind,
            priority: 0,
        };
        let mut members: Vec<Member> = voters.iter().map(|id| member(id, MemberKind::Voter)).collect();
        members.extend(learners.iter().map(|id| member(id, MemberKind::Learner)));
        Configuration {
            members,
            outgoing_voters: outgoing.map(|ids| ids.iter().map(|id| ServerId(*id)).collect()),
            ..Configuration::default()
        }
    }

    #[test]
    fn a_quorum_is_more_than_half_of_the_voters() {
        for (voters, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            let ids: Vec<u64> = (1..=voters).collect();
            let configuration = configuration(&ids, &[8, 9], None);
            for agreeing in 0..=voters {
                let agrees = |server: ServerId| server.0 <= agreeing || server.0 >= 8;
                assert_eq!(holds(&configuration, agrees), agreeing >= needed, "{agreeing} of {voters}");
            }
        }
    }

    #[test]
    fn reached_is_the_value_of_the_quorum() {
        let three = configuration(&[1, 2, 3], &[4], None);
        assert_eq!(reached(&three, |s| [9, 3, 5, 9][s.0 as usize - 1]), Some(5));
        let four = configuration(&[1, 2, 3, 4], &[], None);
        assert_eq!(reached(&four, |s| [9, 3, 5, 9][s.0 as usize - 1]), Some(5));
        assert_eq!(reached(&configuration(&[], &[1], None), |_| 1), None);
    }

    #[test]
    fn a_joint_quorum_needs_both_sides() {
        let joint = configuration(&[1, 2, 3], &[], Some(&[3, 4, 5]));
        for (agreeing, expected) in [
            (&[1, 2][..], false),
            (&[4, 5], false),
            (&[1, 2, 4], false),
            (&[1, 3, 4], true),
            (&[1, 2, 4, 5], true),
            (&[3], false),
        ] {
            assert_eq!(holds(&joint, |s| agreeing.contains(&s.0)), expected, "{agreeing:?}");
        }
        assert!(votes(&joint, ServerId(5)) && !votes(&joint, ServerId(6)));
        assert_eq!(log_holders(&joint).len(), 5);
    }

    #[test]
    fn tolerance_is_what_the_smaller_side_can_lose() {
        // voters, outgoing: all voters, needed, may fail
        for (voters, outgoing, expected) in [
            (&[1][..], None, (1, 1, 0)),
            (&[1, 2], None, (2, 2, 0)),
            (&[1, 2, 3], None, (3, 2, 1)),
            (&[1, 2, 3, 4], None, (4, 3, 1)),
            (&[1, 2, 3, 4, 5, 6, 7], None, (7, 4, 3)),
            (&[1, 2, 3, 4], Some(&[1, 2, 3][..]), (4, 3, 1)),
            (&[1, 4, 5], Some(&[1, 2, 3]), (5, 3, 1)),
            (&[4, 5, 6], Some(&[1, 2, 3]), (6, 4, 1)),
            (&[1], Some(&[1, 2, 3]), (3, 2, 0)),
            (&[2, 3], Some(&[1, 2, 3]), (3, 2, 0)),
        ] {
            let configuration = configuration(voters, &[8], outgoing);
            let tolerance = tolerance(&configuration, |server| server.0 != 2);
            let Tolerance { voters: all, quorum, failures, answering } = tolerance;
            assert_eq!((all, quorum, failures), expected, "{voters:?} {outgoing:?}");
            let two = voters.contains(&2) || outgoing.is_some_and(|outgoing| outgoing.contains(&2));
            assert_eq!(answering, all - u32::from(two), "{voters:?} {outgoing:?}");
            // The least that decide, and the most that may fail, found by trying.
            let decides = |set: u32| holds(&configuration, |server| set & (1 << server.0) != 0);
            let everyone = all_voters(&configuration).iter().fold(0u32, |set, server| set | (1 << server.0));
            let subsets = || (0..256u32).filter(|set| set & !everyone == 0);
            let least = subsets().filter(|set| decides(*set)).map(u32::count_ones).min();
            assert_eq!(least, Some(quorum), "{voters:?} {outgoing:?}");
            let fatal = subsets().filter(|set| !decides(everyone & !set)).map(u32::count_ones).min();
            assert_eq!(fatal, Some(failures + 1), "{voters:?} {outgoing:?}");
        }
    }

    #[test]
    fn learners_hold_a_log_and_do_not_vote() {
        let configuration = configuration(&[1], &[2], None);
        assert!(holds_log(&configuration, ServerId(2)) && !votes(&configuration, ServerId(2)));
        assert!(!holds_log(&configuration, ServerId(3)));
    }
}
