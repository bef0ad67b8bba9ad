//! `atomix map watch`: every change, one a line.

use std::io::{self, Write};
use std::str::FromStr;

use atomix::collections::{MapChange, MapStream, WatchEnd};
use atomix::{Version, Versioned};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Strings;
use crate::args::MapWatch;
use crate::exit::{Exit, Failure};
use crate::signals;

/// A change, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `current`, `added`, `updated`, `removed` or `cleared`.
    pub kind: String,
    /// The key; none if it is about all.
    pub key: Option<String>,
    /// What it held.
    pub old: Option<String>,
    /// What it holds.
    pub new: Option<String>,
    /// The write.
    pub version: u64,
}

/// Prints until somebody wants it to end, or it can't go on.
pub(super) async fn run(map: &Strings, args: &MapWatch) -> Result<(), Failure> {
    let mut changes = match &args.key {
        Some(key) => map.watch_key(key).await?,
        None => map.watch().await?,
    };
    if args.current {
        changes = changes.current_first();
    }
    eprintln!("atomix: watching {}", args.path);
    tokio::select! {
        end = print(changes, args.json) => end,
        signal = signals::interrupted() => Ok(signal?),
    }
}

async fn print(mut changes: MapStream<String, String>, json: bool) -> Result<(), Failure> {
    let (lines, queue) = mpsc::channel(1);
    // On a thread of its own: whoever reads may be stuck, and with it the writing.
    let writing = tokio::task::spawn_blocking(|| write(queue));
    let end = loop {
        let change = match changes.next().await {
            Ok(change) => Change::from(change),
            Err(end) => break Some(end),
        };
        let line = if json { change.to_json().to_string() } else { change.to_text() };
        if lines.send(line).await.is_err() {
            break None;
        }
    };
    drop(lines);
    match (writing.await, end) {
        // Whoever read this reads no more.
        (Ok(Err(error)), _) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        (Ok(Err(error)), _) => Err(Failure::new(Exit::Refused, format!("can't write what changed: {error}"))),
        (Err(error), _) => Err(Failure::new(Exit::Refused, error.to_string())),
        (Ok(Ok(())), Some(end)) => Err(end.into()),
        (Ok(Ok(())), None) => Ok(()),
    }
}

fn write(mut lines: mpsc::Receiver<String>) -> io::Result<()> {
    let mut out = io::stdout();
    while let Some(line) = lines.blocking_recv() {
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(())
}

impl Change {
    fn to_text(&self) -> String {
        let fields = [&self.key, &self.old, &self.new].map(|field| escape(field.as_deref().unwrap_or("")));
        format!("{}\t{}\t{}", self.kind, fields.join("\t"), self.version)
    }

    fn to_json(&self) -> Value {
        let Change { kind, key, old, new, version } = self;
        json!({ "kind": kind, "key": key, "old": old, "new": new, "version": version })
    }

    fn from_json(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Change {
            kind: field("kind")?,
            key: field("key"),
            old: field("old"),
            new: field("new"),
            version: value["version"].as_u64()?,
        })
    }

    fn new(kind: &str, key: Option<String>, old: Option<String>, new: Option<String>, at: Version) -> Self {
        Change { kind: kind.into(), key, old, new, version: at.index().0 }
    }
}

/// Not a line of `atomix map watch --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAChange;

impl FromStr for Change {
    type Err = NotAChange;

    fn from_str(line: &str) -> Result<Self, NotAChange> {
        Change::from_json(line).ok_or(NotAChange)
    }
}

impl From<MapChange<String, String>> for Change {
    fn from(change: MapChange<String, String>) -> Self {
        let set = |kind, key, old, new: Versioned<String>| {
            Change::new(kind, Some(key), old, Some(new.value), new.version)
        };
        match change {
            MapChange::Current { key, entry } => set("current", key, None, entry),
            MapChange::Added { key, entry } => set("added", key, None, entry),
            MapChange::Updated { key, old, new } => set("updated", key, Some(old.value), new),
            MapChange::Removed { key, old, version } => {
                Change::new("removed", Some(key), Some(old.value), None, version)
            }
            MapChange::Cleared { version } => Change::new("cleared", None, None, None, version),
        }
    }
}

impl From<WatchEnd> for Failure {
    fn from(end: WatchEnd) -> Self {
        let advice = match &end {
            WatchEnd::Lagged => "they came faster than they were printed; watch again with --current",
            WatchEnd::SessionEnded => "changes may be missing from here on; watch again with --current",
            WatchEnd::Deleted => "watch again to wait for the next one at this path",
            WatchEnd::Undecodable => "this map holds other types than strings",
            _ => "watch again",
        };
        Failure::new(Exit::Refused, format!("the watch is over: {end}; {advice}"))
    }
}

/// One line, and no more fields than there are.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\\' => escaped.push_str("\\\\"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        let (key, old, new) = (Some("a\tb".into()), Some("1\n2".into()), Some("\\".into()));
        Change { kind: "updated".into(), key, old, new, version: 7 }
    }

    #[test]
    fn a_line_is_a_line_whatever_is_in_it() {
        assert_eq!(change().to_text(), "updated\ta\\tb\t1\\n2\t\\\\\t7");
        let cleared = Change { kind: "cleared".into(), key: None, old: None, new: None, version: 8 };
        assert_eq!(cleared.to_text(), "cleared\t\t\t\t8");
    }

    #[test]
    fn json_is_read_as_written() {
        assert_eq!(change().to_json().to_string().parse(), Ok(change()));
        for wrong in ["", "{}", "[]", "{\"kind\": \"added\"}", "{\"kind\": 1, \"version\": 2}"] {
            assert_eq!(wrong.parse::<Change>(), Err(NotAChange), "{wrong}");
        }
    }
}
