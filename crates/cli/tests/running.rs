//! Runs the binary, and hears what it says meanwhile.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::run::{Ended, WAIT, command, ended};

/// A run whose lines on standard output are read as they come. Its standard input stays open.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
}

/// Starts the binary.
pub(crate) fn start(arguments: &[&str]) -> Running {
    let mut child = command(arguments).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let out = BufReader::new(child.stdout.take().expect("standard output")).lines();
    Running { child, out }
}

impl Running {
    /// The next line.
    pub(crate) async fn line(&mut self) -> String {
        let line = tokio::time::timeout(WAIT, self.out.next_line()).await.expect("in time");
        match line.expect("standard output") {
            Some(line) => line,
            None => panic!("it has ended: {:?}", self.child.wait().await),
        }
    }

    /// Waits for a line on standard error that holds some words.
    pub(crate) async fn says(&mut self, words: &str) {
        let mut err = BufReader::new(self.child.stderr.as_mut().expect("standard error")).lines();
        let said = async {
            while let Some(line) = err.next_line().await.expect("standard error") {
                if line.contains(words) {
                    return;
                }
            }
            panic!("it has ended, and did not say {words}");
        };
        tokio::time::timeout(WAIT, said).await.expect("in time");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
        kill_process(pid, signal).expect("a signal");
    }

    /// Waits for its end; what it said is without the lines that were read before.
    pub(crate) async fn ended(self) -> Ended {
        let Running { mut child, mut out } = self;
        let stdin = child.stdin.take();
        let rest = async {
            let mut lines = String::new();
            while let Some(line) = out.next_line().await.expect("standard output") {
                lines.push_str(&format!("{line}\n"));
            }
            lines
        };
        let both = async { tokio::join!(rest, ended(child)) };
        let (out, ended) = tokio::time::timeout(WAIT, both).await.expect("in time");
        drop(stdin);
        Ended { out, ..ended }
    }

    /// Closes its standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.child.stdin.take();
    }
}
