//! Queries between their asking and their end (Q1, Q2). They change nothing: whatever happens, they are asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atomix_protocol::client::{Consistency, QueryHeader};
use atomix_protocol::{Index, LinkId, LocalTime, Sequence};
use bytes::Bytes;

use crate::outcome::Outcome;

/// Pause before a query that was asked in vain twice is asked again; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Queries that have not ended yet.
#[derive(Debug, Default)]
pub(super) struct Queries {
    /// The last number given, to a query or to one asking of it.
    last: u64,
    waiting: BTreeMap<u64, Query>,
    /// Which query each ticket asks. A ticket is used once: an answer to an earlier asking is recognised.
    tickets: BTreeMap<u64, u64>,
    /// Queries to be asked, and when.
    unasked: BTreeSet<(LocalTime, u64)>,
    /// Answers that wait for an event (Q2), and which query each ends.
    held: BTreeMap<(Index, u64), Outcome>,
    deadlines: BTreeSet<(LocalTime, u64)>,
}

/// One query.
#[derive(Debug)]
struct Query {
    body: Bytes,
    consistency: Consistency,
    /// The server must have applied this command (Q1).
    after_sequence: Sequence,
    deadline: Option<LocalTime>,
    /// Not to be asked on the read link.
    leader_only: bool,
    /// How often it was asked in vain.
    tries: u32,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    /// It stands in `unasked` at this time.
    No(LocalTime),
    /// It stands in `tickets` under this ticket.
    On(LinkId, u64),
    /// Its answer stands in `held`, behind this event.
    Answered(Index),
}

impl Queries {
    /// Takes a query, to be asked at once; its number.
    pub(super) fn submit(
        &mut self,
        now: LocalTime,
        body: Bytes,
        consistency: Consistency,
        after_sequence: Sequence,
        deadline: Option<LocalTime>,
    ) -> u64 {
        let number = self.next();
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, number));
        }
        self.unasked.insert((now, number));
        let leader_only = consistency == Consistency::Linearizable;
        let asked = Asked::No(now);
        let query = Query { body, consistency, after_sequence, deadline, leader_only, tries: 0, asked };
        self.waiting.insert(number, query);
        number
    }

    pub(super) fn len(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Asks on `link` everything whose time has come and that it `accepts`, given whether only the leader can serve it. Returns what
    /// to send, in order of submission.
    pub(super) fn ask(
        &mut self,
        now: LocalTime,
        link: LinkId,
        after_index: Index,
        accepts: impl Fn(bool) -> bool,
    ) -> Vec<(QueryHeader, Bytes)> {
        let mut ready: Vec<u64> =
            self.unasked.iter().take_while(|(at, _)| *at <= now).map(|(_, number)| *number).collect();
        ready.sort_unstable();
        let mut frames = Vec::new();
        for number in ready {
            if !self.waiting.get(&number).is_some_and(|query| accepts(query.leader_only)) {
                continue;
            }
            let ticket = self.next();
            let Some(query) = self.waiting.get_mut(&number) else {
                continue;
            };
            if let Asked::No(at) = query.asked {
                self.unasked.remove(&(at, number));
            }
            query.asked = Asked::On(link, ticket);
            self.tickets.insert(ticket, number);
            let (consistency, after_sequence) = (query.consistency, query.after_sequence);
            frames
                .push((QueryHeader { ticket, consistency, after_index, after_sequence }, query.body.clone()));
        }
        frames
    }

    /// An answer to `ticket` arrived on `link`. Returns the query's number; it has ended.
    pub(super) fn answer(&mut self, link: LinkId, ticket: u64) -> Option<u64> {
        let number = self.asked_on(link, ticket)?;
        self.remove(number);
        Some(number)
    }

    /// An answer to `ticket` arrived on `link`, ahead of an event: it waits for that (Q2).
    pub(super) fn hold(&mut self, link: LinkId, ticket: u64, event: Index, outcome: Outcome) {
        if let Some(number) = self.asked_on(link, ticket)
            && let Some(query) = self.waiting.get_mut(&number)
        {
            self.tickets.remove(&ticket);
            query.asked = Asked::Answered(event);
            self.held.insert((event, number), outcome);
        }
    }

    /// All events up to `through` were delivered. Returns the queries that ended by that, by the index that they read.
    pub(super) fn release(&mut self, through: Index) -> Vec<(u64, Outcome)> {
        let mut ended = Vec::new();
        while let Some(((_, number), outcome)) =
            self.held.first_entry().filter(|held| held.key().0 <= through).map(|held| held.remove_entry())
        {
            self.remove(number);
            ended.push((number, outcome));
        }
        ended.sort_by_key(|(number, outcome)| (outcome.index, *number));
        ended
    }

    /// `ticket` was asked on `link` in vain: the query is asked again after a pause that grows.
    pub(super) fn again(&mut self, now: LocalTime, link: LinkId, ticket: u64, leader_only: bool) {
        let Some(number) = self.asked_on(link, ticket) else {
            return;
        };
        if let Some(query) = self.waiting.get_mut(&number) {
            query.leader_only |= leader_only;
            let pause = match query.tries {
                0 => Duration::ZERO,
                tries => (FIRST_PAUSE * (1 << (tries - 1).min(8))).min(LONGEST_PAUSE),
            };
            query.tries = query.tries.saturating_add(1);
            self.put_back(number, now + pause);
        }
    }

    /// A link was lost: what was asked on it is asked again, under fresh tickets.
    pub(super) fn link_lost(&mut self, now: LocalTime, link: LinkId) {
        let lost =
            self.waiting.iter().filter(|(_, query)| matches!(query.asked, Asked::On(on, _) if on == link));
        let lost: Vec<u64> = lost.map(|(number, _)| *number).collect();
        for number in lost {
            self.put_back(number, now);
        }
    }

    /// Whether an answer may be under way on `link`.
    pub(super) fn awaits_answer(&self, link: LinkId) -> bool {
        !self.tickets.is_empty()
            && self.waiting.values().any(|query| matches!(query.asked, Asked::On(on, _) if on == link))
    }

    /// Queries whose deadline has passed: they have ended.
    pub(super) fn pass_deadlines(&mut self, now: LocalTime) -> Vec<u64> {
        let mut passed = Vec::new();
        while let Some((_, number)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.remove(number);
            passed.push(number);
        }
        passed
    }

    /// All of them: the session is over.
    pub(super) fn abandon(&mut self) -> Vec<u64> {
        let numbers = self.waiting.keys().copied().collect();
        *self = Queries { last: self.last, ..Queries::default() };
        numbers
    }

    pub(super) fn next_deadline(&self) -> Option<LocalTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// When the next one is to be asked, of those that some link `accepts`.
    pub(super) fn next_ask(&self, accepts: impl Fn(bool) -> bool) -> Option<LocalTime> {
        let accepted = |number| self.waiting.get(number).is_some_and(|query| accepts(query.leader_only));
        self.unasked.iter().find(|(_, number)| accepted(number)).map(|(at, _)| *at)
    }

    fn asked_on(&self, link: LinkId, ticket: u64) -> Option<u64> {
        let number = *self.tickets.get(&ticket)?;
        let query = self.waiting.get(&number)?;
        matches!(query.asked, Asked::On(on, asked) if on == link && asked == ticket).then_some(number)
    }

    fn put_back(&mut self, number: u64, at: LocalTime) {
        if let Some(query) = self.waiting.get_mut(&number) {
            if let Asked::On(_, ticket) = query.asked {
                self.tickets.remove(&ticket);
            }
            query.asked = Asked::No(at);
            self.unasked.insert((at, number));
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(query) = self.waiting.remove(&number) else {
            return;
        };
        match query.asked {
            Asked::No(at) => self.unasked.remove(&(at, number)),
            Asked::On(_, ticket) => self.tickets.remove(&ticket).is_some(),
            Asked::Answered(event) => self.held.remove(&(event, number)).is_some(),
        };
        if let Some(deadline) = query.deadline {
            self.deadlines.remove(&(deadline, number));
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId(1);

    fn at(millis: u64) -> LocalTime {
        LocalTime::from_millis(millis)
    }

    fn ask(queries: &mut Queries, now: LocalTime, link: LinkId) -> Vec<u64> {
        queries.ask(now, link, Index(1), |_| true).into_iter().map(|(header, _)| header.ticket).collect()
    }

    fn submit(queries: &mut Queries, deadline: Option<LocalTime>) -> u64 {
        queries.submit(at(0), Bytes::new(), Consistency::Sequential, Sequence(1), deadline)
    }

    #[test]
    fn a_lost_link_means_a_fresh_ticket() {
        let mut queries = Queries::default();
        let number = submit(&mut queries, None);
        let [first] = ask(&mut queries, at(0), LINK)[..] else { panic!("asked once") };
        assert!(queries.awaits_answer(LINK));
        queries.link_lost(at(1), LINK);
        let [second] = ask(&mut queries, at(1), LinkId(2))[..] else { panic!("asked again") };
        assert_ne!(first, second);
        assert_eq!(queries.answer(LINK, first), None);
        assert_eq!(queries.answer(LINK, second), None);
        assert_eq!(queries.answer(LinkId(2), second), Some(number));
        assert_eq!(queries.len(), 0);
    }

    #[test]
    fn a_query_asked_in_vain_waits_longer_each_time() {
        let mut queries = Queries::default();
        submit(&mut queries, None);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let [ticket] = ask(&mut queries, now, LINK)[..] else { panic!("asked when due") };
            queries.again(now, LINK, ticket, false);
            let next = queries.next_ask(|_| true).expect("to be asked again");
            pauses.push(next.since(now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [0, 5, 10, 20, 40, 80, 160, 320, 320]);
    }

    #[test]
    fn a_redirected_query_goes_to_the_leader_only() {
        let mut queries = Queries::default();
        submit(&mut queries, None);
        let [ticket] = ask(&mut queries, at(0), LINK)[..] else { panic!("asked once") };
        queries.again(at(0), LINK, ticket, true);
        assert_eq!(queries.ask(at(9), LINK, Index(1), |leader_only| !leader_only), []);
        assert_eq!(queries.ask(at(9), LINK, Index(1), |_| true).len(), 1);
    }

    #[test]
    fn q2_an_answer_ahead_of_an_event_waits_for_it_whatever_becomes_of_its_link() {
        let mut queries = Queries::default();
        let numbers: Vec<u64> = (0..4).map(|_| submit(&mut queries, None)).collect();
        let tickets = ask(&mut queries, at(0), LINK);
        let outcome = |index| Outcome { index: Index(index), body: Bytes::new() };
        for (ticket, (event, index)) in tickets.iter().zip([(5, 9), (5, 7), (8, 8)]) {
            queries.hold(LINK, *ticket, Index(event), outcome(index));
            assert_eq!(queries.answer(LINK, *ticket), None, "answered once");
        }
        queries.link_lost(at(1), LINK);
        assert_eq!(ask(&mut queries, at(1), LINK).len(), 1, "the one that was not answered");
        assert_eq!(queries.release(Index(4)), []);
        assert_eq!(queries.release(Index(5)), [(numbers[1], outcome(7)), (numbers[0], outcome(9))]);
        assert_eq!(queries.len(), 2);
        assert_eq!(queries.abandon(), numbers[2..]);
        assert_eq!(queries.release(Index(100)), []);
    }

    #[test]
    fn deadlines_and_the_end_leave_nothing_behind() {
        let mut queries = Queries::default();
        let first = submit(&mut queries, Some(at(5)));
        let second = submit(&mut queries, None);
        ask(&mut queries, at(0), LINK);
        assert_eq!(queries.next_deadline(), Some(at(5)));
        assert_eq!(queries.pass_deadlines(at(5)), [first]);
        assert_eq!(queries.abandon(), [second]);
        assert!(!queries.awaits_answer(LINK) && queries.next_ask(|_| true).is_none());
    }
}
