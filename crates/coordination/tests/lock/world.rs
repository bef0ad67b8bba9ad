//! A lock in the hands of several clients, one of them on a session to which things can be done.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use atomix_coordination::{DistributedLock, register};
use atomix_resource::{
    Consistency, Index, InstanceId, LocalTime, NotDone, Registry, Sequence, Session, SessionId, SessionState,
    Subscription,
};
use atomix_session::{Completion, EventSink, SessionError};
use atomix_testkit::loopback::{Loopback, ready};
use bytes::Bytes;
use tokio::sync::watch;

pub(crate) fn loopback() -> Loopback {
    Loopback::new(register(Registry::new()))
}

/// The lock in a session of its own.
pub(crate) fn lock(loopback: &Loopback) -> DistributedLock {
    open(&loopback.session())
}

pub(crate) fn open(session: &Arc<dyn Session>) -> DistributedLock {
    ready(DistributedLock::open(session, "/lock")).unwrap()
}

/// Polls once.
pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Whether nobody has the lock and nobody waits for it.
pub(crate) fn is_free(lock: &DistributedLock) -> bool {
    ready(lock.holder()).unwrap().is_none() && ready(lock.queue_len()).unwrap() == 0
}

/// What befalls the commands of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// They are not taken, but for those from a `Drop`.
    Busy,
    /// They are carried out, and it remains unknown to their callers.
    Unknown,
    /// They are carried out, and the answers are still under way.
    Slow,
}

/// A loop-back session, watched and disturbed.
pub(crate) struct Disturbed {
    inner: Arc<dyn Session>,
    /// A clone is with every sink.
    sinks: Arc<()>,
    pub(crate) trouble: Mutex<Trouble>,
    /// Instead of the session's own.
    pub(crate) valid_until: Mutex<Option<LocalTime>>,
    /// No event arrives at sinks that are added from now on.
    pub(crate) deaf: Mutex<bool>,
    /// Keeps the answers that are under way.
    slow: Mutex<Vec<Box<dyn Send>>>,
}

impl Disturbed {
    pub(crate) fn new(loopback: &Loopback) -> Arc<Self> {
        Arc::new(Disturbed {
            inner: loopback.session(),
            sinks: Arc::default(),
            trouble: Mutex::default(),
            valid_until: Mutex::default(),
            deaf: Mutex::default(),
            slow: Mutex::default(),
        })
    }

    /// How many sinks it has.
    pub(crate) fn sinks(&self) -> usize {
        Arc::strong_count(&self.sinks) - 1
    }

    pub(crate) fn lock(self: &Arc<Self>) -> DistributedLock {
        let session: Arc<dyn Session> = self.clone();
        open(&session)
    }

    pub(crate) fn meets(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }
}

impl Session for Disturbed {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn submit(&self, command: Bytes, numbered: &mut dyn FnMut(Sequence)) -> Completion {
        match *self.trouble.lock().unwrap() {
            Trouble::None => self.inner.submit(command, numbered),
            Trouble::Busy => Completion::ready(Err(SessionError::NotDone(NotDone::Busy))),
            Trouble::Unknown => {
                drop(self.inner.submit(command, numbered));
                Completion::ready(Err(SessionError::Unknown("lost".into())))
            }
            Trouble::Slow => {
                drop(self.inner.submit(command, numbered));
                let (sender, completion) = Completion::new();
                self.slow.lock().unwrap().push(Box::new(sender));
                completion
            }
        }
    }

    fn submit_detached(&self, command: Bytes) {
        self.inner.submit_detached(command);
    }

    fn query(&self, query: Bytes, consistency: Consistency) -> Completion {
        self.inner.query(query, consistency)
    }

    fn events(&self, instance: InstanceId, mut sink: EventSink) -> Subscription {
        let (deaf, counted) = (*self.deaf.lock().unwrap(), self.sinks.clone());
        let sink = move |index: Index, event: &Bytes| {
            let _counted = &counted;
            if !deaf {
                sink(index, event);
            }
        };
        self.inner.events(instance, Box::new(sink))
    }

    fn state(&self) -> SessionState {
        self.inner.state()
    }

    fn states(&self) -> watch::Receiver<SessionState> {
        self.inner.states()
    }

    fn now(&self) -> LocalTime {
        self.inner.now()
    }

    fn valid_until(&self) -> LocalTime {
        self.valid_until.lock().unwrap().unwrap_or_else(|| self.inner.valid_until())
    }

    fn sleep_until<'life, 'wait>(
        &'life self,
        deadline: LocalTime,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'wait>>
    where
        'life: 'wait,
        Self: 'wait,
    {
        self.inner.sleep_until(deadline)
    }
}
