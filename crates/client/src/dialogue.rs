//! Questions to one server, without a session.

use std::collections::VecDeque;

use atomix_protocol::client::{ClientRequest, ClientResponse};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Hello;
use atomix_protocol::{Address, BootNonce, GroupId};
use atomix_transport::{Connection, Transport};
use bytes::Bytes;

/// A connection on which hands were shaken. What goes wrong on it is said in words, for people.
#[derive(Debug)]
pub(crate) struct Dialogue {
    connection: Connection,
    received: VecDeque<Bytes>,
}

impl Dialogue {
    /// Connects, and returns once the server has said who it is. Waits for as long as that takes.
    pub(crate) async fn open(transport: &dyn Transport, address: &Address) -> Result<Self, String> {
        let connection = transport.connect(address.as_str()).await.map_err(|error| error.to_string())?;
        let mut dialogue = Dialogue { connection, received: VecDeque::new() };
        dialogue.send(&Frame::Hello(Hello::of_client(None, BootNonce(0)))).await?;
        while !matches!(dialogue.next().await?, Frame::Hello(_)) {}
        Ok(dialogue)
    }

    /// Asks. On an error it may have arrived all the same.
    pub(crate) async fn ask(&mut self, request: ClientRequest) -> Result<(), String> {
        self.send(&Frame::Request(request)).await
    }

    /// The next thing that the server says.
    pub(crate) async fn answer(&mut self) -> Result<ClientResponse, String> {
        loop {
            if let Frame::Response(response) = self.next().await? {
                return Ok(response);
            }
        }
    }

    async fn next(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(bytes) = self.received.pop_front() {
                return match Frame::decode(&bytes).map_err(|error| error.to_string())? {
                    Frame::Refusal(refusal) => Err(format!("refused: {}", refusal.detail)),
                    frame => Ok(frame),
                };
            }
            let mut frames = Vec::new();
            if !self.connection.receiver.receive(&mut frames).await.map_err(|error| error.to_string())? {
                return Err("the server closed the connection".into());
            }
            self.received.extend(frames);
        }
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        let mut frames = vec![frame.encode(GroupId::DEFAULT)];
        self.connection.sender.send(&mut frames).await.map_err(|error| error.to_string())
    }
}
