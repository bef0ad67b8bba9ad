//! The driver against a scripted server: what it carries out, and what becomes of those who wait when it ends.

use std::sync::Arc;
use std::time::Duration;

use atomix_client::{Client, ClientError, ClientOptions, status};
use atomix_protocol::client::{
    ClientRequest, ClientResponse, Consistency, Opened, ReplyHeader, ReplyOutcome,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Refusal, RefusalReason, Role};
use atomix_protocol::session::SessionEntry;
use atomix_protocol::{Address, ClusterId, GroupId, Index, ServerId, SessionId};
use atomix_session::{NotDone, Session, SessionError, SessionState};
use atomix_transport::{LinkEvent, LinkLimits, Links, MemoryNetwork, Transport};
use bytes::Bytes;

const SESSION: SessionId = SessionId(7);

/// How the scripted server treats commands.
#[derive(Clone, Copy, PartialEq)]
enum Script {
    /// Replies to each with its own body, at an index of its own.
    Echo,
    /// Says nothing to any.
    Silent,
}

/// Serves until its task is dropped.
async fn serve(network: MemoryNetwork, address: &str, script: Script) {
    let listener = network.listen(address).await.expect("the address is free");
    let mut links = Links::new(Arc::new(network), LinkLimits::default());
    links.serve(listener);
    tokio::spawn(async move {
        let mut last_link = 0;
        loop {
            match links.next().await {
                LinkEvent::Accepted(connection) => {
                    last_link += 1;
                    links.adopt(last_link, connection);
                }
                LinkEvent::Frames(link, frames) => {
                    for reply in frames.iter().filter_map(|frame| answer(frame, script)) {
                        links.send(link, reply.encode(GroupId::DEFAULT));
                    }
                    links.flush();
                }
                LinkEvent::Dialed(_) | LinkEvent::Closed(..) => {}
            }
        }
    });
}

fn answer(frame: &Bytes, script: Script) -> Option<Frame> {
    let response = match Frame::decode(frame).expect("clients speak the protocol") {
        Frame::Hello(mut hello) => {
            hello.role = Role::Server;
            hello.cluster = Some(ClusterId(1));
            hello.server = Some(ServerId(1));
            return Some(Frame::Hello(hello));
        }
        Frame::Request(ClientRequest::Open(open)) => ClientResponse::Opened(Opened {
            attempt: open.attempt,
            session: SESSION,
            timeout_ms: open.timeout_ms,
        }),
        Frame::Request(ClientRequest::KeepAlive(alive)) => {
            ClientResponse::Confirmed { contact: alive.contact }
        }
        Frame::Request(ClientRequest::Status) => ClientResponse::Status(Default::default()),
        Frame::Request(ClientRequest::Command(entry)) if script == Script::Echo => {
            let SessionEntry::Command(header, body) = SessionEntry::decode(&entry).expect("a command") else {
                panic!("not a command");
            };
            let header = ReplyHeader {
                sequence: header.sequence,
                index: Index(SESSION.0 + header.sequence.0),
                event_index: Index::ZERO,
                outcome: ReplyOutcome::Applied,
            };
            ClientResponse::Reply(header, body)
        }
        _ => return None,
    };
    Some(Frame::Response(response))
}

fn options(servers: &[&str]) -> ClientOptions {
    let mut options = ClientOptions::new(servers.iter().copied());
    options.connect_timeout = Duration::from_secs(10);
    options
}

#[tokio::test]
async fn commands_complete_in_the_order_of_calls() {
    let network = MemoryNetwork::new();
    serve(network.clone(), "server", Script::Echo).await;
    let client = Client::connect(options(&["nobody", "server"]), Arc::new(network)).await.expect("connected");
    assert_eq!(client.id(), SESSION);
    let session = client.session();
    let calls: Vec<_> = (0..100_u8).map(|number| session.submit(Bytes::copy_from_slice(&[number]))).collect();
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
    serve(network.clone(), "server", Script::Silent).await;
    let mut options = options(&["server"]);
    (options.window, options.reserve) = (2, 1);
    let client = Client::connect(options, Arc::new(network)).await.expect("connected");
    let session = client.session();
    let _in_flight = (session.submit("one".into()), session.submit("two".into()));
    let third = session.submit("three".into()).await.expect_err("the window is full");
    assert_eq!(third, SessionError::NotDone(NotDone::Busy));
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
        serve(network.clone(), "server", Script::Silent).await;
        let client = Client::connect(options(&["server"]), Arc::new(network)).await.expect("connected");
        let session = client.session();
        let command = session.submit("command".into());
        let query = session.query("query".into(), Consistency::Linearizable);
        (session, command, query)
    });
    drop(runtime);
    assert!(session.state().is_final());
    let elsewhere = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    elsewhere.block_on(async {
        assert!(matches!(command.await, Err(SessionError::Unknown(_))));
        assert!(matches!(query.await, Err(SessionError::Unknown(_))));
        let late = session.submit("late".into()).await;
        assert_eq!(late, Err(SessionError::NotDone(NotDone::SessionEnded)));
    });
}

#[tokio::test]
async fn the_last_reference_closes_the_session() {
    let network = MemoryNetwork::new();
    let mut listener = network.listen("server").await.expect("the address is free");
    let connecting = tokio::spawn(Client::connect(options(&["server"]), Arc::new(network)));
    let mut connection = listener.accept().await.expect("the client connects");
    let mut closed = false;
    let mut client = Some(connecting);
    let mut frames = Vec::new();
    while !closed && connection.receiver.receive(&mut frames).await.expect("the client speaks") {
        for frame in frames.drain(..) {
            closed |= matches!(Frame::decode(&frame), Ok(Frame::Request(ClientRequest::Close)));
            if let Some(answer) = answer(&frame, Script::Silent) {
                connection.sender.send(&mut vec![answer.encode(GroupId::DEFAULT)]).await.expect("it stands");
            }
            if matches!(Frame::decode(&frame), Ok(Frame::Request(ClientRequest::Open(_)))) {
                let client = client.take().expect("one session").await.expect("no panic").expect("connected");
                assert_eq!(client.session().id(), SESSION);
            }
        }
    }
    assert!(closed, "the session was left to expire");
}

#[tokio::test]
async fn closing_waits_for_the_cluster() {
    let network = MemoryNetwork::new();
    serve(network.clone(), "server", Script::Silent).await;
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
    serve(network.clone(), "server", Script::Silent).await;
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
