//! What a resource's handle needs of a session, and nothing else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use atomix_protocol::client::Consistency;
use atomix_protocol::{Index, InstanceId, LocalTime, Sequence, SessionId};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::outcome::{Outcome, SessionError};

/// An open session, as handles use it. The client implements it over a cluster, testkit's loop-back session without one.
///
/// All methods may be called from any task or thread, also outside a runtime, and return at once but for `sleep_until`.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// The session. One `Session` object is one session: when it ends, it does not open another.
    fn id(&self) -> SessionId;

    /// Submits a command: it takes its sequence now, so that the order of effects is the order of calls (S2, S11). Dropping the
    /// completion does not take the command back.
    ///
    /// `numbered` is told the sequence before the command is on its way, so before any event that it causes: whoever is to be told
    /// of those can be ready. It is not called if the command is not taken, and must not call the session.
    fn submit(&self, command: Bytes, numbered: &mut dyn FnMut(Sequence)) -> Completion;

    /// Submits a command from a `Drop`: uses the room reserved for that, and nobody waits for it (S2).
    fn submit_detached(&self, command: Bytes);

    /// Asks a query. It sees at least what its consistency promises.
    fn query(&self, query: Bytes, consistency: Consistency) -> Completion;

    /// Gives every event for `instance` to `sink`, in order, each once, until the subscription is dropped or the session ends; the
    /// sink is dropped then. Several sinks of one instance are all called. An event of an index comes before the completion of the
    /// command at that index (E5), and is acknowledged when the sinks have returned (E3).
    ///
    /// The sink is called by whoever moves the session, with its lock held: it updates local state, wakes, and returns. It must not
    /// block or panic, and must not call the session, nor drop a [`Subscription`] of it.
    fn events(&self, instance: InstanceId, sink: EventSink) -> Subscription;

    /// The state of the session (S10).
    fn state(&self) -> SessionState;

    /// The state and its changes.
    fn states(&self) -> watch::Receiver<SessionState>;

    /// The session's clock.
    fn now(&self) -> LocalTime;

    /// Until when, on that clock, the session can't have been ended for silence (L2). Never moves back.
    fn valid_until(&self) -> LocalTime;

    /// Waits until the session's clock shows `deadline`.
    async fn sleep_until(&self, deadline: LocalTime);
}

/// What is called with each event of an instance: the index at which it was published, and what it says.
pub type EventSink = Box<dyn FnMut(Index, &Bytes) + Send>;

/// A sink's place in a session. Dropping it takes the sink away.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Subscription {
    /// For whoever implements [`Session`]: `end` takes the sink away.
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Subscription { end: Some(Box::new(end)) }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// How a session is doing (S10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// In contact.
    Connected,
    /// Out of contact: it may have been ended, or may yet come back.
    Suspended,
    /// Ended for silence, or unknown to the cluster. Final.
    Expired,
    /// Closed by this client. Final.
    Closed,
}

impl SessionState {
    /// Whether the session is over for good.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, SessionState::Expired | SessionState::Closed)
    }
}

/// The end of a command or query, to be awaited. Dropping it loses the answer, not the command.
pub struct Completion {
    receiver: oneshot::Receiver<Result<Outcome, SessionError>>,
}

impl Completion {
    /// A completion and what completes it.
    #[must_use]
    pub fn new() -> (oneshot::Sender<Result<Outcome, SessionError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Completion { receiver })
    }

    /// One that has already ended.
    #[must_use]
    pub fn ready(result: Result<Outcome, SessionError>) -> Self {
        let (sender, completion) = Self::new();
        let _ = sender.send(result);
        completion
    }
}

impl Future for Completion {
    type Output = Result<Outcome, SessionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|result| {
            result.unwrap_or_else(|_| Err(SessionError::Unknown("the session's driver is gone".into())))
        })
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}
