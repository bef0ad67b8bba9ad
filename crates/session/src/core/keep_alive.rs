//! Contacts and their confirmation: how long the session can't have been ended for silence (S6, L2).

use std::collections::VecDeque;
use std::time::Duration;

use atomix_protocol::LocalTime;
use atomix_protocol::mutant::Mutant;

/// Most contacts whose time of sending is remembered. Beyond that the oldest are forgotten: theirs are the weakest promises.
const CONTACTS_REMEMBERED: usize = 64;

/// The contacts of one session, over all its links.
#[derive(Debug)]
pub(super) struct Contacts {
    /// ρ.
    clock_drift: f64,
    /// The number of the last contact sent. Invariant: ascends over all links of the session.
    last: u64,
    /// When each was sent: the clock before sending (L2).
    sent: VecDeque<(u64, LocalTime)>,
    /// The last one confirmed.
    confirmed: u64,
    /// When the next one is due.
    next_at: Option<LocalTime>,
    /// Invariant: never moves back while `counts`.
    valid_until: LocalTime,
    /// Whether anything is promised by them.
    counts: bool,
}

impl Contacts {
    pub(super) fn new(clock_drift: f64) -> Self {
        Contacts {
            clock_drift,
            last: 0,
            sent: VecDeque::new(),
            confirmed: 0,
            next_at: None,
            valid_until: LocalTime::ZERO,
            counts: true,
        }
    }

    /// A contact is sent now; its number. The next is due after a third of the timeout.
    pub(super) fn begin(&mut self, now: LocalTime, timeout: Duration) -> u64 {
        self.last += 1;
        if self.sent.len() == CONTACTS_REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, now));
        self.next_at = Some(now + timeout / 3);
        self.last
    }

    /// Without a link none is due.
    pub(super) fn pause(&mut self) {
        self.next_at = None;
    }

    /// Nothing is promised from now on, whatever is still confirmed.
    pub(super) fn renounce(&mut self) {
        self.counts = false;
        self.valid_until = LocalTime::ZERO;
    }

    pub(super) fn next_at(&self) -> Option<LocalTime> {
        self.next_at
    }

    pub(super) fn awaits_confirmation(&self) -> bool {
        self.confirmed < self.last
    }

    /// All contacts through `contact` are confirmed. Returns whether that is news.
    pub(super) fn confirm(&mut self, now: LocalTime, contact: u64, timeout: Duration) -> bool {
        if contact <= self.confirmed || contact > self.last {
            return false;
        }
        self.confirmed = contact;
        while let Some((_, sent)) = self.sent.pop_front_if(|(number, _)| *number <= contact) {
            let valid =
                timeout.mul_f64(((1.0 - self.clock_drift) / (1.0 + self.clock_drift)).clamp(0.0, 1.0));
            let since = if Mutant::C03.active() { now } else { sent };
            if self.counts {
                self.valid_until = self.valid_until.max(since + valid);
            }
        }
        true
    }

    pub(super) fn valid_until(&self) -> LocalTime {
        self.valid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(2_100);

    #[test]
    fn l2_counts_from_before_the_sending_of_the_confirmed_contact() {
        let at = LocalTime::from_millis;
        let mut contacts = Contacts::new(0.05);
        let first = contacts.begin(at(100), TIMEOUT);
        let second = contacts.begin(at(800), TIMEOUT);
        assert_eq!(contacts.next_at(), Some(at(1_500)));
        assert_eq!(contacts.valid_until(), LocalTime::ZERO);
        assert!(contacts.confirm(at(900), first, TIMEOUT) && contacts.awaits_confirmation());
        assert_eq!(contacts.valid_until(), at(100 + 1_900));
        assert!(!contacts.confirm(at(900), first, TIMEOUT));
        assert!(!contacts.confirm(at(900), second + 1, TIMEOUT));
        assert!(contacts.confirm(at(950), second, TIMEOUT) && !contacts.awaits_confirmation());
        assert_eq!(contacts.valid_until(), at(800 + 1_900));
    }

    #[test]
    fn contacts_without_answers_are_bounded_and_promise_nothing_too_late() {
        let mut contacts = Contacts::new(0.0);
        for millis in 0..1_000 {
            contacts.begin(LocalTime::from_millis(millis), TIMEOUT);
        }
        assert_eq!(contacts.sent.len(), CONTACTS_REMEMBERED);
        let now = LocalTime::from_millis(1_100);
        assert!(contacts.confirm(now, 10, TIMEOUT));
        assert_eq!(contacts.valid_until(), LocalTime::ZERO);
        assert!(contacts.confirm(now, 1_000, TIMEOUT));
        assert_eq!(contacts.valid_until(), LocalTime::from_millis(999) + TIMEOUT);
    }
}
