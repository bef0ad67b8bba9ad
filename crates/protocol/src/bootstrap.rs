//! How a cluster is formed from empty servers, unanimously (I2).

use serde::{Deserialize, Serialize};

use crate::change::NewMember;
use crate::ids::{Address, Incarnation};
use crate::member::Configuration;

/// What servers say to each other until each has a configuration. Travels on peer links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootstrapMessage {
    /// Who are you? Names the address under which the sender means to reach the receiver.
    Probe {
        /// The receiver's address in the sender's list.
        address: Address,
    },
    /// Answer to [`BootstrapMessage::Probe`].
    Report {
        /// The address that was probed, echoed.
        address: Address,
        /// The answering server's data directory.
        incarnation: Incarnation,
        /// Its configuration; `None` if the directory is empty.
        configuration: Option<Configuration>,
    },
    /// The initial configuration, durable at the sender.
    Form {
        /// The configuration. The receiver takes it if it is empty and its incarnation is in it.
        configuration: Configuration,
    },
    /// Answer to [`BootstrapMessage::Form`]: durable at the answering server too.
    Formed {
        /// The answering server's data directory.
        incarnation: Incarnation,
    },
    /// Take me in. Says of itself what an empty directory can say; repeated until it is what it wants to be. The leader adds it as
    /// a learner, and promotes it when it has caught up if it wants to vote (R7, §4.2.1).
    Join(NewMember),
}
