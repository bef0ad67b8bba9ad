//! A resource of one's own, hosted by replicas, and what becomes of one that panics.

use std::sync::Arc;
use std::time::Duration;

use atomix::resource::{
    Answer, Apply, BadConfiguration, CommandContext, Handle, NoEvent, QueryContext, Resource, ResourceHandle,
};
use atomix::{Consistency, DistributedMap, Error, Replica, ResourceError};
use atomix_storage::MemoryStorage;
use atomix_transport::MemoryNetwork;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Add(u64);
#[derive(Serialize, Deserialize)]
struct Panic;
#[derive(Serialize, Deserialize)]
struct Total;

atomix::resource::operations! {
    struct TallyOperations;
    commands { 1: Add -> u64, 2: Panic -> () }
    queries { 32: Total -> u64 }
}

#[derive(Clone, Serialize, Deserialize)]
struct TallyState(u64);

impl Resource for TallyState {
    const KIND: &'static str = "test/tally";
    type Operations = TallyOperations;
    type Configuration = ();
    type Event = NoEvent;

    fn create((): ()) -> Result<Self, BadConfiguration> {
        Ok(TallyState(0))
    }
}

impl Apply<Add> for TallyState {
    fn apply(&mut self, _: &mut CommandContext<'_>, Add(amount): Add) -> u64 {
        self.0 += amount;
        self.0
    }
}

impl Apply<Panic> for TallyState {
    fn apply(&mut self, _: &mut CommandContext<'_>, Panic: Panic) {
        panic!("a state that can't go on");
    }
}

impl Answer<Total> for TallyState {
    fn answer(&self, _: &QueryContext, Total: Total) -> u64 {
        self.0
    }
}

struct Tally(Handle<TallyState>);

impl ResourceHandle for Tally {
    type State = TallyState;

    fn from_handle(handle: Handle<TallyState>) -> Self {
        Tally(handle)
    }
}

async fn replica() -> Replica {
    let replica = Replica::builder("here")
        .transport(Arc::new(MemoryNetwork::new()))
        .storage(Box::new(MemoryStorage::new()))
        .registry(|registry| registry.with::<TallyState>())
        .bootstrap(["here"])
        .await
        .expect("the server starts");
    replica.ready().await.expect("the server gets ready");
    replica
}

#[tokio::test]
async fn it_stands_beside_those_that_come_with_atomix() {
    let replica = replica().await;
    let atomix = replica.atomix();
    let tally: Tally = atomix.get("/tally").await.expect("it opens");
    tally.0.command(&Add(2)).await.expect("done");
    assert_eq!(tally.0.command(&Add(3)).await.expect("done").1, 5);
    assert_eq!(tally.0.query(&Total, Consistency::Linearizable).await.expect("answered").1, 5);
    let again: Tally = atomix.get("/tally").await.expect("it opens");
    let own: Tally = atomix.create("/tally").await.expect("it opens");
    assert_eq!(again.0.instance(), tally.0.instance());
    assert_ne!(own.0.instance(), tally.0.instance());

    let wrong = atomix.map::<String, String>("/tally").await.expect_err("it is no map");
    let typed = ResourceError::WrongKind { path: "/tally".into(), wanted: "map", found: "test/tally".into() };
    assert_eq!(wrong, Error::Resource(typed));
    let _map: DistributedMap<String, String> = atomix.map("/map").await.expect("it opens");
    replica.shutdown().await.expect("it had not failed");
}

#[tokio::test]
async fn a_panic_ends_the_server_and_says_so() {
    let replica = replica().await;
    let tally: Tally = replica.atomix().get("/tally").await.expect("it opens");
    let _never = tally.0.command(&Panic);
    let failure = tokio::time::timeout(Duration::from_secs(30), replica.failed()).await.expect("in time");
    assert!(matches!(&failure, Error::Stopped(reason) if reason.contains("can't go on")), "{failure}");
}
