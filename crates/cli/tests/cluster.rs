//! Three servers, and the commands of an operator.

use std::fs::File;

use atomix_cli::cluster::Cluster;
use rustix::process::Signal;

use crate::run::{WAIT, command, ended, executable, run};

#[tokio::test]
async fn a_map_and_the_status_of_three_servers() {
    let mut cluster = Cluster::start(&executable(), 3, &[]).expect("servers");
    cluster.leader(WAIT).await.expect("a leader");
    let addresses = cluster.addresses();
    let all = addresses.join(",");

    let ended_put = run(&["map", "put", "/users", "ada", "Lovelace", "--cluster", &all]).await;
    ended_put.check(0, &[]);
    for address in &addresses {
        let ended = run(&["map", "get", "/users", "ada", "--cluster", address]).await;
        ended.check(0, &[]);
        assert_eq!(ended.out, "Lovelace\n");
    }
    run(&["map", "get", "/users", "grace", "--cluster", &all]).await.check(1, &["grace", "/users"]);
    run(&["map", "put", "/users", "grace", "-Hopper", "--cluster", &all]).await.check(0, &[]);
    let list = run(&["map", "list", "/users", "--cluster", &all]).await;
    assert_eq!(list.out, "ada\tLovelace\ngrace\t-Hopper\n");
    let removed = run(&["map", "remove", "/users", "ada", "--cluster", &all]).await;
    removed.check(0, &[]);
    assert_eq!(removed.out, "Lovelace\n");
    run(&["map", "remove", "/users", "ada", "--cluster", &all]).await.check(1, &["ada"]);
    run(&["map", "put", "not-a-path", "k", "v", "--cluster", &all]).await.check(1, &["not-a-path"]);

    output_that_nobody_takes(&all).await;
    check_status(&all, 3).await;
    clean_end(&mut cluster).await;
    check_status(&all, 2).await;
    cluster.stop().await.expect("stopped");
}

/// A reader that has gone is no failure; a full disk is, and is said.
async fn output_that_nobody_takes(all: &str) {
    for arguments in [
        &["map", "list", "/users", "--cluster", all][..],
        &["map", "get", "/users", "grace", "--cluster", all],
        &["exists", "/users", "--cluster", all],
        &["status", "--cluster", all],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let closed = command(arguments).stdout(writer).spawn().expect("the binary starts");
        let closed = ended(closed).await;
        closed.check(0, &[]);
        assert_eq!(closed.err, "", "{arguments:?}");
        let full = File::options().write(true).open("/dev/full").expect("a device that is always full");
        let full = command(arguments).stdout(full).spawn().expect("the binary starts");
        ended(full).await.check(1, &["can't write to standard output"]);
    }
}

/// `status` in both forms, with so many servers answering.
async fn check_status(all: &str, answering: usize) {
    let mut command = command(&["status", "--timeout", "2s"]);
    command.env("ATOMIX_CLUSTER", all);
    let text = ended(command.spawn().expect("the binary starts")).await;
    text.check(0, &[]);
    assert!(text.out.contains("leader") && text.out.contains("entries/sync"), "{}", text.out);
    assert_eq!(text.out.contains("unreachable"), answering < 3, "{}", text.out);
    let json = run(&["status", "--json", "--timeout", "2s", "--cluster", all]).await;
    json.check(0, &[]);
    let value: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    let servers = value["servers"].as_array().expect("servers");
    assert_eq!(servers.len(), 3);
    let up: Vec<_> = servers.iter().filter(|server| server["error"].is_null()).collect();
    assert_eq!(up.len(), answering);
    for server in up {
        assert_eq!(server["members"].as_array().map(Vec::len), Some(3), "{server}");
        assert!(server["term"].as_u64() > Some(0), "{server}");
        assert!(server["counters"]["syncs"].as_u64() > Some(0), "{server}");
    }
}

/// SIGTERM ends a server with exit code 0, and the others go on.
async fn clean_end(cluster: &mut Cluster) {
    let leader = cluster.leader(WAIT).await.expect("a leader");
    cluster.signal(leader, Signal::TERM).expect("a signal");
    assert_eq!(cluster.ended(leader, WAIT).await.expect("an end"), Some(0));
    let other = cluster.leader(WAIT).await.expect("another leader");
    assert_ne!(other, leader);
}
