//! The demo's own processes: each says what happens, line by line.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::writer::STOP;
use crate::exit::{Exit, Failure};

/// A process that says lines of one type. Ends with the demo, and when it is dropped.
#[derive(Debug)]
pub(super) struct Process<L> {
    name: &'static str,
    child: Child,
    said: mpsc::UnboundedReceiver<(Instant, L)>,
    /// What it wrote to standard error, at its end.
    errors: JoinHandle<String>,
}

impl<L: FromStr + Send + 'static> Process<L> {
    /// Starts it. What is not a line of the type is passed over.
    pub(super) fn start(executable: &Path, name: &'static str, arguments: &[&str]) -> Result<Self, Failure> {
        let child = Command::new(executable)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| refused(name, &error))?;
        let pipes = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = pipes.ok_or_else(|| refused(name, &io::Error::other("it has no pipes")))?;
        let (sender, said) = mpsc::unbounded_channel();
        tokio::spawn(read(stdout, sender));
        Ok(Process { name, child, said, errors: tokio::spawn(read_all(stderr)) })
    }

    /// The next thing that it says, and when.
    pub(super) async fn next(&mut self, within: Duration) -> Result<(Instant, L), Failure> {
        match tokio::time::timeout(within, self.said.recv()).await {
            Ok(Some(said)) => Ok(said),
            Ok(None) => {
                let errors = (&mut self.errors).await.unwrap_or_default();
                Err(Failure::new(Exit::Refused, format!("{} ended early: {}", self.name, errors.trim())))
            }
            Err(_) => Err(Failure::new(
                Exit::Unreachable,
                format!("waited {} ms for {}", within.as_millis(), self.name),
            )),
        }
    }

    /// What it has said and nobody has asked for yet.
    pub(super) fn said(&mut self) -> Vec<L> {
        std::iter::from_fn(|| self.said.try_recv().ok()).map(|(_, line)| line).collect()
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Failure::new(Exit::Refused, format!("{} has ended", self.name)))?;
        kill_process(pid, signal).map_err(|error| refused(self.name, &error.into()))
    }

    /// Lets it finish what it has begun, and waits for it; the rest of what it said.
    pub(super) async fn finish(mut self, within: Duration) -> Result<Vec<L>, Failure> {
        if let Some(mut stdin) = self.child.stdin.take() {
            // One that has ended by itself has said so.
            let _ = stdin.write_all(STOP.as_bytes()).await;
        }
        self.ended(within).await
    }

    /// Waits until it has ended; the rest of what it said.
    pub(super) async fn ended(mut self, within: Duration) -> Result<Vec<L>, Failure> {
        let ended = async {
            let mut said = Vec::new();
            while let Some((_, line)) = self.said.recv().await {
                said.push(line);
            }
            let status = self.child.wait().await.map_err(|error| refused(self.name, &error))?;
            let errors = (&mut self.errors).await.unwrap_or_default();
            Ok((status, said, errors))
        };
        match tokio::time::timeout(within, ended).await {
            Ok(Ok((status, said, _))) if status.success() => Ok(said),
            Ok(Ok((status, _, errors))) => {
                let message = format!("{} failed: {status}: {}", self.name, errors.trim());
                Err(Failure::new(Exit::Refused, message))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Failure::new(Exit::Unreachable, format!("{} did not finish in time", self.name))),
        }
    }
}

async fn read<L: FromStr>(stdout: ChildStdout, said: mpsc::UnboundedSender<(Instant, L)>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        if let Ok(line) = text.parse()
            && said.send((Instant::now(), line)).is_err()
        {
            return;
        }
    }
}

async fn read_all(mut stderr: ChildStderr) -> String {
    let mut text = String::new();
    let _ = stderr.read_to_string(&mut text).await;
    text
}

fn refused(name: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("{name}: {error}"))
}
