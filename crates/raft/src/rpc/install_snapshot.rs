//! InstallSnapshot: chunk by chunk, one at a time (§5.3, R6).

use atomix_protocol::peer::{InstallOutcome, InstallSnapshot, InstallSnapshotReply, PeerMessage};
use atomix_protocol::{ClusterTime, EntryId, LocalTime, Round, ServerId, Term};
use bytes::Bytes;

use crate::progress::{Mode, Transfer};
use crate::role::State;
use crate::snapshot::Receiving;
use crate::{Output, Raft};

/// So many of the longest election timeouts may a follower be silent before a transfer to it is given up.
const TRANSFER_PATIENCE: u32 = 10;

impl Raft {
    // Sending.

    /// Begins to send the newest snapshot to a follower whose entries are gone. If the follower is past that snapshot, storage
    /// has lost what it should hold; the next heartbeat tries again.
    pub(crate) fn start_transfer(&mut self, now: LocalTime, to: ServerId) {
        let State::Leader(leader) = &mut self.state else { return };
        let (Some(progress), Some(meta)) = (leader.progress.get_mut(&to), &self.snapshots.published) else {
            return;
        };
        if progress.match_index() < meta.last.index {
            progress.transfer(meta.clone(), now + self.config.election_timeout.0);
            self.read_chunk(to);
        }
    }

    /// Asks storage for the current chunk.
    fn read_chunk(&mut self, to: ServerId) {
        if let Some(Transfer { meta, offset, .. }) = self.transfer_to(to) {
            let (meta, offset) = (meta.clone(), *offset);
            let bytes = self.config.snapshot_chunk_bytes;
            self.outputs.push(Output::ReadChunk { to, meta, offset, bytes });
        }
    }

    /// Sends the current chunk again if it was sent.
    pub(crate) fn resend_chunk(&mut self, now: LocalTime, to: ServerId) {
        let retry = now + self.config.election_timeout.0;
        if let Some(transfer) = self.transfer_to(to).filter(|transfer| transfer.sent.is_some()) {
            transfer.sent = None;
            transfer.retry = retry;
            self.read_chunk(to);
        }
    }

    /// Sends every chunk again that went unanswered for long. A transfer to a follower that is silent for very long is given
    /// up: it would keep the log behind its snapshot for ever (R6).
    pub(crate) fn resend_chunks(&mut self, now: LocalTime) {
        let State::Leader(leader) = &mut self.state else { return };
        let patience = self.config.election_timeout.1 * TRANSFER_PATIENCE;
        for progress in leader.progress.values_mut() {
            if matches!(progress.mode, Mode::Snapshot(_)) && now.since(progress.contact) > patience {
                progress.probe();
            }
        }
        let late =
            leader.progress.iter().filter(|(_, p)| matches!(&p.mode, Mode::Snapshot(t) if t.retry <= now));
        let late: alloc::vec::Vec<ServerId> = late.map(|(id, _)| *id).collect();
        late.into_iter().for_each(|to| self.resend_chunk(now, to));
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
        let Some(transfer) = self.transfer_to(to) else { return };
        if transfer.meta.last != last || transfer.offset != offset || transfer.sent.is_some() {
            return;
        }
        let Some(data) = data else { return self.restart_transfer(now, to) };
        transfer.sent = Some(data.len() as u64);
        transfer.round = round;
        transfer.retry = retry;
        let done = offset.saturating_add(data.len() as u64) >= transfer.meta.size;
        let message = InstallSnapshot { term, meta: transfer.meta.clone(), offset, data, done, time, round };
        self.send(to, PeerMessage::InstallSnapshot(message));
    }

    /// Begins again with whatever snapshot is the newest now; with the same one, after a while.
    fn restart_transfer(&mut self, now: LocalTime, to: ServerId) {
        let newest = self.snapshots.published_index();
        let Some(transfer) = self.transfer_to(to) else { return };
        if newest > transfer.meta.last.index {
            self.start_transfer(now, to);
        } else {
            transfer.offset = 0;
            transfer.sent = Some(0);
        }
        self.compact_log();
    }

    fn transfer_to(&mut self, to: ServerId) -> Option<&mut Transfer> {
        let State::Leader(leader) = &mut self.state else { return None };
        match &mut leader.progress.get_mut(&to)?.mode {
            Mode::Snapshot(transfer) => Some(transfer),
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
            self.snapshots.abandon();
            // What is committed and durable here can't differ from it (M12). Not durable yet: the leader asks again.
            if last.index <= self.durability.index() {
                self.following.matched = self.following.matched.max(last.index);
                self.reply_install(from, message.term, last, InstallOutcome::Installed);
            }
            return;
        }
        self.take_chunk(from, message);
    }

    /// Writes the chunk aside if it is the one expected, one at a time. A first chunk that comes again does not begin anew: a late
    /// copy of it would send leader and follower apart for good.
    fn take_chunk(&mut self, from: ServerId, message: InstallSnapshot) {
        if self.snapshots.writing {
            return; // The leader sends it again.
        }
        let InstallSnapshot { term, meta, offset, data, done, .. } = message;
        let next = match &self.snapshots.receiving {
            Some(receiving) if receiving.meta == meta && receiving.term == term => receiving.next,
            _ => 0,
        };
        if offset != next {
            let outcome = if next == 0 { InstallOutcome::Restart } else { InstallOutcome::Next(next) };
            return self.reply_install(from, term, meta.last, outcome);
        }
        self.snapshots.receiving =
            Some(Receiving { from, term, meta: meta.clone(), next: offset, replacing: false });
        self.snapshots.writing = true;
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
        let retry = now + self.config.election_timeout.0;
        let Some(transfer) = self.transfer_to(from).filter(|transfer| transfer.meta.last == reply.last)
        else {
            return;
        };
        let expected =
            transfer.sent.filter(|length| *length > 0).map(|length| transfer.offset.saturating_add(length));
        // The follower alone knows where it stands, after an attempt before this one or a restart of its own. But a late answer
        // tells where it stood once, and must not send the transfer back and forth.
        let answers = transfer.sent.is_some() && reply.round >= transfer.round;
        let next = match reply.outcome {
            InstallOutcome::Installed => return self.finish_transfer(from, reply.last),
            InstallOutcome::Next(offset) if Some(offset) == expected => offset,
            InstallOutcome::Next(offset) if answers && offset < transfer.meta.size => offset,
            InstallOutcome::Restart if answers && transfer.offset > 0 => 0,
            InstallOutcome::Next(_) | InstallOutcome::Restart | InstallOutcome::StaleTerm => return,
        };
        transfer.offset = next;
        transfer.sent = None;
        transfer.retry = retry;
        self.read_chunk(from);
    }

    fn finish_transfer(&mut self, from: ServerId, last: EntryId) {
        let State::Leader(leader) = &mut self.state else { return };
        if let Some(progress) = leader.progress.get_mut(&from) {
            // Ends the transfer: the follower's log goes on behind the snapshot.
            progress.durable(last.index);
        }
        self.advance_commit();
        self.compact_log();
    }
}

fn is_well_formed(message: &InstallSnapshot) -> bool {
    let InstallSnapshot { meta, offset, data, done, .. } = message;
    let end = offset.checked_add(data.len() as u64);
    let inside = end.is_some_and(|end| end <= meta.size && (end == meta.size) == *done);
    let real = meta.last.index.0 > 0 && meta.last.index.0 < u64::MAX && meta.last.term.0 > 0;
    let ordered = meta.last.term <= message.term && meta.configuration.index <= meta.last.index;
    inside && real && ordered && message.time < ClusterTime(u64::MAX)
}
