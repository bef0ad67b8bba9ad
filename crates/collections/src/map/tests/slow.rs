//! A session over a network that the test moves.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use atomix_resource::{LocalTime, Sequence, SessionState, Subscription};
use atomix_session::{Completion, EventSink};
use tokio::sync::watch;

use super::*;

/// What a step of the network does.
type Arrival = Box<dyn FnOnce() + Send>;

/// Passes everything on, each answer only when the test says so. Events come at once.
pub(super) struct Slow {
    inner: Arc<dyn Session>,
    /// Whether commands arrive late, too, and not only their answers.
    late_commands: bool,
    state: Mutex<Network>,
}

#[derive(Default)]
struct Network {
    submitted: u64,
    arrivals: VecDeque<Arrival>,
}

impl Slow {
    pub(super) fn new(loopback: &Loopback, late_commands: bool) -> Arc<Self> {
        let (inner, state) = (loopback.session(), Mutex::default());
        Arc::new(Slow { inner, late_commands, state })
    }

    pub(super) fn session(self: &Arc<Self>) -> Arc<dyn Session> {
        self.clone()
    }

    /// The oldest of what is on its way arrives. Returns whether there was anything.
    pub(super) fn arrive(&self) -> bool {
        let arrival = self.with(|network| network.arrivals.pop_front());
        arrival.map(|arrival| arrival()).is_some()
    }

    /// Everything arrives.
    pub(super) fn arrive_all(&self) {
        while self.arrive() {}
    }

    /// What a future comes to when nothing is kept back.
    pub(super) fn ready<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
            assert!(self.arrive(), "the future waits for something that is not on its way");
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Network) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn delay(&self, completion: Completion) -> Completion {
        let (sender, delayed) = Completion::new();
        self.with(|network| {
            network.arrivals.push_back(Box::new(move || drop(sender.send(ready(completion)))));
        });
        delayed
    }
}

#[async_trait]
impl Session for Slow {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn submit(&self, command: Bytes, numbered: &mut dyn FnMut(Sequence)) -> Completion {
        let sequence = self.with(|network| {
            network.submitted += 1;
            Sequence(network.submitted)
        });
        if !self.late_commands {
            let completion = self.inner.submit(command, &mut |found| assert_eq!(found, sequence));
            numbered(sequence);
            return self.delay(completion);
        }
        numbered(sequence);
        let (inner, (sender, delayed)) = (self.inner.clone(), Completion::new());
        self.with(|network| {
            network.arrivals.push_back(Box::new(move || {
                let completion = inner.submit(command, &mut |found| assert_eq!(found, sequence));
                drop(sender.send(ready(completion)));
            }));
        });
        delayed
    }

    fn submit_detached(&self, command: Bytes) {
        drop(self.submit(command, &mut |_| ()));
    }

    fn query(&self, query: Bytes, consistency: Consistency) -> Completion {
        self.delay(self.inner.query(query, consistency))
    }

    fn events(&self, instance: InstanceId, sink: EventSink) -> Subscription {
        self.inner.events(instance, sink)
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
        self.inner.valid_until()
    }

    async fn sleep_until(&self, deadline: LocalTime) {
        self.inner.sleep_until(deadline).await;
    }
}
