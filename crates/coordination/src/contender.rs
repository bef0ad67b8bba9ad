//! What contends for a grant: an open resource that grants, and a call from its submission until it has a guard, or wants none any
//! more (L4).

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;

use atomix_resource::{
    Apply, Call, Handle, LocalTime, NotDone, Operation, Resource, ResourceError, ResourceId, Sequence,
    Session, Subscription,
};
use tokio::sync::{oneshot, watch};

use crate::error::LockError;
use crate::guard::{LockGuard, ended, first};
use crate::token::Token;
use crate::waiting::Waiting;

/// How it ends: with a grant, or with none because somebody else has it.
pub(crate) type Verdict = Result<Option<Token>, LockError>;

/// What an event says.
pub(crate) enum Heard {
    /// How it ended for a contender.
    Told(Sequence, Verdict),
    /// A grant counts no more.
    Revoked(Token),
}

/// A resource that grants something to one contender at a time, and how it says so.
pub(crate) trait Grants: Resource {
    /// Gives a grant back.
    fn release(handle: &Handle<Self>, token: Token) -> Call<bool>;
    /// The same from a `Drop`.
    fn release_detached(handle: &Handle<Self>, token: Token);
    /// A contender neither waits nor holds any more. From a `Drop`.
    fn cancel_detached(handle: &Handle<Self>, contender: Sequence);
    /// What an event says.
    fn heard(event: Self::Event) -> Heard;
}

/// Such a resource, open. Clones of its face, guards and waiting calls share it; the last of them takes the sink out of the session.
pub(crate) struct Contest<S> {
    _events: Subscription,
    pub(crate) handle: Handle<S>,
    waiting: Arc<Waiting>,
}

impl<S: Grants> Contest<S> {
    pub(crate) fn new(handle: Handle<S>) -> Arc<Self> {
        let waiting = Arc::new(Waiting::new());
        let told = waiting.clone();
        let events = handle.events(move |_, event| match event.map(S::heard) {
            Ok(Heard::Told(contender, verdict)) => told.tell(contender, verdict),
            Ok(Heard::Revoked(token)) => told.revoke(token),
            // It may have been meant for any of them.
            Err(error) => told.tell_all(|| Err(error.clone().into())),
        });
        Arc::new(Contest { _events: events, handle, waiting })
    }

    /// Submits, now, a command that asks for a grant. `verdict` reads the reply; `None`: an event follows.
    pub(crate) fn contend<O, V>(
        self: &Arc<Self>,
        command: &O,
        verdict: V,
        deadline: Option<LocalTime>,
    ) -> impl Future<Output = Result<Option<LockGuard>, LockError>> + Send + use<S, O, V>
    where
        S: Apply<O>,
        O: Operation<Reply: Send>,
        V: FnOnce(O::Reply) -> Option<Verdict> + Send,
    {
        let mut joined = None;
        let call = self.handle.command_numbered(command, |contender| {
            joined = Some((contender, self.waiting.join(contender)));
        });
        let (name, event) = joined.unzip();
        let reply = async move {
            match call.await {
                Ok((_, reply)) => verdict(reply),
                Err(error) => Some(Err(error.into())),
            }
        };
        Contender { contest: self.clone(), name, event }.guard(reply, deadline)
    }
}

/// A [`Contest`], whatever it is about.
pub(crate) trait AnyContest: Send + Sync {
    fn session(&self) -> &Arc<dyn Session>;
    fn resource(&self) -> ResourceId;
    /// The greatest token that was revoked.
    fn revoked(&self) -> watch::Receiver<Token>;
    fn release(&self, token: Token) -> Call<bool>;
    fn release_detached(&self, token: Token);
    fn cancel_detached(&self, contender: Sequence);
    /// Nothing is to be told to a contender any more.
    fn forget(&self, contender: Sequence);
}

impl<S: Grants> AnyContest for Contest<S> {
    fn session(&self) -> &Arc<dyn Session> {
        self.handle.session()
    }

    fn resource(&self) -> ResourceId {
        self.handle.resource()
    }

    fn revoked(&self) -> watch::Receiver<Token> {
        self.waiting.revoked()
    }

    fn release(&self, token: Token) -> Call<bool> {
        S::release(&self.handle, token)
    }

    fn release_detached(&self, token: Token) {
        S::release_detached(&self.handle, token);
    }

    fn cancel_detached(&self, contender: Sequence) {
        S::cancel_detached(&self.handle, contender);
    }

    fn forget(&self, contender: Sequence) {
        self.waiting.leave(contender);
    }
}

impl<S: Resource> fmt::Debug for Contest<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contest").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// A contender. Unless the server has said how it ended it cancels when it is dropped, and a grant that crosses the cancel is
/// released by it.
struct Contender {
    contest: Arc<dyn AnyContest>,
    /// `None`: there is nothing to cancel.
    name: Option<Sequence>,
    /// `None`: its command was not taken.
    event: Option<oneshot::Receiver<Verdict>>,
}

impl Contender {
    /// Waits for the reply, or for the event that follows if the reply is to wait (`None`); no longer than until a deadline on the
    /// session's clock. An event may come before the reply, if that was lost and is asked for again.
    async fn guard(
        mut self,
        reply: impl Future<Output = Option<Verdict>>,
        deadline: Option<LocalTime>,
    ) -> Result<Option<LockGuard>, LockError> {
        let session = self.contest.session().clone();
        let session_ended = || LockError::from(ResourceError::NotDone(NotDone::SessionEnded));
        let event = self.event.take();
        let told = async {
            match event {
                // Nobody tells any more when nobody is left who could be told.
                Some(event) => event.await.unwrap_or_else(|_| Err(session_ended())),
                None => pending().await,
            }
        };
        let answered = async {
            match reply.await {
                Some(verdict) => verdict,
                None => pending().await,
            }
        };
        let over = async {
            ended(&*session).await;
            Err(session_ended())
        };
        let time_up = async {
            match deadline {
                Some(deadline) => session.sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let mut time_up = pin!(time_up);
        let verdict = first(first(told, answered), over);
        let Some(verdict) = before(verdict, time_up.as_mut()).await else { return Ok(None) };
        // Of what is unknown, something could be left to cancel.
        if verdict.as_ref().map_or_else(LockError::is_not_done, |_| true) {
            self.withdraw();
        }
        let Some(token) = verdict? else { return Ok(None) };
        let guard = LockGuard::new(self.contest.clone(), token);
        match before(counts(&*session), time_up).await {
            Some(true) => Ok(Some(guard)),
            Some(false) => Err(session_ended()),
            None => Ok(None),
        }
    }

    /// Nothing is to be told to it any more. Returns what would have to be cancelled.
    fn withdraw(&mut self) -> Option<Sequence> {
        let name = self.name.take()?;
        self.contest.forget(name);
        Some(name)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Some(name) = self.withdraw() {
            self.contest.cancel_detached(name);
        }
    }
}

/// Whether anything can be held in a session: waits until it can be said for how long (L2). That is not at once after it was opened, or
/// was out of contact.
async fn counts(session: &dyn Session) -> bool {
    let mut states = session.states();
    while session.valid_until() <= session.now() {
        if session.state().is_final() || states.changed().await.is_err() {
            return false;
        }
    }
    !session.state().is_final()
}

/// What a future comes to, unless another is ready before.
async fn before<T>(future: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let over = async {
        other.await;
        None
    };
    first(async { Some(future.await) }, over).await
}
