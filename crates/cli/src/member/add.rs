//! `atomix member add`: a running server is taken in, catches up, and gets its vote.

use atomix::{Index, Member, MemberKind, ServerId, Status};

use super::goal::Goal;
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
    let view = operator.led_view().await?;
    fits(&args.server, &new, &view)?;
    let goal = Goal::of(&args);
    let known = view.member_by_incarnation(new.incarnation);
    replaceable(&operator, &args.server, &goal, known, &view).await?;
    let made = match known {
        Some(member) => {
            step(&format!("{} is server {}, {}", args.server, member.id, named(member.kind)));
            let made = Made { index: view.index(), members: view.members().to_vec() };
            match args.making.expected {
                Some(expected) if Index(expected) != made.index => {
                    return Err(refusal(&ChangeRefused::Changed(made.index)));
                }
                _ => made,
            }
        }
        None => take_in(&mut operator, &args, &goal, &new, &view).await?,
    };
    let id = id_of(&made, &new)?;
    let made = see_through(&mut operator, &goal, id, made).await?;
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

/// A server that belongs to another cluster stays there, and a directory that was a member's is nobody else's (I3).
pub(super) fn fits(address: &str, new: &Status, view: &View) -> Result<(), Failure> {
    let Some(cluster) = new.cluster else { return Ok(()) };
    let refused = |why: String| {
        Err(Failure::new(Exit::Refused, format!("{address} {why}; start it with an empty data directory")))
    };
    if view.status().cluster != Some(cluster) {
        return refused(format!("belongs to cluster {cluster}"));
    }
    // Whoever knows more than what was read may have been taken in since.
    let knows_more = new.configuration_index > view.index() && new.role != "removed";
    if view.member_by_incarnation(new.incarnation).is_some() || knows_more {
        return Ok(());
    }
    match new.server.or_else(|| new.members.iter().find(|m| m.incarnation == new.incarnation).map(|m| m.id)) {
        Some(id) => refused(format!("was server {id}, which has been removed: it can't be added again")),
        None => refused(
            "has the data directory of a member that has been removed: it can't be added again".into(),
        ),
    }
}

/// Nobody leaves by mistake: only for a server that comes, and only a member.
async fn replaceable(
    operator: &Operator,
    address: &str,
    goal: &Goal,
    known: Option<&Member>,
    view: &View,
) -> Result<(), Failure> {
    let Some(other) = goal.replaces else { return Ok(()) };
    let refused = |words: String| Err(Failure::new(Exit::Refused, words));
    if view.members().iter().any(|member| member.id == other) {
        return match known {
            Some(own) if own.id == other => {
                refused(format!("{address} is server {other} itself: a server can't replace itself"))
            }
            Some(own) if own.kind == MemberKind::Voter => refused(format!(
                "server {} votes already, and replaces nobody; `atomix member remove {other}` removes server {other}",
                own.id
            )),
            _ => Ok(()),
        };
    }
    let next = operator.next_id(view.index(), other).await?;
    if other.0 >= next {
        return refused(format!("there has been no server {other}; `atomix member list` shows the members"));
    }
    if known.is_none() {
        let rest = "nobody has to leave for the new one: add it without --replace";
        return refused(format!("server {other} is not a member any more; {rest}"));
    }
    step(&format!("server {other} has left already"));
    Ok(())
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

/// The members whose place at an address another data directory has taken: their own was lost.
pub(super) fn predecessors(members: &[Member], new: &Status) -> Vec<ServerId> {
    let at_its_address = members.iter().filter(|member| {
        member.kind != MemberKind::Leaving
            && member.peer_address == new.address
            && member.incarnation != new.incarnation
    });
    at_its_address.map(|member| member.id).collect()
}

/// Adds it without a vote. A predecessor at its address leaves with the same change: two members can't be reached there.
async fn take_in(
    operator: &mut Operator,
    args: &MemberAdd,
    goal: &Goal,
    new: &Status,
    view: &View,
) -> Result<Made, Failure> {
    let kind = if goal.kind == MemberKind::Reserve { MemberKind::Reserve } else { MemberKind::Learner };
    let mut remove = predecessors(view.members(), new);
    // For a voter it leaves when that votes.
    let leaves = goal.replaces.filter(|id| goal.kind != MemberKind::Voter && !remove.contains(id));
    remove.extend(leaves);
    for id in &remove {
        step(&format!("server {id} leaves for {}", args.server));
    }
    let change = Change {
        expected: args.making.expected.map_or(view.index(), Index),
        add: vec![member_to_be(new, kind, goal.priority.unwrap_or_default())],
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
    let id = id_of(&made, new)?;
    step(&format!("{} is server {id}, {}", args.server, named(kind_of(&made, id).unwrap_or(kind))));
    Ok(made)
}

/// Makes of it what it is to be: a vote it gets as soon as it has caught up.
async fn see_through(
    operator: &mut Operator,
    goal: &Goal,
    id: ServerId,
    made: Made,
) -> Result<Made, Failure> {
    let mut made = made;
    let mut told = false;
    while let Some(change) = goal.next(&made, id)? {
        match operator.make(&change).await {
            Ok(after) => {
                tell(&change);
                made = after;
            }
            Err(Stopped::Refused(ChangeRefused::NotCaughtUp { behind, .. })) if operator.has_time() => {
                if !told {
                    step(&format!("server {id} is {behind} entries behind: waiting until it has caught up"));
                }
                told = true;
                operator.pause().await;
            }
            // The leader promotes by itself a server that asked for it.
            Err(Stopped::Refused(ChangeRefused::Changed(_))) if operator.has_time() => {
                let view = operator.view().await?;
                made = Made { index: view.index(), members: view.members().to_vec() };
            }
            Err(Stopped::Refused(refused)) => return Err(halfway(&refused, id, kind_of(&made, id))),
            Err(stopped) => return Err(stopped.into()),
        }
    }
    Ok(made)
}

fn tell(change: &Change) {
    for id in &change.remove {
        step(&format!("server {id} has left for it"));
    }
    for (id, kind) in &change.set_kind {
        match kind {
            MemberKind::Voter => step(&format!("server {id} votes")),
            kind => step(&format!("server {id} is {}", named(*kind))),
        }
    }
    for (id, priority) in &change.set_priority {
        step(&format!("server {id} has priority {priority}"));
    }
}

/// It is a member, and does not become what it was to be.
fn halfway(refused: &ChangeRefused, id: ServerId, kind: Option<MemberKind>) -> Failure {
    let stays = kind.map_or_else(String::new, |kind| format!("; server {id} stays {}", named(kind)));
    let rest = match refused {
        ChangeRefused::NotCaughtUp { .. } => {
            format!(": `atomix member promote {id}` once it has, or a longer --timeout")
        }
        _ => String::new(),
    };
    Failure::new(Exit::Refused, format!("{refused}{stays}{rest}"))
}

fn id_of(made: &Made, new: &Status) -> Result<ServerId, Failure> {
    let member = made.members.iter().find(|member| member.incarnation == new.incarnation);
    member.map(|member| member.id).ok_or_else(|| {
        Failure::new(Exit::Refused, format!("{} has been removed again meanwhile", new.address))
    })
}

fn kind_of(made: &Made, id: ServerId) -> Option<MemberKind> {
    made.members.iter().find(|member| member.id == id).map(|member| member.kind)
}

fn named(kind: MemberKind) -> String {
    match kind {
        MemberKind::Reserve => "a reserve member".to_owned(),
        kind => format!("a {}", kind_in_words(kind)),
    }
}

#[cfg(test)]
mod tests {
    use atomix::{ClusterId, Incarnation};

    use super::*;
    use crate::member::goal::tests::member;
    use crate::status::Answer;

    #[test]
    fn a_predecessor_has_the_address_and_another_directory() {
        let members = [member(1, "a:1", MemberKind::Voter), member(2, "b:1", MemberKind::Voter)];
        let at = |address: &str, incarnation| Status {
            address: address.into(),
            incarnation: Incarnation(incarnation),
            ..Status::default()
        };
        let found = |new: &Status| predecessors(&members, new);
        assert_eq!(found(&at("b:1", 9)), [ServerId(2)]);
        assert_eq!(found(&at("b:1", 2)), [], "it is the member itself");
        assert_eq!(found(&at("c:1", 9)), []);
    }

    #[test]
    fn a_directory_of_the_cluster_fits_only_if_it_is_a_members() {
        let of_cluster = |incarnation, index, cluster| Status {
            incarnation: Incarnation(incarnation),
            cluster: Some(ClusterId(cluster)),
            configuration_index: Index(index),
            members: vec![member(1, "a:1", MemberKind::Voter), member(2, "b:1", MemberKind::Voter)],
            ..Status::default()
        };
        let leader = Status {
            role: "leader".into(),
            members: vec![member(1, "a:1", MemberKind::Voter)],
            ..of_cluster(1, 7, 5)
        };
        let answer = Answer { address: "a:1".into(), status: Ok(leader) };
        let view = View::from(vec![answer]).expect("a view");
        let fit = |new: &Status| fits("b:1", new, &view).map_err(|failure| (failure.exit, failure.message));
        assert_eq!(fit(&Status::default()), Ok(()), "an empty directory");
        assert_eq!(fit(&of_cluster(1, 7, 5)), Ok(()), "a member");
        assert_eq!(fit(&of_cluster(2, 8, 5)), Ok(()), "it may have been taken in since");
        for (new, words) in [
            (of_cluster(1, 7, 6), "belongs to cluster"),
            (of_cluster(2, 6, 5), "was server 2, which has been removed"),
            (of_cluster(9, 7, 5), "a member that has been removed"),
        ] {
            let (exit, message) = fit(&new).expect_err(words);
            assert_eq!(exit, Exit::Refused);
            assert!(message.contains(words) && message.ends_with("empty data directory"), "{message}");
        }
    }
}
