//! What keeps a command and its process group from outliving `lock run`, however that ends.
//!
//! Between `lock run` and its command stands a process of its own, the leash. It leads the process group in which the command runs, passes
//! on the command's exit code once all that the command started has ended too, and has the kernel tell it when its parent is gone; then
//! it ends the group, itself included.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use atomix::coordination::Token;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, getppid, kill_current_process_group, kill_process_group,
    set_child_subreaper, set_parent_process_death_signal, wait,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Leash;
use crate::exit::{Exit, Failure};

/// The token, for the command.
const TOKEN: &str = "ATOMIX_LOCK_TOKEN";
/// The lock, for the command.
const PATH: &str = "ATOMIX_LOCK_PATH";

/// A command on a leash. Dropped before it has ended, it is killed.
#[derive(Debug)]
pub(super) struct Leashed {
    leash: Child,
    group: Pid,
    code: Option<u8>,
}

impl Leashed {
    /// Starts a command. To be called on the main thread: for the kernel the parent is gone when the thread is that started it.
    pub(super) fn start(
        command: &[OsString],
        path: &str,
        token: Token,
        inherit_stdin: bool,
    ) -> io::Result<Self> {
        let leash = Command::new(std::env::current_exe()?)
            .args(["leash", "--parent", &std::process::id().to_string(), "--"])
            .args(command)
            .env(TOKEN, token.to_string())
            .env(PATH, path)
            .stdin(if inherit_stdin { Stdio::inherit() } else { Stdio::null() })
            .process_group(0)
            .spawn()?;
        let group = leash.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let group = group.ok_or_else(|| io::Error::other("the command has no process id"))?;
        Ok(Leashed { leash, group, code: None })
    }

    /// Waits until the command has ended; its exit code. May be dropped at any time.
    pub(super) async fn ended(&mut self) -> io::Result<u8> {
        if let Some(code) = self.code {
            return Ok(code);
        }
        let status = self.leash.wait().await?;
        if status.code().is_none() {
            // The leash was killed, perhaps alone.
            self.signal(Signal::KILL);
        }
        let code = code_of(status);
        self.code = Some(code);
        Ok(code)
    }

    /// Sends a signal to the whole group, if there is any of it.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        if self.code.is_none() {
            self.signal(Signal::KILL);
        }
    }
}

/// The leash: runs a command, and passes on its exit code.
///
/// # Errors
/// If the command can't be started.
pub async fn run(args: Leash) -> Result<u8, Failure> {
    if getpgrp() != getpid() {
        return Err(Failure::new(Exit::Usage, "`leash` is for `lock run` alone"));
    }
    // Signals to the group are for the command.
    let mut terminate = signal(SignalKind::terminate())?;
    for kind in [SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()] {
        let _ = signal(kind)?;
    }
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)?;
    let orphaned = || getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(args.parent);
    if orphaned() {
        return Err(Failure::new(Exit::Interrupted, "the process that asked for it is gone"));
    }
    set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
    // Before anything is started: none of its ends may be missed.
    let mut children = signal(SignalKind::child())?;
    let (program, arguments) = args.command.split_first().expect("required by the command line");
    let mut command = Command::new(program).args(arguments).spawn().map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot run `{}`: {error}", program.to_string_lossy()))
    })?;
    let ended = async {
        let code = code_of(command.wait().await?);
        descendants_ended(&mut children).await?;
        Ok(code)
    };
    tokio::pin!(ended);
    loop {
        tokio::select! {
            code = &mut ended => return code,
            _ = terminate.recv() => {
                if orphaned() {
                    let _ = kill_current_process_group(Signal::KILL);
                }
            }
        }
    }
}

/// What the command started and left behind is the leash's own now: the lock is held until all of that has ended too.
async fn descendants_ended(children: &mut tokio::signal::unix::Signal) -> io::Result<()> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => _ = children.recv().await,
            Err(Errno::CHILD) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// As shells have it: 128 and the signal, if one ended the process.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_shells() {
        for (wait_status, code) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code_of(ExitStatus::from_raw(wait_status)), code);
        }
    }
}
