//! The table and the state machine as bytes (M4).
//!
//! A snapshot is a list of parts, each `name length u8 | name | version u16 LE | length u64 LE | bytes`:
//!
//! | part | version | bytes |
//! |---|---|---|
//! | `sessions` | 2 | a [`Head`], then as many [`BodyImage`]s and [`SessionImage`]s as it says, each ascending; postcard |
//! | `machine` | 1 | what the state machine wrote, up to the trailer |
//!
//! The state machine writes its state as a stream, so that its length is not known up front: the length of the last part is
//! [`TO_THE_TRAILER`], and the true one ends the snapshot, `u64 LE`. Equal states give equal bytes. The body of an event is
//! written once, however many outboxes share it, and is shared again once it is read.

use std::collections::BTreeMap;
use std::io::{self, Write};

use atomix_protocol::client::ReplyOutcome;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{ClientId, ClusterTime, Index, InstanceId, Sequence, SessionId, SessionKey, codec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::outbox::{Draft, Outbox, Stored};
use super::record::{KeptReply, Record};
use super::{State, Table};
use crate::state_machine::{KindLevel, RestoreError, SnapshotSource, StateMachine};
use crate::timers::Timers;

const SESSIONS: (&str, u16) = ("sessions", 2);
const MACHINE: (&str, u16) = ("machine", 1);
/// In place of a length: the part ends where the trailer begins.
const TO_THE_TRAILER: u64 = u64::MAX;

/// What comes before the sessions.
#[derive(Serialize, Deserialize)]
struct Head {
    index: Index,
    time: ClusterTime,
    timers: Timers,
    levels: Vec<(String, u16)>,
    cleaning: Vec<(Index, SessionId)>,
    bodies: u64,
    sessions: u64,
}

/// The body of events.
#[derive(Serialize, Deserialize)]
struct BodyImage {
    /// Where they were published.
    index: Index,
    /// Which of that index it is.
    number: u32,
    body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct SessionImage {
    session: SessionId,
    client: ClientId,
    attempt: u64,
    predecessor: Option<u64>,
    key: SessionKey,
    principal: String,
    timeout_ms: u64,
    last_sequence: Sequence,
    lowest_unanswered: Sequence,
    given_up: bool,
    /// The last event that is not in the outbox any more.
    trimmed: Index,
    /// Of the events behind that.
    events: Vec<EventImage>,
    /// Of the sequences up to the last.
    replies: Vec<ReplyImage>,
}

#[derive(Serialize, Deserialize)]
struct EventImage {
    index: Index,
    atomic: bool,
    /// The numbers of the bodies.
    bodies: Vec<u32>,
    parts: Vec<(InstanceId, u32)>,
}

#[derive(Serialize, Deserialize)]
struct ReplyImage {
    index: Index,
    event_index: Index,
    atomic: bool,
    outcome: ReplyOutcome,
    body: Bytes,
}

/// The bodies of a snapshot, and whether any event has each.
type Bodies = BTreeMap<(Index, u32), (Bytes, bool)>;

/// The sessions of a snapshot, not in use.
#[derive(Debug)]
pub struct Restored(State);

impl Restored {
    /// Reads a whole snapshot: the sessions, and the state machine's part into `machine`.
    ///
    /// # Errors
    /// If the bytes are not such a snapshot. What is in `machine` is then unspecified.
    pub fn read(snapshot: &Bytes, machine: &mut dyn StateMachine) -> Result<Self, RestoreError> {
        let (sessions, machine_bytes) = split(snapshot)?;
        let state = State::read(sessions)?;
        machine.restore(machine_bytes)?;
        Ok(Restored(state))
    }
}

struct Source {
    state: State,
    machine: Box<dyn SnapshotSource>,
}

impl Table {
    /// The table and the state machine as they are, as one source of named, length-prefixed, versioned parts (M4).
    #[must_use]
    pub fn snapshot(&self, machine: &dyn StateMachine) -> Box<dyn SnapshotSource> {
        let mut state = self.state.clone();
        if Mutant::B25.active() {
            state = State { index: state.index, time: state.time, timers: state.timers, ..State::default() };
        }
        Box::new(Source { state, machine: machine.snapshot() })
    }

    /// Replaces both by those of a snapshot.
    ///
    /// # Errors
    /// If the bytes are not such a snapshot. Both are then unspecified.
    pub fn restore(&mut self, snapshot: &Bytes, machine: &mut dyn StateMachine) -> Result<(), RestoreError> {
        self.replace(Restored::read(snapshot, machine)?);
        Ok(())
    }

    /// Puts a state that was read in place of the present one, which is returned: to drop it takes its time.
    pub fn replace(&mut self, restored: Restored) -> Restored {
        Restored(core::mem::replace(&mut self.state, restored.0))
    }

    /// A hash of the replicated state, for checkers: equal on replicas that applied the same entries. Reads all of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        self.state.write(&mut digest).expect("hashing can't fail");
        digest.0
    }
}

impl SnapshotSource for Source {
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        // Written twice rather than held twice: replies can be most of the memory.
        let mut length = Count(0);
        self.state.write(&mut length)?;
        begin_part(out, SESSIONS, length.0)?;
        self.state.write(out)?;
        begin_part(out, MACHINE, TO_THE_TRAILER)?;
        let mut counted = Counted { out, count: Count(0) };
        self.machine.write_to(&mut counted)?;
        let length = counted.count.0;
        out.write_all(&length.to_le_bytes())
    }
}

fn begin_part(out: &mut dyn Write, (name, version): (&str, u16), length: u64) -> io::Result<()> {
    out.write_all(&[u8::try_from(name.len()).expect("names of parts are short")])?;
    out.write_all(name.as_bytes())?;
    out.write_all(&version.to_le_bytes())?;
    out.write_all(&length.to_le_bytes())
}

/// The bytes of the two parts.
fn split(snapshot: &Bytes) -> Result<(Bytes, Bytes), RestoreError> {
    let mut rest = snapshot.clone();
    let length = take_part_header(&mut rest, SESSIONS)?;
    let sessions = take(&mut rest, usize::try_from(length).unwrap_or(usize::MAX))?;
    if take_part_header(&mut rest, MACHINE)? != TO_THE_TRAILER {
        return Err(malformed("length of the last part"));
    }
    let length = rest.len().checked_sub(8).ok_or_else(|| malformed("truncated"))?;
    let machine = take(&mut rest, length)?;
    if take_number::<8>(&mut rest)? != (length as u64).to_le_bytes() {
        return Err(malformed("trailer"));
    }
    Ok((sessions, machine))
}

fn take_part_header(rest: &mut Bytes, (name, version): (&str, u16)) -> Result<u64, RestoreError> {
    let [length] = take_number::<1>(rest)?;
    if take(rest, usize::from(length))? != name.as_bytes() {
        return Err(RestoreError(format!("part `{name}` is missing")));
    }
    let found = u16::from_le_bytes(take_number(rest)?);
    if found != version {
        return Err(RestoreError(format!("part `{name}` has version {found}, not {version}")));
    }
    Ok(u64::from_le_bytes(take_number(rest)?))
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes, RestoreError> {
    if rest.len() < length {
        return Err(malformed("truncated"));
    }
    Ok(rest.split_to(length))
}

fn take_number<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], RestoreError> {
    let mut number = [0; N];
    number.copy_from_slice(&take(rest, N)?);
    Ok(number)
}

fn malformed(what: &str) -> RestoreError {
    RestoreError(format!("malformed: {what}"))
}

impl State {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let bodies = self.bodies();
        let head = Head {
            index: self.index,
            time: self.time,
            timers: self.timers.clone(),
            levels: self.levels.iter().map(|(kind, level)| (kind.to_owned(), level)).collect(),
            cleaning: self.cleaning.iter().map(|(index, session)| (*index, *session)).collect(),
            bodies: bodies.len() as u64,
            sessions: self.sessions.len() as u64,
        };
        out.write_all(&codec::to_bytes(&head))?;
        for ((index, number), body) in bodies {
            out.write_all(&codec::to_bytes(&BodyImage { index, number, body: body.clone() }))?;
        }
        for (session, record) in &self.sessions {
            out.write_all(&codec::to_bytes(&SessionImage::of(*session, record)))?;
        }
        Ok(())
    }

    /// The bodies in all outboxes, each once: one of an index has the same number in all of them.
    fn bodies(&self) -> BTreeMap<(Index, u32), &Bytes> {
        let events = self.sessions.iter().flat_map(|(_, record)| record.outbox.iter());
        let bodies = events.flat_map(|(index, stored)| {
            let numbers = stored.numbers.iter().map(move |number| (index, *number));
            numbers.zip(&stored.event.bodies)
        });
        bodies.collect()
    }

    fn read(bytes: Bytes) -> Result<State, RestoreError> {
        let (head, mut rest) =
            codec::take_from_bytes::<Head>(&bytes).map_err(|_| malformed("head of sessions"))?;
        let mut state = State { index: head.index, time: head.time, timers: head.timers, ..State::default() };
        let mut bodies = Bodies::new();
        for _ in 0..head.bodies {
            let (image, left) =
                codec::take_from_bytes::<BodyImage>(&rest).map_err(|_| malformed("a body"))?;
            rest = left;
            let key = (image.index, image.number);
            if bodies.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(malformed("order of bodies"));
            }
            bodies.insert(key, (image.body, false));
        }
        for _ in 0..head.sessions {
            let (image, left) =
                codec::take_from_bytes::<SessionImage>(&rest).map_err(|_| malformed("a session"))?;
            rest = left;
            state.read_session(image, &mut bodies)?;
        }
        if !rest.is_empty() || bodies.values().any(|(_, used)| !used) {
            return Err(malformed("more than its sessions"));
        }
        state.read_lists(head.levels, head.cleaning)?;
        Ok(state)
    }

    fn read_session(&mut self, image: SessionImage, bodies: &mut Bodies) -> Result<(), RestoreError> {
        let session = image.session;
        let ascending = self.sessions.get_max().is_none_or(|(last, _)| *last < session);
        if !ascending || session.0 > self.index.0 {
            return Err(malformed("order of sessions"));
        }
        if self.by_client.insert(image.client, session).is_some() {
            return Err(malformed("two sessions of one client"));
        }
        let record = image.into_record(bodies)?;
        let last = record.outbox.last();
        // A session has no events before it was opened.
        if last > self.index
            || (record.outbox.trimmed() > Index::ZERO && record.outbox.trimmed().0 < session.0)
        {
            return Err(malformed("events that can't be"));
        }
        let atomic = record.outbox.iter().filter(|(_, stored)| stored.event.atomic);
        self.awaited.extend(atomic.map(|(index, _)| (index, session)));
        self.sessions.insert(session, record);
        Ok(())
    }

    fn read_lists(
        &mut self,
        levels: Vec<(String, u16)>,
        cleaning: Vec<(Index, SessionId)>,
    ) -> Result<(), RestoreError> {
        let over = |(ended_at, session): &(Index, SessionId)| {
            *ended_at <= self.index && session.0 < ended_at.0 && !self.sessions.contains_key(session)
        };
        if !cleaning.is_sorted_by(|a, b| a.0 < b.0) || !cleaning.iter().all(over) {
            return Err(malformed("clean-ups"));
        }
        if !levels.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(malformed("levels"));
        }
        self.cleaning = cleaning.into_iter().collect();
        self.levels = levels.into_iter().map(|(kind, level)| KindLevel { kind, level }).collect();
        Ok(())
    }
}

impl SessionImage {
    fn of(session: SessionId, record: &Record) -> Self {
        let reply = |reply: &KeptReply| ReplyImage {
            index: reply.index,
            event_index: reply.event_index,
            atomic: reply.atomic,
            outcome: reply.outcome,
            body: reply.body.clone(),
        };
        SessionImage {
            session,
            client: record.client,
            attempt: record.attempt,
            predecessor: record.predecessor,
            key: record.key,
            principal: record.principal.clone(),
            timeout_ms: record.timeout_ms,
            last_sequence: record.last_sequence,
            lowest_unanswered: record.lowest_unanswered,
            given_up: record.given_up,
            trimmed: record.outbox.trimmed(),
            events: record.outbox.iter().map(|(index, stored)| EventImage::of(index, stored)).collect(),
            replies: record.replies.iter().map(|(_, kept)| reply(kept)).collect(),
        }
    }

    fn into_record(self, bodies: &mut Bodies) -> Result<Record, RestoreError> {
        let kept = self.replies.len() as u64;
        let first = self.last_sequence.next().since(Sequence(kept));
        let lowest = self.lowest_unanswered;
        if lowest < Sequence(1) || lowest > self.last_sequence.next() || (kept > 0 && first < lowest.0) {
            return Err(malformed("sequences of a session"));
        }
        let replies = self.replies.into_iter().zip(first..).map(|(image, sequence)| {
            let ReplyImage { index, event_index, atomic, outcome, body } = image;
            (Sequence(sequence), KeptReply { index, event_index, atomic, outcome, body })
        });
        if self.given_up && !self.events.is_empty() {
            return Err(malformed("events of a session that gets none"));
        }
        let mut outbox = Outbox::after(self.trimmed);
        for image in self.events {
            if image.index <= outbox.last() || image.index.0 < self.session.0 {
                return Err(malformed("order of events"));
            }
            outbox.push(image.index, image.atomic, image.draft(bodies)?);
        }
        Ok(Record {
            client: self.client,
            attempt: self.attempt,
            predecessor: self.predecessor,
            key: self.key,
            principal: self.principal,
            timeout_ms: self.timeout_ms,
            last_sequence: self.last_sequence,
            lowest_unanswered: lowest,
            outbox,
            given_up: self.given_up,
            replies: replies.collect(),
        })
    }
}

impl EventImage {
    fn of(index: Index, stored: &Stored) -> Self {
        let event = &stored.event;
        EventImage { index, atomic: event.atomic, bodies: stored.numbers.clone(), parts: event.parts.clone() }
    }

    /// The event with its bodies. They stand in the order in which its parts have them, each once.
    fn draft(&self, bodies: &mut Bodies) -> Result<Draft, RestoreError> {
        let mut draft = Draft::default();
        let mut seen = 0;
        for (instance, place) in &self.parts {
            let number = usize::try_from(*place).ok().and_then(|place| self.bodies.get(place));
            let number = *number.ok_or_else(|| malformed("an event without its body"))?;
            let (body, used) =
                bodies.get_mut(&(self.index, number)).ok_or_else(|| malformed("a body that is not there"))?;
            *used = true;
            if draft.add(*instance, number, body) != *place || *place > seen {
                return Err(malformed("order of the bodies of an event"));
            }
            seen = seen.max(*place + 1);
        }
        if self.parts.is_empty() || seen as usize != self.bodies.len() || !draft.fits() {
            return Err(malformed("an event"));
        }
        Ok(draft)
    }
}

/// Counts bytes.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes bytes on and counts them.
struct Counted<'a> {
    out: &'a mut dyn Write,
    count: Count,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.count.0 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// FNV-1a: the same everywhere, and enough against accidents.
struct Digest(u64);

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
