//! What each entry of the log does to the table and the state machine.

use atomix_protocol::client::{EndReason, ReplyOutcome};
use atomix_protocol::session::{CommandHeader, Open, SessionEntry};
use atomix_protocol::{Entry, EntryKind, Sequence, SessionId, Term};
use bytes::Bytes;

use super::record::{KeptReply, Place, Record};
use super::{Effect, Table};
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
        if entry.kind != EntryKind::Session {
            return Vec::new();
        }
        match SessionEntry::decode(&entry.payload) {
            Ok(decoded) => self.apply_decoded(entry.id.term, decoded, machine),
            Err(_) => Vec::new(),
        }
    }

    fn apply_decoded(
        &mut self,
        term: Term,
        entry: SessionEntry,
        machine: &mut dyn StateMachine,
    ) -> Vec<Effect> {
        match entry {
            SessionEntry::Open(open) => self.apply_open(open, machine),
            SessionEntry::Command(header, body) => vec![self.apply_command(&header, Some(&body), machine)],
            SessionEntry::Skip(header) => vec![self.apply_command(&header, None, machine)],
            SessionEntry::Close(close) => {
                let ended = self.end(close.session, EndReason::Closed, machine);
                vec![ended.unwrap_or(unknown(close.session))]
            }
            // R8: decided in another term, decided on nothing.
            SessionEntry::Expire(expire) if expire.decided_in != term => Vec::new(),
            SessionEntry::Expire(expire) => {
                self.end(expire.session, EndReason::Expired, machine).into_iter().collect()
            }
            SessionEntry::Time => Vec::new(),
            SessionEntry::Acknowledge(list) => {
                for acknowledged in list {
                    if let Some(record) = self.state.sessions.get_mut(&acknowledged.session) {
                        record.trim(acknowledged.lowest_unanswered);
                    }
                }
                Vec::new()
            }
            SessionEntry::RaiseLevel(raise) => {
                if raise.decided_in == term && self.level(&raise.kind) < raise.level {
                    self.state.levels.insert(raise.kind, raise.level);
                }
                Vec::new()
            }
        }
    }

    /// Only timers that were pending before fire: one that sets another, already due, can't hold up the log for ever.
    fn fire_timers(&mut self, machine: &mut dyn StateMachine) {
        for timer in self.state.timers.due(self.state.time) {
            // An earlier one of them may have cancelled it.
            if self.state.timers.cancel(timer) {
                machine.timer_fired(&mut self.state.context(None, Sequence::ZERO), timer);
            }
        }
    }

    fn continue_clean_up(&mut self, machine: &mut dyn StateMachine) {
        if let Some((ended_at, session)) = self.state.cleaning.get_min().copied()
            && machine.session_ended(&mut self.state.context(None, Sequence::ZERO), session) == Slice::Done
        {
            self.state.cleaning.remove(&ended_at);
        }
    }

    /// S1, S10.
    fn apply_open(&mut self, open: Open, machine: &mut dyn StateMachine) -> Vec<Effect> {
        let (client, attempt) = (open.client, open.attempt);
        let mut effects = Vec::new();
        let mut predecessor = None;
        if let Some((session, record)) = self.state.session_of(client) {
            if record.attempt == attempt && record.key == open.key {
                let timeout = record.timeout();
                return vec![Effect::Opened { session, client, attempt, timeout, new: false }];
            }
            if record.predecessor == Some(attempt) {
                return vec![Effect::OpenRefused { client, attempt }];
            }
            predecessor = Some(record.attempt);
            effects.extend(self.end(session, EndReason::TakenOver, machine));
        } else if self.state.sessions.len() >= self.limits.sessions {
            return vec![Effect::OpenRefused { client, attempt }];
        }
        let session = SessionId(self.state.index.0);
        let record = Record::new(open, predecessor);
        effects.push(Effect::Opened { session, client, attempt, timeout: record.timeout(), new: true });
        self.state.by_client.insert(client, session);
        self.state.sessions.insert(session, record);
        effects
    }

    /// S3, S4. A skip has no body: it consumes its sequence and does nothing.
    fn apply_command(
        &mut self,
        header: &CommandHeader,
        body: Option<&Bytes>,
        machine: &mut dyn StateMachine,
    ) -> Effect {
        let session = header.session;
        let Some(record) = self.state.sessions.get_mut(&session) else {
            return unknown(session);
        };
        record.trim(header.lowest_unanswered);
        match record.place(header.sequence, self.limits.window) {
            Place::Consumed => {
                let (header, body) = record.answer(header.sequence);
                return Effect::Reply { session, header, body, kept: true };
            }
            Place::Beyond => return Effect::Gap { session, expected: record.last_sequence.next() },
            Place::Next => {}
        }
        let (outcome, reply) = match body {
            Some(body) => {
                let mut context = self.state.context(Some(session), header.sequence);
                (ReplyOutcome::Applied, machine.apply(&mut context, body))
            }
            None => (ReplyOutcome::Skipped, Bytes::new()),
        };
        self.keep(session, header.sequence, outcome, reply)
    }

    fn keep(&mut self, session: SessionId, sequence: Sequence, outcome: ReplyOutcome, body: Bytes) -> Effect {
        let index = self.state.index;
        let record = self.state.sessions.get_mut(&session).expect("a command does not end its own session");
        let reply = KeptReply { index, event_index: record.event_index, outcome, body: body.clone() };
        let header = reply.header(sequence);
        record.keep(sequence, reply);
        Effect::Reply { session, header, body, kept: false }
    }

    /// Ends a session at once, and runs the first slice of its clean-up (S9).
    fn end(
        &mut self,
        session: SessionId,
        reason: EndReason,
        machine: &mut dyn StateMachine,
    ) -> Option<Effect> {
        let record = self.state.sessions.remove(&session)?;
        self.state.by_client.remove(&record.client);
        if machine.session_ended(&mut self.state.context(None, Sequence::ZERO), session) == Slice::More {
            self.state.cleaning.insert(self.state.index, session);
        }
        Some(Effect::Ended { session, reason, new: true })
    }

    fn level(&self, kind: &str) -> u16 {
        self.state.levels.get(kind).copied().unwrap_or(0)
    }
}

impl super::State {
    fn context(&mut self, session: Option<SessionId>, sequence: Sequence) -> Context<'_> {
        Context::new(self.index, self.time, session, sequence, &mut self.timers)
    }
}

/// The table keeps nothing of sessions that are over: it can't say why they are.
fn unknown(session: SessionId) -> Effect {
    Effect::Ended { session, reason: EndReason::Unknown, new: false }
}
