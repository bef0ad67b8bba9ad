//! `atomix member add`: a running server is taken in, catches up, and gets its vote.

use atomix::{Index, Member, MemberKind, ServerId, Status};

use super::operator::{Made, Operator, Stopped, refusal};
use super::view::{LOOK, View};
use super::{print, step};
use crate::args::MemberAdd;
use crate::exit::{Exit, Failure};
use crate::status::{self, kind_in_words};
use atomix::admin::{Change, ChangeRefused, NewMember};

/// Runs the command.
pub(super) async fn run(args: MemberAdd) -> Result<(), Failure> {
    let mut operator = Operator::new(&args.making.cluster);
    let new = newcomer(&args.server, &operator).await?;
    let view = operator.view().await?;
    fits(&args.server, &new, &view)?;
    let made = match view.member_by_incarnation(new.incarnation) {
        Some(member) => {
            step(&format!("{} is server {}, {}", args.server, member.id, named(member.kind)));
            Made { index: view.index(), members: view.members().to_vec() }
        }
        None => take_in(&mut operator, &args, &new, &view).await?,
    };
    let id = id_of(&made, &new)?;
    let made = match wanted(&args) {
        MemberKind::Voter => vote(&mut operator, &args, id, made).await?,
        _ => made,
    };
    print(&made, args.making.json);
    Ok(())
}

/// What the new server says of itself. It may have been started a moment ago.
pub(super) async fn newcomer(address: &str, operator: &Operator) -> Result<Status, Failure> {
    loop {
        let asked = status::ask(&[address.to_owned()], LOOK).await.pop();
        match asked.map_or_else(|| Err("not asked".into()), |answer| answer.status) {
            Ok(status) => return Ok(status),
            Err(_) if operator.has_time() => operator.pause().await,
            Err(error) => {
                let message = format!("{address} does not answer: {error}; start the server first");
                return Err(Failure::new(Exit::Unreachable, message));
            }
        }
    }
}

/// A server that belongs to another cluster stays there.
pub(super) fn fits(address: &str, new: &Status, view: &View) -> Result<(), Failure> {
    match new.cluster {
        Some(cluster) if view.status().cluster != Some(cluster) => Err(Failure::new(
            Exit::Refused,
            format!("{address} belongs to cluster {cluster}; give it an empty data directory"),
        )),
        _ => Ok(()),
    }
}

/// What is proposed for a server that is no member yet.
pub(super) fn member_to_be(new: &Status, kind: MemberKind, priority: u8) -> NewMember {
    NewMember {
        incarnation: new.incarnation,
        peer_address: new.address.clone(),
        client_address: new.client_address.clone(),
        kind,
        priority,
    }
}

/// The member whose place at an address another data directory has taken: its own was lost.
pub(super) fn predecessor<'a>(members: &'a [Member], new: &Status) -> Option<&'a Member> {
    members.iter().find(|member| {
        member.kind != MemberKind::Leaving
            && member.peer_address == new.address
            && member.incarnation != new.incarnation
    })
}

/// Adds it without a vote. A predecessor at its address leaves with the same change: two members can't be reached there.
async fn take_in(
    operator: &mut Operator,
    args: &MemberAdd,
    new: &Status,
    view: &View,
) -> Result<Made, Failure> {
    let kind = if args.reserve { MemberKind::Reserve } else { MemberKind::Learner };
    let predecessor = predecessor(view.members(), new).map(|member| member.id);
    let stays_without_vote = wanted(args) != MemberKind::Voter;
    let leaves = args.replace.map(ServerId).filter(|_| stays_without_vote);
    let mut remove: Vec<ServerId> = predecessor.into_iter().chain(leaves).collect();
    remove.dedup();
    for id in &remove {
        step(&format!("server {id} leaves for {}", args.server));
    }
    let change = Change {
        expected: args.making.expected.map_or(view.index(), Index),
        add: vec![member_to_be(new, kind, args.priority)],
        remove,
        ..Change::default()
    };
    let made = match operator.make(&change).await {
        Ok(made) => made,
        // It may have asked to be taken in itself, and been heard first.
        Err(Stopped::Refused(refused @ (ChangeRefused::Changed(_) | ChangeRefused::AlreadyMember(_)))) => {
            let view = operator.view().await?;
            if view.member_by_incarnation(new.incarnation).is_none() {
                return Err(refusal(&refused));
            }
            Made { index: view.index(), members: view.members().to_vec() }
        }
        Err(stopped) => return Err(stopped.into()),
    };
    step(&format!("{} is server {}, {}", args.server, id_of(&made, new)?, named(kind)));
    Ok(made)
}

/// Gives it its vote, as soon as it has caught up.
async fn vote(operator: &mut Operator, args: &MemberAdd, id: ServerId, made: Made) -> Result<Made, Failure> {
    let mut made = made;
    let mut told = false;
    loop {
        let Some(change) = promotion(&made, id, args.replace.map(ServerId)) else { return Ok(made) };
        match operator.make(&change).await {
            Ok(made) => {
                for id in &change.remove {
                    step(&format!("server {id} has left for it"));
                }
                step(&format!("server {id} votes"));
                return Ok(made);
            }
            Err(Stopped::Refused(ChangeRefused::NotCaughtUp { behind, .. })) if operator.has_time() => {
                if !told {
                    step(&format!("server {id} is {behind} entries behind: waiting until it has caught up"));
                }
                told = true;
                operator.pause().await;
            }
            Err(Stopped::Refused(refused @ ChangeRefused::NotCaughtUp { .. })) => {
                let rest = format!("`atomix member promote {id}` once it has, or a longer --timeout");
                return Err(Failure::new(Exit::Refused, format!("{refused}; it stays a learner: {rest}")));
            }
            // The leader promotes by itself a server that asked for it.
            Err(Stopped::Refused(ChangeRefused::Changed(_))) if operator.has_time() => {
                let view = operator.view().await?;
                made = Made { index: view.index(), members: view.members().to_vec() };
            }
            Err(stopped) => return Err(stopped.into()),
        }
    }
}

/// What is still to be done before it votes, and the member that it replaces is gone.
fn promotion(made: &Made, id: ServerId, replaced: Option<ServerId>) -> Option<Change> {
    let kind = |id| made.members.iter().find(|member| member.id == id).map(|member| member.kind);
    let votes = kind(id) == Some(MemberKind::Voter);
    let set_kind = if votes { Vec::new() } else { vec![(id, MemberKind::Voter)] };
    let remove: Vec<ServerId> = replaced.into_iter().filter(|id| kind(*id).is_some()).collect();
    let done = set_kind.is_empty() && remove.is_empty();
    (!done).then(|| Change { expected: made.index, set_kind, remove, ..Change::default() })
}

fn wanted(args: &MemberAdd) -> MemberKind {
    match (args.learner, args.reserve) {
        (true, _) => MemberKind::Learner,
        (_, true) => MemberKind::Reserve,
        _ => MemberKind::Voter,
    }
}

fn id_of(made: &Made, new: &Status) -> Result<ServerId, Failure> {
    let member = made.members.iter().find(|member| member.incarnation == new.incarnation);
    member.map(|member| member.id).ok_or_else(|| {
        Failure::new(Exit::Refused, format!("{} has been removed again meanwhile", new.address))
    })
}

fn named(kind: MemberKind) -> String {
    format!("a {}", kind_in_words(kind))
}

#[cfg(test)]
mod tests {
    use atomix::Incarnation;

    use super::*;

    fn member(id: u64, address: &str, kind: MemberKind) -> Member {
        Member {
            id: ServerId(id),
            incarnation: Incarnation(u128::from(id)),
            peer_address: address.into(),
            client_address: address.into(),
            kind,
            priority: 0,
        }
    }

    #[test]
    fn a_predecessor_has_the_address_and_another_directory() {
        let members = [member(1, "a:1", MemberKind::Voter), member(2, "b:1", MemberKind::Voter)];
        let at = |address: &str, incarnation| Status {
            address: address.into(),
            incarnation: Incarnation(incarnation),
            ..Status::default()
        };
        let found = |new: &Status| predecessor(&members, new).map(|member| member.id.0);
        assert_eq!(found(&at("b:1", 9)), Some(2));
        assert_eq!(found(&at("b:1", 2)), None, "it is the member itself");
        assert_eq!(found(&at("c:1", 9)), None);
    }

    #[test]
    fn what_is_left_to_do_depends_on_what_is_done() {
        let made = |kind| Made {
            index: Index(7),
            members: vec![member(1, "a:1", MemberKind::Voter), member(4, "d:1", kind)],
        };
        let left = |kind, replaced: Option<u64>| {
            promotion(&made(kind), ServerId(4), replaced.map(ServerId))
                .map(|change| (change.expected.0, change.set_kind.len(), change.remove.len()))
        };
        assert_eq!(left(MemberKind::Learner, Some(1)), Some((7, 1, 1)), "one change");
        assert_eq!(left(MemberKind::Learner, None), Some((7, 1, 0)));
        assert_eq!(left(MemberKind::Learner, Some(2)), Some((7, 1, 0)), "it has left already");
        assert_eq!(left(MemberKind::Voter, Some(1)), Some((7, 0, 1)));
        assert_eq!(left(MemberKind::Voter, None), None);
    }
}
