//! What was acknowledged outlives all servers.

use atomix::DistributedMap;
use atomix_tests::Cluster;

async fn check(mut cluster: Cluster) {
    let id = cluster.replica(0).status().cluster;
    assert!(id.is_some());
    let client = cluster.client().await.expect("connected");
    let map: DistributedMap<u64, String> = client.map("/words").await.expect("the map opens");
    for number in 0..100 {
        map.put(&number, &format!("word {number}")).await.expect("done");
    }
    // A second time around, so that what the first recovery wrote is recovered too.
    for round in 0..2 {
        for server in 0..3 {
            cluster.stop(server).await;
        }
        cluster.start_those_down().await;
        assert_eq!(cluster.replica(0).status().cluster, id);
        for server in 0..3 {
            let map: DistributedMap<u64, String> =
                cluster.replica(server).atomix().map("/words").await.expect("the map opens");
            for number in 0..100 {
                let word = map.get(&number).await.expect("answered");
                assert_eq!(word, Some(format!("word {number}")), "round {round}, through server {server}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_data_directories() {
    check(Cluster::on_this_machine(3).await).await;
}

#[tokio::test]
async fn with_storage_in_memory() {
    check(Cluster::in_memory(3).await).await;
}
