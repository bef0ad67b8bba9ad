//! A snapshot on its way to one follower: which chunk is next, and how many may be on the way (Figure 5.3, R6).

use core::time::Duration;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{LocalTime, Round};

/// So many times as long may a follower take to put the whole in place: it says nothing of the transfer meanwhile.
const INSTALLS: u32 = 10;

/// A snapshot on its way to one follower.
///
/// The first chunk goes alone: the follower may hold more of the snapshot already, from this leader or another. Its answer opens a
/// window of bytes. When answers stop, or say that a chunk is missing, the first one without an answer goes alone again.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) meta: SnapshotMeta,
    /// The follower has all before this.
    acknowledged: u64,
    /// The next byte to send. Invariant: at or behind `acknowledged`.
    sent: u64,
    /// The last chunk is among those sent: only of an empty snapshot `sent` does not tell.
    ended: bool,
    /// Where the chunk begins that storage is reading. One at a time, so that no follower holds up the reads of others for long.
    reading: Option<u64>,
    /// The follower has said where it stands since the last time that sending began again.
    answered: bool,
    /// It has said so before, in this transfer.
    known: bool,
    /// What it lacks was sent again because it said so. Once: all chunks behind a missing one are answered alike.
    repeated: bool,
    /// The latest round whose answer was believed. Only a later one can tell that the follower has less than it said.
    believed: Round,
    /// Without an answer until then, sending begins again.
    pub(crate) retry: LocalTime,
    /// The most that the follower ever had in this transfer. Invariant: at or behind `acknowledged`.
    furthest: u64,
    /// When it came so far.
    moved: LocalTime,
    /// Where the last chunk begins, if it was ever sent.
    last_chunk: Option<u64>,
    /// The follower began anew after that: the whole may be one that never verifies.
    refused: bool,
}

/// What an answer of the follower meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing new, or it is late: it tells where the follower stood once.
    Nothing,
    /// It has more than before.
    More,
    /// It has more than it was sent in this transfer: it goes on with what an earlier one left.
    Resumed,
    /// It has less than it said: it has begun anew.
    Less,
    /// A chunk did not reach it, though one behind it did.
    Gap,
}

impl Transfer {
    /// Begins at the front.
    pub(crate) fn new(meta: SnapshotMeta, round: Round, now: LocalTime, retry: LocalTime) -> Self {
        Transfer {
            meta,
            acknowledged: 0,
            sent: 0,
            ended: false,
            reading: None,
            answered: false,
            known: false,
            repeated: false,
            believed: round,
            retry,
            furthest: 0,
            moved: now,
            last_chunk: None,
            refused: false,
        }
    }

    /// Whether it gets nowhere: the follower has not come further than ever for so long. To begin anew is no progress. Who has all but
    /// the last chunk may be verifying the whole, or putting it in place, and is waited for longer.
    pub(crate) fn is_stuck(&self, now: LocalTime, patience: Duration) -> bool {
        let installs = self.last_chunk == Some(self.acknowledged) && !self.refused;
        now.since(self.moved) > if installs { patience * INSTALLS } else { patience }
    }

    /// Where the chunk begins that storage should read now, if the window has room for it.
    pub(crate) fn next_read(&mut self, window: u64) -> Option<u64> {
        let room = if self.answered {
            self.sent - self.acknowledged < window.max(1)
        } else {
            self.sent == self.acknowledged
        };
        let wanted = self.reading.is_none() && !self.ended && room;
        wanted.then(|| *self.reading.insert(self.sent))
    }

    /// Storage has read a chunk, or found nothing. Whether it was asked for, and is still the one to send.
    pub(crate) fn read(&mut self, offset: u64) -> bool {
        self.reading.take_if(|reading| *reading == offset).is_some() && offset == self.sent && !self.ended
    }

    /// A chunk of that length goes out. Whether it is the last.
    pub(crate) fn send(&mut self, length: u64, retry: LocalTime) -> bool {
        if self.sent == self.acknowledged {
            self.retry = retry;
        }
        let offset = self.sent;
        self.sent = offset.saturating_add(length);
        self.ended = self.sent >= self.meta.size;
        if self.ended {
            self.last_chunk = Some(offset);
        }
        self.ended
    }

    /// Nothing that is on the way is counted on any more: the first chunk without an answer goes again, alone.
    pub(crate) fn rewind(&mut self, retry: LocalTime) {
        self.sent = self.acknowledged;
        self.ended = false;
        self.answered = false;
        self.retry = retry;
    }

    /// The follower has nothing, or has dropped what it had.
    pub(crate) fn restart(&mut self, round: Round, now: LocalTime, retry: LocalTime) -> Heard {
        self.refused |= self.last_chunk.is_some() && round >= self.believed;
        self.hear(0, round, now, retry)
    }

    /// The follower wants the chunk at `next`; zero when it has nothing.
    pub(crate) fn hear(&mut self, next: u64, round: Round, now: LocalTime, retry: LocalTime) -> Heard {
        let missing = next == self.acknowledged && self.sent > next && self.answered && !self.repeated;
        let heard = if next > self.acknowledged && next <= self.sent {
            Heard::More
        } else if next > self.sent && next < self.meta.size && round >= self.believed {
            if self.known { Heard::More } else { Heard::Resumed }
        } else if next < self.acknowledged && round > self.believed {
            Heard::Less
        } else if missing && round >= self.believed {
            Heard::Gap
        } else {
            return Heard::Nothing;
        };
        self.believed = self.believed.max(round);
        self.acknowledged = next;
        self.repeated = heard == Heard::Gap;
        self.known = true;
        if matches!(heard, Heard::Less | Heard::Gap) {
            self.rewind(retry);
            return heard;
        }
        if next > self.sent {
            self.sent = next;
            self.ended = false;
        }
        self.answered = true;
        self.retry = retry;
        if next > self.furthest {
            self.furthest = next;
            self.moved = now;
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use atomix_protocol::{ClusterTime, Configuration, EntryId};

    use super::*;

    const NOW: LocalTime = LocalTime::ZERO;

    /// Of a snapshot of ten bytes, begun in round 5.
    fn transfer(size: u64) -> Transfer {
        let (last, time) = (EntryId::ZERO, ClusterTime(0));
        let meta = SnapshotMeta { last, time, configuration: Configuration::default(), size, checksum: 0 };
        Transfer::new(meta, Round(5), NOW, NOW)
    }

    /// Reads and sends chunks of two bytes while it may, in a window of six.
    fn pump(transfer: &mut Transfer) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(offset) = transfer.next_read(6) {
            assert!(transfer.read(offset) && !transfer.read(offset));
            transfer.send(2.min(transfer.meta.size - offset), NOW);
            sent.push(offset);
        }
        sent
    }

    fn hear(transfer: &mut Transfer, next: u64, round: u64) -> Heard {
        transfer.hear(next, Round(round), NOW, NOW)
    }

    #[test]
    fn the_first_chunk_goes_alone_and_its_answer_opens_the_window() {
        let mut transfer = transfer(10);
        assert_eq!(pump(&mut transfer), [0]);
        assert_eq!(hear(&mut transfer, 2, 5), Heard::More);
        assert_eq!(pump(&mut transfer), [2, 4, 6]);
        assert_eq!(pump(&mut transfer), []);
        assert_eq!(hear(&mut transfer, 6, 6), Heard::More);
        assert_eq!(pump(&mut transfer), [8]);
        assert_eq!(hear(&mut transfer, 8, 6), Heard::More);
        assert_eq!(pump(&mut transfer), [], "the last has been sent");
    }

    #[test]
    fn without_answers_the_first_unanswered_chunk_goes_again_alone() {
        let mut transfer = transfer(10);
        pump(&mut transfer);
        hear(&mut transfer, 2, 5);
        pump(&mut transfer);
        transfer.rewind(NOW);
        assert_eq!(pump(&mut transfer), [2]);
        // What was believed lost had arrived.
        assert_eq!(hear(&mut transfer, 8, 5), Heard::More);
        assert_eq!(pump(&mut transfer), [8]);
    }

    #[test]
    fn a_chunk_that_is_missing_goes_again_at_once_and_once() {
        let mut transfer = transfer(20);
        pump(&mut transfer);
        hear(&mut transfer, 2, 5);
        assert_eq!(pump(&mut transfer), [2, 4, 6]);
        assert_eq!(hear(&mut transfer, 2, 5), Heard::Gap);
        assert_eq!(pump(&mut transfer), [2]);
        assert_eq!(hear(&mut transfer, 2, 5), Heard::Nothing, "so is the one behind it answered");
        assert_eq!(hear(&mut transfer, 4, 5), Heard::More);
        assert_eq!(pump(&mut transfer), [4, 6, 8]);
        assert_eq!(hear(&mut transfer, 4, 5), Heard::Gap, "another one");
    }

    #[test]
    fn who_has_more_goes_on_there_and_who_has_less_begins_anew() {
        let mut transfer = transfer(10);
        pump(&mut transfer);
        assert_eq!(hear(&mut transfer, 6, 4), Heard::Nothing, "of an earlier transfer");
        assert_eq!(hear(&mut transfer, 10, 5), Heard::Nothing, "the whole is answered otherwise");
        assert_eq!(hear(&mut transfer, 6, 5), Heard::Resumed);
        assert_eq!(pump(&mut transfer), [6, 8]);
        assert_eq!(hear(&mut transfer, 0, 5), Heard::Nothing, "late");
        assert_eq!(hear(&mut transfer, 0, 6), Heard::Less);
        assert_eq!(pump(&mut transfer), [0]);
    }

    fn minute(minute: u64) -> LocalTime {
        NOW + Duration::from_secs(minute * 60)
    }

    /// Right behind that minute, where one is patience enough.
    fn stuck_at(transfer: &Transfer, after: u64) -> bool {
        transfer.is_stuck(minute(after) + Duration::from_secs(1), Duration::from_secs(60))
    }

    #[test]
    fn to_begin_anew_is_no_progress() {
        let mut transfer = transfer(6);
        for round in 0..3 {
            for next in [2, 4] {
                pump(&mut transfer);
                transfer.hear(next, Round(6 + round), minute(round), NOW);
            }
            pump(&mut transfer);
            assert_eq!(transfer.restart(Round(7 + round), minute(round), NOW), Heard::Less);
            assert!(
                !stuck_at(&transfer, 0) && stuck_at(&transfer, 1),
                "it came furthest in the first minute"
            );
        }
        let mut single = self::transfer(2);
        pump(&mut single);
        assert!(!stuck_at(&single, 1), "it may be put in place");
        single.restart(Round(5), NOW, NOW);
        assert!(stuck_at(&single, 1), "nor where one chunk is all");
    }

    #[test]
    fn who_has_all_but_the_last_chunk_is_waited_for_longer_and_not_for_ever() {
        let mut transfer = transfer(4);
        pump(&mut transfer);
        assert!(stuck_at(&transfer, 1));
        hear(&mut transfer, 2, 5);
        assert!(stuck_at(&transfer, 1), "the last was not sent");
        pump(&mut transfer);
        transfer.rewind(NOW);
        assert!(!stuck_at(&transfer, 9) && stuck_at(&transfer, 10));
    }

    #[test]
    fn a_read_that_is_not_wanted_any_more_is_dropped() {
        let mut transfer = transfer(10);
        assert_eq!(transfer.next_read(6), Some(0));
        assert_eq!(hear(&mut transfer, 6, 5), Heard::Resumed);
        assert_eq!(transfer.next_read(6), None, "one read at a time");
        assert!(!transfer.read(0));
        assert_eq!(pump(&mut transfer), [6, 8]);
    }

    #[test]
    fn an_empty_snapshot_is_one_chunk() {
        let mut transfer = transfer(0);
        assert_eq!(pump(&mut transfer), [0]);
        transfer.rewind(NOW);
        assert_eq!(pump(&mut transfer), [0]);
    }
}
