//! A storage of one's own: here one that fails or is full when told to, around storage in memory (D5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use atomix::{
    Atomix, DistributedMap, Error, MapError, NotDone, Replica, ResourceError, Status, cluster_status_over,
};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, Index, WriteBatch};
use atomix_storage::{MemoryStorage, Recovered, SnapshotWriter, Storage, StorageError, StorageReader};
use atomix_transport::MemoryNetwork;

const WORKS: u8 = 0;
const BROKEN: u8 = 1;
/// Has no room for commands any more, but for what a server must write all the same.
const SCARCE: u8 = 2;
/// Has no room at all.
const FULL: u8 = 3;

/// What a test does to a disk, and sees of it.
#[derive(Clone, Default)]
struct Hand {
    state: Arc<AtomicU8>,
    /// Calls after one that failed for good.
    afterwards: Arc<AtomicU32>,
    failed: Arc<AtomicU32>,
}

impl Hand {
    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    fn calls_after_the_failure(&self) -> u32 {
        self.afterwards.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), StorageError> {
        self.afterwards.fetch_add(self.failed.load(Ordering::Relaxed), Ordering::Relaxed);
        match self.state.load(Ordering::Relaxed) {
            BROKEN => {
                self.failed.store(1, Ordering::Relaxed);
                Err(StorageError::Failed("the disk is gone".into()))
            }
            FULL => Err(StorageError::Full("of this test".into())),
            _ => Ok(()),
        }
    }
}

#[derive(Default)]
struct Disk {
    storage: MemoryStorage,
    hand: Hand,
}

impl Storage for Disk {
    fn recover(&mut self, entry: &mut dyn FnMut(Entry)) -> Result<Recovered, StorageError> {
        self.storage.recover(entry)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.hand.check()?;
        self.storage.write(batch)
    }

    fn publish(&mut self, snapshot: &SnapshotMeta) -> Result<(), StorageError> {
        self.hand.check()?;
        self.storage.publish(snapshot)
    }

    fn compact(&mut self, through: Index) -> Result<(), StorageError> {
        self.storage.compact(through)
    }

    fn has_room(&mut self) -> Result<bool, StorageError> {
        self.afterwards();
        Ok(![SCARCE, FULL].contains(&self.hand.state.load(Ordering::Relaxed)))
    }

    fn snapshot_writer(&mut self) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.storage.snapshot_writer()
    }

    fn reader(&mut self) -> Result<Box<dyn StorageReader>, StorageError> {
        self.storage.reader()
    }
}

impl Disk {
    fn afterwards(&self) {
        self.hand.afterwards.fetch_add(self.hand.failed.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Replicas, each with a disk in a test's hand.
struct Cluster {
    network: Arc<MemoryNetwork>,
    addresses: Vec<String>,
    hands: Vec<Hand>,
    replicas: Vec<Replica>,
}

impl Cluster {
    async fn start(servers: usize) -> Self {
        let network = Arc::new(MemoryNetwork::new());
        let addresses: Vec<String> = (0..servers).map(|server| format!("server-{server}")).collect();
        let (mut hands, mut replicas) = (Vec::new(), Vec::new());
        for address in &addresses {
            let disk = Disk::default();
            hands.push(disk.hand.clone());
            let builder =
                Replica::builder(address.as_str()).transport(network.clone()).storage(Box::new(disk));
            let addresses = addresses.iter().map(String::as_str);
            replicas.push(builder.bootstrap(addresses).await.expect("the server starts"));
        }
        for replica in &replicas {
            within(replica.ready()).await.expect("the server gets ready");
        }
        Cluster { network, addresses, hands, replicas }
    }

    fn leader(&self) -> usize {
        let leads = |replica: &Replica| replica.status().role == "leader";
        self.replicas.iter().position(leads).expect("somebody leads")
    }

    async fn client(&self) -> DistributedMap<String, u64> {
        let addresses = self.addresses.iter().map(String::as_str);
        let client = Atomix::builder().transport(self.network.clone()).connect(addresses).await;
        within(client.expect("connected").map("/kept")).await.expect("the map opens")
    }

    /// Waits for what a server says of itself.
    async fn says(&self, server: usize, what: impl Fn(&Status) -> bool) -> Status {
        let mut statuses = self.replicas[server].statuses();
        within(statuses.wait_for(|status| what(status))).await.expect("it runs").clone()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

#[tokio::test]
async fn a_failed_write_ends_its_server_and_no_other() {
    let mut cluster = Cluster::start(3).await;
    let map = cluster.client().await;
    map.put("before", &1).await.expect("done");

    let leader = cluster.leader();
    cluster.hands[leader].set(BROKEN);
    let _unknown = map.put("during", &2);
    let failure = within(cluster.replicas[leader].failed()).await;
    let Error::DiskFailed(reason) = &failure else { panic!("{failure}") };
    assert!(reason.contains("the disk is gone"), "{reason}");
    assert_eq!(within(cluster.replicas[leader].ready()).await, Err(failure.clone()));
    cluster.hands[leader].set(WORKS);

    within(map.put("after", &3)).await.expect("done by the others");
    assert_eq!(within(map.get("before")).await.expect("answered"), Some(1));
    // Its own handles go to the others.
    let own: DistributedMap<String, u64> =
        within(cluster.replicas[leader].atomix().map("/kept")).await.expect("the map opens");
    assert_eq!(within(own.get("after")).await.expect("answered"), Some(3));

    // It stays up, and says why to whoever asks, from inside and from outside.
    let status = cluster.says(leader, |status| status.role == "failed").await;
    assert!(status.notice.contains("the disk is gone") && !status.is_ready() && !status.votes, "{status:?}");
    for _ in 0..3 {
        let asked = cluster_status_over(cluster.network.clone(), cluster.addresses[leader].as_str()).await;
        assert_eq!(asked.expect("it answers").notice, status.notice);
    }
    // Though the disk would work again, nothing was asked of it.
    assert_eq!(cluster.hands[leader].calls_after_the_failure(), 0);
    assert_eq!(within(cluster.replicas.remove(leader).shutdown()).await, Err(failure));
}

#[tokio::test]
async fn a_server_that_is_the_only_one_says_that_its_disk_failed() {
    let mut cluster = Cluster::start(1).await;
    let map = cluster.client().await;
    map.put("before", &1).await.expect("done");
    cluster.hands[0].set(BROKEN);
    let lost = map.put("during", &2);
    let failure = within(cluster.replicas[0].failed()).await;
    assert!(matches!(failure, Error::DiskFailed(_)), "{failure}");
    let asked = cluster_status_over(cluster.network.clone(), cluster.addresses[0].as_str()).await;
    assert!(asked.expect("it answers").notice.contains("the disk is gone"));
    assert_eq!(within(cluster.replicas.remove(0).shutdown()).await, Err(failure));
    drop(lost);
}

#[tokio::test]
async fn one_full_disk_is_no_trouble_to_the_others() {
    let cluster = Cluster::start(3).await;
    let map = cluster.client().await;
    map.put("before", &1).await.expect("done");
    let former = cluster.leader();
    cluster.hands[former].set(SCARCE);
    let status = cluster.says(former, |status| status.full && status.role == "follower").await;
    assert!(!status.is_ready() && !status.notice.is_empty(), "{status:?}");
    within(map.put("after", &2)).await.expect("done by another leader");
    cluster.hands[former].set(WORKS);
    let status = cluster.says(former, |status| !status.full && status.is_ready()).await;
    assert!(status.notice.is_empty(), "{status:?}");
}

#[tokio::test]
async fn full_disks_refuse_commands_and_answer_queries_and_come_back_by_themselves() {
    let cluster = Cluster::start(1).await;
    let map = cluster.client().await;
    map.put("before", &1).await.expect("done");
    cluster.hands[0].set(SCARCE);
    cluster.says(0, |status| status.full && !status.is_ready()).await;
    let refused = within(map.put("refused", &2)).await;
    let full = matches!(refused, Err(MapError::Resource(ResourceError::NotDone(NotDone::Full))));
    assert!(full, "{refused:?}");
    assert_eq!(within(map.get("before")).await.expect("answered"), Some(1));
    assert!(cluster.replicas[0].status().notice.contains("full"));
    cluster.hands[0].set(WORKS);
    within(cluster.replicas[0].ready()).await.expect("by itself");
    within(map.put("after", &3)).await.expect("done");
    assert_eq!(within(map.get("refused")).await.expect("answered"), None);
}

#[tokio::test]
async fn what_finds_no_room_at_all_is_written_when_there_is_some_again() {
    let cluster = Cluster::start(1).await;
    let map = cluster.client().await;
    map.put("before", &1).await.expect("done");
    cluster.hands[0].set(FULL);
    let during = map.put("during", &2);
    cluster.says(0, |status| status.full && !status.is_ready()).await;
    cluster.hands[0].set(WORKS);
    within(during).await.expect("done, late");
    within(cluster.replicas[0].ready()).await.expect("by itself");
    assert_eq!(within(map.get("during")).await.expect("answered"), Some(2));
}
