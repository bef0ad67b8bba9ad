//! The demo's writer, a process of its own: keeps many commands in flight and says of each how it ended.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use atomix::{DistributedMap, MapError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::DemoWriter;
use crate::exit::{Exit, Failure};
use crate::session;

/// The map of new keys.
pub const KEYS: &str = "/demo/keys";
/// The map of counters.
pub const COUNTERS: &str = "/demo/counters";
/// The one counter in it.
pub const COUNTER: &str = "additions";
/// On standard input: finish what has begun, say the end, and exit. Without it, the end of standard input is the end of the
/// parent, and nobody listens any more.
pub const STOP: &str = "stop\n";

/// One thing that the writer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The put of this key was acknowledged.
    Key(String),
    /// Whether this key was put is unknown.
    UnknownKey(String),
    /// This key was there before it was first put.
    DoneTwice(String),
    /// An addition to the counter was acknowledged.
    Added,
    /// Whether an addition was made is unknown.
    UnknownAddition,
    /// The last line.
    End {
        /// Commands that were sent more than once.
        retries: u64,
        /// Comparisons that failed because another addition came first.
        conflicts: u64,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Key(key) => write!(f, "key {key}"),
            Line::UnknownKey(key) => write!(f, "unknown-key {key}"),
            Line::DoneTwice(key) => write!(f, "done-twice {key}"),
            Line::Added => f.write_str("added"),
            Line::UnknownAddition => f.write_str("unknown-addition"),
            Line::End { retries, conflicts } => write!(f, "end {retries} {conflicts}"),
        }
    }
}

/// A line that the writer never says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotALine;

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let words: Vec<&str> = text.split(' ').collect();
        Ok(match words[..] {
            ["key", key] => Line::Key(key.into()),
            ["unknown-key", key] => Line::UnknownKey(key.into()),
            ["done-twice", key] => Line::DoneTwice(key.into()),
            ["added"] => Line::Added,
            ["unknown-addition"] => Line::UnknownAddition,
            ["end", retries, conflicts] => Line::End {
                retries: retries.parse().map_err(|_| NotALine)?,
                conflicts: conflicts.parse().map_err(|_| NotALine)?,
            },
            _ => return Err(NotALine),
        })
    }
}

/// What all of the writer's tasks share.
#[derive(Debug)]
struct Shared {
    keys: DistributedMap<String, String>,
    /// Strings too: anybody can read them with `atomix map get`.
    counters: DistributedMap<String, String>,
    say: mpsc::UnboundedSender<Line>,
    next: AtomicU64,
    conflicts: AtomicU64,
    stop: AtomicBool,
}

/// Runs the command.
///
/// # Errors
/// If the cluster is not reached, or refuses what can't be refused.
pub async fn run(args: DemoWriter) -> Result<(), Failure> {
    let atomix = session::connect(&args.cluster).await?;
    let (say, said) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        keys: atomix.map(KEYS).await?,
        counters: atomix.map(COUNTERS).await?,
        say,
        next: AtomicU64::new(0),
        conflicts: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let printer = thread::spawn(move || print(said));
    let told = shared.clone();
    thread::spawn(move || listen(&told.stop));
    let mut tasks = JoinSet::new();
    for _ in 0..args.outstanding {
        tasks.spawn(work(shared.clone()));
    }
    for result in tasks.join_all().await {
        result?;
    }
    let end = Line::End { retries: atomix.retries(), conflicts: shared.conflicts.load(Ordering::Relaxed) };
    let _ = shared.say.send(end);
    drop(shared);
    let _ = tokio::task::spawn_blocking(|| printer.join()).await;
    Ok(())
}

/// Commands, one after another: a new key, and one more on the counter.
async fn work(shared: Arc<Shared>) -> Result<(), Failure> {
    while !shared.stop.load(Ordering::Relaxed) {
        let key = format!("key-{:06}", shared.next.fetch_add(1, Ordering::Relaxed));
        let line = match shared.keys.put_if_absent(&key, "written").await {
            Ok(None) => Line::Key(key),
            Ok(Some(_)) => Line::DoneTwice(key),
            Err(error) if error.is_unknown() => Line::UnknownKey(key),
            Err(error) => return Err(error.into()),
        };
        let _ = shared.say.send(line);
        let line = match add_one(&shared).await {
            Ok(()) => Line::Added,
            Err(error) if error.is_unknown() => Line::UnknownAddition,
            Err(error) => return Err(error.into()),
        };
        let _ = shared.say.send(line);
    }
    Ok(())
}

/// Adds one by compare-and-set, again until no other addition comes between.
async fn add_one(shared: &Shared) -> Result<(), MapError> {
    loop {
        let done = match shared.counters.get_versioned(COUNTER).await? {
            None => shared.counters.put_if_absent(COUNTER, "1").await?.is_none(),
            Some(found) => {
                let sum = found.value.parse::<u64>().unwrap_or_default() + 1;
                shared.counters.replace_if(COUNTER, found.version, sum.to_string().as_str()).await?.is_some()
            }
        };
        if done {
            return Ok(());
        }
        shared.conflicts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Prints what is said, as much at a time as there is.
fn print(mut said: mpsc::UnboundedReceiver<Line>) {
    let mut out = io::stdout().lock();
    while let Some(line) = said.blocking_recv() {
        let mut text = format!("{line}\n");
        while let Ok(line) = said.try_recv() {
            text.push_str(&format!("{line}\n"));
        }
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            std::process::exit(Exit::Interrupted as i32);
        }
    }
}

/// Waits to be told to stop. If the parent is gone instead, so is whoever would read on.
pub(super) fn listen(stop: &AtomicBool) {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(_) if line == STOP => stop.store(true, Ordering::Relaxed),
        _ => std::process::exit(Exit::Interrupted as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_written() {
        for line in [
            Line::Key("key-1".into()),
            Line::UnknownKey("key-2".into()),
            Line::DoneTwice("key-3".into()),
            Line::Added,
            Line::UnknownAddition,
            Line::End { retries: 3, conflicts: 4 },
        ] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        for wrong in ["", "key", "end 1", "end a b", "added 1"] {
            assert_eq!(wrong.parse::<Line>(), Err(NotALine), "{wrong}");
        }
    }
}
