//! D5 with a disk that has failed: leadership goes first, then all of it, and the server says why.

use std::time::Duration;

use atomix_engine::{ChunkOutcome, Input, Notice, Output};
use atomix_protocol::client::{
    Attach, ClientRequest, ClientResponse, Consistency, ManageAction, ManageOutcome, NotAnswered, QueryHeader,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::RefusalReason;
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::status::Status;
use atomix_protocol::{ClusterTime, EntryId, Index, LinkId, Sequence, ServerId, Term};
use bytes::Bytes;

use crate::solo::{self, KEY, Solo, client, command, peer};
use crate::world::World;

const WHY: &str = "sync of log segment 7: Input/output error";

fn fail(world: &mut World, server: usize) {
    world.step(server, Input::DiskFailed(WHY.into()));
}

fn formed() -> World {
    let mut world = World::formed(3);
    world.until("one cluster", |world| (0..3).all(|server| world.status(server).leader.is_some()));
    world.run(Duration::from_secs(1));
    world
}

#[test]
fn d5_a_leader_whose_disk_fails_gives_leadership_away_first() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = world.leader().expect("one");
    let (term, start) = (world.status(leader).term, world.now);
    for line in ["b", "c", "d"] {
        world.submit(client, line);
    }
    fail(&mut world, leader);
    world.until("another", |world| world.leader().is_some());
    assert!(world.now.since(start) < Duration::from_millis(20), "nobody waited for a timeout");
    let next = world.leader().expect("just seen");
    assert_eq!(world.status(next).term, term.next(), "one election");
    let told = world.servers[leader].notices.iter().find_map(|notice| match notice {
        Notice::Failed { why, told } => Some((why.clone(), *told)),
        _ => None,
    });
    assert_eq!(told, Some((WHY.into(), Some(world.id(next)))));
    assert_eq!(world.write(client, "e"), "5");
    assert_eq!(world.lines(next), "a,b,c,d,e");
    let status = world.status(leader);
    assert_eq!((status.role.as_str(), status.votes, status.leader), ("failed", false, None));
    assert!(status.notice.contains(WHY), "{}", status.notice);
    assert_eq!(status.server, Some(ServerId(leader as u64 + 1)));
}

#[test]
fn d5_a_follower_whose_disk_fails_is_as_good_as_gone_and_comes_back_when_it_is_started() {
    let mut world = formed();
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = world.leader().expect("one");
    let (failed, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let elections =
        |world: &World| world.status(leader).counters.elections + world.status(other).counters.elections;
    let before = elections(&world);
    fail(&mut world, failed);
    for number in 2..20 {
        assert_eq!(world.write(client, "more"), number.to_string());
        world.run(Duration::from_millis(200));
    }
    assert_eq!((world.leader(), elections(&world)), (Some(leader), before), "nobody minds");
    assert_eq!((world.links_between(failed, leader), world.links_between(failed, other)), (0, 0));
    let refused = world.servers[leader].notices.iter().any(|notice| {
        matches!(notice, Notice::Refused { detail, .. } if detail.contains("the disk of this server has failed"))
    });
    assert!(refused, "whoever dials it learns why");
    world.crash(failed);
    world.start(failed);
    world.until("all of it", |world| world.lines(failed) == world.lines(leader));
}

/// A client of the failed server that says this, and what it is told.
fn asked(world: &mut World, server: usize, request: ClientRequest) -> Vec<ClientResponse> {
    let desk = world.desk(server);
    world.say(desk, &Frame::Request(request));
    let heard = world.heard.iter().filter(|(at, link, _)| (*at, *link) == (server, desk.link));
    let told = heard.filter_map(|(_, _, frame)| match Frame::decode(frame) {
        Ok(Frame::Response(ClientResponse::Servers(_))) => None,
        Ok(Frame::Response(response)) => Some(response),
        _ => None,
    });
    told.collect()
}

#[test]
fn d5_a_failed_server_answers_what_it_is_and_sends_everybody_else_away() {
    let mut world = formed();
    let client = world.client(None);
    let session = world.session(client);
    let leader = world.leader().expect("one");
    fail(&mut world, leader);
    let heir = world.servers[leader].notices.iter().find_map(|notice| match notice {
        Notice::Failed { told, .. } => *told,
        _ => None,
    });
    let there = Some(world.servers[heir.expect("an heir").0 as usize - 1].address.clone());
    let told = asked(&mut world, leader, ClientRequest::Status);
    assert!(matches!(&told[..], [ClientResponse::Status(status)] if status.role == "failed"), "{told:?}");
    let attach =
        |read_only| ClientRequest::Attach(Attach { session, key: KEY, last_event: Index::ZERO, read_only });
    for request in [ClientRequest::Open(solo::open(1)), attach(false), attach(true)] {
        let told = asked(&mut world, leader, request.clone());
        assert!(
            matches!(&told[..], [ClientResponse::NotLeader { leader, .. }] if *leader == there),
            "{request:?}: {told:?}"
        );
    }
    let desk = world.desk(leader);
    let outcome = world.ordered(desk, 1, ManageAction::Transfer(None));
    assert!(matches!(outcome, ManageOutcome::TransferRefused(_)), "{outcome:?}");
    assert_eq!(world.write(client, "a"), "1", "and they find their way");
}

#[test]
fn d5_operators_do_not_wait_for_a_failed_leader() {
    let mut world = formed();
    let leader = world.leader().expect("one");
    let removed = world.id((leader + 1) % 3);
    for other in 1..3 {
        world.cut(leader, (leader + other) % 3);
    }
    let (_, change) = world.change_at_leader(|change| change.remove = vec![removed]);
    let desk = world.desk(leader);
    world.order(desk, 1, ManageAction::Change(change));
    assert_eq!(world.outcome(desk, 1), None);
    fail(&mut world, leader);
    assert_eq!(world.outcome(desk, 1), Some(ManageOutcome::Unknown));
    world.heal();
    world.until("another leader", |world| world.leader().is_some());
}

fn for_the_disk(outputs: &[Output]) -> Vec<String> {
    let others = |output: &&Output| {
        !matches!(
            output,
            Output::Dial(..)
                | Output::Send(..)
                | Output::Close(_)
                | Output::Notice(_)
                | Output::Answer { .. }
        )
    };
    outputs.iter().filter(others).map(|output| format!("{output:?}")).collect()
}

fn status(solo: &mut Solo, link: LinkId) -> Status {
    solo.ask(link, ClientRequest::Status);
    match solo.told(link).pop() {
        Some(ClientResponse::Status(status)) => *status,
        other => panic!("{other:?}"),
    }
}

/// Whatever comes, from the world or late from its own threads.
#[test]
fn d5_nothing_is_asked_of_a_failed_disk_again() {
    let (mut solo, link, session) = solo::leader();
    let asker = solo.greeted_by(client(None));
    // In one turn: what was asked of the disk just before is taken back.
    let body = command(session, 1).encode(atomix_protocol::GroupId::DEFAULT);
    solo.engine.step(solo.now, Input::Frame(link, body));
    solo.outputs.clear();
    solo.step(Input::DiskFailed(WHY.into()));
    solo.hear(link, &command(session, 2));
    let meta = SnapshotMeta {
        last: EntryId::new(Term(1), Index(1)),
        time: ClusterTime(0),
        configuration: solo::configuration(1),
        size: 0,
        checksum: 0,
    };
    for input in [
        Input::Tick,
        Input::Written(1),
        Input::Written(2),
        Input::Fetched { to: ServerId(2), from: Index(1), entries: None },
        Input::SnapshotTaken(meta.clone()),
        Input::Published(meta.last),
        Input::ChunkRead { to: ServerId(2), last: meta.last, offset: 0, data: None },
        Input::ChunkWritten { last: meta.last, outcome: ChunkOutcome::Whole },
        Input::SnapshotLoaded(meta.last, Bytes::new()),
        Input::HandOver,
        Input::Room(false),
        Input::Room(true),
        Input::DiskFailed("another".into()),
    ] {
        solo.step(input);
    }
    solo.wait(Duration::from_secs(30));
    assert_eq!(for_the_disk(&solo.outputs), [""; 0]);
    assert!(!solo.engine.is_handing_over());
    let status = status(&mut solo, asker);
    assert_eq!((status.role.as_str(), status.term), ("failed", Term(1)));
    assert!(status.notice.contains(WHY), "the first reason counts: {}", status.notice);
}

#[test]
fn d5_a_failed_server_speaks_to_no_other() {
    let mut solo = Solo::member(3);
    let before = solo.greeted_by(peer(2));
    let dialed = solo.dialed(&solo::address(2));
    solo.hear(dialed, &Frame::Hello(peer(2)));
    solo.step(Input::DiskFailed(WHY.into()));
    assert!(solo.is_closed(before) && solo.is_closed(dialed));
    solo.outputs.clear();
    solo.wait(Duration::from_secs(30));
    assert!(!solo.outputs.iter().any(|output| matches!(output, Output::Dial(..))));
    for hello in
        [peer(2), peer(9), atomix_protocol::handshake::Hello { cluster: None, server: None, ..peer(2) }]
    {
        let link = solo.greeted_by(hello);
        let sent = solo.sent(link);
        assert!(
            matches!(&sent[..], [Frame::Refusal(refusal)] if refusal.reason == RefusalReason::Busy),
            "{sent:?}"
        );
        assert!(solo.is_closed(link));
    }
}

/// Who reads here is sent away too, whatever the read would be content with.
#[test]
fn d5_reads_of_a_failed_server_go_elsewhere() {
    let (mut solo, link, session) = solo::leader();
    let reader = solo.greeted_by(client(None));
    let attach = Attach { session, key: KEY, last_event: Index::ZERO, read_only: true };
    solo.ask(reader, ClientRequest::Attach(attach));
    // It waits for an index that is not there.
    let header = QueryHeader {
        ticket: 5,
        consistency: Consistency::Causal,
        after_index: Index(1_000),
        after_sequence: Sequence::ZERO,
    };
    solo.ask(reader, ClientRequest::Query(header, Bytes::new()));
    solo.step(Input::DiskFailed(WHY.into()));
    let redirected = ClientResponse::NotAnswered { ticket: 5, reason: NotAnswered::Redirect(None) };
    assert!(solo.told(reader).contains(&redirected), "{:?}", solo.told(reader));
    assert!(solo.is_closed(reader) && solo.is_closed(link));
    let left = solo.told(link);
    assert!(matches!(left.last(), Some(ClientResponse::NotLeader { leader: None, .. })), "{left:?}");
}

#[test]
fn d5_a_disk_may_fail_before_there_is_a_cluster() {
    for mut solo in [Solo::empty(3), Solo::recovered(atomix_engine::Recovered::default(), vec![])] {
        solo.step(Input::DiskFailed(WHY.into()));
        solo.outputs.clear();
        solo.wait(Duration::from_secs(5));
        let link = solo.greeted_by(client(None));
        let status = status(&mut solo, link);
        assert_eq!((status.role.as_str(), status.server), ("failed", None));
        assert_eq!(for_the_disk(&solo.outputs), [""; 0]);
    }
}
