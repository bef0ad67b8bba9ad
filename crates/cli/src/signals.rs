//! What ends a process from outside.

use std::future;
use std::io::{self, Read};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};
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
