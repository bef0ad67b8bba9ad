//! Accepting, whatever befalls single connections.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use atomix_transport::{Connection, Listener, TransportError};
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::transport::{TcpOptions, connection};

/// How long the listener leaves the system alone that is out of descriptors or memory: without a pause it would be asked
/// again at once, for ever.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct TcpFrameListener {
    pub(crate) socket: TcpListener,
    pub(crate) address: String,
    pub(crate) options: TcpOptions,
}

#[async_trait]
impl Listener for TcpFrameListener {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        loop {
            match self.socket.accept().await {
                Ok((stream, remote)) => match connection(stream, remote.to_string(), &self.options) {
                    Ok(connection) => return Ok(connection),
                    Err(error) => debug!(%remote, %error, "connection failed while it was accepted"),
                },
                Err(error) if concerns_one_connection(&error) => {
                    debug!(%error, "connection failed before it was accepted");
                }
                Err(error) => {
                    warn!(address = %self.address, %error, "can't accept connections for the moment");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut)
}
