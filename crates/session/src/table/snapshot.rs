//! The table and the state machine as bytes (M4).
//!
//! A snapshot is a list of parts, each `name length u8 | name | version u16 LE | length u64 LE | bytes`:
//!
//! | part | version | bytes |
//! |---|---|---|
//! | `sessions` | 1 | a [`Head`], then as many [`SessionImage`]s as it says, ascending; postcard |
//! | `machine` | 1 | what the state machine wrote, up to the trailer |
//!
//! The state machine writes its state as a stream, so that its length is not known up front: the length of the last part is
//! [`TO_THE_TRAILER`], and the true one ends the snapshot, `u64 LE`. Equal states give equal bytes.

use std::io::{self, Write};

use atomix_protocol::client::ReplyOutcome;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{ClientId, ClusterTime, Index, Sequence, SessionId, SessionKey, codec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::{KeptReply, Record};
use super::{State, Table};
use crate::state_machine::{RestoreError, SnapshotSource, StateMachine};
use crate::timers::Timers;

const SESSIONS: (&str, u16) = ("sessions", 1);
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
    sessions: u64,
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
    event_index: Index,
    /// Of the sequences up to the last.
    replies: Vec<ReplyImage>,
}

#[derive(Serialize, Deserialize)]
struct ReplyImage {
    index: Index,
    event_index: Index,
    outcome: ReplyOutcome,
    body: Bytes,
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
        let (sessions, machine_bytes) = split(snapshot)?;
        let state = State::read(sessions)?;
        machine.restore(machine_bytes)?;
        self.state = state;
        Ok(())
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
        let head = Head {
            index: self.index,
            time: self.time,
            timers: self.timers.clone(),
            levels: self.levels.iter().map(|(kind, level)| (kind.clone(), *level)).collect(),
            cleaning: self.cleaning.iter().map(|(index, session)| (*index, *session)).collect(),
            sessions: self.sessions.len() as u64,
        };
        out.write_all(&codec::to_bytes(&head))?;
        for (session, record) in &self.sessions {
            out.write_all(&codec::to_bytes(&SessionImage::of(*session, record)))?;
        }
        Ok(())
    }

    fn read(bytes: Bytes) -> Result<State, RestoreError> {
        let (head, mut rest) =
            codec::take_from_bytes::<Head>(&bytes).map_err(|_| malformed("head of sessions"))?;
        let mut state = State { index: head.index, time: head.time, timers: head.timers, ..State::default() };
        for _ in 0..head.sessions {
            let (image, left) =
                codec::take_from_bytes::<SessionImage>(&rest).map_err(|_| malformed("a session"))?;
            rest = left;
            state.read_session(image)?;
        }
        if !rest.is_empty() {
            return Err(malformed("more than its sessions"));
        }
        state.read_lists(head.levels, head.cleaning)?;
        Ok(state)
    }

    fn read_session(&mut self, image: SessionImage) -> Result<(), RestoreError> {
        let session = image.session;
        let ascending = self.sessions.get_max().is_none_or(|(last, _)| *last < session);
        if !ascending || session.0 > self.index.0 {
            return Err(malformed("order of sessions"));
        }
        if self.by_client.insert(image.client, session).is_some() {
            return Err(malformed("two sessions of one client"));
        }
        self.sessions.insert(session, image.into_record()?);
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
        self.levels = levels.into_iter().collect();
        Ok(())
    }
}

impl SessionImage {
    fn of(session: SessionId, record: &Record) -> Self {
        let reply = |reply: &KeptReply| ReplyImage {
            index: reply.index,
            event_index: reply.event_index,
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
            event_index: record.event_index,
            replies: record.replies.iter().map(|(_, kept)| reply(kept)).collect(),
        }
    }

    fn into_record(self) -> Result<Record, RestoreError> {
        let kept = self.replies.len() as u64;
        let first = self.last_sequence.next().since(Sequence(kept));
        let lowest = self.lowest_unanswered;
        if lowest < Sequence(1) || lowest > self.last_sequence.next() || (kept > 0 && first < lowest.0) {
            return Err(malformed("sequences of a session"));
        }
        let replies = self.replies.into_iter().zip(first..).map(|(image, sequence)| {
            let ReplyImage { index, event_index, outcome, body } = image;
            (Sequence(sequence), KeptReply { index, event_index, outcome, body })
        });
        Ok(Record {
            client: self.client,
            attempt: self.attempt,
            predecessor: self.predecessor,
            key: self.key,
            principal: self.principal,
            timeout_ms: self.timeout_ms,
            last_sequence: self.last_sequence,
            lowest_unanswered: lowest,
            event_index: self.event_index,
            replies: replies.collect(),
        })
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
