//! What an embedder is told.

use std::sync::Arc;
use std::time::Duration;

use atomix::{Atomix, DirectoryProblem, Error, Replica};
use atomix_storage::MemoryStorage;
use atomix_tests::free_addresses;
use atomix_transport::MemoryNetwork;

fn memory(address: &str) -> atomix::ReplicaBuilder {
    Replica::builder(address)
        .transport(Arc::new(MemoryNetwork::new()))
        .storage(Box::new(MemoryStorage::new()))
}

#[tokio::test]
async fn settings_that_can_not_work() {
    let check = async |builder: atomix::ReplicaBuilder, servers: &[&str], what: &str| {
        let error = builder.bootstrap(servers.iter().copied()).await.expect_err(what);
        assert!(matches!(error, Error::Settings(_)), "{what}: {error}");
    };
    check(Replica::builder("here"), &["here"], "no data directory").await;
    check(memory("here").data_dir("here"), &["here"], "two storages").await;
    check(memory("here"), &["there"], "not among those listed").await;
    check(memory("here").heartbeat(Duration::from_secs(1)), &["here"], "slow heartbeats").await;
    let error = Atomix::connect::<&str>([]).await.expect_err("no address");
    assert!(matches!(error, Error::Settings(_)), "{error}");
}

#[tokio::test]
async fn nobody_there() {
    let addresses = free_addresses(2);
    let builder = Atomix::builder().connect_timeout(Duration::from_millis(300));
    let error = builder.connect(addresses.iter().map(String::as_str)).await.expect_err("nobody listens");
    assert!(matches!(&error, Error::Unreachable { tried, .. } if *tried == addresses), "{error}");
    let error = atomix::cluster_status(addresses[0].as_str()).await.expect_err("nobody listens");
    assert!(matches!(&error, Error::Unreachable { tried, .. } if *tried == addresses[..1]), "{error}");
}

#[tokio::test]
async fn an_address_that_is_taken() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let builder = Replica::builder(address.as_str()).data_dir(folder.path()).segment_bytes(1 << 20);
    let error = builder.bootstrap([address.as_str()]).await.expect_err("taken");
    assert!(matches!(&error, Error::CannotListen { address: said, .. } if *said == address), "{error}");
    // The data directory is free again.
    drop(taken);
    let builder = Replica::builder(address.as_str()).data_dir(folder.path()).segment_bytes(1 << 20);
    builder.bootstrap([address.as_str()]).await.expect("free");
}

#[tokio::test]
async fn data_directories_that_can_not_be_used() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("file");
    std::fs::write(&file, "not a directory").expect("written");
    let start = async |path: std::path::PathBuf| {
        let builder = Replica::builder("127.0.0.1:0").data_dir(path).segment_bytes(1 << 20);
        builder.bootstrap(["127.0.0.1:0"]).await
    };
    let problem = |error: Error| match error {
        Error::DataDirectory { problem, .. } => problem,
        other => panic!("{other}"),
    };
    let error = start(file.join("below")).await.expect_err("below a file");
    assert_eq!(problem(error), DirectoryProblem::Unusable);
    let first = start(folder.path().join("data")).await.expect("it starts");
    let error = start(folder.path().join("data")).await.expect_err("in use");
    assert_eq!(problem(error), DirectoryProblem::InUse);
    first.shutdown().await.expect("it had not failed");
    start(folder.path().join("data")).await.expect("free again").shutdown().await.expect("it had not failed");
}
