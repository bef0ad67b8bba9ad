//! Who plays in histories of one server: it is server 1, the others are the history's.

use atomix_protocol::handshake::{Hello, Role};
use atomix_protocol::{
    Address, BootNonce, ClusterId, Configuration, Incarnation, Member, MemberKind, ServerId,
};

pub(super) const CLUSTER: ClusterId = ClusterId(7);

pub(super) fn address(server: u64) -> Address {
    Address::new(format!("server-{server}"))
}

pub(super) fn incarnation(server: u64) -> Incarnation {
    Incarnation(u128::from(server) << 100)
}

/// As many voters, under the first ids.
pub(super) fn configuration(members: u64) -> Configuration {
    let member = |server| Member {
        id: ServerId(server),
        incarnation: incarnation(server),
        peer_address: address(server),
        client_address: address(server),
        kind: MemberKind::Voter,
        priority: 0,
    };
    Configuration {
        cluster: CLUSTER,
        members: (1..=members).map(member).collect(),
        next_server_id: members + 1,
        ..Configuration::default()
    }
}

/// What that server says first.
pub(super) fn peer(server: u64) -> Hello {
    Hello {
        role: Role::Peer,
        server: Some(ServerId(server)),
        incarnation: incarnation(server),
        ..Hello::of_client(Some(CLUSTER), BootNonce(server * 10))
    }
}
