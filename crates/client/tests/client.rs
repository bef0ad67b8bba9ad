//! The driver against a scripted server: what it carries out, and what becomes of those who wait when it ends.

#[expect(dead_code, reason = "the tests of events use all of it")]
mod script;

use std::sync::Arc;
use std::time::Duration;

use atomix_client::{Client, ClientError, ClientOptions, status};
use atomix_protocol::client::Consistency;
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Refusal, RefusalReason};
use atomix_protocol::{Address, GroupId, Index, Sequence};
use atomix_session::{NotDone, Session, SessionError, SessionState};
use atomix_transport::{MemoryNetwork, Transport};
use bytes::Bytes;
use script::{SESSION, Script, Server, options};

/// Submits a command whose sequence does not matter.
fn submit(session: &Arc<dyn Session>, command: impl Into<Bytes>) -> atomix_session::Completion {
    session.submit(command.into(), &mut |_| ())
}

#[tokio::test]
async fn commands_complete_in_the_order_of_calls() {
    let network = MemoryNetwork::new();
    Server::start(&network, "server", Script::Echo).await;
    let client = Client::connect(options(&["nobody", "server"]), Arc::new(network)).await.expect("connected");
    assert_eq!(client.id(), SESSION);
    let session = client.session();
    let calls: Vec<_> = (0..100_u8).map(|number| submit(&session, vec![number])).collect();
    for (number, call) in (0..100_u8).zip(calls) {
        let outcome = call.await.expect("done");
        assert_eq!(
            (outcome.body, outcome.index),
            (Bytes::copy_from_slice(&[number]), Index(8 + u64::from(number)))
        );
    }
    assert_eq!(client.retries(), 0);
}

#[tokio::test]
async fn a_full_window_is_busy_at_once() {
    let network = MemoryNetwork::new();
    Server::start(&network, "server", Script::Silent).await;
    let mut options = options(&["server"]);
    (options.window, options.reserve) = (2, 1);
    let client = Client::connect(options, Arc::new(network)).await.expect("connected");
    let session = client.session();
    let _in_flight = (submit(&session, "one"), submit(&session, "two"));
    let mut numbers = Vec::new();
    let third = session.submit("three".into(), &mut |number| numbers.push(number)).await;
    assert_eq!(third, Err(SessionError::NotDone(NotDone::Busy)));
    assert_eq!(numbers, [], "it has no sequence");
}

#[tokio::test]
async fn nobody_answers_in_time() {
    let network = MemoryNetwork::new();
    let mut options = options(&["a", "b"]);
    options.connect_timeout = Duration::from_millis(100);
    let error = Client::connect(options, Arc::new(network.clone())).await.expect_err("nobody listens");
    let expected = [Address::from("a"), Address::from("b")];
    assert!(matches!(&error, ClientError::Unreachable { tried, .. } if *tried == expected), "{error}");
    let error =
        Client::connect(ClientOptions::new::<Address>([]), Arc::new(network)).await.expect_err("no address");
    assert!(matches!(error, ClientError::Settings(_)), "{error}");
}

#[test]
fn who_waits_learns_that_the_driver_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (session, command, query) = runtime.block_on(async {
        let network = MemoryNetwork::new();
        Server::start(&network, "server", Script::Silent).await;
        let client = Client::connect(options(&["server"]), Arc::new(network)).await.expect("connected");
        let session = client.session();
        let command = submit(&session, "command");
        let query = session.query("query".into(), Consistency::Linearizable);
        (session, command, query)
    });
    drop(runtime);
    assert!(session.state().is_final());
    let elsewhere = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    elsewhere.block_on(async {
        assert!(matches!(command.await, Err(SessionError::Unknown(_))));
        assert!(matches!(query.await, Err(SessionError::Unknown(_))));
        let late = submit(&session, "late").await;
        assert_eq!(late, Err(SessionError::NotDone(NotDone::SessionEnded)));
    });
}

#[tokio::test]
async fn the_last_reference_closes_the_session() {
    let network = MemoryNetwork::new();
    let mut server = Server::start(&network, "server", Script::Silent).await;
    let client = Client::connect(options(&["server"]), Arc::new(network)).await.expect("connected");
    let session = client.session();
    drop(client);
    assert_eq!((session.id(), session.state().is_final()), (SESSION, false));
    assert!(server.sessions.borrow().contains(&SESSION));
    drop(session);
    server.sessions.wait_for(|sessions| sessions.is_empty()).await.expect("it was left to expire");
}

#[tokio::test]
async fn a_sequence_is_told_at_the_call() {
    let network = MemoryNetwork::new();
    Server::start(&network, "server", Script::Echo).await;
    let client = Client::connect(options(&["server"]), Arc::new(network)).await.expect("connected");
    let session = client.session();
    let mut numbers = Vec::new();
    let calls: Vec<_> =
        (0..3).map(|_| session.submit("x".into(), &mut |number| numbers.push(number))).collect();
    assert_eq!(numbers, [Sequence(1), Sequence(2), Sequence(3)]);
    for call in calls {
        call.await.expect("done");
    }
    client.close().await.expect("closed");
    let late = session.submit("x".into(), &mut |number| numbers.push(number)).await;
    assert_eq!(late, Err(SessionError::NotDone(NotDone::SessionEnded)));
    assert_eq!(numbers.len(), 3);
}

#[tokio::test]
async fn closing_waits_for_the_cluster() {
    let network = MemoryNetwork::new();
    Server::start(&network, "server", Script::Silent).await;
    let mut options = options(&["server"]);
    options.session_timeout = Duration::from_millis(200);
    let client = Client::connect(options, Arc::new(network)).await.expect("connected");
    let session: Arc<dyn Session> = client.session();
    client.close().await.expect("it gives up after a session timeout");
    assert_eq!(session.state(), SessionState::Closed);
}

#[tokio::test]
async fn the_status_of_one_server() {
    let network = MemoryNetwork::new();
    Server::start(&network, "server", Script::Silent).await;
    let transport: Arc<dyn Transport> = Arc::new(network.clone());
    let patience = Duration::from_secs(10);
    assert_eq!(status(transport.clone(), &"server".into(), patience).await, Ok(Default::default()));

    let mut refusing = network.listen("refusing").await.expect("the address is free");
    let refuse = async {
        let mut connection = refusing.accept().await.expect("somebody connects");
        let refusal = Frame::Refusal(Refusal { reason: RefusalReason::Busy, detail: "too many".into() });
        connection.sender.send(&mut vec![refusal.encode(GroupId::DEFAULT)]).await.expect("it stands");
    };
    let address = Address::from("refusing");
    let (refused, ()) = tokio::join!(status(transport.clone(), &address, patience), refuse);
    assert!(matches!(&refused, Err(ClientError::Unreachable { reason, .. }) if reason.contains("too many")));

    let _silent = network.listen("silent").await.expect("the address is free");
    let silent = status(transport, &"silent".into(), Duration::from_millis(50)).await;
    assert!(matches!(&silent, Err(ClientError::Unreachable { reason, .. }) if reason.contains("no answer")));
}
