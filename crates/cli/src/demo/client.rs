//! Clients in processes of their own: the same commands that a user has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
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
        self.run(&["map", "put", path, key, value]).await.map(|_| ())
    }

    /// `atomix map get`.
    pub(super) async fn get(&self, path: &str, key: &str) -> Result<String, Failure> {
        Ok(self.run(&["map", "get", path, key]).await?.trim_end_matches('\n').to_owned())
    }

    /// `atomix map list`.
    pub(super) async fn list(&self, path: &str) -> Result<BTreeMap<String, String>, Failure> {
        let text = self.run(&["map", "list", path]).await?;
        Ok(text.lines().filter_map(|line| line.split_once('\t')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// `atomix lock status`: how many wait for the lock, and whether somebody has it.
    pub(super) async fn lock_status(&self, path: &str) -> Result<(u64, bool), Failure> {
        let text = self.run(&["lock", "status", path, "--json"]).await?;
        let status: Value = serde_json::from_str(&text).unwrap_or_default();
        let waiting = status["waiting"].as_u64().ok_or_else(|| Failure::new(Exit::Refused, text))?;
        Ok((waiting, !status["holder"].is_null()))
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut process = Command::new(&self.executable)
            .args(arguments)
            .args(["--exit-with-stdin", "--cluster", &self.cluster])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // Held until it has ended: its end is what tells the client that the demo is gone.
        let stdin = process.stdin.take();
        let output = process.wait_with_output().await?;
        drop(stdin);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::new(
            Exit::Refused,
            format!("`atomix {}`: {}: {said}", arguments.join(" "), output.status),
        ))
    }
}
