//! Frames between clients and servers, after the handshake. A link carries one session: the one it attached or opened.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::change::{Change, ChangeRefused, Plan, TransferRefused};
use crate::ids::{Address, ClientId, Index, InstanceId, Sequence, ServerId, SessionId, SessionKey, Term};
use crate::member::Configuration;
use crate::status::Status;

/// From a client to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRequest {
    /// Opens a session (S1). The leader logs it; a retry with the same attempt returns the same session.
    Open(OpenSession),
    /// Binds this link to an open session.
    Attach(Attach),
    /// A [`SessionEntry`](crate::session::SessionEntry) of kind command or skip, encoded: what goes into the log.
    Command(Bytes),
    /// A query and its body (Q1).
    Query(QueryHeader, Bytes),
    /// I am here (S6).
    KeepAlive(KeepAlive),
    /// Events acknowledged, in a frame of its own (E6).
    Acknowledge {
        /// The last event acknowledged.
        event: Index,
    },
    /// Ends the session of this link.
    Close,
    /// What do you say of yourself? Needs no session.
    Status,
    /// Something that only the leader can do for an operator.
    Manage(Manage),
}

/// Opens a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// The client.
    pub client: ClientId,
    /// Drawn per attempt.
    pub attempt: u64,
    /// The secret of the session to be.
    pub key: SessionKey,
    /// The session timeout wanted, in milliseconds; the server clamps it to its bounds.
    pub timeout_ms: u64,
}

/// Binds a link to a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The session.
    pub session: SessionId,
    /// Its secret.
    pub key: SessionKey,
    /// The last event that the client has (E4).
    pub last_event: Index,
    /// Only for queries, on a server that need not lead (Q4).
    pub read_only: bool,
}

impl core::fmt::Debug for OpenSession {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OpenSession")
            .field("client", &self.client)
            .field("attempt", &self.attempt)
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Attach {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Attach")
            .field("session", &self.session)
            .field("last_event", &self.last_event)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// How strong a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every command that completed anywhere before the read began (Q3).
    #[default]
    Linearizable,
    /// Sees everything that this session submitted before it, and never goes back in time (Q1, Q4).
    Sequential,
    /// Sees everything that this session knows of, and never goes back in time (Q1, Q4).
    Causal,
}

/// What travels with every query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryHeader {
    /// The client's own number for it, unique on this link.
    pub ticket: u64,
    /// How strong.
    pub consistency: Consistency,
    /// The server must have applied this index (Q1).
    pub after_index: Index,
    /// The server must have applied this command of the session (Q1).
    pub after_sequence: Sequence,
}

/// Sign of life of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The client's own ascending number for it.
    pub contact: u64,
    /// The last event acknowledged (E2).
    pub acknowledged_event: Index,
    /// The lowest sequence whose reply the client has not got.
    pub lowest_unanswered: Sequence,
}

/// From a server to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientResponse {
    /// The session is open, and this link attached to it.
    Opened(Opened),
    /// The link is attached.
    Attached(Attached),
    /// The reply to a command.
    Reply(ReplyHeader, Bytes),
    /// A command was refused before the log: send its sequence again as a skip (S4).
    NotLogged {
        /// The command.
        sequence: Sequence,
        /// Why.
        reason: NotLogged,
    },
    /// Commands arrived out of sequence: send again from here (S3). Nothing was consumed.
    Gap {
        /// The next sequence that the server will take.
        expected: Sequence,
    },
    /// The answer to a query.
    Answer(AnswerHeader, Bytes),
    /// A query was not answered.
    NotAnswered {
        /// The query.
        ticket: u64,
        /// Why.
        reason: NotAnswered,
    },
    /// All contacts through this one are confirmed (S6).
    Confirmed {
        /// The last confirmed contact.
        contact: u64,
    },
    /// Events of one index (E1), with the different bodies one after the other behind the header.
    Event(EventHeader, Bytes),
    /// This server does not lead: try the one named, if any.
    NotLeader {
        /// Where the leader is thought to be.
        leader: Option<Address>,
        /// In which term.
        term: Term,
    },
    /// The session is over.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// What this server says of itself.
    Status(Box<Status>),
    /// The server refuses the request and closes the link.
    Refused {
        /// In words, for people.
        detail: String,
    },
    /// How a [`Manage`] ended.
    Managed(Managed),
    /// Where the cluster is now: behind the handshake, and when it has changed.
    Servers(Servers),
}

/// Where clients reach the members that know who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// The committed configuration that says so. A greater index is newer.
    pub configuration: Index,
    /// Their addresses, voters first. A client keeps the first [`MEMBERS`](crate::limits::MEMBERS).
    pub addresses: Vec<Address>,
}

/// What an operator asks of the leader. Needs no session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manage {
    /// Names the request on its link.
    pub ticket: u64,
    /// What is asked.
    pub action: ManageAction,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManageAction {
    /// What would this change do?
    Plan(Change),
    /// Change the configuration. Answered when the whole change is committed.
    Change(Change),
    /// Hand leadership over: to that server, or to the one that is best placed. Answered when another leader is known.
    Transfer(Option<ServerId>),
}

/// How a [`Manage`] ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// The ticket of the request.
    pub ticket: u64,
    /// How it ended.
    pub outcome: ManageOutcome,
}

/// How a [`ManageAction`] ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManageOutcome {
    /// The plan.
    Planned(Box<Plan>),
    /// The change is complete: this configuration is committed.
    Changed(Configuration),
    /// Leadership was handed over to that server.
    Transferred(ServerId),
    /// Nothing was changed.
    ChangeRefused(ChangeRefused),
    /// Nothing was handed over; behind [`TransferRefused::TimedOut`] it may be yet.
    TransferRefused(TransferRefused),
    /// This leader was deposed before the end: the change may complete or not. The configuration tells.
    Unknown,
}

/// A session is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The attempt, echoed.
    pub attempt: u64,
    /// The session.
    pub session: SessionId,
    /// Its timeout as committed, in milliseconds (τ).
    pub timeout_ms: u64,
}

/// A link is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The session.
    pub session: SessionId,
    /// Its timeout as committed, in milliseconds (τ).
    pub timeout_ms: u64,
    /// The last sequence applied at this server: send again from the next one on.
    pub last_sequence: Sequence,
}

/// What travels with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHeader {
    /// The command.
    pub sequence: Sequence,
    /// The index at which it took effect.
    pub index: Index,
    /// The session's last event at or before that index (Q2).
    pub event_index: Index,
    /// How it ended.
    pub outcome: ReplyOutcome,
}

/// How a command that reached the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyOutcome {
    /// Applied; the body is the state machine's reply.
    Applied,
    /// Applied earlier, and its reply is no longer kept (S3).
    ReplyGone,
    /// The sequence was consumed by a skip: not done (S4).
    Skipped,
}

/// Why a command was refused before the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotLogged {
    /// A bound was reached; try later (R5).
    Busy,
    /// Larger than the limit.
    TooLarge,
    /// Not allowed for this principal.
    Forbidden,
    /// Does not decode.
    Malformed,
    /// It would create a resource of a kind that has no level: not all servers are known to have it (M3). Later, perhaps.
    Level,
    /// The leader's disk has no room but for what is kept in reserve, and no other server's that could lead (D5). Later, perhaps.
    Full,
}

/// What travels with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHeader {
    /// The query.
    pub ticket: u64,
    /// The index whose state was read.
    pub index: Index,
    /// The session's last event at or before that index (Q2).
    pub event_index: Index,
}

/// Why a query was not answered. None of them changed anything: the client core repeats it elsewhere or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotAnswered {
    /// This server can't serve that consistency now; try the one named, if any.
    Redirect(Option<Address>),
    /// The wait for the indexes of Q1 passed its deadline.
    TimedOut,
    /// A bound was reached.
    Busy,
}

/// What travels with the events of one index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHeader {
    /// Where they were published.
    pub index: Index,
    /// Where this session's events before them were published; zero for none (E1).
    pub previous: Index,
    /// Somebody waits until they are acknowledged: at once, in a frame of its own (E6).
    pub atomic: bool,
    /// How long each of the bodies is.
    pub bodies: Vec<u32>,
    /// The events in order: for which instance each is, and which of the bodies it has. One body may be sent to many.
    pub parts: Vec<(InstanceId, u32)>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// Its client fell silent (S7).
    Expired,
    /// Its client closed it.
    Closed,
    /// It is not open in this cluster, or never was.
    Unknown,
    /// A later session of the same client id took over (S10).
    TakenOver,
    /// The key does not belong to it.
    WrongKey,
}
