//! What a snapshot replaces: an own one, or one received (§5, R6).

use atomix_protocol::peer::{InstallOutcome, SnapshotMeta};
use atomix_protocol::{ClusterTime, Entry, EntryId, Index, LocalTime, ServerId, Term};

use crate::progress::Mode;
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
    pub(crate) receiving: Option<Receiving>,
    /// A chunk is being written. Outlives `receiving`: the next waits for it.
    pub(crate) writing: bool,
}

/// A snapshot on its way in.
#[derive(Debug)]
pub(crate) struct Receiving {
    /// Who sends it, in which term.
    pub(crate) from: ServerId,
    pub(crate) term: Term,
    pub(crate) meta: SnapshotMeta,
    /// The next byte expected.
    pub(crate) next: u64,
    /// Whole and verified: it is being put in place of the state. There is no way back.
    pub(crate) replacing: bool,
}

impl Snapshots {
    pub(crate) fn new(published: Option<SnapshotMeta>) -> Self {
        Snapshots {
            applied: published.as_ref().map_or(EntryId::ZERO, |meta| meta.last),
            applied_time: published.as_ref().map_or(ClusterTime::ZERO, |meta| meta.time),
            published,
            bytes_since: 0,
            receiving: None,
            writing: false,
        }
    }

    pub(crate) fn published_index(&self) -> Index {
        self.published.as_ref().map_or(Index::ZERO, |meta| meta.last.index)
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    pub(crate) fn is_replacing(&self) -> bool {
        self.receiving.as_ref().is_some_and(|receiving| receiving.replacing)
    }

    /// Gives up a snapshot on its way in, unless it is already replacing the state.
    pub(crate) fn abandon(&mut self) {
        if !self.is_replacing() {
            self.receiving = None;
        }
    }

    /// The log agrees with the leader's through `index`. A snapshot that ends there or before brings nothing more, and its next
    /// chunk may never come: it must not hold back commits.
    pub(crate) fn outrun(&mut self, index: Index) {
        if self.receiving.as_ref().is_some_and(|receiving| receiving.meta.last.index <= index) {
            self.abandon();
        }
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

    /// Whether a snapshot is being received: no own one may be taken meanwhile (R6).
    #[must_use]
    pub fn is_installing(&self) -> bool {
        self.snapshots.is_receiving() || self.snapshots.writing
    }

    /// Through where storage may compact the log: what the newest snapshot covers, but nothing behind a snapshot that is on
    /// its way to a follower, which goes on from there (R6).
    #[must_use]
    pub fn compactable_index(&self) -> Index {
        let published = self.snapshots.published_index();
        let State::Leader(leader) = &self.state else { return published };
        let transfers = leader.progress.values().filter_map(|progress| match &progress.mode {
            Mode::Snapshot(transfer) => Some(transfer.meta.last.index),
            _ => None,
        });
        transfers.fold(published, Index::min)
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
            let since = self.log.slice(meta.last.index.next(), applied, u64::MAX);
            self.snapshots.bytes_since = since.iter().map(Entry::weight).sum();
            self.snapshots.published = Some(meta);
            self.compact_log();
        }
    }

    /// A chunk was written, or was not.
    pub(crate) fn on_chunk_written(&mut self, last: EntryId, outcome: ChunkOutcome) {
        self.snapshots.writing = false;
        let Some(receiving) =
            self.snapshots.receiving.as_mut().filter(|r| r.meta.last == last && !r.replacing)
        else {
            return;
        };
        let (from, term) = (receiving.from, receiving.term);
        match outcome {
            ChunkOutcome::Next(next) => {
                receiving.next = next;
                self.reply_install(from, term, last, InstallOutcome::Next(next));
            }
            ChunkOutcome::Whole => {
                receiving.replacing = true;
                let meta = receiving.meta.clone();
                self.outputs.push(Output::Install { meta });
            }
            ChunkOutcome::Bad => {
                self.snapshots.receiving = None;
                self.reply_install(from, term, last, InstallOutcome::Restart);
            }
        }
    }

    /// The state machine was restored from the received snapshot: the log follows (§5.3, Figure 5.3 rules 6 to 8).
    pub(crate) fn on_installed(&mut self, now: LocalTime, last: EntryId) {
        let Some(Receiving { from, term, meta, .. }) =
            self.snapshots.receiving.take_if(|receiving| receiving.replacing && receiving.meta.last == last)
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
        if self.log.contains(last) {
            self.log.rebase_configuration(last.index, meta.configuration.clone());
            self.durability.covered(last);
        } else {
            self.log.reset(last, meta.configuration.clone());
            self.durability.reset(last);
        }
        self.commit_index = last.index;
        self.handed = last.index;
        self.clock.hear(meta.time);
        self.snapshots.applied = last;
        self.snapshots.applied_time = meta.time;
        self.snapshots.bytes_since = 0;
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
