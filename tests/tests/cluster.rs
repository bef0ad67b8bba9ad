//! Three replicas over real sockets and files, and a map that survives their leader.

use atomix::{DistributedMap, Error, Replica};
use atomix_tests::Cluster;

type Map = DistributedMap<String, u64>;

async fn map(replica: &Replica) -> Map {
    replica.atomix().map("/numbers").await.expect("the map opens")
}

async fn check(replica: &Replica, expected: &[(&str, u64)]) {
    let map = map(replica).await;
    for (key, value) in expected {
        assert_eq!(
            map.get(*key).await.expect("answered"),
            Some(*value),
            "{key} through {}",
            replica.address()
        );
    }
    assert_eq!(map.len().await.expect("answered"), expected.len() as u64, "through {}", replica.address());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_survives_its_leader() {
    let mut cluster = Cluster::on_this_machine(3).await;
    let mut expected = vec![("zero", 0), ("one", 1), ("two", 2)];
    for (server, (key, value)) in expected.iter().enumerate() {
        map(cluster.replica(server)).await.put(*key, value).await.expect("done");
    }
    for server in 0..3 {
        check(cluster.replica(server), &expected).await;
    }
    let client = cluster.client().await.expect("connected");
    let outside: Map = client.map("/numbers").await.expect("the map opens");

    let first = cluster.leader().await;
    cluster.stop(first).await;
    outside.put("three", &3).await.expect("done, by the next leader");
    expected.push(("three", 3));
    let second = cluster.leader().await;
    assert_ne!(first, second);
    for server in (0..3).filter(|server| *server != first) {
        check(cluster.replica(server), &expected).await;
    }

    cluster.start_those_down().await;
    outside.put("four", &4).await.expect("done");
    expected.push(("four", 4));
    check(cluster.replica(first), &expected).await;
    client.close().await.expect("closed");
    let after = outside.put("five", &5).await.expect_err("the session is closed");
    assert!(matches!(Error::from(after.clone()), Error::Resource(error) if error.is_not_done()), "{after}");
}

#[tokio::test]
async fn commands_take_effect_in_the_order_of_calls() {
    let cluster = Cluster::in_memory(3).await;
    let map = map(cluster.replica(0)).await;
    // All under way at once; only the first future is awaited last.
    let calls: Vec<_> = (0..500_u64).map(|value| map.put("counter", &value)).collect();
    let mut previous = None;
    for call in calls {
        let replaced = call.await.expect("done");
        assert_eq!(replaced, previous);
        previous = Some(previous.map_or(0, |value| value + 1));
    }
    assert_eq!(map.get("counter").await.expect("answered"), Some(499));
}

#[tokio::test]
async fn one_server_is_a_cluster() {
    let cluster = Cluster::in_memory(1).await;
    map(cluster.replica(0)).await.put("alone", &1).await.expect("done");
    check(cluster.replica(0), &[("alone", 1)]).await;
    let status = cluster.replica(0).status();
    assert_eq!((status.role.as_str(), status.votes, status.members.len()), ("leader", true, 1));
}
