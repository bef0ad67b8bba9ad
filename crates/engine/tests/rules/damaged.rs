//! D4 as operators and clients see it: a server that finds its log damaged.

use std::time::Duration;

use atomix_engine::{Notice, Recovered, StopReason};
use atomix_protocol::durable::REACH_UNKNOWN;
use atomix_protocol::{Index, MemberKind};

use crate::solo::{Solo, address, configuration, on_disk};
use crate::world::World;

const DAMAGE: &str = "log segment 3 at 4096: a payload that does not verify";

/// Three servers with six lines; one that does not lead, or the leader, finds none of them when it comes up.
fn damaged(leads: bool) -> (World, usize, usize) {
    let mut world = World::formed(3);
    let client = world.client(None);
    for line in ["a", "b", "c", "d", "e", "f"] {
        world.write(client, line);
    }
    world.until("copies", |world| (0..3).all(|server| world.lines(server) == "a,b,c,d,e,f"));
    let leader = world.leader().expect("one");
    let server = if leads { leader } else { (leader + 1) % 3 };
    world.crash(server);
    world.servers[server].disk.lose(2);
    (world, server, client)
}

#[test]
fn d4_a_server_with_a_damaged_log_says_so_and_votes_when_it_is_whole_again() {
    for leads in [false, true] {
        let (mut world, server, client) = damaged(leads);
        if leads {
            world.until("another leader", |world| world.leader().is_some());
        }
        let until = world.servers[server].disk.abstention.expect("it lost something");
        world.start(server);
        let status = world.status(server);
        assert_eq!(
            (status.role.as_str(), status.votes, status.abstains_until),
            ("follower", false, Some(until))
        );
        assert_eq!(status.damage, [DAMAGE]);
        let notice = format!(
            "no vote: part of the log was damaged; repaired through 2 of {until}; no leader is known"
        );
        assert!(status.notice.starts_with(&notice), "{}", status.notice);
        let told = Notice::Damaged { damage: vec![DAMAGE.into()], abstains_until: Some(until) };
        assert!(world.servers[server].notices.contains(&told));
        assert_eq!(world.write(client, "g"), "7");
        world.until("its vote", |world| world.status(server).votes);
        let status = world.status(server);
        assert_eq!((status.abstains_until, status.notice.as_str()), (None, ""));
        assert_eq!(status.damage, [DAMAGE], "what was found stays to be seen");
        assert!(world.servers[server].notices.contains(&Notice::Repaired(until)));
        assert_eq!(world.servers[server].disk.abstention, None);
        // It counts again: with one of the others gone, it elects or is elected.
        let leader = world.leader().expect("one");
        world.crash(leader);
        assert_eq!(world.write(client, "h"), "8");
        world.until("all of it", |world| world.lines(server) == "a,b,c,d,e,f,g,h");
    }
}

/// Two of three have lost what the third never had. Nobody is elected, and nothing is lost.
#[test]
fn d4_what_only_those_have_who_are_away_is_waited_for() {
    let (mut world, server, client) = damaged(false);
    world.start(server);
    let leader = world.leader().expect("one");
    let third = (0..3).find(|other| ![server, leader].contains(other)).expect("three");
    world.isolate(third);
    assert_eq!(world.write(client, "g"), "7");
    world.until("its vote", |world| world.status(server).votes);
    world.crash(server);
    world.servers[server].disk.lose(2);
    world.crash(leader);
    world.heal();
    world.start(server);
    world.run(Duration::from_secs(20));
    assert_eq!(world.leader(), None, "{}", world.describe());
    world.start(leader);
    world.until("its vote", |world| world.status(server).votes);
    assert_eq!(world.write(client, "h"), "8");
    world.until("all of it", |world| (0..3).all(|server| world.lines(server) == "a,b,c,d,e,f,g,h"));
}

#[test]
fn d4_the_only_voter_stops_for_nobody_can_repair_it() {
    let mut world = World::formed(1);
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    world.crash(0);
    let last = world.servers[0].disk.entries.last().expect("entries").id.index;
    world.servers[0].disk.lose(1);
    for damage in [vec![DAMAGE.into()], vec!["x".into(); 9], vec![]] {
        world.servers[0].disk.damage = damage.clone();
        world.start(0);
        let Some(StopReason::Damaged(why)) = world.servers[0].stopped.clone() else {
            panic!("{:?}", world.servers[0].stopped);
        };
        let what = match damage.len() {
            0 => "the log is damaged:".into(),
            1 => format!("the log is damaged ({DAMAGE}):"),
            _ => "the log is damaged (x; x; x; and 6 more):".into(),
        };
        assert!(
            why.starts_with(&format!(
                "{what} what came behind entry 1 may be lost, up to {last}, and no other server has it"
            )),
            "{why}"
        );
    }
    world.crash(0);
    world.servers[0].disk.abstention = Some(REACH_UNKNOWN);
    world.start(0);
    let Some(StopReason::Damaged(why)) = world.servers[0].stopped.clone() else { panic!("it runs") };
    assert!(why.contains("may be lost, nobody knows how much, and no other"), "{why}");
}

/// A segment is gone with its mark: nobody knows how far it reached, and nobody is told a number that means nothing.
#[test]
fn d4_what_is_lost_and_nobody_knows_how_much_is_said_in_words() {
    let (mut world, server, _) = damaged(false);
    world.servers[server].disk.abstention = Some(REACH_UNKNOWN);
    world.start(server);
    let status = world.status(server);
    assert_eq!(status.abstains_until, Some(REACH_UNKNOWN));
    let notice = "no vote: part of the log was damaged; repaired through 2, and has to be as far as a leader's log reaches";
    assert!(status.notice.starts_with(notice), "{}", status.notice);
    world.until("its vote", |world| world.status(server).votes);
    let through = world.servers[server].notices.iter().find_map(|notice| match notice {
        Notice::Repaired(through) => Some(*through),
        _ => None,
    });
    assert!(through.is_some_and(|through| (Index(6)..=Index(50)).contains(&through)), "{through:?}");
}

/// Two of three are damaged at once, and all three are up. The third does not lead, and says whose votes it lacks.
#[test]
fn d4_where_too_few_have_a_vote_it_is_said_who_gives_none() {
    let (mut world, server, _) = damaged(false);
    let leader = world.leader().expect("one");
    let third = (0..3).find(|other| ![server, leader].contains(other)).expect("three");
    world.crash(leader);
    world.servers[leader].disk.lose(1);
    world.start(server);
    world.start(leader);
    let address = |world: &World, of: usize| world.status(of).address.clone();
    let (first, second) = (address(&world, server), address(&world, leader));
    world.until("refusals", |world| {
        let notice = world.status(third).notice;
        notice.starts_with("no leader is known; no vote for this server from ")
            && [&first, &second].iter().all(|address| notice.contains(address.as_str()))
            && notice.contains("damaged and has no vote until it is repaired")
    });
    world.run(Duration::from_secs(5));
    assert_eq!(world.leader(), None, "{}", world.describe());
    for damaged in [server, leader] {
        let notice = world.status(damaged).notice;
        assert!(notice.contains("a majority of the members is reached"), "{notice}");
    }
    // One that is not reached is not said to have answered; with two away it is a majority that lacks.
    world.crash(leader);
    world.until("one", |world| {
        let notice = world.status(third).notice;
        notice.contains(first.as_str()) && !notice.contains(second.as_str())
    });
    world.crash(server);
    world.until("none", |world| world.status(third).notice.ends_with("must be reachable"));
}

/// An operator puts an older copy of a member's directory in its place: nothing in it says that anything is missing. Its leader finds out.
#[test]
fn d4_a_follower_whose_directory_is_an_older_copy_is_named() {
    let (mut world, server, client) = damaged(false);
    let leader = world.leader().expect("one");
    let told = |world: &World| {
        let notices = world.servers[leader].notices.iter();
        let named = notices.filter_map(|notice| match notice {
            Notice::Forgetful { server, address } => Some((*server, address.clone())),
            _ => None,
        });
        named.collect::<Vec<_>>()
    };
    // Damaged, and it knows: it abstains, and nothing is to be said by others.
    world.start(server);
    world.until("its vote", |world| world.status(server).votes);
    // The leader knows that it has all of it.
    world.run(Duration::from_secs(1));
    assert_eq!(told(&world), []);
    world.crash(server);
    world.servers[server].disk.lose(2);
    (world.servers[server].disk.abstention, world.servers[server].disk.damage) = (None, vec![]);
    world.start(server);
    assert_eq!(world.write(client, "g"), "7");
    world.until("all of it", |world| world.lines(server) == "a,b,c,d,e,f,g");
    let status = world.status(server);
    assert_eq!(told(&world), [(status.server.expect("a member"), status.address)]);
}

/// Who votes alone can't be repaired, whoever else has a copy; who is one of two, or has no vote, can.
#[test]
fn d4_only_the_only_voter_stops() {
    for (voters, own_kind, stops) in [
        (1, MemberKind::Voter, true),
        (2, MemberKind::Voter, false),
        (3, MemberKind::Voter, false),
        (3, MemberKind::Learner, false),
        (3, MemberKind::Reserve, false),
    ] {
        let mut configuration = configuration(3);
        for (member, place) in configuration.members.iter_mut().zip(1..) {
            member.kind = if place <= voters { MemberKind::Voter } else { MemberKind::Learner };
        }
        configuration.members[0].kind = own_kind;
        let abstention = Some(Index(7));
        let recovered = Recovered { configuration: Some(configuration), abstention, ..on_disk(3) };
        let mut solo = Solo::recovered(recovered, vec![]);
        solo.wait(Duration::from_secs(5));
        let stopped = solo.outputs.iter().any(|output| matches!(output, atomix_engine::Output::Stop(_)));
        assert_eq!(stopped, stops, "{own_kind:?}, {voters} voters");
        assert!(!solo.engine.status(solo.now).votes);
    }
}

/// Damage and all: a directory that is no member's, or that was removed, is what it would be without.
#[test]
fn d4_who_is_no_member_is_none_with_damage_either() {
    let damage = || vec![DAMAGE.to_owned()];
    let removed = |index: u64| {
        let mut configuration = configuration(4);
        configuration.members.remove(0);
        configuration.index = Index(index);
        let (abstention, configuration) = (Some(Index(9)), Some(configuration));
        Recovered { configuration, abstention, damage: damage(), ..on_disk(3) }
    };
    let empty = Recovered { configuration: None, damage: damage(), abstention: Some(Index(9)), ..on_disk(3) };
    for (recovered, role) in [(removed(3), "removed"), (removed(0), "joiner"), (empty, "forming")] {
        let mut solo = Solo::recovered(recovered, vec![address(1), address(2)]);
        solo.wait(Duration::from_secs(5));
        let status = solo.engine.status(solo.now);
        assert_eq!((status.role.as_str(), status.votes), (role, false));
        assert_eq!(status.damage, damage());
    }
}

/// A learner was a voter once, and an operator took its vote. The entry that says so is among what is lost.
#[test]
fn d4_a_damaged_log_does_not_show_that_a_server_never_was_what_it_wants_to_be() {
    for (damage, asks) in [(vec![], true), (vec![DAMAGE.to_owned()], false)] {
        let mut configuration = configuration(3);
        configuration.members[0].kind = MemberKind::Learner;
        let recovered = Recovered { configuration: Some(configuration), damage, ..on_disk(3) };
        let solo = Solo::with(recovered, vec![], |options| {
            options.join = vec![address(2)];
            options.kind = MemberKind::Voter;
        });
        let says_not = solo
            .outputs
            .iter()
            .any(|output| matches!(output, atomix_engine::Output::Notice(Notice::WishNotRepeated)));
        assert_eq!(!says_not, asks);
    }
}
