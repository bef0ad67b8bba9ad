//! Who waits in this process, and is told by events.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use atomix_resource::Sequence;
use tokio::sync::{oneshot, watch};

use crate::contender::Verdict;
use crate::token::Token;

/// Where the events of one open resource arrive: for each contender what it is told, and for all of them what was revoked.
///
/// Its sink runs with the session's lock held (see [`Handle::events`](atomix_resource::Handle::events)), and so does whoever joins.
/// So nothing in here uses the session, and the lock in here is held for a look at the table and no longer.
pub(crate) struct Waiting {
    told: Mutex<BTreeMap<Sequence, oneshot::Sender<Verdict>>>,
    /// The greatest token that was revoked. One is enough: a grant comes only after the one before it was given back, so what is
    /// revoked later has the greater token.
    revoked: watch::Sender<Token>,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Waiting { told: Mutex::default(), revoked: watch::Sender::new(Token::NONE) }
    }

    /// From now on this contender can be told something, once.
    pub(crate) fn join(&self, contender: Sequence) -> oneshot::Receiver<Verdict> {
        let (sender, receiver) = oneshot::channel();
        self.table().insert(contender, sender);
        receiver
    }

    /// It waits no more. What comes for it nevertheless finds nobody.
    pub(crate) fn leave(&self, contender: Sequence) {
        let left = self.table().remove(&contender);
        drop(left);
    }

    pub(crate) fn tell(&self, contender: Sequence, verdict: Verdict) {
        let waiting = self.table().remove(&contender);
        if let Some(waiting) = waiting {
            // Whoever has given up meanwhile sees to it that the server learns of that.
            let _ = waiting.send(verdict);
        }
    }

    /// Tells everybody.
    pub(crate) fn tell_all(&self, verdict: impl Fn() -> Verdict) {
        let waiting = std::mem::take(&mut *self.table());
        for waiting in waiting.into_values() {
            let _ = waiting.send(verdict());
        }
    }

    /// The grant with this token counts no more, whether or not its holder has learnt of it yet.
    pub(crate) fn revoke(&self, token: Token) {
        self.revoked.send_if_modified(|greatest| {
            let more = *greatest < token;
            *greatest = token.max(*greatest);
            more
        });
    }

    pub(crate) fn revoked(&self) -> watch::Receiver<Token> {
        self.revoked.subscribe()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Sequence, oneshot::Sender<Verdict>>> {
        // No operation on the table leaves it half done.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
