//! The boot clock: monotonic, and counts the time during which the machine was suspended (T1).

use std::time::Duration;

use atomix_protocol::LocalTime;
use rustix::time::{ClockId, clock_gettime};

pub(crate) fn now() -> LocalTime {
    let reading = clock_gettime(ClockId::Boottime);
    // Both parts are positive: the clock counts from boot.
    let seconds = Duration::from_secs(reading.tv_sec.unsigned_abs());
    LocalTime::ZERO + (seconds + Duration::from_nanos(reading.tv_nsec.unsigned_abs()))
}
