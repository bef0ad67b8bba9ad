//! (d), (e) Holders of a lock stop, first by SIGSTOP and then by SIGKILL, and what the lock guards is safe from them.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::client::Client;
use super::super::guarded::{self, Answer, Connection, Write};
use super::super::holder::{self, LOCK};
use super::super::process::Process;
use super::super::report::{Report, milliseconds};
use super::WAIT;
use crate::cluster::until;
use crate::exit::{Exit, Failure};

/// The timeout of the holders' sessions.
const SESSION: Duration = Duration::from_secs(1);

/// Every holder has written so often before the next thing happens.
const WRITES: u64 = 10;

/// Starts holders.
struct Holders<'a> {
    executable: &'a Path,
    client: Client,
    cluster: String,
    guarded: u16,
}

/// A holder that was granted the lock, and has written.
struct Holder {
    process: Process<holder::Line>,
    token: u64,
    /// When it had the lock.
    since: Instant,
}

pub(super) async fn run(executable: &Path, servers: &[String], report: &mut Report) -> Result<(), Failure> {
    report.part("(d) a holder of a lock is stopped for longer than its session lasts, and goes on");
    let mut guarded: Process<guarded::Line> =
        Process::start(executable, "the guarded resource", &["demo-guarded"])?;
    let guarded::Line::Listening(port) = guarded.next(WAIT).await?.1 else {
        return Err(Failure::new(Exit::Refused, "the guarded resource does not say where it listens"));
    };
    let client = Client::new(executable, servers);
    let holders = Holders { executable, client, cluster: servers.join(","), guarded: port };
    let first = holders.holder(holders.start()?).await?;
    report.step(&format!("a holder has the lock, token {}, and writes to what it guards", first.token));
    let waiter = holders.waiter().await?;
    report.step("another waits for the lock");
    let second = stopped(&holders, first, waiter, &mut guarded, report).await?;
    report.part("(e) a holder of a lock is killed");
    let waiter = holders.waiter().await?;
    report.step("another waits for the lock");
    let third = killed(&holders, second, waiter, report).await?;
    third.process.finish(WAIT).await?;
    let waiting_and_held = holders.client.lock_status(LOCK).await?;
    report.check(
        "the last holder has given the lock back",
        if waiting_and_held == (0, false) { "free" } else { "not free" },
        waiting_and_held == (0, false),
    );
    let rest = guarded.finish(WAIT).await?;
    let done = rest.iter().filter(|line| matches!(line, guarded::Line::Done(_))).count();
    report.check(
        "the killed holder wrote nothing once the next had written",
        format!("{done} writes since (d)"),
        done > 0 && in_order(&rest),
    );
    Ok(())
}

/// The holder is stopped until the waiter has the lock and has written; then it goes on. The waiter, which holds the lock now.
async fn stopped(
    holders: &Holders<'_>,
    mut old: Holder,
    waiter: Process<holder::Line>,
    guarded: &mut Process<guarded::Line>,
    report: &mut Report,
) -> Result<Holder, Failure> {
    let stop = Instant::now();
    old.process.signal(Signal::STOP)?;
    let new = holders.holder(waiter).await?;
    report.step(&format!(
        "the holder was stopped; the waiter has the lock, token {}, and has written",
        new.token
    ));
    report.check(
        "the waiter got the lock with a higher token",
        format!(
            "{} after {}; {} after the stop, silent since its last contact before that; sessions last {}",
            new.token,
            old.token,
            milliseconds(new.since - stop),
            milliseconds(SESSION)
        ),
        new.token > old.token,
    );
    // Longer than the session lasts, from the stop on, however soon the waiter had the lock.
    tokio::time::sleep_until((stop + SESSION + SESSION / 5).into()).await;
    old.process.said();
    let resumed = Instant::now();
    old.process.signal(Signal::CONT)?;
    let (mut refused, mut lost, mut done_late) = (None, None, 0);
    // The answer to one write may have come during the stop.
    while (refused.is_none() || lost.is_none()) && done_late <= 1 {
        match old.process.next(WAIT).await? {
            (_, holder::Line::Refused(number, greatest)) => refused = Some((number, greatest)),
            (when, holder::Line::Lost) => lost = Some(when),
            _ => done_late += 1,
        }
    }
    let mut seen = guarded.said();
    while refused.is_some() && !seen.iter().any(|line| matches!(line, guarded::Line::Refused(..))) {
        seen.push(guarded.next(WAIT).await?.1);
    }
    let done = last_done(&seen, old.token);
    report.step(&format!(
        "the old holder went on after a stop of {}, and was told",
        milliseconds(resumed - stop)
    ));
    report.check(
        "the old holder's own next write was refused by the guarded resource",
        match refused {
            Some((number, greatest)) => {
                format!("{done} writes done, write {number} refused: {} < {greatest}", old.token)
            }
            None => format!("{done} writes done, none refused"),
        },
        refused == Some((done + 1, new.token)) && done > 0 && in_order(&seen),
    );
    // It was silent while it was stopped: what it says now was not known to it before.
    let lost = lost.filter(|lost| *lost >= resumed);
    report.check(
        "the old holder's lost() has resolved",
        match lost {
            Some(lost) => format!("{} after it went on", milliseconds(lost - resumed)),
            None => "it has not".to_owned(),
        },
        lost.is_some(),
    );
    Ok(new)
}

/// The holder is killed, and the waiter gets the lock.
async fn killed(
    holders: &Holders<'_>,
    old: Holder,
    waiter: Process<holder::Line>,
    report: &mut Report,
) -> Result<Holder, Failure> {
    let kill = Instant::now();
    old.process.signal(Signal::KILL)?;
    let new = holders.holder(waiter).await?;
    report.step(&format!(
        "the holder was killed; the waiter has the lock, token {}, and has written",
        new.token
    ));
    report.check(
        "the next waiter got it with a higher token still",
        format!("{} after {}, {} after the kill", new.token, old.token, milliseconds(new.since - kill)),
        new.token > old.token,
    );
    let late = Write { token: old.token, text: "late".into() };
    let answer = async { Connection::open(holders.guarded).await?.write(&late).await }.await?;
    report.check(
        "a write with the killed holder's token is refused",
        match answer {
            Answer::Ok => "it was done".to_owned(),
            Answer::Refused(greatest) => format!("{} < {greatest}", old.token),
        },
        answer == Answer::Refused(new.token),
    );
    Ok(new)
}

impl Holders<'_> {
    fn start(&self) -> Result<Process<holder::Line>, Failure> {
        let timeout = format!("{}ms", SESSION.as_millis());
        let port = self.guarded.to_string();
        let arguments = ["--cluster", &self.cluster, "--session-timeout", &timeout, "--guarded", &port];
        Process::start(self.executable, "a holder", &[&["demo-holder"], &arguments[..]].concat())
    }

    /// One that stands in the queue.
    async fn waiter(&self) -> Result<Process<holder::Line>, Failure> {
        let waiter = self.start()?;
        until("the waiter to stand in the queue", WAIT, async || match self.client.lock_status(LOCK).await {
            Ok((0, _)) => None,
            Ok(_) => Some(Ok(())),
            Err(failure) => Some(Err(failure)),
        })
        .await??;
        Ok(waiter)
    }

    /// Waits until it has the lock, and has written.
    async fn holder(&self, mut process: Process<holder::Line>) -> Result<Holder, Failure> {
        let (since, holder::Line::Granted(token)) = process.next(WAIT).await? else {
            return Err(Failure::new(Exit::Refused, "a holder wrote without the lock"));
        };
        loop {
            match process.next(WAIT).await?.1 {
                holder::Line::Written(WRITES) => return Ok(Holder { process, token, since }),
                holder::Line::Written(_) => {}
                other => return Err(Failure::new(Exit::Refused, format!("a holder was told: {other}"))),
            }
        }
    }
}

/// The number of the last write that was done for a token; holders count their writes from one.
fn last_done(said: &[guarded::Line], of: u64) -> u64 {
    let numbers = said.iter().filter_map(|line| match line {
        guarded::Line::Done(write) if write.token == of => write.text.parse().ok(),
        _ => None,
    });
    numbers.max().unwrap_or_default()
}

/// Whether nothing was done for a smaller token after a greater one.
fn in_order(said: &[guarded::Line]) -> bool {
    let tokens = said.iter().filter_map(|line| match line {
        guarded::Line::Done(write) => Some(write.token),
        _ => None,
    });
    tokens.is_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(token: u64, number: u64) -> guarded::Line {
        guarded::Line::Done(Write { token, text: number.to_string() })
    }

    #[test]
    fn a_write_of_an_old_token_after_a_new_one_is_noticed() {
        let fenced = [done(7, 1), done(7, 2), done(12, 1), done(12, 2)];
        assert!(in_order(&fenced));
        assert_eq!((last_done(&fenced, 7), last_done(&fenced, 12), last_done(&fenced, 9)), (2, 2, 0));
        assert!(!in_order(&[done(7, 1), done(12, 1), done(7, 2)]));
    }
}
