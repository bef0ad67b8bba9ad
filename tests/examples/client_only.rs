//! One family over a client and a transport: no server, no consensus, no storage is built.
//!
//! ```text
//! cargo run -p atomix-tests --example client_only -- 127.0.0.1:8701 127.0.0.1:8702 127.0.0.1:8703
//! ```

use std::sync::Arc;

use atomix_client::{Client, ClientOptions};
use atomix_collections::DistributedMap;
use atomix_transport_tcp::TcpTransport;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let servers: Vec<String> = std::env::args().skip(1).collect();
    let client = Client::connect(ClientOptions::new(servers), Arc::new(TcpTransport::default())).await?;
    let visits: DistributedMap<String, u64> = DistributedMap::open(&client.session(), "/visits").await?;
    let before = visits.get("home").await?.unwrap_or_default();
    visits.put("home", &(before + 1)).await?;
    println!("visit number {}", before + 1);
    client.close().await?;
    Ok(())
}
