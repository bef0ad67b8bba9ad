//! What a snapshot replaces: an own one, or one received (§5, R6).

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::{InstallOutcome, SnapshotMeta};
use atomix_protocol::{ClusterTime, Entry, EntryId, Index, LocalTime, ServerId, Term};

use crate::progress::{Mode, Progress};
use crate::role::State;
use crate::{ChunkOutcome, Output, Raft};

/// The newest snapshot, the state as applied, and a snapshot on its way in.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// The newest published one. Invariant: at or before `applied`.
    pub(crate) published: Option<SnapshotMeta>,
    /// The last entry applied.
    pub(crate) applied: EntryId,
    /// Its cluster time.
    pub(crate) applied_time: ClusterTime,
    /// Bytes of the entries applied since `published`.
    pub(crate) bytes_since: u64,
    /// Behind it lies the tail of the log before `published`, kept for followers that are a little behind (R6).
    tail: Index,
    pub(crate) receiving: Option<Receiving>,
    /// Chunks that storage is writing. Outlives `receiving`: another snapshot waits for it.
    pub(crate) writing: usize,
}

/// A snapshot on its way in.
#[derive(Debug)]
pub(crate) struct Receiving {
    /// Who sends it, in which term.
    pub(crate) from: ServerId,
    pub(crate) term: Term,
    pub(crate) meta: SnapshotMeta,
    /// The next byte expected. What comes before went to storage.
    pub(crate) next: u64,
    /// Storage has written what comes before. Invariant: at most `next`.
    pub(crate) written: u64,
    /// The last chunk went to storage.
    pub(crate) ended: bool,
    pub(crate) stage: Stage,
}

/// How far a snapshot on its way in has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its sender is lost. What was written is of use to the next one that sends the very same (M4), and hinders nothing.
    Left,
    /// Chunks come in.
    Gathering,
    /// Whole and verified: it is being put in place of the state. There is no way back.
    Replacing,
}

impl Snapshots {
    pub(crate) fn new(published: Option<SnapshotMeta>) -> Self {
        Snapshots {
            applied: published.as_ref().map_or(EntryId::ZERO, |meta| meta.last),
            applied_time: published.as_ref().map_or(ClusterTime::ZERO, |meta| meta.time),
            bytes_since: 0,
            tail: published.as_ref().map_or(Index::ZERO, |meta| meta.last.index),
            published,
            receiving: None,
            writing: 0,
        }
    }

    pub(crate) fn published_index(&self) -> Index {
        self.published.as_ref().map_or(Index::ZERO, |meta| meta.last.index)
    }

    fn stage(&self) -> Option<Stage> {
        self.receiving.as_ref().map(|receiving| receiving.stage)
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.stage().is_some_and(|stage| stage != Stage::Left)
    }

    pub(crate) fn is_replacing(&self) -> bool {
        self.stage() == Some(Stage::Replacing)
    }

    /// Waits no longer for the sender of a snapshot on its way in, unless it is already replacing the state. Whether there was one.
    pub(crate) fn abandon(&mut self) -> bool {
        let gathering = self.receiving.as_mut().filter(|receiving| receiving.stage == Stage::Gathering);
        gathering.map(|receiving| receiving.stage = Stage::Left).is_some()
    }

    /// The log agrees with the leader's through `index`. A snapshot that ends there or before brings nothing more, and its next
    /// chunk may never come: it must not hold back commits.
    pub(crate) fn outrun(&mut self, index: Index) {
        self.receiving
            .take_if(|receiving| receiving.meta.last.index <= index && receiving.stage != Stage::Replacing);
    }

    pub(crate) fn note_applied(&mut self, entry: &Entry) {
        self.applied = entry.id;
        self.applied_time = entry.time;
        self.bytes_since += entry.weight();
    }
}

impl Raft {
    /// Description of a snapshot of the state as applied now, without size and checksum.
    #[must_use]
    pub fn snapshot_point(&self) -> SnapshotMeta {
        let last = self.snapshots.applied;
        SnapshotMeta {
            last,
            time: self.snapshots.applied_time,
            configuration: self.log.configuration_at(last.index).clone(),
            size: 0,
            checksum: 0,
        }
    }

    /// Bytes of log after the newest snapshot, applied entries only (R6).
    #[must_use]
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.snapshots.bytes_since
    }

    /// Whether a snapshot is being received.
    #[must_use]
    pub fn is_installing(&self) -> bool {
        self.snapshots.is_receiving() || self.snapshots.writing > 0
    }

    /// Whether an own snapshot may be taken: not while one is received (R6), nor while one is sent. Storage keeps no more than the newest:
    /// where writes outran every transfer, none would ever end.
    #[must_use]
    pub fn may_take_snapshot(&self) -> bool {
        let sends = match &self.state {
            State::Leader(leader) => leader.progress.values().any(|p| matches!(p.mode, Mode::Snapshot(_))),
            State::Follower | State::PreCandidate(_) | State::Candidate(_) => false,
        };
        !sends && !self.is_installing()
    }

    /// Through where storage may compact the log: what the newest snapshot covers, but for the tail before it; and nothing that a
    /// follower needs behind a snapshot that is on its way to it, or that it was just sent (R6).
    #[must_use]
    pub fn compactable_index(&self) -> Index {
        let tail = self.snapshots.tail;
        let State::Leader(leader) = &self.state else { return tail };
        leader.progress.values().filter_map(Progress::held_back).fold(tail, Index::min)
    }

    /// Waits no longer for the sender of a snapshot on its way in.
    pub(crate) fn abandon_snapshot(&mut self) {
        self.marks.install_aborted += u64::from(self.snapshots.abandon());
    }

    pub(crate) fn compact_log(&mut self) {
        self.log.compact(self.compactable_index());
    }

    /// A snapshot of this server's own state is published: the log before it may go.
    pub(crate) fn on_snapshot_published(&mut self, meta: SnapshotMeta) {
        let applied = self.snapshots.applied.index;
        assert!(
            meta.last.index <= applied,
            "server {} term {}: snapshot {:?} of a state applied through {applied}",
            self.server,
            self.hard_state.term,
            meta.last
        );
        if meta.last.index > self.snapshots.published_index() {
            let last = meta.last.index;
            self.snapshots.bytes_since = self.log.bytes_behind(last) - self.log.bytes_behind(applied);
            self.snapshots.tail = self.log.tail(last, self.config.log_tail_bytes).max(self.snapshots.tail);
            self.snapshots.published = Some(meta);
            if let State::Leader(leader) = &mut self.state {
                leader.progress.values_mut().for_each(Progress::outlast);
            }
            self.compact_log();
        }
    }

    /// A chunk was written, or was not.
    pub(crate) fn on_chunk_written(&mut self, last: EntryId, outcome: ChunkOutcome) {
        self.snapshots.writing = self.snapshots.writing.saturating_sub(1);
        let ours = |receiving: &Receiving| receiving.meta.last == last && receiving.stage != Stage::Replacing;
        let Some(mut receiving) = self.snapshots.receiving.take_if(|receiving| ours(receiving)) else {
            return;
        };
        let (from, term) = (receiving.from, receiving.term);
        let left = receiving.stage == Stage::Left;
        let answer = match outcome {
            ChunkOutcome::Next(next) => {
                receiving.written = next.min(receiving.next);
                self.snapshots.receiving = Some(receiving);
                InstallOutcome::Next(next)
            }
            ChunkOutcome::Whole if left => return,
            ChunkOutcome::Whole => {
                let meta = receiving.meta.clone();
                receiving.stage = Stage::Replacing;
                self.snapshots.receiving = Some(receiving);
                return self.outputs.push(Output::Install { meta });
            }
            ChunkOutcome::Bad => InstallOutcome::Restart,
        };
        if !left {
            self.reply_install(from, term, last, answer);
        }
    }

    /// The state machine was restored from the received snapshot: the log follows (Figure 5.3 rules 6 to 8).
    pub(crate) fn on_installed(&mut self, now: LocalTime, last: EntryId) {
        let Some(Receiving { from, term, meta, .. }) = self
            .snapshots
            .receiving
            .take_if(|receiving| receiving.stage == Stage::Replacing && receiving.meta.last == last)
        else {
            return;
        };
        assert!(
            self.commit_index < last.index,
            "server {} term {}: snapshot {last:?} put in place of a state committed through {}",
            self.server,
            self.hard_state.term,
            self.commit_index
        );
        let configuration =
            if Mutant::B20.active() { self.log.configuration().clone() } else { meta.configuration.clone() };
        if self.log.contains(last) {
            self.log.rebase_configuration(last.index, configuration);
            self.durability.covered(last);
        } else {
            self.log.reset(last, configuration);
            self.durability.reset(last);
        }
        self.commit_index = last.index;
        self.handed = last.index;
        self.clock.hear(meta.time);
        self.snapshots.applied = last;
        self.snapshots.applied_time = meta.time;
        self.snapshots.bytes_since = 0;
        self.snapshots.tail = last.index;
        self.snapshots.published = Some(meta);
        self.release_memory();
        self.counters.snapshots_installed += 1;
        self.marks.snapshot_installed += 1;
        if term == self.hard_state.term && self.following.leader == Some(from) {
            // The leader of this term holds what it sent, and it is committed: the logs agree through it.
            self.following.matched = self.following.matched.max(last.index);
            self.timers.restart_election(now, &self.config, &mut self.rng);
        }
        self.reply_install(from, term, last, InstallOutcome::Installed);
    }
}
