//! What the table keeps of one open session.

use std::fmt;
use std::time::Duration;

use atomix_protocol::client::{ReplyHeader, ReplyOutcome};
use atomix_protocol::session::Open;
use atomix_protocol::{ClientId, Index, Sequence, SessionKey};
use bytes::Bytes;
use imbl::OrdMap;

use super::outbox::Outbox;

/// One open session.
#[derive(Clone)]
pub(super) struct Record {
    /// Who opened it.
    pub(super) client: ClientId,
    /// Which attempt of that client.
    pub(super) attempt: u64,
    /// The attempt whose session this one took over: a late copy of that one must not take over in turn.
    pub(super) predecessor: Option<u64>,
    /// Its secret.
    pub(super) key: SessionKey,
    /// Who the client was authenticated as.
    pub(super) principal: String,
    /// τ as committed.
    pub(super) timeout_ms: u64,
    /// The last sequence consumed. Invariant: never moves back (S3).
    pub(super) last_sequence: Sequence,
    /// The client has the replies below. Invariant: at most one above `last_sequence`; never moves back (S4).
    pub(super) lowest_unanswered: Sequence,
    /// Its events.
    pub(super) outbox: Outbox,
    /// It left too many of them unacknowledged, or one fitted no frame: it gets no more, and silence ends it (E3). Invariant: its
    /// outbox is empty then.
    pub(super) given_up: bool,
    /// Replies the client may still ask for. Invariant: without holes up to `last_sequence`, none below `lowest_unanswered`.
    pub(super) replies: OrdMap<Sequence, KeptReply>,
}

/// A reply that is kept until the client has it (S4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptReply {
    /// Where the command took effect.
    pub(super) index: Index,
    /// The session's last event at that index.
    pub(super) event_index: Index,
    /// It is held while somebody has not acknowledged the events of `index` (E6).
    pub(super) atomic: bool,
    /// How it ended.
    pub(super) outcome: ReplyOutcome,
    /// The state machine's reply.
    pub(super) body: Bytes,
}

/// Where a sequence stands (S3).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The next one: apply it.
    Next,
    /// Consumed earlier.
    Consumed,
    /// Out of order, or beyond the window.
    Beyond,
}

impl Record {
    pub(super) fn new(open: Open, predecessor: Option<u64>) -> Self {
        Record {
            client: open.client,
            attempt: open.attempt,
            predecessor,
            key: open.key,
            principal: open.principal,
            timeout_ms: open.timeout_ms,
            last_sequence: Sequence::ZERO,
            lowest_unanswered: Sequence(1),
            outbox: Outbox::default(),
            given_up: false,
            replies: OrdMap::new(),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Where `sequence` stands. `window` bounds how far replies may pile up (S4).
    pub(super) fn place(&self, sequence: Sequence, window: u64) -> Place {
        if sequence <= self.last_sequence {
            Place::Consumed
        } else if sequence == self.last_sequence.next() && sequence.since(self.lowest_unanswered) < window {
            Place::Next
        } else {
            Place::Beyond
        }
    }

    /// Drops the replies that the client says it has (S4). What it can't have is not believed. Returns whether there were any.
    pub(super) fn trim(&mut self, lowest_unanswered: Sequence) -> bool {
        let lowest = lowest_unanswered.min(self.last_sequence.next());
        if lowest <= self.lowest_unanswered {
            return false;
        }
        self.lowest_unanswered = lowest;
        while let Some((sequence, _)) = self.replies.get_min().filter(|(sequence, _)| *sequence < lowest) {
            let sequence = *sequence;
            self.replies.remove(&sequence);
        }
        true
    }

    /// Consumes the next sequence.
    pub(super) fn keep(&mut self, sequence: Sequence, reply: KeptReply) {
        self.last_sequence = sequence;
        self.replies.insert(sequence, reply);
    }

    /// The answer to a sequence that was consumed: its reply, or that it is gone (S3), and whether it may have to wait (E6).
    pub(super) fn answer(&self, sequence: Sequence) -> (ReplyHeader, Bytes, bool) {
        match self.replies.get(&sequence) {
            Some(reply) => (reply.header(sequence), reply.body.clone(), reply.atomic),
            None => {
                let header = ReplyHeader {
                    sequence,
                    index: Index::ZERO,
                    event_index: self.outbox.last(),
                    outcome: ReplyOutcome::ReplyGone,
                };
                (header, Bytes::new(), false)
            }
        }
    }
}

impl KeptReply {
    pub(super) fn header(&self, sequence: Sequence) -> ReplyHeader {
        ReplyHeader { sequence, index: self.index, event_index: self.event_index, outcome: self.outcome }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("client", &self.client)
            .field("attempt", &self.attempt)
            .field("timeout_ms", &self.timeout_ms)
            .field("last_sequence", &self.last_sequence)
            .field("lowest_unanswered", &self.lowest_unanswered)
            .field("event_index", &self.outbox.last())
            .field("given_up", &self.given_up)
            .field("replies", &self.replies.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let open = Open {
            client: ClientId(1),
            attempt: 1,
            key: SessionKey(1),
            principal: String::new(),
            timeout_ms: 1,
        };
        let mut record = Record::new(open, None);
        for sequence in 1..=4 {
            let body = Bytes::new();
            let reply = KeptReply {
                index: Index(sequence),
                event_index: Index::ZERO,
                atomic: false,
                outcome: ReplyOutcome::Applied,
                body,
            };
            record.keep(Sequence(sequence), reply);
        }
        record
    }

    #[test]
    fn places() {
        let table = [
            (0, 9, Place::Consumed),
            (4, 9, Place::Consumed),
            (5, 5, Place::Next),
            (5, 4, Place::Beyond),
            (6, 9, Place::Beyond),
            (u64::MAX, 9, Place::Beyond),
        ];
        for (sequence, window, place) in table {
            assert_eq!(
                record().place(Sequence(sequence), window),
                place,
                "sequence {sequence} window {window}"
            );
        }
    }

    #[test]
    fn trimming_believes_only_what_can_be() {
        // said, then: lowest unanswered, replies kept
        for (said, lowest, kept) in [(0, 1, 4), (3, 3, 2), (5, 5, 0), (u64::MAX, 5, 0)] {
            let mut record = record();
            record.trim(Sequence(said));
            assert_eq!(
                (record.lowest_unanswered, record.replies.len()),
                (Sequence(lowest), kept),
                "said {said}"
            );
            record.trim(Sequence(2));
            assert!(record.lowest_unanswered >= Sequence(lowest.max(2)));
        }
    }
}
