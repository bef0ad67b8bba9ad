//! I5 and I14 while the cluster changes: who is let in, who is not, and two clusters at one address (fault N12).

use std::time::Duration;

use atomix_engine::{Input, Output};
use atomix_protocol::handshake::{Hello, RefusalReason, Role};
use atomix_protocol::peer::{AppendEntries, PeerMessage};
use atomix_protocol::{
    BootNonce, ClusterId, ClusterTime, Configuration, Entry, EntryId, EntryKind, GroupId, Index, MemberKind,
    Round, ServerId, Term, codec,
};
use bytes::Bytes;
use codec::Frame;

use crate::solo::{Solo, address, client, configuration, incarnation, on_disk, peer};
use crate::world::World;

/// What server 1 answers whose configuration has servers 1, 2 and 4; 3 was removed, and 5 comes next.
#[track_caller]
fn check(hello: Hello, expected: Result<(), &str>) {
    let mut recovered = on_disk(4);
    let configuration = recovered.configuration.as_mut().expect("a member's");
    configuration.members.retain(|member| member.id != ServerId(3));
    configuration.index = Index(9);
    let mut solo = Solo::recovered(recovered, Vec::new());
    let link = solo.greeted_by(hello.clone());
    match (expected, &solo.sent(link)[..]) {
        (Ok(()), [Frame::Hello(answer), ..]) => assert_eq!(answer.role, Role::Peer),
        (Err(words), [Frame::Refusal(refusal)]) => {
            assert_eq!(refusal.reason, RefusalReason::NotAMember);
            assert!(refusal.detail.contains(words), "{}", refusal.detail);
            assert!(solo.is_closed(link));
        }
        (expected, sent) => panic!("{hello:?}: {sent:?} instead of {expected:?}"),
    }
}

#[test]
fn i5_newer_members_are_let_in_and_removed_ones_are_not() {
    check(peer(2), Ok(()));
    check(peer(4), Ok(()));
    check(peer(5), Ok(()));
    check(peer(50), Ok(()));
    check(peer(3), Err("server 3 is no member of configuration 9: it was removed"));
    // Whoever has its directory, or its id, but not both.
    check(Hello { server: Some(ServerId(5)), ..peer(4) }, Err("is server 4"));
    check(Hello { server: Some(ServerId(2)), ..peer(4) }, Err("is not that of server 2"));
    check(Hello { incarnation: incarnation(9), ..peer(2) }, Err("is not that of server 2"));
    check(Hello { incarnation: incarnation(9), ..peer(3) }, Err("it was removed"));
    check(Hello { server: None, ..peer(3) }, Err("is not a member's"));
}

fn heartbeat(term: u64) -> PeerMessage {
    PeerMessage::AppendEntries(AppendEntries {
        term: Term(term),
        prev: EntryId::ZERO,
        leader_commit: Index::ZERO,
        last_index: Index(0),
        time: ClusterTime(0),
        promise_ms: 0,
        round: Round(1),
        entries: Vec::new(),
    })
}

#[test]
fn i14_a_word_of_consensus_is_heard_from_members_only() {
    let strangers = [
        Hello { cluster: Some(ClusterId(8)), ..peer(2) },
        Hello { incarnation: incarnation(9), ..peer(2) },
        Hello { cluster: None, server: None, ..peer(2) },
        client(None),
    ];
    for hello in strangers {
        let mut solo = Solo::member(3);
        let link = solo.greeted_by(hello.clone());
        solo.hear(link, &Frame::Peer(heartbeat(5)));
        assert_eq!(solo.engine.status(solo.now).term, Term(0), "{hello:?}");
        assert!(solo.is_closed(link));
    }
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(peer(2));
    solo.hear(link, &Frame::Peer(heartbeat(5)));
    assert_eq!(solo.engine.status(solo.now).term, Term(5));
}

#[test]
fn i14_a_newer_member_leads_a_server_that_has_not_heard_of_it() {
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(peer(4));
    solo.hear(link, &Frame::Peer(heartbeat(5)));
    assert_eq!(solo.engine.status(solo.now).leader, Some(ServerId(4)));
}

#[test]
fn i14_a_newer_member_is_answered_where_it_asks() {
    let mut solo = Solo::member(3);
    let answers = |solo: &Solo, link| {
        let reply = |frame: &Frame| matches!(frame, Frame::Peer(PeerMessage::AppendEntriesReply(_)));
        solo.sent(link).iter().filter(|frame| reply(frame)).count()
    };
    let link = solo.greeted_by(peer(4));
    solo.hear(link, &Frame::Peer(heartbeat(5)));
    solo.write();
    assert_eq!(answers(&solo, link), 1, "nobody has said where server 4 is");
    // One whose place is known is answered there, or not at all.
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(peer(2));
    solo.hear(link, &Frame::Peer(heartbeat(5)));
    solo.write();
    assert_eq!(answers(&solo, link), 0);
    let dialed = solo.dialed(&address(2));
    solo.hear(dialed, &Frame::Hello(peer(2)));
    solo.hear(link, &Frame::Peer(heartbeat(5)));
    assert_eq!((answers(&solo, link), answers(&solo, dialed)), (0, 1));
}

/// Somebody else than the owner says to be server 4, which is not known yet.
fn pretender() -> Hello {
    Hello { incarnation: incarnation(9), boot_nonce: BootNonce(9), ..peer(4) }
}

/// Server 2 leads, and names these members.
fn told(term: u64, members: Configuration) -> Frame {
    let PeerMessage::AppendEntries(append) = heartbeat(term) else { unreachable!("as made") };
    let id = EntryId::new(Term(term), Index(1));
    let entry = Entry {
        id,
        time: ClusterTime(0),
        kind: EntryKind::Configuration,
        payload: codec::to_bytes(&Configuration { index: id.index, ..members }),
    };
    Frame::Peer(PeerMessage::AppendEntries(AppendEntries { entries: vec![entry], ..append }))
}

fn with_a_fourth() -> Configuration {
    let mut next = configuration(4);
    next.members[3].kind = MemberKind::Learner;
    next
}

/// Whoever was let in as a member that is not known yet has to be it when it is.
#[test]
fn i14_a_stranger_under_an_id_that_is_given_later_does_not_speak_for_its_owner() {
    let mut world = World::formed(3);
    let leader = world.leader().expect("one");
    let cluster = world.status(leader).cluster;
    let hello = Hello { cluster, ..pretender() };
    let desks = [0, 1, 2].map(|server| world.desk_of(server, hello.clone()));
    // Now the id is given to somebody else. The strangers answer whatever they are asked.
    let fourth = world.joiner(&[leader]);
    world.start(fourth);
    for _ in 0..2_000 {
        for (server, link, frame) in core::mem::take(&mut world.heard) {
            let desk = desks.iter().find(|desk| (desk.server, desk.link) == (server, link));
            if let (Some(desk), Ok(Frame::Ping(token))) = (desk, Frame::decode(&frame)) {
                world.say(*desk, &Frame::Pong(token));
            }
        }
        world.run(Duration::from_millis(5));
    }
    assert_eq!(world.servers[fourth].stopped, None, "the owner was sent away as a duplicate");
    assert!(world.agree(&[0, 1, 2, 3], &[1, 2, 3, 4]), "{}", world.describe());
}

#[test]
fn i14_nothing_of_a_stranger_counts_from_the_entry_on_that_names_the_owner() {
    let mut solo = Solo::member(3);
    let stranger = solo.greeted_by(pretender());
    let member = solo.greeted_by(peer(2));
    // Both at once: before anything else is done about the entry.
    let owner = solo.accept();
    let frames = [
        (member, told(1, with_a_fourth())),
        (owner, Frame::Hello(peer(4))),
        (stranger, Frame::Peer(heartbeat(9))),
    ];
    for (link, frame) in frames {
        solo.engine.step(solo.now, Input::Frame(link, frame.encode(GroupId::DEFAULT)));
    }
    solo.step(Input::Tick);
    assert_eq!((solo.engine.status(solo.now).term, solo.engine.status(solo.now).members.len()), (Term(1), 4));
    assert!(solo.is_closed(stranger) && !solo.is_closed(member));
    assert!(matches!(&solo.sent(owner)[..], [Frame::Hello(_)]), "{:?}", solo.sent(owner));
    // And one that says nothing more keeps no place.
    let mut solo = Solo::member(3);
    let stranger = solo.greeted_by(pretender());
    let member = solo.greeted_by(peer(2));
    solo.hear(member, &told(1, with_a_fourth()));
    assert!(solo.is_closed(stranger));
    let owner = solo.greeted_by(peer(4));
    assert!(matches!(&solo.sent(owner)[..], [Frame::Hello(_)]), "{:?}", solo.sent(owner));
}

/// A server that is not known yet answers where a member should. It may be that one's successor, and may be a stray.
#[test]
fn i5_a_server_that_turns_out_to_be_elsewhere_is_not_reached() {
    for (place, stays) in [(2, true), (4, false)] {
        let mut solo = Solo::member(3);
        let dialed = solo.dialed(&address(2));
        solo.hear(dialed, &Frame::Hello(peer(4)));
        assert!(!solo.is_closed(dialed), "nobody knows better");
        let member = solo.greeted_by(peer(2));
        let mut next = with_a_fourth();
        next.members[3].peer_address = address(place);
        solo.hear(member, &told(1, next));
        assert_eq!(!solo.is_closed(dialed), stays, "at {place}");
    }
}

/// Until the configuration is known here nobody can say which of two directories has an id: the later one may try again.
#[test]
fn i5_of_two_directories_under_an_unknown_id_none_is_a_duplicate() {
    let contested = || {
        let mut solo = Solo::member(3);
        let stranger = solo.greeted_by(pretender());
        let owner = solo.greeted_by(peer(4));
        let probe = solo.sent(stranger).into_iter().find_map(|frame| match frame {
            Frame::Ping(token) => Some(token),
            _ => None,
        });
        (solo, stranger, owner, probe.expect("a probe"))
    };
    let (mut solo, stranger, owner, probe) = contested();
    solo.hear(stranger, &Frame::Pong(probe));
    let [Frame::Refusal(refusal)] = &solo.sent(owner)[..] else { panic!("{:?}", solo.sent(owner)) };
    assert_eq!((refusal.reason, solo.engine.marks().duplicate_refused), (RefusalReason::NotAMember, 0));
    // Which it is comes to be known while one waits: the other goes, whichever that is.
    let (mut solo, stranger, owner, _) = contested();
    let member = solo.greeted_by(peer(2));
    solo.hear(member, &told(1, with_a_fourth()));
    assert!(matches!(&solo.sent(owner)[..], [Frame::Hello(_), ..]) && solo.is_closed(stranger));
    let (mut solo, stranger, owner, _) = contested();
    let member = solo.greeted_by(peer(2));
    let mut next = with_a_fourth();
    next.members[3].incarnation = incarnation(9);
    solo.hear(member, &told(1, next));
    assert!(solo.is_closed(owner) && !solo.is_closed(stranger));
}

/// Two clusters of three. Server 3 of the first is gone, and server 3 of the second answers at its address.
#[test]
fn n12_another_cluster_at_a_members_address_is_refused_both_ways() {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let mut other = World::new(3).seeded(1);
    other.start_all();
    other.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let (ours, theirs) = (world.status(0).cluster, other.status(0).cluster);
    assert_ne!(ours, theirs);
    world.crash(2);
    world.until("another leader", |world| world.leader().is_some_and(|leader| leader != 2));
    let term = world.status(0).term;
    world.servers[2].disk = other.servers[2].disk.clone();
    // It does not know where its own are: the same addresses, here, are those of the first.
    world.start(2);
    world.run(Duration::from_secs(10));
    for server in [0, 1] {
        assert_eq!((world.status(server).cluster, world.status(server).term), (ours, term));
        assert!(world.servers[server].stopped.is_none());
        assert!(world.status(server).counters.frames_refused > 0);
    }
    assert!(world.servers[2].stopped.is_some(), "it is in the wrong place");
    assert_eq!(world.write(client, "b"), "2");
}

#[test]
fn n12_a_client_of_another_cluster_is_refused() {
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(client(Some(ClusterId(8))));
    let [Frame::Refusal(refusal)] = &solo.sent(link)[..] else { panic!("{:?}", solo.sent(link)) };
    assert_eq!(refusal.reason, RefusalReason::ForeignCluster);
}

#[test]
fn i5_links_to_a_removed_server_close_when_it_had_its_time() {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).votes));
    let leader = world.leader().expect("one");
    let victim = (leader + 1) % 3;
    let id = world.id(victim);
    world.changed(|change| change.remove = vec![id]);
    world.until("its end", |world| world.status(victim).role == "removed");
    world.run(Duration::from_secs(20));
    let left = world.links_between(leader, victim);
    assert_eq!(left, 0, "{}", world.describe());
    assert!(world.links_between(leader, (leader + 2) % 3) > 0);
}

/// A configuration reaches server 1 and is taken back: the links follow both times.
#[test]
fn m5_links_follow_a_configuration_that_is_taken_back() {
    let mut solo = Solo::member(3);
    let mut next = configuration(4);
    next.members[3].kind = MemberKind::Learner;
    let dials = |solo: &Solo| {
        let to = |output: &&Output| matches!(output, Output::Dial(_, to) if *to == address(4));
        solo.outputs.iter().filter(to).count()
    };
    let entry = |term: u64, kind, payload| Entry {
        id: EntryId::new(Term(term), Index(1)),
        time: ClusterTime(0),
        kind,
        payload,
    };
    let append = |term: u64, entry| {
        let PeerMessage::AppendEntries(append) = heartbeat(term) else { unreachable!("as made") };
        Frame::Peer(PeerMessage::AppendEntries(AppendEntries { entries: vec![entry], ..append }))
    };
    let link = solo.greeted_by(peer(2));
    let payload = codec::to_bytes(&next);
    solo.hear(link, &append(1, entry(1, EntryKind::Configuration, payload)));
    solo.write();
    assert_eq!((solo.engine.status(solo.now).members.len(), dials(&solo)), (4, 1));
    let link = solo.greeted_by(peer(3));
    solo.hear(link, &append(2, entry(2, EntryKind::NoOp, Bytes::new())));
    solo.write();
    assert_eq!(solo.engine.status(solo.now).members.len(), 3);
    solo.outputs.clear();
    solo.wait(Duration::from_secs(5));
    assert_eq!(dials(&solo), 0);
}
