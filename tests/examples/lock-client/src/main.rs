//! A lock with one family, a client and a transport alone.
//!
//! ```text
//! cargo run -p example-lock-client -- 127.0.0.1:8701 127.0.0.1:8702 127.0.0.1:8703
//! ```

use std::sync::Arc;

use atomix_client::{Client, ClientOptions};
use atomix_coordination::DistributedLock;
use atomix_transport_tcp::TcpTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let servers: Vec<String> = std::env::args().skip(1).collect();
    let client = Client::connect(ClientOptions::new(servers), Arc::new(TcpTransport::default())).await?;
    let lock = DistributedLock::open(&client.session(), "/jobs/nightly").await?;
    let guard = lock.acquire().await?;
    let work = async { println!("working with token {}", guard.token()) };
    guard.run(work).await?;
    guard.release().await?;
    client.close().await?;
    Ok(())
}
