//! Frame layout, and the one place that knows how values become bytes.
//!
//! A frame is what a transport moves whole: `kind u8 | group u32 LE | header length u32 LE | header | tail`. The header is
//! postcard; the tail is opaque (payloads, chunks), never copied when a frame is read. Decoding is total: lengths are
//! checked before anything is allocated, left-over bytes are an error.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bootstrap::BootstrapMessage;
use crate::client::{
    AnswerHeader, Attach, Attached, ClientRequest, ClientResponse, EndReason, EventHeader, KeepAlive, Manage,
    Managed, NotAnswered, NotLogged, OpenSession, Opened, QueryHeader, ReplyHeader, Servers,
};
use crate::entry::{Entry, EntryId, EntryKind};
use crate::handshake::{Hello, Refusal};
use crate::ids::{Address, GroupId, Index, Round, Sequence, SessionId, Term};
use crate::peer::{
    AppendEntries, AppendEntriesReply, Configure, InstallSnapshot, InstallSnapshotReply, PeerMessage,
    PreVote, PreVoteReply, RequestVote, RequestVoteReply, SnapshotMeta, TimeoutNow,
};
use crate::status::Status;
use crate::time::ClusterTime;

/// Why bytes from outside were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    #[error("truncated")]
    Truncated,
    /// A kind that this version does not know.
    #[error("unknown kind {0}")]
    UnknownKind(u8),
    /// A header that does not decode, or bytes left over.
    #[error("malformed")]
    Malformed,
    /// Another group than the one expected.
    #[error("unknown group {0}")]
    UnknownGroup(u32),
}

/// A value's postcard bytes.
///
/// # Panics
/// Never for the types of this crate: encoding into memory can't fail.
#[must_use]
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Bytes {
    Bytes::from(postcard::to_allocvec(value).expect("encoding into memory can't fail"))
}

/// Reads a value back; all bytes must be used.
///
/// # Errors
/// If the bytes are not exactly one such value.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed),
    }
}

/// Reads a value from the front; the rest shares `bytes`.
///
/// # Errors
/// If no such value is there.
pub fn take_from_bytes<T: DeserializeOwned>(bytes: &Bytes) -> Result<(T, Bytes), DecodeError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Malformed)?;
    let used = bytes.len() - rest.len();
    Ok((value, bytes.slice(used..)))
}

/// `tag | header | tail` in one buffer.
#[must_use]
pub fn tagged<T: Serialize + ?Sized>(tag: u8, header: &T, tail: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(64 + tail.len());
    out.push(tag);
    let mut out = postcard::to_extend(header, out).expect("encoding into memory can't fail");
    out.extend_from_slice(tail);
    Bytes::from(out)
}

/// The tag and what follows it.
///
/// # Errors
/// If there are no bytes.
pub fn split_tag(bytes: &Bytes) -> Result<(u8, Bytes), DecodeError> {
    match bytes.first() {
        Some(tag) => Ok((*tag, bytes.slice(1..))),
        None => Err(DecodeError::Truncated),
    }
}

/// Everything that can travel in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame each way.
    Hello(Hello),
    /// In place of it.
    Refusal(Refusal),
    /// Are you still there? (I5)
    Ping(u64),
    /// Yes.
    Pong(u64),
    /// Forming a cluster, or joining one.
    Bootstrap(BootstrapMessage),
    /// The kinds of resources that a server's binary has, each with its highest operation; the first frame after the handshake of
    /// a peer link (M3).
    Kinds(Vec<(String, u16)>),
    /// Between servers.
    Peer(PeerMessage),
    /// From a client.
    Request(ClientRequest),
    /// To a client.
    Response(ClientResponse),
}

// Kind numbers are part of the wire format and never reused.
const HELLO: u8 = 1;
const REFUSAL: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const BOOTSTRAP: u8 = 5;
const KINDS: u8 = 6;
const PRE_VOTE: u8 = 16;
const PRE_VOTE_REPLY: u8 = 17;
const REQUEST_VOTE: u8 = 18;
const REQUEST_VOTE_REPLY: u8 = 19;
const APPEND_ENTRIES: u8 = 20;
const APPEND_ENTRIES_REPLY: u8 = 21;
const INSTALL_SNAPSHOT: u8 = 22;
const INSTALL_SNAPSHOT_REPLY: u8 = 23;
const TIMEOUT_NOW: u8 = 24;
const CONFIGURE: u8 = 25;
const OPEN: u8 = 32;
const ATTACH: u8 = 33;
const COMMAND: u8 = 34;
const QUERY: u8 = 35;
const KEEP_ALIVE: u8 = 36;
const ACKNOWLEDGE: u8 = 37;
const CLOSE: u8 = 38;
const STATUS_REQUEST: u8 = 39;
const MANAGE: u8 = 40;
const OPENED: u8 = 48;
const ATTACHED: u8 = 49;
const REPLY: u8 = 50;
const NOT_LOGGED: u8 = 51;
const GAP: u8 = 52;
const ANSWER: u8 = 53;
const NOT_ANSWERED: u8 = 54;
const CONFIRMED: u8 = 55;
const EVENT: u8 = 56;
const NOT_LEADER: u8 = 57;
const ENDED: u8 = 58;
const STATUS: u8 = 59;
const REFUSED: u8 = 60;
const MANAGED: u8 = 61;
const SERVERS: u8 = 62;

const FIXED: usize = 9;

#[derive(Serialize, Deserialize)]
struct AppendEntriesHeader {
    term: Term,
    prev: EntryId,
    leader_commit: Index,
    last_index: Index,
    time: ClusterTime,
    promise_ms: u32,
    round: Round,
    entries: Vec<EntryHeader>,
}

/// Index follows from the place in the list.
#[derive(Serialize, Deserialize)]
struct EntryHeader {
    term: Term,
    time: ClusterTime,
    kind: u8,
    length: u32,
}

#[derive(Serialize, Deserialize)]
struct InstallSnapshotHeader {
    term: Term,
    meta: SnapshotMeta,
    offset: u64,
    done: bool,
    time: ClusterTime,
    round: Round,
}

impl Frame {
    /// The bytes that a transport moves.
    #[must_use]
    pub fn encode(&self, group: GroupId) -> Bytes {
        match self {
            Frame::Hello(hello) => frame(HELLO, group, hello, &[]),
            Frame::Refusal(refusal) => frame(REFUSAL, group, refusal, &[]),
            Frame::Ping(token) => frame(PING, group, token, &[]),
            Frame::Pong(token) => frame(PONG, group, token, &[]),
            Frame::Bootstrap(message) => frame(BOOTSTRAP, group, message, &[]),
            Frame::Kinds(kinds) => frame(KINDS, group, kinds, &[]),
            Frame::Peer(message) => encode_peer(group, message),
            Frame::Request(request) => encode_request(group, request),
            Frame::Response(response) => encode_response(group, response),
        }
    }

    /// Reads the first frame of a link: a handshake or its refusal. Of anything else nothing is looked at (I5).
    ///
    /// # Errors
    /// If the bytes are not exactly one such frame in the default group.
    pub fn decode_first(bytes: &Bytes) -> Result<Frame, DecodeError> {
        match bytes.first() {
            Some(&(HELLO | REFUSAL)) => Frame::decode(bytes),
            Some(&other) => Err(DecodeError::UnknownKind(other)),
            None => Err(DecodeError::Truncated),
        }
    }

    /// Reads a frame. Payloads share `bytes`.
    ///
    /// # Errors
    /// If the bytes are not exactly one frame of a kind that this version knows, in the default group.
    pub fn decode(bytes: &Bytes) -> Result<Frame, DecodeError> {
        let fixed = bytes.get(..FIXED).ok_or(DecodeError::Truncated)?;
        let kind = fixed[0];
        let group = u32::from_le_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]);
        let length = u32::from_le_bytes([fixed[5], fixed[6], fixed[7], fixed[8]]) as usize;
        if group != GroupId::DEFAULT.0 {
            return Err(DecodeError::UnknownGroup(group));
        }
        let end =
            FIXED.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(DecodeError::Truncated)?;
        let raw = Raw { kind, header: &bytes[FIXED..end], tail: bytes.slice(end..) };
        match kind {
            HELLO => raw.only(Frame::Hello),
            REFUSAL => raw.only(Frame::Refusal),
            PING => raw.only(Frame::Ping),
            PONG => raw.only(Frame::Pong),
            BOOTSTRAP => raw.only(Frame::Bootstrap),
            KINDS => raw.only(Frame::Kinds),
            PRE_VOTE..=CONFIGURE => decode_peer(raw).map(Frame::Peer),
            OPEN..=MANAGE => decode_request(raw).map(Frame::Request),
            OPENED..=SERVERS => decode_response(raw).map(Frame::Response),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}

struct Raw<'a> {
    kind: u8,
    header: &'a [u8],
    tail: Bytes,
}

impl Raw<'_> {
    fn only<T: DeserializeOwned, F>(self, wrap: impl FnOnce(T) -> F) -> Result<F, DecodeError> {
        if !self.tail.is_empty() {
            return Err(DecodeError::Malformed);
        }
        from_bytes(self.header).map(wrap)
    }

    fn with_tail<T: DeserializeOwned, F>(self, wrap: impl FnOnce(T, Bytes) -> F) -> Result<F, DecodeError> {
        Ok(wrap(from_bytes(self.header)?, self.tail))
    }
}

fn frame<T: Serialize + ?Sized>(kind: u8, group: GroupId, header: &T, tail: &[&[u8]]) -> Bytes {
    let tail_length: usize = tail.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(FIXED + 96 + tail_length);
    out.push(kind);
    out.extend_from_slice(&group.0.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let mut out = postcard::to_extend(header, out).expect("encoding into memory can't fail");
    let length = u32::try_from(out.len() - FIXED).expect("headers are far below 4 GiB");
    out[5..FIXED].copy_from_slice(&length.to_le_bytes());
    for part in tail {
        out.extend_from_slice(part);
    }
    Bytes::from(out)
}

fn encode_peer(group: GroupId, message: &PeerMessage) -> Bytes {
    match message {
        PeerMessage::PreVote(m) => frame(PRE_VOTE, group, m, &[]),
        PeerMessage::PreVoteReply(m) => frame(PRE_VOTE_REPLY, group, m, &[]),
        PeerMessage::RequestVote(m) => frame(REQUEST_VOTE, group, m, &[]),
        PeerMessage::RequestVoteReply(m) => frame(REQUEST_VOTE_REPLY, group, m, &[]),
        PeerMessage::AppendEntries(m) => encode_append_entries(group, m),
        PeerMessage::AppendEntriesReply(m) => frame(APPEND_ENTRIES_REPLY, group, m, &[]),
        PeerMessage::InstallSnapshot(m) => {
            let header = InstallSnapshotHeader {
                term: m.term,
                meta: m.meta.clone(),
                offset: m.offset,
                done: m.done,
                time: m.time,
                round: m.round,
            };
            frame(INSTALL_SNAPSHOT, group, &header, &[&m.data])
        }
        PeerMessage::InstallSnapshotReply(m) => frame(INSTALL_SNAPSHOT_REPLY, group, m, &[]),
        PeerMessage::TimeoutNow(m) => frame(TIMEOUT_NOW, group, m, &[]),
        PeerMessage::Configure(m) => frame(CONFIGURE, group, m, &[]),
    }
}

fn encode_append_entries(group: GroupId, m: &AppendEntries) -> Bytes {
    let entries = m.entries.iter().map(|entry| EntryHeader {
        term: entry.id.term,
        time: entry.time,
        kind: entry.kind as u8,
        length: u32::try_from(entry.payload.len()).expect("payloads are bounded far below 4 GiB"),
    });
    let header = AppendEntriesHeader {
        term: m.term,
        prev: m.prev,
        leader_commit: m.leader_commit,
        last_index: m.last_index,
        time: m.time,
        promise_ms: m.promise_ms,
        round: m.round,
        entries: entries.collect(),
    };
    let payloads: Vec<&[u8]> = m.entries.iter().map(|entry| &entry.payload[..]).collect();
    frame(APPEND_ENTRIES, group, &header, &payloads)
}

fn decode_peer(raw: Raw<'_>) -> Result<PeerMessage, DecodeError> {
    match raw.kind {
        PRE_VOTE => raw.only::<PreVote, _>(PeerMessage::PreVote),
        PRE_VOTE_REPLY => raw.only::<PreVoteReply, _>(PeerMessage::PreVoteReply),
        REQUEST_VOTE => raw.only::<RequestVote, _>(PeerMessage::RequestVote),
        REQUEST_VOTE_REPLY => raw.only::<RequestVoteReply, _>(PeerMessage::RequestVoteReply),
        APPEND_ENTRIES => decode_append_entries(&raw),
        APPEND_ENTRIES_REPLY => raw.only::<AppendEntriesReply, _>(PeerMessage::AppendEntriesReply),
        INSTALL_SNAPSHOT => raw.with_tail(|h: InstallSnapshotHeader, data| {
            PeerMessage::InstallSnapshot(InstallSnapshot {
                term: h.term,
                meta: h.meta,
                offset: h.offset,
                data,
                done: h.done,
                time: h.time,
                round: h.round,
            })
        }),
        INSTALL_SNAPSHOT_REPLY => raw.only::<InstallSnapshotReply, _>(PeerMessage::InstallSnapshotReply),
        TIMEOUT_NOW => raw.only::<TimeoutNow, _>(PeerMessage::TimeoutNow),
        CONFIGURE => raw.only::<Configure, _>(PeerMessage::Configure),
        other => Err(DecodeError::UnknownKind(other)),
    }
}

fn decode_append_entries(raw: &Raw<'_>) -> Result<PeerMessage, DecodeError> {
    let header: AppendEntriesHeader = from_bytes(raw.header)?;
    let mut entries = Vec::with_capacity(header.entries.len());
    let mut at = 0usize;
    let mut index = header.prev.index;
    for entry in &header.entries {
        let end = at.checked_add(entry.length as usize).filter(|end| *end <= raw.tail.len());
        let end = end.ok_or(DecodeError::Truncated)?;
        if index.0 == u64::MAX {
            return Err(DecodeError::Malformed);
        }
        index = index.next();
        entries.push(Entry {
            id: EntryId::new(entry.term, index),
            time: entry.time,
            kind: EntryKind::from_number(entry.kind).ok_or(DecodeError::UnknownKind(entry.kind))?,
            payload: raw.tail.slice(at..end),
        });
        at = end;
    }
    if at != raw.tail.len() {
        return Err(DecodeError::Malformed);
    }
    Ok(PeerMessage::AppendEntries(AppendEntries {
        term: header.term,
        prev: header.prev,
        leader_commit: header.leader_commit,
        last_index: header.last_index,
        time: header.time,
        promise_ms: header.promise_ms,
        round: header.round,
        entries,
    }))
}

fn encode_request(group: GroupId, request: &ClientRequest) -> Bytes {
    match request {
        ClientRequest::Open(open) => frame(OPEN, group, open, &[]),
        ClientRequest::Attach(attach) => frame(ATTACH, group, attach, &[]),
        ClientRequest::Command(entry) => frame(COMMAND, group, &(), &[entry]),
        ClientRequest::Query(header, body) => frame(QUERY, group, header, &[body]),
        ClientRequest::KeepAlive(keep_alive) => frame(KEEP_ALIVE, group, keep_alive, &[]),
        ClientRequest::Acknowledge { event } => frame(ACKNOWLEDGE, group, event, &[]),
        ClientRequest::Close => frame(CLOSE, group, &(), &[]),
        ClientRequest::Status => frame(STATUS_REQUEST, group, &(), &[]),
        ClientRequest::Manage(manage) => frame(MANAGE, group, manage, &[]),
    }
}

fn decode_request(raw: Raw<'_>) -> Result<ClientRequest, DecodeError> {
    match raw.kind {
        OPEN => raw.only::<OpenSession, _>(ClientRequest::Open),
        ATTACH => raw.only::<Attach, _>(ClientRequest::Attach),
        COMMAND => raw.with_tail(|(), tail| ClientRequest::Command(tail)),
        QUERY => raw.with_tail::<QueryHeader, _>(ClientRequest::Query),
        KEEP_ALIVE => raw.only::<KeepAlive, _>(ClientRequest::KeepAlive),
        ACKNOWLEDGE => raw.only(|event| ClientRequest::Acknowledge { event }),
        CLOSE => raw.only(|()| ClientRequest::Close),
        STATUS_REQUEST => raw.only(|()| ClientRequest::Status),
        MANAGE => raw.only::<Manage, _>(ClientRequest::Manage),
        other => Err(DecodeError::UnknownKind(other)),
    }
}

fn encode_response(group: GroupId, response: &ClientResponse) -> Bytes {
    match response {
        ClientResponse::Opened(opened) => frame(OPENED, group, opened, &[]),
        ClientResponse::Attached(attached) => frame(ATTACHED, group, attached, &[]),
        ClientResponse::Reply(header, body) => frame(REPLY, group, header, &[body]),
        ClientResponse::NotLogged { sequence, reason } => frame(NOT_LOGGED, group, &(sequence, reason), &[]),
        ClientResponse::Gap { expected } => frame(GAP, group, expected, &[]),
        ClientResponse::Answer(header, body) => frame(ANSWER, group, header, &[body]),
        ClientResponse::NotAnswered { ticket, reason } => frame(NOT_ANSWERED, group, &(ticket, reason), &[]),
        ClientResponse::Confirmed { contact } => frame(CONFIRMED, group, contact, &[]),
        ClientResponse::Event(header, bodies) => frame(EVENT, group, header, &[bodies]),
        ClientResponse::NotLeader { leader, term } => frame(NOT_LEADER, group, &(leader, term), &[]),
        ClientResponse::Ended { session, reason } => frame(ENDED, group, &(session, reason), &[]),
        ClientResponse::Status(status) => frame(STATUS, group, &**status, &[]),
        ClientResponse::Refused { detail } => frame(REFUSED, group, detail, &[]),
        ClientResponse::Managed(managed) => frame(MANAGED, group, managed, &[]),
        ClientResponse::Servers(servers) => frame(SERVERS, group, servers, &[]),
    }
}

fn decode_response(raw: Raw<'_>) -> Result<ClientResponse, DecodeError> {
    match raw.kind {
        OPENED => raw.only::<Opened, _>(ClientResponse::Opened),
        ATTACHED => raw.only::<Attached, _>(ClientResponse::Attached),
        REPLY => raw.with_tail::<ReplyHeader, _>(ClientResponse::Reply),
        NOT_LOGGED => raw.only::<(Sequence, NotLogged), _>(|(sequence, reason)| ClientResponse::NotLogged {
            sequence,
            reason,
        }),
        GAP => raw.only(|expected| ClientResponse::Gap { expected }),
        ANSWER => raw.with_tail::<AnswerHeader, _>(ClientResponse::Answer),
        NOT_ANSWERED => raw
            .only::<(u64, NotAnswered), _>(|(ticket, reason)| ClientResponse::NotAnswered { ticket, reason }),
        CONFIRMED => raw.only(|contact| ClientResponse::Confirmed { contact }),
        EVENT => raw.with_tail::<EventHeader, _>(ClientResponse::Event),
        NOT_LEADER => raw
            .only::<(Option<Address>, Term), _>(|(leader, term)| ClientResponse::NotLeader { leader, term }),
        ENDED => raw
            .only::<(SessionId, EndReason), _>(|(session, reason)| ClientResponse::Ended { session, reason }),
        STATUS => raw.only::<Box<Status>, _>(ClientResponse::Status),
        REFUSED => raw.only(|detail| ClientResponse::Refused { detail }),
        MANAGED => raw.only::<Managed, _>(ClientResponse::Managed),
        SERVERS => raw.only::<Servers, _>(ClientResponse::Servers),
        other => Err(DecodeError::UnknownKind(other)),
    }
}

/// Appends a length-prefixed part; the counterpart of [`take_part`]. Snapshots are lists of such parts (M4).
pub fn put_part(out: &mut BytesMut, part: &[u8]) {
    out.put_u64_le(part.len() as u64);
    out.put_slice(part);
}

/// Takes a length-prefixed part from the front.
///
/// # Errors
/// If fewer bytes are left than the prefix says.
pub fn take_part(bytes: &mut Bytes) -> Result<Bytes, DecodeError> {
    let prefix = bytes.get(..8).ok_or(DecodeError::Truncated)?;
    let mut length = [0; 8];
    length.copy_from_slice(prefix);
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| DecodeError::Truncated)?;
    let end = length.checked_add(8).filter(|end| *end <= bytes.len()).ok_or(DecodeError::Truncated)?;
    let part = bytes.slice(8..end);
    *bytes = bytes.slice(end..);
    Ok(part)
}
