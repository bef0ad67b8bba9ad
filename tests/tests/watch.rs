//! Watching a map of a whole cluster: each change once and in order, through the loss of leaders.

use atomix::{DistributedMap, MapChange, WatchEnd};
use atomix_tests::Cluster;

#[tokio::test]
async fn each_change_once_and_in_order_through_two_leaders() {
    let mut cluster = Cluster::in_memory(3).await;
    let (writer, watcher) = (cluster.client().await.unwrap(), cluster.client().await.unwrap());
    let written: DistributedMap<String, u64> = writer.map("/watched").await.unwrap();
    let watched: DistributedMap<String, u64> = watcher.map("/watched").await.unwrap();
    written.put("key", &0).await.unwrap();
    let mut changes = watched.watch().await.unwrap().current_first();
    for round in 0..2 {
        for number in 1..=50 {
            written.put("key", &(round * 50 + number)).await.unwrap();
        }
        let leader = cluster.leader().await;
        cluster.stop(leader).await;
        cluster.start_those_down().await;
    }
    let MapChange::Current { entry, .. } = changes.next().await.unwrap() else { panic!("the state first") };
    let mut last = entry;
    while last.value < 100 {
        let MapChange::Updated { key, old, new } = changes.next().await.unwrap() else { panic!("updated") };
        assert_eq!((key.as_str(), old, new.value), ("key", last, last.value + 1));
        assert!(new.version > last.version);
        last = new;
    }
    written.remove("key").await.unwrap();
    let removed = changes.next().await.unwrap();
    assert!(matches!(&removed, MapChange::Removed { old, .. } if *old == last), "{removed:?}");
}

#[tokio::test]
async fn a_stream_says_why_it_ends() {
    let cluster = Cluster::in_memory(1).await;
    let (writer, watcher) = (cluster.client().await.unwrap(), cluster.client().await.unwrap());
    let written: DistributedMap<String, u64> = writer.map("/watched").await.unwrap();
    let watched: DistributedMap<String, u64> = watcher.map("/watched").await.unwrap();
    let mut slow = watched.with_queue(2).watch().await.unwrap();
    let mut other = watched.watch_key("b").await.unwrap();
    for key in ["a", "b", "c", "d"] {
        written.put(key, &1).await.unwrap();
    }
    // Everything is here before the answer to a read that came after it.
    assert_eq!(watched.len().await.unwrap(), 4);
    for key in ["a", "b"] {
        let change = slow.next().await.unwrap();
        assert!(matches!(&change, MapChange::Added { key: found, .. } if found == key), "{change:?}");
    }
    assert_eq!(slow.next().await, Err(WatchEnd::Lagged));
    let change = other.next().await.unwrap();
    assert!(matches!(&change, MapChange::Added { key, .. } if key == "b"), "{change:?}");
    assert!(writer.delete("/watched").await.unwrap());
    assert_eq!(other.next().await, Err(WatchEnd::Deleted));

    let again: DistributedMap<String, u64> = watcher.map("/watched").await.unwrap();
    let mut last = again.watch().await.unwrap();
    watcher.close().await.unwrap();
    assert_eq!(last.next().await, Err(WatchEnd::SessionEnded));
}
