//! Changes of the configuration, as operators ask for them (R7, I3, §4.2–§4.4).

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Address, Incarnation, Index, ServerId};
use crate::limits;
use crate::member::{Configuration, MemberKind};

/// A server that joins. Its id is given by the leader and never reused (I3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Its data directory (I1).
    pub incarnation: Incarnation,
    /// Where other servers reach it.
    pub peer_address: Address,
    /// Where clients reach it.
    pub client_address: Address,
    /// In a [`Change`] [`Learner`](MemberKind::Learner) or [`Reserve`](MemberKind::Reserve): voters are promoted later, when they have caught
    /// up. In the wish of a server that joins, what it wants to be in the end.
    pub kind: MemberKind,
    /// Greater is preferred as leader.
    pub priority: u8,
}

impl NewMember {
    /// Its address that is too long, if one is.
    #[must_use]
    pub fn address_too_long(&self) -> Option<&Address> {
        [&self.peer_address, &self.client_address].into_iter().find(|address| address.is_too_long())
    }
}

/// One change of the configuration: all of it takes effect, or none. It passes through joint consensus if the voters change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The index of the configuration that is changed: any other refuses (compare-and-set).
    pub expected: Index,
    /// Servers that join.
    pub add: Vec<NewMember>,
    /// Members that get another kind.
    pub set_kind: Vec<(ServerId, MemberKind)>,
    /// Members that get another priority.
    pub set_priority: Vec<(ServerId, u8)>,
    /// Members that leave. Their ids are never given again.
    pub remove: Vec<ServerId>,
}

/// Why a change was refused. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ChangeRefused {
    /// The server asked does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Where clients reach the one who is thought to.
        leader: Option<Address>,
    },
    /// The leader has not committed an entry of its own term yet (§4.1, the single-server bug of 2015).
    #[error("the leader has committed nothing in its term yet")]
    NotEstablished,
    /// Another change is under way.
    #[error("the change at index {0} is not complete yet")]
    Pending(Index),
    /// The configuration is not the one that was to be changed.
    #[error("the configuration has changed: it is that of index {0}")]
    Changed(Index),
    /// The leader is handing over.
    #[error("the leader is handing over")]
    HandingOver,
    /// The log's memory bound is reached (R5).
    #[error("busy")]
    Busy,
    /// The change changes nothing, or names a member twice.
    #[error("the change is empty, or contradicts itself")]
    Malformed,
    /// No such member.
    #[error("server {0} is not a member")]
    UnknownMember(ServerId),
    /// That data directory is a member already, or was one: it has an id, and gets no other (I3).
    #[error("that data directory is server {0} already")]
    AlreadyMember(ServerId),
    /// Another member that stays has that address.
    #[error("server {0} has that address")]
    AddressInUse(ServerId),
    /// New members are learners or reserves, and only learners become voters (§4.2.1).
    #[error("a voter must be a learner first")]
    NotALearner,
    /// A server to be promoted has not caught up with the log.
    #[error("server {server} has not caught up: {behind} entries behind")]
    NotCaughtUp {
        /// The server.
        server: ServerId,
        /// How far its log is behind the leader's.
        behind: u64,
    },
    /// The members that answer now are no quorum of the configuration that would result.
    #[error("{answering} of {voters} voters would answer: no quorum")]
    NoQuorum {
        /// Voters of the new configuration that answer now.
        answering: u32,
        /// Its voters.
        voters: u32,
    },
    /// No voters, or more than seven (R1).
    #[error("{0} voters: there must be 1 to 7")]
    Voters(u32),
    /// So many members would be too many ([`limits::MEMBERS`]).
    #[error("{0} members: there may be {most}", most = limits::MEMBERS)]
    Members(u32),
    /// An address of so many bytes is too long ([`limits::ADDRESS_BYTES`]).
    #[error("an address of {0} bytes: at most {most}", most = limits::ADDRESS_BYTES)]
    AddressTooLong(u32),
}

/// What a set of voters can lose and still decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tolerance {
    /// Servers that vote.
    pub voters: u32,
    /// So many are needed.
    pub quorum: u32,
    /// Whichever so many fail, the rest decides. While a change is under way: a quorum of each side remains.
    pub failures: u32,
    /// How many answer the leader now, itself included.
    pub answering: u32,
}

/// What a change would do, before it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The members as they would be.
    pub configuration: Configuration,
    /// Now.
    pub before: Tolerance,
    /// While both sides must agree; `None` if the voters stay the same.
    pub during: Option<Tolerance>,
    /// Afterwards.
    pub after: Tolerance,
    /// Why it would be refused now; `None` if it would not.
    pub refused: Option<ChangeRefused>,
}

/// Why leadership is not handed over. The leader goes on, unless it ran out of time.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TransferRefused {
    /// The server asked does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Where clients reach the one who is thought to.
        leader: Option<Address>,
    },
    /// That server is no voter, or it leads already.
    #[error("server {0} can't take over: it is no voter, or leads already")]
    NotATarget(ServerId),
    /// Nobody else could take over: there is no other voter that answers.
    #[error("there is no other voter that answers")]
    Nobody,
    /// Another hand-over is under way.
    #[error("another hand-over is under way")]
    Pending,
    /// A configuration is not committed yet: its leader must see it through.
    #[error("a change of the configuration is under way")]
    Changing,
    /// It did not take over in time, and may yet: it may have been told to.
    #[error("it did not take over in time")]
    TimedOut,
}
