//! A table with its state machine, and a log that grows by one entry at a time.

use atomix_protocol::session::{Acknowledged, CommandHeader, Expire, Open, Overflow, SessionEntry};
use atomix_protocol::{
    ClientId, ClusterTime, Entry, EntryId, EntryKind, Index, Sequence, SessionId, SessionKey, Term,
};
use atomix_session::table::{Effect, Limits, Table};
use bytes::Bytes;

use crate::ledger::Ledger;

pub(crate) const TERM: Term = Term(3);
const LIMITS: Limits = Limits { sessions: 200, window: 1_000 };

pub(crate) struct Replica {
    pub(crate) table: Table,
    pub(crate) machine: Ledger,
    pub(crate) time: u64,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Replica::of(LIMITS)
    }

    pub(crate) fn of(limits: Limits) -> Self {
        Replica { table: Table::new(limits), machine: Ledger::default(), time: 0 }
    }

    /// Its snapshot.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut bytes = Vec::new();
        self.table.snapshot(&self.machine).write_to(&mut bytes).expect("written to memory");
        Bytes::from(bytes)
    }

    /// This one, as a snapshot has it.
    pub(crate) fn restored(mut self, bytes: &Bytes) -> Self {
        self.table.restore(bytes, &mut self.machine).expect("a snapshot");
        self.time = self.table.applied().1.0;
        self
    }

    /// One with that many open sessions, named by the indexes from 1 on.
    pub(crate) fn with_sessions(count: u64) -> Self {
        let mut replica = Replica::new();
        for session in 1..=count {
            let open = Open {
                client: ClientId(session.into()),
                attempt: 1,
                key: SessionKey(99),
                principal: String::new(),
                timeout_ms: 5_000,
            };
            replica.apply(&SessionEntry::Open(open));
        }
        replica
    }

    pub(crate) fn index(&self) -> Index {
        self.table.applied().0
    }

    pub(crate) fn apply(&mut self, entry: &SessionEntry) -> Vec<Effect> {
        self.apply_raw(EntryKind::Session, entry.encode())
    }

    pub(crate) fn apply_raw(&mut self, kind: EntryKind, payload: Bytes) -> Vec<Effect> {
        let id = EntryId::new(TERM, self.index().next());
        let entry = Entry { id, time: ClusterTime(self.time), kind, payload };
        self.table.apply(&entry, &mut self.machine)
    }

    /// The session's next command, which says that it has the events through `event`.
    pub(crate) fn command_having(&mut self, session: u64, event: u64, body: &str) -> Vec<Effect> {
        let header = self.next_header(session, event);
        self.apply(&SessionEntry::Command(header, Bytes::copy_from_slice(body.as_bytes())))
    }

    pub(crate) fn command(&mut self, session: u64, body: &str) -> Vec<Effect> {
        self.command_having(session, 0, body)
    }

    pub(crate) fn next_header(&self, session: u64, event: u64) -> CommandHeader {
        let session = SessionId(session);
        let last = self.table.session(session).map_or(Sequence::ZERO, |info| info.last_sequence);
        let acknowledged_event = Index(event);
        CommandHeader { session, sequence: last.next(), lowest_unanswered: last, acknowledged_event }
    }

    pub(crate) fn acknowledge(&mut self, session: u64, event: u64) -> Vec<Effect> {
        let (session, event, lowest_unanswered) = (SessionId(session), Index(event), Sequence::ZERO);
        self.apply(&SessionEntry::Acknowledge(vec![Acknowledged { session, event, lowest_unanswered }]))
    }

    pub(crate) fn overflow(&mut self, session: u64, decided_in: Term) -> Vec<Effect> {
        self.apply(&SessionEntry::Overflow(Overflow { session: SessionId(session), decided_in }))
    }

    pub(crate) fn expire(&mut self, session: u64) -> Vec<Effect> {
        self.apply(&SessionEntry::Expire(Expire { session: SessionId(session), decided_in: TERM }))
    }

    /// Indexes of a session's events.
    pub(crate) fn events(&self, session: u64) -> Vec<u64> {
        self.table.events(SessionId(session), Index::ZERO).map(|(index, _)| index.0).collect()
    }
}

/// Cuts a snapshot everywhere, lengthens it, and flips each of its bits. What is cut or too long is refused. What is damaged is refused, or
/// is a state of its own: never silently the same one, never a panic.
pub(crate) fn check_damage(bytes: &Bytes, fresh: impl Fn() -> Replica) {
    let restore = |bytes: &[u8]| {
        let mut replica = fresh();
        replica.table.restore(&Bytes::copy_from_slice(bytes), &mut replica.machine).map(|()| replica.bytes())
    };
    for length in 0..bytes.len() {
        assert!(restore(&bytes[..length]).is_err(), "cut at {length}");
    }
    assert!(restore(&[&bytes[..], &[0]].concat()).is_err());
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[place] ^= 1 << bit;
            if let Ok(restored) = restore(&damaged) {
                assert_ne!(restored, bytes, "bit {bit} of byte {place}");
            }
        }
    }
}
