//! From committed entries to what clients are told.

use atomix_protocol::client::EndReason;
use atomix_protocol::{Entry, Index, LocalTime};
use atomix_session::table::Effect;

use crate::Notice;
use crate::engine::Engine;

impl Engine {
    /// Applies committed entries, in order. Every server applies; only a leader has anybody to tell.
    pub(crate) fn apply(&mut self, now: LocalTime, entries: &[Entry]) {
        for entry in entries {
            for effect in self.table.apply(entry, self.machine.as_mut()) {
                self.on_effect(now, effect);
            }
        }
        let Some(last) = entries.last().map(|entry| entry.id.index) else { return };
        if let Some(raft) = &mut self.raft {
            raft.applied(last);
        }
        self.led_through(now, last);
        self.folded_through(last);
    }

    fn on_effect(&mut self, now: LocalTime, effect: Effect) {
        let leads = self.leading.is_some();
        match effect {
            Effect::Opened { session, client, attempt, timeout, new } => {
                if leads && new {
                    self.liveness.opened(now, session, timeout);
                }
                self.on_opened(now, client, attempt, session);
            }
            Effect::OpenRefused { client, attempt } => self.on_open_refused(now, client, attempt),
            Effect::Published { session, atomic } if leads => self.on_events(now, session, atomic),
            Effect::GivenUp { session } if leads => self.on_given_up(now, session),
            Effect::Trimmed { .. } if leads => self.marks.acknowledge_entries += 1,
            Effect::Published { .. } | Effect::GivenUp { .. } | Effect::Trimmed { .. } => {}
            Effect::Reply { session, header, body, kept, atomic } => {
                if !kept {
                    self.counters.commands_applied += 1;
                } else if leads {
                    self.counters.answered_from_table += 1;
                    self.mark_retry(header.index);
                }
                self.answer(session, header, body, atomic);
            }
            Effect::Gap { session, expected } => self.on_gap(session, expected),
            Effect::Ended { session, reason, new } => {
                if new && leads {
                    self.liveness.ended(session);
                    self.on_events_ended(session);
                }
                if new && reason == EndReason::Expired {
                    self.counters.sessions_expired += 1;
                    self.marks.sessions_expired += 1;
                    self.notice(Notice::Expired(session));
                }
                self.on_ended(session, reason);
            }
        }
    }

    /// A retry is answered with the reply of the entry at `index`.
    pub(crate) fn mark_retry(&mut self, index: Index) {
        let since = self.leading.as_ref().map_or(Index::ZERO, |leading| leading.since);
        self.marks.retries_after_failover += u64::from(index < since);
        self.marks.retries_after_restart += u64::from(index <= self.marks.recovered_index);
        self.marks.retries_after_snapshot += u64::from(index <= self.marks.restored_index);
    }
}
