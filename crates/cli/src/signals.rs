//! What ends a process from outside.

use std::future;
use std::io::{self, Read};
use std::pin::Pin;
use std::thread;

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::oneshot;

/// Resolves when somebody wants this process to end: SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// If the signals can't be listened for.
pub async fn interrupted() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Signals that are meant for a command that this process runs.
pub(crate) struct PassedOn {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
    quit: unix::Signal,
    /// None once that has happened.
    parent_ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl PassedOn {
    /// From now on they do nothing but come out of [`PassedOn::next`]. So does the end of the parent, if that is to be watched.
    ///
    /// # Errors
    /// If the signals can't be listened for.
    pub(crate) fn listen(exit_with_stdin: bool) -> io::Result<Self> {
        // Ctrl-Z would stop this process and not the command.
        let _ = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
        Ok(PassedOn {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            parent_ended: Some(Box::pin(parent_ended(exit_with_stdin))),
        })
    }

    /// The next one. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Signal {
        let parent_ended = async {
            match &mut self.parent_ended {
                Some(ended) => ended.await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
            _ = self.quit.recv() => Signal::QUIT,
            () = parent_ended => {
                self.parent_ended = None;
                Signal::TERM
            }
        }
    }
}

/// Has the kernel kill this process when its parent is gone, also while it is stopped. The parent is the thread that started it.
///
/// # Errors
/// If the system refuses.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// As [`stdin_closed`] if that is to be watched; else never.
pub async fn parent_ended(watch: bool) {
    if watch {
        stdin_closed().await;
    } else {
        future::pending::<()>().await;
    }
}

/// Resolves with all of standard input when it closes, so that a child notices the end of its parent, however it ends.
/// A thread of its own reads: a blocked read would hold up the end of the runtime.
pub async fn stdin_closed() -> Vec<u8> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = io::stdin().read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver.await.unwrap_or_default()
}
