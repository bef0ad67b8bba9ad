//! The demo's holder, a process of its own: holds the lock, and writes to the guarded resource without asking its guard whether it still
//! may. That is what a holder does that was paused between the question and the write.

use std::fmt;
use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use super::guarded::{Answer, Connection, Write};
use super::writer::{NotALine, STOP};
use crate::args::DemoHolder;
use crate::exit::{Exit, Failure};
use crate::{session, signals};

/// The lock.
pub const LOCK: &str = "/demo/lock";
/// Between two writes.
const PACE: Duration = Duration::from_millis(5);

/// One thing that a holder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// It has the lock, with this token.
    Granted(u64),
    /// Its write of this number was done.
    Written(u64),
    /// Its write of this number was refused: a holder with this greater token had written.
    Refused(u64, u64),
    /// Its guard says that the lock is lost.
    Lost,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Granted(token) => write!(f, "granted {token}"),
            Line::Written(number) => write!(f, "written {number}"),
            Line::Refused(number, greatest) => write!(f, "refused {number} {greatest}"),
            Line::Lost => f.write_str("lost"),
        }
    }
}

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let number = |text: &str| text.parse().map_err(|_| NotALine);
        Ok(match text.split(' ').collect::<Vec<_>>()[..] {
            ["granted", token] => Line::Granted(number(token)?),
            ["written", count] => Line::Written(number(count)?),
            ["refused", count, greatest] => Line::Refused(number(count)?, number(greatest)?),
            ["lost"] => Line::Lost,
            _ => return Err(NotALine),
        })
    }
}

/// Runs the command: until it is told to stop, or it was both refused and told that the lock is lost.
///
/// # Errors
/// If the cluster or the guarded resource is not reached.
pub async fn run(args: DemoHolder) -> Result<(), Failure> {
    signals::die_with_parent()?;
    let mut told = pin!(signals::stdin_closed());
    let atomix = session::connect_with(&args.cluster, args.session_timeout).await?;
    let lock = atomix.lock(LOCK).await?;
    let guard = tokio::select! {
        guard = lock.acquire() => guard?,
        _ = &mut told => return Err(Failure::new(Exit::Interrupted, "standard input was closed")),
    };
    let token = u64::from(guard.token());
    println!("{}", Line::Granted(token));
    let mut guarded = Connection::open(args.guarded).await?;
    let writing = async {
        for number in 1.. {
            let write = Write { token, text: number.to_string() };
            match guarded.write(&write).await? {
                Answer::Ok => println!("{}", Line::Written(number)),
                Answer::Refused(greatest) => {
                    println!("{}", Line::Refused(number, greatest));
                    break;
                }
            }
            tokio::time::sleep(PACE).await;
        }
        io::Result::Ok(())
    };
    let lost = async {
        guard.lost().await;
        println!("{}", Line::Lost);
        Ok(())
    };
    tokio::select! {
        both = async { tokio::try_join!(writing, lost) } => both.map(|_| ())?,
        said = &mut told => {
            if said != STOP.as_bytes() {
                return Err(Failure::new(Exit::Interrupted, "standard input was closed"));
            }
        }
    }
    let released = guard.release().await;
    session::close(&atomix, args.cluster.timeout).await;
    match released {
        // Its session had ended: the cluster has given the lock to another already.
        Err(error) if error.is_not_done() => Ok(()),
        released => Ok(released?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_written() {
        for line in [Line::Granted(7), Line::Written(3), Line::Refused(4, 12), Line::Lost] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        for wrong in ["", "granted", "granted x", "refused 1", "lost 1"] {
            assert_eq!(wrong.parse::<Line>(), Err(NotALine), "{wrong}");
        }
    }
}
