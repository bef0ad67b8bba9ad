//! A map through the umbrella: three replicas in this process, and a client beside them.
//!
//! ```text
//! cargo run -p atomix-tests --example map
//! ```

use atomix::{Atomix, DistributedMap, Replica};
use atomix_tests::free_addresses;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    born: u16,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = tempfile::tempdir()?;
    let addresses = free_addresses(3);
    let mut replicas = Vec::new();
    for address in &addresses {
        let directory = data.path().join(address.replace(':', "-"));
        let builder = Replica::builder(address.as_str()).data_dir(directory);
        replicas.push(builder.bootstrap(addresses.iter().map(String::as_str)).await?);
    }
    for replica in &replicas {
        replica.ready().await?;
    }

    let users: DistributedMap<String, User> = replicas[0].atomix().map("/users").await?;
    users.put("ada", &User { name: "Ada Lovelace".into(), born: 1815 }).await?;

    let client = Atomix::connect(addresses.iter().map(String::as_str)).await?;
    let users: DistributedMap<String, User> = client.map("/users").await?;
    println!("{:?}", users.get("ada").await?);
    client.close().await?;
    for replica in replicas {
        replica.shutdown().await?;
    }
    Ok(())
}
