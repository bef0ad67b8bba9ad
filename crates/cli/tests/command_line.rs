//! What the binary says before any cluster is involved.

use atomix_cli::cluster::{Cluster, free_addresses};

use crate::run::{WAIT, executable, run};

#[tokio::test]
async fn help_has_examples() {
    for (arguments, words) in [
        (&["--help"][..], &["Examples:", "Exit codes:", "demo", "serve", "map", "lock", "status"][..]),
        (&["demo", "--help"], &["Example:", "loopback"]),
        (
            &["serve", "--help"],
            &["Example", "--listen", "--bootstrap", "--data-dir", "an older copy of a data directory"],
        ),
        (&["map", "--help"], &["Examples:", "put", "get", "remove", "list"]),
        (&["map", "put", "--help"], &["Example:", "ATOMIX_CLUSTER", "--timeout"]),
        (&["map", "get", "--help"], &["Example:"]),
        (&["map", "remove", "--help"], &["Example:"]),
        (&["map", "list", "--help"], &["Example:"]),
        (&["map", "watch", "--help"], &["Examples:", "--current", "--json", "deleted"]),
        (&["lock", "--help"], &["Examples:", "run", "status"]),
        (&["lock", "run", "--help"], &["Examples:", "ATOMIX_LOCK_TOKEN", "--grace", "SIGTERM", "SIGKILL"]),
        (&["lock", "status", "--help"], &["Examples:", "--json"]),
        (&["delete", "--help"], &["Examples:", "--force"]),
        (&["exists", "--help"], &["Example:"]),
        (&["status", "--help"], &["Examples:", "--json"]),
        (&["log", "--help"], &["Examples:", "verify", "inspect", "dump"]),
        (&["log", "verify", "--help"], &["Examples:", "--json", "exits with 6"]),
        (&["log", "inspect", "--help"], &["Examples:", "--json"]),
        (&["log", "dump", "--help"], &["Examples:", "--from", "--to", "--json"]),
    ] {
        let ended = run(arguments).await;
        ended.check(0, &[]);
        for word in words {
            assert!(ended.out.contains(word), "`{word}` is not in the help of {arguments:?}:\n{}", ended.out);
        }
        for hidden in ["demo-", "leash", "guard "] {
            assert!(!ended.out.contains(hidden), "`{hidden}` is to stay hidden:\n{}", ended.out);
        }
    }
}

#[tokio::test]
async fn a_wrong_call_exits_with_2() {
    for (arguments, word) in [
        (&[][..], "Usage"),
        (&["dance"], "dance"),
        (&["serve"], "--listen"),
        (&["map", "put", "/m", "k"], "VALUE"),
        (&["map", "get", "/m", "k"], "--cluster"),
        (&["status", "--cluster", "127.0.0.1:1", "--timeout", "5"], "unit"),
        (&["status", "--cluster", "127.0.0.1"], "not an address"),
        (&["status", "--cluster", "127.0.0.1:1,"], "not an address"),
        (&["map", "get", "/m", "k", "--cluster", "127.0.0.1:70000"], "not an address"),
        (&["lock", "run", "/l", "--cluster", "a:1"], "COMMAND"),
        (&["lock", "run", "/l", "--cluster", "a:1", "true"], "true"),
        (&["lock", "run", "/l", "--cluster", "a:1", "--no-wait", "--wait", "1s", "--", "true"], "--wait"),
        (&["lock", "run", "/l", "--cluster", "a:1", "--grace", "2s", "--", "true"], "--session-timeout"),
        (&["delete", "/m", "--cluster"], "--cluster"),
        (
            &["serve", "--listen", "a:1", "--bootstrap", "a:1,b", "--data-dir", "/dev/null/d"],
            "not an address",
        ),
    ] {
        run(arguments).await.check(2, &[word]);
    }
}

#[tokio::test]
async fn an_unreachable_cluster_exits_with_3() {
    let address = free_addresses(1).expect("a port").remove(0);
    for arguments in [
        &["map", "get", "/m", "k", "--timeout", "500ms", "--cluster", &address][..],
        &["map", "put", "/m", "k", "v", "--timeout", "500ms", "--cluster", &address],
        &["map", "watch", "/m", "--timeout", "500ms", "--cluster", &address],
        &["lock", "run", "/l", "--timeout", "500ms", "--cluster", &address, "--", "true"],
        &["lock", "status", "/l", "--timeout", "500ms", "--cluster", &address],
        &["delete", "/m", "--timeout", "500ms", "--cluster", &address],
        &["exists", "/m", "--timeout", "500ms", "--cluster", &address],
        &["status", "--timeout", "500ms", "--cluster", &address],
    ] {
        run(arguments).await.check(3, &[&address]);
    }
}

#[tokio::test]
async fn a_command_of_the_demo_ends_with_its_standard_input() {
    let address = free_addresses(1).expect("a port").remove(0);
    // Without an end of standard input it would wait for the cluster for a minute.
    let arguments = ["map", "get", "/m", "k", "--timeout", "1m", "--cluster", &address];
    run(&[&arguments[..], &["--exit-with-stdin"]].concat()).await.check(130, &["standard input"]);
}

#[tokio::test]
async fn more_servers_than_can_vote_exit_with_2() {
    let addresses = free_addresses(8).expect("ports");
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let data = data.to_str().expect("a name");
    run(&["serve", "--listen", &addresses[0], "--bootstrap", &addresses.join(","), "--data-dir", data])
        .await
        .check(2, &["8 servers", "at most 7"]);
}

#[tokio::test]
async fn a_data_directory_below_a_regular_file_exits_with_6() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let directory = file.path().join("data");
    let address = free_addresses(1).expect("a port").remove(0);
    let directory = directory.to_str().expect("a name");
    run(&["serve", "--listen", &address, "--bootstrap", &address, "--data-dir", directory])
        .await
        .check(6, &[directory, "--data-dir"]);
}

#[tokio::test]
async fn a_data_directory_in_use_exits_with_6() {
    let cluster = Cluster::start(&executable(), 1, &[]).expect("a server");
    cluster.leader(WAIT).await.expect("a leader");
    let address = free_addresses(1).expect("a port").remove(0);
    let directory = cluster.directory(0);
    let directory = directory.to_str().expect("a name");
    run(&["serve", "--listen", &address, "--bootstrap", &address, "--data-dir", directory])
        .await
        .check(6, &["in use", directory]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn an_address_that_is_not_in_the_list_exits_with_2() {
    let addresses = free_addresses(2).expect("ports");
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().to_str().expect("a name");
    run(&["serve", "--listen", &addresses[0], "--bootstrap", &addresses[1], "--data-dir", directory])
        .await
        .check(2, &[&addresses[0]]);
}
