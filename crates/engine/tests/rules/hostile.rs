//! Whatever comes on a link, in whatever state: the worst is that the link dies.

use std::time::Duration;

use atomix_engine::{Input, Output};
use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::client::{Attach, ClientRequest, ClientResponse, Consistency, KeepAlive, QueryHeader};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, Refusal, RefusalReason};
use atomix_protocol::peer::{
    AppendEntries, AppendEntriesReply, AppendOutcome, InstallOutcome, InstallSnapshotReply, PeerMessage,
    PreVote, PreVoteReply, RequestVote, RequestVoteReply, TimeoutNow,
};
use atomix_protocol::{
    BootNonce, ClusterTime, Configuration, EntryId, GroupId, Index, LinkId, Round, Sequence, ServerId,
    SessionId, SessionKey, Term,
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::solo::{Solo, address, client, command, configuration, incarnation, leader, open, peer};

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
            time: ClusterTime(b),
            promise_ms: 0,
            round: Round(a),
            entries: Vec::new(),
        }),
        PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: Term(a),
            round: Round(b),
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
