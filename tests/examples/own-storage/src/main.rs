//! Another storage in place of the file log: three replicas in this process that keep everything in redb. They are stopped, and find it
//! again.
//!
//! ```text
//! cargo run -p example-own-storage
//! ```
//!
//! The storage is chosen where a replica is built. Whoever writes one of their own implements `atomix_storage::Storage`, and runs
//! `atomix_testkit::conformance::storage` against it.

use std::net::TcpListener;
use std::path::Path;

use atomix::{DistributedMap, Error, Replica};
use atomix_storage_redb::{RedbOptions, RedbStorage};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = tempfile::tempdir()?;
    let addresses = free_addresses()?;

    let replicas = start(data.path(), &addresses).await?;
    let users: DistributedMap<String, String> = replicas[0].atomix().map("/users").await?;
    users.put("ada", &"Ada Lovelace".to_owned()).await?;
    let guard = replicas[1].atomix().lock("/jobs/nightly").await?.acquire().await?;
    users.fenced(&guard).put("nightly", &"done".to_owned()).await?;
    guard.release().await?;
    stop(replicas).await?;

    let replicas = start(data.path(), &addresses).await?;
    let users: DistributedMap<String, String> = replicas[2].atomix().map("/users").await?;
    let found = (users.get("ada").await?, users.get("nightly").await?);
    println!("after all three were stopped and started again: {found:?}");
    assert_eq!(found, (Some("Ada Lovelace".to_owned()), Some("done".to_owned())));
    stop(replicas).await?;
    Ok(())
}

async fn start(data: &Path, addresses: &[String]) -> Result<Vec<Replica>, Box<dyn std::error::Error>> {
    let mut replicas = Vec::new();
    for address in addresses {
        let directory = data.join(address.replace(':', "-"));
        let storage = RedbStorage::open(directory, RedbOptions::default())?;
        let builder = Replica::builder(address.as_str()).storage(Box::new(storage));
        replicas.push(builder.bootstrap(addresses.iter().map(String::as_str)).await?);
    }
    for replica in &replicas {
        replica.ready().await?;
    }
    Ok(replicas)
}

async fn stop(replicas: Vec<Replica>) -> Result<(), Error> {
    for replica in replicas {
        replica.shutdown().await?;
    }
    Ok(())
}

/// Three ports that nobody listens at.
fn free_addresses() -> std::io::Result<Vec<String>> {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
