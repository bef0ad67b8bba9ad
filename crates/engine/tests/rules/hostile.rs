//! Whatever comes on a link, in whatever state: the worst is that the link dies.

use std::time::Duration;

use atomix_engine::{Input, Output};
use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::change::{ChangeRefused, NewMember};
use atomix_protocol::client::{
    Attach, ClientRequest, ClientResponse, Consistency, KeepAlive, Manage, ManageAction, ManageOutcome,
    QueryHeader,
};
use atomix_protocol::codec::{self, Frame};
use atomix_protocol::handshake::{Hello, Refusal, RefusalReason, Role};
use atomix_protocol::peer::{
    AppendEntries, AppendEntriesReply, AppendOutcome, InstallOutcome, InstallSnapshotReply, PeerMessage,
    PreVote, PreVoteReply, RequestVote, RequestVoteReply, TimeoutNow,
};
use atomix_protocol::{
    Address, BootNonce, ClusterTime, Configuration, EntryId, GroupId, Incarnation, Index, LinkId, Member,
    MemberKind, Round, Sequence, ServerId, SessionId, SessionKey, Term, limits,
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::solo::{Solo, address, client, command, configuration, incarnation, leader, open, peer};
use crate::world::World;

fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

fn peer_messages(a: u64, b: u64) -> Vec<PeerMessage> {
    vec![
        PeerMessage::PreVote(PreVote { term: Term(a), last: id(a, b) }),
        PeerMessage::PreVoteReply(PreVoteReply {
            asked: Term(a),
            granted: true,
            current: Term(b),
            sticky: false,
        }),
        PeerMessage::RequestVote(RequestVote { term: Term(a), last: id(b, a), transfer: None }),
        PeerMessage::RequestVoteReply(RequestVoteReply { asked: Term(b), term: Term(a), granted: true }),
        PeerMessage::TimeoutNow(TimeoutNow { term: Term(a), round: Round(b) }),
        PeerMessage::AppendEntries(AppendEntries {
            term: Term(a),
            prev: id(b, a),
            leader_commit: Index::ZERO,
            last_index: Index(0),
            time: ClusterTime(b),
            promise_ms: 0,
            round: Round(a),
            entries: Vec::new(),
        }),
        PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: Term(a),
            round: Round(b),
            room: true,
            abstains: false,
            outcome: AppendOutcome::Durable(Index(b)),
        }),
        PeerMessage::InstallSnapshotReply(InstallSnapshotReply {
            term: Term(a),
            round: Round(b),
            last: id(a, b),
            outcome: InstallOutcome::Next(b),
        }),
    ]
}

fn frames(a: u64, b: u64) -> Vec<Frame> {
    let session = SessionId(a);
    let ticket = QueryHeader {
        ticket: b,
        consistency: Consistency::Causal,
        after_index: Index(b),
        after_sequence: Sequence(a),
    };
    let attach = |read_only| Attach { session, key: SessionKey(6), last_event: Index(b), read_only };
    let configuration = Configuration { next_server_id: a, ..configuration(b % 9) };
    let mut frames = vec![
        Frame::Ping(a),
        Frame::Pong(a),
        Frame::Hello(peer(a % 4)),
        Frame::Hello(Hello { boot_nonce: BootNonce(b), ..peer(a % 4) }),
        Frame::Hello(client(None)),
        Frame::Refusal(Refusal { reason: RefusalReason::ForeignCluster, detail: "no".into() }),
        Frame::Bootstrap(BootstrapMessage::Probe { address: address(1) }),
        Frame::Bootstrap(BootstrapMessage::Report {
            address: address(2),
            incarnation: incarnation(b % 4),
            configuration: (a.is_multiple_of(2)).then(|| configuration.clone()),
        }),
        Frame::Bootstrap(BootstrapMessage::Form { configuration }),
        Frame::Bootstrap(BootstrapMessage::Formed { incarnation: incarnation(2) }),
        Frame::Request(ClientRequest::Open(open(1))),
        Frame::Request(ClientRequest::Attach(attach(false))),
        Frame::Request(ClientRequest::Attach(attach(true))),
        Frame::Request(ClientRequest::Command(Bytes::from_static(b"\x02nonsense"))),
        Frame::Request(ClientRequest::Query(ticket, Bytes::new())),
        Frame::Request(ClientRequest::KeepAlive(KeepAlive {
            contact: a,
            acknowledged_event: Index(b),
            lowest_unanswered: Sequence(b),
        })),
        Frame::Request(ClientRequest::Acknowledge { event: Index(a) }),
        Frame::Request(ClientRequest::Close),
        Frame::Request(ClientRequest::Status),
        Frame::Response(ClientResponse::Confirmed { contact: a }),
        Frame::Response(ClientResponse::NotLeader { leader: None, term: Term(a) }),
        command(session, b),
        command(SessionId(2), b),
    ];
    frames.extend(peer_messages(a, b).into_iter().map(Frame::Peer));
    frames
}

fn solo_in(state: u8) -> (Solo, LinkId) {
    match state {
        0 => {
            let mut solo = Solo::member(3);
            let link = solo.accept();
            (solo, link)
        }
        1 => {
            let mut solo = Solo::member(3);
            let link = solo.dialed(&address(2));
            (solo, link)
        }
        2 => {
            let mut solo = Solo::member(3);
            let link = solo.greeted_by(peer(2));
            (solo, link)
        }
        3 => {
            let mut solo = Solo::member(3);
            let link = solo.dialed(&address(2));
            solo.hear(link, &Frame::Hello(peer(2)));
            (solo, link)
        }
        4 => {
            let mut solo = Solo::member(3);
            solo.greeted_by(peer(2));
            let link = solo.greeted_by(Hello { boot_nonce: BootNonce(77), ..peer(2) });
            (solo, link)
        }
        5 => {
            let mut solo = Solo::empty(3);
            let link = solo.greeted_by(Hello { cluster: None, server: None, ..peer(2) });
            (solo, link)
        }
        6 => {
            let mut solo = Solo::empty(3);
            let link = solo.dialed(&address(2));
            solo.hear(link, &Frame::Hello(Hello { cluster: None, server: None, ..peer(2) }));
            (solo, link)
        }
        7 => {
            let mut solo = Solo::member(3);
            let link = solo.greeted_by(client(None));
            (solo, link)
        }
        _ => {
            let (solo, link, _) = leader();
            (solo, link)
        }
    }
}

const STATES: u8 = 9;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_never_panic(state in 0..STATES, bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..8)) {
        let (mut solo, link) = solo_in(state);
        for bytes in bytes {
            solo.hear_bytes(link, &bytes);
        }
        solo.write();
        solo.wait(Duration::from_secs(2));
    }

    #[test]
    fn broken_frames_never_panic(state in 0..STATES, which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let (mut solo, link) = solo_in(state);
        let frames = frames(2, 1);
        let mut bytes = which.get(&frames).encode(GroupId::DEFAULT).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        solo.hear_bytes(link, &bytes);
        solo.write();
        solo.wait(Duration::from_secs(2));
    }

    #[test]
    fn valid_frames_where_they_do_not_belong_never_panic(
        state in 0..STATES,
        // Terms and indexes that no member ever names would be a member's broken invariant, not a stranger's frame.
        frames in prop::collection::vec((any::<prop::sample::Index>(), 0u64..6, 0u64..6), 1..12),
    ) {
        let (mut solo, link) = solo_in(state);
        for (which, a, b) in frames {
            let all = self::frames(a, b);
            solo.hear(link, which.get(&all));
            solo.write();
        }
        solo.wait(Duration::from_secs(2));
    }
}

#[test]
fn a_frame_that_does_not_belong_closes_its_link_and_no_other() {
    let (mut solo, good, session) = leader();
    let wrong = [
        Frame::Hello(client(None)),
        Frame::Peer(PeerMessage::TimeoutNow(TimeoutNow { term: Term(9), round: Round(9) })),
        Frame::Bootstrap(BootstrapMessage::Probe { address: address(1) }),
        Frame::Response(ClientResponse::Confirmed { contact: 1 }),
        Frame::Refusal(Refusal { reason: RefusalReason::DuplicateIdentity, detail: String::new() }),
    ];
    for (count, frame) in (1..).zip(wrong) {
        let link = solo.greeted_by(client(None));
        solo.hear(link, &frame);
        assert!(solo.is_closed(link), "{frame:?}");
        assert_eq!(solo.engine.status(solo.now).counters.frames_refused, count);
    }
    solo.hear(good, &command(session, 1));
    solo.write();
    assert!(
        matches!(solo.sent(good).last(), Some(Frame::Response(ClientResponse::Reply(header, _))) if header.sequence == Sequence(1))
    );
}

#[test]
fn a_command_of_another_session_is_refused() {
    let (mut solo, link, session) = leader();
    solo.hear(link, &command(SessionId(session.0 + 1), 1));
    assert!(matches!(solo.sent(link).last(), Some(Frame::Response(ClientResponse::Refused { .. }))));
    assert!(solo.is_closed(link));
}

#[test]
fn consensus_passes_between_members_only() {
    let vote = Frame::Peer(PeerMessage::RequestVoteReply(RequestVoteReply {
        asked: Term(1),
        term: Term(1),
        granted: true,
    }));
    for state in [2, 3] {
        let (mut solo, link) = solo_in(state);
        solo.hear(link, &vote);
        assert!(!solo.is_closed(link), "state {state}");
    }
    for state in [5, 7] {
        let (mut solo, link) = solo_in(state);
        solo.hear(link, &vote);
        assert!(solo.is_closed(link), "state {state}");
    }
}

#[test]
fn a_configuration_that_can_not_be_is_not_taken() {
    let sound = Configuration { members: configuration(3).members, ..configuration(3) };
    let mut bad: Vec<Configuration> = vec![
        Configuration { next_server_id: 3, ..sound.clone() },
        Configuration { outgoing_voters: Some(vec![ServerId(1)]), ..sound.clone() },
    ];
    let mut twice = sound.clone();
    twice.members[1].incarnation = incarnation(1);
    bad.push(twice);
    let mut unordered = sound.clone();
    unordered.members.swap(0, 1);
    bad.push(unordered);
    bad.push(Configuration { next_server_id: 10, ..configuration(8) });
    bad.push(Configuration { index: Index(u64::MAX), ..sound.clone() });
    bad.push(Configuration { next_server_id: u64::MAX, ..sound.clone() });
    let altered = |alter: &dyn Fn(&mut Member)| {
        let mut altered = sound.clone();
        alter(&mut altered.members[1]);
        altered
    };
    bad.push(altered(&|member| member.kind = MemberKind::Leaving));
    bad.push(altered(&|member| member.peer_address = Address::new("x".repeat(513))));
    bad.push(altered(&|member| member.client_address = Address::new("x".repeat(513))));
    let mut many = Configuration { next_server_id: 66, ..configuration(65) };
    many.members[3..].iter_mut().for_each(|member| member.kind = MemberKind::Learner);
    bad.push(many);
    for configuration in bad {
        let (mut solo, link) = solo_in(5);
        solo.hear(link, &Frame::Bootstrap(BootstrapMessage::Form { configuration: configuration.clone() }));
        assert!(!solo.outputs.iter().any(|output| matches!(output, Output::Write(..))), "{configuration:?}");
    }
    let (mut solo, link) = solo_in(5);
    solo.hear(link, &Frame::Bootstrap(BootstrapMessage::Form { configuration: sound }));
    assert!(solo.engine.raft().is_none(), "not before it is durable");
    solo.write();
    assert!(solo.engine.raft().is_some());
    assert!(matches!(solo.sent(link).last(), Some(Frame::Bootstrap(BootstrapMessage::Formed { .. }))));
}

#[test]
fn inputs_for_links_that_are_gone_change_nothing() {
    let mut solo = Solo::member(3);
    for link in [LinkId(0), LinkId(5_000)] {
        solo.step(Input::Dialed(link));
        solo.step(Input::Closed(link));
        solo.hear(link, &Frame::Ping(1));
        assert_eq!(solo.sent(link), []);
    }
}

/// A learner at an address as long as a frame lets it be.
fn newcomer_as_long_as_a_frame() -> NewMember {
    NewMember {
        incarnation: Incarnation(77),
        peer_address: Address::new("x".repeat(limits::FRAME_BYTES - 200)),
        client_address: Address::new("y"),
        kind: MemberKind::Learner,
        priority: 0,
    }
}

/// One frame of any client must not make an entry that fits in no frame any more: no follower could ever get it.
#[test]
fn r7_no_client_makes_a_configuration_that_no_frame_can_carry() {
    let mut world = World::formed(3);
    let add = newcomer_as_long_as_a_frame();
    let (leader, change) = world.change_at_leader(|change| change.add = vec![add.clone()]);
    let manage = Manage { ticket: 1, action: ManageAction::Change(change.clone()) };
    let frame = Frame::Request(ClientRequest::Manage(manage)).encode(GroupId::DEFAULT);
    assert!(frame.len() <= limits::FRAME_BYTES, "transports let it in: {}", frame.len());
    let bytes = u32::try_from(add.peer_address.as_str().len()).expect("a few");
    let too_long = ChangeRefused::AddressTooLong(bytes);
    let desk = world.desk(leader);
    let refused = world.ordered(desk, 1, ManageAction::Change(change.clone()));
    assert_eq!(refused, ManageOutcome::ChangeRefused(too_long.clone()));
    let ManageOutcome::Planned(plan) = world.ordered(desk, 2, ManageAction::Plan(change)) else {
        panic!("a plan")
    };
    assert_eq!(plan.refused, Some(too_long));
}

/// The same from a stranger that asks to be taken in.
#[test]
fn r7_no_stranger_makes_a_configuration_that_no_frame_can_carry() {
    let mut world = World::formed(3);
    let leader = world.leader().expect("one");
    let wish = newcomer_as_long_as_a_frame();
    let long_for_clients =
        NewMember { peer_address: "y".into(), client_address: wish.peer_address.clone(), ..wish.clone() };
    for wish in [wish, long_for_clients] {
        let hello =
            Hello { role: Role::Peer, incarnation: wish.incarnation, ..Hello::of_client(None, BootNonce(7)) };
        let desk = world.desk_of(leader, hello);
        let frame = Frame::Bootstrap(BootstrapMessage::Join(wish));
        assert!(frame.encode(GroupId::DEFAULT).len() <= limits::FRAME_BYTES);
        world.say(desk, &frame);
        world.run(Duration::from_secs(1));
        assert_eq!((world.status(leader).members.len(), world.engine(leader).marks().joins), (3, 0));
    }
    for notice in &world.servers[leader].notices {
        assert!(format!("{notice:?}").len() < 1_000, "it is not repeated");
    }
}

/// With as many members as there may be, each at addresses as long as they may be.
#[test]
fn r7_members_are_limited_and_fit_in_a_frame_with_all_that_goes_with_them() {
    let mut world = World::formed(3);
    let new = |number: usize| {
        let address = Address::new(format!("{number:0>512}"));
        NewMember {
            incarnation: Incarnation(1_000 + number as u128),
            peer_address: address.clone(),
            client_address: address,
            kind: MemberKind::Learner,
            priority: 0,
        }
    };
    let add = |world: &mut World, numbers: core::ops::Range<usize>| {
        let (leader, change) =
            world.change_at_leader(|change| change.add = numbers.clone().map(new).collect());
        let desk = world.desk(leader);
        world.ordered(desk, 1, ManageAction::Change(change))
    };
    let too_many = |members| ManageOutcome::ChangeRefused(ChangeRefused::Members(members));
    assert_eq!(add(&mut world, 0..2_000), too_many(2_003));
    assert_eq!(add(&mut world, 0..62), too_many(65));
    let ManageOutcome::Changed(configuration) = add(&mut world, 0..61) else { panic!("there is room") };
    assert_eq!(configuration.members.len(), limits::MEMBERS);
    let bytes = codec::to_bytes(&configuration).len();
    assert!(bytes + limits::SNAPSHOT_CHUNK_BYTES + 1_000 < limits::FRAME_BYTES, "{bytes}");
    assert_eq!(add(&mut world, 61..62), too_many(65));
}

#[test]
fn m3_what_servers_say_of_their_binaries_is_limited() {
    let kinds = |count: usize, length: usize| {
        Frame::Kinds((0..count).map(|kind| (format!("{kind:0>length$}"), 1)).collect())
    };
    for (said, goes_on) in [(kinds(1_024, 512), true), (kinds(1_025, 4), false), (kinds(1, 513), false)] {
        let mut solo = Solo::member(3);
        let link = solo.greeted_by(peer(2));
        solo.hear(link, &said);
        assert_eq!(!solo.is_closed(link), goes_on);
    }
    // Nor is what servers say kept without end that nobody knows; of members it is.
    let mut solo = Solo::member(3);
    let strangers: Vec<LinkId> = (4..100).map(|server| solo.greeted_by(peer(server))).collect();
    for link in &strangers {
        solo.hear(*link, &kinds(1, 1));
    }
    assert_eq!(strangers.iter().filter(|link| !solo.is_closed(**link)).count(), limits::MEMBERS);
    let member = solo.greeted_by(peer(2));
    solo.hear(member, &kinds(1, 1));
    assert!(!solo.is_closed(member));
}
