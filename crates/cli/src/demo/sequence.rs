//! The demo's writer of numbers, a process of its own: writes one after another to one key, and says of each how it ended.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use atomix::DistributedMap;

use super::writer::{NotALine, listen};
use crate::args::DemoSequence;
use crate::exit::Failure;
use crate::{session, signals};

/// The map.
pub const WATCHED: &str = "/demo/watched";
/// The one key in it.
pub const KEY: &str = "number";

/// One thing that the writer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The write of this number was acknowledged.
    Written(u64),
    /// Whether this number was written is unknown.
    Unknown(u64),
}

impl Line {
    /// The number.
    pub(super) fn number(self) -> u64 {
        match self {
            Line::Written(number) | Line::Unknown(number) => number,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Written(number) => write!(f, "written {number}"),
            Line::Unknown(number) => write!(f, "unknown {number}"),
        }
    }
}

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let (word, number) = text.split_once(' ').ok_or(NotALine)?;
        let number = number.parse().map_err(|_| NotALine)?;
        match word {
            "written" => Ok(Line::Written(number)),
            "unknown" => Ok(Line::Unknown(number)),
            _ => Err(NotALine),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If the cluster is not reached, or refuses what can't be refused.
pub async fn run(args: DemoSequence) -> Result<(), Failure> {
    signals::die_with_parent()?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    thread::spawn(move || listen(&told));
    let atomix = session::connect(&args.cluster).await?;
    let map: DistributedMap<String, String> = atomix.map(WATCHED).await?;
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match map.put(KEY, number.to_string().as_str()).await {
            Ok(_) => println!("{}", Line::Written(number)),
            Err(error) if error.is_unknown() => println!("{}", Line::Unknown(number)),
            Err(error) => return Err(error.into()),
        }
    }
    session::close(&atomix, args.cluster.timeout).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_written() {
        for line in [Line::Written(3), Line::Unknown(4)] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        for wrong in ["", "written", "written x", "lost 1", "written 1 2"] {
            assert_eq!(wrong.parse::<Line>(), Err(NotALine), "{wrong}");
        }
    }
}
