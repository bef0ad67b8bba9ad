//! The first frame each way on every connection (I5). Nothing else is parsed before it was accepted.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::ids::{BootNonce, ClusterId, GroupId, Incarnation, ServerId};

/// Opens every handshake, so that a stranger's bytes are recognised at once.
pub const MAGIC: u32 = 0x4154_4d58;

/// The oldest and the newest protocol version that this code speaks.
pub const VERSIONS: (u16, u16) = (1, 1);

/// The level of log entries and operations that this code understands (M3).
pub const FEATURE_LEVEL: u32 = 1;

/// As what one end of a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A server, to a server.
    Peer,
    /// A client, to a server.
    Client,
    /// A server, to a client.
    Server,
}

/// The handshake frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: u32,
    /// Oldest and newest version spoken.
    pub versions: (u16, u16),
    /// As what the sender speaks.
    pub role: Role,
    /// The sender's cluster: `None` before bootstrap, or for a client that does not know one yet.
    pub cluster: Option<ClusterId>,
    /// The group meant.
    pub group: GroupId,
    /// The sender, if it is a server that has an id.
    pub server: Option<ServerId>,
    /// The sender's data directory; zero for a client.
    pub incarnation: Incarnation,
    /// This start of the sender's process.
    pub boot_nonce: BootNonce,
    /// [`FEATURE_LEVEL`] of the sender.
    pub feature_level: u32,
}

impl Hello {
    /// What a client of this version says. `cluster` is the one that it means, if it knows one yet.
    #[must_use]
    pub const fn of_client(cluster: Option<ClusterId>, boot_nonce: BootNonce) -> Self {
        Hello {
            magic: MAGIC,
            versions: VERSIONS,
            role: Role::Client,
            cluster,
            group: GroupId::DEFAULT,
            server: None,
            incarnation: Incarnation(0),
            boot_nonce,
            feature_level: FEATURE_LEVEL,
        }
    }
}

/// The answer that ends a handshake without a connection. Sent in place of a [`Hello`], then the link is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The same in words, for people.
    pub detail: String,
}

/// Why a handshake was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalReason {
    /// Not this protocol, or no common version.
    Version,
    /// The ends belong to different clusters.
    ForeignCluster,
    /// The group is unknown here.
    UnknownGroup,
    /// The server id is not in the configuration, or belongs to another data directory.
    NotAMember,
    /// Another live process uses this server id (I5).
    DuplicateIdentity,
    /// The role does not belong on this connection.
    WrongRole,
    /// Too many connections.
    Busy,
}
