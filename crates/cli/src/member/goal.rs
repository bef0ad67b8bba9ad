//! What an operator wants of a server that is added, and how far it is from that.

use atomix::{Member, MemberKind, ServerId};

use super::operator::Made;
use crate::args::MemberAdd;
use crate::exit::{Exit, Failure};
use crate::status::kind_in_words;
use atomix::admin::Change;

/// What a server that is added is to be in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) kind: MemberKind,
    /// Only if one was asked for: a member that has one keeps it.
    pub(super) priority: Option<u8>,
    /// Who leaves for it.
    pub(super) replaces: Option<ServerId>,
}

impl Goal {
    pub(super) fn of(args: &MemberAdd) -> Self {
        let kind = match (args.learner, args.reserve) {
            (true, _) => MemberKind::Learner,
            (_, true) => MemberKind::Reserve,
            _ => MemberKind::Voter,
        };
        Goal { kind, priority: args.priority, replaces: args.replace.map(ServerId) }
    }

    /// The next change on the way of a member; `None` when it is there. Whoever leaves for it leaves with the last one.
    pub(super) fn next(&self, made: &Made, id: ServerId) -> Result<Option<Change>, Failure> {
        let own = made.members.iter().find(|member| member.id == id);
        let Some(own) = own.filter(|member| member.kind != MemberKind::Leaving) else {
            return Err(Failure::new(Exit::Refused, format!("server {id} has been removed again meanwhile")));
        };
        let kind = self.next_kind(own)?;
        let priority = self.priority.filter(|wanted| *wanted != own.priority);
        let last = kind.unwrap_or(own.kind) == self.kind;
        let stays = |member: &&Member| member.kind != MemberKind::Leaving;
        let leaves = |member: &&Member| Some(member.id) == self.replaces || is_predecessor(member, own);
        let remove: Vec<ServerId> =
            made.members.iter().filter(|_| last).filter(stays).filter(leaves).map(|m| m.id).collect();
        let done = kind.is_none() && priority.is_none() && remove.is_empty();
        Ok((!done).then(|| Change {
            expected: made.index,
            set_kind: kind.map(|kind| (id, kind)).into_iter().collect(),
            set_priority: priority.map(|priority| (id, priority)).into_iter().collect(),
            remove,
            ..Change::default()
        }))
    }

    /// What it becomes next, if it is not yet what is wanted. Nothing is taken from a member by adding it.
    fn next_kind(&self, own: &Member) -> Result<Option<MemberKind>, Failure> {
        use MemberKind::{Learner, Reserve, Voter};
        match (own.kind, self.kind) {
            (has, wants) if has == wants => Ok(None),
            (Learner, Voter) => Ok(Some(Voter)),
            (Reserve, Learner | Voter) => Ok(Some(Learner)),
            (has, wants) => {
                let (id, has, wants) = (own.id, kind_in_words(has), kind_in_words(wants));
                let how = format!("`atomix member demote {id} --to {wants}` makes it a {wants}");
                Err(Failure::new(Exit::Refused, format!("server {id} is a {has} already; {how}")))
            }
        }
    }
}

/// Whether a member's place at its address is that of a later one: its data directory was lost.
fn is_predecessor(member: &Member, of: &Member) -> bool {
    member.id < of.id && member.peer_address == of.peer_address
}

#[cfg(test)]
pub(super) mod tests {
    use atomix::{Incarnation, Index};

    use super::*;
    use MemberKind::{Learner, Reserve, Voter};

    pub(crate) fn member(id: u64, address: &str, kind: MemberKind) -> Member {
        Member {
            id: ServerId(id),
            incarnation: Incarnation(u128::from(id)),
            peer_address: address.into(),
            client_address: address.into(),
            kind,
            priority: 2,
        }
    }

    /// Server 4 is of this kind, beside voter 1 and voter 2, which had its address.
    #[track_caller]
    fn check(has: MemberKind, goal: Goal, expected: &str) {
        let members = vec![member(1, "a:1", Voter), member(2, "d:1", Voter), member(4, "d:1", has)];
        let words = match goal.next(&Made { index: Index(7), members }, ServerId(4)) {
            Ok(None) => "done".to_owned(),
            Err(failure) => {
                assert_eq!(failure.exit, Exit::Refused);
                failure.message
            }
            Ok(Some(change)) => {
                assert_eq!((change.expected, change.add.len()), (Index(7), 0));
                let kinds = change.set_kind.iter().map(|(id, kind)| format!("{id}={kind:?}"));
                let priorities = change.set_priority.iter().map(|(id, priority)| format!("{id}^{priority}"));
                let removed = change.remove.iter().map(|id| format!("-{id}"));
                kinds.chain(priorities).chain(removed).collect::<Vec<_>>().join(" ")
            }
        };
        assert!(words.contains(expected), "{words}");
    }

    fn goal(kind: MemberKind, priority: Option<u8>, replaces: Option<u64>) -> Goal {
        Goal { kind, priority, replaces: replaces.map(ServerId) }
    }

    #[test]
    fn whoever_leaves_leaves_with_the_last_change() {
        check(Learner, goal(Voter, None, None), "4=Voter -2");
        check(Learner, goal(Voter, None, Some(1)), "4=Voter -1 -2");
        check(Reserve, goal(Voter, Some(3), Some(1)), "4=Learner 4^3");
        check(Learner, goal(Learner, None, Some(1)), "-1 -2");
        check(Learner, goal(Voter, None, Some(3)), "4=Voter -2");
    }

    #[test]
    fn what_was_asked_for_is_done_or_refused() {
        check(Learner, goal(Voter, Some(5), None), "4=Voter 4^5 -2");
        check(Learner, goal(Voter, Some(2), None), "4=Voter -2");
        check(
            Voter,
            goal(Learner, None, None),
            "server 4 is a voter already; `atomix member demote 4 --to learner`",
        );
        check(Learner, goal(Reserve, None, None), "server 4 is a learner already");
    }

    #[test]
    fn what_is_done_is_not_done_again() {
        let made = Made { index: Index(7), members: vec![member(1, "a:1", Voter), member(4, "d:1", Voter)] };
        let next = |goal: Goal, id| goal.next(&made, ServerId(id));
        assert_eq!(next(goal(Voter, None, None), 4), Ok(None));
        assert_eq!(next(goal(Voter, Some(2), Some(3)), 4), Ok(None), "server 3 has left already");
        assert!(next(goal(Voter, None, None), 9).is_err(), "removed again");
        assert_eq!(
            next(goal(Voter, None, None), 1),
            Ok(None),
            "a later member at an address is no predecessor"
        );
    }
}
