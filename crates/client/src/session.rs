//! The session that resource handles use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use atomix_protocol::client::Consistency;
use atomix_protocol::{InstanceId, LocalTime, Sequence, SessionId};
use atomix_session::core::{Core, Output};
use atomix_session::{
    Completion, EventSink, NotDone, Outcome, Session, SessionError, SessionState, Subscription,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::now;

type Completer = oneshot::Sender<Result<Outcome, SessionError>>;

/// What the driver and the session share. The session calls the core directly, so that a sequence is taken at the call (S2), and
/// wakes the driver, which carries out what came of it.
pub(crate) struct Shared {
    pub(crate) inner: Mutex<Inner>,
    pub(crate) wake: Notify,
    pub(crate) states: watch::Sender<SessionState>,
    pub(crate) opened: watch::Sender<Option<SessionId>>,
    runtime: Handle,
    operation_timeout: Option<Duration>,
}

/// Where the events of each instance go, and by which number each sink is known.
pub(crate) type Sinks = BTreeMap<InstanceId, Vec<(u64, EventSink)>>;

/// Invariant: completers are those of commands and queries that the core has taken and not ended.
pub(crate) struct Inner {
    pub(crate) core: Core,
    commands: BTreeMap<Sequence, Completer>,
    queries: BTreeMap<u64, Completer>,
    pub(crate) sinks: Sinks,
    /// The last number given to a sink.
    last_sink: u64,
    /// Nobody drives the core any more.
    driverless: bool,
    /// What was seen last of a server that could not be reached.
    pub(crate) trouble: String,
}

impl Inner {
    /// Completes what has ended, and gives events to their sinks; hands back what concerns links.
    pub(crate) fn complete(&mut self, output: Output, shared: &Shared) -> Option<Output> {
        match output {
            Output::Completed(sequence, result) => {
                if let Some(completer) = self.commands.remove(&sequence) {
                    let _ = completer.send(result);
                }
            }
            Output::Answered(query, result) => {
                if let Some(completer) = self.queries.remove(&query) {
                    let _ = completer.send(result);
                }
            }
            Output::Event { instance, index, body } => {
                // An instance without a sink is one whose handle is gone: nobody misses the event.
                for (_, sink) in self.sinks.get_mut(&instance).into_iter().flatten() {
                    sink(index, &body);
                }
            }
            Output::Opened(session) => {
                shared.opened.send_replace(Some(session));
            }
            Output::State(state) => {
                shared.states.send_replace(state);
            }
            Output::Refused(why) => self.trouble = why,
            link_output => return Some(link_output),
        }
        None
    }
}

impl Shared {
    pub(crate) fn new(core: Core, runtime: Handle, operation_timeout: Option<Duration>) -> Self {
        let states = watch::Sender::new(core.state());
        let inner = Inner {
            core,
            commands: BTreeMap::new(),
            queries: BTreeMap::new(),
            sinks: Sinks::new(),
            last_sink: 0,
            driverless: false,
            trouble: "no answer".into(),
        };
        Shared {
            inner: Mutex::new(inner),
            wake: Notify::new(),
            states,
            opened: watch::Sender::new(None),
            runtime,
            operation_timeout,
        }
    }

    /// Begins to close the session.
    pub(crate) fn close(&self) {
        self.inner.lock().core.close(now());
        self.wake.notify_one();
    }

    /// The driver is gone: whoever still waits learns that the outcome is unknown, and nobody gets events any more.
    pub(crate) fn abandon(&self) {
        let mut inner = self.inner.lock();
        inner.driverless = true;
        let waiting = (std::mem::take(&mut inner.commands), std::mem::take(&mut inner.queries));
        let sinks = std::mem::take(&mut inner.sinks);
        drop(inner);
        drop((waiting, sinks));
        self.states.send_if_modified(|state| {
            let ends = !state.is_final();
            if ends {
                *state = SessionState::Expired;
            }
            ends
        });
        self.wake.notify_one();
    }

    /// Takes a sink away. It is dropped without the lock: it may hold what calls the session when it goes.
    fn unsubscribe(&self, instance: InstanceId, number: u64) {
        let mut inner = self.inner.lock();
        let Some(sinks) = inner.sinks.get_mut(&instance) else {
            return;
        };
        let place = sinks.iter().position(|(of, _)| *of == number);
        let sink = place.map(|place| sinks.remove(place));
        if sinks.is_empty() {
            inner.sinks.remove(&instance);
        }
        drop(inner);
        drop(sink);
    }

    fn deadline(&self, now: LocalTime) -> Option<LocalTime> {
        self.operation_timeout.map(|timeout| now + timeout)
    }
}

/// An open session. Dropping the last reference closes it, as far as that can be done without waiting.
pub(crate) struct ClientSession {
    pub(crate) id: SessionId,
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl Session for ClientSession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn submit(&self, command: Bytes, numbered: &mut dyn FnMut(Sequence)) -> Completion {
        let now = now();
        let mut inner = self.shared.inner.lock();
        if inner.driverless {
            return Completion::ready(Err(SessionError::NotDone(NotDone::SessionEnded)));
        }
        match inner.core.submit(now, command, self.shared.deadline(now)) {
            Ok(sequence) => {
                // What the core has to send leaves with the driver's next turn, which needs the lock: nothing is on its way yet.
                numbered(sequence);
                let (completer, completion) = Completion::new();
                inner.commands.insert(sequence, completer);
                drop(inner);
                self.shared.wake.notify_one();
                completion
            }
            Err(reason) => Completion::ready(Err(SessionError::NotDone(reason))),
        }
    }

    fn submit_detached(&self, command: Bytes) {
        // Nobody waits, and what is refused is given back by the end of the session.
        let _ = self.shared.inner.lock().core.submit_detached(now(), command);
        self.shared.wake.notify_one();
    }

    fn query(&self, query: Bytes, consistency: Consistency) -> Completion {
        let now = now();
        let mut inner = self.shared.inner.lock();
        if inner.driverless {
            return Completion::ready(Err(SessionError::NotDone(NotDone::SessionEnded)));
        }
        match inner.core.query(now, query, consistency, self.shared.deadline(now)) {
            Ok(number) => {
                let (completer, completion) = Completion::new();
                inner.queries.insert(number, completer);
                drop(inner);
                self.shared.wake.notify_one();
                completion
            }
            Err(reason) => Completion::ready(Err(SessionError::NotDone(reason))),
        }
    }

    fn events(&self, instance: InstanceId, sink: EventSink) -> Subscription {
        let mut inner = self.shared.inner.lock();
        if inner.driverless || inner.core.state().is_final() {
            drop(inner);
            drop(sink);
            return Subscription::new(|| ());
        }
        inner.last_sink += 1;
        let number = inner.last_sink;
        inner.sinks.entry(instance).or_default().push((number, sink));
        drop(inner);
        let shared = Arc::downgrade(&self.shared);
        Subscription::new(move || {
            if let Some(shared) = Weak::upgrade(&shared) {
                shared.unsubscribe(instance, number);
            }
        })
    }

    fn state(&self) -> SessionState {
        *self.shared.states.borrow()
    }

    fn states(&self) -> watch::Receiver<SessionState> {
        self.shared.states.subscribe()
    }

    fn now(&self) -> LocalTime {
        now()
    }

    fn valid_until(&self) -> LocalTime {
        self.shared.inner.lock().core.valid_until()
    }

    async fn sleep_until(&self, deadline: LocalTime) {
        // The runtime's clock may stand still where this one runs on, so it has to be asked again.
        loop {
            let left = deadline.since(now());
            if left.is_zero() {
                return;
            }
            let sleep = {
                let _runtime = self.shared.runtime.enter();
                tokio::time::sleep(left)
            };
            sleep.await;
        }
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSession")
            .field("id", &self.id)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
