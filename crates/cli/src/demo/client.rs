//! Clients in processes of their own: the same commands that a user has.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::exit::{Exit, Failure};

/// Runs commands of an executable `atomix` against servers.
#[derive(Clone, Debug)]
pub(super) struct Client {
    executable: PathBuf,
    cluster: String,
}

impl Client {
    /// A client that knows these servers.
    pub(super) fn new(executable: &Path, servers: &[String]) -> Self {
        Client { executable: executable.into(), cluster: servers.join(",") }
    }

    /// `atomix map put`.
    pub(super) async fn put(&self, path: &str, key: &str, value: &str) -> Result<(), Failure> {
        self.map(&["put", path, key, value]).await.map(|_| ())
    }

    /// `atomix map get`.
    pub(super) async fn get(&self, path: &str, key: &str) -> Result<String, Failure> {
        Ok(self.map(&["get", path, key]).await?.trim_end_matches('\n').to_owned())
    }

    /// `atomix map list`.
    pub(super) async fn list(&self, path: &str) -> Result<BTreeMap<String, String>, Failure> {
        let text = self.map(&["list", path]).await?;
        Ok(text.lines().filter_map(|line| line.split_once('\t')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    async fn map(&self, arguments: &[&str]) -> Result<String, Failure> {
        let refused = |error: io::Error| Failure::new(Exit::Refused, error.to_string());
        let mut process = Command::new(&self.executable)
            .arg("map")
            .args(arguments)
            .args(["--exit-with-stdin", "--cluster", &self.cluster])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(refused)?;
        // Held until it has ended: its end is what tells the client that the demo is gone.
        let stdin = process.stdin.take();
        let output = process.wait_with_output().await.map_err(refused)?;
        drop(stdin);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::new(
            Exit::Refused,
            format!("`atomix map {}`: {}: {said}", arguments.join(" "), output.status),
        ))
    }
}
