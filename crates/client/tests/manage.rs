//! What an operator asks of the leader, against scripted servers: who is asked, who is asked again, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use atomix_client::{ClientError, manage};
use atomix_protocol::change::{Change, ChangeRefused, TransferRefused};
use atomix_protocol::client::{ClientRequest, ClientResponse, Manage, ManageAction, ManageOutcome, Managed};
use atomix_protocol::codec::Frame;
use atomix_protocol::{Address, Configuration, GroupId, Index, ServerId, Term};
use atomix_transport::{Connection, MemoryNetwork, Transport};
use tokio::sync::mpsc;

/// Far longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
/// For what never comes.
const SHORT: Duration = Duration::from_millis(200);

/// What a server does with the next request. It repeats the last one for ever.
#[derive(Clone)]
enum Script {
    /// Answers so.
    Says(ManageOutcome),
    /// Answers with another word of the protocol.
    Responds(ClientResponse),
    /// Reads it, and closes the connection.
    Hangs(Up),
    /// Reads it, and says nothing.
    Silent,
}

#[derive(Clone, Copy, PartialEq)]
enum Up {
    BeforeHello,
    AfterRequest,
}

/// Serves by script; tells each request that arrives.
async fn server(
    network: &MemoryNetwork,
    address: &str,
    script: impl IntoIterator<Item = Script>,
) -> mpsc::UnboundedReceiver<ManageAction> {
    let mut listener = network.listen(address).await.expect("the address is free");
    let mut script: Vec<Script> = script.into_iter().collect();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            let now = if script.len() > 1 { script.remove(0) } else { script[0].clone() };
            held.extend(serve(connection, now, &tell).await);
        }
    });
    told
}

/// Returns the connection if it is to stay open.
async fn serve(
    mut connection: Connection,
    script: Script,
    tell: &mpsc::UnboundedSender<ManageAction>,
) -> Option<Connection> {
    let mut frames = Vec::new();
    while connection.receiver.receive(&mut frames).await.is_ok_and(|more| more) {
        for frame in frames.drain(..) {
            let answer = match Frame::decode(&frame).expect("clients speak the protocol") {
                Frame::Hello(_) if matches!(script, Script::Hangs(Up::BeforeHello)) => return None,
                Frame::Hello(hello) => Frame::Hello(hello),
                Frame::Request(ClientRequest::Manage(Manage { ticket, action })) => {
                    tell.send(action).expect("the test listens");
                    Frame::Response(match &script {
                        Script::Says(outcome) => {
                            ClientResponse::Managed(Managed { ticket, outcome: outcome.clone() })
                        }
                        Script::Responds(response) => response.clone(),
                        Script::Hangs(_) => return None,
                        Script::Silent => return Some(connection),
                    })
                }
                other => panic!("nobody asks that here: {other:?}"),
            };
            connection.sender.send(&mut vec![answer.encode(GroupId::DEFAULT)]).await.ok()?;
        }
    }
    None
}

fn change() -> ManageAction {
    ManageAction::Change(Change { expected: Index(3), remove: vec![ServerId(2)], ..Change::default() })
}

fn changed() -> ManageOutcome {
    ManageOutcome::Changed(Configuration { index: Index(9), ..Configuration::default() })
}

fn not_leader(leader: Option<&str>) -> Script {
    let leader = leader.map(Address::from);
    Script::Says(ManageOutcome::ChangeRefused(ChangeRefused::NotLeader { leader }))
}

async fn ask(
    network: &MemoryNetwork,
    addresses: &[&str],
    action: ManageAction,
    patience: Duration,
) -> Result<ManageOutcome, ClientError> {
    let addresses: Vec<Address> = addresses.iter().map(|address| Address::from(*address)).collect();
    manage(Arc::new(network.clone()), &addresses, action, patience).await
}

fn requests(told: &mut mpsc::UnboundedReceiver<ManageAction>) -> usize {
    std::iter::from_fn(|| told.try_recv().ok()).count()
}

#[tokio::test]
async fn the_leader_that_is_named_is_asked() {
    let network = MemoryNetwork::new();
    let mut follower = server(&network, "follower", [not_leader(Some("leader"))]).await;
    let mut leader = server(&network, "leader", [Script::Says(changed())]).await;
    let outcome = ask(&network, &["nobody", "follower", "other"], change(), LONG).await;
    assert_eq!(outcome, Ok(changed()));
    assert_eq!(leader.recv().await, Some(change()));
    assert_eq!((requests(&mut follower), requests(&mut leader)), (1, 0));
}

#[tokio::test]
async fn it_waits_for_a_leader() {
    let network = MemoryNetwork::new();
    let nobody = ClientResponse::NotLeader { leader: None, term: Term(4) };
    let script = [
        not_leader(None),
        Script::Responds(nobody),
        Script::Says(ManageOutcome::TransferRefused(TransferRefused::NotLeader { leader: None })),
        Script::Hangs(Up::BeforeHello),
        Script::Says(changed()),
    ];
    let mut server = server(&network, "server", script).await;
    assert_eq!(ask(&network, &["server"], change(), LONG).await, Ok(changed()));
    assert_eq!(requests(&mut server), 4, "a server that hung up before it was asked has not been asked");
}

#[tokio::test]
async fn two_that_name_each_other_do_not_keep_it_from_the_third() {
    let network = MemoryNetwork::new();
    let mut a = server(&network, "a", [not_leader(Some("b"))]).await;
    let _b = server(&network, "b", [not_leader(Some("a"))]).await;
    let _c = server(&network, "c", [Script::Says(changed())]).await;
    assert_eq!(ask(&network, &["a", "c"], change(), LONG).await, Ok(changed()));
    assert_eq!(requests(&mut a), 1);
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_unknown_and_not_asked_for_again() {
    for action in [change(), ManageAction::Transfer(None)] {
        let network = MemoryNetwork::new();
        let mut server = server(&network, "server", [Script::Hangs(Up::AfterRequest)]).await;
        let outcome = ask(&network, &["server", "server"], action.clone(), LONG).await;
        assert_eq!(outcome, Ok(ManageOutcome::Unknown));
        assert_eq!(requests(&mut server), 1);
    }
}

#[tokio::test]
async fn a_change_that_is_not_answered_in_time_is_unknown() {
    let network = MemoryNetwork::new();
    let mut server = server(&network, "server", [Script::Silent]).await;
    assert_eq!(ask(&network, &["server"], change(), SHORT).await, Ok(ManageOutcome::Unknown));
    assert_eq!(requests(&mut server), 1);
}

#[tokio::test]
async fn a_plan_whose_answer_is_lost_is_asked_for_again() {
    let network = MemoryNetwork::new();
    let plan = ManageAction::Plan(Change::default());
    let refused = ManageOutcome::ChangeRefused(ChangeRefused::NotEstablished);
    let script = [Script::Hangs(Up::AfterRequest), Script::Says(refused.clone())];
    let mut server = server(&network, "server", script).await;
    assert_eq!(ask(&network, &["server"], plan, LONG).await, Ok(refused));
    assert_eq!(requests(&mut server), 2);
}

#[tokio::test]
async fn refusals_of_a_leader_are_outcomes() {
    for outcome in [
        ManageOutcome::ChangeRefused(ChangeRefused::NotEstablished),
        ManageOutcome::ChangeRefused(ChangeRefused::Pending(Index(7))),
        ManageOutcome::TransferRefused(TransferRefused::Pending),
        ManageOutcome::Unknown,
    ] {
        let network = MemoryNetwork::new();
        let mut server = server(&network, "server", [Script::Says(outcome.clone())]).await;
        assert_eq!(ask(&network, &["server"], change(), LONG).await, Ok(outcome));
        assert_eq!(requests(&mut server), 1);
    }
}

#[tokio::test]
async fn a_request_that_is_refused_was_not_done() {
    let network = MemoryNetwork::new();
    let refused = ClientResponse::Refused { detail: "not for you".into() };
    let _strict = server(&network, "strict", [Script::Responds(refused)]).await;
    let _leader = server(&network, "leader", [Script::Says(changed())]).await;
    assert_eq!(ask(&network, &["strict", "leader"], change(), LONG).await, Ok(changed()));
    let error = ask(&network, &["strict"], change(), SHORT).await.expect_err("nobody does it");
    assert!(error.to_string().contains("not for you"), "{error}");
}

#[tokio::test]
async fn without_a_leader_nothing_was_changed() {
    let network = MemoryNetwork::new();
    let _follower = server(&network, "follower", [not_leader(Some("gone"))]).await;
    let error = ask(&network, &["follower", "nobody"], change(), SHORT).await.expect_err("nobody leads");
    let tried = ["follower", "gone", "nobody"].map(Address::from);
    assert!(matches!(&error, ClientError::Unreachable { tried: t, .. } if *t == tried), "{error:?}");
    let error = ask(&network, &[], change(), SHORT).await.expect_err("no address");
    assert!(matches!(error, ClientError::Settings(_)), "{error}");
}
