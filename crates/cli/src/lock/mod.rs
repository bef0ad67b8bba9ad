//! `atomix lock`: a command under a lock, and who has one.

pub mod leash;
mod run;

use atomix::coordination::Holder;
use serde_json::{Value, json};

use crate::args::{Lock, LockStatus};
use crate::exit::{Exit, Failure, say};
use crate::session;

/// Runs the command; the exit code.
///
/// # Errors
/// If the cluster is not reached, the lock was not granted, or it was lost.
pub async fn run(args: Lock) -> Result<u8, Failure> {
    match args {
        Lock::Run(args) => run::run(args).await,
        Lock::Status(args) => status(args).await.map(|()| Exit::Ok as u8),
    }
}

async fn status(args: LockStatus) -> Result<(), Failure> {
    let LockStatus { path, json, cluster } = args;
    let (holder, waiting) = session::with(&cluster, async |atomix| {
        // Opening it would create it.
        if atomix.exists(&path).await?.is_none() {
            return Err(Failure::new(Exit::Refused, format!("there is no lock at {path}")));
        }
        let lock = atomix.lock(&path).await?;
        Ok((lock.holder().await?, lock.queue_len().await?))
    })
    .await?;
    say!("{}", if json { as_json(holder, waiting).to_string() } else { as_text(holder, waiting) });
    Ok(())
}

fn as_text(holder: Option<Holder>, waiting: u64) -> String {
    match holder {
        Some(Holder { session, token }) => {
            format!("held by session {} with token {token}, {waiting} waiting", session.0)
        }
        None => format!("free, {waiting} waiting"),
    }
}

fn as_json(holder: Option<Holder>, waiting: u64) -> Value {
    let holder =
        holder.map(|Holder { session, token }| json!({ "session": session.0, "token": u64::from(token) }));
    json!({ "holder": holder, "waiting": waiting })
}

#[cfg(test)]
mod tests {
    use atomix::SessionId;

    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let holder = Holder { session: SessionId(3), token: 12.into() };
        assert_eq!(as_text(Some(holder), 2), "held by session 3 with token 12, 2 waiting");
        assert_eq!(
            as_json(Some(holder), 2),
            json!({ "holder": { "session": 3, "token": 12 }, "waiting": 2 })
        );
        assert_eq!(as_text(None, 0), "free, 0 waiting");
        assert_eq!(as_json(None, 0), json!({ "holder": null, "waiting": 0 }));
    }
}
