//! Events through the driver: to the sinks of their instance, in order, until the subscription or the session ends.

mod script;

use std::sync::{Arc, Weak};
use std::thread;

use atomix_client::Client;
use atomix_protocol::{Index, InstanceId};
use atomix_session::{EventSink, Session, SessionState};
use atomix_transport::MemoryNetwork;
use parking_lot::Mutex;
use script::{SESSION, Script, Server, options};
use tokio::sync::mpsc;
use tokio::task::yield_now;

type Seen = Arc<Mutex<Vec<String>>>;

async fn connected() -> (Server, Client) {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "server", Script::Echo).await;
    let client = Client::connect(options(&["server"]), Arc::new(network)).await.expect("connected");
    (server, client)
}

/// A sink that writes down what it is given.
fn sink(seen: &Seen, name: &'static str) -> EventSink {
    let seen = seen.clone();
    Box::new(move |index, body| {
        seen.lock().push(format!("{name} {index} {}", String::from_utf8_lossy(body)));
    })
}

/// A sink, and what ends when it is dropped.
fn watched_sink() -> (EventSink, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel(1);
    let sink: EventSink = Box::new(move |_, _| {
        let _ = sender.try_send(());
    });
    (sink, receiver)
}

async fn publish(session: &Arc<dyn Session>, body: &'static str) {
    session.submit(body.into(), &mut |_| ()).await.expect("done");
}

#[tokio::test]
async fn e5_events_reach_the_sinks_of_their_instance_before_the_reply_behind_them() {
    let (server, client) = connected().await;
    let (session, seen) = (client.session(), Seen::default());
    let _first = session.events(InstanceId(5), sink(&seen, "first"));
    let _second = session.events(InstanceId(5), sink(&seen, "second"));
    let _other = session.events(InstanceId(6), sink(&seen, "other"));
    server.publish(&[9], "nobody's");
    publish(&session, "publish a").await;
    assert_eq!(*seen.lock(), ["first 9 publish a", "second 9 publish a", "other 9 publish a"]);
    seen.lock().clear();
    server.publish(&[6], "b");
    server.publish(&[5], "c");
    publish(&session, "after them").await;
    assert_eq!(*seen.lock(), ["other 10 b", "first 11 c", "second 11 c"]);
}

#[tokio::test]
async fn e6_an_event_is_acknowledged_once_its_sinks_have_it() {
    let (mut server, client) = connected().await;
    let (session, seen) = (client.session(), Seen::default());
    let _subscription = session.events(InstanceId(5), sink(&seen, "sink"));
    server.publish_atomic(&[5], "join");
    server.acknowledged.wait_for(|index| *index == Index(SESSION.0 + 1)).await.expect("the server stands");
    assert_eq!(*seen.lock(), ["sink 8 join"], "nobody else has to take it");
}

#[tokio::test]
async fn a_dropped_subscription_takes_its_sink_away() {
    let (_server, client) = connected().await;
    let (session, seen) = (client.session(), Seen::default());
    let first = session.events(InstanceId(5), sink(&seen, "first"));
    let _second = session.events(InstanceId(5), sink(&seen, "second"));
    let (watched, mut dropped) = watched_sink();
    let third = session.events(InstanceId(5), watched);
    // Not in a task, nor in a runtime.
    thread::spawn(move || drop((first, third))).join().expect("no panic");
    assert_eq!(dropped.try_recv(), Err(mpsc::error::TryRecvError::Disconnected), "dropped at once");
    publish(&session, "publish a").await;
    assert_eq!(*seen.lock(), ["second 8 publish a"]);
}

#[tokio::test]
async fn a_sink_may_hold_what_ends_its_own_and_other_subscriptions() {
    let (_server, client) = connected().await;
    let session = client.session();
    let (watched, mut dropped) = watched_sink();
    let inner = session.events(InstanceId(6), watched);
    let outer = session.events(
        InstanceId(5),
        Box::new(move |_, _| {
            let _held = &inner;
        }),
    );
    drop(outer);
    assert_eq!(dropped.recv().await, None);
}

#[tokio::test]
async fn sinks_are_dropped_when_the_session_ends() {
    let (_server, client) = connected().await;
    let session = client.session();
    let (watched, mut dropped) = watched_sink();
    let subscription = session.events(InstanceId(5), watched);
    client.close().await.expect("closed");
    assert_eq!(dropped.recv().await, None);
    let (late, mut dropped) = watched_sink();
    let never = session.events(InstanceId(5), late);
    assert_eq!(dropped.recv().await, None, "there are no events any more");
    drop((subscription, never));
}

#[test]
fn sinks_are_dropped_when_the_driver_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (watched, mut dropped) = watched_sink();
    let (client, subscription) = runtime.block_on(async {
        let (_server, client) = connected().await;
        let subscription = client.session().events(InstanceId(5), watched);
        (client, subscription)
    });
    drop(runtime);
    assert_eq!(dropped.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    assert_eq!(client.session().state(), SessionState::Expired);
    let (late, mut dropped) = watched_sink();
    let never = client.session().events(InstanceId(5), late);
    assert_eq!(dropped.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    drop((subscription, never));
}

#[tokio::test]
async fn a_subscription_keeps_no_session_alive() {
    let (mut server, client) = connected().await;
    let (session, seen) = (client.session(), Seen::default());
    let subscription = session.events(InstanceId(5), sink(&seen, "sink"));
    drop((client, session));
    server.sessions.wait_for(|sessions| sessions.is_empty()).await.expect("the session was closed");
    drop(subscription);
    let weak: Weak<_> = Arc::downgrade(&seen);
    drop(seen);
    while weak.upgrade().is_some() {
        yield_now().await;
    }
}
