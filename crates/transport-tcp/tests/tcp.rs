//! Frames over real sockets, good and bad.

use std::sync::Arc;
use std::time::Duration;

use atomix_testkit::conformance::transport;
use atomix_transport::{Connection, Transport, TransportError};
use atomix_transport_tcp::{TcpOptions, TcpTransport};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: usize = 1_000;

fn limited() -> TcpTransport {
    let mut options = TcpOptions::default();
    options.frame_bytes = LIMIT;
    TcpTransport::new(options)
}

/// A bare socket, and the connection that a listener made of its other end.
async fn bare() -> (TcpStream, Connection) {
    let mut listener = limited().listen("127.0.0.1:0").await.expect("a free port");
    let bare = TcpStream::connect(listener.address()).await.expect("listening");
    (bare, listener.accept().await.expect("connected"))
}

/// What a connection makes of these bytes and the end behind them: the frames, then how it ended.
async fn check(bytes: &[u8]) -> (Vec<Bytes>, Result<bool, TransportError>) {
    let (mut bare, mut connection) = bare().await;
    bare.write_all(bytes).await.expect("the socket stands");
    bare.shutdown().await.expect("the socket stands");
    let mut frames = Vec::new();
    loop {
        match connection.receiver.receive(&mut frames).await {
            Ok(true) => {}
            ended => return (frames, ended),
        }
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [b"AtxF", &length.to_le_bytes()[..], &crc32c::crc32c(payload).to_le_bytes(), payload].concat()
}

#[tokio::test]
async fn one_thread_keeps_the_contract() {
    transport::suite(Arc::new(TcpTransport::default()), "127.0.0.1:0", "127.0.0.1:1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_threads_keep_the_contract() {
    transport::suite(Arc::new(TcpTransport::default()), "127.0.0.1:0", "127.0.0.1:1").await;
}

#[tokio::test]
async fn golden_stream() {
    let mut listener = limited().listen("127.0.0.1:0").await.expect("a free port");
    let mut near = limited().connect(&listener.address()).await.expect("listening");
    let mut far = listener.accept().await.expect("connected");
    // Through a bare socket the other way, so that sender and receiver can't agree on a mistake.
    far.sender.send(&mut vec![Bytes::from_static(b"123456789"), Bytes::new()]).await.expect("stands");
    let mut frames = Vec::new();
    while frames.len() < 2 {
        assert_eq!(near.receiver.receive(&mut frames).await, Ok(true));
    }
    assert_eq!(frames, ["123456789", ""]);
    let (mut bare, mut connection) = bare().await;
    connection.sender.send(&mut vec![Bytes::from_static(b"123456789"), Bytes::new()]).await.expect("stands");
    drop(connection);
    let mut bytes = Vec::new();
    bare.read_to_end(&mut bytes).await.expect("stands");
    assert_eq!(bytes, b"AtxF\x09\0\0\0\x83\x92\x06\xe3123456789AtxF\0\0\0\0\0\0\0\0");
}

#[tokio::test]
async fn good_frames_before_a_bad_one_arrive() {
    let (good, mut damaged) = (frame(b"good"), frame(b"damaged"));
    damaged[14] ^= 1;
    let cases: [(&str, &[u8], &str); 4] = [
        ("a stranger", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "begins with"),
        ("too long", &frame(&[7; LIMIT + 1]), "above the limit"),
        ("absurdly long", b"AtxF\xff\xff\xff\xff\0\0\0\0", "above the limit"),
        ("damaged", &damaged, "checksum"),
    ];
    for (name, bad, why) in cases {
        let (frames, ended) = check(&[&good, &good, bad].concat()).await;
        assert_eq!(frames, ["good", "good"], "{name}");
        assert!(
            matches!(&ended, Err(TransportError::BadFrame(reason)) if reason.contains(why)),
            "{name}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn the_end_within_a_frame_is_a_loss() {
    let whole = frame(b"whole");
    assert_eq!(check(&whole).await, (vec!["whole".into()], Ok(false)));
    for length in 1..whole.len() {
        let (frames, ended) = check(&whole[..length]).await;
        assert!(
            frames.is_empty() && matches!(ended, Err(TransportError::Lost(_))),
            "{length} bytes: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_frame_above_the_limit_is_not_sent() {
    let (mut bare, mut connection) = bare().await;
    let mut batch = vec![Bytes::from_static(b"short"), Bytes::from(vec![0; LIMIT + 1])];
    let sent = connection.sender.send(&mut batch).await;
    assert!(matches!(sent, Err(TransportError::BadFrame(_))), "{sent:?}");
    drop(connection);
    let mut bytes = Vec::new();
    bare.read_to_end(&mut bytes).await.expect("stands");
    assert!(bytes.is_empty(), "part of a refused batch was sent");
}

#[tokio::test]
async fn addresses_that_are_none_are_refused() {
    let tcp = TcpTransport::default();
    for address in ["", "nonsense", "127.0.0.1:port", "256.0.0.1:1"] {
        assert!(matches!(tcp.connect(address).await, Err(TransportError::Unreachable { .. })), "{address}");
        assert!(
            matches!(tcp.listen(address).await.err(), Some(TransportError::CannotListen { .. })),
            "{address}"
        );
    }
}

#[tokio::test]
async fn many_connect_at_once_before_one_is_accepted() {
    let mut listener = limited().listen("127.0.0.1:0").await.expect("a free port");
    let mut near = Vec::new();
    // More than the system holds unless asked: the next would wait for a second try.
    for _ in 0..500 {
        let connecting = TcpStream::connect(listener.address());
        let connected = tokio::time::timeout(Duration::from_millis(500), connecting).await;
        near.push(connected.expect("at once").expect("listening"));
    }
    for _ in &near {
        listener.accept().await.expect("connected");
    }
}
