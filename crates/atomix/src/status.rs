//! What one server says of itself.

use std::sync::Arc;

use atomix_protocol::status::Status;
use atomix_protocol::{Address, limits};
use atomix_transport::Transport;

use crate::Error;

/// Asks one server for its status, over TCP. Needs neither a session nor a leader.
///
/// # Errors
/// [`Error::Unreachable`] if it does not answer within 5 s.
#[cfg(feature = "tcp")]
pub async fn cluster_status(address: impl Into<Address>) -> Result<Status, Error> {
    cluster_status_over(crate::atomix::default_transport()?, address).await
}

/// Asks one server for its status over a transport of one's own. Needs neither a session nor a leader.
///
/// # Errors
/// [`Error::Unreachable`] if it does not answer within 5 s.
pub async fn cluster_status_over(
    transport: Arc<dyn Transport>,
    address: impl Into<Address>,
) -> Result<Status, Error> {
    Ok(atomix_client::status(transport, &address.into(), limits::HANDSHAKE_TIMEOUT).await?)
}
