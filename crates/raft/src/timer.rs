//! The timers: election, the fast pre-vote of R4, heartbeat.

use core::time::Duration;

use atomix_protocol::LocalTime;
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use crate::Config;

/// Between a closed link and the pre-vote it causes, and between its repetitions (R4), in microseconds.
const FAST_DELAY: (u64, u64) = (5_000, 30_000);
/// Repetitions end this long after the link closed.
const FAST_SPAN: Duration = Duration::from_millis(100);
/// Fast pre-votes per closed link, at most.
const FAST_TRIES: u32 = 4;

/// When something is due.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Without a leader until then: campaign.
    pub(crate) election: LocalTime,
    /// While leading: the next heartbeat.
    pub(crate) heartbeat: LocalTime,
    fast: Option<Fast>,
}

#[derive(Clone, Copy, Debug)]
struct Fast {
    at: LocalTime,
    until: LocalTime,
    tries: u32,
}

impl Timers {
    pub(crate) fn new(now: LocalTime) -> Self {
        Timers { election: now, heartbeat: now, fast: None }
    }

    /// Draws a new election timeout.
    pub(crate) fn restart_election(&mut self, now: LocalTime, config: &Config, rng: &mut Xoshiro256PlusPlus) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (shortest, longest) = config.election_timeout;
        self.election = now + Duration::from_micros(rng.random_range(micros(shortest)..=micros(longest)));
    }

    /// A link closed: ask for pre-votes soon (R4).
    pub(crate) fn start_fast(&mut self, now: LocalTime, rng: &mut Xoshiro256PlusPlus) {
        self.fast = Some(Fast { at: now + fast_delay(rng), until: now + FAST_SPAN, tries: FAST_TRIES });
    }

    /// Somebody else asks already: give them time.
    pub(crate) fn postpone_fast(&mut self, now: LocalTime, rng: &mut Xoshiro256PlusPlus) {
        if let Some(fast) = &mut self.fast {
            fast.at = now + fast_delay(rng);
        }
    }

    pub(crate) fn stop_fast(&mut self) {
        self.fast = None;
    }

    /// Whether a fast pre-vote is due; schedules the next, if there is to be one.
    pub(crate) fn take_fast(&mut self, now: LocalTime, rng: &mut Xoshiro256PlusPlus) -> bool {
        let Some(fast) = self.fast.filter(|fast| fast.at <= now) else { return false };
        let next = Fast { at: now + fast_delay(rng), until: fast.until, tries: fast.tries - 1 };
        self.fast = (next.tries > 0 && next.at <= next.until).then_some(next);
        true
    }

    /// The earliest of those that run.
    pub(crate) fn next(&self, leads: bool) -> LocalTime {
        match self.fast {
            _ if leads => self.heartbeat,
            Some(fast) => fast.at.min(self.election),
            None => self.election,
        }
    }
}

fn fast_delay(rng: &mut Xoshiro256PlusPlus) -> Duration {
    Duration::from_micros(rng.random_range(FAST_DELAY.0..=FAST_DELAY.1))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn election_timeouts_stay_in_range_and_differ() {
        let (config, mut rng) = (Config::default(), Xoshiro256PlusPlus::seed_from_u64(1));
        let mut timers = Timers::new(LocalTime::ZERO);
        let mut seen = alloc::collections::BTreeSet::new();
        for _ in 0..100 {
            timers.restart_election(LocalTime::ZERO, &config, &mut rng);
            let drawn = timers.election - LocalTime::ZERO;
            assert!(config.election_timeout.0 <= drawn && drawn <= config.election_timeout.1);
            seen.insert(drawn);
        }
        assert!(seen.len() > 90);
    }

    #[test]
    fn fast_pre_votes_are_few_and_end_within_100_ms() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        for _ in 0..100 {
            let mut timers = Timers::new(LocalTime::ZERO);
            timers.election = LocalTime::from_millis(500);
            timers.start_fast(LocalTime::ZERO, &mut rng);
            let mut tries = 0;
            while timers.next(false) < timers.election {
                let at = timers.next(false);
                assert!(at >= LocalTime::from_millis(5) && at <= LocalTime::from_millis(100));
                assert!(timers.take_fast(at, &mut rng));
                tries += 1;
            }
            assert!((2..=FAST_TRIES).contains(&tries), "{tries}");
        }
    }
}
