//! Runs the binary.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// Longest run of anything.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn executable() -> PathBuf {
    env!("CARGO_BIN_EXE_atomix").into()
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The binary with arguments, and nothing of this process's own settings.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(executable());
    command.args(arguments).env_remove("ATOMIX_CLUSTER").env_remove("ATOMIX_LOG").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a child, and takes what it said.
pub(crate) async fn ended(child: Child) -> Ended {
    let output =
        tokio::time::timeout(WAIT, child.wait_with_output()).await.expect("in time").expect("output");
    Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs the binary to its end.
pub(crate) async fn run(arguments: &[&str]) -> Ended {
    ended(command(arguments).spawn().expect("the binary starts")).await
}

impl Ended {
    /// Checks the exit code, and that standard error holds some words.
    #[track_caller]
    pub(crate) fn check(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in {self:?}");
        }
    }
}
