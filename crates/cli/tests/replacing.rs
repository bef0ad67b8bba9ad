//! `atomix member`: nobody leaves by mistake, nothing that was asked for is passed over in silence.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use atomix_cli::args::Wanted;
use atomix_cli::cluster::{Cluster, Entry, until};
use serde_json::{Value, json};

use crate::members::{cluster, expected, id_of, json, kinds, member, newcomer};
use crate::run::{WAIT, command, run};

async fn voters(cluster: &Cluster) -> Vec<u64> {
    let kinds = kinds(&json(cluster, &["list"]).await);
    kinds.into_iter().filter(|(_, kind)| kind == "voter").map(|(id, _)| id).collect()
}

fn priority(value: &Value, id: u64) -> Value {
    let members = value["members"].as_array().expect("members");
    let found = members.iter().find(|member| member["server"] == json!(id));
    found.expect("the member")["priority"].clone()
}

#[tokio::test]
async fn a_voter_replaces_nobody_and_itself_least_of_all() {
    let cluster = cluster(3).await;
    let address = &cluster.addresses()[0];
    let own = id_of(&cluster, 0).await;
    let other = id_of(&cluster, 2).await;
    for (replaced, words) in [
        (own, "a server can't replace itself"),
        (other, "votes already, and replaces nobody"),
        (9, "there has been no server 9"),
    ] {
        member(&cluster, &["add", address, "--replace", &replaced.to_string()]).await.check(1, &[words]);
        assert_eq!(voters(&cluster).await, [1, 2, 3]);
    }
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_replacement_may_be_asked_for_again() {
    let mut cluster = cluster(3).await;
    let (_, address) = newcomer(&mut cluster).await;
    member(&cluster, &["add", &address, "--replace", "9"]).await.check(1, &["there has been no server 9"]);
    // Under way: it is a learner.
    json(&cluster, &["add", &address, "--learner"]).await;
    member(&cluster, &["add", &address, "--replace", "5"]).await.check(1, &["there has been no server 5"]);
    member(&cluster, &["add", &address, "--replace", "4"]).await.check(1, &["replace itself"]);
    let leader = cluster.leader(WAIT).await.expect("a leader");
    let old = id_of(&cluster, (leader + 1) % 3).await.to_string();
    for told in [format!("server {old} has left for it"), format!("server {old} has left already")] {
        let added = member(&cluster, &["add", &address, "--replace", &old]).await;
        added.check(0, &[&told]);
        let voters = voters(&cluster).await;
        assert!(voters.len() == 3 && voters.contains(&4), "{voters:?}");
    }
    let (_, another) = newcomer(&mut cluster).await;
    let refused = member(&cluster, &["add", &another, "--replace", &old]).await;
    refused.check(1, &["is not a member any more", "without --replace"]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn what_is_asked_of_a_member_is_done_or_refused() {
    let mut cluster = cluster(3).await;
    let address = cluster.addresses()[0].clone();
    let refused = member(&cluster, &["add", &address, "--learner"]).await;
    refused.check(1, &["is a voter already", "demote 1 --to learner"]);
    member(&cluster, &["add", &address, "--expected", "999"]).await.check(1, &["has changed"]);
    let added = json(&cluster, &["add", &address, "--priority", "0"]).await;
    assert_eq!(added["configuration"], json!(0), "nothing to be done");

    let (_, address) = newcomer(&mut cluster).await;
    let added = json(&cluster, &["add", &address, "--reserve", "--priority", "2"]).await;
    assert_eq!((kinds(&added)[&4].as_str(), priority(&added, 4)), ("reserve", json!(2)));
    let added = json(&cluster, &["add", &address, "--learner"]).await;
    assert_eq!((kinds(&added)[&4].as_str(), priority(&added, 4)), ("learner", json!(2)), "it keeps the rest");
    member(&cluster, &["add", &address, "--reserve"]).await.check(1, &["is a learner already"]);
    let added = json(&cluster, &["add", &address, "--learner", "--priority", "1"]).await;
    assert_eq!(priority(&added, 4), json!(1));

    member(&cluster, &["promote", "1"]).await.check(1, &["server 1 is a voter already"]);
    member(&cluster, &["demote", "4"]).await.check(1, &["server 4 is a learner already"]);
    member(&cluster, &["promote", "1", "--to", "learner"]).await.check(1, &["demote 1 --to learner"]);
    json(&cluster, &["demote", "4", "--to", "reserve"]).await;
    member(&cluster, &["demote", "4"]).await.check(1, &["promote 4 --to learner"]);
    let added = json(&cluster, &["add", &address]).await;
    assert_eq!(kinds(&added)[&4], "voter", "from a reserve member to a voter, in steps");
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_removed_server_is_not_added_again() {
    let mut cluster = cluster(3).await;
    let victim = (cluster.leader(WAIT).await.expect("a leader") + 1) % 3;
    let id = id_of(&cluster, victim).await;
    json(&cluster, &["remove", &id.to_string()]).await;
    let removed = |status: &atomix::Status| status.role == "removed";
    until("its end", WAIT, async || cluster.status(victim).await.filter(removed)).await.expect("removed");
    let address = cluster.addresses()[victim].clone();
    for _ in 0..2 {
        let words = ["has been removed: it can't be added again", "an empty data directory"];
        member(&cluster, &["add", &address]).await.check(1, &words);
        member(&cluster, &["plan", "--add", &address]).await.check(1, &words);
        cluster.kill(victim).await.expect("killed");
        cluster.start_server(victim).expect("started");
        until("it to be up", WAIT, async || cluster.status(victim).await).await.expect("up");
    }
    assert_eq!(voters(&cluster).await.len(), 2);
    let list = member(&cluster, &["list"]).await;
    assert!(list.out.contains("is no member: removed from the cluster"), "{}", list.out);
    // It still knows where the others are.
    let through = |arguments: &'static str| run_through(arguments, address.clone());
    through("list").await;
    through("transfer").await;
    cluster.stop().await.expect("stopped");
}

async fn run_through(arguments: &str, address: String) {
    run(&["member", arguments, "--timeout", "30s", "--cluster", &address]).await.check(0, &[]);
}

#[tokio::test]
async fn a_wiped_server_that_came_back_by_itself_is_given_the_vote_of_its_old_self() {
    let mut cluster = cluster(3).await;
    let victim = (cluster.leader(WAIT).await.expect("a leader") + 1) % 3;
    let old = id_of(&cluster, victim).await;
    cluster.kill(victim).await.expect("killed");
    fs::remove_dir_all(cluster.directory(victim)).expect("removed");
    let address = cluster.addresses()[victim].clone();
    let (all, directory) = (cluster.addresses().join(","), cluster.directory(victim));
    let directory = directory.to_str().expect("a path");
    let arguments =
        ["serve", "--listen", &address, "--join", &all, "--as", "learner", "--data-dir", directory];
    let mut child = command(&arguments).spawn().expect("the binary starts");
    let learner = async || (kinds(&json(&cluster, &["list"]).await).get(&4)? == "learner").then_some(());
    until("it to be taken in", WAIT, learner).await.expect("a learner");
    let added = json(&cluster, &["add", &address]).await;
    let mut after = expected([(1, "voter"), (2, "voter"), (3, "voter"), (4, "voter")]);
    after.remove(&old);
    assert_eq!(kinds(&added), after);
    child.kill().await.expect("killed");
    cluster.stop().await.expect("stopped");
}

/// Wherever it was: `serve` promises that the same arguments start it again.
#[tokio::test]
async fn a_joiner_that_was_killed_on_the_way_votes_when_it_is_started_again() {
    let mut cluster = cluster(3).await;
    let server = cluster.add_server(Entry::Asks(Wanted::Voter)).expect("a server");
    until("it to be taken in", WAIT, async || cluster.status(server).await?.server).await.expect("an id");
    cluster.kill(server).await.expect("killed");
    cluster.start_server(server).expect("started");
    until("it to vote", WAIT, async || cluster.status(server).await.filter(|status| status.votes))
        .await
        .expect("a vote");
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn nobody_leads_who_does_not_answer() {
    let mut cluster = cluster(3).await;
    let victim = (cluster.leader(WAIT).await.expect("a leader") + 1) % 3;
    let id = id_of(&cluster, victim).await.to_string();
    cluster.kill(victim).await.expect("killed");
    // Until the leader notices, it may be told to take over.
    until("the leader to notice", WAIT, async || {
        let ended = member(&cluster, &["transfer", &id]).await;
        let words = format!("server {id} does not answer");
        assert!(matches!(ended.code, Some(1 | 4)), "{ended:?}");
        (ended.code == Some(1) && ended.err.contains(&words)).then_some(())
    })
    .await
    .expect("a refusal");
    cluster.stop().await.expect("stopped");
}

/// Somebody else listens at the address.
#[tokio::test]
async fn a_web_server_is_no_server_of_a_cluster() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    for arguments in [&["status"][..], &["member", "list"], &["member", "remove", "1"]] {
        let ended = run(&[arguments, &["--timeout", "1s", "--cluster", &address]].concat()).await;
        ended.check(3, &[&address, "no atomix server answers there"]);
    }
}

#[tokio::test]
async fn serve_says_what_is_missing_or_wrong() {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "/dev/null/d"];
    run(&serve).await.check(2, &["--bootstrap", "--join"]);
    let place = tempfile::tempdir().expect("a place");
    let directory = place.path().join("d");
    let directory = directory.to_str().expect("a path");
    let late = ["serve", "--listen", "127.0.0.1:0", "--bootstrap", "127.0.0.1:0", "--data-dir", directory];
    run(&[&late[..], &["--lease", "1s"]].concat()).await.check(2, &["a lease", "shortest election timeout"]);
}
