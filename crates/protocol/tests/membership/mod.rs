//! Frames by which members come, change and go.

use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::change::{Change, ChangeRefused, NewMember, Plan, Tolerance, TransferRefused};
use atomix_protocol::client::{ClientRequest, ClientResponse, Manage, ManageAction, ManageOutcome, Managed};
use atomix_protocol::codec::Frame;
use atomix_protocol::peer::{Configure, PeerMessage};
use atomix_protocol::{Address, Configuration, Incarnation, Index, MemberKind, ServerId, Term};

fn newcomer(kind: MemberKind) -> NewMember {
    NewMember {
        incarnation: Incarnation(0xA2),
        peer_address: Address::from("b:1"),
        client_address: Address::from("b:2"),
        kind,
        priority: 3,
    }
}

fn change() -> Change {
    Change {
        expected: Index(300),
        add: vec![newcomer(MemberKind::Learner)],
        set_kind: vec![(ServerId(4), MemberKind::Voter), (ServerId(5), MemberKind::Reserve)],
        set_priority: vec![(ServerId(1), 9)],
        remove: vec![ServerId(2)],
    }
}

fn requests() -> Vec<(&'static str, Frame)> {
    let actions = [
        ("manage, plan", ManageAction::Plan(change())),
        ("manage, change", ManageAction::Change(Change { expected: Index(300), ..Change::default() })),
        ("manage, transfer", ManageAction::Transfer(None)),
        ("manage, transfer to", ManageAction::Transfer(Some(ServerId(2)))),
    ];
    let request = |action| Frame::Request(ClientRequest::Manage(Manage { ticket: 4, action }));
    actions.into_iter().map(|(name, action)| (name, request(action))).collect()
}

fn refusals() -> Vec<ManageOutcome> {
    let leader = Some(Address::from("a:2"));
    let changes = [
        ChangeRefused::NotLeader { leader: leader.clone() },
        ChangeRefused::NotEstablished,
        ChangeRefused::Pending(Index(300)),
        ChangeRefused::Changed(Index(300)),
        ChangeRefused::HandingOver,
        ChangeRefused::Busy,
        ChangeRefused::Malformed,
        ChangeRefused::UnknownMember(ServerId(2)),
        ChangeRefused::AlreadyMember(ServerId(2)),
        ChangeRefused::AddressInUse(ServerId(2)),
        ChangeRefused::NotALearner,
        ChangeRefused::NotCaughtUp { server: ServerId(2), behind: 300 },
        ChangeRefused::NoQuorum { answering: 1, voters: 3 },
        ChangeRefused::Voters(8),
        ChangeRefused::Members(65),
        ChangeRefused::AddressTooLong(300),
    ];
    let transfers = [
        TransferRefused::NotLeader { leader },
        TransferRefused::NotATarget(ServerId(2)),
        TransferRefused::Nobody,
        TransferRefused::Pending,
        TransferRefused::Changing,
        TransferRefused::TimedOut,
    ];
    let changes = changes.into_iter().map(ManageOutcome::ChangeRefused);
    changes.chain(transfers.into_iter().map(ManageOutcome::TransferRefused)).collect()
}

fn responses(configuration: &Configuration) -> Vec<(&'static str, Frame)> {
    let tolerance = |voters| Tolerance { voters, quorum: 2, failures: 1, answering: 3 };
    let plan = Plan {
        configuration: configuration.clone(),
        before: tolerance(3),
        during: Some(tolerance(4)),
        after: tolerance(3),
        refused: Some(ChangeRefused::Busy),
    };
    let mut outcomes = vec![
        ("managed, planned", ManageOutcome::Planned(Box::new(plan))),
        ("managed, changed", ManageOutcome::Changed(configuration.clone())),
        ("managed, transferred", ManageOutcome::Transferred(ServerId(2))),
        ("managed, unknown", ManageOutcome::Unknown),
    ];
    outcomes.extend(refusals().into_iter().map(|refused| ("managed, refused", refused)));
    let response = |outcome| Frame::Response(ClientResponse::Managed(Managed { ticket: 4, outcome }));
    outcomes.into_iter().map(|(name, outcome)| (name, response(outcome))).collect()
}

/// One frame of every kind.
pub(crate) fn frames(configuration: &Configuration) -> Vec<(&'static str, Frame)> {
    let configure = Configure { term: Term(9), configuration: configuration.clone() };
    let mut frames = vec![
        ("kinds", Frame::Kinds(vec![("map".into(), 40), ("lock".into(), 7)])),
        ("configure", Frame::Peer(PeerMessage::Configure(configure))),
    ];
    for kind in [MemberKind::Voter, MemberKind::Learner, MemberKind::Reserve, MemberKind::Leaving] {
        frames.push(("join", Frame::Bootstrap(BootstrapMessage::Join(newcomer(kind)))));
    }
    frames.extend(requests());
    frames.extend(responses(configuration));
    frames
}
