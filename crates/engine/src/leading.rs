//! What only a leader does: liveness of sessions (S6–S8), entries of its own (T2, S9, E2, E3).

use core::time::Duration;
use std::collections::VecDeque;

use atomix_protocol::client::{ClientResponse, EndReason};
use atomix_protocol::mutant::Mutant;
use atomix_protocol::session::{Expire, SessionEntry};
use atomix_protocol::{Index, LocalTime, Round, ServerId, SessionId, Term};
use atomix_raft::{Refused, Role};

use crate::Notice;
use crate::engine::Engine;

/// While a timer is pending, cluster time is logged at least that often (T2).
const TIME_ENTRY_EVERY: Duration = Duration::from_secs(60);

/// What a leader keeps for one term, and forgets with it.
#[derive(Debug)]
pub(crate) struct Leading {
    pub(crate) term: Term,
    /// Its first own entry, or an earlier one.
    pub(crate) since: Index,
    /// The time entry under way; one at a time.
    time_entry: Option<Index>,
    /// When an entry was applied last.
    last_entry: LocalTime,
    /// Sessions found silent whose expiry is not in the log yet.
    silent: VecDeque<SessionId>,
    /// The log was full: not before then again.
    retry_at: Option<LocalTime>,
}

impl Engine {
    pub(crate) fn on_role_changed(
        &mut self,
        now: LocalTime,
        role: Role,
        term: Term,
        leader: Option<ServerId>,
    ) {
        self.notice(Notice::Role { role, term, leader });
        let goes_on =
            role == Role::Leader && self.leading.as_ref().is_some_and(|leading| leading.term == term);
        if goes_on {
            return;
        }
        self.leave_office();
        if role != Role::Leader {
            return;
        }
        let since = self.raft.as_ref().map_or(Index::ZERO, |raft| raft.last().index);
        self.leading = Some(Leading {
            term,
            since,
            time_entry: None,
            last_entry: now,
            silent: VecDeque::new(),
            retry_at: None,
        });
        self.levels.stale = true;
        self.liveness.elected(now, &mut self.table.sessions());
        for session in self.table.withheld() {
            self.liveness.withhold(now, session);
        }
        if Mutant::B26.active() {
            self.table.drop_replies();
        }
    }

    /// This server leads no more, if it did: it forgets what only a leader keeps, and sends those away who wait for it.
    pub(crate) fn leave_office(&mut self) {
        if self.leading.take().is_some() {
            self.liveness.deposed();
            let held = self.events.holds_replies();
            self.forget_events();
            self.marks.deposed_in_flight += u64::from(self.detach_all() || held);
        }
    }

    /// Something came from a session (S6).
    pub(crate) fn hear(&mut self, now: LocalTime, session: SessionId, contact: Option<u64>) {
        if !self.is_established() {
            return;
        }
        let round = self.raft.as_ref().map_or(Round::ZERO, atomix_raft::Raft::round);
        self.liveness.contact(now, session, contact, round);
    }

    /// A round was completed: clients learn that their contacts count.
    pub(crate) fn on_round_confirmed(&mut self, term: Term, round: Round) {
        if !self.is_established() || self.leading.as_ref().is_none_or(|leading| leading.term != term) {
            return;
        }
        for (session, contact) in self.liveness.confirmed(round) {
            if let Some(id) = self.link_of(session) {
                self.respond(id, ClientResponse::Confirmed { contact });
            }
        }
    }

    /// A leader applied entries through `index`.
    pub(crate) fn led_through(&mut self, now: LocalTime, index: Index) {
        let Some(leading) = &mut self.leading else { return };
        leading.last_entry = now;
        if leading.time_entry.is_some_and(|entry| entry <= index) {
            leading.time_entry = None;
        }
    }

    /// Proposes what is due in this leader's term.
    pub(crate) fn lead(&mut self, now: LocalTime) {
        let due = if self.leading.is_some() { self.liveness.due(now) } else { return };
        let Some(leading) = &mut self.leading else { return };
        leading.silent.extend(due);
        if leading.retry_at.is_some_and(|at| at > now) {
            return;
        }
        leading.retry_at = None;
        let refused = self.expire_silent(now).is_err()
            || self.raise_levels(now).is_err()
            || self.give_up_overflowing(now).is_err()
            || self.fold_if_wanted(now).is_err()
            || self.log_time(now).is_err();
        if refused {
            let pause = self.options.raft.heartbeat;
            if let Some(leading) = &mut self.leading {
                leading.retry_at = Some(now + pause);
            }
        }
    }

    /// Only a committed entry ends a session (S7), and only if it is logged in the term in which that was decided (R8).
    fn expire_silent(&mut self, now: LocalTime) -> Result<(), Refused> {
        while let Some((session, term)) =
            self.leading.as_ref().and_then(|leading| Some((*leading.silent.front()?, leading.term)))
        {
            if Mutant::B27.active() {
                self.table.drop_session(session);
                self.liveness.ended(session);
                self.on_events_ended(session);
                self.on_ended(session, EndReason::Expired);
            } else {
                self.propose(now, &SessionEntry::Expire(Expire { session, decided_in: term }), Some(term))?;
            }
            if let Some(leading) = &mut self.leading {
                leading.silent.pop_front();
            }
        }
        Ok(())
    }

    fn log_time(&mut self, now: LocalTime) -> Result<(), Refused> {
        let (Some(raft), Some(leading)) = (&self.raft, &self.leading) else { return Ok(()) };
        if leading.time_entry.is_some() || !self.is_established() {
            return Ok(());
        }
        let pending = self.table.next_deadline();
        let term = leading.term;
        let due = pending.is_some_and(|deadline| deadline <= raft.cluster_time(now))
            || (pending.is_some() && now.since(leading.last_entry) >= TIME_ENTRY_EVERY)
            || self.table.is_cleaning();
        if !due {
            return Ok(());
        }
        self.propose(now, &SessionEntry::Time, Some(term))?;
        self.marks.time_entries += 1;
        let last = self.raft.as_ref().map(|raft| raft.last().index);
        if let Some(leading) = &mut self.leading {
            leading.time_entry = last;
        }
        Ok(())
    }

    /// When [`Engine::lead`] will have something to do, at the earliest.
    pub(crate) fn next_duty(&self) -> Option<LocalTime> {
        let leading = self.leading.as_ref()?;
        let raft = self.raft.as_ref()?;
        let silence = self.liveness.next_deadline();
        let time = match (self.table.next_deadline(), leading.time_entry) {
            (Some(deadline), None) if self.is_established() => {
                let left = Duration::from_millis(deadline.0.saturating_sub(raft.cluster_time(self.now).0));
                Some((self.now + left).min(leading.last_entry + TIME_ENTRY_EVERY))
            }
            _ => None,
        };
        let earliest = [silence, time].into_iter().flatten().min();
        match leading.retry_at {
            Some(retry) => Some(earliest.map_or(retry, |earliest| earliest.max(retry))),
            None => earliest,
        }
    }
}
