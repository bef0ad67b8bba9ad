//! `atomix lock run`: a command that runs as long as nobody else can have the lock, and no longer.

use std::io;
use std::pin::pin;
use std::time::Duration;

use atomix::{Atomix, LockGuard};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{sleep, timeout};

use super::leash::Leashed;
use crate::args::LockRun;
use crate::exit::{Exit, Failure};
use crate::session;
use crate::signals::PassedOn;

/// The grace period unless the command line says another: so long, or this part of the session timeout if that is less.
const GRACE: Duration = Duration::from_secs(1);
const GRACE_PART: u32 = 5;
/// A longer one would be met by a session in good health: between two contacts a third of its timeout passes.
const LONGEST_GRACE_PART: u32 = 3;
/// SIGKILL comes this part of the grace period before its end: processes do not end in no time.
const KILL_PART: u32 = 5;
/// Timers stand still while the machine is suspended, the guard's clock does not: so often it is looked at in any case.
const LOOK: Duration = Duration::from_secs(1);

/// A cluster that is perhaps out of reach hears of the end in this time, or by silence.
const COURTESY: Duration = Duration::from_secs(1);

/// How it ended.
enum Ended {
    /// By itself, with this code.
    Code(u8),
    /// After somebody wanted it to.
    Interrupted,
    /// Because the lock was lost, or about to be.
    Lost,
}

/// Runs the command; its exit code.
///
/// # Errors
/// If the lock was not granted, or was lost, or somebody wants it to end.
pub(super) async fn run(args: LockRun) -> Result<u8, Failure> {
    let grace = grace(args.grace, args.session_timeout)?;
    // From here on a signal makes an orderly end.
    let mut signals = PassedOn::listen(args.cluster.exit_with_stdin)?;
    let atomix = tokio::select! {
        connected = session::connect_with(&args.cluster, args.session_timeout) => connected?,
        _ = signals.next() => return Err(interrupted()),
    };
    let result = under_the_lock(&atomix, &args, grace, &mut signals).await;
    let is_lost = matches!(&result, Err(failure) if failure.exit == Exit::LockLost);
    session::close(&atomix, if is_lost { COURTESY } else { args.cluster.timeout }).await;
    result
}

async fn under_the_lock(
    atomix: &Atomix,
    args: &LockRun,
    grace: Duration,
    signals: &mut PassedOn,
) -> Result<u8, Failure> {
    let path = &args.path;
    let guard = tokio::select! {
        guard = granted(atomix, args) => guard?,
        _ = signals.next() => return Err(interrupted()),
    };
    let inherit_stdin = !args.cluster.exit_with_stdin;
    let ended = match Leashed::start(&args.command, path, guard.token(), inherit_stdin) {
        Ok(mut command) => watch(&mut command, &guard, grace, signals).await,
        Err(error) => Err(error),
    };
    // A pause of this process may have hidden it.
    let lost = guard.valid_for().is_zero();
    match ended? {
        // The guard's drop gives back what is left of it, and waits for nobody: perhaps the cluster is out of reach.
        Ended::Lost => Err(Failure::new(
            Exit::LockLost,
            format!(
                "{path} was lost and the command ended: was the lock deleted, or the cluster out of reach?"
            ),
        )),
        _ if lost => Err(Failure::new(
            Exit::LockLost,
            format!("{path} was lost before the command ended by itself: look at what it has done"),
        )),
        Ended::Interrupted => {
            give_back(guard, path).await;
            Err(interrupted())
        }
        Ended::Code(code) => {
            give_back(guard, path).await;
            Ok(code)
        }
    }
}

/// The command's outcome stands, whatever comes of this.
async fn give_back(guard: LockGuard, path: &str) {
    if let Err(error) = guard.release().await {
        eprintln!("atomix: giving back {path}: {error}; the end of the session does so at the latest");
    }
}

async fn granted(atomix: &Atomix, args: &LockRun) -> Result<LockGuard, Failure> {
    let lock = atomix.lock(&args.path).await?;
    let guard = match args.wait {
        _ if args.no_wait => lock.try_acquire().await?,
        Some(limit) => lock.try_acquire_for(limit).await?,
        None => Some(lock.acquire().await?),
    };
    guard.ok_or_else(|| {
        let waited = args.wait.map_or_else(String::new, |limit| format!(" after {} ms", limit.as_millis()));
        let message = format!("{} is held by another{waited}; `atomix lock status` tells by whom", args.path);
        Failure::new(Exit::Refused, message)
    })
}

/// Lets the command run until it ends, or the lock has so little time left that it has to be ended.
async fn watch(
    command: &mut Leashed,
    guard: &LockGuard,
    grace: Duration,
    signals: &mut PassedOn,
) -> io::Result<Ended> {
    let mut lost = pin!(guard.lost());
    let mut interrupted = false;
    // Until then nobody else has the lock, also if it is revoked meanwhile: that waits for the guard to be given back (L3).
    let mut sure_until = boot_clock();
    loop {
        let left = guard.valid_for();
        if !left.is_zero() {
            sure_until = boot_clock() + left;
        }
        if left <= grace {
            break;
        }
        tokio::select! {
            biased;
            () = &mut lost => break,
            code = command.ended() => {
                return code.map(|code| if interrupted { Ended::Interrupted } else { Ended::Code(code) });
            }
            signal = signals.next() => {
                interrupted = true;
                command.signal(signal);
            }
            () = sleep(LOOK.min(left - grace)) => {}
        }
    }
    let left = sure_until.saturating_sub(boot_clock()).min(grace);
    command.signal(Signal::TERM);
    if timeout(left.saturating_sub(grace / KILL_PART), command.ended()).await.is_err() {
        command.signal(Signal::KILL);
        command.ended().await?;
    }
    // Of what the command has left behind.
    command.signal(Signal::KILL);
    Ok(Ended::Lost)
}

fn grace(asked: Option<Duration>, session_timeout: Duration) -> Result<Duration, Failure> {
    let longest = session_timeout / LONGEST_GRACE_PART;
    match asked {
        None => Ok(GRACE.min(session_timeout / GRACE_PART)),
        Some(grace) if grace <= longest => Ok(grace),
        Some(_) => Err(Failure::new(
            Exit::Usage,
            format!(
                "--grace is at most a third of --session-timeout: {} ms, or choose a longer --session-timeout",
                longest.as_millis()
            ),
        )),
    }
}

/// The guard's clock: it counts while the machine is suspended (L2).
fn boot_clock() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or_default())
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_period_is_far_from_what_a_session_in_good_health_has_left() {
        let seconds = Duration::from_secs;
        assert_eq!(grace(None, seconds(60)), Ok(seconds(1)));
        assert_eq!(grace(None, seconds(1)), Ok(Duration::from_millis(200)));
        assert_eq!(grace(Some(seconds(2)), seconds(6)), Ok(seconds(2)));
        assert_eq!(grace(Some(seconds(2)), seconds(5)).map_err(|failure| failure.exit), Err(Exit::Usage));
    }
}
