//! What a client is told, and what must hold of it: I7 to I12, I20, I21.

use atomix_collections::map::op::{MapEvent, Watch};
use atomix_coordination::lock::op::{Acquire, LockEvent};
use atomix_protocol::client::{Consistency, EndReason};
use atomix_protocol::{Index, InstanceId, LocalTime, Sequence, SessionId, codec};
use atomix_session::{NotDone, Outcome, SessionError, SessionState};
use bytes::Bytes;

use super::checker::{Broken, Check, hold};
use super::client::{Client, Handle, Shared, Submitted};
use super::contender::Lock;
use super::coverage::Mark;
use super::map_operation::MapCommand;
use super::model::{Model, Told};
use super::operation::{
    Command, LockCommand, Place, read_opened, read_reply, says_deleted, unknown_operation,
};
use super::settings::Time;

impl Client {
    /// The session has its id.
    pub(super) fn opened(&mut self, session: SessionId, shared: &mut Shared<'_>) -> Check {
        self.session = Some(session);
        shared.coverage.sessions += 1;
        hold("I21", shared.model.session(session).is_some(), || {
            format!("client {} was told of session {session}, which no committed entry opened", self.number)
        })
    }

    /// The session's state changed. I21: it is over only if a committed entry says so.
    pub(super) fn state(&mut self, state: SessionState, shared: &mut Shared<'_>) -> Check {
        if state.is_final() {
            self.contender.forget();
        }
        let (SessionState::Expired, Some(session)) = (state, self.session) else { return Ok(()) };
        let twin = shared.model.session(session);
        hold("I21", twin.is_some_and(|twin| twin.ended.is_some()), || {
            format!(
                "client {} was told that session {session} is over, and no committed entry says so",
                self.number
            )
        })
    }

    /// I7, I8, I9, I11, I12: a command ended.
    pub(super) fn completed(
        &mut self,
        now: LocalTime,
        sequence: Sequence,
        result: &Result<Outcome, SessionError>,
        shared: &mut Shared<'_>,
    ) -> Check {
        let Some(session) = self.session else { return Ok(()) };
        let Some(submitted) = self.commands.remove(&sequence) else {
            return Err(Broken {
                name: "I7",
                detail: format!("command {sequence} of {session} ended twice"),
            });
        };
        self.opening.remove(&sequence);
        match result {
            Ok(outcome) => {
                self.check_reply(session, sequence, &submitted, outcome, shared)?;
                self.take_reply(now, sequence, &submitted, &outcome.body, shared);
                shared.coverage.operations += 1;
                self.tell(outcome.index, shared);
                Ok(())
            }
            Err(SessionError::NotDone(why)) => {
                shared.coverage.mark(Mark::FullRefused, u64::from(*why == NotDone::Full));
                self.take_failure(now, sequence, &submitted, true, shared);
                shared.model.not_done(session, sequence)
            }
            Err(_) => {
                self.take_failure(now, sequence, &submitted, false, shared);
                Ok(())
            }
        }
    }

    fn check_reply(
        &self,
        session: SessionId,
        sequence: Sequence,
        submitted: &Submitted,
        outcome: &Outcome,
        shared: &Shared<'_>,
    ) -> Check {
        let place = || format!("command {sequence} of session {session} ({:?})", submitted.command);
        let twin = shared.model.session(session);
        let Some(effect) = twin.and_then(|twin| twin.effect(sequence)) else {
            return Err(Broken {
                name: "I7",
                detail: format!("{} was answered and is not committed", place()),
            });
        };
        hold("I7", effect.index == outcome.index, || {
            format!("{} was answered {outcome:?}, must be {effect:?}", place())
        })?;
        hold(submitted.command.invariant(), effect.reply.as_ref() == Some(&outcome.body), || {
            format!("{} was answered {outcome:?}, must be {effect:?}", place())
        })?;
        hold("I9", outcome.index > submitted.committed, || {
            format!("{} took effect at {}, before it was submitted", place(), outcome.index)
        })?;
        self.check_order(session, outcome.index, shared.model, place)
    }

    /// I11: whoever is told of an index was told its events before (E5, Q2). Those of a session that was given up are gone (E3), and
    /// with the session ends what waited for events.
    fn check_order(
        &self,
        session: SessionId,
        index: Index,
        model: &Model,
        place: impl Fn() -> String,
    ) -> Check {
        let twin = model.session(session).filter(|twin| !twin.given_up && !self.is_over());
        let next = twin.and_then(|twin| twin.events.get(self.told));
        hold("I11", next.is_none_or(|next| next.index > index), || {
            format!("{} at {index} came before the event {next:?}", place())
        })
    }

    /// What the reply means to the user who waits for it.
    fn take_reply(
        &mut self,
        now: LocalTime,
        sequence: Sequence,
        submitted: &Submitted,
        body: &Bytes,
        shared: &mut Shared<'_>,
    ) {
        if let Some((place, handle)) = submitted.to
            && says_deleted(body)
        {
            self.forget_handle(place, handle);
            return;
        }
        match (&submitted.command, submitted.to) {
            (Command::Open(place), _) => {
                if let Some((instance, resource)) = read_opened(body) {
                    self.handles.insert(*place, Handle { instance, resource });
                }
            }
            (Command::Map(MapCommand::Watch(_)), _) if !matches!(read_reply::<Watch>(body), Some(Ok(_))) => {
                self.watcher.not_watching(sequence);
            }
            (Command::Lock(LockCommand::Acquire(_)), Some((place, handle))) => {
                let lock = Lock { place, resource: handle.resource };
                let reply = read_reply::<Acquire>(body);
                self.contender.acquired(now, (lock, sequence), reply, shared.settings, shared.coverage);
            }
            (Command::Lock(LockCommand::Cancel(_)), _) if *body == unknown_operation() => {
                self.contender.not_cancelled(sequence);
            }
            (Command::Lock(LockCommand::Cancel(_)), _) => self.contender.cancelled(sequence),
            _ => {}
        }
    }

    /// There was no reply.
    fn take_failure(
        &mut self,
        now: LocalTime,
        sequence: Sequence,
        submitted: &Submitted,
        not_done: bool,
        shared: &mut Shared<'_>,
    ) {
        match (&submitted.command, submitted.to) {
            (Command::Map(MapCommand::Watch(_)), _) if not_done => self.watcher.not_watching(sequence),
            (Command::Lock(command), Some((place, handle))) => {
                let lock = Lock { place, resource: handle.resource };
                match command {
                    LockCommand::Acquire(_) if not_done => self.contender.not_done(lock, sequence),
                    LockCommand::Acquire(_) => {
                        self.contender.acquired(
                            now,
                            (lock, sequence),
                            None,
                            shared.settings,
                            shared.coverage,
                        );
                    }
                    // It has to be given back all the same.
                    _ if not_done => self.contender.refused(lock, *command),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// A resource is gone, and whatever it was about.
    fn forget_handle(&mut self, place: Place, handle: Handle) {
        if self.handles.get(&place) == Some(&handle) {
            self.handles.remove(&place);
            if place == Place::Map {
                self.watcher.forget();
            }
        }
        self.contender.forget_lock(handle.resource);
    }

    /// I11: an event arrived. Exactly those of the twin, in order; I12: a grant that the lock has made.
    pub(super) fn event(&mut self, now: LocalTime, event: Told, shared: &mut Shared<'_>) -> Check {
        let Some(session) = self.session else { return Ok(()) };
        let expected = shared.model.session(session).and_then(|twin| twin.events.get(self.told));
        let found = self.handles.iter().find(|(_, handle)| handle.instance == event.instance);
        let handle = found.map(|(place, handle)| (*place, *handle));
        let lock_event = match handle {
            Some((Place::Lock(_), _)) => codec::from_bytes::<LockEvent>(&event.body).ok(),
            _ => None,
        };
        if let (Some((_, handle)), Some(LockEvent::Granted { token, .. })) = (handle, lock_event) {
            let grant = shared.model.lock(handle.resource).and_then(|lock| lock.grant_of(token));
            hold("I12", grant.is_some(), || {
                format!(
                    "session {session} was told of {lock_event:?} at {}, which was not granted",
                    event.index
                )
            })?;
            if expected == Some(&event) && grant.is_some_and(|(_, across)| across) {
                shared.coverage.mark(Mark::HandOverAcrossLeaders, 1);
            }
        }
        hold("I11", expected == Some(&event), || {
            format!("event {} of session {session} is {event:?}, must be {expected:?}", self.told)
        })?;
        self.told += 1;
        self.tell(event.index, shared);
        match (handle, lock_event) {
            (Some((place, handle)), Some(lock_event)) => {
                let lock = Lock { place, resource: handle.resource };
                self.contender.told(now, lock, lock_event, shared.settings, shared.coverage);
            }
            (Some((Place::Map, handle)), None) => {
                self.watcher.told();
                if codec::from_bytes::<MapEvent>(&event.body) == Ok(MapEvent::Deleted) {
                    self.forget_handle(Place::Map, handle);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// I9, I10, I11, I12: a query was answered.
    pub(super) fn answered(
        &mut self,
        number: u64,
        result: &Result<Outcome, SessionError>,
        shared: &mut Shared<'_>,
    ) -> Check {
        let Some(session) = self.session else { return Ok(()) };
        let Some(asked) = self.queries.remove(&number) else {
            return Err(Broken { name: "I10", detail: format!("query {number} of {session} ended twice") });
        };
        let Ok(outcome) = result else { return Ok(()) };
        let place = || {
            format!(
                "{:?} {:?} of session {session} read at {}",
                asked.consistency, asked.query, outcome.index
            )
        };
        hold("I9", outcome.index <= shared.model.applied(), || {
            format!("{}, which is not committed", place())
        })?;
        hold(
            "I9",
            asked.consistency != Consistency::Linearizable || outcome.index >= asked.completed,
            || format!("{}, when {} had been completed before", place(), asked.completed),
        )?;
        hold("I10", outcome.index >= self.observed, || format!("{} after {}", place(), self.observed))?;
        let Some(twin) = shared.model.session(session) else { return Ok(()) };
        if asked.consistency != Consistency::Causal && asked.after > Sequence::ZERO {
            let own = twin.effect(asked.after).map(|effect| effect.index);
            hold("I10", own.is_some_and(|own| own <= outcome.index), || {
                format!("{}, its own command {} is at {own:?}", place(), asked.after)
            })?;
        }
        let over = twin.ended.is_some_and(|(index, _)| index <= outcome.index);
        let expected = shared.model.answer(asked.instance, &asked.query, outcome.index);
        hold(asked.query.invariant(), over || expected == outcome.body, || {
            format!("{}: answered {:?}, must be {expected:?}", place(), outcome.body)
        })?;
        self.check_order(session, outcome.index, shared.model, place)?;
        shared.coverage.mark(Mark::LevelRefused, u64::from(outcome.body == unknown_operation()));
        shared.coverage.reads += 1;
        self.tell(outcome.index, shared);
        Ok(())
    }

    fn tell(&mut self, index: Index, shared: &mut Shared<'_>) {
        self.observed = self.observed.max(index);
        *shared.completed = index.max(*shared.completed);
    }

    /// I20: nothing that this client may count on was given to anybody else.
    pub(super) fn check_promises(&self, now: Time, model: &Model) -> Check {
        let (Some(core), Some(session)) = (&self.core, self.session) else { return Ok(()) };
        let (local, until) = (self.clock.read(now), core.valid_until());
        let ended = model.session(session).and_then(|twin| twin.ended);
        let taken_over = ended.is_some_and(|(_, reason)| reason == EndReason::TakenOver);
        // S10: who takes over asserts that its predecessor is dead.
        if local >= until || taken_over || core.state().is_final() {
            return Ok(());
        }
        hold("I20", ended.is_none_or(|(_, reason)| reason != EndReason::Expired), || {
            format!(
                "session {session} has expired while client {} at {local:?} counts on it until {until:?}",
                self.number
            )
        })?;
        for guard in self.contender.guards() {
            let holder = model.lock(guard.lock.resource).and_then(|lock| lock.holder());
            hold("I20", holder == Some((session, guard.token)), || {
                format!(
                    "client {} at {local:?} counts on {guard:?} of session {session} until {until:?}, it is {holder:?}'s",
                    self.number
                )
            })?;
        }
        Ok(())
    }

    /// I11: after everything is quiet a session that was not given up has all of its events.
    pub(super) fn has_all_events(&self, model: &Model) -> bool {
        let twin = self.session.and_then(|session| model.session(session));
        let twin = twin.filter(|twin| twin.ended.is_none() && !twin.given_up && !self.is_over());
        twin.is_none_or(|twin| twin.events.len() == self.told)
    }

    /// The instance that an event would be for, for people.
    pub(super) fn missing(&self, model: &Model) -> Option<(SessionId, InstanceId, usize)> {
        let session = self.session?;
        let next = model.session(session)?.events.get(self.told)?;
        Some((session, next.instance, self.told))
    }

    /// Whether it believes to hold a lock and its session is over.
    pub(super) fn has_overslept(&self, model: &Model) -> bool {
        let over = self.session.and_then(|session| model.session(session)).and_then(|twin| twin.ended);
        over.is_some_and(|(_, reason)| reason == EndReason::Expired)
            && self.contender.guards().next().is_some()
    }
}
