//! Queries (Q1–Q4).

use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::client::{
    AnswerHeader, ClientResponse, Consistency, EndReason, NotAnswered, QueryHeader,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{GroupId, Index, LinkId, LocalTime, SessionId};
use atomix_session::QueryContext;
use bytes::Bytes;

use crate::Output;
use crate::engine::Engine;

/// Most reads of one link that wait.
const READS: usize = 4_096;

/// Most bytes of queries that wait, of all links together.
const READ_BYTES: usize = 64 << 20;
/// What a query that waits takes beside its own bytes.
const READ_OVERHEAD: usize = 256;

/// A follower's state is served while it is at most so many heartbeats old (Q4).
const FRESH_HEARTBEATS: u32 = 2;

/// A query that could not be answered at once.
#[derive(Debug)]
struct Waiting {
    link: LinkId,
    session: SessionId,
    header: QueryHeader,
    query: Bytes,
    deadline: LocalTime,
    /// Where it stands in `by_index`, once that is known.
    index: Option<Index>,
    /// Its index was reached, but not its sequence.
    waits_for_sequence: bool,
    /// It was confirmed by nothing but the lease (R3).
    lease: bool,
}

/// A read whose answer came after the end of the lease that vouched for it: to be given back with
/// [`Input::TooLate`](crate::Input::TooLate).
#[derive(Clone, Debug)]
pub struct LateRead {
    link: LinkId,
    session: SessionId,
    header: QueryHeader,
    query: Bytes,
}

/// Reads that wait, by a number of their own. All wait equally long, so the first number has the first deadline.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// What those in `waiting` take.
    bytes: usize,
    /// Those that wait for an index only. Invariant: all of them are in `waiting`.
    by_index: BTreeSet<(Index, u64)>,
    /// Those whose index was reached, and that wait for a command of their session.
    by_sequence: BTreeSet<u64>,
}

impl Waiting {
    fn size(&self) -> usize {
        self.query.len() + READ_OVERHEAD
    }
}

impl Reads {
    fn add(&mut self, waiting: Waiting) -> u64 {
        self.last += 1;
        self.bytes += waiting.size();
        self.waiting.insert(self.last, waiting);
        self.last
    }

    /// The answer of this one must show at least `index`. Says what it waits for in the end, if it is known here.
    fn confirm(&mut self, read: u64, index: Index, lease: bool) -> Option<Index> {
        let waiting = self.waiting.get_mut(&read)?;
        waiting.lease = lease;
        let index = if Mutant::B32.active() { index } else { index.max(waiting.header.after_index) };
        waiting.index = Some(index);
        self.by_index.insert((index, read));
        Some(index)
    }

    /// Those whose index has been reached. A hostile index costs nothing but the wait.
    fn take_reached(&mut self, applied: Index) {
        while let Some((index, read)) = self.by_index.first().copied() {
            if index > applied {
                return;
            }
            self.by_index.pop_first();
            self.by_sequence.insert(read);
        }
    }

    /// It needs to be confirmed again.
    fn unconfirm(&mut self, read: u64) {
        self.by_sequence.remove(&read);
        let Some(waiting) = self.waiting.get_mut(&read) else { return };
        if let Some(index) = waiting.index.take() {
            self.by_index.remove(&(index, read));
        }
    }

    fn remove(&mut self, read: u64) -> Option<Waiting> {
        self.by_sequence.remove(&read);
        let waiting = self.waiting.remove(&read)?;
        if let Some(index) = waiting.index {
            self.by_index.remove(&(index, read));
        }
        self.bytes -= waiting.size();
        Some(waiting)
    }

    /// A link is gone: nobody waits there any more.
    pub(crate) fn forget(&mut self, link: LinkId) {
        for read in self.of_link(link) {
            self.remove(read);
        }
    }

    fn of_link(&self, link: LinkId) -> Vec<u64> {
        self.waiting.iter().filter(|(_, waiting)| waiting.link == link).map(|(read, _)| *read).collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<LocalTime> {
        self.waiting.values().next().map(|waiting| waiting.deadline)
    }
}

impl Engine {
    pub(crate) fn query(
        &mut self,
        now: LocalTime,
        link: LinkId,
        session: SessionId,
        header: QueryHeader,
        query: Bytes,
    ) {
        let Some(client) = self.links.client_mut(link) else { return };
        if query.len() > self.options.command_bytes {
            self.turn_away(now, link, "the query is too large");
            return;
        }
        if client.reads >= READS || self.reads.bytes + query.len() + READ_OVERHEAD > READ_BYTES {
            let (ticket, reason) = (header.ticket, NotAnswered::Busy);
            self.respond(link, ClientResponse::NotAnswered { ticket, reason });
            return;
        }
        let fresh = self.options.raft.heartbeat * FRESH_HEARTBEATS;
        let served = match (&self.raft, header.consistency) {
            (None, _) => false,
            (Some(_), Consistency::Linearizable) => self.leading.is_some(),
            (Some(raft), Consistency::Sequential | Consistency::Causal) => raft.is_fresh(now, fresh),
        };
        if !served {
            self.redirect(link, header.ticket);
            return;
        }
        let deadline = now + self.options.read_wait;
        let read = self.add_read(LateRead { link, session, header, query }, deadline);
        if header.consistency == Consistency::Linearizable {
            let refused = self.raft.as_mut().is_none_or(|raft| raft.read(now, read).is_err());
            if refused {
                self.fail_reads(&[read]);
            }
        } else {
            self.confirm_reads(&[read], Index::ZERO, false);
            self.serve_reads();
        }
    }

    fn add_read(&mut self, asked: LateRead, deadline: LocalTime) -> u64 {
        let LateRead { link, session, header, query } = asked;
        if let Some(client) = self.links.client_mut(link) {
            client.reads += 1;
        }
        let (index, waits_for_sequence, lease) = (None, false, false);
        self.reads.add(Waiting { link, session, header, query, deadline, index, waits_for_sequence, lease })
    }

    /// Its answer came too late for the lease: it is asked again, and a round must confirm it.
    pub(crate) fn read_again(&mut self, now: LocalTime, late: LateRead) {
        self.marks.reads_too_late += 1;
        if self.links.client_mut(late.link).is_some() {
            let deadline = now + self.options.read_wait;
            let read = self.add_read(late, deadline);
            self.insist(now, read);
        }
    }

    fn insist(&mut self, now: LocalTime, read: u64) {
        let refused = self.raft.as_mut().is_none_or(|raft| raft.read_by_round(now, read).is_err());
        if refused {
            self.fail_reads(&[read]);
        }
    }

    /// These need no more confirmation: by a round that began after they came, or by the lease for now (Q3), or by
    /// being asked of a state that is fresh enough (Q4).
    pub(crate) fn confirm_reads(&mut self, reads: &[u64], index: Index, lease: bool) {
        let (applied, _) = self.table.applied();
        for read in reads {
            let waits = self.reads.confirm(*read, index, lease).is_some_and(|index| index > applied);
            self.marks.reads_waited += u64::from(waits);
        }
    }

    fn redirect(&mut self, link: LinkId, ticket: u64) {
        self.marks.reads_redirected += 1;
        let reason = NotAnswered::Redirect(self.leader_address());
        self.respond(link, ClientResponse::NotAnswered { ticket, reason });
    }

    fn take_read(&mut self, read: u64) -> Option<Waiting> {
        let waiting = self.reads.remove(read)?;
        if let Some(client) = self.links.client_mut(waiting.link) {
            client.reads -= 1;
        }
        Some(waiting)
    }

    /// They can't be confirmed here any more.
    pub(crate) fn fail_reads(&mut self, reads: &[u64]) {
        for read in reads {
            if let Some(waiting) = self.take_read(*read) {
                self.redirect(waiting.link, waiting.header.ticket);
            }
        }
    }

    pub(crate) fn redirect_reads(&mut self, link: LinkId) {
        let reads = self.reads.of_link(link);
        self.fail_reads(&reads);
    }

    pub(crate) fn expire_reads(&mut self, now: LocalTime) {
        while let Some((read, waiting)) = self.reads.waiting.first_key_value() {
            if waiting.deadline > now {
                return;
            }
            let read = *read;
            if let Some(waiting) = self.take_read(read) {
                let (ticket, reason) = (waiting.header.ticket, NotAnswered::TimedOut);
                self.respond(waiting.link, ClientResponse::NotAnswered { ticket, reason });
            }
        }
    }

    /// Answers what can be answered from the state as it is.
    pub(crate) fn serve_reads(&mut self) {
        let (index, _) = self.table.applied();
        self.reads.take_reached(index);
        let mut cursor = 0;
        while let Some(read) = self.reads.by_sequence.range(cursor..).next().copied() {
            cursor = read + 1;
            self.serve_read(read, index);
        }
    }

    fn serve_read(&mut self, read: u64, index: Index) {
        let Some(waiting) = self.reads.waiting.get_mut(&read) else { return };
        let (link, session, header) = (waiting.link, waiting.session, waiting.header);
        let Some(info) = self.table.session(session) else {
            self.take_read(read);
            self.respond(link, ClientResponse::Ended { session, reason: EndReason::Unknown });
            return;
        };
        if info.last_sequence < header.after_sequence {
            self.marks.reads_waited += u64::from(!core::mem::replace(&mut waiting.waits_for_sequence, true));
            return;
        }
        let now = self.now;
        let leased =
            self.raft.as_ref().and_then(atomix_raft::Raft::lease_until).filter(|until| now <= *until);
        let not_after = leased.filter(|_| waiting.lease);
        if waiting.lease && not_after.is_none() {
            // It waited for longer than the lease lasts.
            self.marks.reads_too_late += 1;
            self.reads.unconfirm(read);
            self.insist(now, read);
            return;
        }
        let (_, time) = self.table.applied();
        let cx = QueryContext { index, time, session, levels: self.table.levels() };
        let body = self.machine.query(&cx, &waiting.query);
        let answer = AnswerHeader { ticket: header.ticket, index, event_index: info.event_index };
        let answer = ClientResponse::Answer(answer, body);
        let Some(Waiting { query, .. }) = self.take_read(read) else { return };
        self.counters.queries_answered += 1;
        match not_after.filter(|_| !Mutant::B24.active()) {
            Some(not_after) => {
                self.marks.reads_by_lease += 1;
                let frame = Frame::Response(answer).encode(GroupId::DEFAULT);
                let read = LateRead { link, session, header, query };
                self.push(Output::Answer { link, frame, not_after, read });
            }
            None => self.respond(link, answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::Sequence;

    use super::*;

    fn waiting(link: u64) -> Waiting {
        let (after_index, after_sequence) = (Index(u64::MAX), Sequence::ZERO);
        Waiting {
            link: LinkId(link),
            session: SessionId(1),
            header: QueryHeader { ticket: 1, consistency: Consistency::Causal, after_index, after_sequence },
            query: Bytes::new(),
            deadline: LocalTime::ZERO,
            index: None,
            waits_for_sequence: false,
            lease: false,
        }
    }

    #[test]
    fn a_read_that_ends_before_its_index_is_reached_leaves_nothing_behind() {
        let mut reads = Reads::default();
        let ends: [fn(&mut Reads, u64); 2] =
            [|reads, read| drop(reads.remove(read)), |reads, _| reads.forget(LinkId(1))];
        for end in ends {
            let read = reads.add(waiting(1));
            reads.confirm(read, Index::ZERO, false);
            assert!(reads.bytes > 0, "an empty query takes room too");
            end(&mut reads, read);
            assert!(reads.waiting.is_empty() && reads.by_index.is_empty() && reads.bytes == 0, "{reads:?}");
        }
    }
}
