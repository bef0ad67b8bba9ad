//! `atomix log`: the data directory of a real server, whole and damaged, and one that a server runs in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use atomix_cli::cluster::{Cluster, until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::run::{Ended, WAIT, executable, run};

const OPTIONS: [&str; 4] = ["--snapshot-log-bytes", "6000", "--segment-bytes", "4096"];

async fn log(command: &str, directory: &Path, options: &[&str]) -> Ended {
    let directory = directory.to_str().expect("a name");
    run(&[&["log", command, directory], options].concat()).await
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn names(directory: &Path, begin: &str) -> Vec<String> {
    let all = fs::read_dir(directory).expect("a folder").map(|item| item.expect("an item").file_name());
    let mut names: Vec<String> = all.map(|name| name.into_string().expect("a name")).collect();
    names.retain(|name| name.starts_with(begin));
    names.sort();
    names
}

/// Names, bytes and modes of all files.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>, u32)> {
    let one = |name: String| {
        let path = directory.join(&name);
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        (name, fs::read(path).expect("read"), mode)
    };
    names(directory, "").into_iter().map(one).collect()
}

async fn put(cluster: &Cluster, keys: std::ops::Range<u32>) {
    let (all, value) = (cluster.addresses().join(","), "v".repeat(1_000));
    for key in keys {
        run(&["map", "put", "/m", &key.to_string(), &value, "--cluster", &all]).await.check(0, &[]);
    }
}

/// Writes until there are two snapshots, and a few entries behind them.
async fn fill(cluster: &Cluster, server: usize) {
    let directory = cluster.directory(server);
    until("two snapshots", WAIT, async || {
        put(cluster, 0..3).await;
        (names(&directory, "snapshot-").len() >= 2).then_some(())
    })
    .await
    .expect("two snapshots");
    put(cluster, 0..3).await;
}

/// Ends a server when it has done what it has begun: a SIGKILL may come between any two steps.
async fn end(cluster: &mut Cluster, server: usize) {
    cluster.signal(server, Signal::TERM).expect("running");
    cluster.ended(server, WAIT).await.expect("ended");
}

/// A copy of a data directory, to be damaged.
struct Data {
    place: TempDir,
}

impl Data {
    fn copy(from: &Path) -> Data {
        let place = tempfile::tempdir().expect("a directory");
        for name in names(from, "") {
            fs::copy(from.join(&name), place.path().join(&name)).expect("copied");
        }
        Data { place }
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn lose(&self, name: &str) {
        fs::remove_file(self.file(name)).expect("removed");
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(name)).expect("a file");
        change(&mut bytes);
        fs::write(self.file(name), bytes).expect("written");
    }

    fn flip(&self, name: &str, at: usize) {
        self.change(name, |bytes| bytes[at] ^= 1);
    }

    /// The newest segment of the log, by what the binary says.
    async fn newest_segment(&self) -> (String, usize) {
        let inspected = json(&log("inspect", self.path(), &["--json"]).await);
        let segments = inspected["segments"].as_array().expect("an array");
        let newest = segments.iter().rfind(|segment| segment["part"] == "log").expect("a log");
        let end = newest["end"].as_u64().expect("a number") as usize;
        (newest["file"].as_str().expect("a name").to_owned(), end)
    }

    /// Checks what the commands say, and that nothing is changed.
    async fn check(&self, row: &str, code: i32, words: &[&str]) {
        let before = contents(self.path());
        let verified = log("verify", self.path(), &[]).await;
        assert_eq!(verified.code, Some(code), "{row}: {verified:?}");
        for word in words {
            assert!(verified.out.contains(word), "{row}: `{word}` is not in {verified:?}");
        }
        let verified = log("verify", self.path(), &["--json"]).await;
        assert_eq!(verified.code, Some(code), "{row}: {verified:?}");
        let verified = json(&verified);
        assert_eq!(
            (verified["row"].as_str(), verified["sound"].as_bool()),
            (Some(row), Some(code == 0)),
            "{verified}"
        );
        let inspected = log("inspect", self.path(), &[]).await;
        inspected.check(0, &[]);
        assert!(inspected.out.starts_with(&format!("row            {row}\n")), "{inspected:?}");
        assert_eq!(inspected.out.contains("\nwrong: "), code != 0, "{inspected:?}");
        log("dump", self.path(), &[]).await.check(0, &[]);
        assert_eq!(contents(self.path()), before, "{row}: something was changed");
    }
}

#[tokio::test]
async fn the_directory_of_a_server() {
    let mut cluster = Cluster::start(&executable(), 1, &OPTIONS).expect("a server");
    cluster.leader(WAIT).await.expect("a leader");
    let directory = cluster.directory(0);
    for command in ["verify", "inspect", "dump"] {
        log(command, &directory, &[]).await.check(6, &["in use", "stop its server first"]);
    }
    fill(&cluster, 0).await;
    end(&mut cluster, 0).await;
    whole(&directory).await;
    damaged(&directory).await;
    cluster.stop().await.expect("stopped");
}

async fn whole(directory: &Path) {
    let before = contents(directory);
    let verified = log("verify", directory, &[]).await;
    verified.check(0, &[]);
    assert!(verified.out.starts_with("nothing is wrong: entries "), "{verified:?}");
    let snapshots = format!(", {} snapshots", names(directory, "snapshot-0").len());
    assert!(verified.out.lines().next().is_some_and(|line| line.ends_with(&snapshots)), "{verified:?}");
    let inspected = json(&log("inspect", directory, &["--json"]).await);
    assert_eq!((&inspected["row"], &inspected["verdict"]), (&"clean".into(), &"serve".into()), "{inspected}");
    assert_eq!((&inspected["server"], &inspected["group"]), (&1.into(), &0.into()), "{inspected}");
    assert_eq!(inspected["configuration"]["members"].as_array().map(Vec::len), Some(1), "{inspected}");
    assert_eq!(inspected["incarnation"].as_str().map(str::len), Some(32), "{inspected}");
    assert_eq!(inspected["mark"]["index"], inspected["log"]["last"]["index"], "{inspected}");
    assert_eq!(inspected["findings"].as_array().map(Vec::len), Some(0), "{inspected}");
    let dumped = log("dump", directory, &["--json"]).await;
    let records: Vec<Value> =
        dumped.out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let last = records.iter().rfind(|record| record["kind"] == "session").expect("an entry");
    assert_eq!(last["index"], inspected["log"]["last"]["index"], "{last}");
    assert!(
        records.iter().all(|record| record["whole"] == true && record["standing"] == "served"),
        "{dumped:?}"
    );
    let index = last["index"].to_string();
    let one = log("dump", directory, &["--from", &index, "--to", &index]).await;
    let lines: Vec<Vec<&str>> = one.out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 2, "the entry, and the trailer of its batch: {one:?}");
    assert_eq!(lines[0][..4], [&index, &last["term"].to_string(), "session", "served"], "{one:?}");
    assert_eq!((lines[1][2], lines[0].len()), ("trailer", 10), "{one:?}");
    assert_eq!(lines[0][8], last["file"].as_str().expect("a name"), "{one:?}");
    assert_eq!(contents(directory), before, "something was changed");
    // Without a lock, and where nothing may be written.
    let copy = Data::copy(directory);
    copy.lose("lock");
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o500)).expect("read-only");
    copy.check("clean", 0, &["nothing is wrong"]).await;
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o700)).expect("as it was");
}

async fn damaged(directory: &Path) {
    let copy = || Data::copy(directory);
    let (newest, end) = copy().newest_segment().await;
    let snapshots = names(directory, "snapshot-0");

    let torn = copy();
    torn.lose("mark");
    torn.flip(&newest, end - 1);
    torn.check("torn", 0, &["nothing is wrong", "a crash broke a batch off", &newest]).await;

    let synced = copy();
    synced.flip(&newest, end - 1);
    synced.check("a synced batch", 6, &[&newest, " at ", "the log was synced to", "abstains until"]).await;

    let missing = copy();
    missing.lose("mark");
    missing.lose(&newest);
    missing.check("a missing segment", 6, &[&newest, "is missing"]).await;

    let older = copy();
    older.flip(&snapshots[0], 70);
    older.check("clean", 6, &[&snapshots[0], "does not verify", "nothing is lost"]).await;

    for (name, word) in
        [("manifest-0", "does not verify"), ("manifest-1", "does not verify"), ("mark", "this slot")]
    {
        let one = copy();
        one.flip(name, 20);
        one.check("clean", 6, &[name, word]).await;
    }

    let lost = copy();
    lost.flip("manifest-0", 70);
    lost.flip("manifest-1", 70);
    lost.check("identity lost", 6, &["identity, term and vote are lost", "new member"]).await;

    let newer = copy();
    newer.change(&newest, |bytes| {
        bytes[8] = 9;
        let crc = crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    });
    newer.check("another format", 6, &[&newest, "another version"]).await;
}

/// CRC-32C, bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[tokio::test]
async fn a_damaged_server_is_repaired_by_its_leader() {
    let mut cluster = Cluster::start(&executable(), 3, &OPTIONS).expect("servers");
    let leader = cluster.leader(WAIT).await.expect("a leader");
    let server = (leader + 1) % 3;
    fill(&cluster, server).await;
    cluster.caught_up(server, WAIT).await.expect("caught up");
    end(&mut cluster, server).await;
    let directory = cluster.directory(server);
    let (newest, end) = Data::copy(&directory).newest_segment().await;
    let mut bytes = fs::read(directory.join(&newest)).expect("a segment");
    bytes[end - 1] ^= 1;
    fs::write(directory.join(&newest), bytes).expect("written");
    let verified = json(&log("verify", &directory, &["--json"]).await);
    assert_eq!(
        (&verified["row"], &verified["sound"]),
        (&"a synced batch".into(), &false.into()),
        "{verified}"
    );
    let until_index = verified["abstains_until"].as_u64().expect("an index");
    cluster.start_server(server).expect("started");
    until("the server to vote again", WAIT, async || {
        let status = cluster.status(server).await?;
        (status.abstains_until.is_none() && status.durable_index.0 >= until_index).then_some(())
    })
    .await
    .expect("repaired");
    let said = run(&["status", "--cluster", &cluster.addresses()[server]]).await.out;
    let line = said.lines().find(|line| line.contains(&newest)).unwrap_or_default().to_owned();
    assert!(line.contains("repaired: ") && !line.contains("abstains"), "{said}");
    assert_eq!(said.matches(&newest).count(), line.matches(&newest).count(), "said twice: {said}");
    cluster.kill(server).await.expect("killed");
    let verified = log("verify", &directory, &[]).await;
    verified.check(0, &[]);
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn what_is_no_data_directory_exits_with_6() {
    let place = tempfile::tempdir().expect("a directory");
    let missing = place.path().join("data");
    let file = place.path().join("notes.txt");
    fs::write(&file, "x").expect("written");
    for command in ["verify", "inspect", "dump"] {
        log(command, &missing, &[]).await.check(6, &["unusable", "data", "name a directory"]);
        assert!(!missing.exists(), "it was made");
        log(command, &file, &[]).await.check(6, &["unusable", "notes.txt"]);
        log(command, place.path(), &[]).await.check(6, &["foreign", "no file of a server", "--data-dir"]);
    }
    fs::write(place.path().join("other.seg"), "x").expect("written");
    log("verify", place.path(), &[]).await.check(6, &["foreign", "other.seg"]);
    assert_eq!(names(place.path(), ""), ["notes.txt", "other.seg"], "something was made");
    run(&["log", "verify"]).await.check(2, &["DIRECTORY"]);
    run(&["log", "dump", "d", "--from", "x"]).await.check(2, &["--from"]);
}
