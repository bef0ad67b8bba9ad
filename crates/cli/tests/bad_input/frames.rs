//! Bytes and frames that a server can't want.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use atomix_cli::cluster::{free_addresses, until};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, Role};
use atomix_protocol::{BootNonce, ClusterId, GroupId};
use atomix_transport::Transport;
use atomix_transport_tcp::TcpTransport;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::run::{WAIT, command, run};
use crate::{Row, row};

/// The handshake's time, and some more.
const CUT_OFF: Duration = Duration::from_secs(15);

/// One server that says in its log why it closes connections.
struct Talkative {
    address: String,
    log: PathBuf,
    process: Child,
    _directory: TempDir,
}

impl Talkative {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let address = free_addresses(1).expect("a port").remove(0);
        let log = directory.path().join("log");
        let data = directory.path().join("data");
        let data = data.to_str().expect("a name");
        let process = command(&["serve", "--listen", &address, "--bootstrap", &address, "--data-dir", data])
            .env("ATOMIX_LOG", "debug")
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("the binary starts");
        run(&["map", "list", "/", "--cluster", &address]).await.check(1, &["not a path"]);
        Talkative { address, log, process, _directory: directory }
    }

    /// How many lines it has said so far.
    fn said(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().lines().count()
    }

    /// Why it closed a connection, said after so many lines.
    async fn why(&self, after: usize) -> String {
        until("the reason in the log", WAIT, async || {
            let log = fs::read_to_string(&self.log).ok()?;
            let mut lines = log.lines().skip(after);
            // The first that connected: commands from before may still be about to leave.
            let link = lines.find_map(|line| line.split_once(" connected ")?.1.split(' ').next())?;
            lines.find_map(|line| {
                let reason = [" detail=", " error="].iter().find_map(|field| line.split_once(field));
                reason.filter(|_| line.contains(&format!(" {link} "))).map(|(_, reason)| reason.into())
            })
        })
        .await
        .expect("a reason")
    }

    /// Sends bytes, and waits until the connection is closed by the server.
    async fn closes(&self, case: &str, bytes: &[u8]) -> Row {
        let said = self.said();
        let begin = Instant::now();
        let mut stream = TcpStream::connect(&self.address).await.expect("a connection");
        // The server may have closed before everything was written.
        let _ = stream.write_all(bytes).await;
        let mut rest = Vec::new();
        let read = tokio::time::timeout(CUT_OFF, stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "the server keeps a connection that sent {case}");
        let ends = format!("connection closed, {} ms", begin.elapsed().as_millis());
        row(case, ends, self.why(said).await, std::slice::from_ref(&self.address)).await
    }

    async fn end(mut self) {
        assert!(self.process.try_wait().expect("a status").is_none(), "the server has ended");
        self.process.kill().await.expect("killed");
    }
}

fn frame(magic: &[u8], length: u32, payload: &[u8]) -> Vec<u8> {
    [magic, &length.to_le_bytes(), &0_u32.to_le_bytes(), payload].concat()
}

pub(crate) async fn bytes_that_are_no_frames() -> Vec<Row> {
    let server = Talkative::start().await;
    let mut rows = Vec::new();
    for (case, bytes) in [
        ("garbage", (0..=255).cycle().take(70_000).collect::<Vec<u8>>()),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a wrong magic", frame(b"AtxX", 0, b"")),
        ("an oversized frame", frame(b"AtxF", (4 << 20) + 1, b"")),
        ("a frame of 4 GiB", frame(b"AtxF", u32::MAX, b"")),
        ("a wrong checksum", frame(b"AtxF", 5, b"hello")),
        ("a truncated frame", frame(b"AtxF", 100, b"only this")),
        ("silence", Vec::new()),
    ] {
        rows.push(server.closes(case, &bytes).await);
    }
    // Closed by its own end within a frame.
    let said = server.said();
    let mut stream = TcpStream::connect(&server.address).await.expect("a connection");
    stream.write_all(&frame(b"AtxF", 100, b"only this")).await.expect("written");
    drop(stream);
    let why = server.why(said).await;
    rows.push(
        row("closed within a frame", "connection closed", why, std::slice::from_ref(&server.address)).await,
    );
    server.end().await;
    rows
}

pub(crate) async fn frames_that_are_no_handshake() -> Vec<Row> {
    let server = Talkative::start().await;
    let hello = Hello::of_client(None, BootNonce(0));
    let said_hello = |hello: Hello| Frame::Hello(hello).encode(GroupId::DEFAULT);
    let right = said_hello(hello.clone());
    let other_magic = said_hello(Hello { magic: 7, ..hello.clone() });
    let future = said_hello(Hello { versions: (9, 9), ..hello.clone() });
    let as_server = said_hello(Hello { role: Role::Server, ..hello.clone() });
    let foreign = said_hello(Hello { role: Role::Peer, cluster: Some(ClusterId(7)), ..hello.clone() });
    let other_group = Frame::Hello(hello).encode(GroupId(7));
    let no_frames: [(&str, Vec<Bytes>); 9] = [
        ("an empty handshake", vec![Bytes::new()]),
        ("a handshake of noise", vec![Bytes::from_static(&[0xff; 64])]),
        ("a handshake of 1 MiB of zeroes", vec![Bytes::from(vec![0; 1 << 20])]),
        ("a handshake with another magic", vec![other_magic]),
        ("a version of the future", vec![future]),
        ("a client that says it is a server", vec![as_server]),
        ("a server of another cluster", vec![foreign]),
        ("another group", vec![other_group]),
        ("noise after the handshake", vec![right.clone(), Bytes::from_static(&[0xff; 64])]),
    ];
    let mut rows = Vec::new();
    for (case, payloads) in no_frames {
        let said = server.said();
        let mut connection = TcpTransport::default().connect(&server.address).await.expect("a connection");
        connection.sender.send(&mut payloads.clone()).await.expect("sent");
        let mut frames = Vec::new();
        let closed = async { while let Ok(true) = connection.receiver.receive(&mut frames).await {} };
        tokio::time::timeout(WAIT, closed).await.expect("the server closes the connection");
        let refusal = frames.iter().find_map(|frame| match Frame::decode(frame) {
            Ok(Frame::Refusal(refusal)) => Some(format!("{:?}: {}", refusal.reason, refusal.detail)),
            _ => None,
        });
        let message = match refusal {
            Some(refusal) => refusal,
            None => server.why(said).await,
        };
        rows.push(row(case, "connection closed", message, std::slice::from_ref(&server.address)).await);
    }
    server.end().await;
    rows
}
