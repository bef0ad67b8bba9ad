//! Every asynchronous operation of a client, a map and a lock, given up at each of its await points, leaves nothing on the servers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use atomix::{Atomix, DistributedLock, DistributedMap};
use atomix_tests::Cluster;

/// More await points than anything here has.
const MOST: usize = 64;
/// Longer than any test takes: what is left behind is not just late to expire.
const SESSION: Duration = Duration::from_secs(600);

type Map = DistributedMap<String, u64>;

/// A future that is dropped when it waits for the n-th time: before it was ever polled, if that is the zeroth.
struct GivenUp<F> {
    future: Pin<Box<F>>,
    left: usize,
}

impl<F: Future> Future for GivenUp<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        match self.future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                self.left -= 1;
                if self.left == 0 { Poll::Ready(None) } else { Poll::Pending }
            }
        }
    }
}

/// Begins an operation anew for each of its await points and gives it up there. Ends with the one that was left to end.
async fn at_each_point<F: Future>(mut operation: impl FnMut() -> F) -> F::Output {
    for left in 0..MOST {
        if let Some(output) = (GivenUp { future: Box::pin(operation()), left }).await {
            return output;
        }
    }
    panic!("the operation waits more than {MOST} times");
}

async fn client(cluster: &Cluster) -> Atomix {
    let network = cluster.transport();
    let builder = Atomix::builder().transport(network).session_timeout(SESSION);
    builder.connect(cluster.addresses()).await.expect("connected")
}

async fn expect_free(lock: &DistributedLock, after: &str) {
    assert_eq!(lock.holder().await.expect("answered"), None, "held after {after}");
    assert_eq!(lock.queue_len().await.expect("answered"), 0, "waited for after {after}");
}

#[tokio::test]
async fn a_lock_that_is_free() {
    let cluster = Cluster::in_memory(1).await;
    let atomix = client(&cluster).await;
    let lock = atomix.lock("/lock").await.expect("opened");
    drop(at_each_point(|| lock.acquire()).await.expect("granted"));
    expect_free(&lock, "acquire").await;
    drop(at_each_point(|| lock.try_acquire()).await.expect("answered").expect("granted"));
    expect_free(&lock, "try_acquire").await;
    let wait = Duration::from_secs(60);
    drop(at_each_point(|| lock.try_acquire_for(wait)).await.expect("answered").expect("granted"));
    expect_free(&lock, "try_acquire_for").await;
    at_each_point(|| lock.holder()).await.expect("answered");
    at_each_point(|| lock.queue_len()).await.expect("answered");
    expect_free(&lock, "looking").await;
}

#[tokio::test]
async fn a_lock_that_another_session_holds() {
    let cluster = Cluster::in_memory(1).await;
    let (holder, waiter) = (client(&cluster).await, client(&cluster).await);
    let held = holder.lock("/lock").await.expect("opened");
    let wanted = waiter.lock("/lock").await.expect("opened");
    let guard = held.acquire().await.expect("granted");
    // Given up before it was polled, while it waits for the answer, and while it waits for the grant. Nothing wakes it after that.
    for left in 0..=2 {
        let given_up = GivenUp { future: Box::pin(wanted.acquire()), left }.await;
        assert!(given_up.is_none(), "granted though it is held");
        let wait = Duration::from_secs(600);
        let given_up = GivenUp { future: Box::pin(wanted.try_acquire_for(wait)), left }.await;
        assert!(given_up.is_none(), "granted though it is held");
        assert_eq!(wanted.queue_len().await.expect("answered"), 0, "given up at {left}");
    }
    assert!(at_each_point(|| wanted.try_acquire()).await.expect("answered").is_none());
    assert_eq!(wanted.queue_len().await.expect("answered"), 0);
    guard.release().await.expect("released");
    expect_free(&wanted, "release").await;
}

#[tokio::test]
async fn a_guard() {
    let cluster = Cluster::in_memory(1).await;
    let atomix = client(&cluster).await;
    let lock = atomix.lock("/lock").await.expect("opened");
    for left in 0..8 {
        let guard = lock.acquire().await.expect("granted");
        let _ = GivenUp { future: Box::pin(guard.release()), left }.await;
        expect_free(&lock, "a release given up").await;
    }
    for left in 0..=1 {
        let guard = lock.acquire().await.expect("granted");
        assert!((GivenUp { future: Box::pin(guard.lost()), left }).await.is_none(), "lost");
        let run = guard.run(std::future::pending::<()>());
        assert!((GivenUp { future: Box::pin(run), left }).await.is_none());
        assert!(guard.valid_for() > Duration::ZERO, "giving up a look at it takes nothing away");
        drop(guard);
        expect_free(&lock, "a guard was dropped").await;
    }
}

#[tokio::test]
async fn a_map() {
    let cluster = Cluster::in_memory(1).await;
    let atomix = client(&cluster).await;
    let map: Map = at_each_point(|| atomix.map("/map")).await.expect("opened");
    at_each_point(|| map.put("a", &1)).await.expect("done");
    at_each_point(|| map.put_if_absent("a", &1)).await.expect("done");
    at_each_point(|| map.replace("a", &2)).await.expect("done");
    let seen = at_each_point(|| map.get_versioned("a")).await.expect("answered").expect("there");
    at_each_point(|| map.replace_if("b", seen.version, &3)).await.expect("done");
    at_each_point(|| map.remove_if("b", seen.version)).await.expect("done");
    at_each_point(|| map.get("a")).await.expect("answered");
    at_each_point(|| map.get_or_default("a", 1)).await.expect("answered");
    at_each_point(|| map.contains_key("a")).await.expect("answered");
    at_each_point(|| map.len()).await.expect("answered");
    at_each_point(|| map.is_empty()).await.expect("answered");
    assert_eq!(at_each_point(|| map.entries()).await.expect("answered"), [("a".to_owned(), 2)]);
    drop(at_each_point(|| map.watch()).await.expect("watched"));
    drop(at_each_point(|| map.watch_key("a")).await.expect("watched"));
    at_each_point(|| map.remove("a")).await.expect("done");
    at_each_point(|| map.clear()).await.expect("done");
    at_each_point(|| atomix.exists("/map")).await.expect("answered").expect("there");
    at_each_point(|| atomix.delete("/map")).await.expect("done");
    assert_eq!(atomix.exists("/map").await.expect("answered"), None);
}

#[tokio::test]
async fn a_client() {
    let cluster = Cluster::in_memory(1).await;
    let observer = client(&cluster).await;
    observer.session().await.expect("connected");
    let connect = || {
        let builder = Atomix::builder().transport(cluster.transport()).session_timeout(SESSION);
        builder.connect(cluster.addresses())
    };
    let atomix = at_each_point(connect).await.expect("connected");
    atomix
        .lock("/lock")
        .await
        .expect("opened")
        .acquire()
        .await
        .expect("granted")
        .release()
        .await
        .expect("done");
    at_each_point(|| atomix.close()).await.expect("closed");
    // Connections that were given up have closed what they had begun to open, without waiting for silence.
    let mut statuses = cluster.replica(0).statuses();
    let closed = statuses.wait_for(|status| status.sessions <= 2);
    let closed = tokio::time::timeout(SESSION / 20, closed).await;
    assert!(closed.is_ok(), "besides the observer's and the replica's own sessions others stay open");
    let lock = observer.lock("/lock").await.expect("opened");
    expect_free(&lock, "the clients were given up").await;
}
