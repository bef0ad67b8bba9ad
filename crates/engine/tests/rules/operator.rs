//! What a test does as the operator of a world, and servers that come to it later.

use atomix_engine::Input;
use atomix_protocol::change::{Change, ChangeRefused, NewMember, TransferRefused};
use atomix_protocol::client::{ClientRequest, ClientResponse, Manage, ManageAction, ManageOutcome};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Hello;
use atomix_protocol::{Address, Configuration, GroupId, LinkId, MemberKind, ServerId};

use crate::solo::client;
use crate::world::World;

/// An operator's link to one server.
#[derive(Clone, Copy)]
pub(crate) struct Desk {
    pub(crate) server: usize,
    pub(crate) link: LinkId,
}

impl World {
    pub(crate) fn desk(&mut self, server: usize) -> Desk {
        self.desk_of(server, client(None))
    }

    /// A link to a server from somebody who says this first.
    pub(crate) fn desk_of(&mut self, server: usize, hello: Hello) -> Desk {
        let link = self.servers[server].engine.as_mut().expect("a server that runs").accept();
        self.step(server, Input::Accepted(link));
        let desk = Desk { server, link };
        self.say(desk, &Frame::Hello(hello));
        desk
    }

    pub(crate) fn say(&mut self, desk: Desk, frame: &Frame) {
        self.step(desk.server, Input::Frame(desk.link, frame.encode(GroupId::DEFAULT)));
    }

    pub(crate) fn order(&mut self, desk: Desk, ticket: u64, action: ManageAction) {
        self.say(desk, &Frame::Request(ClientRequest::Manage(Manage { ticket, action })));
    }

    /// How a request ended, if it has.
    pub(crate) fn outcome(&self, desk: Desk, asked: u64) -> Option<ManageOutcome> {
        let heard =
            self.heard.iter().filter(|(server, link, _)| (*server, *link) == (desk.server, desk.link));
        let mut outcomes = heard.filter_map(|(_, _, frame)| match Frame::decode(frame) {
            Ok(Frame::Response(ClientResponse::Managed(managed))) if managed.ticket == asked => {
                Some(managed.outcome)
            }
            _ => None,
        });
        let first = outcomes.next();
        assert_eq!(outcomes.next(), None, "one answer");
        first
    }

    pub(crate) fn ordered(&mut self, desk: Desk, ticket: u64, action: ManageAction) -> ManageOutcome {
        self.order(desk, ticket, action);
        self.until("an answer", |world| world.outcome(desk, ticket).is_some());
        self.outcome(desk, ticket).expect("just seen")
    }

    /// A change at the leader, made to be complete.
    #[track_caller]
    pub(crate) fn changed(&mut self, change: impl Fn(&mut Change) + Copy) -> Configuration {
        for _ in 0..100 {
            let (server, change) = self.change_at_leader(change);
            let desk = self.desk(server);
            match self.ordered(desk, 1, ManageAction::Change(change)) {
                ManageOutcome::Changed(configuration) => return configuration,
                // These pass.
                ManageOutcome::ChangeRefused(
                    ChangeRefused::NotCaughtUp { .. }
                    | ChangeRefused::NotEstablished
                    | ChangeRefused::Pending(_)
                    | ChangeRefused::NotLeader { .. },
                ) => self.run(std::time::Duration::from_millis(100)),
                other => panic!("{other:?}"),
            }
        }
        panic!("refused for ever:\n{}", self.describe());
    }

    /// The leader, and a change of the configuration that it uses.
    pub(crate) fn change_at_leader(&mut self, change: impl Fn(&mut Change)) -> (usize, Change) {
        self.until("a leader", |world| world.leader().is_some());
        let leader = self.leader().expect("just seen");
        let mut asked = Change { expected: self.status(leader).configuration_index, ..Change::default() };
        change(&mut asked);
        (leader, asked)
    }

    /// What a server says of itself for an operator to add it.
    pub(crate) fn newcomer(&self, server: usize, kind: MemberKind) -> NewMember {
        let status = self.status(server);
        NewMember {
            incarnation: status.incarnation,
            peer_address: status.address,
            client_address: status.client_address,
            kind,
            priority: 0,
        }
    }

    /// One more server on an empty directory, told to join through these. It does not run yet.
    pub(crate) fn joiner(&mut self, through: &[usize]) -> usize {
        let join: Vec<Address> = through.iter().map(|server| self.servers[*server].address.clone()).collect();
        let mut more = World::new(self.servers.len() + 1);
        let mut server = more.servers.pop().expect("at least one");
        (server.list, server.join) = (Vec::new(), join);
        self.servers.push(server);
        self.servers.len() - 1
    }

    /// Ids of the voters, as that server's configuration in use has them.
    pub(crate) fn voters(&self, server: usize) -> Vec<u64> {
        let members = self.status(server).members;
        members.iter().filter(|m| m.kind == MemberKind::Voter).map(|member| member.id.0).collect()
    }

    pub(crate) fn id(&self, server: usize) -> ServerId {
        self.status(server).server.expect("a member")
    }

    /// Whether all these have committed one configuration with these voters.
    pub(crate) fn agree(&self, servers: &[usize], voters: &[u64]) -> bool {
        let first = self.status(servers[0]).committed_configuration;
        servers.iter().all(|server| {
            let status = self.status(*server);
            (status.committed_configuration, status.configuration_index) == (first, first)
                && !status.joint
                && self.voters(*server) == voters
        })
    }
}

pub(crate) fn not_transferred(outcome: ManageOutcome) -> TransferRefused {
    match outcome {
        ManageOutcome::TransferRefused(refused) => refused,
        other => panic!("{other:?}"),
    }
}
