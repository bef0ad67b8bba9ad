//! A node's own clock: runs at a rate of its own, counts suspension (T1), never runs back.

use atomix_protocol::LocalTime;

use super::settings::Time;

/// A boot clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    since: Time,
    shown: f64,
    rate: f64,
}

impl Clock {
    pub(super) fn new(shown: Time, rate: f64) -> Self {
        Clock { since: 0, shown: shown as f64, rate }
    }

    pub(super) fn read(&self, now: Time) -> LocalTime {
        LocalTime((self.shown + (now - self.since) as f64 * self.rate) as u64)
    }

    /// The first moment at which this clock shows `local`.
    pub(super) fn when(&self, local: LocalTime) -> Time {
        let wait = (local.0 as f64 - self.shown) / self.rate;
        // One more, so that rounding never wakes a node too early.
        self.since + if wait <= 0.0 { 0 } else { wait as u64 + 1 }
    }

    /// The machine came up again: a boot clock begins anew.
    pub(super) fn restart(&mut self, now: Time, shown: Time) {
        *self = Clock { since: now, shown: shown as f64, rate: self.rate };
    }

    /// Runs at another rate from now on.
    pub(super) fn drift(&mut self, now: Time, rate: f64) {
        *self = Clock { since: now, shown: self.shown + (now - self.since) as f64 * self.rate, rate };
    }
}
