//! Questions to one server, without a session.

use std::collections::VecDeque;

use atomix_protocol::client::{ClientRequest, ClientResponse};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Hello;
use atomix_protocol::{Address, BootNonce, GroupId};
use atomix_transport::{Connection, Transport, TransportError};
use bytes::Bytes;

/// A connection on which hands were shaken. What goes wrong on it is said in words, for people.
#[derive(Debug)]
pub(crate) struct Dialogue {
    connection: Connection,
    received: VecDeque<Bytes>,
    greeted: bool,
}

impl Dialogue {
    /// Connects, and returns once the server has said who it is. Waits for as long as that takes.
    pub(crate) async fn open(transport: &dyn Transport, address: &Address) -> Result<Self, String> {
        let connection = transport.connect(address.as_str()).await.map_err(|error| error.to_string())?;
        let mut dialogue = Dialogue { connection, received: VecDeque::new(), greeted: false };
        dialogue.send(&Frame::Hello(Hello::of_client(None, BootNonce(0)))).await?;
        while !matches!(dialogue.next().await?, Frame::Hello(_)) {}
        dialogue.greeted = true;
        Ok(dialogue)
    }

    /// Asks. On an error it may have arrived all the same.
    pub(crate) async fn ask(&mut self, request: ClientRequest) -> Result<(), String> {
        self.send(&Frame::Request(request)).await
    }

    /// The next thing that the server says.
    pub(crate) async fn answer(&mut self) -> Result<ClientResponse, String> {
        loop {
            match self.next().await? {
                // Said unasked.
                Frame::Response(ClientResponse::Servers(_)) => {}
                Frame::Response(response) => return Ok(response),
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(bytes) = self.received.pop_front() {
                let frame = Frame::decode(&bytes).map_err(|error| self.unreadable(&error.to_string()))?;
                return match frame {
                    Frame::Refusal(refusal) => Err(format!("refused: {}", refusal.detail)),
                    frame => Ok(frame),
                };
            }
            let mut frames = Vec::new();
            let goes_on = match self.connection.receiver.receive(&mut frames).await {
                Err(TransportError::BadFrame(why)) => return Err(self.unreadable(&why)),
                ended => ended.map_err(|error| error.to_string())?,
            };
            if !goes_on {
                return Err("the server closed the connection".into());
            }
            self.received.extend(frames);
        }
    }

    /// What can't be read, from somebody who has not said yet who it is, is of something else that listens there.
    fn unreadable(&self, why: &str) -> String {
        if self.greeted {
            format!("what came can't be read: {why}")
        } else {
            format!("no atomix server answers there: what came can't be read: {why}")
        }
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        let mut frames = vec![frame.encode(GroupId::DEFAULT)];
        self.connection.sender.send(&mut frames).await.map_err(|error| error.to_string())
    }
}
