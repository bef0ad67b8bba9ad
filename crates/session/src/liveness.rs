//! Which sessions have fallen silent, as the leader sees it (S6–S8). Local to one leader's term; nothing here is replicated.

use std::time::Duration;

use atomix_protocol::{LocalTime, Round, SessionId};

/// The leader's own record of when it last heard each session. Only a committed expiry entry ends a session; this decides when
/// to propose one, and which contacts are confirmed.
#[derive(Debug)]
pub struct Liveness {}

impl Liveness {
    /// A server that does not lead. `heartbeat` bounds what a jump of the clock may count for (S7).
    #[must_use]
    pub fn new(_heartbeat: Duration) -> Self {
        unimplemented!()
    }

    /// This server was elected: every session gets one full timeout from now.
    pub fn elected(&mut self, _now: LocalTime, _sessions: &mut dyn Iterator<Item = (SessionId, Duration)>) {
        unimplemented!()
    }

    /// This server leads no more: everything is forgotten.
    pub fn deposed(&mut self) {
        unimplemented!()
    }

    /// A session was opened by an applied entry.
    pub fn opened(&mut self, _now: LocalTime, _session: SessionId, _timeout: Duration) {
        unimplemented!()
    }

    /// A session was ended by an applied entry.
    pub fn ended(&mut self, _session: SessionId) {
        unimplemented!()
    }

    /// Something arrived from a session. `contact` is the client's number for it, if it wants it confirmed; `round` is the last
    /// round begun: a later one confirms it (S6).
    pub fn contact(&mut self, _now: LocalTime, _session: SessionId, _contact: Option<u64>, _round: Round) {
        unimplemented!()
    }

    /// A round of this leader's term was completed by a leader that has applied its own no-op. Returns, per session, the last
    /// contact that it confirms: one without a proposed expiry only.
    pub fn confirmed(&mut self, _round: Round) -> Vec<(SessionId, u64)> {
        unimplemented!()
    }

    /// Sessions that have been silent for their timeout, each once: the caller proposes their expiry in its term (R8).
    pub fn due(&mut self, _now: LocalTime) -> Vec<SessionId> {
        unimplemented!()
    }

    /// When [`Liveness::due`] will have something, at the earliest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        unimplemented!()
    }
}
