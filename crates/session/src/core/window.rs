//! Commands between their submission and their end: sequences, order, deadlines (S2, S4, S5, S11).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use atomix_protocol::client::NotLogged;
use atomix_protocol::envelope::Envelope;
use atomix_protocol::session::{CommandHeader, SessionEntry};
use atomix_protocol::{Index, InstanceId, LocalTime, Sequence, SessionId};
use bytes::Bytes;

use crate::outcome::{NotDone, Outcome, SessionError};

/// How a command ended.
pub(super) type Ending = (Sequence, Result<Outcome, SessionError>);

/// Whose endings come in order: those of one instance, or of what belongs to none (S11).
type Stream = Option<InstanceId>;

/// Commands that were submitted, until they are answered and their callers were told.
#[derive(Debug)]
pub(super) struct Window {
    /// The sequence of the first command, or of the next to be submitted.
    lowest: Sequence,
    /// Without holes from `lowest` on. Invariant: the first is unanswered, or its caller was not told.
    commands: VecDeque<Command>,
    /// Streams with commands whose callers were not told: the first and the last of these.
    streams: BTreeMap<Stream, (Sequence, Sequence)>,
    /// All events up to here were delivered (Q2).
    events: Index,
    /// Answers that wait for an event, whose callers were not told.
    waiting: BTreeSet<(Index, Sequence)>,
    /// Of commands whose caller still waits.
    deadlines: BTreeSet<(LocalTime, Sequence)>,
    /// How many commands were sent and are unanswered.
    unanswered: u64,
    retries: u64,
}

#[derive(Debug)]
struct Command {
    body: Bytes,
    stream: Stream,
    /// The next of its stream.
    next: Option<Sequence>,
    deadline: Option<LocalTime>,
    /// Sent at least once: it may have been done.
    sent: bool,
    /// Refused before the log, and why: sent as a skip from then on (S4).
    refused: Option<NotLogged>,
    /// Not given up because a server is busy or full: nobody would submit it again.
    insists: bool,
    /// Its caller was told how it ended.
    told: bool,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    result: Result<Outcome, SessionError>,
    /// The event that comes before it (Q2).
    event: Index,
}

impl Window {
    pub(super) fn new() -> Self {
        Window {
            lowest: Sequence(1),
            commands: VecDeque::new(),
            streams: BTreeMap::new(),
            events: Index::ZERO,
            waiting: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            unanswered: 0,
            retries: 0,
        }
    }

    /// Takes the next sequence (S2).
    pub(super) fn submit(&mut self, body: Bytes, deadline: Option<LocalTime>) -> Sequence {
        let sequence = self.last_submitted().next();
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, sequence));
        }
        let stream = Envelope::instance(&body);
        let (_, last) = self.streams.entry(stream).or_insert((sequence, sequence));
        let before = std::mem::replace(last, sequence);
        if let Some(before) = self.command_mut(before) {
            before.next = Some(sequence);
        }
        self.commands.push_back(Command {
            body,
            stream,
            next: None,
            deadline,
            sent: false,
            refused: None,
            insists: false,
            told: false,
            answer: None,
        });
        sequence
    }

    /// A command that nobody waits for: refused for want of room, it is sent again as it is until it is taken.
    pub(super) fn insist(&mut self, sequence: Sequence) {
        if let Some(command) = self.command_mut(sequence) {
            command.insists = true;
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.commands.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The lowest sequence that is unanswered, or whose caller was not told: from here on replies are to be kept (S4).
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
        self.unanswered > 0
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries
    }

    pub(super) fn next_deadline(&self) -> Option<LocalTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What to send of `from` through `through`: unanswered commands in order, each as it stands now.
    pub(super) fn send(
        &mut self,
        from: Sequence,
        through: Sequence,
        session: SessionId,
        acknowledged_event: Index,
    ) -> Vec<Bytes> {
        let lowest_unanswered = self.lowest;
        let end = self.place(through.next()).min(self.commands.len());
        let first = self.place(from).min(end);
        let mut entries = Vec::new();
        for (sequence, command) in (self.lowest.0 + first as u64..).zip(self.commands.range_mut(first..end)) {
            if command.answer.is_some() {
                continue;
            }
            if std::mem::replace(&mut command.sent, true) {
                self.retries += 1;
            } else {
                self.unanswered += 1;
            }
            let sequence = Sequence(sequence);
            let header = CommandHeader { session, sequence, lowest_unanswered, acknowledged_event };
            entries.push(match command.refused {
                None => SessionEntry::Command(header, command.body.clone()).encode(),
                Some(_) => SessionEntry::Skip(header).encode(),
            });
        }
        entries
    }

    /// An answer arrived, that comes behind an event. Returns what ended by it, in order of submission per stream (S11).
    pub(super) fn answer(
        &mut self,
        sequence: Sequence,
        result: Result<Outcome, SessionError>,
        event: Index,
    ) -> Vec<Ending> {
        let mut endings = Vec::new();
        let Some(command) = self.command_mut(sequence) else {
            return endings;
        };
        // Of a command that was never sent there can be no answer.
        if !command.sent || command.answer.is_some() {
            return endings;
        }
        command.answer = Some(Answer { result, event });
        let (stream, told) = (command.stream, command.told);
        self.unanswered -= 1;
        if event > self.events && !told {
            self.waiting.insert((event, sequence));
        } else {
            self.tell(stream, &mut endings);
        }
        self.forget();
        endings
    }

    /// All events up to `through` were delivered. Returns what ended by that (Q2).
    pub(super) fn release(&mut self, through: Index) -> Vec<Ending> {
        self.events = through;
        let mut ready = BTreeSet::new();
        while let Some((event, sequence)) = self.waiting.first().copied().filter(|(at, _)| *at <= through) {
            self.waiting.remove(&(event, sequence));
            ready.insert(sequence);
        }
        let mut endings = Vec::new();
        for sequence in ready {
            if let Some(stream) = self.command_mut(sequence).map(|command| command.stream) {
                self.tell(stream, &mut endings);
            }
        }
        self.forget();
        endings
    }

    /// A command was refused before the log (S4). Returns whether that is news: its skip is to be sent now.
    pub(super) fn refuse(&mut self, sequence: Sequence, reason: NotLogged) -> bool {
        match self.command_mut(sequence) {
            Some(command) if command.insists && passes(reason) => false,
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

    /// Commands whose deadline has passed end for their callers, and stay to be answered (S4). A known answer is not made unknown
    /// unless it would have to overtake an event (Q2).
    pub(super) fn pass_deadlines(&mut self, now: LocalTime) -> Vec<Ending> {
        let (mut endings, events) = (Vec::new(), self.events);
        while let Some((deadline, sequence)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(deadline, sequence));
            let Some(command) = self.command_mut(sequence) else {
                continue;
            };
            command.told = true;
            let (stream, event) = (command.stream, command.answer.as_ref().map(|answer| answer.event));
            let known = command.answer.as_ref().filter(|answer| answer.event <= events);
            let unknown = || Err(SessionError::Unknown("no answer before the deadline".into()));
            endings.push((sequence, known.map_or_else(unknown, |answer| answer.result.clone())));
            if let Some(event) = event {
                self.waiting.remove(&(event, sequence));
            }
            self.tell(stream, &mut endings);
        }
        self.forget();
        endings
    }

    /// The session is over: everything ends.
    pub(super) fn abandon(&mut self) -> Vec<Ending> {
        let mut endings = Vec::new();
        for command in std::mem::take(&mut self.commands) {
            let sequence = self.lowest;
            self.lowest = sequence.next();
            let result = match (command.answer, command.sent) {
                (Some(answer), _) => answer.result,
                (None, true) => Err(SessionError::Unknown("the session ended before it was answered".into())),
                (None, false) => Err(SessionError::NotDone(NotDone::SessionEnded)),
            };
            if !command.told {
                endings.push((sequence, result));
            }
        }
        self.streams.clear();
        self.waiting.clear();
        self.deadlines.clear();
        self.unanswered = 0;
        endings
    }

    /// Ends what can be told of a stream: none before an earlier one (S11), none before its event (Q2).
    fn tell(&mut self, stream: Stream, endings: &mut Vec<Ending>) {
        let Some((mut first, last)) = self.streams.get(&stream).copied() else {
            return;
        };
        let events = self.events;
        while let Some(command) = self.command_mut(first) {
            if !command.told {
                let Some(answer) = command.answer.as_ref().filter(|answer| answer.event <= events) else {
                    break;
                };
                endings.push((first, answer.result.clone()));
                command.told = true;
            }
            let (next, deadline) = (command.next, command.deadline);
            if let Some(deadline) = deadline {
                self.deadlines.remove(&(deadline, first));
            }
            let Some(next) = next else {
                self.streams.remove(&stream);
                return;
            };
            first = next;
        }
        self.streams.insert(stream, (first, last));
    }

    /// Drops the first commands, as far as nothing more can come of them.
    fn forget(&mut self) {
        while self.commands.pop_front_if(|command| command.told && command.answer.is_some()).is_some() {
            self.lowest = self.lowest.next();
        }
    }

    fn command_mut(&mut self, sequence: Sequence) -> Option<&mut Command> {
        let place = sequence.0.checked_sub(self.lowest.0)?;
        self.commands.get_mut(usize::try_from(place).ok()?)
    }

    fn place(&self, sequence: Sequence) -> usize {
        usize::try_from(sequence.since(self.lowest)).unwrap_or(usize::MAX)
    }
}

/// Whether a refusal before the log is for want of room, which may be there soon.
pub(super) fn passes(reason: NotLogged) -> bool {
    matches!(reason, NotLogged::Busy | NotLogged::Full)
}

/// A refusal before the log in the words of a caller.
pub(super) fn not_logged(reason: NotLogged) -> SessionError {
    SessionError::NotDone(match reason {
        NotLogged::Busy => NotDone::Busy,
        NotLogged::TooLarge => NotDone::TooLarge,
        NotLogged::Forbidden => NotDone::Forbidden,
        NotLogged::Malformed => NotDone::Malformed,
        NotLogged::Level => NotDone::UnknownKind,
        NotLogged::Full => NotDone::Full,
    })
}

#[cfg(test)]
mod tests {
    use atomix_protocol::envelope::Operation;

    use super::*;

    const SESSION: SessionId = SessionId(7);
    const NONE: Index = Index::ZERO;

    fn done(index: u64) -> Result<Outcome, SessionError> {
        Ok(Outcome { index: Index(index), body: Bytes::new() })
    }

    /// A command of an instance; zero for none.
    fn command_of(instance: u64) -> Bytes {
        if instance == 0 {
            return Bytes::new();
        }
        let operation = Operation { instance: InstanceId(instance), number: 1 };
        Envelope::Operation(operation, Bytes::new()).encode()
    }

    fn send_all(window: &mut Window) -> Vec<Bytes> {
        window.send(Sequence::ZERO, window.last_submitted(), SESSION, Index(3))
    }

    /// A window with commands of these instances, all sent.
    fn sent(instances: &[u64]) -> Window {
        let mut window = Window::new();
        for instance in instances {
            window.submit(command_of(*instance), None);
        }
        assert_eq!(send_all(&mut window).len(), instances.len());
        window
    }

    fn sequences(endings: &[Ending]) -> Vec<u64> {
        endings.iter().map(|(sequence, _)| sequence.0).collect()
    }

    fn answer(window: &mut Window, sequence: u64) -> Vec<u64> {
        sequences(&window.answer(Sequence(sequence), done(sequence), NONE))
    }

    #[test]
    fn s11_endings_come_in_order_of_submission() {
        let mut window = sent(&[5; 4]);
        assert_eq!(answer(&mut window, 2), []);
        assert_eq!(answer(&mut window, 3), []);
        assert_eq!(window.lowest_unanswered(), Sequence(1));
        assert_eq!(answer(&mut window, 1), [1, 2, 3]);
        assert_eq!(answer(&mut window, 1), []);
        assert_eq!((window.lowest_unanswered(), window.last_submitted()), (Sequence(4), Sequence(4)));
        assert_eq!(window.last_completed(), Sequence(3));
        assert!(window.awaits_answer());
        assert_eq!(answer(&mut window, 4), [4]);
        assert!(window.is_empty() && !window.awaits_answer() && window.streams.is_empty());
    }

    #[test]
    fn s11_e6_a_held_reply_holds_back_only_its_own_handle() {
        let mut window = sent(&[5, 0, 6, 5, 0, 6]);
        assert_eq!(answer(&mut window, 6), [], "behind 3");
        assert_eq!(answer(&mut window, 3), [3, 6]);
        assert_eq!(answer(&mut window, 5), [], "what belongs to no instance is a stream of its own");
        assert_eq!(answer(&mut window, 2), [2, 5]);
        assert_eq!(window.lowest_unanswered(), Sequence(1), "its reply is still to be kept (S4)");
        assert_eq!(answer(&mut window, 4), []);
        assert_eq!(window.submit(command_of(6), None), Sequence(7));
        assert_eq!(send_all(&mut window).len(), 2, "what is answered is not sent again");
        assert_eq!(answer(&mut window, 7), [7]);
        assert_eq!(answer(&mut window, 1), [1, 4]);
        assert!(window.is_empty() && window.streams.is_empty());
    }

    #[test]
    fn q2_a_reply_waits_for_its_event_and_holds_back_what_is_behind_it() {
        let mut window = sent(&[5, 6, 5, 5]);
        assert_eq!(window.release(Index(9)), []);
        assert_eq!(window.answer(Sequence(1), done(11), Index(11)), []);
        assert_eq!(sequences(&window.answer(Sequence(2), done(12), Index(9))), [2]);
        assert_eq!(window.answer(Sequence(3), done(13), Index(9)), [], "S11");
        assert_eq!(window.answer(Sequence(4), done(14), Index(14)), []);
        assert_eq!(window.release(Index(10)), []);
        assert_eq!((window.lowest_unanswered(), window.awaits_answer()), (Sequence(1), false));
        assert_eq!(sequences(&window.release(Index(11))), [1, 3]);
        assert_eq!(sequences(&window.release(Index(14))), [4]);
        assert!(window.is_empty() && window.waiting.is_empty());
    }

    #[test]
    fn s4_a_passed_deadline_is_unknown_and_the_command_stays() {
        let mut window = Window::new();
        let at = LocalTime::from_millis;
        let first = window.submit(Bytes::new(), None);
        let second = window.submit(Bytes::new(), Some(at(10)));
        let third = window.submit(Bytes::new(), Some(at(30)));
        send_all(&mut window);
        assert_eq!(window.next_deadline(), Some(at(10)));
        assert!(matches!(window.pass_deadlines(at(10))[..], [(Sequence(2), Err(SessionError::Unknown(_)))]));
        assert_eq!(send_all(&mut window).len(), 3);
        assert_eq!(window.retries(), 3);
        // A known answer is not made unknown, even when it has to jump the queue.
        assert_eq!(window.answer(third, done(3), NONE), []);
        assert_eq!(window.pass_deadlines(at(30)), [(third, done(3))]);
        assert_eq!(sequences(&window.answer(first, done(1), NONE)), [1]);
        assert_eq!((window.len(), window.lowest_unanswered()), (2, second), "it is still to be answered");
        assert_eq!(window.answer(second, done(2), NONE), []);
        assert!(window.is_empty() && window.next_deadline().is_none() && window.streams.is_empty());
    }

    #[test]
    fn s4_q2_past_its_deadline_a_reply_does_not_overtake_its_event() {
        let mut window = Window::new();
        let at = LocalTime::from_millis;
        let first = window.submit(Bytes::new(), Some(at(10)));
        let second = window.submit(Bytes::new(), None);
        send_all(&mut window);
        assert_eq!(window.answer(first, done(8), Index(8)), []);
        assert_eq!(window.answer(second, done(9), NONE), []);
        let endings = window.pass_deadlines(at(10));
        assert!(matches!(endings[0], (Sequence(1), Err(SessionError::Unknown(_)))), "{endings:?}");
        assert_eq!(endings[1..], [(second, done(9))], "nobody before it is to be told any more");
        assert!(window.is_empty() && window.waiting.is_empty());
        assert_eq!(window.release(Index(8)), []);
    }

    #[test]
    fn s5_the_end_of_the_session_keeps_outcomes_apart() {
        let mut window = sent(&[0, 0, 0]);
        window.submit(Bytes::new(), None);
        assert_eq!(window.answer(Sequence(2), done(2), NONE), []);
        assert_eq!(window.answer(Sequence(3), done(3), Index(3)), []);
        let endings = window.abandon();
        assert!(matches!(endings[0], (Sequence(1), Err(SessionError::Unknown(_)))));
        assert_eq!(endings[1], (Sequence(2), done(2)));
        assert_eq!(endings[2], (Sequence(3), done(3)), "what was done was done, whatever it waited for");
        assert_eq!(endings[3], (Sequence(4), Err(SessionError::NotDone(NotDone::SessionEnded))));
        assert!(!window.awaits_answer() && window.release(Index(9)).is_empty());
    }

    #[test]
    fn s4_a_refused_command_is_sent_as_a_skip_from_then_on() {
        let mut window = sent(&[0, 0]);
        assert!(window.refuse(Sequence(1), NotLogged::Busy));
        assert!(!window.refuse(Sequence(1), NotLogged::Busy));
        assert!(!window.refuse(Sequence(3), NotLogged::Busy));
        let entries: Vec<_> = send_all(&mut window).iter().map(SessionEntry::decode).collect();
        assert!(matches!(entries[..], [Ok(SessionEntry::Skip(_)), Ok(SessionEntry::Command(..))]));
        assert_eq!(window.skipped(Sequence(1)), SessionError::NotDone(NotDone::Busy));
    }

    #[test]
    fn e2_commands_carry_the_acknowledgement() {
        let mut window = sent(&[0]);
        let Ok(SessionEntry::Command(header, _)) = SessionEntry::decode(&send_all(&mut window)[0]) else {
            panic!("a command")
        };
        assert_eq!((header.sequence, header.acknowledged_event), (Sequence(1), Index(3)));
    }

    #[test]
    fn answers_to_what_was_never_sent_are_not_believed() {
        let mut window = Window::new();
        window.submit(Bytes::new(), None);
        for sequence in [0, 1, 2, u64::MAX] {
            assert_eq!(window.answer(Sequence(sequence), done(1), NONE), []);
        }
        assert_eq!(window.len(), 1);
    }
}
