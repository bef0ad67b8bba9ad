//! A session without a cluster: the programming model of resources, in one thread, at once.
//!
//! A [`Loopback`] holds the real session table and one state machine, and stands in for everything between them and a handle:
//! network, consensus, disk. Each command becomes one log entry and is applied before the call returns, so that its future is
//! ready when first polled. Several sessions share the state machine. Nothing moves time but [`Loopback::advance`] and
//! [`Loopback::expire`]; then timers fire exactly when they would (T2), and sessions end exactly as they would (S7, S9).
//!
//! ```
//! use atomix_testkit::loopback::{Loopback, ready};
//! # use atomix_session::{Context, KindLevel, QueryContext, RestoreError, Slice, SnapshotSource, StateMachine, TimerId};
//! # use atomix_protocol::SessionId;
//! # use bytes::Bytes;
//! # struct Echo;
//! # impl StateMachine for Echo {
//! #     fn apply(&mut self, _: &mut Context<'_>, command: &Bytes) -> Bytes { command.clone() }
//! #     fn query(&self, _: &QueryContext<'_>, query: &Bytes) -> Bytes { query.clone() }
//! #     fn session_ended(&mut self, _: &mut Context<'_>, _: SessionId) -> Slice { Slice::Done }
//! #     fn timer_fired(&mut self, _: &mut Context<'_>, _: TimerId) {}
//! #     fn kinds(&self) -> Vec<KindLevel> { Vec::new() }
//! #     fn snapshot(&self) -> Box<dyn SnapshotSource> { Box::new(Bytes::new()) }
//! #     fn restore(&mut self, _: Bytes) -> Result<(), RestoreError> { Ok(()) }
//! # }
//! # impl From<Echo> for Box<dyn StateMachine> { fn from(echo: Echo) -> Self { Box::new(echo) } }
//! # fn main() {
//! // `Echo` is a state machine that replies with the command.
//! let session = Loopback::new(Echo).session();
//! let completion = session.submit(Bytes::from_static(b"hello"), &mut |_| ());
//! assert_eq!(ready(completion).unwrap().body, "hello");
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use atomix_protocol::client::{Consistency, ReplyOutcome};
use atomix_protocol::session::{Acknowledged, Close, CommandHeader, Expire, Open, SessionEntry};
use atomix_protocol::{
    ClientId, ClusterTime, Entry, EntryId, EntryKind, Index, InstanceId, LocalTime, Sequence, SessionId,
    SessionKey, Term, limits,
};
use atomix_session::table::{Effect, Limits, Table};
use atomix_session::{
    Completion, EventSink, NotDone, Outcome, QueryContext, Session, SessionError, SessionState, StateMachine,
    Subscription,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

/// There is one leader, and it never changes.
const TERM: Term = Term(1);
/// Time entries in a row that may leave cluster time where it is, before a timer is said to set itself again without end.
const MOST_ENTRIES_AT_ONE_TIME: u32 = 10_000;
/// Events that a session which submits nothing leaves in its outbox, at most.
const MOST_UNACKNOWLEDGED: u64 = 64;

/// A state machine with sessions and a clock, and no cluster. Clones share it.
#[derive(Clone)]
pub struct Loopback {
    world: Arc<Mutex<World>>,
}

struct World {
    table: Table,
    machine: Box<dyn StateMachine>,
    /// The one clock: the sessions', and in whole milliseconds the leader's.
    clock: watch::Sender<LocalTime>,
    clients: BTreeMap<SessionId, Client>,
    /// How many sessions were ever opened.
    opened: u64,
}

/// The client's end of a session.
struct Client {
    state: watch::Sender<SessionState>,
    timeout: Duration,
    /// The last sequence submitted.
    sequence: Sequence,
    /// Last in contact. Invariant: the present, unless the client has fallen silent.
    heard: LocalTime,
    silent: bool,
    /// The last event that its sinks were given.
    delivered: Index,
    /// Who wants the events of which instance, by a number of its own.
    sinks: Vec<(InstanceId, u64, EventSink)>,
    last_sink: u64,
}

impl Loopback {
    /// Sessions over this state machine: a `Registry`, or anything boxed.
    pub fn new(machine: impl Into<Box<dyn StateMachine>>) -> Self {
        let machine = machine.into();
        let world = World {
            table: empty_table(&*machine),
            machine,
            clock: watch::Sender::new(LocalTime::ZERO),
            clients: BTreeMap::new(),
            opened: 0,
        };
        Loopback { world: Arc::new(Mutex::new(world)) }
    }

    /// Opens a session with the default timeout.
    #[must_use]
    pub fn session(&self) -> Arc<dyn Session> {
        self.session_with_timeout(limits::SESSION_TIMEOUT)
    }

    /// Opens a session.
    #[must_use]
    pub fn session_with_timeout(&self, timeout: Duration) -> Arc<dyn Session> {
        let id = self.world.lock().open(timeout);
        Arc::new(LoopbackSession { id, world: self.world.clone() })
    }

    /// Lets time pass: timers fire at their deadlines, in order, and sessions stay in contact. Ends with nothing left to clean up.
    ///
    /// # Panics
    /// If a timer sets itself again without end.
    pub fn advance(&self, duration: Duration) {
        let mut world = self.world.lock();
        let target = world.now() + duration;
        world.advance_to(target);
        world.settle();
    }

    /// The client of a session falls silent: time passes until the leader ends the session. What it owned is cleaned up slice by
    /// slice with the entries that follow (S9), or at once by [`Loopback::settle`].
    ///
    /// # Panics
    /// If the session is not open.
    pub fn expire(&self, session: SessionId) {
        self.world.lock().expire(session);
    }

    /// The client of a session closes it. What it owned is cleaned up as by [`Loopback::expire`].
    ///
    /// # Panics
    /// If the session is not open.
    pub fn close(&self, session: SessionId) {
        let mut world = self.world.lock();
        world.append(&SessionEntry::Close(Close { session }));
        world.ended(session, SessionState::Closed);
    }

    /// Goes on until nothing is left to clean up.
    pub fn settle(&self) {
        self.world.lock().settle();
    }

    /// Whether something is left to clean up.
    #[must_use]
    pub fn is_cleaning(&self) -> bool {
        self.world.lock().table.is_cleaning()
    }

    /// The last index applied, and its cluster time.
    #[must_use]
    pub fn applied(&self) -> (Index, ClusterTime) {
        self.world.lock().table.applied()
    }

    /// Sessions and state machine as a snapshot (M4).
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        self.world.lock().snapshot()
    }

    /// A server that has nothing takes over from a snapshot: `fresh` is its state machine. Returns the snapshot.
    ///
    /// # Panics
    /// If the snapshot can't be read back, or if it reads back as a state that is written differently.
    pub fn snapshot_and_restore(&self, fresh: impl Into<Box<dyn StateMachine>>) -> Bytes {
        let mut world = self.world.lock();
        let snapshot = world.snapshot();
        world.machine = fresh.into();
        world.table = empty_table(&*world.machine);
        let World { table, machine, .. } = &mut *world;
        table.restore(&snapshot, &mut **machine).expect("a snapshot just taken can be read");
        assert_eq!(world.snapshot(), snapshot, "the state is written differently once read back");
        snapshot
    }
}

/// What a future comes to that needs not wait: as none does over a loop-back session, unless it sleeps. Takes no runtime.
///
/// # Panics
/// If it has to wait.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits for something that nobody will do"),
    }
}

/// There is one server, so that what its program knows is what all servers know (M3).
fn empty_table(machine: &dyn StateMachine) -> Table {
    let limits =
        Limits { sessions: limits::SESSIONS, window: limits::COMMANDS_IN_FLIGHT + limits::COMMANDS_RESERVED };
    Table::new(limits).with_levels(machine.kinds().into_iter().collect())
}

impl World {
    fn now(&self) -> LocalTime {
        *self.clock.borrow()
    }

    /// One entry of the log, applied at once.
    fn append(&mut self, entry: &SessionEntry) -> Vec<Effect> {
        let effects = self.append_one(entry);
        let mut told = effects.clone();
        // What acknowledges is an entry too: a clean-up that goes on with it may publish in turn.
        while !told.is_empty() {
            told = self.deliver(&told);
        }
        effects
    }

    fn append_one(&mut self, entry: &SessionEntry) -> Vec<Effect> {
        let (applied, _) = self.table.applied();
        let entry = Entry {
            id: EntryId::new(TERM, applied.next()),
            time: ClusterTime(self.now().0 / 1_000),
            kind: EntryKind::Session,
            payload: entry.encode(),
        };
        self.table.apply(&entry, &mut *self.machine)
    }

    /// Gives the sinks what was published, at once and in order, and acknowledges it. Returns what came of that.
    fn deliver(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let mut more = Vec::new();
        for effect in effects {
            let Effect::Published { session, .. } = effect else { continue };
            let Some(client) = self.clients.get_mut(session).filter(|client| !client.silent) else {
                continue;
            };
            for (index, event) in self.table.events(*session, client.delivered) {
                client.delivered = index;
                for (instance, body) in &event.parts {
                    let body = &event.bodies[*body as usize];
                    let meant = client.sinks.iter_mut().filter(|(meant, ..)| meant == instance);
                    meant.for_each(|(_, _, sink)| sink(index, body));
                }
            }
            if self.table.backlog(*session, Index::ZERO).events > MOST_UNACKNOWLEDGED {
                let (event, lowest_unanswered) = (client.delivered, client.sequence.next());
                let acknowledged = Acknowledged { session: *session, event, lowest_unanswered };
                more.extend(self.append_one(&SessionEntry::Acknowledge(vec![acknowledged])));
            }
        }
        more
    }

    fn open(&mut self, timeout: Duration) -> SessionId {
        self.opened += 1;
        let effects = self.append(&SessionEntry::Open(Open {
            client: ClientId(self.opened.into()),
            attempt: 1,
            key: SessionKey(self.opened.into()),
            principal: String::new(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }));
        let opened = effects.iter().find_map(|effect| match effect {
            Effect::Opened { session, timeout, new: true, .. } => Some((*session, *timeout)),
            _ => None,
        });
        let (session, timeout) = opened.unwrap_or_else(|| panic!("a session was not opened: {effects:?}"));
        let state = watch::Sender::new(SessionState::Connected);
        let (sequence, heard) = (Sequence::ZERO, self.now());
        let client = Client {
            state,
            timeout,
            sequence,
            heard,
            silent: false,
            delivered: Index::ZERO,
            sinks: Vec::new(),
            last_sink: 0,
        };
        self.clients.insert(session, client);
        session
    }

    /// The client's end of an open session.
    fn client(&mut self, session: SessionId) -> Result<&mut Client, SessionError> {
        let client = self.clients.get_mut(&session).expect("sessions are never forgotten");
        if client.state.borrow().is_final() {
            return Err(SessionError::NotDone(NotDone::SessionEnded));
        }
        Ok(client)
    }

    fn submit(
        &mut self,
        session: SessionId,
        command: Bytes,
        numbered: &mut dyn FnMut(Sequence),
    ) -> Result<Outcome, SessionError> {
        check_size(&command)?;
        let client = self.client(session)?;
        client.sequence = client.sequence.next();
        numbered(client.sequence);
        let header = CommandHeader {
            session,
            sequence: client.sequence,
            lowest_unanswered: client.sequence,
            acknowledged_event: client.delivered,
        };
        let mut effects = self.append(&SessionEntry::Command(header, command));
        match effects.pop() {
            Some(Effect::Reply { header, body, kept: false, .. })
                if header.outcome == ReplyOutcome::Applied =>
            {
                Ok(Outcome { index: header.index, body })
            }
            other => panic!("a command in sequence was not applied: {other:?}"),
        }
    }

    fn query(&mut self, session: SessionId, query: &Bytes) -> Result<Outcome, SessionError> {
        check_size(query)?;
        self.client(session)?;
        let (index, time) = self.table.applied();
        let cx = QueryContext { index, time, session, levels: self.table.levels() };
        Ok(Outcome { index, body: self.machine.query(&cx, query) })
    }

    fn advance_to(&mut self, target: LocalTime) {
        let mut at_one_time = 0;
        while let Some(deadline) = self.table.next_deadline() {
            let deadline = LocalTime::from_millis(deadline.0);
            if deadline > target {
                break;
            }
            at_one_time = if deadline > self.now() { 0 } else { at_one_time + 1 };
            assert!(at_one_time < MOST_ENTRIES_AT_ONE_TIME, "a timer sets itself again without end");
            self.set_clock(deadline.max(self.now()));
            self.append(&SessionEntry::Time);
        }
        self.set_clock(target);
    }

    fn set_clock(&mut self, now: LocalTime) {
        self.clock.send_replace(now);
        for client in self.clients.values_mut().filter(|client| !client.silent) {
            client.heard = now;
        }
    }

    fn expire(&mut self, session: SessionId) {
        let client = self.client(session).expect("only an open session can expire");
        client.silent = true;
        let (valid_until, timeout) = (client.valid_until(), client.heard + client.timeout);
        self.advance_to(valid_until);
        self.clients[&session].state.send_replace(SessionState::Suspended);
        self.advance_to(timeout);
        self.append(&SessionEntry::Expire(Expire { session, decided_in: TERM }));
        self.ended(session, SessionState::Expired);
    }

    fn ended(&mut self, session: SessionId, state: SessionState) {
        assert!(self.table.session(session).is_none(), "the table has ended the session");
        let client = self.client(session).expect("a session ends once");
        client.silent = true;
        client.sinks.clear();
        client.state.send_replace(state);
    }

    fn settle(&mut self) {
        while self.table.is_cleaning() {
            self.append(&SessionEntry::Time);
        }
    }

    fn snapshot(&self) -> Bytes {
        let mut out = Vec::new();
        self.table.snapshot(&*self.machine).write_to(&mut out).expect("writing into memory can't fail");
        Bytes::from(out)
    }
}

impl Client {
    /// L2.
    fn valid_until(&self) -> LocalTime {
        self.heard + self.timeout.mul_f64((1.0 - limits::CLOCK_DRIFT) / (1.0 + limits::CLOCK_DRIFT))
    }
}

fn check_size(body: &Bytes) -> Result<(), SessionError> {
    if body.len() > limits::COMMAND_BYTES {
        return Err(SessionError::NotDone(NotDone::TooLarge));
    }
    Ok(())
}

struct LoopbackSession {
    id: SessionId,
    world: Arc<Mutex<World>>,
}

impl LoopbackSession {
    fn with_client<T>(&self, read: impl FnOnce(&Client) -> T) -> T {
        read(&self.world.lock().clients[&self.id])
    }
}

#[async_trait]
impl Session for LoopbackSession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn submit(&self, command: Bytes, numbered: &mut dyn FnMut(Sequence)) -> Completion {
        Completion::ready(self.world.lock().submit(self.id, command, numbered))
    }

    fn submit_detached(&self, command: Bytes) {
        // Nobody waits: as over a network, an ended session is no error here.
        let _ = self.world.lock().submit(self.id, command, &mut |_| ());
    }

    fn query(&self, query: Bytes, _: Consistency) -> Completion {
        // Everything submitted is applied: all consistencies are one.
        Completion::ready(self.world.lock().query(self.id, &query))
    }

    fn events(&self, instance: InstanceId, sink: EventSink) -> Subscription {
        let mut world = self.world.lock();
        let Ok(client) = world.client(self.id) else { return Subscription::new(|| ()) };
        client.last_sink += 1;
        let number = client.last_sink;
        client.sinks.push((instance, number, sink));
        let (world, session) = (Arc::downgrade(&self.world), self.id);
        Subscription::new(move || {
            let Some(world) = world.upgrade() else { return };
            let mut world = world.lock();
            let sinks = world.clients.get_mut(&session).map(|client| &mut client.sinks);
            let taken = sinks.and_then(|sinks| {
                let place = sinks.iter().position(|(_, found, _)| *found == number)?;
                Some(sinks.remove(place))
            });
            // What it owns may use the session when it is dropped.
            drop(world);
            drop(taken);
        })
    }

    fn state(&self) -> SessionState {
        self.with_client(|client| *client.state.borrow())
    }

    fn states(&self) -> watch::Receiver<SessionState> {
        self.with_client(|client| client.state.subscribe())
    }

    fn now(&self) -> LocalTime {
        self.world.lock().now()
    }

    fn valid_until(&self) -> LocalTime {
        self.with_client(Client::valid_until)
    }

    async fn sleep_until(&self, deadline: LocalTime) {
        let mut clock = self.world.lock().clock.subscribe();
        clock.wait_for(|now| *now >= deadline).await.expect("the session keeps its clock alive");
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world.lock();
        f.debug_struct("Loopback")
            .field("applied", &world.table.applied())
            .field("sessions", &world.table.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use atomix_session::{Context, KindLevel, RestoreError, Slice, SnapshotSource, TimerId};

    use super::*;

    /// Writes down what happens to it. A command is a delay in milliseconds: it sets a timer.
    #[derive(Default)]
    struct Diary(Vec<String>);

    impl StateMachine for Diary {
        fn apply(&mut self, cx: &mut Context<'_>, command: &Bytes) -> Bytes {
            let deadline = cx.time().plus(Duration::from_millis(command[0].into()));
            let timer = cx.timers().set(deadline);
            self.0.push(format!("{} set {}", cx.sequence(), timer.0));
            command.clone()
        }

        fn query(&self, cx: &QueryContext<'_>, _: &Bytes) -> Bytes {
            Bytes::from(format!("{} {} {}", cx.index, cx.time, self.0.join(", ")))
        }

        /// In as many slices as there were entries.
        fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
            self.0.push(format!("{session} ended at {}", cx.time()));
            if cx.index() < Index(10) { Slice::More } else { Slice::Done }
        }

        fn timer_fired(&mut self, cx: &mut Context<'_>, timer: TimerId) {
            self.0.push(format!("{} fired at {}", timer.0, cx.time()));
        }

        fn kinds(&self) -> Vec<KindLevel> {
            Vec::new()
        }

        fn snapshot(&self) -> Box<dyn SnapshotSource> {
            Box::new(Bytes::from(self.0.join("\n")))
        }

        fn restore(&mut self, snapshot: Bytes) -> Result<(), RestoreError> {
            self.0 = String::from_utf8_lossy(&snapshot).lines().map(Into::into).collect();
            Ok(())
        }
    }

    /// Takes all it is given and keeps nothing.
    struct Forgetful;

    impl StateMachine for Forgetful {
        fn apply(&mut self, _: &mut Context<'_>, command: &Bytes) -> Bytes {
            command.clone()
        }

        fn query(&self, _: &QueryContext<'_>, query: &Bytes) -> Bytes {
            query.clone()
        }

        fn session_ended(&mut self, _: &mut Context<'_>, _: SessionId) -> Slice {
            Slice::Done
        }

        fn timer_fired(&mut self, cx: &mut Context<'_>, _: TimerId) {
            let now = cx.time();
            cx.timers().set(now);
        }

        fn kinds(&self) -> Vec<KindLevel> {
            Vec::new()
        }

        fn snapshot(&self) -> Box<dyn SnapshotSource> {
            struct Empty;
            impl SnapshotSource for Empty {
                fn write_to(&mut self, _: &mut dyn Write) -> io::Result<()> {
                    Ok(())
                }
            }
            Box::new(Empty)
        }

        fn restore(&mut self, _: Bytes) -> Result<(), RestoreError> {
            Ok(())
        }
    }

    fn diary() -> Loopback {
        Loopback::new(Box::new(Diary::default()) as Box<dyn StateMachine>)
    }

    fn millis(millis: u64) -> LocalTime {
        LocalTime::from_millis(millis)
    }

    fn read(session: &Arc<dyn Session>) -> String {
        let outcome = ready(session.query(Bytes::new(), Consistency::Linearizable)).unwrap();
        String::from_utf8(outcome.body.into()).unwrap()
    }

    #[test]
    fn timers_fire_at_their_deadlines_in_order() {
        let loopback = diary();
        let session = loopback.session();
        for delay in [20, 10] {
            ready(session.submit(Bytes::from(vec![delay]), &mut |_| ())).unwrap();
        }
        let deadline = session.now() + Duration::from_millis(15);
        let mut sleeping = session.sleep_until(deadline);
        let mut cx = task::Context::from_waker(Waker::noop());
        assert!(sleeping.as_mut().poll(&mut cx).is_pending());
        loopback.advance(Duration::from_millis(14));
        assert!(sleeping.as_mut().poll(&mut cx).is_pending());
        loopback.snapshot_and_restore(Box::new(Diary::default()) as Box<dyn StateMachine>);
        loopback.advance(Duration::from_millis(16));
        ready(sleeping);
        assert_eq!(read(&session), "5 20ms 1 set 0, 2 set 1, 1 fired at 10ms, 0 fired at 20ms");
        assert_eq!(session.now(), millis(30));
    }

    #[test]
    fn a_silent_session_ends_after_its_timeout_and_is_cleaned_up_in_slices() {
        let loopback = diary();
        let (ada, bob) = (loopback.session_with_timeout(Duration::from_millis(1_050)), loopback.session());
        loopback.advance(Duration::from_secs(1));
        let (states, valid_until) = (ada.states(), ada.valid_until());
        assert_eq!(valid_until, millis(1_950));
        loopback.expire(ada.id());
        assert_eq!(*states.borrow(), SessionState::Expired);
        assert_eq!((ada.valid_until(), ada.now()), (valid_until, millis(2_050)));
        assert_eq!((bob.state(), bob.valid_until() > valid_until), (SessionState::Connected, true));
        assert!(loopback.is_cleaning());
        assert_eq!(read(&bob), "3 2050ms 1 ended at 2050ms");
        loopback.settle();
        assert!(!loopback.is_cleaning());
        assert_eq!(loopback.applied().0, Index(10));

        let over = ready(ada.submit(Bytes::from_static(&[1]), &mut |_| ())).unwrap_err();
        assert_eq!(over, SessionError::NotDone(NotDone::SessionEnded));
        ada.submit_detached(Bytes::from_static(&[1]));
        assert_eq!(loopback.applied().0, Index(10));
        loopback.close(bob.id());
        assert_eq!(bob.state(), SessionState::Closed);
    }

    #[test]
    #[should_panic(expected = "is written differently")]
    fn a_state_that_is_lost_in_a_snapshot_is_noticed() {
        let loopback = diary();
        ready(loopback.session().submit(Bytes::from_static(&[1]), &mut |_| ())).unwrap();
        loopback.snapshot_and_restore(Box::new(Forgetful) as Box<dyn StateMachine>);
    }

    #[test]
    #[should_panic(expected = "a timer sets itself again without end")]
    fn a_timer_without_end_is_noticed() {
        let loopback = diary();
        ready(loopback.session().submit(Bytes::from_static(&[1]), &mut |_| ())).unwrap();
        loopback.world.lock().machine = Box::new(Forgetful);
        loopback.advance(Duration::from_millis(1));
    }
}
