//! Linearizable reads by lease: what a leader may answer by itself, and what it may not.

use std::sync::Arc;
use std::time::Duration;

use atomix::{Atomix, DistributedMap, Replica};
use atomix_storage::MemoryStorage;
use atomix_transport::{MemoryNetwork, Transport};
use tokio::time::timeout;

type Map = DistributedMap<String, u64>;

/// Nothing here takes this long unless it hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// Long, so that a lease outlasts whatever the machine is busy with between two lines of a test.
const ELECTION: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(5));
/// A reader without an answer for so long gets none.
const PATIENCE: Duration = Duration::from_secs(2);

/// Two servers and a map with one value in it: neither is a majority.
async fn pair(lease: Duration) -> (Replica, Replica, Map) {
    let transport: Arc<dyn Transport> = Arc::new(MemoryNetwork::new());
    let start = |address: &'static str| {
        let builder = Replica::builder(address).transport(transport.clone());
        let builder = builder.storage(Box::new(MemoryStorage::new())).lease_reads(lease);
        builder.election_timeout(ELECTION.0, ELECTION.1).bootstrap(["one", "two"])
    };
    let (one, two) = tokio::join!(start("one"), start("two"));
    let (one, two) = (one.expect("it starts"), two.expect("it starts"));
    timeout(LIMIT, one.ready()).await.expect("in time").expect("it runs");
    let client =
        Atomix::builder().transport(transport.clone()).connect(["one", "two"]).await.expect("connected");
    let map: Map = client.map("/numbers").await.expect("the map opens");
    map.put("one", &1).await.expect("done");
    if one.status().role == "leader" { (one, two, map) } else { (two, one, map) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_lease_a_read_needs_no_majority() {
    let (leader, follower, map) = pair(ELECTION.0).await;
    assert_eq!(timeout(LIMIT, map.get("one")).await.expect("in time").expect("answered"), Some(1));
    drop(follower);
    let read = timeout(PATIENCE, map.get("one")).await;
    assert_eq!(read.expect("the lease is long enough").expect("answered"), Some(1));
    let written = timeout(PATIENCE, map.put("one", &2)).await;
    assert!(written.is_err(), "no majority, no write: {written:?}");
    drop(leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_it_needs_one() {
    let (leader, follower, map) = pair(Duration::ZERO).await;
    drop(follower);
    let read = timeout(PATIENCE, map.get("one")).await;
    assert!(read.is_err(), "{read:?}");
    drop(leader);
}
