//! What the writer said, counted by the demo as it comes.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::writer::{Line, STOP};
use crate::exit::{Exit, Failure};

/// Shorter silences between acknowledgements are not remembered.
const PAUSE: Duration = Duration::from_millis(5);

/// The writer's process, and what it said so far.
#[derive(Debug)]
pub(super) struct Writer {
    process: Child,
    reader: JoinHandle<Tally>,
    acknowledged: watch::Receiver<u64>,
}

/// What the writer said.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Keys whose put was acknowledged.
    pub(super) keys: BTreeSet<String>,
    /// Keys of which the writer does not know whether they were put.
    pub(super) unknown_keys: BTreeSet<String>,
    /// Acknowledged additions to the counter.
    pub(super) additions: u64,
    /// Additions of which the writer does not know whether they were made.
    pub(super) unknown_additions: u64,
    /// Keys that were there before they were first put: a command done twice.
    pub(super) done_twice: u64,
    /// Commands that were sent more than once.
    pub(super) retries: u64,
    /// Comparisons that failed because another addition came first.
    pub(super) conflicts: u64,
    /// Whether the writer came to its end.
    pub(super) complete: bool,
    /// Silences between two acknowledgements: when they ended, and how long they were.
    pauses: Vec<(Instant, Duration)>,
}

impl Writer {
    /// Starts the writer.
    pub(super) fn start(executable: &Path, servers: &[String], outstanding: usize) -> io::Result<Self> {
        let mut process = Command::new(executable)
            .args(["demo-writer", "--cluster", &servers.join(",")])
            .args(["--outstanding", &outstanding.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let (sender, acknowledged) = watch::channel(0);
        Ok(Writer { process, reader: tokio::spawn(read(stdout, sender)), acknowledged })
    }

    /// Acknowledgements so far.
    pub(super) fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits for so many acknowledgements more.
    pub(super) async fn more(&mut self, acknowledgements: u64, within: Duration) -> Result<(), Failure> {
        let goal = self.acknowledged() + acknowledgements;
        let reached = self.acknowledged.wait_for(|count| *count >= goal);
        match tokio::time::timeout(within, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failure::new(Exit::Refused, "the writer ended early")),
            Err(_) => Err(Failure::new(
                Exit::Unreachable,
                format!("waited {} ms for the next {acknowledgements} acknowledgements", within.as_millis()),
            )),
        }
    }

    /// Lets the writer finish what it has begun, and waits for it.
    pub(super) async fn finish(mut self, within: Duration) -> Result<Tally, Failure> {
        let refused = |error: io::Error| Failure::new(Exit::Refused, format!("the writer: {error}"));
        if let Some(mut stdin) = self.process.stdin.take() {
            stdin.write_all(STOP.as_bytes()).await.map_err(refused)?;
        }
        let ended = async {
            let status = self.process.wait().await.map_err(refused)?;
            let tally = self.reader.await.map_err(|error| refused(io::Error::other(error)))?;
            if status.success() && tally.complete {
                Ok(tally)
            } else {
                Err(Failure::new(Exit::Refused, format!("the writer failed: {status}")))
            }
        };
        tokio::time::timeout(within, ended)
            .await
            .unwrap_or_else(|_| Err(Failure::new(Exit::Unreachable, "the writer did not finish in time")))
    }
}

impl Tally {
    /// The longest silence between two acknowledgements that ended in this span.
    pub(super) fn longest_pause(&self, from: Instant, through: Instant) -> Duration {
        let within = self.pauses.iter().filter(|(end, _)| (from..=through).contains(end));
        within.map(|(_, pause)| *pause).max().unwrap_or_default()
    }

    fn take(&mut self, line: Line) -> bool {
        match line {
            Line::Key(key) => {
                self.keys.insert(key);
                return true;
            }
            Line::Added => {
                self.additions += 1;
                return true;
            }
            Line::UnknownKey(key) => {
                self.unknown_keys.insert(key);
            }
            Line::UnknownAddition => self.unknown_additions += 1,
            Line::DoneTwice(_) => self.done_twice += 1,
            Line::End { retries, conflicts } => {
                (self.retries, self.conflicts, self.complete) = (retries, conflicts, true);
            }
        }
        false
    }
}

async fn read(stdout: ChildStdout, acknowledged: watch::Sender<u64>) -> Tally {
    let mut tally = Tally::default();
    let mut last = Instant::now();
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let Ok(line) = text.parse() else { continue };
        if tally.take(line) {
            let now = Instant::now();
            if now - last >= PAUSE {
                tally.pauses.push((now, now - last));
            }
            last = now;
            acknowledged.send_modify(|count| *count += 1);
        }
    }
    tally
}
