//! A transport of one's own: here one that counts, around the in-process network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use atomix::{DistributedMap, Transport};
use atomix_tests::Cluster;
use atomix_transport::{Connection, FrameSender, Listener, MemoryNetwork, TransportError};
use bytes::Bytes;

#[derive(Default)]
struct Counting {
    network: MemoryNetwork,
    frames: Arc<AtomicUsize>,
}

#[async_trait]
impl Transport for Counting {
    async fn connect(&self, address: &str) -> Result<Connection, TransportError> {
        let connection = self.network.connect(address).await?;
        let sender = Box::new(CountingSender { sender: connection.sender, frames: self.frames.clone() });
        Ok(Connection { sender, ..connection })
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>, TransportError> {
        self.network.listen(address).await
    }
}

struct CountingSender {
    sender: Box<dyn FrameSender>,
    frames: Arc<AtomicUsize>,
}

#[async_trait]
impl FrameSender for CountingSender {
    async fn send(&mut self, frames: &mut Vec<Bytes>) -> Result<(), TransportError> {
        self.frames.fetch_add(frames.len(), Ordering::Relaxed);
        self.sender.send(frames).await
    }
}

#[tokio::test]
async fn everything_goes_through_it() {
    let transport = Counting::default();
    let frames = transport.frames.clone();
    let cluster = Cluster::over(Arc::new(transport), 3).await;
    let client = cluster.client().await.expect("connected");
    let map: DistributedMap<String, u64> = client.map("/counted").await.expect("the map opens");
    let before = frames.load(Ordering::Relaxed);
    map.put("key", &1).await.expect("done");
    let after = frames.load(Ordering::Relaxed);
    assert!(after > before, "the command went another way");
    let status = atomix::cluster_status(cluster.addresses()[0]).await;
    assert!(status.is_err(), "reached over TCP: {status:?}");
}
