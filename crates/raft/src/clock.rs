//! Cluster time (T1): stamped by the leader, heard by everyone, never back along the log.

use atomix_protocol::{ClusterTime, LocalTime};

/// Cluster time as one server knows it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// The largest time heard, found in the log, or given out.
    heard: ClusterTime,
    /// While leading: the boot clock's reading and the cluster time at the election.
    anchor: Option<(LocalTime, ClusterTime)>,
}

impl Clock {
    /// Takes note of a time that another leader gave out.
    pub(crate) fn hear(&mut self, time: ClusterTime) {
        self.heard = self.heard.max(time);
    }

    /// Begins to give out time, from `start` on.
    pub(crate) fn lead(&mut self, now: LocalTime, start: ClusterTime) {
        self.anchor = Some((now, start));
    }

    /// Stops giving out time: it stands still until a leader is heard.
    pub(crate) fn follow(&mut self, now: LocalTime) {
        self.heard = self.heard.max(self.now(now));
        self.anchor = None;
    }

    /// The largest time heard.
    pub(crate) fn heard(&self) -> ClusterTime {
        self.heard
    }

    /// The time now.
    pub(crate) fn now(&self, now: LocalTime) -> ClusterTime {
        match self.anchor {
            Some((since, start)) => {
                let passed = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
                ClusterTime(start.0.saturating_add(passed))
            }
            None => self.heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_only_under_a_leader_and_never_back() {
        let mut clock = Clock::default();
        clock.hear(ClusterTime(500));
        clock.hear(ClusterTime(400));
        assert_eq!(clock.now(LocalTime::from_millis(9_000)), ClusterTime(500));
        clock.lead(LocalTime::from_millis(9_000), clock.heard());
        assert_eq!(clock.now(LocalTime::from_millis(9_250)), ClusterTime(750));
        assert_eq!(clock.now(LocalTime::from_millis(8_000)), ClusterTime(500));
        clock.follow(LocalTime::from_millis(9_300));
        assert_eq!(clock.now(LocalTime::from_millis(20_000)), ClusterTime(800));
        clock.lead(LocalTime::ZERO, ClusterTime(u64::MAX));
        assert_eq!(clock.now(LocalTime::from_millis(5)), ClusterTime(u64::MAX));
    }
}
