//! What each entry of the log does to the table and the state machine.

use atomix_protocol::client::{EndReason, ReplyOutcome};
use atomix_protocol::mutant::Mutant;
use atomix_protocol::session::{CommandHeader, Open, SessionEntry};
use atomix_protocol::{Entry, EntryKind, Sequence, SessionId, Term};
use bytes::Bytes;

use super::record::{KeptReply, Place, Record};
use super::{Effect, State, Table};
use crate::state_machine::{Context, Slice, StateMachine};

impl Table {
    /// Applies one entry of any kind: fires the timers that its time passes (T2), runs a slice of pending clean-ups (S9), then the
    /// entry itself. A payload that does not decode is a deterministic no-op (M2).
    ///
    /// # Panics
    /// If the entry is not the one after the last applied: consensus is broken.
    pub fn apply(&mut self, entry: &Entry, machine: &mut dyn StateMachine) -> Vec<Effect> {
        assert_eq!(
            entry.id.index,
            self.state.index.next(),
            "each entry is applied once, in order: term {} index {}",
            entry.id.term,
            entry.id.index,
        );
        self.state.index = entry.id.index;
        self.state.time = self.state.time.max(entry.time);
        self.fire_timers(machine);
        self.continue_clean_up(machine);
        let mut effects = Vec::new();
        if entry.kind == EntryKind::Session
            && let Ok(decoded) = SessionEntry::decode(&entry.payload)
        {
            self.apply_decoded(entry.id.term, decoded, machine, &mut effects);
        }
        self.put_out(false, &mut effects);
        effects
    }

    fn apply_decoded(
        &mut self,
        term: Term,
        entry: SessionEntry,
        machine: &mut dyn StateMachine,
        effects: &mut Vec<Effect>,
    ) {
        match entry {
            SessionEntry::Open(open) => self.apply_open(open, machine, effects),
            SessionEntry::Command(header, body) => self.apply_command(&header, Some(&body), machine, effects),
            SessionEntry::Skip(header) => self.apply_command(&header, None, machine, effects),
            SessionEntry::Close(close) => {
                let ended = self.end(close.session, EndReason::Closed, machine);
                effects.push(ended.unwrap_or(unknown(close.session)));
            }
            // R8: decided in another term, decided on nothing.
            SessionEntry::Expire(expire) if expire.decided_in != term => {}
            SessionEntry::Expire(expire) => {
                effects.extend(self.end(expire.session, EndReason::Expired, machine));
            }
            SessionEntry::Time => {}
            SessionEntry::Acknowledge(list) => self.apply_acknowledge(&list, effects),
            SessionEntry::Overflow(overflow) => self.apply_overflow(term, overflow, effects),
            SessionEntry::RaiseLevel(raise) => {
                if raise.decided_in == term {
                    self.state.levels.raise(raise.kind, raise.level);
                }
            }
        }
    }

    /// Only timers that were pending before fire: one that sets another, already due, can't hold up the log for ever.
    fn fire_timers(&mut self, machine: &mut dyn StateMachine) {
        for timer in self.state.timers.due(self.state.time) {
            // An earlier one of them may have cancelled it.
            if self.state.timers.cancel(timer) {
                machine.timer_fired(&mut self.context(None, Sequence::ZERO), timer);
            }
        }
    }

    fn continue_clean_up(&mut self, machine: &mut dyn StateMachine) {
        if let Some((ended_at, session)) = self.state.cleaning.get_min().copied()
            && machine.session_ended(&mut self.context(None, Sequence::ZERO), session) == Slice::Done
        {
            self.state.cleaning.remove(&ended_at);
        }
    }

    /// S1, S10.
    fn apply_open(&mut self, open: Open, machine: &mut dyn StateMachine, effects: &mut Vec<Effect>) {
        let (client, attempt) = (open.client, open.attempt);
        let mut predecessor = None;
        if let Some((session, record)) = self.state.session_of(client) {
            if record.attempt == attempt && record.key == open.key {
                let timeout = record.timeout();
                effects.push(Effect::Opened { session, client, attempt, timeout, new: false });
                return;
            }
            if record.predecessor == Some(attempt) {
                effects.push(Effect::OpenRefused { client, attempt });
                return;
            }
            predecessor = Some(record.attempt);
            effects.extend(self.end(session, EndReason::TakenOver, machine));
        } else if self.state.sessions.len() >= self.limits.sessions {
            effects.push(Effect::OpenRefused { client, attempt });
            return;
        }
        let session = SessionId(self.state.index.0);
        let record = Record::new(open, predecessor);
        effects.push(Effect::Opened { session, client, attempt, timeout: record.timeout(), new: true });
        self.state.by_client.insert(client, session);
        self.state.sessions.insert(session, record);
    }

    /// S3, S4. A skip has no body: it consumes its sequence and does nothing.
    fn apply_command(
        &mut self,
        header: &CommandHeader,
        body: Option<&Bytes>,
        machine: &mut dyn StateMachine,
        effects: &mut Vec<Effect>,
    ) {
        let session = header.session;
        self.state.acknowledge(session, header.acknowledged_event, header.lowest_unanswered);
        let Some(record) = self.state.sessions.get(&session) else {
            if Mutant::B28.active() && self.goes_on_after_its_end(session) {
                machine
                    .apply(&mut self.context(Some(session), header.sequence), body.unwrap_or(&Bytes::new()));
            }
            effects.push(unknown(session));
            return;
        };
        match record.place(header.sequence, self.limits.window) {
            Place::Consumed => {
                let (header, body, atomic) = record.answer(header.sequence);
                effects.push(Effect::Reply { session, header, body, kept: true, atomic });
                return;
            }
            Place::Beyond => {
                effects.push(Effect::Gap { session, expected: record.last_sequence.next() });
                return;
            }
            Place::Next => {}
        }
        // Timers and clean-ups of this entry have no reply that could be held.
        self.published.atomic = false;
        let (outcome, reply) = match body {
            Some(body) => {
                let reply = machine.apply(&mut self.context(Some(session), header.sequence), body);
                (ReplyOutcome::Applied, reply)
            }
            None => (ReplyOutcome::Skipped, Bytes::new()),
        };
        // Before the reply: it says which event of the session is the last (E5, Q2).
        let holds = self.published.atomic;
        let atomic = self.put_out(holds, effects) && holds;
        effects.push(self.keep(session, header.sequence, outcome, reply, atomic));
    }

    fn keep(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        outcome: ReplyOutcome,
        body: Bytes,
        atomic: bool,
    ) -> Effect {
        let index = self.state.index;
        let record = self.state.sessions.get_mut(&session).expect("a command does not end its own session");
        let event_index = record.outbox.last();
        let reply = KeptReply { index, event_index, outcome, atomic, body: body.clone() };
        let header = reply.header(sequence);
        record.keep(sequence, reply);
        Effect::Reply { session, header, body, kept: false, atomic }
    }

    /// Ends a session at once, and runs the first slice of its clean-up (S9).
    fn end(
        &mut self,
        session: SessionId,
        reason: EndReason,
        machine: &mut dyn StateMachine,
    ) -> Option<Effect> {
        self.state.remove(session)?;
        self.last_ended = Some((self.state.index, session));
        if machine.session_ended(&mut self.context(None, Sequence::ZERO), session) == Slice::More {
            self.state.cleaning.insert(self.state.index, session);
        }
        Some(Effect::Ended { session, reason, new: true })
    }

    fn context(&mut self, session: Option<SessionId>, sequence: Sequence) -> Context<'_> {
        let State { index, time, levels, timers, .. } = &mut self.state;
        Context::new(*index, *time, session, sequence, levels, timers, &mut self.published)
    }
}

/// The table keeps nothing of sessions that are over: it can't say why they are.
fn unknown(session: SessionId) -> Effect {
    Effect::Ended { session, reason: EndReason::Unknown, new: false }
}
