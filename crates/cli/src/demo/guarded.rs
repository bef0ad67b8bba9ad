//! The guarded resource, a process of its own: takes writes over a socket, and checks of each the token that comes with it. It knows
//! nothing of the cluster, and asks nobody.
//!
//! A request is a line `write TOKEN TEXT`; its answer is `ok`, or `refused GREATEST`.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use atomix::coordination::{Fence, FenceError, Token};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::writer::NotALine;
use crate::exit::Failure;
use crate::signals;

/// One thing that the guarded resource says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// It listens at this port of loopback.
    Listening(u16),
    /// A write was done.
    Done(Write),
    /// A write was refused: a holder with this greater token has been here.
    Refused(Write, u64),
}

/// What a holder wants written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The holder's token.
    pub token: u64,
    /// What it writes.
    pub text: String,
}

/// What comes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Ok,
    /// It was not: a holder with this greater token has been here.
    Refused(u64),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Listening(port) => write!(f, "listening {port}"),
            Line::Done(Write { token, text }) => write!(f, "done {token} {text}"),
            Line::Refused(Write { token, text }, greatest) => write!(f, "refused {greatest} {token} {text}"),
        }
    }
}

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let write = |token: &str, text: &str| Ok(Write { token: number(token)?, text: text.into() });
        Ok(match text.split(' ').collect::<Vec<_>>()[..] {
            ["listening", port] => Line::Listening(port.parse().map_err(|_| NotALine)?),
            ["done", token, text] => Line::Done(write(token, text)?),
            ["refused", greatest, token, text] => Line::Refused(write(token, text)?, number(greatest)?),
            _ => return Err(NotALine),
        })
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {} {}", self.token, self.text)
    }
}

impl FromStr for Write {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["write", token, text] => Ok(Write { token: number(token)?, text: text.into() }),
            _ => Err(NotALine),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ok => f.write_str("ok"),
            Answer::Refused(greatest) => write!(f, "refused {greatest}"),
        }
    }
}

impl FromStr for Answer {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["ok"] => Ok(Answer::Ok),
            ["refused", greatest] => Ok(Answer::Refused(number(greatest)?)),
            _ => Err(NotALine),
        }
    }
}

fn number(text: &str) -> Result<u64, NotALine> {
    text.parse().map_err(|_| NotALine)
}

/// A way to the guarded resource.
#[derive(Debug)]
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(super) async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Writes, and waits for what comes of it.
    pub(super) async fn write(&mut self, write: &Write) -> io::Result<Answer> {
        self.0.get_mut().write_all(format!("{write}\n").as_bytes()).await?;
        let mut answer = String::new();
        self.0.read_line(&mut answer).await?;
        answer.trim_end().parse().map_err(|_| io::Error::other(format!("not an answer: {answer:?}")))
    }
}

/// Runs the command.
///
/// # Errors
/// If the system refuses to listen.
pub async fn run() -> Result<(), Failure> {
    signals::die_with_parent()?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", Line::Listening(listener.local_addr()?.port()));
    let fence = Arc::new(Mutex::new(Fence::in_memory()));
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream, fence.clone()));
        }
    };
    tokio::select! {
        end = serve => end,
        // Told to stop, or the demo is gone.
        _ = signals::stdin_closed() => Ok(()),
    }
}

async fn answer(stream: TcpStream, fence: Arc<Mutex<Fence>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream);
    let mut line = String::new();
    while requests.read_line(&mut line).await? > 0 {
        let Ok(write) = line.trim_end().parse() else { return Ok(()) };
        let answer = take(&fence, write);
        requests.get_mut().write_all(format!("{answer}\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

/// The check and the write, which is a line on standard output, with nothing between them.
fn take(fence: &Mutex<Fence>, write: Write) -> Answer {
    let mut fence = fence.lock().unwrap_or_else(PoisonError::into_inner);
    match fence.check(Token::from(write.token)) {
        Ok(()) => {
            println!("{}", Line::Done(write));
            Answer::Ok
        }
        Err(error) => {
            let greatest = match error {
                FenceError::Stale { greatest, .. } => u64::from(greatest),
                _ => 0,
            };
            println!("{}", Line::Refused(write, greatest));
            Answer::Refused(greatest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(token: u64, text: &str) -> Write {
        Write { token, text: text.into() }
    }

    #[test]
    fn lines_are_read_as_written() {
        for line in [Line::Listening(8700), Line::Done(write(7, "text")), Line::Refused(write(7, "text"), 12)]
        {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        assert_eq!(write(7, "text").to_string().parse(), Ok(write(7, "text")));
        for answer in [Answer::Ok, Answer::Refused(12)] {
            assert_eq!(answer.to_string().parse(), Ok(answer));
        }
        for wrong in ["", "listening", "listening 70000", "done x y", "refused 1 2", "write 1", "write a b"] {
            assert_eq!(wrong.parse::<Line>(), Err(NotALine), "{wrong}");
            assert_eq!(wrong.parse::<Write>(), Err(NotALine), "{wrong}");
            assert_eq!(wrong.parse::<Answer>(), Err(NotALine), "{wrong}");
        }
    }

    #[test]
    fn a_smaller_token_than_one_before_is_refused() {
        let fence = Mutex::new(Fence::in_memory());
        assert_eq!(take(&fence, write(7, "a")), Answer::Ok);
        assert_eq!(take(&fence, write(7, "b")), Answer::Ok);
        assert_eq!(take(&fence, write(12, "c")), Answer::Ok);
        assert_eq!(take(&fence, write(7, "d")), Answer::Refused(12));
    }
}
