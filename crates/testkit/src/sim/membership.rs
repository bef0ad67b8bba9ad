//! Who belongs to the cluster, as the committed log says it, and which data directory is behind each id. I13.

use std::collections::BTreeMap;

use atomix_protocol::{
    Configuration, Entry, EntryKind, Incarnation, Index, Member, MemberKind, ServerId, codec,
};

use super::checker::{Check, hold};
use super::coverage::Mark;

/// The configurations of a run.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Committed, ascending by index; the initial one first.
    committed: Vec<Configuration>,
    /// Term of the entry that carries the last of them.
    last_term: u64,
    /// Data directories, each with the number of what the checkers know of its disk.
    directories: BTreeMap<Incarnation, usize>,
    /// Those that were wiped.
    wiped: Vec<Incarnation>,
}

/// The configuration that an entry carries.
pub(super) fn configuration_in(entry: &Entry) -> Option<Configuration> {
    if entry.kind != EntryKind::Configuration {
        return None;
    }
    let mut configuration: Configuration = codec::from_bytes(&entry.payload).ok()?;
    configuration.index = entry.id.index;
    Some(configuration)
}

/// Whether more than half of each side's voters hold. Written down a second time on purpose: what is checked
/// must not be what checks.
pub(super) fn has_quorum(configuration: &Configuration, holds: impl Fn(&Member) -> bool) -> bool {
    let count = |ids: &[ServerId]| {
        let held = ids.iter().filter(|id| configuration.member(**id).is_some_and(&holds)).count();
        2 * held > ids.len()
    };
    let incoming: Vec<ServerId> = configuration.voters().collect();
    let outgoing = configuration.outgoing_voters.as_deref();
    count(&incoming) && outgoing.is_none_or(count)
}

/// Whether a member holds a log and has to catch up.
pub(super) fn holds_log(member: &Member) -> bool {
    matches!(member.kind, MemberKind::Voter | MemberKind::Learner)
}

impl Membership {
    /// The cluster was formed before time began.
    pub(super) fn formed(&mut self, configuration: Configuration) {
        self.committed.push(configuration);
    }

    pub(super) fn inhabits(&mut self, incarnation: Incarnation, directory: usize) {
        self.directories.insert(incarnation, directory);
    }

    pub(super) fn directory(&self, incarnation: Incarnation) -> Option<usize> {
        self.directories.get(&incarnation).copied()
    }

    pub(super) fn wiped(&mut self, directory: usize) {
        // A name that was not durable yet when the server went was followed by another.
        let names = self.directories.iter().filter(|(_, at)| **at == directory);
        self.wiped.extend(names.map(|(incarnation, _)| *incarnation));
    }

    pub(super) fn is_wiped(&self, incarnation: Incarnation) -> bool {
        self.wiped.contains(&incarnation)
    }

    /// The latest committed configuration.
    pub(super) fn latest(&self) -> Option<&Configuration> {
        self.committed.last()
    }

    /// The latest committed configuration at or before an index.
    pub(super) fn at(&self, index: Index) -> Option<&Configuration> {
        self.committed.iter().rev().find(|configuration| configuration.index <= index)
    }

    /// The committed configuration of an index, and the one that followed it.
    pub(super) fn successor(&self, index: Index) -> Option<(&Configuration, &Configuration)> {
        let pairs = self.committed.iter().zip(self.committed.iter().skip(1));
        pairs.into_iter().find(|(before, _)| before.index == index)
    }

    /// A server keeps a configuration as its own: the initial one, or one that is committed.
    pub(super) fn kept(&mut self, configuration: &Configuration, through: Index) -> Check {
        if configuration.index > through {
            return hold("I13", false, || {
                format!("a server keeps {configuration:?}, committed is everything through {through}")
            });
        }
        let known = self.committed.iter().any(|committed| committed == configuration);
        hold("I13", known, || {
            let committed = self.at(configuration.index);
            format!("a server keeps {configuration:?}, which was never committed: {committed:?} was")
        })
    }

    /// A configuration is committed. Which situations that is.
    pub(super) fn commit(&mut self, entry: &Entry, by: ServerId, marks: &mut Vec<Mark>) -> Check {
        let Some(next) = configuration_in(entry) else {
            return hold("I13", false, || format!("{} carries no configuration", entry.id));
        };
        if let Some(before) = self.committed.last() {
            follows(before, &next).map_err(|why| super::checker::Broken {
                name: "I13",
                detail: format!("{why}: {before:?} was followed by {next:?}"),
            })?;
            let was_joint = before.outgoing_voters.is_some();
            let mut mark = |mark, is: bool| marks.extend(is.then_some(mark));
            mark(Mark::CompletedByAnother, was_joint && self.last_term != entry.id.term.0);
            mark(Mark::LeaderRemoved, was_joint && !next.is_voter(by));
            let promoted = next
                .voters()
                .any(|id| before.member(id).is_some_and(|member| member.kind == MemberKind::Learner));
            mark(Mark::LearnerPromoted, promoted);
            let gone = |member: &&Member| next.member(member.id).is_none();
            let replaced =
                before.members.iter().filter(gone).any(|member| self.wiped.contains(&member.incarnation));
            mark(Mark::WipedReplaced, replaced);
        }
        self.last_term = entry.id.term.0;
        self.committed.push(next);
        Ok(())
    }
}

/// Whether a configuration may follow another (§4.3, I3): voters change through joint consensus only, and only
/// learners become voters; ids are given once.
fn follows(before: &Configuration, next: &Configuration) -> Result<(), &'static str> {
    let voters = |configuration: &Configuration| configuration.voters().collect::<Vec<_>>();
    let (old, new) = (voters(before), voters(next));
    match (&before.outgoing_voters, &next.outgoing_voters) {
        (None, None) if old != new => return Err("the voters change without joint consensus"),
        (None, Some(outgoing)) if *outgoing != old => {
            return Err("a change leaves other voters than there were");
        }
        (Some(_), Some(_)) => return Err("a change begins before the one before it is complete"),
        (Some(_), None) if old != new => return Err("a change ends with other voters than it began"),
        _ => {}
    }
    if before.outgoing_voters.is_none() {
        let may_vote = |id: &ServerId| {
            before.member(*id).is_some_and(|m| matches!(m.kind, MemberKind::Learner | MemberKind::Voter))
        };
        if !new.iter().all(may_vote) {
            return Err("a voter was no learner before");
        }
    }
    if before.cluster != next.cluster {
        return Err("the cluster changes its name");
    }
    let known = |member: &Member| match before.member(member.id) {
        Some(same) => same.incarnation == member.incarnation,
        None => member.id.0 >= before.next_server_id,
    };
    if !next.members.iter().all(known) {
        return Err("an id comes back");
    }
    let last = next.members.last().map_or(0, |member| member.id.0);
    let is_sound = next.members.windows(2).all(|pair| pair[0].id < pair[1].id)
        && (1..=7).contains(&new.len())
        && next.next_server_id > last
        && next.next_server_id >= before.next_server_id;
    if is_sound { Ok(()) } else { Err("no configuration at all") }
}

#[cfg(test)]
pub(super) mod tests {
    use atomix_protocol::Address;

    use super::*;

    /// Members by id and kind; `next` is the id that the next one gets.
    pub(in crate::sim) fn configuration(
        members: &[(u64, MemberKind)],
        outgoing: Option<&[u64]>,
        next_server_id: u64,
    ) -> Configuration {
        let member = |(id, kind): &(u64, MemberKind)| Member {
            id: ServerId(*id),
            incarnation: Incarnation(u128::from(*id)),
            peer_address: Address::default(),
            client_address: Address::default(),
            kind: *kind,
            priority: 0,
        };
        Configuration {
            members: members.iter().map(member).collect(),
            outgoing_voters: outgoing.map(|ids| ids.iter().map(|id| ServerId(*id)).collect()),
            next_server_id,
            ..Configuration::default()
        }
    }

    #[test]
    fn only_what_raft_allows_follows() {
        use MemberKind::{Learner, Leaving, Voter};
        let three = configuration(&[(1, Voter), (2, Voter), (3, Learner)], None, 4);
        let joint = configuration(&[(1, Leaving), (2, Voter), (3, Voter)], Some(&[1, 2]), 4);
        let after = configuration(&[(2, Voter), (3, Voter)], None, 4);
        let more = configuration(&[(1, Voter), (2, Voter), (3, Learner), (4, Learner)], None, 5);
        for (before, next) in [(&three, &joint), (&joint, &after), (&three, &more)] {
            assert_eq!(follows(before, next), Ok(()));
        }
        let one_out = configuration(&[(2, Voter), (3, Learner)], None, 4);
        let other_left = configuration(&[(1, Leaving), (2, Voter), (3, Voter)], Some(&[2, 3]), 4);
        let at_once = configuration(&[(1, Voter), (2, Voter), (3, Learner), (4, Voter)], Some(&[1, 2]), 5);
        let back = configuration(&[(1, Learner), (2, Voter), (3, Voter)], None, 4);
        let given_again = configuration(&[(1, Voter), (2, Voter), (3, Learner)], None, 3);
        for (before, next, why) in [
            (&three, &one_out, "without joint"),
            (&three, &other_left, "other voters than there were"),
            (&three, &at_once, "no learner"),
            (&joint, &joint, "before the one before"),
            (&joint, &one_out, "other voters than it began"),
            (&after, &back, "an id comes back"),
            (&three, &given_again, "no configuration"),
        ] {
            let refused = follows(before, next).unwrap_err();
            assert!(refused.contains(why), "{refused}: {next:?}");
        }
    }

    #[test]
    fn a_quorum_is_one_of_each_side_and_learners_never_count() {
        use MemberKind::{Learner, Leaving, Voter};
        let joint = configuration(&[(1, Leaving), (2, Voter), (3, Voter), (4, Learner)], Some(&[1, 2]), 5);
        let holds = |ids: &'static [u64]| move |member: &Member| ids.contains(&member.id.0);
        assert!(has_quorum(&joint, holds(&[1, 2, 3])));
        assert!(!has_quorum(&joint, holds(&[2, 3, 4])), "of the old side only one");
        assert!(!has_quorum(&joint, holds(&[1, 2, 4])), "of the new side only one");
        let learners = configuration(&[(1, Voter), (2, Learner), (3, Learner)], None, 4);
        assert!(!has_quorum(&learners, holds(&[2, 3])));
    }
}
