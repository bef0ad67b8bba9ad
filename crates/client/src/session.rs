//! The session that resource handles use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atomix_protocol::client::Consistency;
use atomix_protocol::{LocalTime, Sequence, SessionId};
use atomix_session::core::{Core, Output};
use atomix_session::{Completion, NotDone, Outcome, Session, SessionError, SessionState};
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

/// Invariant: completers are those of commands and queries that the core has taken and not ended.
pub(crate) struct Inner {
    pub(crate) core: Core,
    commands: BTreeMap<Sequence, Completer>,
    queries: BTreeMap<u64, Completer>,
    /// Nobody drives the core any more.
    driverless: bool,
    /// What was seen last of a server that could not be reached.
    pub(crate) trouble: String,
}

impl Inner {
    /// Completes what has ended; hands back what concerns links.
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
            Output::Opened(session) => {
                shared.opened.send_replace(Some(session));
            }
            Output::State(state) => {
                shared.states.send_replace(state);
            }
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

    /// The driver is gone: whoever still waits learns that the outcome is unknown.
    pub(crate) fn abandon(&self) {
        let mut inner = self.inner.lock();
        inner.driverless = true;
        let waiting = (std::mem::take(&mut inner.commands), std::mem::take(&mut inner.queries));
        drop(inner);
        drop(waiting);
        self.states.send_if_modified(|state| {
            let ends = !state.is_final();
            if ends {
                *state = SessionState::Expired;
            }
            ends
        });
        self.wake.notify_one();
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

    fn submit(&self, command: Bytes) -> Completion {
        let now = now();
        let mut inner = self.shared.inner.lock();
        if inner.driverless {
            return Completion::ready(Err(SessionError::NotDone(NotDone::SessionEnded)));
        }
        match inner.core.submit(now, command, self.shared.deadline(now), false) {
            Ok(sequence) => {
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
        // Nobody could be told of a refusal. The reserve is there to make it rare, and the session's end does the same in the end.
        let _ = self.shared.inner.lock().core.submit(now(), command, None, true);
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
