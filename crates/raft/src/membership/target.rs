//! What a change makes of a configuration: only from what both say, so that every server would find the same.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use atomix_protocol::change::{Change, ChangeRefused};
use atomix_protocol::{Configuration, Member, MemberKind, ServerId, limits};

/// The configuration that a change leads to.
///
/// # Errors
/// If it leads nowhere, whoever leads and whatever servers are up.
pub(super) fn target(current: &Configuration, change: &Change) -> Result<Configuration, ChangeRefused> {
    fits(current, change)?;
    if contradicts_itself(change) {
        return Err(ChangeRefused::Malformed);
    }
    let mut next = current.clone();
    for id in &change.remove {
        known(current, *id)?;
        next.members.retain(|member| member.id != *id);
    }
    for (id, kind) in &change.set_kind {
        if *kind == MemberKind::Voter
            && !matches!(known(current, *id)?.kind, MemberKind::Voter | MemberKind::Learner)
        {
            return Err(ChangeRefused::NotALearner);
        }
        edit(&mut next, *id, |member| member.kind = *kind)?;
    }
    for (id, priority) in &change.set_priority {
        edit(&mut next, *id, |member| member.priority = *priority)?;
    }
    for new in &change.add {
        if new.kind == MemberKind::Voter {
            return Err(ChangeRefused::NotALearner);
        }
        if let Some(member) = current.member_by_incarnation(new.incarnation) {
            return Err(ChangeRefused::AlreadyMember(member.id));
        }
        next.members.push(Member {
            id: ServerId(next.next_server_id),
            incarnation: new.incarnation,
            peer_address: new.peer_address.clone(),
            client_address: new.client_address.clone(),
            kind: new.kind,
            priority: new.priority,
        });
        next.next_server_id = next.next_server_id.saturating_add(1);
    }
    if next == *current {
        return Err(ChangeRefused::Malformed);
    }
    if !change.add.is_empty() && next.members.len() > limits::MEMBERS {
        return Err(ChangeRefused::Members(saturated(next.members.len())));
    }
    if let Some(other) = in_the_way(current, &next) {
        return Err(ChangeRefused::AddressInUse(other));
    }
    let voters = next.voters().count();
    if voters == 0 || voters > limits::VOTERS {
        return Err(ChangeRefused::Voters(saturated(voters)));
    }
    Ok(next)
}

/// The servers that vote in the second configuration and not in the first.
pub(super) fn promoted<'a>(
    before: &'a Configuration,
    after: &'a Configuration,
) -> impl Iterator<Item = ServerId> + 'a {
    after.voters().filter(|id| !before.is_voter(*id))
}

/// The configuration between two with different voters: both sides decide, and voters that go are still reached
/// (§4.3). `None` if the voters are the same.
pub(super) fn joint(current: &Configuration, next: &Configuration) -> Option<Configuration> {
    let outgoing: Vec<ServerId> = current.voters().collect();
    if next.voters().eq(outgoing.iter().copied()) {
        return None;
    }
    let mut joint = next.clone();
    let gone = current.members.iter().filter(|m| m.kind == MemberKind::Voter && next.member(m.id).is_none());
    joint.members.extend(gone.map(|member| Member { kind: MemberKind::Leaving, ..member.clone() }));
    joint.members.sort_by_key(|member| member.id);
    joint.outgoing_voters = Some(outgoing);
    Some(joint)
}

/// What a joint configuration leads to.
pub(super) fn completed(joint: &Configuration) -> Configuration {
    let mut next = joint.clone();
    next.members.retain(|member| member.kind != MemberKind::Leaving);
    next.outgoing_voters = None;
    next
}

/// Whether a change is one that can be looked at: anybody may ask for one, as long as a frame. Its entry must fit in one too,
/// with all that it is sent with, or no follower would ever get it.
fn fits(current: &Configuration, change: &Change) -> Result<(), ChangeRefused> {
    let Change { add, set_kind, set_priority, remove, .. } = change;
    if add.len() > limits::MEMBERS {
        return Err(ChangeRefused::Members(saturated(current.members.len().saturating_add(add.len()))));
    }
    // No member is named twice, so that such a list names some that there are not.
    let most = current.members.len().max(limits::MEMBERS);
    if [set_kind.len(), set_priority.len(), remove.len()].into_iter().any(|named| named > most) {
        return Err(ChangeRefused::Malformed);
    }
    match add.iter().find_map(|new| new.address_too_long()) {
        Some(address) => Err(ChangeRefused::AddressTooLong(saturated(address.as_str().len()))),
        None => Ok(()),
    }
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn known(configuration: &Configuration, id: ServerId) -> Result<&Member, ChangeRefused> {
    configuration.member(id).ok_or(ChangeRefused::UnknownMember(id))
}

fn edit(next: &mut Configuration, id: ServerId, how: impl FnOnce(&mut Member)) -> Result<(), ChangeRefused> {
    let member = next.members.iter_mut().find(|member| member.id == id);
    member.map(how).ok_or(ChangeRefused::UnknownMember(id))
}

/// Whether a change names something twice, or what only a configuration under way may hold.
fn contradicts_itself(change: &Change) -> bool {
    let Change { add, set_kind, set_priority, remove, .. } = change;
    let mut leaves = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    let mut priorities = BTreeSet::new();
    let mut incarnations = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    let twice = !remove.iter().all(|id| leaves.insert(*id))
        || !set_kind.iter().all(|(id, _)| kinds.insert(*id) && !leaves.contains(id))
        || !set_priority.iter().all(|(id, _)| priorities.insert(*id) && !leaves.contains(id))
        || !add.iter().all(|new| incarnations.insert(new.incarnation) && addresses.insert(&new.peer_address));
    let leaving = set_kind.iter().map(|(_, kind)| kind).chain(add.iter().map(|new| &new.kind));
    twice || leaving.into_iter().any(|kind| *kind == MemberKind::Leaving)
}

/// A member that stays and has the address of one that is promoted. A wiped server comes back under a new id at its
/// old address: it may learn there, and replaces its old self when it votes (I3).
fn in_the_way(current: &Configuration, next: &Configuration) -> Option<ServerId> {
    let promoted: Vec<ServerId> = promoted(current, next).collect();
    let new = next.members.iter().filter(|member| promoted.contains(&member.id));
    new.flat_map(|new| next.members.iter().filter(|m| m.id != new.id && m.peer_address == new.peer_address))
        .map(|other| other.id)
        .next()
}
