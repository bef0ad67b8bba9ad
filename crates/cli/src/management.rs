//! `atomix delete`, `atomix exists`: resources by path, whatever their kind.

use atomix::{Atomix, Deleted};

use crate::args::{Delete, Exists};
use crate::cluster::until;
use crate::exit::{Exit, Failure, say};
use crate::session;

/// Runs `atomix delete`.
///
/// # Errors
/// If the cluster is not reached, there is nothing at the path, or it is in use.
pub async fn delete(args: Delete) -> Result<(), Failure> {
    let Delete { path, force, cluster } = args;
    session::with(&cluster, async |atomix| {
        let deleted = match force {
            true => atomix.delete_forced(&path).await?,
            false if atomix.delete(&path).await? => Deleted::Gone,
            false => Deleted::NotThere,
        };
        match deleted {
            Deleted::Gone => Ok(()),
            Deleted::NotThere => Err(nothing_at(&path)),
            _ => {
                let gone =
                    until("the resource to go", cluster.timeout, async || is_gone(atomix, &path).await);
                let late = |_| Failure::new(Exit::OutcomeUnknown, revoking(&path));
                gone.await.map_err(late)?
            }
        }
    })
    .await
}

/// `None` while it is there.
async fn is_gone(atomix: &Atomix, path: &str) -> Option<Result<(), Failure>> {
    match atomix.exists(path).await {
        Ok(Some(_)) => None,
        Ok(None) => Some(Ok(())),
        Err(error) => Some(Err(error.into())),
    }
}

/// Runs `atomix exists`.
///
/// # Errors
/// If the cluster is not reached, or there is nothing at the path.
pub async fn exists(args: Exists) -> Result<(), Failure> {
    let Exists { path, cluster } = args;
    session::with(&cluster, async |atomix| {
        let kind = atomix.exists(&path).await?.ok_or_else(|| nothing_at(&path))?;
        say!("{kind}");
        Ok(())
    })
    .await
}

fn nothing_at(path: &str) -> Failure {
    Failure::new(Exit::Refused, format!("there is nothing at {path}"))
}

fn revoking(path: &str) -> String {
    format!("{path} is being revoked: it goes when its holder has let go, or the holder's session has ended")
}
