//! Asking one server what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use atomix_protocol::client::{ClientRequest, ClientResponse};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Hello;
use atomix_protocol::status::Status;
use atomix_protocol::{Address, BootNonce, GroupId};
use atomix_transport::{Connection, Transport};
use tokio::time::timeout;

use crate::ClientError;

/// Asks one server for its [`Status`], which needs neither a session nor a leader.
///
/// # Errors
/// [`ClientError::Unreachable`] if it does not answer within `patience`, or refuses.
pub async fn status(
    transport: Arc<dyn Transport>,
    address: &Address,
    patience: Duration,
) -> Result<Status, ClientError> {
    let dialogue = async {
        let mut connection = transport.connect(address.as_str()).await.map_err(|error| error.to_string())?;
        ask(&mut connection).await
    };
    let unreachable = |reason| ClientError::Unreachable { tried: vec![address.clone()], reason };
    match timeout(patience, dialogue).await {
        Ok(answer) => answer.map_err(unreachable),
        Err(_) => Err(unreachable(format!("no answer within {} s", patience.as_secs_f32()))),
    }
}

async fn ask(connection: &mut Connection) -> Result<Status, String> {
    send(connection, &Frame::Hello(hello())).await?;
    let mut asked = false;
    let mut frames = Vec::new();
    while connection.receiver.receive(&mut frames).await.map_err(|error| error.to_string())? {
        for bytes in frames.drain(..) {
            match Frame::decode(&bytes).map_err(|error| error.to_string())? {
                Frame::Hello(_) if !asked => {
                    send(connection, &Frame::Request(ClientRequest::Status)).await?;
                    asked = true;
                }
                Frame::Response(ClientResponse::Status(status)) => return Ok(*status),
                Frame::Refusal(refusal) => return Err(format!("refused: {}", refusal.detail)),
                Frame::Response(ClientResponse::Refused { detail }) => {
                    return Err(format!("refused: {detail}"));
                }
                _ => {}
            }
        }
    }
    Err("the server closed the connection".into())
}

async fn send(connection: &mut Connection, frame: &Frame) -> Result<(), String> {
    let mut frames = vec![frame.encode(GroupId::DEFAULT)];
    connection.sender.send(&mut frames).await.map_err(|error| error.to_string())
}

fn hello() -> Hello {
    Hello::of_client(None, BootNonce(0))
}
