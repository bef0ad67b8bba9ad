//! The driver around the engine, with a state machine of its own: what starts, what ends, and how that is told.

use std::sync::Arc;
use std::time::Duration;

use atomix_protocol::{Address, MemberKind};
use atomix_server::{Server, ServerError, ServerOptions};
use atomix_session::{
    Context, KindLevel, QueryContext, RestoreError, Slice, SnapshotSource, StateMachine, TimerId,
};
use atomix_storage::{MemoryStorage, Storage};
use atomix_transport::{MemoryNetwork, Transport};
use bytes::Bytes;

use atomix_protocol::SessionId;

/// Remembers nothing.
struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: &mut Context<'_>, command: &Bytes) -> Bytes {
        command.clone()
    }

    fn query(&self, _: &QueryContext, query: &Bytes) -> Bytes {
        query.clone()
    }

    fn session_ended(&mut self, _: &mut Context<'_>, _: SessionId) -> Slice {
        Slice::Done
    }

    fn timer_fired(&mut self, _: &mut Context<'_>, _: TimerId) {}

    fn kinds(&self) -> Vec<KindLevel> {
        Vec::new()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Bytes::new())
    }

    fn restore(&mut self, _: Bytes) -> Result<(), RestoreError> {
        Ok(())
    }
}

async fn start(
    network: &MemoryNetwork,
    storage: &MemoryStorage,
    options: ServerOptions,
) -> Result<Server, ServerError> {
    let transport: Arc<dyn Transport> = Arc::new(network.clone());
    Server::start(options, transport, Box::new(storage.clone()), Box::new(Nothing)).await
}

fn alone() -> ServerOptions {
    ServerOptions::new("here", ["here"])
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[tokio::test]
async fn it_is_found_again_as_it_was() {
    let (network, storage) = (MemoryNetwork::new(), MemoryStorage::new());
    let mut before = None;
    for _ in 0..3 {
        let server = start(&network, &storage, alone()).await.expect("it starts");
        assert_eq!(server.address(), &Address::from("here"));
        within(server.ready()).await.expect("it leads");
        let status = server.status();
        let identity = (status.cluster, status.server, status.incarnation);
        assert_eq!(*before.get_or_insert(identity), identity);
        within(server.shutdown()).await.expect("it had not failed");
    }
}

#[tokio::test]
async fn the_address_is_free_after_the_shutdown_and_not_before() {
    let network = MemoryNetwork::new();
    let server = start(&network, &MemoryStorage::new(), alone()).await.expect("it starts");
    let second = start(&network, &MemoryStorage::new(), alone()).await.expect_err("taken");
    assert!(matches!(&second, ServerError::CannotListen { address, .. } if address == "here"), "{second}");
    within(server.shutdown()).await.expect("it had not failed");
    start(&network, &MemoryStorage::new(), alone()).await.expect("free");
}

#[tokio::test]
async fn dropping_it_stops_it() {
    let network = MemoryNetwork::new();
    let server = start(&network, &MemoryStorage::new(), alone()).await.expect("it starts");
    let mut statuses = server.statuses();
    drop(server);
    // The loop owns the other end.
    within(async { while statuses.changed().await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_leader_that_is_shut_down_has_handed_over() {
    let (network, names) = (MemoryNetwork::new(), ["one", "two", "three"]);
    let mut servers = Vec::new();
    for name in names {
        let options = ServerOptions::new(name, names);
        servers.push(start(&network, &MemoryStorage::new(), options).await.expect("it starts"));
    }
    for server in &servers {
        within(server.ready()).await.expect("a leader is known");
    }
    let leads = servers.iter().position(|server| server.status().leader == server.status().server);
    let leader = servers.remove(leads.expect("ready"));
    let (server, term, statuses) = (leader.status().server, leader.status().term, leader.statuses());
    within(leader.shutdown()).await.expect("it had not failed");
    let last = statuses.borrow().clone();
    assert!(last.leader.is_some() && last.leader != server, "it knows who took over: {last:?}");
    assert_eq!((last.role.as_str(), last.term), ("follower", term.next()));
}

#[tokio::test]
async fn a_server_joins_a_cluster_and_votes() {
    let network = MemoryNetwork::new();
    let first = start(&network, &MemoryStorage::new(), alone()).await.expect("it starts");
    within(first.ready()).await.expect("it leads");
    let mut options = ServerOptions::new::<Address>("there", []);
    options.join = vec!["here".into()];
    options.priority = 3;
    let second = start(&network, &MemoryStorage::new(), options).await.expect("it starts");
    let mut statuses = second.statuses();
    let joined = statuses.wait_for(|status| status.votes && !status.joint);
    let status = within(joined).await.expect("it runs").clone();
    assert_eq!((status.cluster, status.members.len()), (first.status().cluster, 2));
    assert_eq!(status.members[1].priority, 3);
}

#[tokio::test]
async fn settings_are_checked_first() {
    let check = async |change: fn(&mut ServerOptions)| {
        let mut options = alone();
        change(&mut options);
        let error = start(&MemoryNetwork::new(), &MemoryStorage::new(), options).await.expect_err("no good");
        assert!(matches!(error, ServerError::Settings(_)), "{error}");
    };
    check(|options| options.bootstrap = vec!["there".into()]).await;
    check(|options| options.bootstrap.clear()).await;
    check(|options| options.client_address = Some("x".repeat(513).into())).await;
    check(|options| options.bootstrap.push("x".repeat(513).into())).await;
    check(|options| {
        options.address = "x".repeat(513).into();
        options.bootstrap = vec![options.address.clone()];
    })
    .await;
    check(|options| options.bootstrap.extend((1..8).map(|server| format!("there-{server}").into()))).await;
    check(|options| options.join = vec!["there".into()]).await;
    check(|options| (options.bootstrap, options.join) = (vec![], vec!["here".into()])).await;
    check(|options| {
        (options.bootstrap, options.join) = (vec![], vec!["there".into()]);
        options.kind = MemberKind::Leaving;
    })
    .await;
    check(|options| options.heartbeat = options.election_timeout.0).await;
    check(|options| options.election_timeout.1 = options.election_timeout.0).await;
    check(|options| options.log_memory_bytes = 0).await;
    check(|options| options.lease = options.election_timeout.0 + Duration::from_millis(1)).await;
}

/// Panics where a real one would return an error.
struct Panicking;

impl Storage for Panicking {
    fn recover(
        &mut self,
        _: &mut dyn FnMut(atomix_protocol::Entry),
    ) -> Result<atomix_storage::Recovered, atomix_storage::StorageError> {
        panic!("recovery went wrong")
    }

    fn write(&mut self, _: &atomix_protocol::WriteBatch) -> Result<(), atomix_storage::StorageError> {
        unreachable!()
    }

    fn publish(
        &mut self,
        _: &atomix_protocol::peer::SnapshotMeta,
    ) -> Result<(), atomix_storage::StorageError> {
        unreachable!()
    }

    fn compact(&mut self, _: atomix_protocol::Index) -> Result<(), atomix_storage::StorageError> {
        unreachable!()
    }

    fn snapshot_writer(
        &mut self,
    ) -> Result<Box<dyn atomix_storage::SnapshotWriter>, atomix_storage::StorageError> {
        unreachable!()
    }

    fn reader(&mut self) -> Result<Box<dyn atomix_storage::StorageReader>, atomix_storage::StorageError> {
        unreachable!()
    }
}

#[tokio::test]
async fn a_storage_that_panics_is_told() {
    let transport: Arc<dyn Transport> = Arc::new(MemoryNetwork::new());
    let starting = Server::start(alone(), transport, Box::new(Panicking), Box::new(Nothing));
    let error = within(starting).await.expect_err("it panics");
    assert!(matches!(error, ServerError::Panicked(_)), "{error}");
}
