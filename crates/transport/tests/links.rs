//! Many connections by number.

use std::sync::Arc;
use std::time::Duration;

use atomix_transport::{Connection, LinkEvent, LinkLimits, Links, MemoryNetwork, Transport, TransportError};
use bytes::Bytes;

const LINK: u64 = 1;

fn limits() -> LinkLimits {
    LinkLimits { linger: Duration::from_secs(10), ..LinkLimits::default() }
}

/// A dialled link, and the other end of it as a bare connection.
async fn dialed(limits: LinkLimits) -> (Links, Connection) {
    let network = MemoryNetwork::new();
    let mut listener = network.listen("there").await.expect("free");
    let mut links = Links::new(Arc::new(network), limits);
    links.dial(LINK, "there");
    let far = listener.accept().await.expect("dialled");
    assert!(matches!(links.next().await, LinkEvent::Dialed(LINK)));
    (links, far)
}

async fn receive(connection: &mut Connection, count: usize) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while frames.len() < count {
        assert_eq!(connection.receiver.receive(&mut frames).await, Ok(true));
    }
    frames
}

#[tokio::test]
async fn nobody_there_closes_the_link() {
    let mut links = Links::new(Arc::new(MemoryNetwork::new()), limits());
    links.dial(LINK, "there");
    let event = links.next().await;
    assert!(matches!(event, LinkEvent::Closed(LINK, TransportError::Unreachable { .. })), "{event:?}");
    assert!(links.try_next().is_none());
}

#[tokio::test]
async fn frames_leave_with_the_flush_in_order() {
    let (mut links, mut far) = dialed(limits()).await;
    for text in ["a", "b", "c"] {
        links.send(LINK, text.into());
    }
    links.flush();
    assert_eq!(receive(&mut far, 3).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn the_other_end_closing_is_the_last_event() {
    let (mut links, mut far) = dialed(limits()).await;
    far.sender.send(&mut vec!["last".into()]).await.expect("the link stands");
    drop(far);
    assert!(matches!(links.next().await, LinkEvent::Frames(LINK, frames) if frames == ["last"]));
    assert!(matches!(links.next().await, LinkEvent::Closed(LINK, TransportError::Lost(_))));
    links.send(LINK, "into nothing".into());
    links.flush();
    assert!(links.try_next().is_none());
}

#[tokio::test]
async fn closing_delivers_what_was_sent_even_to_a_slow_reader() {
    let (mut links, mut far) = dialed(limits()).await;
    // More batches than the network takes at once, so that a task has to finish.
    for number in 0..1_000_u32 {
        links.send(LINK, Bytes::copy_from_slice(&number.to_le_bytes()));
        links.flush();
    }
    links.close(LINK);
    let frames = receive(&mut far, 1_000).await;
    assert!(frames.iter().zip(0_u32..).all(|(frame, number)| frame[..] == number.to_le_bytes()));
    assert_eq!(far.receiver.receive(&mut Vec::new()).await, Ok(false));
    assert!(links.try_next().is_none(), "nothing is reported of a link that was closed");
}

#[tokio::test]
async fn what_waits_beyond_the_bound_closes_the_link() {
    let (mut links, _far) = dialed(LinkLimits { queued_bytes: 10_000, ..limits() }).await;
    let mut sent = 0;
    let closed = loop {
        links.send(LINK, Bytes::from_static(&[0; 100]));
        links.flush();
        sent += 100;
        if let Some(event) = links.try_next() {
            break event;
        }
        assert!(sent < 10_000_000, "never closed");
    };
    assert!(matches!(closed, LinkEvent::Closed(LINK, TransportError::Lost(_))), "{closed:?}");
}

#[tokio::test]
async fn a_link_closed_while_dialling_never_stands() {
    let network = MemoryNetwork::new();
    let mut listener = network.listen("there").await.expect("free");
    let mut links = Links::new(Arc::new(network), limits());
    links.dial(LINK, "there");
    let mut far = listener.accept().await.expect("dialled");
    links.close(LINK);
    let closed = tokio::select! {
        closed = async { far.receiver.receive(&mut Vec::new()).await } => closed,
        event = links.next() => panic!("{event:?}"),
    };
    assert_eq!(closed, Ok(false));
}

#[tokio::test]
async fn beyond_the_limit_whoever_connects_is_turned_away() {
    let network: Arc<dyn Transport> = Arc::new(MemoryNetwork::new());
    let mut links = Links::new(network.clone(), LinkLimits { links: 1, ..limits() });
    links.serve(network.listen("here").await.expect("free"));
    let mut first = network.connect("here").await.expect("listening");
    let LinkEvent::Accepted(connection) = links.next().await else { panic!("somebody connected") };
    links.adopt(LINK, connection);
    let mut second = network.connect("here").await.expect("listening");
    first.sender.send(&mut vec!["hello".into()]).await.expect("the link stands");
    assert!(matches!(links.next().await, LinkEvent::Frames(LINK, _)));
    let turned_away = async {
        tokio::select! {
            closed = async { second.receiver.receive(&mut Vec::new()).await } => closed,
            event = links.next() => panic!("{event:?}"),
        }
    };
    assert_eq!(turned_away.await, Ok(false));
}

#[tokio::test]
async fn dropping_the_links_ends_them() {
    let (links, mut far) = dialed(limits()).await;
    drop(links);
    assert_eq!(far.receiver.receive(&mut Vec::new()).await, Ok(false));
}

#[tokio::test]
async fn closing_all_waits_for_the_last_frames() {
    let (mut links, mut far) = dialed(limits()).await;
    links.send(LINK, "bye".into());
    let far_end = tokio::spawn(async move { receive(&mut far, 1).await });
    links.close_all().await;
    assert_eq!(far_end.await.expect("no panic"), ["bye"]);
}
