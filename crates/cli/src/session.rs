//! A session for one command.

use std::time::Duration;

use atomix::Atomix;

use crate::args::Cluster;
use crate::exit::{Exit, Failure};
use crate::signals;

/// The session ends by itself soon after the command, should its close not reach the cluster.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects, does what the command is about, and closes the session.
///
/// # Errors
/// If the cluster is not reached, standard input is closed where that is the end, or as the command.
pub async fn with<T>(
    cluster: &Cluster,
    command: impl AsyncFnOnce(&Atomix) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let session = async {
        let atomix = connect(cluster).await?;
        let result = command(&atomix).await;
        close(&atomix, cluster.timeout).await;
        result
    };
    tokio::select! {
        result = session => result,
        () = signals::parent_ended(cluster.exit_with_stdin) => {
            Err(Failure::new(Exit::Interrupted, "standard input was closed"))
        }
    }
}

/// Connects as the command line says.
///
/// # Errors
/// If the cluster is not reached in time.
pub async fn connect(cluster: &Cluster) -> Result<Atomix, Failure> {
    connect_with(cluster, TIMEOUT).await
}

/// Connects as the command line says, with a session timeout of one's own.
///
/// # Errors
/// If the cluster is not reached in time.
pub async fn connect_with(cluster: &Cluster, session_timeout: Duration) -> Result<Atomix, Failure> {
    let builder = Atomix::builder()
        .connect_timeout(cluster.timeout)
        .operation_timeout(cluster.timeout)
        .session_timeout(session_timeout);
    Ok(builder.connect(cluster.cluster.iter().map(String::as_str)).await?)
}

/// Closes the session. Everything is answered: what remains is courtesy, and changes no outcome.
pub async fn close(atomix: &Atomix, within: Duration) {
    let _ = tokio::time::timeout(within, atomix.close()).await;
}
