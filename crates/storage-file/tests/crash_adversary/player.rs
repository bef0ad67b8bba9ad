//! One server: does what is asked, and knows what it must find.

use std::collections::BTreeMap;

use atomix_protocol::{Entry, EntryId, Index};
use atomix_storage::{Storage, StorageError};
use atomix_storage_file::FileStorage;

use crate::Met;
use crate::crash_disk::workload::{
    Model, Step, abstain, append, configure, entry, id, identify, index, replace, run, term, vote,
};
use crate::crash_disk::{CrashDisk, Fate, Image, Operation};
use crate::moves::{BESIDE_THE_MARK, Move, inflict};

pub(crate) struct Player {
    pub(crate) disk: CrashDisk,
    pub(crate) storage: Option<FileStorage>,
    pub(crate) segment_bytes: u64,
    /// What this server holds; while it abstains, at most.
    pub(crate) held: Model,
    /// What it was told to hold, and has acknowledged; while it abstains, what the leader holds.
    pub(crate) truth: Model,
    pub(crate) ever: Vec<Entry>,
    pub(crate) snapshots: Vec<EntryId>,
    /// What a snapshot has covered was committed, and stays what it was.
    pub(crate) covered: BTreeMap<Index, Entry>,
    pub(crate) term: u64,
    pub(crate) full: bool,
    /// What was acknowledged before damage, as long as abstention because of it is not durable, since there was no room for a copy of the
    /// manifest. Until then only what is left of the log says that it is owed.
    pub(crate) owed: Option<Model>,
    pub(crate) before: Before,
    pub(crate) met: Met,
}

/// What there was before the last step.
#[derive(Default)]
pub(crate) struct Before {
    pub(crate) operations: usize,
    /// What may be found if it is broken off.
    pub(crate) allowed: Vec<Model>,
    pub(crate) owed: Option<Model>,
}

impl Player {
    pub(crate) fn new(segment_bytes: u64) -> Player {
        let mut player = Player {
            disk: CrashDisk::new(Image::default()),
            storage: None,
            segment_bytes,
            held: Model::default(),
            truth: Model::default(),
            ever: Vec::new(),
            snapshots: Vec::new(),
            covered: BTreeMap::new(),
            term: 1,
            full: false,
            owed: None,
            before: Before::default(),
            met: Met::default(),
        };
        player.reopen(Image::default(), &[Model::default()], false);
        player.step(&identify());
        player
    }

    pub(crate) fn abstains(&self) -> bool {
        self.held.recovered.abstention.is_some()
    }

    fn snapshot(&self) -> EntryId {
        self.truth.recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last)
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.begin(self.held.prefixes(step));
        match step {
            Step::Write(batch) => self.ever.extend_from_slice(&batch.entries),
            Step::Publish(last) => {
                self.snapshots.push(*last);
                let covered = self.truth.log.iter().filter(|entry| entry.id.index <= last.index);
                self.covered.extend(covered.map(|entry| (entry.id.index, entry.clone())));
            }
            Step::Compact(_) => {}
        }
        let storage = self.storage.as_mut().unwrap();
        match run(storage, step) {
            Ok(()) => {}
            Err(StorageError::Full(_)) if self.full => {
                (self.full, ()) = (false, self.disk.fill(false));
                run(storage, step).unwrap();
            }
            Err(error) => panic!("{step:?}: {error}"),
        }
        self.owed = self.owed.take().filter(|_| self.lacks_a_copy());
        self.held.apply(step);
        if !self.abstains() {
            self.truth.apply(step);
        }
    }

    pub(crate) fn entries(&self, after: EntryId, lengths: &[usize]) -> Vec<Entry> {
        let of = term(self.term.max(after.term.0));
        lengths.iter().zip(after.index.0 + 1..).map(|(length, at)| entry(of, index(at), *length)).collect()
    }

    /// A step of a server in order; of one that abstains, only the leader's log changes.
    fn step_or_truth(&mut self, step: &Step) {
        if self.abstains() { self.truth.apply(step) } else { self.step(step) }
    }

    #[expect(clippy::too_many_lines, reason = "one arm per move")]
    pub(crate) fn play(&mut self, next: &Move) {
        match next {
            Move::Append { raise, lengths } => {
                self.term += raise;
                self.step_or_truth(&append(self.entries(self.truth.last(), lengths)));
            }
            Move::Truncate { keep, lengths } => {
                // Consensus never truncates what a snapshot covers, lost or not.
                let covered = self.snapshots.iter().map(|last| last.index.0).max().unwrap_or(0);
                let from = covered.max(self.truth.base.index.0);
                let to = from + (self.truth.last().index.0.saturating_sub(from)) * *keep as u64 / 1_000;
                self.term += 1;
                if let Some(kept) = self.truth.id_at(index(to)) {
                    self.step_or_truth(&replace(kept, self.entries(kept, lengths)));
                }
            }
            Move::Both { lengths } if !self.abstains() => {
                self.term += 1;
                let (Step::Write(mut batch), Step::Write(voted)) =
                    (append(self.entries(self.truth.last(), lengths)), vote(term(self.term)))
                else {
                    unreachable!()
                };
                batch.hard_state = voted.hard_state;
                self.step(&Step::Write(batch));
            }
            Move::Vote if !self.abstains() => self.step(&vote(term(self.term))),
            Move::Configure if !self.abstains() => self.step(&configure(self.truth.last().index)),
            Move::Snapshot(at) if !self.abstains() => {
                let from = self.snapshot().index.0;
                let to = from + (self.truth.last().index.0.saturating_sub(from)) * *at as u64 / 1_000;
                if let Some(last) = self.truth.id_at(index(to)).filter(|last| last.index.0 > 0) {
                    self.step(&Step::Publish(last));
                }
            }
            Move::Install { ahead } if !self.abstains() => {
                self.term += 1;
                let last = id(term(self.term), index(self.truth.last().index.0 + ahead));
                self.step(&Step::Publish(last));
                self.step(&replace(last, Vec::new()));
            }
            Move::Compact => {
                let snapshot = self.held.recovered.snapshot.as_ref().map_or(index(0), |meta| meta.last.index);
                self.begin(vec![self.held.clone()]);
                run(self.storage.as_mut().unwrap(), &Step::Compact(snapshot)).unwrap();
            }
            Move::Restart => self.restart(),
            Move::Crash { back, fates } => {
                let fate = |number: usize| match fates >> (number % 32 * 2) & 3 {
                    0 => Fate::Kept,
                    1 => Fate::Dropped,
                    2 => Fate::Sectors(fates.rotate_left(number as u32)),
                    _ => Fate::FirstBytes(40 + (fates >> 40) as usize % 700),
                };
                let (prefix, allowed) = self.broken_off(*back);
                let image = self.disk.crash(prefix, fate);
                self.reopen(image, &allowed, false);
            }
            Move::Kill { back } => {
                let (prefix, allowed) = self.broken_off(*back);
                let disk = self.disk.killed_after(prefix);
                self.storage = None;
                self.disk = disk;
                self.start(&allowed, false);
            }
            Move::Damage(damages) => {
                let mut image = self.disk.image();
                let mut spared = self.spared(&image);
                let done = damages.iter().filter(|damage| inflict(&mut image, damage, &mut spared)).count();
                if done > 0 {
                    self.reopen(image, std::slice::from_ref(&self.held.clone()), true);
                }
            }
            Move::Options(bytes) => self.segment_bytes = *bytes,
            Move::Full(full) => {
                self.full = *full;
                self.disk.fill(*full);
            }
            Move::HasRoom => drop(self.storage.as_mut().unwrap().has_room().unwrap()),
            Move::Repair(some) if self.abstains() => self.repair(*some),
            Move::RepairAll if self.abstains() => {
                self.met.repaired += 1;
                self.repair(usize::MAX);
                self.step(&abstain(None));
                // Only what is behind the snapshot is known to be the same.
                self.truth = Model {
                    base: self.truth.base,
                    log: self.truth.log.clone(),
                    recovered: self.held.recovered.clone(),
                };
            }
            _ => {}
        }
    }

    pub(crate) fn restart(&mut self) {
        self.reopen(self.disk.image(), std::slice::from_ref(&self.held.clone()), false);
    }

    /// A step begins, and may leave any of these if it is broken off.
    pub(crate) fn begin(&mut self, allowed: Vec<Model>) {
        self.before = Before { operations: self.disk.operations().len(), allowed, owed: self.owed.clone() };
    }

    /// A moment in the last step, and what may be found then.
    fn broken_off(&mut self, back: usize) -> (usize, Vec<Model>) {
        let operations = self.disk.operations().len();
        let prefix = operations - back.min(operations - self.before.operations.min(operations));
        if prefix == operations {
            return (prefix, vec![self.held.clone()]);
        }
        self.owed.clone_from(&self.before.owed);
        (prefix, self.before.allowed.clone())
    }

    /// Whether there was no room for a copy of the manifest: what it was to say is not durable.
    pub(crate) fn lacks_a_copy(&self) -> bool {
        self.disk.image().names().iter().filter(|name| name.starts_with("manifest")).count() == 1
    }

    /// What is not damaged now, since what is damaged already can't be noticed without it.
    fn spared(&self, image: &Image) -> Vec<&'static str> {
        if self.owed.is_some() {
            vec!["mark"]
        } else if !self.abstains() && !image.names().contains(&"mark".to_owned()) {
            // It was lost on a full disk, and is not made again before something is written.
            BESIDE_THE_MARK.to_vec()
        } else {
            Vec::new()
        }
    }

    /// As a leader does: from where the logs agree, or with a snapshot.
    fn repair(&mut self, some: usize) {
        let agree = self
            .held
            .log
            .iter()
            .rev()
            .map(|entry| entry.id)
            .find(|id| self.truth.id_at(id.index) == Some(*id));
        let start = self.held.recovered.snapshot.as_ref().map(|meta| meta.last);
        let agree = agree.or(start.filter(|id| self.truth.id_at(id.index) == Some(*id))).unwrap_or_default();
        let known = agree == EntryId::ZERO && self.truth.base == EntryId::ZERO
            || self.truth.id_at(agree.index) == Some(agree);
        let behind = start.is_some_and(|start| start.index > agree.index);
        let agree = if known && !behind {
            agree
        } else {
            let last =
                if self.snapshot().index > self.truth.base.index { self.snapshot() } else { self.truth.base };
            let last = last
                .max(start.filter(|start| self.truth.id_at(start.index) == Some(*start)).unwrap_or_default());
            self.step(&Step::Publish(last));
            last
        };
        let rest: Vec<Entry> =
            self.truth.log.iter().filter(|entry| entry.id.index > agree.index).cloned().collect();
        self.step(&replace(agree, rest[..some.min(rest.len())].to_vec()));
    }

    /// Segments that were begun in files used before.
    pub(crate) fn note_recycled(&mut self) {
        let recycled =
            |done: &&Operation| matches!(done, Operation::Rename { to, .. } if to.starts_with("log-"));
        self.met.recycled += self.disk.operations().iter().filter(recycled).count();
    }
}
