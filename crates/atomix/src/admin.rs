//! What operators ask of a cluster's leader: to plan or make a change of the configuration, or to hand over. Needs no session.

use std::sync::Arc;
use std::time::Duration;

use atomix_protocol::Address;
use atomix_transport::Transport;

use crate::Error;

pub use atomix_protocol::change::{Change, ChangeRefused, NewMember, Plan, Tolerance, TransferRefused};
pub use atomix_protocol::client::{ManageAction, ManageOutcome};
pub use atomix_protocol::member::Configuration;

/// Asks the leader to plan or make a change of the configuration, or to hand over, over TCP. Looks for it at the addresses given and
/// where those send it, until `patience` is over, which also bounds the wait for the answer. A change or a hand-over whose answer is lost is not
/// repeated: its outcome is [`ManageOutcome::Unknown`], and the configuration tells.
///
/// # Errors
/// [`Error::Unreachable`] if no server that leads was reached in time: nothing was changed. [`Error::Settings`] if no address is given.
#[cfg(feature = "tcp")]
pub async fn manage<A: Into<Address>>(
    servers: impl IntoIterator<Item = A>,
    action: ManageAction,
    patience: Duration,
) -> Result<ManageOutcome, Error> {
    manage_over(crate::atomix::default_transport()?, servers, action, patience).await
}

/// The same over a transport of one's own.
///
/// # Errors
/// [`Error::Unreachable`] if no server that leads was reached in time: nothing was changed. [`Error::Settings`] if no address is given.
pub async fn manage_over<A: Into<Address>>(
    transport: Arc<dyn Transport>,
    servers: impl IntoIterator<Item = A>,
    action: ManageAction,
    patience: Duration,
) -> Result<ManageOutcome, Error> {
    let servers: Vec<Address> = servers.into_iter().map(Into::into).collect();
    Ok(atomix_client::manage(transport, &servers, action, patience).await?)
}
