//! The wire and log formats: golden bytes for every kind of frame and entry, and decoders that are total.
//!
//! A golden text that changes is a broken promise to every server that is not upgraded yet: formats only grow.
//! `UPDATE=1 cargo test -p atomix-protocol --test wire` re-records the texts after a deliberate addition.

mod membership;

use std::fmt::Write as _;

use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::client::{
    AnswerHeader, Attach, Attached, ClientRequest, ClientResponse, Consistency, EndReason, EventHeader,
    KeepAlive, NotAnswered, NotLogged, OpenSession, Opened, QueryHeader, ReplyHeader, ReplyOutcome, Servers,
};
use atomix_protocol::codec::{self, Frame};
use atomix_protocol::envelope::{
    DeleteReply, DeleteResource, Envelope, OpenReply, OpenResource, Operation, OperationStatus, Sharing,
};
use atomix_protocol::handshake::{FEATURE_LEVEL, Hello, MAGIC, Refusal, RefusalReason, Role, VERSIONS};
use atomix_protocol::peer::{
    AppendEntries, AppendEntriesReply, AppendOutcome, InstallOutcome, InstallSnapshot, InstallSnapshotReply,
    PeerMessage, PreVote, PreVoteReply, RequestVote, RequestVoteReply, SnapshotMeta, TimeoutNow,
};
use atomix_protocol::session::{
    Acknowledged, Close, CommandHeader, Expire, Open, Overflow, RaiseLevel, SessionEntry,
};
use atomix_protocol::status::Status;
use atomix_protocol::{
    Address, BootNonce, ClientId, ClusterId, ClusterTime, Configuration, DecodeError, Entry, EntryId,
    EntryKind, GroupId, Incarnation, Index, InstanceId, Member, MemberKind, ResourceId, Round, Sequence,
    ServerId, SessionId, SessionKey, Term,
};
use bytes::Bytes;
use proptest::prelude::*;

const GROUP: GroupId = GroupId::DEFAULT;

fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

fn configuration() -> Configuration {
    Configuration {
        cluster: ClusterId(0xC1),
        index: Index(0),
        members: vec![Member {
            id: ServerId(1),
            incarnation: Incarnation(0xA1),
            peer_address: Address::from("a:1"),
            client_address: Address::from("a:2"),
            kind: MemberKind::Voter,
            priority: 7,
        }],
        outgoing_voters: Some(vec![ServerId(1), ServerId(2)]),
        next_server_id: 3,
    }
}

fn snapshot() -> SnapshotMeta {
    SnapshotMeta {
        last: id(3, 300),
        time: ClusterTime(1_000),
        configuration: configuration(),
        size: 5,
        checksum: 0xDEAD_BEEF,
    }
}

fn vote_messages() -> Vec<(&'static str, PeerMessage)> {
    let (term, round) = (Term(9), Round(8));
    let last = id(3, 300);
    let pre_vote_reply = PreVoteReply { asked: term, granted: true, current: Term(7), sticky: true };
    let vote_reply = RequestVoteReply { term, asked: term, granted: false };
    vec![
        ("pre-vote", PeerMessage::PreVote(PreVote { term, last })),
        ("pre-vote reply", PeerMessage::PreVoteReply(pre_vote_reply)),
        ("request-vote", PeerMessage::RequestVote(RequestVote { term, last, transfer: Some(round) })),
        ("request-vote reply", PeerMessage::RequestVoteReply(vote_reply)),
        ("timeout-now", PeerMessage::TimeoutNow(TimeoutNow { term, round })),
    ]
}

fn append_messages() -> Vec<(&'static str, PeerMessage)> {
    let (term, round, time) = (Term(9), Round(8), ClusterTime(1_234));
    let prev = id(3, 300);
    let entry = |index, kind, payload: &'static [u8]| Entry {
        id: id(4, index),
        time: ClusterTime(index),
        kind,
        payload: Bytes::from_static(payload),
    };
    let entries = vec![
        entry(301, EntryKind::NoOp, b""),
        entry(302, EntryKind::Configuration, b"conf"),
        entry(303, EntryKind::Session, b"payload"),
    ];
    let append = AppendEntries {
        term,
        prev,
        leader_commit: Index(299),
        last_index: Index(310),
        time,
        promise_ms: 250,
        round,
        entries,
    };
    let outcomes = [
        ("append-entries reply, durable", AppendOutcome::Durable(Index(303))),
        ("append-entries reply, mismatch", AppendOutcome::Mismatch { prev, hint: id(2, 200) }),
        ("append-entries reply, stale term", AppendOutcome::StaleTerm),
        ("append-entries reply, unpromised", AppendOutcome::Unpromised),
    ];
    let replies = outcomes.map(|(name, outcome)| {
        (
            name,
            PeerMessage::AppendEntriesReply(AppendEntriesReply {
                term,
                round,
                room: true,
                abstains: false,
                outcome,
            }),
        )
    });
    let mut messages = vec![("append-entries", PeerMessage::AppendEntries(append))];
    messages.extend(replies);
    messages
}

fn snapshot_messages() -> Vec<(&'static str, PeerMessage)> {
    let (term, round, time) = (Term(9), Round(8), ClusterTime(1_234));
    let data = Bytes::from_static(b"chunk");
    let install = InstallSnapshot { term, meta: snapshot(), offset: 128, data, done: true, time, round };
    let outcomes = [
        ("install-snapshot reply, next", InstallOutcome::Next(128)),
        ("install-snapshot reply, installed", InstallOutcome::Installed),
        ("install-snapshot reply, restart", InstallOutcome::Restart),
        ("install-snapshot reply, stale term", InstallOutcome::StaleTerm),
    ];
    let replies = outcomes.map(|(name, outcome)| {
        let reply = InstallSnapshotReply { term, round, last: id(3, 300), outcome };
        (name, PeerMessage::InstallSnapshotReply(reply))
    });
    let mut messages = vec![("install-snapshot", PeerMessage::InstallSnapshot(install))];
    messages.extend(replies);
    messages
}

fn peer_frames() -> Vec<(&'static str, Frame)> {
    let messages = [vote_messages(), append_messages(), snapshot_messages()].concat();
    messages.into_iter().map(|(name, message)| (name, Frame::Peer(message))).collect()
}

fn opening_frames() -> Vec<(&'static str, Frame)> {
    let mut frames = vec![
        (
            "hello",
            Frame::Hello(Hello {
                magic: MAGIC,
                versions: VERSIONS,
                role: Role::Peer,
                cluster: Some(ClusterId(0xC1)),
                group: GROUP,
                server: Some(ServerId(1)),
                incarnation: Incarnation(0xA1),
                boot_nonce: BootNonce(0xB1),
                feature_level: FEATURE_LEVEL,
            }),
        ),
        ("ping", Frame::Ping(5)),
        ("pong", Frame::Pong(5)),
        ("probe", Frame::Bootstrap(BootstrapMessage::Probe { address: Address::from("a:1") })),
        (
            "report",
            Frame::Bootstrap(BootstrapMessage::Report {
                address: Address::from("a:1"),
                incarnation: Incarnation(0xA1),
                configuration: Some(configuration()),
            }),
        ),
        ("form", Frame::Bootstrap(BootstrapMessage::Form { configuration: configuration() })),
        ("formed", Frame::Bootstrap(BootstrapMessage::Formed { incarnation: Incarnation(0xA1) })),
    ];
    let reasons = [
        RefusalReason::Version,
        RefusalReason::ForeignCluster,
        RefusalReason::UnknownGroup,
        RefusalReason::NotAMember,
        RefusalReason::DuplicateIdentity,
        RefusalReason::WrongRole,
        RefusalReason::Busy,
    ];
    for reason in reasons {
        frames.push(("refusal", Frame::Refusal(Refusal { reason, detail: "why".into() })));
    }
    frames
}

fn request_frames() -> Vec<(&'static str, Frame)> {
    let key = SessionKey(0xBEEF);
    let query = |consistency| QueryHeader {
        ticket: 4,
        consistency,
        after_index: Index(300),
        after_sequence: Sequence(12),
    };
    let body = Bytes::from_static(b"body");
    [
        (
            "open",
            ClientRequest::Open(OpenSession { client: ClientId(0xC), attempt: 2, key, timeout_ms: 5_000 }),
        ),
        (
            "attach",
            ClientRequest::Attach(Attach {
                session: SessionId(17),
                key,
                last_event: Index(16),
                read_only: true,
            }),
        ),
        ("command", ClientRequest::Command(body.clone())),
        ("query, linearizable", ClientRequest::Query(query(Consistency::Linearizable), body.clone())),
        ("query, sequential", ClientRequest::Query(query(Consistency::Sequential), body.clone())),
        ("query, causal", ClientRequest::Query(query(Consistency::Causal), body)),
        (
            "keep-alive",
            ClientRequest::KeepAlive(KeepAlive {
                contact: 3,
                acknowledged_event: Index(16),
                lowest_unanswered: Sequence(12),
            }),
        ),
        ("acknowledge", ClientRequest::Acknowledge { event: Index(16) }),
        ("close", ClientRequest::Close),
        ("status", ClientRequest::Status),
    ]
    .into_iter()
    .map(|(name, request)| (name, Frame::Request(request)))
    .collect()
}

fn reply(outcome: ReplyOutcome) -> ReplyHeader {
    ReplyHeader { sequence: Sequence(12), index: Index(300), event_index: Index(16), outcome }
}

fn response_frames() -> Vec<(&'static str, Frame)> {
    let body = Bytes::from_static(b"body");
    let session = SessionId(17);
    let mut responses = vec![
        ("opened", ClientResponse::Opened(Opened { attempt: 2, session, timeout_ms: 5_000 })),
        (
            "attached",
            ClientResponse::Attached(Attached { session, timeout_ms: 5_000, last_sequence: Sequence(11) }),
        ),
        ("reply, applied", ClientResponse::Reply(reply(ReplyOutcome::Applied), body.clone())),
        ("reply, gone", ClientResponse::Reply(reply(ReplyOutcome::ReplyGone), Bytes::new())),
        ("reply, skipped", ClientResponse::Reply(reply(ReplyOutcome::Skipped), Bytes::new())),
        ("gap", ClientResponse::Gap { expected: Sequence(12) }),
        (
            "answer",
            ClientResponse::Answer(
                AnswerHeader { ticket: 4, index: Index(300), event_index: Index(16) },
                body.clone(),
            ),
        ),
        ("confirmed", ClientResponse::Confirmed { contact: 3 }),
        (
            "event",
            ClientResponse::Event(
                EventHeader {
                    index: Index(18),
                    previous: Index(16),
                    atomic: true,
                    bodies: vec![4],
                    parts: vec![(InstanceId(20), 0), (InstanceId(21), 0)],
                },
                body,
            ),
        ),
        ("not leader", ClientResponse::NotLeader { leader: Some(Address::from("a:2")), term: Term(9) }),
        (
            "servers",
            ClientResponse::Servers(Servers {
                configuration: Index(300),
                addresses: vec![Address::from("a:2"), Address::from("b:2")],
            }),
        ),
        ("not leader, nobody known", ClientResponse::NotLeader { leader: None, term: Term(9) }),
        ("status", ClientResponse::Status(Box::new(Status { role: "leader".into(), ..Status::default() }))),
        ("refused", ClientResponse::Refused { detail: "why".into() }),
    ];
    use NotLogged::{Busy, Forbidden, Full, Level, Malformed, TooLarge};
    for reason in [Busy, TooLarge, Forbidden, Malformed, Level, Full] {
        responses.push(("not logged", ClientResponse::NotLogged { sequence: Sequence(12), reason }));
    }
    for reason in
        [NotAnswered::Redirect(Some(Address::from("a:2"))), NotAnswered::TimedOut, NotAnswered::Busy]
    {
        responses.push(("not answered", ClientResponse::NotAnswered { ticket: 4, reason }));
    }
    let ends = [
        EndReason::Expired,
        EndReason::Closed,
        EndReason::Unknown,
        EndReason::TakenOver,
        EndReason::WrongKey,
    ];
    for reason in ends {
        responses.push(("ended", ClientResponse::Ended { session, reason }));
    }
    responses.into_iter().map(|(name, response)| (name, Frame::Response(response))).collect()
}

fn frames() -> Vec<(&'static str, Frame)> {
    let membership = membership::frames(&configuration());
    [opening_frames(), peer_frames(), request_frames(), response_frames(), membership].concat()
}

fn entries() -> Vec<(&'static str, SessionEntry)> {
    let header = CommandHeader {
        session: SessionId(17),
        sequence: Sequence(12),
        lowest_unanswered: Sequence(11),
        acknowledged_event: Index(16),
    };
    let open = Open {
        client: ClientId(0xC),
        attempt: 2,
        key: SessionKey(0xBEEF),
        principal: "ada".into(),
        timeout_ms: 5_000,
    };
    let acknowledged =
        Acknowledged { session: SessionId(17), event: Index(16), lowest_unanswered: Sequence(12) };
    vec![
        ("open", SessionEntry::Open(open)),
        ("command", SessionEntry::Command(header, Bytes::from_static(b"body"))),
        ("skip", SessionEntry::Skip(header)),
        ("close", SessionEntry::Close(Close { session: SessionId(17) })),
        ("expire", SessionEntry::Expire(Expire { session: SessionId(17), decided_in: Term(9) })),
        ("time", SessionEntry::Time),
        ("acknowledge", SessionEntry::Acknowledge(vec![acknowledged])),
        (
            "raise level",
            SessionEntry::RaiseLevel(RaiseLevel { kind: "map".into(), level: 40, decided_in: Term(9) }),
        ),
        ("overflow", SessionEntry::Overflow(Overflow { session: SessionId(17), decided_in: Term(9) })),
    ]
}

fn envelopes() -> Vec<(&'static str, Envelope)> {
    let open = |sharing| OpenResource {
        path: "/users".into(),
        kind: "map".into(),
        configuration: Bytes::from_static(b"conf"),
        sharing,
    };
    let operation = Operation { instance: InstanceId(20), number: 300 };
    vec![
        ("open, shared", Envelope::Open(open(Sharing::Shared))),
        ("open, own", Envelope::Open(open(Sharing::Own))),
        ("operation", Envelope::Operation(operation, Bytes::from_static(b"body"))),
        ("delete", Envelope::Delete(DeleteResource { path: "/users".into(), force: true })),
        ("exists", Envelope::Exists("/users".into())),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn golden_text() -> String {
    let mut text = String::new();
    for (name, frame) in frames() {
        let _ = writeln!(text, "frame {name}: {}", hex(&frame.encode(GROUP)));
    }
    for (name, entry) in entries() {
        let _ = writeln!(text, "entry {name}: {}", hex(&entry.encode()));
    }
    for (name, envelope) in envelopes() {
        let _ = writeln!(text, "envelope {name}: {}", hex(&envelope.encode()));
    }
    let replies = [
        OpenReply::Opened { instance: InstanceId(20), resource: ResourceId(19) },
        OpenReply::WrongKind("lock".into()),
        OpenReply::UnknownKind,
        OpenReply::BadPath,
        OpenReply::BadConfiguration,
    ];
    for reply in replies {
        let _ = writeln!(text, "open reply {reply:?}: {}", hex(&codec::to_bytes(&reply)));
    }
    for reply in [DeleteReply::Deleted, DeleteReply::NotThere, DeleteReply::InUse, DeleteReply::Revoking] {
        let _ = writeln!(text, "delete reply {reply:?}: {}", hex(&codec::to_bytes(&reply)));
    }
    let statuses = [
        OperationStatus::Ok,
        OperationStatus::UnknownInstance,
        OperationStatus::Deleted,
        OperationStatus::UnknownOperation,
        OperationStatus::Malformed,
    ];
    for status in statuses {
        let _ = writeln!(text, "operation status {status:?}: {}", hex(&codec::to_bytes(&status)));
    }
    text
}

#[test]
fn golden_bytes_do_not_change() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire.golden.txt");
    let text = golden_text();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).expect("the golden text can be written");
    }
    let golden = std::fs::read_to_string(path).expect("the golden text is there");
    for (line, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn every_frame_is_read_back() {
    for (name, frame) in frames() {
        assert_eq!(Frame::decode(&frame.encode(GROUP)), Ok(frame), "{name}");
    }
    for (name, entry) in entries() {
        assert_eq!(SessionEntry::decode(&entry.encode()), Ok(entry), "{name}");
    }
    for (name, envelope) in envelopes() {
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope), "{name}");
    }
}

#[test]
fn a_cut_frame_is_refused_or_another_tail() {
    for (name, frame) in frames() {
        let bytes = frame.encode(GROUP);
        for length in 0..bytes.len() {
            // A frame with an opaque tail stays readable when the tail is cut: lengths are the transport's to keep.
            if let Ok(read) = Frame::decode(&bytes.slice(..length)) {
                assert_ne!(read, frame, "{name} cut at {length}");
            }
        }
    }
}

#[test]
fn left_over_bytes_are_refused() {
    let mut bytes = Frame::Ping(5).encode(GROUP).to_vec();
    bytes.push(0);
    assert_eq!(Frame::decode(&Bytes::from(bytes)), Err(DecodeError::Malformed));
}

#[test]
fn another_group_is_refused() {
    let bytes = Frame::Ping(5).encode(GroupId(1));
    assert_eq!(Frame::decode(&bytes), Err(DecodeError::UnknownGroup(1)));
}

#[test]
fn payloads_are_not_copied() {
    let payload = Bytes::from(vec![7; 1_000]);
    let frame = Frame::Request(ClientRequest::Command(payload)).encode(GROUP);
    let Ok(Frame::Request(ClientRequest::Command(read))) = Frame::decode(&frame) else {
        panic!("a command is read back as a command")
    };
    assert!(frame.as_ptr_range().contains(&read.as_ptr()));
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    // An AppendEntries header that announces 2^32 entries and holds none.
    let header = [9, 3, 44, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    let mut bytes = vec![20, 0, 0, 0, 0];
    bytes.extend_from_slice(&u32::try_from(header.len()).expect("short").to_le_bytes());
    bytes.extend_from_slice(&header);
    assert_eq!(Frame::decode(&Bytes::from(bytes)), Err(DecodeError::Malformed));
}

#[test]
fn parts_are_taken_as_they_were_put() {
    let mut out = bytes::BytesMut::new();
    codec::put_part(&mut out, b"one");
    codec::put_part(&mut out, b"");
    let mut rest = out.freeze();
    assert_eq!(codec::take_part(&mut rest), Ok(Bytes::from_static(b"one")));
    assert_eq!(codec::take_part(&mut rest), Ok(Bytes::new()));
    assert_eq!(codec::take_part(&mut rest), Err(DecodeError::Truncated));
    assert_eq!(codec::take_part(&mut Bytes::from_static(&[0xFF; 9])), Err(DecodeError::Truncated));
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = Frame::decode(&bytes);
        let _ = SessionEntry::decode(&bytes);
        let _ = Envelope::decode(&bytes);
        let _ = codec::take_part(&mut bytes.clone());
    }

    #[test]
    fn a_flipped_byte_never_panics(which in 0usize..64, at in any::<prop::sample::Index>(), flip in 1u8..) {
        let frames = frames();
        let (_, frame) = &frames[which % frames.len()];
        let mut bytes = frame.encode(GROUP).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = Frame::decode(&Bytes::from(bytes));
    }
}
