//! `atomix map watch`: the binary prints changes.

use atomix::{Atomix, DistributedMap};
use atomix_cli::cluster::Cluster;
use rustix::process::Signal;

use crate::run::{WAIT, executable, run};
use crate::running::start;

async fn cluster() -> (Cluster, String) {
    let cluster = Cluster::start(&executable(), 1, &[]).expect("a server");
    cluster.leader(WAIT).await.expect("a leader");
    let all = cluster.addresses().join(",");
    (cluster, all)
}

async fn put(all: &str, key: &str, value: &str) {
    run(&["map", "put", "/m", key, value, "--cluster", all]).await.check(0, &[]);
}

#[tokio::test]
async fn every_change_is_a_line() {
    let (cluster, all) = cluster().await;
    put(&all, "a", "1").await;
    let mut json = start(&["map", "watch", "/m", "--current", "--json", "--cluster", &all]);
    let mut text = start(&["map", "watch", "/m", "b\tb", "--cluster", &all]);
    text.says("watching /m").await;
    let first: serde_json::Value = serde_json::from_str(&json.line().await).expect("JSON");
    assert_eq!((&first["kind"], &first["key"], &first["new"]), (&"current".into(), &"a".into(), &"1".into()));
    put(&all, "a", "2").await;
    put(&all, "b\tb", "3\n4").await;
    run(&["map", "remove", "/m", "b\tb", "--cluster", &all]).await.check(0, &[]);

    let mut version = first["version"].as_u64().expect("a version");
    for (kind, key, old, new) in [
        ("updated", "a", Some("1"), Some("2")),
        ("added", "b\tb", None, Some("3\n4")),
        ("removed", "b\tb", Some("3\n4"), None),
    ] {
        let line: serde_json::Value = serde_json::from_str(&json.line().await).expect("JSON");
        let found = [&line["kind"], &line["key"], &line["old"], &line["new"]].map(|field| field.as_str());
        assert_eq!(found, [Some(kind), Some(key), old, new]);
        assert!(line["version"].as_u64() > Some(version), "{line}");
        version = line["version"].as_u64().expect("a version");
    }
    let (added, removed) = (text.line().await, text.line().await);
    assert!(added.starts_with("added\tb\\tb\t\t3\\n4\t"), "{added}");
    assert_eq!(removed, format!("removed\tb\\tb\t3\\n4\t\t{version}"));

    text.signal(Signal::INT);
    text.ended().await.check(0, &[]);
    run(&["delete", "/m", "--cluster", &all]).await.check(0, &[]);
    json.ended().await.check(1, &["the map was deleted"]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_that_changes_are_missing() {
    let (cluster, all) = cluster().await;
    let mut watch = start(&["map", "watch", "/m", "--cluster", &all]);
    watch.says("watching /m").await;
    let atomix = Atomix::connect(cluster.addresses()).await.expect("a client");
    let map: DistributedMap<String, String> = atomix.map("/m").await.expect("a map");
    // More than a pipe and the watch's own queue hold together.
    let (value, mut under_way) = ("v".repeat(1_000), Vec::new());
    for number in 0..2_000 {
        under_way.push(map.put(&number.to_string(), &value));
        if under_way.len() == 500 {
            for put in under_way.drain(..) {
                put.await.expect("put");
            }
        }
    }
    let ended = watch.ended().await;
    ended.check(1, &["changes are missing", "--current"]);
    let seen = ended.out.lines().count();
    assert!(seen > 0 && seen < 2_000, "{seen} lines");
    for (number, line) in ended.out.lines().enumerate() {
        assert!(line.starts_with(&format!("added\t{number}\t")), "{line}");
    }
    cluster.stop().await.expect("stopped");
}
