//! Every reason for which a change is refused; nothing is done then.

use MemberKind::{Learner, Leaving, Reserve, Voter};
use atomix_protocol::change::{Change, ChangeRefused};
use atomix_protocol::{Address, Index, MemberKind, limits};
use atomix_raft::Config;
use atomix_testkit::scenario::{Cluster, Settings};

use super::*;

fn refuses(cluster: &mut Cluster, of: u64, change: &Change, expected: ChangeRefused) {
    let (before, last) = (in_use(cluster, of).clone(), cluster.raft(server(of)).last());
    assert_eq!(cluster.plan(server(of), change).refused, Some(expected.clone()), "{change:?}");
    assert_eq!(cluster.change(server(of), change), Err(expected), "{change:?}");
    assert_eq!((in_use(cluster, of), cluster.raft(server(of)).last()), (&before, last));
}

#[test]
fn only_a_leader_changes_anything_and_others_name_it() {
    let mut cluster = led_by_1(3, 0);
    let change = add(&cluster, 2, Learner);
    refuses(&mut cluster, 2, &change, ChangeRefused::NotLeader { leader: Some(Address::new("1")) });
    let mut cluster = Cluster::new(Settings::default());
    let change = add(&cluster, 2, Learner);
    refuses(&mut cluster, 2, &change, ChangeRefused::NotLeader { leader: None });
}

#[test]
fn not_before_an_entry_of_its_own_term_is_committed() {
    let mut cluster = Cluster::new(Settings::default());
    cluster.campaign(server(1));
    while cluster.leader().is_none() {
        cluster.busy_links().into_iter().for_each(|(from, to, _)| cluster.deliver_link(from, to));
        cluster.all().into_iter().for_each(|id| cluster.persist(id));
    }
    let change = add(&cluster, 1, Learner);
    refuses(&mut cluster, 1, &change, ChangeRefused::NotEstablished);
    assert_eq!(cluster.raft(server(1)).marks().change_refused_early, 1);
    cluster.settle();
    run(&mut cluster, 100);
    assert!(cluster.change(server(1), &change).is_ok());
}

#[test]
fn not_while_another_is_on_its_way() {
    let mut cluster = led_by_1(3, 1);
    let (early, late) = (make(&cluster, 1, &[(4, Voter)]), add(&cluster, 1, Learner));
    let begun = cluster.change(server(1), &early).unwrap();
    refuses(&mut cluster, 1, &late, ChangeRefused::Pending(begun.index));
    // The joint configuration is committed, the final one is in the log.
    while committed(&cluster, 1) < begun.index {
        cluster.busy_links().into_iter().for_each(|(from, to, _)| cluster.deliver_link(from, to));
        cluster.all().into_iter().for_each(|id| cluster.persist(id));
    }
    let after = begun.index.next();
    assert_eq!((in_use(&cluster, 1).index, &in_use(&cluster, 1).outgoing_voters), (after, &None));
    refuses(&mut cluster, 1, &late, ChangeRefused::Pending(after));
    run(&mut cluster, 200);
    refuses(&mut cluster, 1, &late, ChangeRefused::Changed(after));
    assert!(cluster.change(server(1), &Change { expected: after, ..late }).is_ok());
}

#[test]
fn not_for_a_configuration_that_is_not_in_use() {
    let mut cluster = led_by_1(3, 0);
    let change = Change { expected: Index(9), ..add(&cluster, 1, Learner) };
    refuses(&mut cluster, 1, &change, ChangeRefused::Changed(Index(0)));
    assert_eq!(cluster.raft(server(1)).marks().change_refused_changed, 1);
}

#[test]
fn not_while_the_leader_hands_over() {
    let mut cluster = led_by_1(3, 0);
    let change = add(&cluster, 1, Learner);
    cluster.transfer(server(1), Some(server(2))).unwrap();
    refuses(&mut cluster, 1, &change, ChangeRefused::HandingOver);
}

#[test]
fn not_beyond_the_memory_bound() {
    let mut cluster = led_by_1_with(3, 0, Config { log_memory_bytes: 640, ..Config::default() });
    cluster.isolate(server(2));
    cluster.isolate(server(3));
    let change = add(&cluster, 1, Learner);
    while cluster.propose(server(1), "a command").is_ok() {}
    assert!(cluster.change(server(1), &change).is_ok(), "room is kept for the leader's own entries");
    let mut cluster = led_by_1_with(3, 0, Config { log_memory_bytes: 8, ..Config::default() });
    cluster.isolate(server(2));
    cluster.isolate(server(3));
    cluster.propose(server(1), "a command").unwrap();
    refuses(&mut cluster, 1, &change, ChangeRefused::Busy);
}

#[test]
fn not_if_it_says_nothing_or_contradicts_itself() {
    let mut cluster = led_by_1(3, 1);
    let base = unchanged(&cluster, 1);
    let (two, four) = (server(2), server(4));
    let with = |how: &dyn Fn(&mut Change)| {
        let mut change = base.clone();
        how(&mut change);
        change
    };
    for change in [
        base.clone(),
        with(&|c| c.set_kind = vec![(two, Voter)]),
        with(&|c| c.set_priority = vec![(two, 0)]),
        with(&|c| c.remove = vec![two, two]),
        with(&|c| c.set_kind = vec![(four, Voter), (four, Learner)]),
        with(&|c| c.set_priority = vec![(two, 1), (two, 2)]),
        with(&|c| (c.remove, c.set_kind) = (vec![four], vec![(four, Voter)])),
        with(&|c| (c.remove, c.set_priority) = (vec![four], vec![(four, 1)])),
        with(&|c| c.set_kind = vec![(two, Leaving)]),
        with(&|c| c.add = vec![new_member(5, Leaving)]),
        with(&|c| c.add = vec![new_member(5, Learner), new_member(5, Learner)]),
        with(&|c| c.add = vec![new_member(5, Learner), like(6, 5)]),
    ] {
        refuses(&mut cluster, 1, &change, ChangeRefused::Malformed);
    }
}

#[test]
fn not_of_members_that_are_none_or_are_there_already() {
    let mut cluster = led_by_1(3, 1);
    for change in [
        remove(&cluster, 1, &[9]),
        make(&cluster, 1, &[(9, Learner)]),
        make(&cluster, 1, &[(9, Voter)]),
        Change { set_priority: vec![(server(9), 1)], ..unchanged(&cluster, 1) },
    ] {
        refuses(&mut cluster, 1, &change, ChangeRefused::UnknownMember(server(9)));
    }
    let change = Change { add: vec![new_member(2, Learner)], ..unchanged(&cluster, 1) };
    refuses(&mut cluster, 1, &change, ChangeRefused::AlreadyMember(server(2)));
}

#[test]
fn only_learners_become_voters() {
    let mut cluster = led_by_1(3, 0);
    let change = add(&cluster, 1, Voter);
    refuses(&mut cluster, 1, &change, ChangeRefused::NotALearner);
    let reserve = join(&mut cluster, Reserve);
    let change = make(&cluster, 1, &[(reserve, Voter)]);
    refuses(&mut cluster, 1, &change, ChangeRefused::NotALearner);
}

#[test]
fn one_to_seven_vote() {
    let mut cluster = led_by_1(7, 1);
    let change = make(&cluster, 1, &[(8, Voter)]);
    refuses(&mut cluster, 1, &change, ChangeRefused::Voters(8));
    let mut cluster = led_by_1(2, 1);
    let change = remove(&cluster, 1, &[1, 2]);
    refuses(&mut cluster, 1, &change, ChangeRefused::Voters(0));
}

#[test]
fn so_many_members_and_no_more() {
    let mut cluster = led_by_1(3, 1);
    let adding = |cluster: &Cluster, count: u64| Change {
        add: (5..5 + count).map(|id| new_member(id, Reserve)).collect(),
        ..unchanged(cluster, 1)
    };
    let change = adding(&cluster, 1_000_000);
    refuses(&mut cluster, 1, &change, ChangeRefused::Members(1_000_004));
    let change = adding(&cluster, 61);
    refuses(&mut cluster, 1, &change, ChangeRefused::Members(65));
    // One may come for one that goes.
    let change = Change { remove: vec![server(4)], ..change };
    complete(&mut cluster, &change);
    assert_eq!(in_use(&cluster, 1).members.len(), limits::MEMBERS);
    let ids = || (1..=1_000_000).map(server);
    for change in [
        Change { remove: ids().collect(), ..unchanged(&cluster, 1) },
        Change { set_kind: ids().map(|id| (id, Learner)).collect(), ..unchanged(&cluster, 1) },
        Change { set_priority: ids().map(|id| (id, 1)).collect(), ..unchanged(&cluster, 1) },
    ] {
        let refused = cluster.change(server(1), &change);
        assert_eq!(refused, Err(ChangeRefused::Malformed), "before it is looked at");
    }
}

#[test]
fn no_address_is_longer_than_any_may_be() {
    let mut cluster = led_by_1(3, 0);
    let long = |bytes| Address::new("x".repeat(bytes));
    let mut change = add(&cluster, 1, Learner);
    for bytes in [limits::ADDRESS_BYTES + 1, limits::FRAME_BYTES] {
        let refused = ChangeRefused::AddressTooLong(u32::try_from(bytes).unwrap());
        change.add[0].peer_address = long(bytes);
        refuses(&mut cluster, 1, &change, refused.clone());
        change.add[0].peer_address = long(1);
        change.add[0].client_address = long(bytes);
        refuses(&mut cluster, 1, &change, refused);
    }
    change.add[0].client_address = long(limits::ADDRESS_BYTES);
    complete(&mut cluster, &change);
}

/// Fault M8: who is down, or was never up, does not become a voter.
#[test]
fn who_does_not_answer_is_not_promoted() {
    let mut cluster = led_by_1(3, 1);
    let change = add(&cluster, 1, Learner);
    complete(&mut cluster, &change);
    let last = cluster.raft(server(1)).last().index;
    let change = make(&cluster, 1, &[(5, Voter)]);
    refuses(&mut cluster, 1, &change, ChangeRefused::NotCaughtUp { server: server(5), behind: last.0 });
    // It had caught up, and is down.
    cluster.crash(server(4), 0);
    run(&mut cluster, 310);
    let change = make(&cluster, 1, &[(4, Voter)]);
    refuses(&mut cluster, 1, &change, ChangeRefused::NotCaughtUp { server: server(4), behind: 0 });
}

#[test]
fn not_if_the_new_voters_that_answer_are_no_quorum() {
    let mut cluster = led_by_1(3, 0);
    cluster.isolate(server(3));
    run(&mut cluster, 310);
    let change = remove(&cluster, 1, &[2]);
    refuses(&mut cluster, 1, &change, ChangeRefused::NoQuorum { answering: 1, voters: 2 });
    // The one that is down may go.
    let change = remove(&cluster, 1, &[3]);
    complete(&mut cluster, &change);
    assert_eq!(voters(in_use(&cluster, 2)), [1, 2]);
}

/// I3: a wiped server comes back under a new id at its old address, and replaces its old self.
#[test]
fn two_voters_never_have_one_address() {
    let mut cluster = led_by_1(3, 0);
    cluster.crash(server(3), 0);
    let change = Change { add: vec![like(4, 3)], ..unchanged(&cluster, 1) };
    complete(&mut cluster, &change);
    cluster.join(server(4), server(1));
    run(&mut cluster, 700);
    let alone = make(&cluster, 1, &[(4, Voter)]);
    refuses(&mut cluster, 1, &alone, ChangeRefused::AddressInUse(server(3)));
    let demoted = make(&cluster, 1, &[(4, Voter), (3, Learner)]);
    refuses(&mut cluster, 1, &demoted, ChangeRefused::AddressInUse(server(3)));
    complete(&mut cluster, &Change { remove: vec![server(3)], ..alone });
    assert_eq!(kinds(in_use(&cluster, 4)), [(1, Voter), (2, Voter), (4, Voter)]);
}

#[test]
fn the_first_reason_is_given() {
    let mut cluster = led_by_1(3, 1);
    cluster.change(server(1), &make(&cluster, 1, &[(4, Voter)])).unwrap();
    let nonsense = Change { expected: Index(99), ..Change::default() };
    let pending = in_use(&cluster, 1).index;
    refuses(&mut cluster, 1, &nonsense, ChangeRefused::Pending(pending));
    run(&mut cluster, 200);
    refuses(&mut cluster, 1, &nonsense, ChangeRefused::Changed(pending.next()));
    assert_eq!(cluster.raft(server(1)).marks().change_refused, 2);
    assert_eq!(cluster.raft(server(1)).marks().change_refused_pending, 1);
}
