//! What callers are told when the cluster does not answer.

use std::time::Duration;

use atomix::{Atomix, DistributedMap, MapError, NotDone, ResourceError, SessionState};
use atomix_tests::Cluster;

async fn client(cluster: &Cluster) -> Atomix {
    let builder = Atomix::builder()
        .operation_timeout(Duration::from_millis(200))
        .session_timeout(Duration::from_millis(500))
        .transport(cluster.transport());
    builder.connect(cluster.addresses()).await.expect("connected")
}

#[tokio::test]
async fn commands_end_unknown_and_queries_not_done() {
    let mut cluster = Cluster::in_memory(1).await;
    let client = client(&cluster).await;
    let map: DistributedMap<String, u64> = client.map("/map").await.expect("it opens");
    cluster.stop(0).await;
    let (put, get) = (map.put("key", &1), map.get("key"));
    let put = put.await.expect_err("nobody answers");
    assert!(matches!(put, MapError::Resource(ResourceError::Unknown(_))), "{put}");
    let get = get.await.expect_err("nobody answers");
    assert_eq!(get, ResourceError::NotDone(NotDone::TimedOut).into());
    let session = client.session().await.expect("it was opened");
    let mut states = session.states();
    states.wait_for(|state| *state == SessionState::Suspended).await.expect("the session is driven");
    client.close().await.expect("silence ends the session");
    assert_eq!(session.state(), SessionState::Closed);
    let late = map.put("key", &2).await.expect_err("the session is over");
    assert_eq!(late, ResourceError::NotDone(NotDone::SessionEnded).into());
}

#[tokio::test]
async fn an_unknown_command_takes_effect_once_at_most() {
    let mut cluster = Cluster::in_memory(1).await;
    let client = Atomix::builder()
        .operation_timeout(Duration::from_millis(200))
        .session_timeout(Duration::from_secs(60))
        .transport(cluster.transport())
        .connect(cluster.addresses())
        .await
        .expect("connected");
    let map: DistributedMap<String, u64> = client.map("/map").await.expect("it opens");
    cluster.stop(0).await;
    let put = map.put("key", &1).await.expect_err("nobody answers");
    assert!(matches!(put, MapError::Resource(ResourceError::Unknown(_))), "{put}");
    cluster.start_those_down().await;
    // The client core went on sending it (S4), and what comes after in its session takes effect after it.
    assert_eq!(map.put("key", &2).await.expect("done"), Some(1));
}

#[tokio::test]
async fn submitting_needs_no_runtime() {
    let cluster = Cluster::in_memory(1).await;
    let client = client(&cluster).await;
    let map: DistributedMap<String, u64> = client.map("/map").await.expect("it opens");
    let thread = {
        let map = map.clone();
        std::thread::spawn(move || drop(map.put("key", &7)))
    };
    thread.join().expect("no panic");
    assert_eq!(map.get("key").await.expect("answered"), Some(7));
}
