//! Data directories that a server must not use.

use std::fs;
use std::io;
use std::path::Path;

use atomix_cli::cluster::{Cluster, free_addresses};

use crate::clusters::started;
use crate::run::{WAIT, run};
use crate::{Row, row};

pub(crate) async fn of_another_cluster() -> Vec<Row> {
    let mut other = started(1).await;
    other.kill(0).await.expect("killed");
    let foreign = other.directory(0);
    let mut cluster = started(3).await;
    cluster.kill(2).await.expect("killed");
    let rows = vec![
        starts_with(&foreign, &mut cluster, "a data directory of another cluster", 6, "another cluster")
            .await,
    ];
    other.stop().await.expect("stopped");
    cluster.stop().await.expect("stopped");
    rows
}

pub(crate) async fn copied_beside_its_original() -> Vec<Row> {
    let mut cluster = started(3).await;
    cluster.kill(2).await.expect("killed");
    let original = cluster.directory(0);
    let row = starts_with(
        &original,
        &mut cluster,
        "a copied data directory beside its original",
        7,
        "duplicate identity",
    )
    .await;
    assert!(cluster.status(0).await.is_some(), "the original goes on");
    cluster.stop().await.expect("stopped");
    vec![row]
}

/// Restarts the third server, which does not run, with a copy of a directory.
async fn starts_with(directory: &Path, cluster: &mut Cluster, case: &str, code: i32, word: &str) -> Row {
    fs::remove_dir_all(cluster.directory(2)).expect("removed");
    copy(directory, &cluster.directory(2)).expect("copied");
    cluster.start_server(2).expect("started");
    let ended = cluster.ended(2, WAIT).await.expect("it ends");
    let log = fs::read_to_string(cluster.log(2)).expect("a log");
    assert_eq!(ended, Some(code), "{log}");
    let said = log.lines().rev().find(|line| line.starts_with("atomix: ")).expect("it says why");
    assert!(said.contains(word), "{said}");
    row(case, code.to_string(), said, &cluster.addresses()).await
}

pub(crate) async fn in_use() -> Vec<Row> {
    let cluster = started(1).await;
    let address = free_addresses(1).expect("a port").remove(0);
    let directory = cluster.directory(0);
    let directory = directory.to_str().expect("a name");
    let ended = run(&["serve", "--listen", &address, "--bootstrap", &address, "--data-dir", directory]).await;
    ended.check(6, &["in use", directory]);
    let rows =
        vec![row("a second process on a data directory", "6", ended.err.trim(), &cluster.addresses()).await];
    cluster.stop().await.expect("stopped");
    rows
}

pub(crate) async fn below_a_regular_file() -> Vec<Row> {
    let cluster = started(1).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let directory = file.path().join("data");
    let directory = directory.to_str().expect("a name");
    let address = free_addresses(1).expect("a port").remove(0);
    let ended = run(&["serve", "--listen", &address, "--bootstrap", &address, "--data-dir", directory]).await;
    ended.check(6, &[directory, "--data-dir"]);
    let rows =
        vec![row("a data directory below a regular file", "6", ended.err.trim(), &cluster.addresses()).await];
    cluster.stop().await.expect("stopped");
    rows
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
