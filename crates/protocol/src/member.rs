//! Who belongs to a cluster, and who of them votes (I4, R7).

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::ids::{Address, ClusterId, Incarnation, Index, ServerId};

/// What a member does for the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberKind {
    /// Counts towards quorums and may lead.
    Voter,
    /// Receives the log and never counts (§4.2.1).
    Learner,
    /// Holds no log; gets the configuration by a message of its own (R7).
    Reserve,
    /// A voter of the configuration that is being left, and no member of the next. Only while a change is under way: it is
    /// reached, and votes, until that is complete (§4.3).
    Leaving,
}

/// One member record (I4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The server's id, never reused (I3).
    pub id: ServerId,
    /// The data directory that holds this member's vote (I1).
    pub incarnation: Incarnation,
    /// Where other servers reach it.
    pub peer_address: Address,
    /// Where clients reach it.
    pub client_address: Address,
    /// What it does.
    pub kind: MemberKind,
    /// Greater is preferred as leader: a leader hands over to a voter with a greater one that has caught up.
    pub priority: u8,
}

/// The members of a cluster as of one log entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The cluster.
    pub cluster: ClusterId,
    /// Index of the entry that carries this configuration; zero for the initial one. Apart from any snapshot's index (R7).
    pub index: Index,
    /// Members in ascending order of id. Invariant: no id twice.
    pub members: Vec<Member>,
    /// While a change is under way, the voters of the configuration that is being left (joint consensus, §4.3).
    pub outgoing_voters: Option<Vec<ServerId>>,
    /// The id that the next new member gets (I3). Invariant: greater than every id ever given.
    pub next_server_id: u64,
}

impl Configuration {
    /// Ids of the voters, ascending.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.members.iter().filter(|m| m.kind == MemberKind::Voter).map(|m| m.id)
    }

    /// The record of a member.
    #[must_use]
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    /// The record that belongs to a data directory.
    #[must_use]
    pub fn member_by_incarnation(&self, incarnation: Incarnation) -> Option<&Member> {
        self.members.iter().find(|m| m.incarnation == incarnation)
    }

    /// Whether a server votes in this configuration.
    #[must_use]
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.member(id).is_some_and(|m| m.kind == MemberKind::Voter)
    }
}
