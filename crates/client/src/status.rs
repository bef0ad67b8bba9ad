//! Asking one server what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use atomix_protocol::Address;
use atomix_protocol::client::{ClientRequest, ClientResponse};
use atomix_protocol::status::Status;
use atomix_transport::Transport;
use tokio::time::timeout;

use crate::ClientError;
use crate::dialogue::Dialogue;

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
        let mut dialogue = Dialogue::open(&*transport, address).await?;
        dialogue.ask(ClientRequest::Status).await?;
        loop {
            match dialogue.answer().await? {
                ClientResponse::Status(status) => return Ok(*status),
                ClientResponse::Refused { detail } => return Err(format!("refused: {detail}")),
                _ => {}
            }
        }
    };
    let unreachable = |reason| ClientError::Unreachable { tried: vec![address.clone()], reason };
    match timeout(patience, dialogue).await {
        Ok(answer) => answer.map_err(unreachable),
        Err(_) => Err(unreachable(format!("no answer within {} s", patience.as_secs_f32()))),
    }
}
