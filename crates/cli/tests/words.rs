//! What an operator is told whose data directory can't be used: what is wrong, what helps, and nothing that does not.

use std::fs;
use std::path::Path;

use atomix_cli::cluster::Cluster;
use rustix::process::Signal;

use crate::log::crc32c;
use crate::run::{Ended, WAIT, executable, run};

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// Starts a server with a copy of a directory to which something was done.
async fn start(address: &str, from: &Path, harm: impl FnOnce(&Path)) -> Ended {
    let place = tempfile::tempdir().expect("a directory");
    for item in fs::read_dir(from).expect("a folder") {
        let item = item.expect("an item");
        fs::copy(item.path(), place.path().join(item.file_name())).expect("copied");
    }
    harm(place.path());
    let directory = place.path().to_str().expect("a name");
    run(&["serve", "--listen", address, "--bootstrap", address, "--data-dir", directory]).await
}

#[tokio::test]
async fn of_a_data_directory_say_what_helps_and_say_it_once() {
    let mut cluster = Cluster::start(&executable(), 1, &[]).expect("a server");
    cluster.leader(WAIT).await.expect("a leader");
    let address = cluster.addresses().remove(0);
    run(&["map", "put", "/m", "key", "value", "--cluster", &address]).await.check(0, &[]);
    cluster.signal(0, Signal::TERM).expect("running");
    cluster.ended(0, WAIT).await.expect("ended");
    let directory = cluster.directory(0);
    let check = |ended: Ended, words: &[&str], wrong: &[&str]| {
        ended.check(6, words);
        let last = ended.err.lines().last().unwrap_or_default();
        let misleading = wrong.iter().find(|word| last.contains(**word));
        assert_eq!(misleading, None, "{last}");
        assert!(last.matches("empty").count() <= 1, "{last}");
    };

    let newer = start(&address, &directory, |path| {
        change(&path.join("manifest-0"), |bytes| {
            bytes[8] = 9;
            let crc = crc32c(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        });
    });
    let words = ["manifest-0 was written by another version", "start the version that wrote it", "--join"];
    check(newer.await, &words, &["cluster", "--bootstrap"]);

    let stray = start(&address, &directory, |path| fs::write(path.join("log-zz.seg"), "x").expect("written"));
    check(stray.await, &["log-zz.seg", "move"], &["cluster", "version", "--bootstrap"]);

    let lost = start(&address, &directory, |path| {
        for name in ["manifest-0", "manifest-1"] {
            change(&path.join(name), |bytes| bytes[70] ^= 1);
        }
    });
    let words = ["identity, term and vote are lost", "`atomix log verify /", "an empty one and --join"];
    check(lost.await, &words, &["--bootstrap"]);

    let refused = start(&address, &directory, |path| {
        fs::remove_file(path.join("manifest-0")).expect("removed");
        fs::create_dir(path.join("manifest-0")).expect("made");
    });
    check(refused.await, &["manifest-0", "look at its disk", "rights"], &["choose", "empty", "--join"]);

    let damaged = start(&address, &directory, |path| {
        let segment = path.join("log-0000000000000001.seg");
        change(&segment, |bytes| {
            let end = bytes.iter().rposition(|byte| *byte != 0).expect("records");
            bytes[end] ^= 1;
        });
    });
    let words = ["no other server has it", "`atomix log verify /", "restore it from a backup"];
    check(damaged.await, &words, &["--join", "Restore"]);
    cluster.stop().await.expect("stopped");
}
