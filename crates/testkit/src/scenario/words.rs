//! Messages and entries as tests say them and hear them, in few words.

use atomix_protocol::peer::{
    AppendEntries, AppendEntriesReply, AppendOutcome, PeerMessage, PreVote, PreVoteReply, RequestVote,
    RequestVoteReply,
};
use atomix_protocol::{
    Address, ClusterTime, Configuration, Entry, EntryId, EntryKind, Incarnation, Index, Member, MemberKind,
    Round, ServerId, Term,
};
use atomix_raft::Output;
use bytes::Bytes;

/// A server's id.
pub fn server(id: u64) -> ServerId {
    ServerId(id)
}

/// The entry of this term and index.
pub fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

/// A command of this term and index.
pub fn entry(term: u64, index: u64) -> Entry {
    let time = ClusterTime(index.saturating_mul(10));
    Entry { id: id(term, index), time, kind: EntryKind::Session, payload: Bytes::from_static(b"entry") }
}

/// Entries of these terms from index 1 on.
pub fn log(terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(1..).map(|(term, index)| entry(*term, index)).collect()
}

/// Voters from 1 on, and learners behind them.
pub fn configuration(voters: u64, learners: u64) -> Configuration {
    let member = |id, kind| Member {
        id: server(id),
        incarnation: Incarnation(u128::from(id)),
        peer_address: Address::default(),
        client_address: Address::default(),
        kind,
        priority: 0,
    };
    let mut members: Vec<Member> = (1..=voters).map(|id| member(id, MemberKind::Voter)).collect();
    members.extend((1..=learners).map(|id| member(voters + id, MemberKind::Learner)));
    Configuration { members, next_server_id: 10, ..Configuration::default() }
}

/// AppendEntries in the first round of this term.
pub fn append(term: u64, prev: EntryId, entries: Vec<Entry>, leader_commit: u64) -> PeerMessage {
    PeerMessage::AppendEntries(AppendEntries {
        term: Term(term),
        prev,
        leader_commit: Index(leader_commit),
        last_index: Index(prev.index.0.saturating_add(entries.len() as u64)),
        time: ClusterTime(1_000),
        promise_ms: 0,
        round: Round(1),
        entries,
    })
}

/// A candidate of this term, whose log ends so, asks for a vote.
pub fn request_vote(term: u64, last: EntryId) -> PeerMessage {
    PeerMessage::RequestVote(RequestVote { term: Term(term), last, transfer: None })
}

/// A server whose log ends so asks whether it could win this term.
pub fn pre_vote(term: u64, last: EntryId) -> PeerMessage {
    PeerMessage::PreVote(PreVote { term: Term(term), last })
}

/// Yes to a campaign in term `asked`, from a server in term `current`.
pub fn pre_vote_granted(asked: u64, current: u64) -> PeerMessage {
    let reply = PreVoteReply { asked: Term(asked), granted: true, current: Term(current), sticky: false };
    PeerMessage::PreVoteReply(reply)
}

/// A vote.
pub fn vote_granted(term: u64) -> PeerMessage {
    let reply = RequestVoteReply { term: Term(term), asked: Term(term), granted: true };
    PeerMessage::RequestVoteReply(reply)
}

fn append_reply(term: u64, round: u64, outcome: AppendOutcome) -> PeerMessage {
    PeerMessage::AppendEntriesReply(AppendEntriesReply {
        term: Term(term),
        round: Round(round),
        room: true,
        abstains: false,
        outcome,
    })
}

/// A follower holds everything through `index`.
pub fn durable(term: u64, round: u64, index: u64) -> PeerMessage {
    append_reply(term, round, AppendOutcome::Durable(Index(index)))
}

/// A follower has no entry `prev`.
pub fn mismatch(term: u64, round: u64, prev: EntryId, hint: EntryId) -> PeerMessage {
    append_reply(term, round, AppendOutcome::Mismatch { prev, hint })
}

/// The messages among outputs, in order.
pub fn said(outputs: &[Output]) -> Vec<PeerMessage> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send { message, .. } => Some(message.clone()),
        _ => None,
    });
    sent.collect()
}

/// The AppendEntries among messages.
pub fn appends(messages: &[PeerMessage]) -> Vec<AppendEntries> {
    let appends = messages.iter().filter_map(|message| match message {
        PeerMessage::AppendEntries(message) => Some(message.clone()),
        _ => None,
    });
    appends.collect()
}

/// The answers to AppendEntries among messages.
pub fn append_replies(messages: &[PeerMessage]) -> Vec<AppendEntriesReply> {
    let replies = messages.iter().filter_map(|message| match message {
        PeerMessage::AppendEntriesReply(reply) => Some(reply.clone()),
        _ => None,
    });
    replies.collect()
}

/// Whether a vote was granted, if one was answered.
pub fn vote(messages: &[PeerMessage]) -> Option<bool> {
    messages.iter().find_map(|message| match message {
        PeerMessage::RequestVoteReply(reply) => Some(reply.granted),
        _ => None,
    })
}

/// The answer to a pre-vote.
///
/// # Panics
/// If there is none.
pub fn pre_vote_reply(messages: &[PeerMessage]) -> PreVoteReply {
    let reply = messages.iter().find_map(|message| match message {
        PeerMessage::PreVoteReply(reply) => Some(reply.clone()),
        _ => None,
    });
    reply.expect("a pre-vote is answered")
}
