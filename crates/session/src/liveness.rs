//! Which sessions have fallen silent, as the leader sees it (S6–S8). Local to one leader's term; nothing here is replicated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use atomix_protocol::{LocalTime, Round, SessionId};

/// Most contacts of one session that wait for different rounds. More are merged into the latest, which confirms them later.
const CONTACTS_WAITING: usize = 8;

/// The leader's own record of when it last heard each session. Only a committed expiry entry ends a session; this decides when
/// to propose one, and which contacts are confirmed.
///
/// Every method that takes `now` is an input in the sense of S7: between two of them at most one heartbeat passes for the
/// sessions. So the leader calls at least one of them, [`Liveness::due`] for choice, with every step it takes, and it takes a
/// step with every heartbeat.
#[derive(Debug)]
pub struct Liveness {
    heartbeat: Duration,
    /// `None` while this server does not lead.
    clock: Option<Clock>,
    sessions: BTreeMap<SessionId, Watched>,
    /// When to look at a session again. Invariant: one for each session without a proposed expiry, at most its deadline; moved
    /// when it is reached and not with every contact.
    looks: BTreeSet<(LocalTime, SessionId)>,
    /// Sessions with contacts to confirm. Invariant: each under the round of its earliest one.
    unconfirmed: BTreeSet<(Round, SessionId)>,
}

/// The leader's clock without its stalls (S7).
#[derive(Clone, Copy, Debug)]
struct Clock {
    last: LocalTime,
    stalled: Duration,
}

#[derive(Debug)]
struct Watched {
    timeout: Duration,
    /// On the clock without stalls.
    heard: LocalTime,
    /// Where it stands in `looks`; `None` once its expiry was proposed.
    look: Option<LocalTime>,
    /// The last round begun when each was received, ascending, with the client's number for it. Invariant: empty while it is
    /// withheld.
    contacts: VecDeque<(Round, u64)>,
    withheld: Option<Withheld>,
}

/// A session whose contacts do not count.
#[derive(Clone, Copy, Debug)]
struct Withheld {
    /// On the clock without stalls.
    since: LocalTime,
    /// Whether anything came from it since then.
    seen: bool,
}

impl Watched {
    /// When it has been silent for its timeout. One that still talks while its contacts do not count gets a full timeout from then
    /// on (E6); for one that does not, nothing is different.
    fn deadline(&self) -> LocalTime {
        let talks = self.withheld.filter(|withheld| withheld.seen);
        talks.map_or(self.heard, |withheld| withheld.since.max(self.heard)) + self.timeout
    }
}

impl Clock {
    fn read(&mut self, now: LocalTime, heartbeat: Duration) -> LocalTime {
        self.stalled += now.since(self.last).saturating_sub(heartbeat);
        self.last = self.last.max(now);
        LocalTime::ZERO + self.last.since(LocalTime::ZERO).saturating_sub(self.stalled)
    }
}

impl Liveness {
    /// A server that does not lead. `heartbeat` bounds what a jump of the clock may count for (S7).
    #[must_use]
    pub fn new(heartbeat: Duration) -> Self {
        Liveness {
            heartbeat,
            clock: None,
            sessions: BTreeMap::new(),
            looks: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
        }
    }

    /// This server was elected: every session gets one full timeout from now.
    pub fn elected(&mut self, now: LocalTime, sessions: &mut dyn Iterator<Item = (SessionId, Duration)>) {
        self.deposed();
        self.clock = Some(Clock { last: now, stalled: Duration::ZERO });
        for (session, timeout) in sessions {
            self.opened(now, session, timeout);
        }
    }

    /// This server leads no more: everything is forgotten.
    pub fn deposed(&mut self) {
        *self = Liveness::new(self.heartbeat);
    }

    /// A session was opened by an applied entry. One that is watched already stays as it is.
    pub fn opened(&mut self, now: LocalTime, session: SessionId, timeout: Duration) {
        let Some(heard) = self.read_clock(now) else {
            return;
        };
        if self.sessions.contains_key(&session) {
            return;
        }
        let look = heard + timeout;
        let contacts = VecDeque::new();
        let watched = Watched { timeout, heard, look: Some(look), contacts, withheld: None };
        self.sessions.insert(session, watched);
        self.looks.insert((look, session));
    }

    /// A session was ended by an applied entry.
    pub fn ended(&mut self, session: SessionId) {
        let Some(watched) = self.sessions.remove(&session) else {
            return;
        };
        if let Some(look) = watched.look {
            self.looks.remove(&(look, session));
        }
        if let Some((round, _)) = watched.contacts.front() {
            self.unconfirmed.remove(&(*round, session));
        }
    }

    /// Something arrived from a session. `contact` is the client's number for it, if it wants it confirmed; `round` is the last
    /// round begun: a later one confirms it (S6).
    pub fn contact(&mut self, now: LocalTime, session: SessionId, contact: Option<u64>, round: Round) {
        let Some(now) = self.read_clock(now) else {
            return;
        };
        // Once its expiry is in the log the session may end whatever it says now: that must not be confirmed (S6).
        let Some(watched) = self.sessions.get_mut(&session).filter(|watched| watched.look.is_some()) else {
            return;
        };
        if let Some(withheld) = &mut watched.withheld {
            withheld.seen = true;
            return;
        }
        watched.heard = now;
        let Some(contact) = contact else {
            return;
        };
        let waiting = watched.contacts.len();
        match watched.contacts.back_mut() {
            // The first is merged into only under the same round: `unconfirmed` knows it by that.
            Some(last) if last.0 == round || waiting >= CONTACTS_WAITING => {
                *last = (round, last.1.max(contact))
            }
            _ => watched.contacts.push_back((round, contact)),
        }
        if waiting == 0 {
            self.unconfirmed.insert((round, session));
        }
    }

    /// From now on a session's contacts do not count: they are neither heard nor confirmed, and those that wait for a round are not
    /// confirmed either. It falls silent by that, one timeout from now at the earliest if it goes on talking, whether it leaves
    /// atomic events unacknowledged (E6) or was given up (E3). Nothing changes for one that is withheld already.
    pub fn withhold(&mut self, now: LocalTime, session: SessionId) {
        let Some(since) = self.read_clock(now) else {
            return;
        };
        let Some(watched) = self.sessions.get_mut(&session).filter(|watched| watched.withheld.is_none())
        else {
            return;
        };
        watched.withheld = Some(Withheld { since, seen: false });
        if let Some((round, _)) = watched.contacts.front() {
            self.unconfirmed.remove(&(*round, session));
            watched.contacts.clear();
        }
    }

    /// A session's contacts count again, from now on: it was heard. Nothing changes for one that is not withheld.
    pub fn count_again(&mut self, now: LocalTime, session: SessionId) {
        let Some(now) = self.read_clock(now) else {
            return;
        };
        if let Some(watched) = self.sessions.get_mut(&session)
            && watched.withheld.take().is_some()
        {
            watched.heard = now;
        }
    }

    /// A round of this leader's term was completed by a leader that has applied its own no-op. Returns, per session, the last
    /// contact that it confirms: one without a proposed expiry only.
    pub fn confirmed(&mut self, round: Round) -> Vec<(SessionId, u64)> {
        let mut confirmed = Vec::new();
        while let Some((first, session)) =
            self.unconfirmed.first().copied().filter(|(first, _)| *first < round)
        {
            self.unconfirmed.remove(&(first, session));
            let Some(watched) = self.sessions.get_mut(&session) else {
                continue;
            };
            let mut last = 0;
            while let Some((_, contact)) =
                watched.contacts.front().copied().filter(|(begun, _)| *begun < round)
            {
                watched.contacts.pop_front();
                last = last.max(contact);
            }
            if let Some((next, _)) = watched.contacts.front() {
                self.unconfirmed.insert((*next, session));
            }
            if watched.look.is_some() {
                confirmed.push((session, last));
            }
        }
        confirmed
    }

    /// Sessions that have been silent for their timeout, each once: the caller proposes their expiry in its term (R8).
    pub fn due(&mut self, now: LocalTime) -> Vec<SessionId> {
        let Some(now) = self.read_clock(now) else {
            return Vec::new();
        };
        let mut due = Vec::new();
        while let Some((look, session)) = self.looks.first().copied().filter(|(look, _)| *look <= now) {
            self.looks.remove(&(look, session));
            let Some(watched) = self.sessions.get_mut(&session) else {
                continue;
            };
            let deadline = watched.deadline();
            watched.look = (deadline > now).then_some(deadline);
            if deadline > now {
                self.looks.insert((deadline, session));
            } else {
                due.push(session);
            }
        }
        due
    }

    /// When [`Liveness::due`] will have something, at the earliest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        let (look, _) = self.looks.first()?;
        Some(*look + self.clock?.stalled)
    }

    fn read_clock(&mut self, now: LocalTime) -> Option<LocalTime> {
        self.clock.as_mut().map(|clock| clock.read(now, self.heartbeat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(50);
    const TIMEOUT: Duration = Duration::from_millis(1_000);
    const ONE: SessionId = SessionId(1);
    const TWO: SessionId = SessionId(2);

    fn at(millis: u64) -> LocalTime {
        LocalTime::from_millis(millis)
    }

    fn elected(sessions: &[SessionId]) -> Liveness {
        let mut liveness = Liveness::new(HEARTBEAT);
        liveness.elected(at(0), &mut sessions.iter().map(|session| (*session, TIMEOUT)));
        liveness
    }

    /// Steps with every heartbeat up to and with `until`; everything that fell due, and when.
    fn run(liveness: &mut Liveness, from: u64, until: u64) -> Vec<(u64, SessionId)> {
        let steps = (from..=until).step_by(50);
        steps
            .flat_map(|millis| liveness.due(at(millis)).into_iter().map(move |session| (millis, session)))
            .collect()
    }

    #[test]
    fn s7_a_session_is_due_after_its_timeout_and_once() {
        let mut liveness = elected(&[ONE, TWO]);
        run(&mut liveness, 0, 400);
        liveness.contact(at(400), TWO, None, Round(1));
        assert_eq!(run(&mut liveness, 400, 3_000), [(1_000, ONE), (1_400, TWO)]);
        assert_eq!(liveness.next_deadline(), None);
    }

    #[test]
    fn s7_an_election_gives_everybody_a_full_timeout() {
        let mut liveness = elected(&[ONE]);
        run(&mut liveness, 0, 900);
        liveness.elected(at(900), &mut [(ONE, TIMEOUT)].into_iter());
        assert_eq!(run(&mut liveness, 900, 2_000), [(1_900, ONE)]);
        liveness.deposed();
        liveness.opened(at(2_000), TWO, TIMEOUT);
        assert_eq!(run(&mut liveness, 2_000, 9_000), []);
    }

    #[test]
    fn s7_a_stall_of_the_leader_counts_as_one_heartbeat() {
        let mut liveness = elected(&[ONE]);
        run(&mut liveness, 0, 500);
        assert_eq!(liveness.due(at(9_500)), []);
        assert_eq!(liveness.next_deadline(), Some(at(9_950)));
        assert_eq!(run(&mut liveness, 9_500, 12_000), [(9_950, ONE)]);
    }

    #[test]
    fn s7_a_contact_after_a_stall_comes_before_the_expiry() {
        let mut liveness = elected(&[ONE]);
        run(&mut liveness, 0, 950);
        liveness.contact(at(5_000), ONE, Some(1), Round(1));
        assert_eq!(run(&mut liveness, 5_000, 5_950), []);
        assert_eq!(run(&mut liveness, 6_000, 6_000), [(6_000, ONE)]);
    }

    #[test]
    fn s6_only_a_round_begun_afterwards_confirms() {
        let mut liveness = elected(&[ONE, TWO]);
        liveness.contact(at(10), ONE, Some(1), Round(5));
        liveness.contact(at(20), ONE, Some(2), Round(6));
        liveness.contact(at(20), TWO, Some(7), Round(6));
        liveness.contact(at(30), ONE, Some(3), Round(6));
        assert_eq!(liveness.confirmed(Round(5)), []);
        assert_eq!(liveness.confirmed(Round(6)), [(ONE, 1)]);
        assert_eq!(liveness.confirmed(Round(9)), [(ONE, 3), (TWO, 7)]);
        assert_eq!(liveness.confirmed(Round(10)), []);
    }

    #[test]
    fn s6_nothing_is_confirmed_once_an_expiry_was_proposed() {
        let mut liveness = elected(&[ONE]);
        run(&mut liveness, 0, 950);
        liveness.contact(at(950), TWO, Some(1), Round(1));
        assert_eq!(run(&mut liveness, 950, 1_000), [(1_000, ONE)]);
        liveness.contact(at(1_000), ONE, Some(1), Round(1));
        assert_eq!(liveness.confirmed(Round(2)), []);

        let mut liveness = elected(&[ONE]);
        liveness.contact(at(0), ONE, Some(1), Round(1));
        run(&mut liveness, 0, 1_000);
        assert_eq!(liveness.confirmed(Round(2)), []);
    }

    /// A keep-alive from `ONE` with every heartbeat, and a round that confirms what may be confirmed; what fell due, and the
    /// contacts confirmed.
    fn talk(liveness: &mut Liveness, from: u64, until: u64) -> (Vec<(u64, SessionId)>, Vec<u64>) {
        let (mut due, mut confirmed) = (Vec::new(), Vec::new());
        for millis in (from..=until).step_by(50) {
            liveness.contact(at(millis), ONE, Some(millis), Round(millis));
            confirmed.extend(liveness.confirmed(Round(millis + 1)).into_iter().map(|(_, contact)| contact));
            due.extend(liveness.due(at(millis)).into_iter().map(|session| (millis, session)));
        }
        (due, confirmed)
    }

    #[test]
    fn e6_withheld_contacts_are_neither_heard_nor_confirmed() {
        let mut liveness = elected(&[ONE]);
        talk(&mut liveness, 0, 600);
        liveness.contact(at(600), ONE, Some(7), Round(600));
        liveness.withhold(at(600), ONE);
        assert_eq!(liveness.confirmed(Round(700)), [], "one that waits for its round does not count either");
        assert!(liveness.unconfirmed.is_empty());
        // A full timeout from the moment of publishing, and no second one for a second event.
        assert_eq!(talk(&mut liveness, 650, 900), (vec![], vec![]));
        liveness.withhold(at(900), ONE);
        assert_eq!(talk(&mut liveness, 950, 3_000), (vec![(1_600, ONE)], vec![]));
    }

    #[test]
    fn e6_contacts_count_again_once_it_has_acknowledged() {
        let mut liveness = elected(&[ONE]);
        liveness.withhold(at(0), ONE);
        assert_eq!(talk(&mut liveness, 0, 900), (vec![], vec![]));
        liveness.count_again(at(900), ONE);
        let (due, confirmed) = talk(&mut liveness, 950, 1_100);
        assert_eq!((due, confirmed), (vec![], vec![950, 1_000, 1_050, 1_100]));
        liveness.count_again(at(1_150), ONE);
        assert_eq!(run(&mut liveness, 1_150, 5_000), [(2_100, ONE)], "that was no contact");
    }

    #[test]
    fn e6_a_session_that_is_gone_anyway_is_due_when_it_would_have_been() {
        let mut liveness = elected(&[ONE, TWO]);
        run(&mut liveness, 0, 800);
        liveness.withhold(at(800), ONE);
        liveness.withhold(at(800), TWO);
        liveness.contact(at(850), TWO, None, Round(1));
        assert_eq!(run(&mut liveness, 850, 5_000), [(1_000, ONE), (1_800, TWO)]);
        liveness.count_again(at(5_000), TWO);
        assert_eq!(run(&mut liveness, 5_050, 9_000), [], "its expiry is in the log");
    }

    #[test]
    fn a_flood_of_contacts_is_merged_into_the_latest() {
        let mut liveness = elected(&[ONE]);
        for contact in 1..=100 {
            liveness.contact(at(0), ONE, Some(contact), Round(contact));
        }
        assert_eq!(liveness.sessions[&ONE].contacts.len(), CONTACTS_WAITING);
        assert_eq!(liveness.confirmed(Round(8)), [(ONE, 7)]);
        assert_eq!(liveness.confirmed(Round(100)), []);
        assert_eq!(liveness.confirmed(Round(101)), [(ONE, 100)]);
    }

    #[test]
    fn s8_what_ended_is_forgotten() {
        let mut liveness = elected(&[ONE, TWO]);
        liveness.contact(at(0), ONE, Some(1), Round(1));
        liveness.ended(ONE);
        liveness.ended(ONE);
        assert_eq!(liveness.confirmed(Round(2)), []);
        assert_eq!(run(&mut liveness, 0, 2_000), [(1_000, TWO)]);
        liveness.ended(TWO);
        assert!(liveness.sessions.is_empty() && liveness.looks.is_empty() && liveness.unconfirmed.is_empty());
    }
}
