//! A map and a lock through the umbrella: three replicas in this process, and a client beside them.
//!
//! ```text
//! cargo run -p example-embedded
//! ```

use std::net::TcpListener;

use atomix::{Atomix, DistributedMap, Replica};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    name: String,
    runs: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = tempfile::tempdir()?;
    let addresses = free_addresses()?;
    let mut replicas = Vec::new();
    for address in &addresses {
        let directory = data.path().join(address.replace(':', "-"));
        let builder = Replica::builder(address.as_str()).data_dir(directory);
        replicas.push(builder.bootstrap(addresses.iter().map(String::as_str)).await?);
    }
    for replica in &replicas {
        replica.ready().await?;
    }
    let jobs: DistributedMap<String, Job> = replicas[0].atomix().map("/jobs").await?;
    jobs.put("nightly", &Job { name: "the nightly job".into(), runs: 0 }).await?;

    // Elsewhere: whoever has the lock runs the job, and nobody else can write what comes of it.
    let client = Atomix::connect(addresses.iter().map(String::as_str)).await?;
    let guard = client.lock("/jobs/nightly").await?.acquire().await?;
    let jobs: DistributedMap<String, Job> = client.map("/jobs").await?;
    if let Some(mut job) = jobs.get("nightly").await? {
        job.runs += 1;
        jobs.fenced(&guard).put("nightly", &job).await?;
    }
    println!("{:?}, written with token {}", jobs.get("nightly").await?, guard.token());
    guard.release().await?;

    client.close().await?;
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
