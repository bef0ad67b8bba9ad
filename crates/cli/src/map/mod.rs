//! `atomix map`: operations on a map of strings.

mod watch;

use atomix::{Atomix, DistributedMap};

use crate::args::{Cluster, Map};
use crate::exit::{Exit, Failure, say};
use crate::session;

pub use self::watch::{Change, NotAChange};

/// A message shows no more of a key than so many characters.
const KEY_SHOWN: usize = 100;

/// A map as the command line knows it.
type Strings = DistributedMap<String, String>;

/// Runs the command.
///
/// # Errors
/// If the cluster is not reached, the outcome is unknown, or the operation was refused.
pub async fn run(args: Map) -> Result<(), Failure> {
    let (path, cluster): (String, Cluster) = match &args {
        Map::Put { path, cluster, .. }
        | Map::Get { path, cluster, .. }
        | Map::Remove { path, cluster, .. }
        | Map::List { path, cluster } => (path.clone(), cluster.clone()),
        Map::Watch(args) => (args.path.clone(), args.cluster.clone()),
    };
    session::with(&cluster, async |atomix| operate(atomix, &path, args).await).await
}

async fn operate(atomix: &Atomix, path: &str, args: Map) -> Result<(), Failure> {
    let map: Strings = atomix.map(path).await?;
    match args {
        Map::Put { key, value, .. } => {
            if let Some(previous) = map.put(&key, &value).await? {
                say!("{previous}");
            }
        }
        Map::Get { key, .. } => say!("{}", there(map.get(&key).await?, path, &key)?),
        Map::Remove { key, .. } => say!("{}", there(map.remove(&key).await?, path, &key)?),
        Map::List { .. } => {
            let mut entries = map.entries().await?;
            entries.sort();
            for (key, value) in entries {
                say!("{key}\t{value}");
            }
        }
        Map::Watch(args) => watch::run(&map, &args).await?,
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
