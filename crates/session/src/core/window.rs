//! Commands between their submission and their end: sequences, order, deadlines (S2, S4, S5, S11).

use std::collections::{BTreeSet, VecDeque};

use atomix_protocol::client::NotLogged;
use atomix_protocol::session::{CommandHeader, SessionEntry};
use atomix_protocol::{Index, LocalTime, Sequence, SessionId};
use bytes::Bytes;

use crate::outcome::{NotDone, Outcome, SessionError};

/// How a command ended.
pub(super) type Ending = (Sequence, Result<Outcome, SessionError>);

/// Commands that were submitted and not yet answered, and answered ones that wait for an earlier one.
#[derive(Debug)]
pub(super) struct Window {
    /// The sequence of the first command, or of the next to be submitted. Everything below was answered.
    lowest: Sequence,
    /// Without holes from `lowest` on. Invariant: the first is unanswered.
    commands: VecDeque<Command>,
    /// Of commands whose caller still waits.
    deadlines: BTreeSet<(LocalTime, Sequence)>,
    retries: u64,
}

#[derive(Debug)]
struct Command {
    body: Bytes,
    deadline: Option<LocalTime>,
    /// Sent at least once: it may have been done.
    sent: bool,
    /// Refused before the log, and why: sent as a skip from then on (S4).
    refused: Option<NotLogged>,
    /// Its caller was told how it ended.
    told: bool,
    answer: Option<Result<Outcome, SessionError>>,
}

impl Window {
    pub(super) fn new() -> Self {
        Window { lowest: Sequence(1), commands: VecDeque::new(), deadlines: BTreeSet::new(), retries: 0 }
    }

    /// Takes the next sequence (S2).
    pub(super) fn submit(&mut self, body: Bytes, deadline: Option<LocalTime>) -> Sequence {
        let sequence = self.last_submitted().next();
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, sequence));
        }
        self.commands.push_back(Command {
            body,
            deadline,
            sent: false,
            refused: None,
            told: false,
            answer: None,
        });
        sequence
    }

    pub(super) fn len(&self) -> u64 {
        self.commands.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn lowest_unanswered(&self) -> Sequence {
        self.lowest
    }

    pub(super) fn last_submitted(&self) -> Sequence {
        Sequence(self.lowest.0 + self.len() - 1)
    }

    /// Everything up to here was answered.
    pub(super) fn last_completed(&self) -> Sequence {
        self.lowest.previous()
    }

    /// Whether an answer may be under way.
    pub(super) fn awaits_answer(&self) -> bool {
        self.commands.front().is_some_and(|command| command.sent)
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries
    }

    pub(super) fn next_deadline(&self) -> Option<LocalTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What to send of `from` through `through`: unanswered commands in order, each as it stands now.
    pub(super) fn send(&mut self, from: Sequence, through: Sequence, session: SessionId) -> Vec<Bytes> {
        let lowest_unanswered = self.lowest;
        let place =
            |sequence: Sequence| usize::try_from(sequence.since(lowest_unanswered)).unwrap_or(usize::MAX);
        let (first, end) = (place(from), place(through.next()).min(self.commands.len()));
        let mut entries = Vec::new();
        for (sequence, command) in (self.lowest.0..).zip(&mut self.commands).take(end).skip(first) {
            if command.answer.is_some() {
                continue;
            }
            self.retries += u64::from(command.sent);
            command.sent = true;
            let header = CommandHeader {
                session,
                sequence: Sequence(sequence),
                lowest_unanswered,
                acknowledged_event: Index::ZERO,
            };
            entries.push(match command.refused {
                None => SessionEntry::Command(header, command.body.clone()).encode(),
                Some(_) => SessionEntry::Skip(header).encode(),
            });
        }
        entries
    }

    /// An answer arrived. Returns what ended by it, in order of submission (S11).
    pub(super) fn answer(
        &mut self,
        sequence: Sequence,
        result: Result<Outcome, SessionError>,
    ) -> Vec<Ending> {
        match self.command_mut(sequence) {
            // Of a command that was never sent there can be no answer.
            Some(command) if command.sent && command.answer.is_none() => command.answer = Some(result),
            _ => return Vec::new(),
        }
        let mut endings = Vec::new();
        while let Some(command) = self.commands.pop_front_if(|command| command.answer.is_some()) {
            let sequence = self.lowest;
            self.lowest = sequence.next();
            self.forget_deadline(sequence, command.deadline);
            if let (false, Some(result)) = (command.told, command.answer) {
                endings.push((sequence, result));
            }
        }
        endings
    }

    /// A command was refused before the log (S4). Returns whether that is news: its skip is to be sent now.
    pub(super) fn refuse(&mut self, sequence: Sequence, reason: NotLogged) -> bool {
        match self.command_mut(sequence) {
            Some(command) if command.sent && command.answer.is_none() && command.refused.is_none() => {
                command.refused = Some(reason);
                true
            }
            _ => false,
        }
    }

    /// What a skip that was applied means to the caller.
    pub(super) fn skipped(&mut self, sequence: Sequence) -> SessionError {
        let reason = self.command_mut(sequence).and_then(|command| command.refused);
        reason.map_or_else(|| SessionError::Unknown("skipped by somebody else".into()), not_logged)
    }

    /// Commands whose deadline has passed end for their callers, and stay to be answered (S4).
    pub(super) fn pass_deadlines(&mut self, now: LocalTime) -> Vec<Ending> {
        let mut endings = Vec::new();
        while let Some((deadline, sequence)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(deadline, sequence));
            let Some(command) = self.command_mut(sequence) else {
                continue;
            };
            command.told = true;
            let unknown = || Err(SessionError::Unknown("no answer before the deadline".into()));
            endings.push((sequence, command.answer.clone().unwrap_or_else(unknown)));
        }
        endings
    }

    /// The session is over: everything ends.
    pub(super) fn abandon(&mut self) -> Vec<Ending> {
        let mut endings = Vec::new();
        for command in std::mem::take(&mut self.commands) {
            let sequence = self.lowest;
            self.lowest = sequence.next();
            let result = match (command.answer, command.sent) {
                (Some(answer), _) => answer,
                (None, true) => Err(SessionError::Unknown("the session ended before it was answered".into())),
                (None, false) => Err(SessionError::NotDone(NotDone::SessionEnded)),
            };
            if !command.told {
                endings.push((sequence, result));
            }
        }
        self.deadlines.clear();
        endings
    }

    fn command_mut(&mut self, sequence: Sequence) -> Option<&mut Command> {
        let place = sequence.0.checked_sub(self.lowest.0)?;
        self.commands.get_mut(usize::try_from(place).ok()?)
    }

    fn forget_deadline(&mut self, sequence: Sequence, deadline: Option<LocalTime>) {
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, sequence));
        }
    }
}

/// A refusal before the log in the words of a caller.
pub(super) fn not_logged(reason: NotLogged) -> SessionError {
    SessionError::NotDone(match reason {
        NotLogged::Busy => NotDone::Busy,
        NotLogged::TooLarge => NotDone::TooLarge,
        NotLogged::Forbidden => NotDone::Forbidden,
        NotLogged::Malformed => NotDone::Malformed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn done(index: u64) -> Result<Outcome, SessionError> {
        Ok(Outcome { index: Index(index), body: Bytes::new() })
    }

    fn sent(count: u64) -> Window {
        let mut window = Window::new();
        for _ in 0..count {
            window.submit(Bytes::new(), None);
        }
        assert_eq!(window.send(Sequence(1), window.last_submitted(), SESSION).len() as u64, count);
        window
    }

    fn sequences(endings: &[Ending]) -> Vec<u64> {
        endings.iter().map(|(sequence, _)| sequence.0).collect()
    }

    #[test]
    fn s11_endings_come_in_order_of_submission() {
        let mut window = sent(4);
        assert_eq!(window.answer(Sequence(2), done(2)), []);
        assert_eq!(window.answer(Sequence(3), done(3)), []);
        assert_eq!(window.lowest_unanswered(), Sequence(1));
        assert_eq!(sequences(&window.answer(Sequence(1), done(1))), [1, 2, 3]);
        assert_eq!(window.answer(Sequence(1), done(1)), []);
        assert_eq!((window.lowest_unanswered(), window.last_submitted()), (Sequence(4), Sequence(4)));
        assert_eq!(window.last_completed(), Sequence(3));
        assert_eq!(sequences(&window.answer(Sequence(4), done(4))), [4]);
        assert!(window.is_empty() && !window.awaits_answer());
    }

    #[test]
    fn s4_a_passed_deadline_is_unknown_and_the_command_stays() {
        let mut window = Window::new();
        let at = LocalTime::from_millis;
        let first = window.submit(Bytes::new(), Some(at(10)));
        let second = window.submit(Bytes::new(), Some(at(30)));
        window.send(first, second, SESSION);
        assert_eq!(window.next_deadline(), Some(at(10)));
        assert!(matches!(window.pass_deadlines(at(10))[..], [(Sequence(1), Err(SessionError::Unknown(_)))]));
        assert_eq!(window.send(first, second, SESSION).len(), 2);
        assert_eq!(window.retries(), 2);
        // A known answer is never made unknown, even when it has to jump the queue.
        window.answer(second, done(2));
        assert_eq!(window.pass_deadlines(at(30)), [(second, done(2))]);
        assert_eq!(window.answer(first, done(1)), []);
        assert!(window.is_empty() && window.next_deadline().is_none());
    }

    #[test]
    fn s5_the_end_of_the_session_keeps_outcomes_apart() {
        let mut window = sent(2);
        window.submit(Bytes::new(), None);
        window.answer(Sequence(2), done(2));
        let endings = window.abandon();
        assert!(matches!(endings[0], (Sequence(1), Err(SessionError::Unknown(_)))));
        assert_eq!(endings[1], (Sequence(2), done(2)));
        assert_eq!(endings[2], (Sequence(3), Err(SessionError::NotDone(NotDone::SessionEnded))));
    }

    #[test]
    fn s4_a_refused_command_is_sent_as_a_skip_from_then_on() {
        let mut window = sent(2);
        assert!(window.refuse(Sequence(1), NotLogged::Busy));
        assert!(!window.refuse(Sequence(1), NotLogged::Busy));
        assert!(!window.refuse(Sequence(3), NotLogged::Busy));
        let entries: Vec<_> = window
            .send(Sequence(1), window.last_submitted(), SESSION)
            .iter()
            .map(SessionEntry::decode)
            .collect();
        assert!(matches!(entries[..], [Ok(SessionEntry::Skip(_)), Ok(SessionEntry::Command(..))]));
        assert_eq!(window.skipped(Sequence(1)), SessionError::NotDone(NotDone::Busy));
    }

    #[test]
    fn answers_to_what_was_never_sent_are_not_believed() {
        let mut window = Window::new();
        window.submit(Bytes::new(), None);
        for sequence in [0, 1, 2, u64::MAX] {
            assert_eq!(window.answer(Sequence(sequence), done(1)), []);
        }
        assert_eq!(window.len(), 1);
    }
}
