//! What operators asked for, and whether they were told the truth of it (I13).
//!
//! What a change makes of a configuration is written down a second time on purpose.

use atomix_protocol::change::Change;
use atomix_protocol::{Configuration, Index, Member, MemberKind, ServerId, Term};

use super::checker::{Check, hold};
use super::membership::Membership;
use super::world::World;

/// The changes that an operator has asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    changes: Vec<(Change, Fate)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It may have been made, or may be yet.
    Open,
    /// It was said that nothing was done.
    Refused,
}

impl Asked {
    /// A change goes to a server. Which one it is.
    pub(super) fn add(&mut self, change: &Change) -> usize {
        self.changes.push((change.clone(), Fate::Open));
        self.changes.len() - 1
    }

    pub(super) fn refused(&mut self, number: usize) {
        self.changes[number].1 = Fate::Refused;
    }

    /// The changes of which it was always said that nothing was done.
    fn refused_for_good(&self) -> impl Iterator<Item = &Change> {
        let open =
            |change: &Change| self.changes.iter().any(|(other, fate)| other == change && *fate == Fate::Open);
        let refused = self.changes.iter().filter(|(_, fate)| *fate == Fate::Refused);
        refused.map(|(change, _)| change).filter(move |change| !open(change))
    }
}

/// Whether a change is one that servers ask for by themselves: a place, or a better one.
fn is_better(before: &Configuration, change: &Change) -> bool {
    let is_reserve =
        |id: ServerId| before.member(id).is_some_and(|member| member.kind == MemberKind::Reserve);
    !change.add.is_empty()
        || change.set_kind.iter().any(|(id, kind)| *kind == MemberKind::Voter || is_reserve(*id))
}

/// A configuration with a change applied.
pub(super) fn applied(before: &Configuration, change: &Change) -> Configuration {
    let mut next = before.clone();
    next.members.retain(|member| !change.remove.contains(&member.id));
    for member in &mut next.members {
        if let Some((_, kind)) = change.set_kind.iter().find(|(id, _)| *id == member.id) {
            member.kind = *kind;
        }
        if let Some((_, priority)) = change.set_priority.iter().find(|(id, _)| *id == member.id) {
            member.priority = *priority;
        }
    }
    for (id, new) in (before.next_server_id..).zip(&change.add) {
        next.members.push(Member {
            id: ServerId(id),
            incarnation: new.incarnation,
            peer_address: new.peer_address.clone(),
            client_address: new.client_address.clone(),
            kind: new.kind,
            priority: new.priority,
        });
        next.next_server_id = id + 1;
    }
    next
}

/// The first step from one configuration to another: a joint one if the voters differ.
fn first_step(before: &Configuration, target: Configuration) -> Configuration {
    let voters: Vec<ServerId> = before.voters().collect();
    if target.voters().eq(voters.iter().copied()) {
        return target;
    }
    let mut joint = target.clone();
    for member in before.members.iter().filter(|member| voters.contains(&member.id)) {
        if target.member(member.id).is_none() {
            joint.members.push(Member { kind: MemberKind::Leaving, ..member.clone() });
        }
    }
    joint.members.sort_by_key(|member| member.id);
    joint.outgoing_voters = Some(voters);
    joint
}

/// The same but for where it stands in the log.
fn same(one: &Configuration, other: &Configuration) -> bool {
    *one == Configuration { index: one.index, ..other.clone() }
}

impl Membership {
    /// The committed configuration of exactly that index.
    fn exactly(&self, index: Index) -> Option<&Configuration> {
        self.at(index).filter(|configuration| configuration.index == index)
    }

    /// What a change that would not be refused would lead to: what was asked for.
    pub(super) fn check_planned(&self, change: &Change, planned: &Configuration) -> Check {
        let before = self.exactly(change.expected);
        let wanted = before.map(|before| applied(before, change));
        hold("I13", wanted.as_ref().is_some_and(|wanted| same(planned, wanted)), || {
            format!("{change:?} of {before:?} is planned to lead to {planned:?}")
        })
    }

    /// An operator was told that a change is complete: what is in force now is committed, and what was asked for.
    pub(super) fn check_changed(&self, change: &Change, told: &Configuration) -> Check {
        let committed = self.exactly(told.index);
        hold("I13", committed == Some(told) && told.outgoing_voters.is_none(), || {
            format!("an operator was told of {told:?}, committed is {committed:?}")
        })?;
        let before = self.exactly(change.expected);
        let wanted = before.map(|before| applied(before, change));
        hold("I13", wanted.as_ref().is_some_and(|wanted| same(told, wanted)), || {
            format!("{change:?} of {before:?} is said to have led to {told:?}")
        })
    }
}

impl World {
    /// An operator, who asked in `since`, was told that another server leads: it did.
    pub(super) fn check_transferred(&self, since: Term, to: ServerId) -> Check {
        let Some(node) = self.servers.iter().position(|server| server.id == Some(to)) else { return Ok(()) };
        hold("I13", self.checker.led_after(since, node), || {
            format!("an operator was told that server {to} leads, and it has not since {since}")
        })
    }

    /// No change was made of which operators were only ever told that it was not.
    pub(super) fn check_refusals(&self) -> Check {
        for change in self.console.asked.refused_for_good() {
            let made = self.checker.membership.successor(change.expected).filter(|(before, next)| {
                let wanted = before.outgoing_voters.is_none() && !is_better(before, change);
                wanted && same(next, &first_step(before, applied(before, change)))
            });
            hold("I13", made.is_none(), || format!("{change:?} was refused, and made: {made:?}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::membership::tests::configuration;

    fn of(members: &[(u64, MemberKind)]) -> Configuration {
        configuration(members, None, members.len() as u64 + 1)
    }

    #[test]
    fn a_change_is_applied_and_its_first_step_is_joint_if_voters_change() {
        use MemberKind::{Learner, Leaving, Voter};
        let before = of(&[(1, Voter), (2, Voter), (3, Learner)]);
        let change = Change {
            set_kind: vec![(ServerId(3), Voter)],
            set_priority: vec![(ServerId(1), 2)],
            remove: vec![ServerId(2)],
            ..Change::default()
        };
        let target = applied(&before, &change);
        let kinds: Vec<_> = target.members.iter().map(|m| (m.id.0, m.kind, m.priority)).collect();
        assert_eq!(kinds, [(1, Voter, 2), (3, Voter, 0)]);
        let joint = first_step(&before, target);
        let kinds: Vec<_> = joint.members.iter().map(|m| (m.id.0, m.kind)).collect();
        assert_eq!(kinds, [(1, Voter), (2, Leaving), (3, Voter)]);
        assert_eq!(joint.outgoing_voters, Some(vec![ServerId(1), ServerId(2)]));
        let priority = Change { set_priority: vec![(ServerId(1), 2)], ..Change::default() };
        assert_eq!(first_step(&before, applied(&before, &priority)).outgoing_voters, None);
    }

    #[test]
    fn what_was_asked_for_again_and_may_have_been_done_was_not_refused_for_good() {
        let change = |id| Change { remove: vec![ServerId(id)], ..Change::default() };
        let mut asked = Asked::default();
        for id in [1, 2, 1] {
            asked.add(&change(id));
        }
        asked.refused(0);
        asked.refused(1);
        assert_eq!(asked.refused_for_good().collect::<Vec<_>>(), [&change(2)]);
        asked.refused(2);
        assert_eq!(asked.refused_for_good().count(), 3);
    }
}
