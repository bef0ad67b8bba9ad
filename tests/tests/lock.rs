//! A lock over whole clusters: who waits hears of the grant through the loss of leaders, and nobody else believes that it holds.

use std::time::Duration;

use atomix::{Atomix, ClientId, Deleted, DistributedMap, Error, ResourceError};
use atomix_tests::Cluster;

#[tokio::test]
async fn a_waiter_gets_its_grant_from_the_next_leader() {
    let mut cluster = Cluster::in_memory(3).await;
    let (first, second) = (cluster.client().await.unwrap(), cluster.client().await.unwrap());
    let held = first.lock("/lock").await.unwrap();
    let wanted = second.lock("/lock").await.unwrap();
    let guard = held.acquire().await.unwrap();
    let waiting = wanted.acquire();
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    assert_eq!(held.queue_len().await.unwrap(), 1);
    assert!(guard.valid_for() > Duration::ZERO, "a change of leader takes nothing away");
    let token = guard.token();
    guard.release().await.unwrap();
    let next = waiting.await.unwrap();
    assert!(next.token() > token);
    assert_eq!(wanted.holder().await.unwrap().map(|holder| holder.token), Some(next.token()));
}

#[tokio::test]
async fn fenced_writes_of_an_earlier_holder_are_refused() {
    let cluster = Cluster::in_memory(3).await;
    let (first, second) = (cluster.client().await.unwrap(), cluster.client().await.unwrap());
    let map: DistributedMap<String, u64> = first.map("/guarded").await.unwrap();
    let lock = first.lock("/lock").await.unwrap();
    let early = lock.acquire().await.unwrap();
    map.fenced(&early).put("a", &1).await.unwrap();
    // What a holder that sleeps through its loss would do: write with what it had.
    let forgotten = map.fenced(&early);
    early.release().await.unwrap();
    let late = second.lock("/lock").await.unwrap().acquire().await.unwrap();
    let other: DistributedMap<String, u64> = second.map("/guarded").await.unwrap();
    other.fenced(&late).put("a", &2).await.unwrap();
    let refused = forgotten.put("a", &3).await.unwrap_err();
    assert!(refused.is_not_done(), "{refused}");
    assert_eq!(map.get("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_client_that_comes_back_takes_the_lock_from_its_ghost() {
    let cluster = Cluster::in_memory(3).await;
    let connect = || {
        let builder = Atomix::builder().transport(cluster.transport()).client_id(ClientId(7));
        builder.session_timeout(Duration::from_secs(600)).connect(cluster.addresses())
    };
    let before = connect().await.unwrap();
    let ghost = before.lock("/lock").await.unwrap().acquire().await.unwrap();
    let after = connect().await.unwrap();
    let guard = after.lock("/lock").await.unwrap().acquire().await.unwrap();
    assert!(guard.token() > ghost.token());
    ghost.lost().await;
    assert_eq!(ghost.valid_for(), Duration::ZERO);
}

#[tokio::test]
async fn work_ends_when_the_guard_is_lost() {
    let cluster = Cluster::in_memory(1).await;
    let atomix = cluster.client().await.unwrap();
    let guard = atomix.lock("/lock").await.unwrap().acquire().await.unwrap();
    let working = guard.run(std::future::pending::<()>());
    let (ended, closed) = tokio::join!(working, atomix.close());
    assert!(ended.is_err() && closed.is_ok());
}

#[tokio::test]
async fn a_lock_that_is_held_is_deleted_only_by_force_and_in_two_steps() {
    let cluster = Cluster::in_memory(3).await;
    let (first, second) = (cluster.client().await.unwrap(), cluster.client().await.unwrap());
    let guard = first.lock("/lock").await.unwrap().acquire().await.unwrap();
    let refused = second.delete("/lock").await;
    assert!(matches!(refused, Err(Error::Resource(ResourceError::InUse(_)))), "{refused:?}");
    assert_eq!(second.delete_forced("/lock").await.unwrap(), Deleted::Revoking);
    guard.lost().await;
    assert_eq!(guard.valid_for(), Duration::ZERO);
    assert_eq!(second.exists("/lock").await.unwrap().as_deref(), Some("lock"));
    drop(guard);
    // The drop gives it back, and with it the lock goes: in the order of this session, so it is seen at once.
    assert_eq!(first.exists("/lock").await.unwrap(), None);
    assert!(!second.delete("/lock").await.unwrap());
    let another = second.lock("/lock").await.unwrap().try_acquire().await.unwrap();
    assert!(another.is_some(), "another lock, and free");
}

#[tokio::test]
async fn a_guard_counts_from_its_first_moment_also_right_after_connecting() {
    let cluster = Cluster::in_memory(3).await;
    for _ in 0..10 {
        let atomix = cluster.client().await.unwrap();
        let lock = atomix.lock("/lock").await.unwrap();
        let guard = lock.acquire().await.unwrap();
        assert!(guard.valid_for() > Duration::ZERO);
        guard.run(async {}).await.unwrap();
    }
}

#[tokio::test]
async fn guards_dropped_out_of_contact_are_given_back_however_many() {
    let mut cluster = Cluster::in_memory(3).await;
    let (atomix, other) = (cluster.client().await.unwrap(), cluster.client().await.unwrap());
    let mut guards = Vec::new();
    for number in 0..200 {
        guards.push(atomix.lock(&format!("/lock-{number}")).await.unwrap().acquire().await.unwrap());
    }
    // No majority: nothing is answered while they are dropped, more than there is room for.
    let (leader, rest) = (cluster.leader().await, [0, 1, 2]);
    let down: Vec<usize> = rest.into_iter().filter(|server| *server != leader).collect();
    for server in &down {
        cluster.stop(*server).await;
    }
    drop(guards);
    cluster.start_those_down().await;
    for number in 0..200 {
        let lock = other.lock(&format!("/lock-{number}")).await.unwrap();
        let guard = lock.try_acquire_for(Duration::from_secs(20)).await.unwrap();
        assert!(guard.is_some(), "lock {number} is held by nobody");
    }
}
