//! Every future of the client dropped at each of its await points: nothing is left of it, here or on the server.

#[expect(dead_code, reason = "the tests of events use all of it")]
mod script;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use atomix_client::{Client, status};
use atomix_protocol::Address;
use atomix_protocol::client::Consistency;
use atomix_transport::{MemoryNetwork, Transport};
use script::{Script, Server, options};
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::timeout;

/// Polls a future so many times at most, then drops it.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A network with one server, and what runs without any client.
struct Rig {
    network: MemoryNetwork,
    server: Server,
    tasks: usize,
}

impl Rig {
    async fn new() -> Self {
        let network = MemoryNetwork::new();
        let server = Server::start(&network, "server", Script::Echo).await;
        yield_now().await;
        Rig { network, server, tasks: Handle::current().metrics().num_alive_tasks() }
    }

    fn connect(&self) -> impl Future<Output = Result<Client, atomix_client::ClientError>> + use<> {
        Client::connect(options(&["server"]), Arc::new(self.network.clone()))
    }

    /// Waits until nothing is left of any client.
    async fn nothing_left(&self) {
        let ended = async {
            while Handle::current().metrics().num_alive_tasks() > self.tasks {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), ended).await.expect("a task is left");
        assert!(self.server.sessions.borrow().is_empty(), "a session is left");
    }
}

#[tokio::test]
async fn a_dropped_connect_leaves_nothing_behind() {
    let rig = Rig::new().await;
    for polls in 0.. {
        let client = dropped_after(polls, rig.connect()).await;
        let connected = client.is_some();
        drop(client);
        rig.nothing_left().await;
        if connected {
            assert!(polls > 1, "it never waited");
            return;
        }
    }
}

#[tokio::test]
async fn a_connect_that_failed_leaves_nothing_behind() {
    let rig = Rig::new().await;
    for timeout in [0, 1, 2, 5, 10] {
        let mut options = options(&["server"]);
        options.connect_timeout = Duration::from_millis(timeout);
        let client = Client::connect(options, Arc::new(rig.network.clone())).await;
        drop(client);
        rig.nothing_left().await;
    }
}

#[tokio::test]
async fn a_dropped_close_can_be_repeated() {
    let rig = Rig::new().await;
    for polls in 0.. {
        let client = rig.connect().await.expect("connected");
        let closed = dropped_after(polls, client.close()).await;
        client.close().await.expect("closed, if need be once more");
        rig.nothing_left().await;
        if closed.is_some() {
            assert!(polls > 1, "it never waited");
            return;
        }
    }
}

#[tokio::test]
async fn a_dropped_close_closes() {
    let rig = Rig::new().await;
    let client = rig.connect().await.expect("connected");
    assert!(dropped_after(1, client.close()).await.is_none());
    rig.nothing_left().await;
}

#[tokio::test]
async fn dropped_commands_and_queries_leave_a_session_that_can_be_closed() {
    let rig = Rig::new().await;
    let mut completed = 0;
    for polls in 0..4 {
        let client = rig.connect().await.expect("connected");
        let session = client.session();
        let command = session.submit("command".into(), &mut |_| ());
        completed += usize::from(dropped_after(polls, command).await.is_some());
        for consistency in [Consistency::Linearizable, Consistency::Sequential, Consistency::Causal] {
            let query = session.query("query".into(), consistency);
            completed += usize::from(dropped_after(polls, query).await.is_some());
        }
        let later = session.now() + Duration::from_secs(3_600);
        assert_eq!(dropped_after(polls.min(1), session.sleep_until(later)).await, None);
        client.close().await.expect("closed");
        drop(session);
        rig.nothing_left().await;
    }
    assert!((1..16).contains(&completed), "some ended, and some were dropped: {completed}");
}

#[tokio::test]
async fn a_dropped_status_leaves_no_connection() {
    let rig = Rig::new().await;
    let transport: Arc<dyn Transport> = Arc::new(rig.network.clone());
    let address = Address::from("server");
    for polls in 0.. {
        let asked = status(transport.clone(), &address, Duration::from_secs(60));
        let answered = dropped_after(polls, asked).await;
        rig.nothing_left().await;
        if answered.is_some() {
            assert!(polls > 1, "it never waited");
            return;
        }
    }
}
