//! InstallSnapshot: in chunks, a window of them on the way, resumed where the follower stands (Figure 5.3, R6).

use alloc::vec::Vec;

use atomix_protocol::peer::{InstallOutcome, InstallSnapshot, InstallSnapshotReply, PeerMessage};
use atomix_protocol::{ClusterTime, EntryId, LocalTime, Round, ServerId, Term};
use bytes::Bytes;

use crate::chunks::{Heard, Transfer};
use crate::progress::Mode;
use crate::role::State;
use crate::rpc::configure::could_be_configuration;
use crate::snapshot::{Receiving, Stage};
use crate::{Output, Raft};

/// So many of the longest election timeouts may a follower be silent before a transfer to it is given up.
const TRANSFER_PATIENCE: u32 = 10;
/// So many times as long may it answer and yet come no further than ever.
const STUCK: u32 = 10;
/// So many own windows of a leader's bytes may wait for this disk: a leader's window may be another.
const UNWRITTEN_WINDOWS: u64 = 4;

impl Raft {
    // Sending.

    /// Begins to send the newest snapshot to a follower whose entries are gone. If the follower is past that snapshot, storage
    /// has lost what it should hold; the next heartbeat tries again.
    pub(crate) fn start_transfer(&mut self, now: LocalTime, to: ServerId) {
        let (round, retry) = (self.round(), now + self.config.election_timeout.0);
        let State::Leader(leader) = &mut self.state else { return };
        let (Some(progress), Some(meta)) = (leader.progress.get_mut(&to), &self.snapshots.published) else {
            return;
        };
        if progress.match_index() < meta.last.index {
            progress.transfer(Transfer::new(meta.clone(), round, now, retry));
            self.read_chunk(to);
        }
    }

    /// Asks storage for the next chunk, if the window has room for it.
    fn read_chunk(&mut self, to: ServerId) {
        let (bytes, window) = (self.config.snapshot_chunk_bytes, self.config.snapshot_bytes_in_flight);
        let Some(transfer) = self.transfer_to(to) else { return };
        if let Some(offset) = transfer.next_read(window) {
            let meta = transfer.meta.clone();
            self.outputs.push(Output::ReadChunk { to, meta, offset, bytes });
        }
    }

    /// What is on the way to that follower may be lost: goes on from what it has.
    pub(crate) fn resend_chunks_to(&mut self, now: LocalTime, to: ServerId) {
        let retry = now + self.config.election_timeout.0;
        if let Some(transfer) = self.transfer_to(to) {
            transfer.rewind(retry);
            self.read_chunk(to);
        }
    }

    /// Goes on wherever no answer came for long. A transfer to a follower that is silent for very long, or gets nowhere, is
    /// given up: it would keep the log behind its snapshot for ever (R6).
    pub(crate) fn resend_chunks(&mut self, now: LocalTime) {
        let State::Leader(leader) = &mut self.state else { return };
        let patience = self.config.election_timeout.1 * TRANSFER_PATIENCE;
        let first = self.log.first_in_memory();
        let mut late = Vec::new();
        for (to, progress) in &mut leader.progress {
            let silent = now.since(progress.contact) > patience;
            if silent || progress.next_index() >= first {
                progress.caught_up();
            }
            if let Mode::Snapshot(transfer) = &progress.mode {
                if silent || transfer.is_stuck(now, patience * STUCK) {
                    progress.probe();
                } else if transfer.retry <= now {
                    late.push(*to);
                }
            }
        }
        late.into_iter().for_each(|to| self.resend_chunks_to(now, to));
    }

    /// Storage has read a chunk; none: that snapshot is gone, there is a newer one.
    pub(crate) fn on_chunk_read(
        &mut self,
        now: LocalTime,
        to: ServerId,
        last: EntryId,
        offset: u64,
        data: Option<Bytes>,
    ) {
        let retry = now + self.config.election_timeout.0;
        let (term, time, round) = (self.hard_state.term, self.clock.now(now), self.round());
        let Some(transfer) = self.transfer_to(to).filter(|transfer| transfer.meta.last == last) else {
            return;
        };
        if transfer.read(offset) {
            // A chunk of nothing would be sent again without end.
            let data = data.filter(|data| !data.is_empty() || transfer.meta.size == 0);
            let Some(data) = data else { return self.restart_transfer(now, to) };
            let done = transfer.send(data.len() as u64, retry);
            let meta = transfer.meta.clone();
            let message = InstallSnapshot { term, meta, offset, data, done, time, round };
            self.send(to, PeerMessage::InstallSnapshot(message));
        }
        self.read_chunk(to);
    }

    /// Begins again with whatever snapshot is the newest now; with the same one, after a while.
    fn restart_transfer(&mut self, now: LocalTime, to: ServerId) {
        let newest = self.snapshots.published_index();
        let retry = now + self.config.election_timeout.0;
        let Some(transfer) = self.transfer_to(to) else { return };
        if newest > transfer.meta.last.index {
            self.start_transfer(now, to);
        } else {
            transfer.rewind(retry);
        }
        self.compact_log();
    }

    fn transfer_to(&mut self, to: ServerId) -> Option<&mut Transfer> {
        let State::Leader(leader) = &mut self.state else { return None };
        match &mut leader.progress.get_mut(&to)?.mode {
            Mode::Snapshot(transfer) => Some(transfer.as_mut()),
            Mode::Probe | Mode::Replicate => None,
        }
    }

    // Receiving.

    pub(crate) fn on_install_snapshot(&mut self, now: LocalTime, from: ServerId, message: InstallSnapshot) {
        if !is_well_formed(&message) {
            self.marks.hostile_refused += 1;
            return;
        }
        let last = message.meta.last;
        if message.term < self.hard_state.term {
            return self.reply_install(from, message.term, last, InstallOutcome::StaleTerm);
        }
        if !self.hear_leader(now, from, message.term, message.time, message.round) {
            return;
        }
        if self.snapshots.is_replacing() {
            return; // Answered when it is in place.
        }
        if last.index <= self.commit_index {
            return self.decline_snapshot(from, message.term, last);
        }
        self.take_chunk(from, message);
    }

    /// A snapshot of what is committed here says nothing new, and can't say anything else (M12).
    fn decline_snapshot(&mut self, from: ServerId, term: Term, last: EntryId) {
        assert!(
            self.log.term(last.index).is_none_or(|term| term == last.term),
            "server {} term {} index {}: a leader's snapshot ends with {last}, and another entry is committed here (through {})",
            self.server,
            self.hard_state.term,
            last.index,
            self.commit_index
        );
        self.snapshots.outrun(self.commit_index);
        // Not durable yet: the leader asks again.
        if last.index <= self.durability.index() {
            self.following.matched = self.following.matched.max(last.index);
            self.reply_install(from, term, last, InstallOutcome::Installed);
        }
    }

    /// Has the chunk written aside if it is the one expected. Whoever sends: what was written of the very same snapshot is not
    /// written again. So a first chunk that comes again does not begin anew: a late copy of it would send leader and
    /// follower apart for good.
    ///
    /// An answer names what is written, never more: a leader that hears less than before takes it for a new beginning.
    fn take_chunk(&mut self, from: ServerId, message: InstallSnapshot) {
        let InstallSnapshot { term, meta, offset, data, done, .. } = message;
        let last = meta.last;
        let mut held = self.snapshots.receiving.as_mut().filter(|receiving| receiving.meta == meta);
        if held.is_none() && self.snapshots.writing > 0 {
            return; // Storage still writes what belongs to another: the leader sends it again.
        }
        if let Some(held) = &mut held {
            // Also while it is verified: the whole is wanted, and it is this sender that is answered.
            self.marks.install_taken_over += u64::from(held.from != from);
            (held.from, held.term, held.stage) = (from, term, Stage::Gathering);
        }
        let (next, written, ended) = held.map_or((0, 0, false), |held| (held.next, held.written, held.ended));
        if ended {
            return; // Answered when it is verified.
        }
        if offset != next {
            let outcome = if next == 0 { InstallOutcome::Restart } else { InstallOutcome::Next(next) };
            if written == next {
                self.reply_install(from, term, last, outcome);
            }
            return; // Else answered when it is written.
        }
        if next - written > self.config.snapshot_bytes_in_flight.saturating_mul(UNWRITTEN_WINDOWS) {
            return; // No leader sends so far ahead.
        }
        let (next, kept) = (next + data.len() as u64, meta.clone());
        let stage = Stage::Gathering;
        self.snapshots.receiving =
            Some(Receiving { from, term, meta: kept, next, written, ended: done, stage });
        self.snapshots.writing += 1;
        self.outputs.push(Output::WriteChunk { meta, offset, data, done });
    }

    // Replying.

    /// Answers a chunk, unless the term that it was sent in is over and the answer would be taken for one of the present.
    pub(crate) fn reply_install(
        &mut self,
        to: ServerId,
        asked: Term,
        last: EntryId,
        outcome: InstallOutcome,
    ) {
        let stale = outcome == InstallOutcome::StaleTerm;
        if asked != self.hard_state.term && !stale {
            return;
        }
        let round = if stale { Round::ZERO } else { self.following.round };
        let reply = InstallSnapshotReply { term: self.hard_state.term, round, last, outcome };
        self.send(to, PeerMessage::InstallSnapshotReply(reply));
    }

    pub(crate) fn on_install_snapshot_reply(
        &mut self,
        now: LocalTime,
        from: ServerId,
        reply: &InstallSnapshotReply,
    ) {
        self.adopt_term(now, reply.term);
        if reply.term != self.hard_state.term || !self.note_contact(now, from, reply.round) {
            return;
        }
        self.confirm_rounds();
        if reply.outcome == InstallOutcome::Installed {
            return self.finish_transfer(from, reply.last);
        }
        let retry = now + self.config.election_timeout.0;
        let Some(transfer) = self.transfer_to(from).filter(|transfer| transfer.meta.last == reply.last)
        else {
            return;
        };
        let heard = match reply.outcome {
            InstallOutcome::Next(next) => transfer.hear(next, reply.round, now, retry),
            InstallOutcome::Restart => transfer.restart(reply.round, now, retry),
            InstallOutcome::Installed | InstallOutcome::StaleTerm => return,
        };
        self.marks.transfer_resumed += u64::from(heard == Heard::Resumed);
        self.read_chunk(from);
    }

    /// A follower has a snapshot in place. If it took long, another may be on its way by now: what counts is that its last entry is
    /// in this log.
    fn finish_transfer(&mut self, from: ServerId, last: EntryId) {
        let State::Leader(leader) = &mut self.state else { return };
        let ours = self.log.contains(last);
        if let Some(progress) = leader.progress.get_mut(&from).filter(|_| ours) {
            progress.installed(last.index);
        }
        self.advance_commit();
        self.compact_log();
    }
}

fn is_well_formed(message: &InstallSnapshot) -> bool {
    let InstallSnapshot { meta, offset, data, done, .. } = message;
    let end = offset.checked_add(data.len() as u64);
    let inside = end.is_some_and(|end| end <= meta.size && (end == meta.size) == *done);
    let something = *done || !data.is_empty();
    let real = meta.last.index.0 > 0 && meta.last.index.0 < u64::MAX && meta.last.term.0 > 0;
    let ordered = meta.last.term <= message.term && message.time < ClusterTime(u64::MAX);
    inside && something && real && ordered && could_be_configuration(&meta.configuration)
}
