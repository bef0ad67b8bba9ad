//! What every transport must do.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use atomix_transport::{Connection, FrameReceiver, Listener, Transport, TransportError};
use bytes::Bytes;
use tokio::time::timeout;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the suite within a tokio runtime with time enabled. `address` can be listened at any number of times, one after
/// the other; `nobody` is an address at which nobody listens.
///
/// # Panics
/// If the transport breaks the contract; the message says how.
pub async fn suite(transport: Arc<dyn Transport>, address: &str, nobody: &str) {
    let suite = async {
        unreachable_is_said(&*transport, nobody).await;
        address_can_be_taken_once(&*transport, address).await;
        frames_arrive_whole_and_in_order(&*transport, address).await;
        both_directions_are_independent(&*transport, address).await;
        closing_delivers_what_was_sent(&*transport, address).await;
        receiving_is_cancel_safe(&*transport, address).await;
        accepting_is_cancel_safe(&*transport, address).await;
        a_reader_that_stops_stops_the_sender(&*transport, address).await;
        a_lost_connection_fails_the_sender(&*transport, address).await;
        connections_outlive_their_listener(&*transport, address).await;
    };
    timeout(PATIENCE, suite).await.expect("the suite ends in time");
}

async fn unreachable_is_said(transport: &dyn Transport, nobody: &str) {
    let error = transport.connect(nobody).await.expect_err("nobody listens there");
    assert!(matches!(error, TransportError::Unreachable { .. }), "not Unreachable: {error}");
}

async fn address_can_be_taken_once(transport: &dyn Transport, address: &str) {
    let listener = listen(transport, address).await;
    let error = transport.listen(&listener.address()).await.err().expect("the address is taken");
    assert!(matches!(error, TransportError::CannotListen { .. }), "not CannotListen: {error}");
    drop(listener);
}

async fn frames_arrive_whole_and_in_order(transport: &dyn Transport, address: &str) {
    let (mut near, mut far, _listener) = pair(transport, address).await;
    let lengths = [0, 1, 11, 12, 13, 4_095, 4_096, 4_097, 65_536, 0, 1 << 20, 2];
    let sent: Vec<Bytes> =
        lengths.iter().enumerate().map(|(number, length)| frame(number, *length)).collect();
    for batches in [vec![sent.clone()], sent.iter().map(|frame| vec![frame.clone()]).collect()] {
        let sending = async {
            for mut batch in batches {
                near.sender.send(&mut batch).await.expect("the other end reads");
                assert!(batch.is_empty(), "send left frames behind");
            }
        };
        let ((), received) = both(sending, receive(&mut *far.receiver, sent.len())).await;
        assert!(received == sent, "frames changed, vanished or swapped places");
    }
}

async fn both_directions_are_independent(transport: &dyn Transport, address: &str) {
    let (near, far, _listener) = pair(transport, address).await;
    let sent: Vec<Bytes> = (0..2_000).map(|number| frame(number, 100 + number)).collect();
    let end = |mut connection: Connection, sent: Vec<Bytes>| async move {
        let sending = async {
            for batch in sent.chunks(7) {
                connection.sender.send(&mut batch.to_vec()).await.expect("the other end reads");
            }
        };
        let ((), received) = both(sending, receive(&mut *connection.receiver, sent.len())).await;
        assert!(received == sent, "frames changed, vanished or swapped places");
        connection
    };
    both(end(near, sent.clone()), end(far, sent)).await;
}

async fn closing_delivers_what_was_sent(transport: &dyn Transport, address: &str) {
    let (mut near, mut far, _listener) = pair(transport, address).await;
    near.sender.send(&mut vec![frame(1, 100), frame(2, 0)]).await.expect("the connection stands");
    drop(near.sender);
    assert_eq!(receive(&mut *far.receiver, 2).await, [frame(1, 100), frame(2, 0)]);
    let mut rest = Vec::new();
    assert_eq!(far.receiver.receive(&mut rest).await, Ok(false), "the end is not reported");
    assert!(rest.is_empty(), "frames appended at the end");
    drop(far);
    assert!(!matches!(near.receiver.receive(&mut rest).await, Ok(true)), "a frame out of nothing");
}

async fn receiving_is_cancel_safe(transport: &dyn Transport, address: &str) {
    let (mut near, mut far, _listener) = pair(transport, address).await;
    let sent: Vec<Bytes> = (0..50).map(|number| frame(number, 20_000)).collect();
    let sending = async {
        for frame in &sent {
            near.sender.send(&mut vec![frame.clone()]).await.expect("the other end reads");
        }
    };
    let receiving = async {
        let mut received = Vec::new();
        while received.len() < sent.len() {
            // Polled once, then dropped, over and over.
            let polled = once(far.receiver.receive(&mut received)).await;
            assert!(matches!(polled, None | Some(Ok(true))), "{polled:?}");
            tokio::task::yield_now().await;
        }
        received
    };
    let ((), received) = both(sending, receiving).await;
    assert!(received == sent, "frames lost by dropping receive");
}

async fn accepting_is_cancel_safe(transport: &dyn Transport, address: &str) {
    let mut listener = listen(transport, address).await;
    assert!(once(listener.accept()).await.is_none(), "a connection out of nothing");
    // Connections that arrive before they are accepted wait.
    let mut near = transport.connect(&listener.address()).await.expect("somebody listens");
    near.sender.send(&mut vec![frame(1, 10)]).await.expect("the connection stands");
    let mut far = listener.accept().await.expect("somebody connected");
    assert_eq!(receive(&mut *far.receiver, 1).await, [frame(1, 10)]);
}

async fn a_reader_that_stops_stops_the_sender(transport: &dyn Transport, address: &str) {
    let (mut near, mut far, _listener) = pair(transport, address).await;
    let batch: Vec<Bytes> = (0..16).map(|number| frame(number, 1 << 16)).collect();
    let mut sent = 0;
    let sending = async {
        // A gigabyte must not fit anywhere.
        while sent < 1_024 {
            near.sender.send(&mut batch.clone()).await.expect("the connection stands");
            sent += 1;
        }
    };
    let stopped = timeout(Duration::from_millis(300), sending).await.is_err();
    assert!(stopped, "the sender was never stopped");
    drop(near);
    // What was sent whole before is not lost; the call that was dropped may have left a torn end.
    let mut received = Vec::new();
    while matches!(far.receiver.receive(&mut received).await, Ok(true)) {}
    assert!(received.len() >= sent * batch.len(), "only {} of {} frames", received.len(), sent * batch.len());
    assert!(received.chunks(batch.len()).all(|chunk| chunk == &batch[..chunk.len()]), "frames out of order");
}

async fn a_lost_connection_fails_the_sender(transport: &dyn Transport, address: &str) {
    let (mut near, far, _listener) = pair(transport, address).await;
    drop(far);
    let failing = async { while near.sender.send(&mut vec![frame(1, 1_000)]).await.is_ok() {} };
    timeout(PATIENCE, failing).await.expect("sending into nothing fails sooner or later");
}

async fn connections_outlive_their_listener(transport: &dyn Transport, address: &str) {
    let (mut near, mut far, listener) = pair(transport, address).await;
    let listened = listener.address();
    drop(listener);
    near.sender.send(&mut vec![frame(1, 10)]).await.expect("the connection stands");
    assert_eq!(receive(&mut *far.receiver, 1).await, [frame(1, 10)]);
    let again = listen(transport, &listened).await;
    assert_eq!(again.address(), listened);
}

async fn listen(transport: &dyn Transport, address: &str) -> Box<dyn Listener> {
    transport.listen(address).await.expect("the address is free")
}

async fn pair(transport: &dyn Transport, address: &str) -> (Connection, Connection, Box<dyn Listener>) {
    let mut listener = listen(transport, address).await;
    let near = transport.connect(&listener.address()).await.expect("somebody listens");
    let far = listener.accept().await.expect("somebody connected");
    (near, far, listener)
}

async fn receive(receiver: &mut dyn FrameReceiver, count: usize) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let before = frames.len();
        assert_eq!(receiver.receive(&mut frames).await, Ok(true), "the connection ended early");
        assert!(frames.len() > before, "nothing appended");
    }
    frames
}

/// A frame whose every byte depends on its number.
fn frame(number: usize, length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from((number * 131 + at * 7) % 251).unwrap_or(0)).collect()
}

/// Polls a future exactly once.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Runs two futures at the same time, on this task.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_done, mut b_done) = (None, None);
    std::future::poll_fn(move |cx| {
        if a_done.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            a_done = Some(output);
        }
        if b_done.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            b_done = Some(output);
        }
        match (a_done.take(), b_done.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (a_done, b_done) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
