//! `atomix map`: one operation on a map of strings.

use std::time::Duration;

use atomix::{Atomix, DistributedMap};

use crate::args::{Cluster, Map};
use crate::exit::{Exit, Failure};
use crate::signals;

/// The session ends by itself soon after the command, should its close not reach the cluster.
const SESSION: Duration = Duration::from_secs(5);

/// A message shows no more of a key than so many characters.
const KEY_SHOWN: usize = 100;

/// A map as the command line knows it.
type Strings = DistributedMap<String, String>;

/// Runs the command.
///
/// # Errors
/// If the cluster is not reached, the outcome is unknown, or the operation was refused.
pub async fn run(args: Map) -> Result<(), Failure> {
    let (path, cluster) = match &args {
        Map::Put { path, cluster, .. }
        | Map::Get { path, cluster, .. }
        | Map::Remove { path, cluster, .. }
        | Map::List { path, cluster } => (path.clone(), cluster.clone()),
    };
    let session = async {
        let atomix = connect(&cluster).await?;
        let result = operate(&atomix, &path, args).await;
        // Everything is answered: what remains is courtesy, and must not change the outcome.
        let _ = tokio::time::timeout(cluster.timeout, atomix.close()).await;
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
    let builder = Atomix::builder()
        .connect_timeout(cluster.timeout)
        .operation_timeout(cluster.timeout)
        .session_timeout(SESSION);
    Ok(builder.connect(cluster.cluster.iter().map(String::as_str)).await?)
}

async fn operate(atomix: &Atomix, path: &str, args: Map) -> Result<(), Failure> {
    let map: Strings = atomix.map(path).await?;
    match args {
        Map::Put { key, value, .. } => {
            if let Some(previous) = map.put(&key, &value).await? {
                println!("{previous}");
            }
        }
        Map::Get { key, .. } => println!("{}", there(map.get(&key).await?, path, &key)?),
        Map::Remove { key, .. } => println!("{}", there(map.remove(&key).await?, path, &key)?),
        Map::List { .. } => {
            let mut entries = map.entries().await?;
            entries.sort();
            for (key, value) in entries {
                println!("{key}\t{value}");
            }
        }
    }
    Ok(())
}

fn there<T>(found: Option<T>, path: &str, key: &str) -> Result<T, Failure> {
    found.ok_or_else(|| {
        let shown: String = key.chars().take(KEY_SHOWN).collect();
        let rest = if shown.len() < key.len() { "..." } else { "" };
        Failure::new(Exit::Refused, format!("{path} has no key `{shown}{rest}`"))
    })
}
