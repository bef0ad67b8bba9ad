//! `atomix member`: members come and go, as an operator has it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atomix::{Atomix, Consistency, DistributedMap, Status};
use atomix_cli::args::Wanted;
use atomix_cli::cluster::{Cluster, Entry, free_addresses, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::run::{Ended, WAIT, executable, run};

type Map = DistributedMap<String, u64>;

pub(crate) async fn cluster(servers: usize) -> Cluster {
    let cluster = Cluster::start(&executable(), servers, &[]).expect("servers");
    cluster.leader(WAIT).await.expect("a leader");
    cluster
}

/// Runs `atomix member` with time for a busy machine.
pub(crate) async fn member(cluster: &Cluster, arguments: &[&str]) -> Ended {
    let all = cluster.addresses().join(",");
    run(&[&["member"], arguments, &["--timeout", "30s", "--cluster", &all]].concat()).await
}

/// As [`member`], for one that is to succeed; what it printed.
pub(crate) async fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let ended = member(cluster, &[arguments, &["--json"]].concat()).await;
    ended.check(0, &[]);
    serde_json::from_str(&ended.out).expect("JSON")
}

/// Each member's id and kind.
pub(crate) fn kinds(value: &Value) -> BTreeMap<u64, String> {
    let members = value["members"].as_array().expect("members").iter();
    let kind = |member: &Value| Some((member["server"].as_u64()?, member["kind"].as_str()?.to_owned()));
    members.map(|member| kind(member).expect("an id and a kind")).collect()
}

pub(crate) fn expected<const N: usize>(kinds: [(u64, &str); N]) -> BTreeMap<u64, String> {
    kinds.map(|(id, kind)| (id, kind.to_owned())).into()
}

async fn status(cluster: &Cluster, server: usize) -> Status {
    until("a status", WAIT, async || cluster.status(server).await).await.expect("a status")
}

/// The id of a member.
pub(crate) async fn id_of(cluster: &Cluster, server: usize) -> u64 {
    let id = until("an id", WAIT, async || cluster.status(server).await?.server).await;
    id.expect("an id").0
}

/// A server that waits until it is taken in.
pub(crate) async fn newcomer(cluster: &mut Cluster) -> (usize, String) {
    let server = cluster.add_server(Entry::Waits).expect("a server");
    until("the new server to be up", WAIT, async || cluster.status(server).await).await.expect("a server");
    (server, cluster.addresses()[server].clone())
}

/// Keys written one after another by a task each; the last number that was acknowledged under each.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: JoinSet<(String, u64)>,
    session: Atomix,
}

impl Writers {
    async fn start(cluster: &Cluster) -> Self {
        let session = Atomix::builder().connect(cluster.addresses()).await.expect("a session");
        let map: Map = session.map("/m").await.expect("a map");
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for writer in 0..4 {
            let (map, stop, written) = (map.clone(), stop.clone(), written.clone());
            tasks.spawn(async move {
                let (key, mut last) = (format!("key-{writer}"), 0);
                for number in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if map.put(&key, &number).await.is_ok() {
                        last = number;
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                }
                (key, last)
            });
        }
        Writers { stop, written, tasks, session }
    }

    /// Waits until more was acknowledged.
    async fn go_on(&self) {
        let goal = self.written.load(Ordering::Relaxed) + 50;
        until("writes to be acknowledged", WAIT, async || {
            (self.written.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await
        .expect("writes");
    }

    async fn stop(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = self.tasks.join_all().await.into_iter().collect();
        self.session.close().await.expect("closed");
        acknowledged
    }
}

/// Every acknowledged write is at a server, read from itself.
async fn check_at(cluster: &Cluster, server: usize, acknowledged: &BTreeMap<String, u64>) {
    cluster.caught_up(server, WAIT).await.expect("caught up");
    let address = cluster.addresses()[server].clone();
    let session = Atomix::builder().read_from(address.as_str()).connect([address.as_str()]).await;
    let session = session.expect("a session");
    let map: Map = session.map("/m").await.expect("a map");
    let map = map.with_consistency(Consistency::Sequential);
    for (key, number) in acknowledged {
        let found = map.get(key).await.expect("an answer").unwrap_or_default();
        assert!(found >= *number, "{key} is {found} at {address}, and {number} was acknowledged");
    }
    session.close().await.expect("closed");
}

#[tokio::test]
async fn one_comes_and_the_leader_goes_under_writes_and_none_is_lost() {
    let mut cluster = cluster(3).await;
    let writers = Writers::start(&cluster).await;
    writers.go_on().await;
    let (_, address) = newcomer(&mut cluster).await;
    let added = json(&cluster, &["add", &address]).await;
    assert_eq!(kinds(&added), expected([(1, "voter"), (2, "voter"), (3, "voter"), (4, "voter")]));
    writers.go_on().await;

    let leader = cluster.leader(WAIT).await.expect("a leader");
    let id = id_of(&cluster, leader).await;
    let removed = json(&cluster, &["remove", &id.to_string()]).await;
    let rest: BTreeMap<u64, String> = kinds(&added).into_iter().filter(|(other, _)| *other != id).collect();
    assert_eq!(kinds(&removed), rest);
    cluster.kill(leader).await.expect("killed");
    writers.go_on().await;
    let next = cluster.leader(WAIT).await.expect("another leader");
    assert_ne!(next, leader);

    let acknowledged = writers.stop().await;
    assert!(acknowledged.len() == 4 && acknowledged.values().all(|number| *number > 0), "{acknowledged:?}");
    for server in (0..4).filter(|server| *server != leader) {
        check_at(&cluster, server, &acknowledged).await;
    }
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_learner_that_has_not_caught_up_gets_no_vote() {
    let mut cluster = cluster(3).await;
    let (server, address) = newcomer(&mut cluster).await;
    let added = json(&cluster, &["add", &address, "--learner"]).await;
    assert_eq!(kinds(&added)[&4], "learner");
    cluster.caught_up(server, WAIT).await.expect("caught up");
    cluster.signal(server, Signal::STOP).expect("stopped");
    let writers = Writers::start(&cluster).await;
    for _ in 0..20 {
        writers.go_on().await;
    }
    writers.stop().await;
    member(&cluster, &["promote", "4"]).await.check(1, &["has not caught up", "4"]);
    cluster.signal(server, Signal::CONT).expect("goes on");
    let added = json(&cluster, &["add", &address]).await;
    assert_eq!(kinds(&added)[&4], "voter", "it goes on from where it was");
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_plan_tells_what_is_tolerated_and_changes_nothing() {
    let mut cluster = cluster(3).await;
    // A leader changes nothing before it has committed something in its term.
    let writers = Writers::start(&cluster).await;
    writers.go_on().await;
    writers.stop().await;
    let before = json(&cluster, &["list"]).await;
    let plan = json(&cluster, &["plan", "--remove", "2"]).await;
    assert_eq!(plan["before"], json!({ "voters": 3, "quorum": 2, "failures": 1, "answering": 3 }));
    assert_eq!(plan["after"], json!({ "voters": 2, "quorum": 2, "failures": 0, "answering": 2 }));
    assert!(plan["during"]["failures"].is_u64(), "{plan}");
    assert_eq!(plan["refused"], Value::Null);
    assert_eq!(kinds(&plan).len(), 2);

    let text = member(&cluster, &["plan", "--remove", "9"]).await;
    text.check(0, &[]);
    assert!(text.out.contains("would be refused: server 9 is not a member"), "{text:?}");
    for word in ["before", "after", "may fail"] {
        assert!(text.out.contains(word), "{text:?}");
    }
    let (_, address) = newcomer(&mut cluster).await;
    let plan = json(&cluster, &["plan", "--add", &address]).await;
    assert_eq!((&plan["during"], &plan["refused"]), (&Value::Null, &Value::Null), "a learner does not vote");
    assert_eq!(kinds(&plan)[&4], "learner");
    let stale = member(&cluster, &["plan", "--remove", "2", "--expected", "999"]).await;
    assert!(stale.out.contains("would be refused: the configuration has changed"), "{stale:?}");

    let after = json(&cluster, &["list"]).await;
    assert_eq!((&after["configuration"], kinds(&after)), (&before["configuration"], kinds(&before)));
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn the_list_says_who_is_what_and_how_far() {
    let mut cluster = cluster(3).await;
    let server = cluster.add_server(Entry::Asks(Wanted::Learner)).expect("a server");
    until("it to be taken in", WAIT, async || {
        (kinds(&json(&cluster, &["list"]).await).get(&4)? == "learner").then_some(())
    })
    .await
    .expect("a learner");
    cluster.caught_up(server, WAIT).await.expect("caught up");
    // The leader hears of it a moment later.
    let list = until("the leader to know", WAIT, async || {
        let list = json(&cluster, &["list"]).await;
        let told = list["members"].as_array()?.iter().all(|member| member["match"].as_u64() > Some(0));
        told.then_some(list)
    })
    .await
    .expect("a list");
    assert_eq!(list["joint"], json!(false));
    assert!(list["configuration"].as_u64() > Some(0), "{list}");
    assert!(list["cluster"].is_string(), "{list}");
    let members = list["members"].as_array().expect("members");
    let leaders: Vec<&Value> = members.iter().filter(|member| member["role"] == json!("leader")).collect();
    assert_eq!(leaders.len(), 1, "{list}");
    assert_eq!(leaders[0]["server"], list["leader"]);
    for (member, address) in members.iter().zip(cluster.addresses()) {
        assert_eq!((&member["address"], &member["client_address"]), (&json!(address), &json!(address)));
        assert!(member["match"].as_u64() > Some(0), "{member}");
        assert!(member["behind"].is_u64() && member["priority"] == json!(0), "{member}");
    }
    cluster.kill(server).await.expect("killed");
    let text = member(&cluster, &["list"]).await;
    text.check(0, &[]);
    for word in ["voter", "learner", "behind", "unreachable", "configuration"] {
        assert!(text.out.contains(word), "{word} is not in\n{}", text.out);
    }
    let demoted = json(&cluster, &["demote", "4", "--to", "reserve"]).await;
    assert_eq!(kinds(&demoted)[&4], "reserve");
    let removed = json(&cluster, &["remove", "4"]).await;
    assert_eq!(kinds(&removed).len(), 3);
    member(&cluster, &["remove", "4"]).await.check(1, &["server 4 is not a member"]);
    member(&cluster, &["remove", "3", "--expected", "1"]).await.check(1, &["the configuration has changed"]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_wiped_server_comes_back_under_a_new_id_and_its_old_self_goes_in_one_change() {
    let mut cluster = cluster(3).await;
    let victim = (cluster.leader(WAIT).await.expect("a leader") + 1) % 3;
    let old = id_of(&cluster, victim).await;
    cluster.kill(victim).await.expect("killed");
    fs::remove_dir_all(cluster.directory(victim)).expect("removed");
    cluster.start_server(victim).expect("started");
    until("the wiped server to be up", WAIT, async || cluster.status(victim).await).await.expect("up");
    let address = cluster.addresses()[victim].clone();
    let added = json(&cluster, &["add", &address, "--learner"]).await;
    let mut after = expected([(1, "voter"), (2, "voter"), (3, "voter"), (4, "learner")]);
    after.remove(&old);
    assert_eq!(kinds(&added), after);
    let voting = json(&cluster, &["add", &address]).await;
    after.insert(4, "voter".into());
    assert_eq!(kinds(&voting), after);
    assert_eq!(id_of(&cluster, victim).await, 4);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_server_that_is_added_replaces_the_one_that_is_named() {
    let mut cluster = cluster(3).await;
    let victim = (cluster.leader(WAIT).await.expect("a leader") + 1) % 3;
    let old = id_of(&cluster, victim).await;
    cluster.kill(victim).await.expect("killed");
    let (_, address) = newcomer(&mut cluster).await;
    let added = json(&cluster, &["add", &address, "--replace", &old.to_string(), "--priority", "3"]).await;
    let mut after = expected([(1, "voter"), (2, "voter"), (3, "voter"), (4, "voter")]);
    after.remove(&old);
    assert_eq!(kinds(&added), after);
    let members = added["members"].as_array().expect("members");
    assert!(members.iter().any(|m| m["server"] == json!(4) && m["priority"] == json!(3)), "{added}");
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn leadership_goes_where_it_is_sent() {
    let cluster = cluster(3).await;
    let leader = cluster.leader(WAIT).await.expect("a leader");
    let next = (leader + 1) % 3;
    let id = id_of(&cluster, next).await;
    let transferred = json(&cluster, &["transfer", &id.to_string()]).await;
    assert_eq!(transferred, json!({ "leader": id }));
    assert_eq!(cluster.leader(WAIT).await.expect("a leader"), next);
    let anyone = member(&cluster, &["transfer"]).await;
    anyone.check(0, &[]);
    assert!(anyone.out.contains("leads") && !anyone.out.contains(&format!("server {id} ")), "{anyone:?}");
    member(&cluster, &["transfer", "9"]).await.check(1, &["server 9"]);
    let leader = cluster.leader(WAIT).await.expect("a leader");
    let leads = id_of(&cluster, leader).await.to_string();
    member(&cluster, &["transfer", &leads]).await.check(1, &["leads already"]);
    cluster.stop().await.expect("stopped");
}

/// Its links close only when another one leads: nobody has to find out, or to wait.
#[tokio::test]
async fn a_leader_that_is_told_to_end_hands_over_first() {
    let mut cluster = cluster(3).await;
    let leader = cluster.leader(WAIT).await.expect("a leader");
    for server in 0..3 {
        cluster.caught_up(server, WAIT).await.expect("caught up");
    }
    let before = status(&cluster, leader).await;
    let elections = elections(&cluster, leader).await;
    cluster.signal(leader, Signal::TERM).expect("a signal");
    assert_eq!(cluster.ended(leader, WAIT).await.expect("an end"), Some(0));
    let after: Vec<Status> = cluster.statuses().await.into_iter().flatten().collect();
    let next: Vec<&Status> = after.iter().filter(|status| status.role == "leader").collect();
    assert_eq!(next.len(), 1, "another one leads by now: {after:?}");
    assert_eq!(next[0].term, before.term.next(), "the first election was won");
    assert_eq!(self::elections(&cluster, leader).await, elections + 1);
    cluster.stop().await.expect("stopped");
}

/// Elections that all but one server have started.
async fn elections(cluster: &Cluster, but: usize) -> u64 {
    let statuses = cluster.statuses().await;
    let others = statuses.iter().enumerate().filter(|(server, _)| *server != but);
    others.filter_map(|(_, status)| Some(status.as_ref()?.counters.elections)).sum()
}

#[tokio::test]
async fn wrong_calls_and_unreachable_clusters_have_their_codes() {
    for (arguments, word) in [
        (&["member"][..], "Usage"),
        (&["member", "dance"], "dance"),
        (&["member", "add", "--cluster", "a:1"], "HOST:PORT"),
        (&["member", "add", "x", "--cluster", "a:1"], "not an address"),
        (&["member", "add", "b:1", "--learner", "--reserve", "--cluster", "a:1"], "--reserve"),
        (&["member", "add", "b:1", "--priority", "256", "--cluster", "a:1"], "256"),
        (&["member", "remove", "--cluster", "a:1"], "ID"),
        (&["member", "promote", "four", "--cluster", "a:1"], "four"),
        (&["member", "demote", "4", "--to", "voter", "--cluster", "a:1"], "voter"),
        (&["member", "plan", "--cluster", "a:1"], "--remove"),
        (&["member", "list"], "--cluster"),
        (&["serve", "--listen", "a:1", "--data-dir", "/dev/null/d"], "--bootstrap"),
        (
            &["serve", "--listen", "a:1", "--data-dir", "/dev/null/d", "--bootstrap", "a:1", "--join", "b:1"],
            "--join",
        ),
        (
            &["serve", "--listen", "a:1", "--data-dir", "/dev/null/d", "--bootstrap", "a:1", "--as", "voter"],
            "--as",
        ),
        (&["serve", "--listen", "a:1", "--data-dir", "/dev/null/d", "--join", "b:1", "--as", "king"], "king"),
    ] {
        run(arguments).await.check(2, &[word]);
    }
    let address = free_addresses(1).expect("a port").remove(0);
    for arguments in [
        &["list"][..],
        &["plan", "--remove", "1"],
        &["add", &address],
        &["remove", "1", "2"],
        &["promote", "1"],
        &["demote", "1"],
        &["transfer"],
    ] {
        let ended =
            run(&[&["member"], arguments, &["--timeout", "300ms", "--cluster", &address]].concat()).await;
        ended.check(3, &[&address]);
    }
}

#[tokio::test]
async fn help_has_examples_of_members() {
    for (arguments, words) in [
        (
            &["member", "--help"][..],
            &["Examples:", "list", "plan", "add", "remove", "promote", "demote", "transfer"][..],
        ),
        (&["member", "list", "--help"], &["Examples:", "--json", "behind"]),
        (&["member", "plan", "--help"], &["Examples:", "--add", "--remove", "--promote", "--demote"]),
        (&["member", "add", "--help"], &["Examples:", "--learner", "--reserve", "--replace", "--expected"]),
        (&["member", "remove", "--help"], &["Example:", "--expected"]),
        (&["member", "promote", "--help"], &["Examples:", "caught up"]),
        (&["member", "demote", "--help"], &["Example:", "reserve"]),
        (&["member", "transfer", "--help"], &["Examples:", "ATOMIX_CLUSTER"]),
        (&["serve", "--help"], &["--join", "--as", "--priority", "--snapshot-log-bytes"]),
    ] {
        let ended = run(arguments).await;
        ended.check(0, &[]);
        for word in words {
            assert!(ended.out.contains(word), "`{word}` is not in the help of {arguments:?}:\n{}", ended.out);
        }
    }
}

#[tokio::test]
async fn without_a_majority_nothing_is_changed() {
    let mut cluster = cluster(3).await;
    let before = json(&cluster, &["list"]).await;
    let leader = cluster.leader(WAIT).await.expect("a leader");
    let others: Vec<usize> = (0..3).filter(|server| *server != leader).collect();
    for server in &others {
        cluster.kill(*server).await.expect("killed");
    }
    until("the leader to step down", WAIT, async || {
        cluster.status(leader).await.filter(|status| status.role != "leader")
    })
    .await
    .expect("nobody leads");
    let all = cluster.addresses().join(",");
    let alone = cluster.addresses()[leader].clone();
    // Also what is a member as far as anybody knows: that may be long over.
    for arguments in [&["remove", "1"][..], &["transfer"], &["plan", "--remove", "1"], &["add", &alone]] {
        let ended = run(&[&["member"], arguments, &["--timeout", "500ms", "--cluster", &all]].concat()).await;
        ended.check(3, &[&cluster.addresses()[leader]]);
    }
    let list = member(&cluster, &["list"]).await;
    list.check(0, &[]);
    assert!(list.out.contains("no leader has answered"), "{list:?}");
    for server in &others {
        cluster.start_server(*server).expect("started");
    }
    cluster.leader(WAIT).await.expect("a leader");
    let after = json(&cluster, &["list"]).await;
    assert_eq!((&after["configuration"], kinds(&after)), (&before["configuration"], kinds(&before)));
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_server_that_asks_is_taken_in_and_votes() {
    let mut cluster = cluster(3).await;
    let server = cluster.add_server(Entry::Asks(Wanted::Voter)).expect("a server");
    until("it to vote", WAIT, async || cluster.status(server).await.filter(|status| status.votes))
        .await
        .expect("a vote");
    let address = cluster.addresses()[server].clone();
    let added = member(&cluster, &["add", &address]).await;
    added.check(0, &["is server 4, a voter"]);
    cluster.stop().await.expect("stopped");
}
