//! A storage of one's own: here one that fails when told to, around storage in memory (D5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atomix::{DistributedMap, Error, Replica};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, Index, WriteBatch};
use atomix_storage::{MemoryStorage, Recovered, SnapshotWriter, Storage, StorageError, StorageReader};
use atomix_transport::MemoryNetwork;

#[derive(Default)]
struct Failing {
    storage: MemoryStorage,
    broken: Arc<AtomicBool>,
}

impl Storage for Failing {
    fn recover(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError> {
        self.storage.recover(entry)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(StorageError::Failed("the disk is gone".into()));
        }
        self.storage.write(batch)
    }

    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        self.storage.publish(snapshot)
    }

    fn compact(&mut self, through: Index) -> Result<(), StorageError> {
        self.storage.compact(through)
    }

    fn snapshot_writer(&mut self) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.storage.snapshot_writer()
    }

    fn reader(&mut self) -> Result<Box<dyn StorageReader>, StorageError> {
        self.storage.reader()
    }
}

#[tokio::test]
async fn a_failed_write_ends_its_server_and_no_other() {
    const SERVERS: [&str; 3] = ["a", "b", "c"];
    let network = Arc::new(MemoryNetwork::new());
    let broken: Vec<_> = SERVERS.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
    let mut replicas = Vec::new();
    for (address, broken) in SERVERS.iter().zip(&broken) {
        let storage = Failing { broken: broken.clone(), ..Failing::default() };
        let builder = Replica::builder(*address).transport(network.clone()).storage(Box::new(storage));
        replicas.push(builder.bootstrap(SERVERS).await.expect("the server starts"));
    }
    for replica in &replicas {
        replica.ready().await.expect("the server gets ready");
    }
    let client = atomix::Atomix::builder().transport(network).connect(SERVERS).await.expect("connected");
    let map: DistributedMap<String, u64> = client.map("/kept").await.expect("the map opens");
    map.put("before", &1).await.expect("done");

    let leader =
        replicas.iter().position(|replica| replica.status().role == "leader").expect("somebody leads");
    broken[leader].store(true, Ordering::Relaxed);
    let _unknown = map.put("during", &2);
    let failure =
        tokio::time::timeout(Duration::from_secs(30), replicas[leader].failed()).await.expect("in time");
    assert!(matches!(&failure, Error::Stopped(reason) if reason.contains("the disk is gone")), "{failure}");
    assert!(replicas[leader].status().notice.contains("the disk is gone"));

    map.put("after", &3).await.expect("done by the others");
    assert_eq!(map.get("before").await.expect("answered"), Some(1));
    assert_eq!(replicas.remove(leader).shutdown().await, Err(failure));
}
