//! AppendEntries: entries, and heartbeats without any (§3.5, §10.2).

use alloc::vec::Vec;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::{AppendEntries, AppendEntriesReply, AppendOutcome, PeerMessage};
use atomix_protocol::{ClusterTime, Entry, EntryId, Index, LocalTime, Round, ServerId, Term};

use crate::progress::Mode;
use crate::role::State;
use crate::{Output, Raft};

impl Raft {
    // Sending.

    /// Leader: sends every follower what it lacks and its window allows, and the round that was begun, if one was.
    pub(crate) fn replicate(&mut self, now: LocalTime) {
        let State::Leader(leader) = &mut self.state else { return };
        let begun = core::mem::take(&mut leader.reads.unsent);
        let followers: Vec<ServerId> = leader.progress.keys().copied().collect();
        for to in followers {
            let sent = self.replicate_to(now, to);
            if begun && !sent {
                self.send_heartbeat(now, to);
            }
        }
        if begun {
            self.confirm_rounds();
        }
    }

    /// Sends entries while the window allows. Whether any went out.
    fn replicate_to(&mut self, now: LocalTime, to: ServerId) -> bool {
        let mut sent = false;
        loop {
            let State::Leader(leader) = &mut self.state else { return sent };
            let Some(progress) = leader.progress.get_mut(&to) else { return sent };
            let next = progress.next_index();
            if next > self.log.last().index {
                return sent;
            }
            if !progress.may_send(&self.config) {
                let full = matches!(progress.mode, Mode::Replicate) && progress.is_full(&self.config);
                self.marks.window_full += u64::from(full);
                return sent;
            }
            let Some(prev) = self.log.id(next.previous()) else {
                self.start_transfer(now, to);
                return sent;
            };
            if next < self.log.first_in_memory() {
                progress.fetching = Some(next);
                let through = self.log.first_in_memory().previous();
                self.outputs.push(Output::Fetch { to, from: next, through, bytes: self.config.append_bytes });
                return sent;
            }
            let entries = self.log.slice(next, self.log.last().index, self.config.append_bytes);
            self.send_entries(now, to, prev, entries);
            sent = true;
        }
    }

    fn send_entries(&mut self, now: LocalTime, to: ServerId, prev: EntryId, entries: Vec<Entry>) {
        let State::Leader(leader) = &mut self.state else { return };
        let (Some(progress), Some(last)) = (leader.progress.get_mut(&to), entries.last()) else { return };
        progress.sent(last.id.index, entries.iter().map(Entry::weight).sum());
        self.marks.served_from_tail += u64::from(prev.index < self.snapshots.published_index());
        self.counters.appends_sent += 1;
        self.counters.entries_sent += entries.len() as u64;
        self.counters.largest_in_flight = self.counters.largest_in_flight.max(progress.in_flight() as u64);
        self.send_append(now, to, prev, entries);
    }

    /// A heartbeat names the last entry sent as `prev`, so that its answer shows a loss.
    fn send_heartbeat(&mut self, now: LocalTime, to: ServerId) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let prev = match progress.heartbeat_prev() {
            Some(index) => self.log.id(index),
            None => Some(EntryId::ZERO),
        };
        if prev.is_none() {
            // Lost, and forgotten here since.
            self.start_transfer(now, to);
        }
        // Zero always agrees.
        let prev = prev.unwrap_or(EntryId::ZERO);
        self.send_append(now, to, prev, Vec::new());
    }

    fn send_append(&mut self, now: LocalTime, to: ServerId, prev: EntryId, entries: Vec<Entry>) {
        let message = AppendEntries {
            term: self.hard_state.term,
            prev,
            leader_commit: self.commit_index,
            last_index: self.log.last().index,
            time: self.clock.now(now),
            promise_ms: self.promise_ms(),
            round: self.round(),
            entries,
        };
        self.send(to, PeerMessage::AppendEntries(message));
    }

    /// Entries that memory no longer held, for a follower (R5). None: it gets a snapshot.
    pub(crate) fn on_fetched(
        &mut self,
        now: LocalTime,
        to: ServerId,
        from: Index,
        entries: Option<Vec<Entry>>,
    ) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.progress.get_mut(&to).filter(|p| p.fetching == Some(from)) else {
            return;
        };
        if progress.next_index() != from {
            // A late acknowledgement has overtaken the read: what it holds is not wanted any more.
            progress.fetching = None;
            return;
        }
        let mut entries = entries.unwrap_or_default();
        let own = entries
            .iter()
            .zip(from.0..)
            .take_while(|(e, i)| e.id.index.0 == *i && self.log.contains(e.id))
            .count();
        entries.truncate(own);
        match self.log.id(from.previous()) {
            Some(prev) if !entries.is_empty() => {
                progress.fetching = None;
                self.send_entries(now, to, prev, entries);
            }
            _ => {
                progress.unavailable = true;
                self.start_transfer(now, to);
            }
        }
    }

    /// A new link: what was in flight on the one before may be lost.
    pub(crate) fn on_link_opened(&mut self, now: LocalTime, to: ServerId) {
        match &mut self.state {
            State::Leader(leader) => {
                let Some(progress) = leader.progress.get_mut(&to) else { return self.send_configure(to) };
                if matches!(progress.mode, Mode::Snapshot(_)) {
                    self.resend_chunks_to(now, to);
                } else {
                    progress.probe();
                }
                if !self.replicate_to(now, to) {
                    self.send_heartbeat(now, to);
                }
            }
            State::Candidate(_) => self.send_request_vote(to),
            State::PreCandidate(_) => self.send_pre_vote(to),
            State::Follower => {}
        }
    }

    // Receiving.

    pub(crate) fn on_append_entries(&mut self, now: LocalTime, from: ServerId, message: AppendEntries) {
        if !is_well_formed(&message) {
            self.marks.hostile_refused += 1;
            return;
        }
        if message.term < self.hard_state.term {
            return self.reply_append(from, AppendOutcome::StaleTerm);
        }
        if !self.hear_leader(now, from, message.term, message.time, message.round) {
            return;
        }
        let end = message.prev.index.plus(message.entries.len() as u64);
        self.note_leaders_last(message.last_index.max(end));
        self.following.fresh = Some((now, message.leader_commit));
        self.promise(now, from, message.round, message.promise_ms);
        let prompt = message.entries.is_empty() || message.round > self.following.answered;
        let prev = message.prev;
        if !self.agrees_at(prev) {
            let below = EntryId::new(prev.term, prev.index.previous());
            let hint = self.log.id(self.log.could_match(below)).unwrap_or(EntryId::ZERO);
            return self.reply_append(from, AppendOutcome::Mismatch { prev, hint });
        }
        let through = self.take_entries(prev, message.entries);
        self.following.matched = self.following.matched.max(through);
        self.snapshots.outrun(through);
        self.follow_commit(message.leader_commit, through);
        self.acknowledge(prompt);
    }

    /// Whether this log holds `prev`. What is committed here is in every leader's log.
    fn agrees_at(&self, prev: EntryId) -> bool {
        self.log.contains(prev)
            || (prev.index <= self.commit_index && self.log.term(prev.index).is_none())
            || prev == EntryId::ZERO
    }

    /// Appends what is new; what conflicts goes, with all behind it, and only that (§3.5). Returns the last index that now
    /// agrees with the leader: short of all entries when memory is at its bound (R5).
    fn take_entries(&mut self, prev: EntryId, entries: Vec<Entry>) -> Index {
        let mut through = prev.index;
        if Mutant::B15.active() && !entries.is_empty() && self.log.last().index > prev.index {
            self.truncate_suffix(prev.index.max(self.commit_index));
        }
        for entry in entries {
            let index = entry.id.index;
            match self.log.term(index) {
                Some(term) if term == entry.id.term => {}
                Some(_) => self.truncate_suffix(index.previous()),
                // New, or so old that the snapshot covers it.
                None => {}
            }
            if index > self.log.last().index {
                // Only what waits for this disk is counted: what waits for a commit is bounded by the leader, and refusing
                // it could keep that commit away for ever.
                if self.log.bytes_behind(self.durability.index()) >= self.config.log_memory_bytes {
                    self.marks.busy += 1;
                    break;
                }
                self.log.append(entry);
            }
            through = index;
        }
        through
    }

    fn truncate_suffix(&mut self, after: Index) {
        assert!(
            after >= self.commit_index,
            "server {} term {} index {}: a leader contradicts an entry that is committed here (through {})",
            self.server,
            self.hard_state.term,
            after.next(),
            self.commit_index
        );
        self.marks.suffix_truncated += 1;
        self.marks.configuration_rolled_back += u64::from(self.log.configuration().index > after);
        self.log.truncate_after(after);
        self.durability.truncated(self.log.last());
        self.following.matched = self.following.matched.min(after);
    }

    // Replying.

    /// Tells the leader how far this log agrees *and* is durable (R2): now if nothing has to be waited for, or if the leader
    /// wants to know at once that it is heard; else when the disk has spoken.
    fn acknowledge(&mut self, prompt: bool) {
        let Some(leader) = self.following.leader else { return };
        let matched = self.following.matched;
        let durable = if Mutant::B04.active() { matched } else { matched.min(self.durability.index()) };
        self.following.ack_due = durable < matched;
        if prompt || durable == matched {
            self.reply_append(leader, AppendOutcome::Durable(durable));
        }
    }

    /// The disk has spoken: sends the acknowledgement that waited.
    pub(crate) fn acknowledge_durable(&mut self) {
        if self.following.ack_due && matches!(self.state, State::Follower) {
            self.acknowledge(true);
        }
    }

    pub(crate) fn reply_append(&mut self, to: ServerId, outcome: AppendOutcome) {
        let round = match outcome {
            AppendOutcome::StaleTerm => Round::ZERO,
            AppendOutcome::Unpromised | AppendOutcome::Mismatch { .. } => self.following.round,
            AppendOutcome::Durable(_) => self.following.promised,
        };
        self.following.answered = self.following.answered.max(round);
        let (term, room, abstains) = (self.hard_state.term, self.room, self.abstains());
        let reply = AppendEntriesReply { term, round, room, abstains, outcome };
        self.send(to, PeerMessage::AppendEntriesReply(reply));
    }

    pub(crate) fn on_append_entries_reply(
        &mut self,
        now: LocalTime,
        from: ServerId,
        reply: AppendEntriesReply,
    ) {
        self.adopt_term(now, reply.term);
        let current = reply.term == self.hard_state.term;
        if !current && !Mutant::B17.active() {
            return;
        }
        if current && !self.note_contact(now, from, reply.round) {
            return;
        }
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        if current {
            (progress.room, progress.abstains) = (reply.room, reply.abstains);
        }
        let durable = matches!(reply.outcome, AppendOutcome::Durable(_));
        // Nobody has heard of a round that was not begun.
        if current && durable && reply.round <= leader.reads.round {
            progress.promised = progress.promised.max(reply.round);
            progress.acknowledged = progress.acknowledged.max(reply.round);
        }
        match reply.outcome {
            AppendOutcome::Durable(index) => {
                if !current {
                    progress.durable_unchecked(index.min(self.log.last().index)); // B17
                }
                if progress.durable(index) || !current {
                    self.advance_commit();
                    self.compact_log();
                    self.pursue_hand_over();
                }
            }
            AppendOutcome::Mismatch { prev, hint } => {
                let before = progress.match_index();
                progress.mismatch(prev, hint, reply.round, &self.log);
                let lost = progress.match_index() < before;
                self.marks.match_went_back += u64::from(lost);
                leader.forgetful = leader.forgetful.or((lost && !reply.abstains).then_some(from));
            }
            AppendOutcome::StaleTerm | AppendOutcome::Unpromised => {}
        }
        self.confirm_rounds();
    }

    /// Leader: a follower answered in this term, having received `round`. False if this server does not lead it.
    pub(crate) fn note_contact(&mut self, now: LocalTime, from: ServerId, round: Round) -> bool {
        let State::Leader(leader) = &mut self.state else { return false };
        let Some(progress) = leader.progress.get_mut(&from) else { return false };
        progress.contact = now;
        progress.answered = true;
        if round <= leader.reads.round {
            progress.round = progress.round.max(round);
        }
        true
    }
}

/// Whether the entries are consecutive behind `prev`, with terms that a log can have.
fn is_well_formed(message: &AppendEntries) -> bool {
    let mut last = message.prev;
    let prev_exists = last.index.0 > 0 && last.term.0 > 0;
    let mut holds = last == EntryId::ZERO || prev_exists;
    for entry in &message.entries {
        holds &=
            last.index.0.checked_add(1) == Some(entry.id.index.0) && entry.id.term >= last.term.max(Term(1));
        last = entry.id;
    }
    holds && last.term <= message.term && last.index.0 < u64::MAX && message.time < ClusterTime(u64::MAX)
}
