//! A data directory: one process at a time, and nobody else's business.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use atomix_cli::cluster::{Cluster, free_addresses, until};
use rustix::process::Signal;
use tokio::process::Command;

use crate::run::{WAIT, executable, run};

#[tokio::test]
async fn is_used_by_one_process_until_that_is_gone_however_it_goes() {
    let mut cluster = Cluster::start(&executable(), 1, &[]).expect("a server");
    cluster.leader(WAIT).await.expect("a leader");
    let address = cluster.addresses().remove(0);
    run(&["map", "put", "/kept", "key", "value", "--cluster", &address]).await.check(0, &[]);
    let other = free_addresses(1).expect("a port").remove(0);
    let directory = cluster.directory(0);
    let directory = directory.to_str().expect("a name");
    let second = ["serve", "--listen", &other, "--bootstrap", &other, "--data-dir", directory];
    run(&second).await.check(6, &["in use", directory]);
    // Nor when the owner does nothing at all for a while.
    cluster.signal(0, Signal::STOP).expect("stopped");
    run(&second).await.check(6, &["in use", directory]);
    cluster.signal(0, Signal::CONT).expect("goes on");
    for _ in 0..3 {
        cluster.kill(0).await.expect("killed");
        cluster.start_server(0).expect("started");
        cluster.leader(WAIT).await.expect("the directory is free at once");
    }
    let got = run(&["map", "get", "/kept", "key", "--cluster", &address]).await;
    assert_eq!(got.out, "value\n", "{got:?}");
    cluster.stop().await.expect("stopped");
}

/// Modes of all that is below a folder, itself included, which are not as they should be.
fn wrong_modes(folder: &Path) -> Vec<String> {
    let (mut wrong, mut folders, mut files) = (Vec::new(), vec![folder.to_owned()], 0);
    while let Some(path) = folders.pop() {
        let metadata = fs::metadata(&path).expect("it is there");
        let mode = metadata.permissions().mode() & 0o7777;
        if mode != if metadata.is_dir() { 0o700 } else { 0o600 } {
            wrong.push(format!("{} {mode:o}", path.display()));
        }
        if metadata.is_dir() {
            folders.extend(fs::read_dir(&path).expect("a folder").map(|item| item.expect("an item").path()));
        } else {
            files += 1;
        }
    }
    assert!(files > 3, "there is little in {}", folder.display());
    wrong
}

#[tokio::test]
async fn is_for_its_owner_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("made/as/needed");
        let address = free_addresses(1).expect("a port").remove(0);
        let mut server = Command::new("sh")
            .args(["-c", "umask $0; exec \"$@\"", umask])
            .arg(executable())
            .args(["serve", "--exit-with-stdin", "--listen", &address, "--bootstrap", &address])
            .args(["--snapshot-log-bytes", "2000", "--segment-bytes", "4096", "--data-dir"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let value = "v".repeat(1_000);
        for key in 0..8 {
            let key = key.to_string();
            run(&["map", "put", "/m", &key, &value, "--cluster", &address]).await.check(0, &[]);
        }
        until("a snapshot", WAIT, async || {
            let names = fs::read_dir(&directory).ok()?.map(|item| item.expect("an item").file_name());
            names.into_iter().any(|name| name.to_string_lossy().ends_with(".snap")).then_some(())
        })
        .await
        .expect("a snapshot");
        server.kill().await.expect("killed");
        assert_eq!(wrong_modes(&place.path().join("made")), Vec::<String>::new(), "umask {umask}");
    }
}
