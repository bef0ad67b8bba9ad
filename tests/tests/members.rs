//! A cluster that grows while it is written to, and goes on when its leader is shut down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atomix::admin::{Change, ManageAction, ManageOutcome, manage};
use atomix::{DistributedMap, Error, MemberKind, Replica, ServerId, Status};
use atomix_tests::{Cluster, free_addresses};
use tokio::time::timeout;

type Map = DistributedMap<u64, u64>;

/// Nothing here takes this long unless it hangs.
const LIMIT: Duration = Duration::from_secs(30);

async fn until(replica: &Replica, what: &str, done: impl FnMut(&Status) -> bool) -> Status {
    let mut statuses = replica.statuses();
    let status = timeout(LIMIT, statuses.wait_for(done)).await;
    status.unwrap_or_else(|_| panic!("no {what} in time: {:?}", replica.status())).expect("it runs").clone()
}

/// Writes ascending numbers until told to stop; returns how many were acknowledged.
async fn write(map: Map, stop: Arc<AtomicBool>) -> u64 {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        timeout(LIMIT, map.put(&written, &written)).await.expect("in time").expect("done");
        written += 1;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_server_joins_a_cluster_that_is_written_to() {
    let mut cluster = Cluster::on_this_machine(3).await;
    let client = cluster.client().await.expect("connected");
    let map: Map = client.map("/numbers").await.expect("the map opens");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(map.clone(), stop.clone()));

    let (address, folder) = (free_addresses(1).remove(0), tempfile::tempdir().expect("a folder"));
    let builder = || Replica::builder(address.as_str()).data_dir(folder.path()).segment_bytes(1 << 20);
    let fourth = builder().join(cluster.addresses()).await.expect("it starts");
    let status = until(&fourth, "vote", |status| status.votes && !status.joint).await;
    assert_eq!((status.members.len(), status.notice.as_str()), (4, ""));
    assert_eq!(status.cluster, cluster.replica(0).status().cluster);
    timeout(LIMIT, fourth.ready()).await.expect("in time").expect("it runs");

    // It hands over, and the writer notices no more than a redirection. The new server is needed for the quorum from here on.
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let through: Map = fourth.atomix().map("/numbers").await.expect("the map opens");
    assert_eq!(through.get(&0).await.expect("answered"), Some(0));

    stop.store(true, Ordering::Relaxed);
    let written = timeout(LIMIT, writer).await.expect("in time").expect("no panic");
    assert!(written > 0);
    assert_eq!(through.len().await.expect("answered"), written, "every acknowledged write is there, once");

    // On its directory, now in use, the list is only compared.
    timeout(LIMIT, fourth.shutdown()).await.expect("in time").expect("it had not failed");
    let fourth = builder().join(cluster.addresses()).await.expect("it starts again");
    let again = until(&fourth, "leader", |status| status.leader.is_some()).await;
    assert_eq!((again.server, again.incarnation, again.votes), (status.server, status.incarnation, true));
    let through: Map = fourth.atomix().map("/numbers").await.expect("the map opens");
    assert_eq!(through.len().await.expect("answered"), written);
    fourth.shutdown().await.expect("it had not failed");
}

/// The servers of three are replaced one by one while a client uses its session. None of those that it was started with is left
/// when the leader is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_outlives_every_server_that_it_knew() {
    let mut cluster = Cluster::on_this_machine(3).await;
    let client = cluster.client().await.expect("connected");
    let map: Map = client.map("/numbers").await.expect("the map opens");
    map.put(&0, &0).await.expect("done");
    let folder = tempfile::tempdir().expect("a folder");
    let (old, addresses) = (cluster.addresses().join(","), free_addresses(3));
    let old: Vec<&str> = old.split(',').collect();
    let mut later = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let builder = Replica::builder(address.as_str()).segment_bytes(1 << 20);
        let builder = builder.data_dir(folder.path().join(number.to_string()));
        let replica = builder.join(old.clone()).await.expect("it starts");
        // One change at a time: the next is refused until this one is committed.
        until(&replica, "vote", |status| {
            status.votes && !status.joint && status.committed_configuration == status.configuration_index
        })
        .await;
        later.push(replica);
    }
    let expected = later[2].status().configuration_index;
    let all: Vec<&str> = addresses.iter().map(String::as_str).chain(old.iter().copied()).collect();
    let founders = [1, 2, 3].map(ServerId).to_vec();
    let change = ManageAction::Change(Change { expected, remove: founders, ..Change::default() });
    let outcome = manage(all, change, LIMIT).await.expect("the leader is reached");
    assert!(matches!(outcome, ManageOutcome::Changed(_)), "{outcome:?}");
    map.put(&1, &1).await.expect("done");
    for server in 0..3 {
        cluster.stop(server).await;
    }
    let leader = loop {
        if let Some(leader) = later.iter().position(|replica| replica.status().role == "leader") {
            break leader;
        }
        later[0].statuses().changed().await.expect("it runs");
    };
    drop(later.remove(leader));
    timeout(LIMIT, map.put(&2, &2)).await.expect("in time").expect("done, in the same session");
    assert_eq!(timeout(LIMIT, map.len()).await.expect("in time").expect("answered"), 3);
}

#[tokio::test]
async fn a_learner_holds_the_state_and_never_votes() {
    let cluster = Cluster::in_memory(1).await;
    let map: Map = cluster.replica(0).atomix().map("/numbers").await.expect("the map opens");
    map.put(&1, &1).await.expect("done");
    let storage = Box::new(atomix_storage::MemoryStorage::new());
    let builder = Replica::builder("learner").transport(cluster.transport()).storage(storage);
    let learner =
        builder.member_kind(MemberKind::Learner).join(cluster.addresses()).await.expect("it starts");
    let status = until(&learner, "leader", |status| status.leader.is_some()).await;
    assert_eq!((status.votes, status.notice.as_str()), (false, ""));
    let through: Map = learner.atomix().map("/numbers").await.expect("the map opens");
    assert_eq!(through.get(&1).await.expect("answered"), Some(1));
    learner.shutdown().await.expect("it had not failed");
    map.put(&2, &2).await.expect("done, without the learner");
}

#[tokio::test]
async fn joining_through_nobody_is_refused() {
    let storage = Box::new(atomix_storage::MemoryStorage::new());
    let transport = Arc::new(atomix_transport::MemoryNetwork::new());
    let builder = Replica::builder("here").transport(transport).storage(storage);
    let error = builder.join::<&str>([]).await.expect_err("nobody");
    assert!(matches!(error, Error::Settings(_)), "{error}");
}
