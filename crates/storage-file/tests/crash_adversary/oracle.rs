//! What a server may find when it starts.

use atomix_protocol::{Entry, EntryId};
use atomix_storage::{Recovered, StorageError};

use crate::crash_disk::workload::{Model, append, index};
use crate::crash_disk::{CrashDisk, Fate, Image, Opened, open};
use crate::moves::Move;
use crate::player::Player;

impl Player {
    pub(crate) fn reopen(&mut self, image: Image, allowed: &[Model], damaged: bool) {
        self.note_recycled();
        self.storage = None;
        self.disk = CrashDisk::new(image);
        self.disk.fill(self.full);
        self.start(allowed, damaged);
    }

    pub(crate) fn start(&mut self, allowed: &[Model], damaged: bool) {
        self.disk.prepares();
        let found = match open(&self.disk, self.segment_bytes) {
            Err(StorageError::Full(_)) if self.full => {
                (self.full, ()) = (false, self.disk.fill(false));
                open(&self.disk, self.segment_bytes)
            }
            found => found,
        };
        let found = found.unwrap_or_else(|error| panic!("{error}; allowed: {allowed:#?}"));
        let acknowledged = self.owed.take();
        let before = if let Some(model) = allowed.iter().find(|model| same(model, &found)) {
            self.met.unfinished += usize::from(*model != self.held);
            self.held = model.clone();
            self.held.recovered.abstention = found.recovered.abstention;
            self.held.restart();
            model.clone()
        } else {
            // What was given up whole may be joined again by a snapshot that was given meanwhile.
            let more = |model: &Model| {
                let start = found.recovered.snapshot.as_ref().map_or(index(0), |meta| meta.last.index);
                let mut held = model.handed_out().into_iter().filter(|entry| entry.id.index > start);
                model.recovered.abstention.is_some() && held.all(|entry| found.entries.contains(&entry))
            };
            assert!(
                damaged || allowed.iter().any(more),
                "found {:?} {:?}, not one of {allowed:#?}",
                found.recovered,
                found.entries
            );
            // An abstention that is only owed may end, or be less, when more damage comes: by what was acknowledged before.
            let owed = acknowledged.as_ref().filter(|_| damaged);
            let allowed = owed.map_or(allowed, std::slice::from_ref);
            self.weigh(&found, allowed);
            allowed[allowed.len() - 1].clone()
        };
        let durable = acknowledged.unwrap_or(before);
        let undurable = found.recovered.abstention != durable.recovered.abstention;
        self.owed = (undurable && self.lacks_a_copy()).then_some(durable);
        self.met.owed += usize::from(self.owed.is_some());
        if !self.abstains() {
            self.truth = self.held.clone();
        }
        self.begin(vec![self.held.clone()]);
        self.storage = Some(found.storage);
    }

    /// What is found after damage, and while that is being repaired.
    fn weigh(&mut self, found: &Opened, allowed: &[Model]) {
        let (recovered, entries) = (&found.recovered, &found.entries);
        let fields = |recovered: &Recovered| {
            (recovered.identity, recovered.hard_state, recovered.configuration.clone())
        };
        assert!(
            allowed.iter().any(|model| fields(&model.recovered) == fields(recovered)),
            "{recovered:?}, {allowed:#?}"
        );
        let start = recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        assert!(start == EntryId::ZERO || self.snapshots.contains(&start), "{start:?} was never published");
        for (entry, at) in entries.iter().zip(start.index.0 + 1..) {
            assert_eq!(entry.id.index.0, at, "a hole");
            assert!(self.ever.contains(entry), "{entry:?} was never written");
            let covered = self.covered.get(&entry.id.index);
            let stands = covered.is_none_or(|covered| covered == entry);
            assert!(stands || recovered.abstention.is_some(), "{entry:?}, not {covered:?}");
        }
        // An abstention that was durable stands; and what was acknowledged is there, or the server abstains as far as it went.
        let durable = |model: &Model| recovered.abstention >= model.recovered.abstention;
        let abstains = |model: &Model| recovered.abstention >= Some(model.last().index);
        assert!(
            allowed
                .iter()
                .any(|model| durable(model) && (abstains(model) || complete(model, start, entries))),
            "lost in silence: {recovered:?} {entries:?}, {allowed:#?}"
        );
        let abstained = allowed.iter().any(|model| model.recovered.abstention.is_some());
        assert!(abstained || !recovered.damage.is_empty(), "in silence: {recovered:?}");
        if recovered.abstention.is_none() {
            self.met.mended += 1;
        } else if !abstained && !self.abstains() {
            self.met.abstained += 1;
            // What is not known to be kept by a leader is what was acknowledged.
            self.truth = allowed[allowed.len() - 1].clone();
        }
        self.held = Model { recovered: recovered.clone(), base: start, log: entries.clone() };
        self.held.recovered.damage.clear();
    }

    /// At the end the leader repairs everything, and then all is as if nothing had been.
    pub(crate) fn ends(&mut self) {
        self.disk.fill(false);
        self.full = false;
        if self.abstains() {
            self.play(&Move::RepairAll);
        }
        let wanted = self.held.clone();
        for fate in [Fate::Kept, Fate::Dropped] {
            let image = self.disk.crash(self.disk.operations().len(), |_| fate);
            let found = open(&CrashDisk::new(image), self.segment_bytes).unwrap();
            assert!(
                wanted.is(&found),
                "{fate:?}: {:?} {:?}, not {wanted:#?}",
                found.recovered,
                found.entries
            );
        }
        let after = append(self.entries(self.truth.last(), &[10]));
        self.step(&after);
        self.restart();
        let found = open(&self.disk, self.segment_bytes).unwrap();
        let snapshots_only = found.recovered.damage.iter().all(|words| words.contains("snapshot"));
        assert!(snapshots_only, "{:?}", found.recovered.damage);
    }
}

/// Whether that is what was found. While a server abstains, what a torn repair left may put the end of that off.
fn same(model: &Model, found: &Opened) -> bool {
    let until = found.recovered.abstention;
    let put_off = model.recovered.abstention.is_some() && until > model.recovered.abstention;
    let until = if put_off { until } else { model.recovered.abstention };
    let recovered = Recovered { abstention: until, ..model.recovered.clone() };
    Model { recovered, ..model.clone() }.is(found)
}

/// Whether nothing is missing behind a snapshot.
fn complete(model: &Model, start: EntryId, entries: &[Entry]) -> bool {
    // Of what goes before its base, the model knows only that it was committed.
    let from = start.index.max(model.base.index);
    let behind =
        |log: &[Entry]| log.iter().filter(|entry| entry.id.index > from).cloned().collect::<Vec<_>>();
    let reaches = start.index >= model.base.index || entries.len() as u64 >= from.since(start.index);
    reaches && behind(entries) == behind(&model.log)
}
