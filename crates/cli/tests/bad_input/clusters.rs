//! Clusters that are not there, or not what they were.

use std::fs;
use std::time::Duration;

use atomix::{Atomix, DistributedMap};
use atomix_cli::cluster::{Cluster, free_addresses, until};
use atomix_cli::exit::Failure;

use crate::run::{WAIT, executable, run};
use crate::{Row, row};

/// A cluster that has formed.
pub(crate) async fn started(servers: usize) -> Cluster {
    let cluster = Cluster::start(&executable(), servers, &[]).expect("servers");
    cluster.leader(WAIT).await.expect("a leader");
    cluster
}

pub(crate) async fn unreachable() -> Vec<Row> {
    let cluster = started(1).await;
    let nobody = free_addresses(1).expect("a port").remove(0);
    let mut rows = Vec::new();
    for (case, arguments) in [
        ("unreachable cluster: put", &["map", "put", "/m", "k", "v"][..]),
        ("unreachable cluster: get", &["map", "get", "/m", "k"]),
        ("unreachable cluster: status", &["status"]),
    ] {
        let arguments = [arguments, &["--timeout", "500ms", "--cluster", &nobody]].concat();
        let ended = run(&arguments).await;
        ended.check(3, &[&nobody]);
        rows.push(row(case, "3", ended.err.trim(), &cluster.addresses()).await);
    }
    cluster.stop().await.expect("stopped");
    rows
}

pub(crate) async fn one_of_three_wiped() -> Vec<Row> {
    let mut cluster = started(3).await;
    let victim = (cluster.leader(WAIT).await.expect("a leader") + 1) % 3;
    cluster.kill(victim).await.expect("killed");
    fs::remove_dir_all(cluster.directory(victim)).expect("removed");
    cluster.start_server(victim).expect("started");
    let status = until("the wiped server to say what is wrong", WAIT, async || {
        cluster.status(victim).await.filter(|status| !status.notice.is_empty() && status.role == "joiner")
    })
    .await
    .expect("a notice");
    assert!(!status.votes, "{status:?}");
    let text = run(&["status", "--cluster", &cluster.addresses().join(",")]).await;
    text.check(0, &[]);
    assert!(text.out.contains(&status.notice), "{}", text.out);
    let ends = format!("stays up, role {}, no vote", status.role);
    let rows = vec![row("one of three wiped", ends, status.notice, &cluster.addresses()).await];
    assert!(cluster.status(victim).await.is_some(), "it is still up");
    cluster.stop().await.expect("stopped");
    rows
}

pub(crate) async fn three_of_three_wiped() -> Vec<Row> {
    let mut cluster = started(3).await;
    let builder = Atomix::builder().operation_timeout(Duration::from_secs(3));
    let atomix = builder.connect(cluster.addresses()).await.expect("a client");
    let map: DistributedMap<String, String> = atomix.map("/wiped").await.expect("a map");
    map.put("before", "there").await.expect("put");
    let before = cluster.status(0).await.and_then(|status| status.cluster).expect("a cluster");
    for server in 0..3 {
        cluster.kill(server).await.expect("killed");
        fs::remove_dir_all(cluster.directory(server)).expect("removed");
    }
    for server in 0..3 {
        cluster.start_server(server).expect("started");
    }
    cluster.leader(WAIT).await.expect("a leader");
    let after = cluster.status(0).await.and_then(|status| status.cluster).expect("a cluster");
    assert_ne!(before, after);
    let refused =
        map.put("after", "not there").await.expect_err("an old session can't write to a new cluster");
    let list = run(&["map", "list", "/wiped", "--cluster", &cluster.addresses().join(",")]).await;
    list.check(0, &[]);
    assert_eq!(list.out, "");
    let failure = Failure::from(refused);
    let ends = format!("new cluster id; old session: {}", failure.exit as u8);
    let message = format!("cluster {before} is now {after}; {failure}");
    let rows = vec![row("three of three wiped", ends, message, &cluster.addresses()).await];
    cluster.stop().await.expect("stopped");
    rows
}
