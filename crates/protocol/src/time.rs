//! The two clocks of the system. Wall clocks are not among them: they decide nothing (T3).

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of one process's boot clock, in microseconds since an origin of its own.
///
/// Monotonic, and counts the time during which the machine was suspended. Readings of different processes do
/// not compare. Deciders never read it: the driver passes it in as `now`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime(pub u64);

impl LocalTime {
    /// The origin.
    pub const ZERO: LocalTime = LocalTime(0);

    /// From whole milliseconds since the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        LocalTime(millis.saturating_mul(1_000))
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: LocalTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for LocalTime {
    type Output = LocalTime;
    fn add(self, rhs: Duration) -> LocalTime {
        LocalTime(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<LocalTime> for LocalTime {
    type Output = Duration;
    fn sub(self, rhs: LocalTime) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Debug for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Cluster time in milliseconds: stamped by the leader, carried by every entry, never runs back (T1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    /// The time before the first leader.
    pub const ZERO: ClusterTime = ClusterTime(0);

    /// This time plus a duration, rounded up to the millisecond so that nothing ends early (T2).
    #[must_use]
    pub fn plus(self, duration: Duration) -> ClusterTime {
        let millis = duration.as_micros().div_ceil(1_000);
        ClusterTime(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

impl fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
