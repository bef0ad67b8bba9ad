//! Reads without a round (R3, §6.4.1): what followers promise, and how long a leader may rely on it.
//!
//! A follower that acknowledges AppendEntries promises, for as long as the message says, to give nobody a vote or a
//! pre-vote and not to campaign. It keeps that by its own clock, whatever becomes of links, terms and leaders, and
//! its next process keeps it too. So nobody else is elected before the promises of a quorum have run out, and until
//! then the leader may answer by itself.

use alloc::collections::VecDeque;
use core::time::Duration;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::AppendOutcome;
use atomix_protocol::{Index, LocalTime, Round, ServerId, Term};

use crate::role::{Leader, State};
use crate::{Config, Raft, quorum};

/// Most rounds whose beginning is remembered while no quorum has answered them.
const ROUNDS: usize = 1_024;

/// Names a round of any leader. Ascending: in the order in which leaders could rely on them.
pub(crate) type RoundId = (Term, Round);

/// What a server has promised to leaders.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promise {
    made: Given,
    /// What the process before this one may have promised. Invariant: never renewed. It is lifted by no TimeoutNow, so with an end
    /// that heartbeats put off it would hold up every hand-over.
    before: Given,
}

/// A promise that was given.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    /// It ends then.
    until: LocalTime,
    /// The latest round that was acknowledged with it.
    round: RoundId,
}

impl Given {
    fn binds(&self, now: LocalTime, lifted: Option<RoundId>) -> bool {
        now < self.until && lifted.is_none_or(|lifted| self.round > lifted)
    }
}

impl Promise {
    /// As a process comes up that can't know what the one before it promised in `term` or earlier: the longest there
    /// is, in a round that no TimeoutNow reaches.
    pub(crate) fn unknown(now: LocalTime, term: Term, config: &Config) -> Self {
        let before = Given { until: now + config.election_timeout.0, round: (term, Round(u64::MAX)) };
        Promise { made: Given::default(), before }
    }

    /// Promises anew; what was promised before stands as long as it lasts.
    pub(crate) fn make(&mut self, now: LocalTime, until: LocalTime, round: RoundId) {
        if !self.made.binds(now, None) {
            self.made = Given { until, round };
        }
        self.made.until = self.made.until.max(until);
        self.made.round = self.made.round.max(round);
    }

    /// Whether it binds. A leader that hands over gives up what it was promised through round `lifted`; earlier
    /// leaders had nothing left when it was elected.
    pub(crate) fn binds(&self, now: LocalTime, lifted: Option<RoundId>) -> bool {
        self.made.binds(now, lifted) || self.before.binds(now, lifted)
    }

    /// When it ends.
    pub(crate) fn until(&self) -> LocalTime {
        self.made.until.max(self.before.until)
    }
}

/// What a leader may rely on.
#[derive(Debug)]
pub(crate) struct Lease {
    /// How long after its beginning a round is good for; zero: leases are off.
    length: Duration,
    /// Rounds that no quorum answered yet, with when they began. Where some lack, an earlier one stands for them.
    begun: VecDeque<(Round, LocalTime)>,
    /// By this server's clock, those who promised keep to it at least until then.
    until: Option<LocalTime>,
    /// The configuration whose quorum they are.
    configuration: Index,
    /// Promises through this round were given up with a TimeoutNow.
    given_up: Round,
}

impl Lease {
    pub(crate) fn new(config: &Config) -> Self {
        let (length, configuration) = (lease_length(config), Index::ZERO);
        Lease { length, begun: VecDeque::new(), until: None, configuration, given_up: Round::ZERO }
    }

    /// A round begins. Nothing that names it was sent before `now`.
    pub(crate) fn begin(&mut self, round: Round, now: LocalTime) {
        if !self.length.is_zero() && self.begun.len() < ROUNDS {
            self.begun.push_back((round, now));
        }
    }

    /// A quorum of `configuration` has made the promise of `round`.
    fn promised(&mut self, round: Round, configuration: Index) {
        let known = self.begun.iter().take_while(|(begun, _)| *begun <= round).count();
        let Some((begun, at)) = self.begun.drain(..known).next_back() else { return };
        if begun > self.given_up {
            // What an earlier configuration's quorum promised does not bind the present one.
            let before = self.until.filter(|_| self.configuration == configuration);
            self.until = before.max(Some(at + self.length));
            self.configuration = configuration;
        }
    }

    /// Promises through `round` count no more (R3).
    pub(crate) fn give_up(&mut self, round: Round) {
        self.until = None;
        self.given_up = round;
    }
}

impl Leader {
    /// Whether followers are asked for promises: not once somebody was told to campaign, who could not be elected then.
    pub(crate) fn asks_for_promises(&self) -> bool {
        self.hand_over.as_ref().is_none_or(|hand_over| !hand_over.told)
    }
}

impl Raft {
    /// Until when this leader may answer linearizable reads without a round; `None` without a lease.
    ///
    /// Nobody else leads before then, as long as no clock runs faster or slower than [`Config::drift_ppm`] allows.
    #[must_use]
    pub fn lease_until(&self) -> Option<LocalTime> {
        let State::Leader(leader) = &self.state else { return None };
        let ours = leader.lease.configuration == self.log.configuration().index;
        leader.lease.until.filter(|_| ours && leader.hand_over.is_none())
    }

    /// Whether this leader may answer linearizable reads without a round, if `now` was read just now.
    ///
    /// Between the reading of a clock and the reading of the state a machine may stand still for any time. So an
    /// answer by lease is good only if the lease holds at a `now` that was read *after* the state; otherwise
    /// [`Raft::read_by_round`].
    #[must_use]
    pub fn lease_holds(&self, now: LocalTime) -> bool {
        self.lease_until().is_some_and(|until| now <= until)
    }

    /// Whether this server must give nobody its vote. A TimeoutNow named the round `lifted`.
    pub(crate) fn is_bound(&self, now: LocalTime, lifted: Option<RoundId>) -> bool {
        let leases = match &self.state {
            // What it still has is of rounds that no TimeoutNow named.
            State::Leader(leader) => leader.lease.until.is_some_and(|until| now <= until),
            _ => false,
        };
        leases || self.promise.binds(now, lifted)
    }

    /// Promises what is asked, by acknowledging the round (R3). Longer than this server's shortest election timeout it can't promise:
    /// its next process would not keep to it. Then it says at once that the round has come, and no more: whether this leader still
    /// leads does not hang on promises.
    pub(crate) fn promise(&mut self, now: LocalTime, leader: ServerId, round: Round, millis: u32) {
        let asked = Duration::from_millis(millis.into());
        if asked > self.config.election_timeout.0 {
            self.marks.promise_too_long += 1;
            if round > self.following.answered {
                self.reply_append(leader, AppendOutcome::Unpromised);
            }
            return;
        }
        self.following.promised = self.following.promised.max(round);
        if !asked.is_zero() {
            self.promise.make(now, now + asked, (self.hard_state.term, round));
        }
    }

    /// Leader: looks how far a quorum has promised. This server needs no promise of its own while it leads.
    pub(crate) fn extend_lease(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.lease.length.is_zero() {
            return;
        }
        let (own, current) = (self.server, leader.reads.round);
        let promised = |id| {
            if id == own { current } else { leader.progress.get(&id).map_or(Round::ZERO, |p| p.promised) }
        };
        let configuration = self.log.configuration();
        if let Some(round) = quorum::reached(configuration, promised) {
            leader.lease.promised(round, configuration.index);
        }
    }

    /// A deposed leader keeps to what its lease said as to a promise: a quorum of promises may count on it.
    pub(crate) fn promise_own_lease(&mut self, now: LocalTime, lease: &Lease, round: Round) {
        if let Some(until) = lease.until {
            self.promise.make(now, until, (self.hard_state.term, round));
        }
    }

    /// How long followers are asked to promise, on the wire.
    pub(crate) fn promise_ms(&self) -> u32 {
        match &self.state {
            State::Leader(leader) if !leader.asks_for_promises() => 0,
            _ => promise_ms(&self.config),
        }
    }
}

fn promise_ms(config: &Config) -> u32 {
    u32::try_from(config.promise.as_millis()).unwrap_or(u32::MAX)
}

/// A promise of P lasts at least P/(1+ρ), on a clock that is fast. In that time a clock that is slow shows
/// P·(1−ρ)/(1+ρ).
fn lease_length(config: &Config) -> Duration {
    let promise = Duration::from_millis(promise_ms(config).into());
    if Mutant::B24.active() {
        return promise;
    }
    let drift = u128::from(config.drift_ppm);
    let shown = promise.as_micros() * 1_000_000_u128.saturating_sub(drift) / (1_000_000 + drift);
    Duration::from_micros(u64::try_from(shown).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease::new(&Config { promise: Duration::from_millis(210), drift_ppm: 50_000, ..Config::default() })
    }

    #[test]
    fn it_lasts_from_the_sending_and_is_shortened_for_drift() {
        let mut lease = lease();
        assert_eq!(lease.length, Duration::from_millis(190));
        for round in 1..=3 {
            lease.begin(Round(round), LocalTime::from_millis(round * 100));
        }
        lease.promised(Round(2), Index::ZERO);
        assert_eq!(lease.until, Some(LocalTime::from_millis(390)));
        lease.promised(Round(1), Index::ZERO);
        assert_eq!(lease.until, Some(LocalTime::from_millis(390)), "late news shortens nothing");
        assert_eq!(lease.begun.len(), 1, "what was answered is forgotten");
    }

    #[test]
    fn what_a_timeout_now_named_is_given_up() {
        let mut lease = lease();
        (1..=3).for_each(|round| lease.begin(Round(round), LocalTime::from_millis(round * 100)));
        lease.promised(Round(1), Index::ZERO);
        lease.give_up(Round(2));
        lease.promised(Round(2), Index::ZERO);
        assert_eq!(lease.until, None);
        lease.promised(Round(3), Index::ZERO);
        assert_eq!(lease.until, Some(LocalTime::from_millis(490)), "a fresh round resumes it");
    }

    #[test]
    fn promises_of_another_configuration_do_not_count() {
        let mut lease = lease();
        lease.begin(Round(2), LocalTime::from_millis(200));
        lease.promised(Round(2), Index::ZERO);
        lease.begin(Round(3), LocalTime::from_millis(100));
        lease.promised(Round(3), Index(7));
        assert_eq!((lease.until, lease.configuration), (Some(LocalTime::from_millis(290)), Index(7)));
    }

    #[test]
    fn rounds_that_nobody_answers_take_bounded_room() {
        let mut lease = lease();
        (1..5_000).for_each(|round| lease.begin(Round(round), LocalTime::from_millis(round)));
        assert_eq!(lease.begun.len(), ROUNDS);
        lease.promised(Round(4_999), Index::ZERO);
        assert_eq!(
            lease.until,
            Some(LocalTime::from_millis(1_024 + 190)),
            "as of a round that is remembered"
        );
    }

    #[test]
    fn a_promise_binds_until_it_ends_unless_it_was_given_up() {
        let at = LocalTime::from_millis;
        let mut promise = Promise::default();
        assert!(!promise.binds(at(0), None));
        promise.make(at(0), at(300), (Term(2), Round(5)));
        promise.make(at(100), at(200), (Term(2), Round(4)));
        let lifted = |term, round| Some((Term(term), Round(round)));
        assert!(promise.binds(at(299), None) && !promise.binds(at(300), None));
        assert!(promise.binds(at(299), lifted(2, 4)) && promise.binds(at(299), lifted(1, 9)));
        assert!(!promise.binds(at(299), lifted(2, 5)) && !promise.binds(at(299), lifted(3, 0)));
        let mut unknown = Promise::unknown(at(0), Term(2), &Config::default());
        assert!(unknown.binds(at(299), lifted(2, u64::MAX - 1)) && !unknown.binds(at(299), lifted(3, 0)));
        unknown.make(at(300), at(600), (Term(2), Round(7)));
        assert!(!unknown.binds(at(301), lifted(2, 7)), "what is over is forgotten");
        let mut renewed = Promise::unknown(at(0), Term(2), &Config::default());
        renewed.make(at(200), at(500), (Term(2), Round(7)));
        assert!(renewed.binds(at(299), lifted(2, 7)) && !renewed.binds(at(300), lifted(2, 7)));
        assert!(renewed.binds(at(499), lifted(2, 6)) && renewed.until() == at(500));
    }
}
