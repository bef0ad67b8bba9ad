//! Commands and queries that no client of ours would send, and those that ours refuses.

use std::collections::BTreeMap;

use atomix::resource::{Apply, BadConfiguration, CommandContext, Handle, NoEvent, Resource, ResourceHandle};
use atomix::{Atomix, Consistency, DistributedMap, Error, Replica, ResourceError};
use atomix_cli::cluster::{Cluster, free_addresses};
use atomix_cli::exit::{Exit, Failure};
use atomix_protocol::InstanceId;
use atomix_protocol::codec;
use atomix_protocol::envelope::{Envelope, OpenReply, OpenResource, Operation, OperationStatus, Sharing};
use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use crate::clusters::started;
use crate::run::{WAIT, run};
use crate::{Row, row};

/// Beyond the highest operation of a map.
const NUMBERS: u16 = 64;
/// Random bodies per operation, besides those thought up.
const RANDOM_BODIES: usize = 40;

pub(crate) async fn hostile_bodies_of_every_operation() -> Vec<Row> {
    let cluster = started(3).await;
    let pids: Vec<_> = (0..3).map(|server| cluster.pid(server)).collect();
    let atomix = Atomix::connect(cluster.addresses()).await.expect("a client");
    let session = atomix.session().await.expect("a session");
    let open = OpenResource {
        path: "/hostile".into(),
        kind: "map".into(),
        configuration: Bytes::new(),
        sharing: Sharing::Own,
    };
    let opened = session.submit(Envelope::Open(open).encode(), &mut |_| ()).await.expect("an answer");
    let OpenReply::Opened { instance: own, .. } = codec::from_bytes(&opened.body).expect("a reply") else {
        panic!("the map does not open")
    };
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for number in (0..NUMBERS).chain([u16::MAX]) {
        let mut answering = Vec::new();
        for body in bodies(&mut random) {
            for instance in [own, InstanceId(0), InstanceId(u64::MAX)] {
                let command = Envelope::Operation(Operation { instance, number }, body.clone()).encode();
                answering.push(session.submit(command.clone(), &mut |_| ()));
                answering.push(session.query(command, Consistency::Sequential));
            }
        }
        for answer in answering {
            // Refused or not, it is answered: its sequence was consumed.
            let body = answer.await.expect("an answer").body;
            let (status, _) = codec::take_from_bytes::<OperationStatus>(&body).expect("a status");
            *answers.entry(format!("{status:?}")).or_default() += 1;
        }
    }
    for command in [&b""[..], &[0], &[0xff; 100], &[1, 0xff], &[2]] {
        session.submit(Bytes::copy_from_slice(command), &mut |_| ()).await.expect("an answer");
        session.query(Bytes::copy_from_slice(command), Consistency::Sequential).await.expect("an answer");
    }
    for kind in ["Malformed", "UnknownOperation", "UnknownInstance"] {
        assert!(answers.contains_key(kind), "{answers:?}");
    }
    for server in 0..cluster.size() {
        cluster.caught_up(server, WAIT).await.expect("all replicas go on");
    }
    assert_eq!(pids, (0..3).map(|server| cluster.pid(server)).collect::<Vec<_>>(), "the same processes");
    let answers: Vec<_> = answers.into_iter().map(|(status, count)| format!("{count} {status}")).collect();
    let message = format!("answers: {}", answers.join(", "));
    let rows =
        vec![row("hostile bodies of every operation", "all 3 go on", message, &cluster.addresses()).await];
    cluster.stop().await.expect("stopped");
    rows
}

fn bodies(random: &mut Xoshiro256PlusPlus) -> Vec<Bytes> {
    let thought_up: [&[u8]; 8] = [
        b"",
        &[0],
        &[1],
        &[0xff; 5],
        &[0x80; 64],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[2, 0xff, 0xfe],
        &[7; 100_000],
    ];
    let mut bodies: Vec<_> = thought_up.iter().map(|body| Bytes::copy_from_slice(body)).collect();
    for _ in 0..RANDOM_BODIES {
        let mut body = vec![0; random.random_range(0..200)];
        random.fill_bytes(&mut body);
        // Lengths come first: small ones get further into the decoder.
        if let Some(first) = body.first_mut() {
            *first %= 16;
        }
        bodies.push(body.into());
    }
    bodies
}

/// A kind of resource that the binary does not know.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct TallyState(u64);

#[derive(serde::Serialize, serde::Deserialize)]
struct Add(u64);

atomix::resource::operations! {
    struct TallyOperations;
    commands { 1: Add -> u64 }
    queries {}
}

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

struct Tally(Handle<TallyState>);

impl ResourceHandle for Tally {
    type State = TallyState;

    fn from_handle(handle: Handle<TallyState>) -> Self {
        Tally(handle)
    }
}

/// The binary knows one kind of resource. So its client meets a server of this process that knows another, and its servers meet a
/// client of this process that wants another.
pub(crate) async fn wrong_type_for_a_path() -> Vec<Row> {
    let mut rows = vec![path_of_another_kind().await];
    let cluster = Cluster::start(&crate::run::executable(), 1, &[]).expect("a server");
    let servers = cluster.addresses();
    let atomix = Atomix::connect(cluster.addresses()).await.expect("a client");
    let Err(error) = atomix.get::<Tally>("/tally").await else { panic!("opened") };
    assert_eq!(error, Error::Resource(ResourceError::UnknownKind("test/tally")));
    let failure = Failure::from(error);
    rows.push(row("a kind that no server knows", code(&failure), failure.message, &servers).await);
    let numbers: DistributedMap<u8, Vec<u64>> = atomix.map("/numbers").await.expect("a map");
    numbers.put(&200, &vec![u64::MAX]).await.expect("put");
    let ended = run(&["map", "list", "/numbers", "--cluster", &servers[0]]).await;
    ended.check(1, &["other types than strings"]);
    rows.push(row("a map of other types", "1", ended.err.trim(), &servers).await);
    cluster.stop().await.expect("stopped");
    rows
}

async fn path_of_another_kind() -> Row {
    let directory = tempfile::tempdir().expect("a directory");
    let address = free_addresses(1).expect("a port").remove(0);
    let replica = Replica::builder(address.as_str())
        .data_dir(directory.path())
        .registry(|registry| registry.with::<TallyState>())
        .bootstrap([address.as_str()])
        .await
        .expect("a server");
    replica.ready().await.expect("a leader");
    let tally: Tally = replica.atomix().get("/tally").await.expect("it opens");
    tally.0.command(&Add(2)).await.expect("done");
    let ended = run(&["map", "put", "/tally", "key", "value", "--cluster", &address]).await;
    ended.check(1, &["/tally is a test/tally, not a map"]);
    let wrong = replica.atomix().map::<String, String>("/tally").await.expect_err("it is no map");
    let typed = ResourceError::WrongKind { path: "/tally".into(), wanted: "map", found: "test/tally".into() };
    assert_eq!(wrong, Error::Resource(typed));
    assert_eq!(tally.0.command(&Add(3)).await.expect("done").1, 5, "untouched");
    let row = row("wrong type for a path", "1", ended.err.trim(), &[address]).await;
    replica.shutdown().await.expect("it had not failed");
    row
}

/// Arguments of a process can't be that long: a client of this process stands in for the binary's.
pub(crate) async fn larger_than_the_limits() -> Vec<Row> {
    let cluster = started(1).await;
    let servers = cluster.addresses();
    let atomix = Atomix::connect(cluster.addresses()).await.expect("a client");
    let map: DistributedMap<String, String> = atomix.map("/large").await.expect("a map");
    let mut rows = Vec::new();
    for (case, key, value) in [
        ("a value above 1 MiB", 1, 1 << 20),
        ("a value above a frame", 1, 5 << 20),
        ("a key above 64 KiB", (64 << 10) + 1, 1),
    ] {
        let refused = map.put(&"k".repeat(key), &"v".repeat(value)).await.expect_err(case);
        let failure = Failure::from(refused);
        rows.push(row(case, code(&failure), failure.message, &servers).await);
    }
    for path in ["users", "", "/", "/a//b", "/a/"] {
        let ended = run(&["map", "put", path, "key", "value", "--cluster", &servers[0]]).await;
        ended.check(1, &["not a path"]);
        rows.push(row(&format!("a path {path:?}"), "1", ended.err.trim(), &servers).await);
    }
    map.put("key", "value").await.expect("the session goes on");
    cluster.stop().await.expect("stopped");
    rows
}

fn code(failure: &Failure) -> String {
    assert_eq!(failure.exit, Exit::Refused, "{failure}");
    (failure.exit as u8).to_string()
}
