//! The client side of a resource: it encodes, waits and decodes, and decides nothing.
//!
//! What is called is on its way when the call returns, not when its future is first polled: the order of effects is the order of
//! calls (S2, S11). Dropping a future gives up the answer, not the operation.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::codec;
use atomix_protocol::envelope::{self, Envelope, OpenReply, OpenResource, OperationStatus, Sharing};
use atomix_protocol::{Index, InstanceId, LocalTime, ResourceId, Sequence};
use atomix_session::{Completion, NotDone, Outcome, Session, SessionError, Subscription};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::error::ResourceError;
use crate::operation::{Answer, Apply, Operation};
use crate::resource::Resource;

/// What users call: a face such as `DistributedMap`, over a [`Handle`].
pub trait ResourceHandle: Sized {
    /// The replicated state behind it.
    type State: Resource;

    /// Puts the face on.
    fn from_handle(handle: Handle<Self::State>) -> Self;
}

/// Opens the resource at a path, creating it if need be, and returns its face. See [`Handle::open`].
///
/// # Errors
/// As [`Handle::open`].
pub fn open<H: ResourceHandle>(
    session: &Arc<dyn Session>,
    path: &str,
    configuration: &<H::State as Resource>::Configuration,
    sharing: Sharing,
) -> impl Future<Output = Result<H, ResourceError>> + Send + use<H> {
    let opening = Handle::open(session, path, configuration, sharing);
    async move { opening.await.map(H::from_handle) }
}

/// A resource with the state `R`, open in a session. Clones share the instance.
pub struct Handle<R> {
    session: Arc<dyn Session>,
    instance: InstanceId,
    resource: ResourceId,
    path: Arc<str>,
    state: PhantomData<fn() -> R>,
}

impl<R: Resource> Handle<R> {
    /// Opens the resource at `path`, creating it with `configuration` if need be; an existing one keeps its own.
    /// [`Sharing::Shared`] gives the instance that all sharing handles of this session use, [`Sharing::Own`] a new one: its own
    /// contender, its own member.
    ///
    /// # Errors
    /// [`ResourceError::WrongKind`] if the path holds a resource of another kind; the other refusals of opening; and *not done*
    /// or *unknown*, after which opening again is harmless.
    pub fn open(
        session: &Arc<dyn Session>,
        path: &str,
        configuration: &R::Configuration,
        sharing: Sharing,
    ) -> Opening<R> {
        let encoded = postcard::to_allocvec(configuration).ok().map(|configuration| {
            let (path, kind, configuration) = (path.into(), R::KIND.into(), configuration.into());
            Envelope::Open(OpenResource { path, kind, configuration, sharing }).encode()
        });
        Opening {
            session: session.clone(),
            path: path.into(),
            stage: match &encoded {
                Some(encoded) => Stage::Asked(session.submit(encoded.clone(), &mut |_| ())),
                None => Stage::Unencodable,
            },
            encoded: encoded.unwrap_or_default(),
            again_until: session.now() + LEVEL_PATIENCE,
            state: PhantomData,
        }
    }

    /// Submits a command, now.
    pub fn command<O: Operation>(&self, command: &O) -> Call<O::Reply>
    where
        R: Apply<O>,
    {
        self.command_numbered(command, |_| ())
    }

    /// Submits a command, now. `numbered` is told its place in the session, by which its resource knows it (see
    /// [`Caller`](crate::Caller)), before any event that it causes can arrive; not if the command is not taken. It must not use
    /// the session.
    pub fn command_numbered<O: Operation>(
        &self,
        command: &O,
        mut numbered: impl FnMut(Sequence),
    ) -> Call<O::Reply>
    where
        R: Apply<O>,
    {
        self.call(command, |encoded| self.session.submit(encoded, &mut numbered))
    }

    /// Submits a command that nobody waits for, from a `Drop`: there is room reserved for that (S2).
    pub fn command_detached<O: Operation>(&self, command: &O)
    where
        R: Apply<O>,
    {
        if let Some(encoded) = self.encode(command) {
            self.session.submit_detached(encoded);
        }
    }

    /// Asks a query, now.
    pub fn query<O: Operation>(&self, query: &O, consistency: Consistency) -> Call<O::Reply>
    where
        R: Answer<O>,
    {
        self.call(query, |encoded| self.session.query(encoded, consistency))
    }

    /// Gives every event of this instance to `sink`, with the index at which it was published, until the subscription is dropped or
    /// the session ends; the sink is dropped then. Every handle of an instance may have sinks of its own.
    ///
    /// The sink is called with the session's lock held: it updates local state, wakes who waits, and returns. It must not block, and
    /// must not use the session. An event that is no `R::Event` is an error: the servers run another version.
    pub fn events(
        &self,
        mut sink: impl FnMut(Index, Result<R::Event, ResourceError>) + Send + 'static,
    ) -> Subscription {
        let decode = move |index: Index, body: &Bytes| {
            sink(index, codec::from_bytes(body).map_err(|_| ResourceError::Undecodable));
        };
        self.session.events(self.instance, Box::new(decode))
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Arc<dyn Session> {
        &self.session
    }

    /// The session's opening of the resource.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The resource itself: one that is deleted and created again at the same path is another.
    #[must_use]
    pub fn resource(&self) -> ResourceId {
        self.resource
    }

    /// Where the resource lives.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    fn encode<O: Operation>(&self, operation: &O) -> Option<Bytes> {
        let header = envelope::Operation { instance: self.instance, number: O::NUMBER };
        Envelope::encode_operation(&header, operation)
    }

    fn call<O: Operation>(&self, operation: &O, send: impl FnOnce(Bytes) -> Completion) -> Call<O::Reply> {
        Call {
            completion: self.encode(operation).map(send),
            kind: R::KIND,
            operation: O::NUMBER,
            reply: PhantomData,
        }
    }
}

/// For so long a kind that not all servers are known to have is asked for again (M3): a cluster that has just formed, or that has
/// just got a binary with another kind, takes a moment to find out.
const LEVEL_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts.
const LEVEL_PAUSE: Duration = Duration::from_millis(20);

/// A resource that is being opened.
#[must_use = "it is being opened, but only awaiting it gives the handle"]
pub struct Opening<R> {
    session: Arc<dyn Session>,
    path: Arc<str>,
    encoded: Bytes,
    stage: Stage,
    again_until: LocalTime,
    state: PhantomData<fn() -> R>,
}

/// How far an opening is.
enum Stage {
    /// The configuration refused to be encoded.
    Unencodable,
    Asked(Completion),
    /// The kind has no level yet; waits, and asks again.
    Pausing(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl<R: Resource> Opening<R> {
    /// The reply to what was asked; again while the kind has no level.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outcome, ResourceError>> {
        loop {
            self.stage = match &mut self.stage {
                Stage::Unencodable => return Poll::Ready(Err(ResourceError::Unencodable)),
                Stage::Asked(completion) => match ready!(Pin::new(completion).poll(cx)) {
                    Err(SessionError::NotDone(NotDone::UnknownKind)) => {
                        let at = self.session.now() + LEVEL_PAUSE;
                        if at >= self.again_until {
                            return Poll::Ready(Err(ResourceError::UnknownKind(R::KIND)));
                        }
                        let session = self.session.clone();
                        Stage::Pausing(Box::pin(async move { session.sleep_until(at).await }))
                    }
                    ended => return Poll::Ready(ended.map_err(ResourceError::from)),
                },
                Stage::Pausing(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    Stage::Asked(self.session.submit(self.encoded.clone(), &mut |_| ()))
                }
            };
        }
    }
}

impl<R: Resource> Future for Opening<R> {
    type Output = Result<Handle<R>, ResourceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.poll_reply(cx))?;
        let path = || self.path.to_string();
        Poll::Ready(match codec::from_bytes::<OpenReply>(&outcome.body) {
            Ok(OpenReply::Opened { instance, resource }) => Ok(Handle {
                session: self.session.clone(),
                instance,
                resource,
                path: self.path.clone(),
                state: PhantomData,
            }),
            Ok(OpenReply::WrongKind(found)) => {
                Err(ResourceError::WrongKind { path: path(), wanted: R::KIND, found })
            }
            Ok(OpenReply::UnknownKind) => Err(ResourceError::UnknownKind(R::KIND)),
            Ok(OpenReply::BadPath) => Err(ResourceError::BadPath(path())),
            Ok(OpenReply::BadConfiguration) => Err(ResourceError::BadConfiguration(path())),
            Err(_) => Err(ResourceError::Undecodable),
        })
    }
}

/// An operation on its way: resolves to the index at which it took effect, or whose state was read, and its reply.
#[must_use = "it is on its way, but only awaiting it tells how it ended"]
pub struct Call<T> {
    /// `None`: it refused to be encoded.
    completion: Option<Completion>,
    kind: &'static str,
    operation: u16,
    reply: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Future for Call<T> {
    type Output = Result<(Index, T), ResourceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(completion) = &mut self.completion else {
            return Poll::Ready(Err(ResourceError::Unencodable));
        };
        let outcome = ready!(Pin::new(completion).poll(cx))?;
        let not_understood = ResourceError::NotUnderstood { kind: self.kind, operation: self.operation };
        Poll::Ready(match codec::take_from_bytes::<OperationStatus>(&outcome.body) {
            Ok((OperationStatus::Ok, reply)) => codec::from_bytes(&reply)
                .map(|reply| (outcome.index, reply))
                .map_err(|_| ResourceError::Undecodable),
            Ok((OperationStatus::UnknownInstance, _)) => Err(ResourceError::NotOpen),
            Ok((OperationStatus::Deleted, _)) => Err(ResourceError::Deleted),
            Ok((OperationStatus::UnknownOperation | OperationStatus::Malformed, _)) => Err(not_understood),
            Err(_) => Err(ResourceError::Undecodable),
        })
    }
}

impl<R> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Handle {
            session: self.session.clone(),
            instance: self.instance,
            resource: self.resource,
            path: self.path.clone(),
            state: PhantomData,
        }
    }
}

impl<R: Resource> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("kind", &R::KIND)
            .field("path", &self.path)
            .field("session", &self.session.id())
            .field("instance", &self.instance)
            .finish()
    }
}

impl<R: Resource> fmt::Debug for Opening<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("kind", &R::KIND).field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("kind", &self.kind)
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}
