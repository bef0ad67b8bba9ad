//! Whatever consensus asks for, with restarts, power cuts, full disks, other options and damage between, in any order: what was
//! acknowledged is there, or the server abstains until a leader has given it again; what was never written is never handed out.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use std::cell::RefCell;
use std::collections::BTreeMap;

use atomix_protocol::{Entry, EntryId, Index};
use atomix_storage::{Recovered, Storage, StorageError};
use atomix_storage_file::FileStorage;
use crash_disk::workload::{
    Model, Step, abstain, append, configure, entry, id, identify, index, replace, run, term, vote,
};
use crash_disk::{CrashDisk, Fate, Image, Opened, Operation, open};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[derive(Clone, Debug)]
enum Move {
    Append {
        raise: u64,
        lengths: Vec<usize>,
    },
    /// Keeps this many thousandths of the log.
    Truncate {
        keep: usize,
        lengths: Vec<usize>,
    },
    /// A vote and entries in one batch.
    Both {
        lengths: Vec<usize>,
    },
    Vote,
    Configure,
    /// Takes a snapshot at this many thousandths of the log.
    Snapshot(usize),
    /// Installs a snapshot from beyond the log.
    Install {
        ahead: u64,
    },
    Compact,
    Restart,
    /// The power fails so many operations ago, at most in the last step. Each bit pair is the fate of an operation that was not synced.
    Crash {
        back: usize,
        fates: u64,
    },
    /// The process dies so many operations ago, at most in the last step.
    Kill {
        back: usize,
    },
    Damage(Vec<Damage>),
    /// Other length of segments from the next start on.
    Options(u64),
    Full(bool),
    HasRoom,
    /// The leader gives so many entries again that this server lacks.
    Repair(usize),
    /// The leader gives everything again, and abstention ends.
    RepairAll,
}

#[derive(Clone, Debug)]
struct Damage {
    /// Which file, in thousandths.
    file: usize,
    /// Where in what is used of it, in thousandths.
    at: usize,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    Flip(u32),
    Fill(usize, u8),
    Cut,
    Lose,
    /// The sector is that of another file, at this place in thousandths.
    Misdirect(usize, usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let lengths = || vec(prop_oneof![Just(0), 1..80usize, 300..900usize], 1..5);
    let how = prop_oneof![
        3 => (0..8u32).prop_map(How::Flip),
        2 => (1..600usize, prop_oneof![Just(0u8), Just(0xFF)]).prop_map(|(length, fill)| How::Fill(length, fill)),
        1 => Just(How::Cut),
        2 => Just(How::Lose),
        1 => (0..1_000usize, 0..1_000usize).prop_map(|(file, at)| How::Misdirect(file, at)),
    ];
    let damage = (0..1_000usize, 0..1_000usize, how).prop_map(|(file, at, how)| Damage { file, at, how });
    let damage = vec(damage, 1..3).prop_map(Move::Damage);
    let one = prop_oneof![
        8 => (0..2u64, lengths()).prop_map(|(raise, lengths)| Move::Append { raise, lengths }),
        2 => (0..1_000usize, lengths()).prop_map(|(keep, lengths)| Move::Truncate { keep, lengths }),
        1 => lengths().prop_map(|lengths| Move::Both { lengths }),
        1 => Just(Move::Vote),
        1 => Just(Move::Configure),
        2 => (0..1_000usize).prop_map(Move::Snapshot),
        1 => (1..9u64).prop_map(|ahead| Move::Install { ahead }),
        2 => Just(Move::Compact),
        2 => Just(Move::Restart),
        3 => (0..12usize, any::<u64>()).prop_map(|(back, fates)| Move::Crash { back, fates }),
        2 => (0..12usize).prop_map(|back| Move::Kill { back }),
        3 => damage,
        1 => prop_oneof![Just(512u64), Just(1_024), Just(2_000), Just(6_000)].prop_map(Move::Options),
        1 => any::<bool>().prop_map(Move::Full),
        1 => Just(Move::HasRoom),
        2 => (0..4usize).prop_map(Move::Repair),
        2 => Just(Move::RepairAll),
    ];
    vec(one, 1..50)
}

struct Player {
    disk: CrashDisk,
    storage: Option<FileStorage>,
    segment_bytes: u64,
    /// What this server holds; while it abstains, at most.
    held: Model,
    /// What it was told to hold, and has acknowledged; while it abstains, what the leader holds.
    truth: Model,
    ever: Vec<Entry>,
    snapshots: Vec<EntryId>,
    /// What a snapshot has covered was committed, and stays what it was.
    covered: BTreeMap<Index, Entry>,
    term: u64,
    full: bool,
    /// Whether nothing was written since a start on a full disk.
    unwritten: bool,
    /// Operations before the last step, and what may be found if it is broken off.
    before: (usize, Vec<Model>),
    met: Met,
}

impl Player {
    fn abstains(&self) -> bool {
        self.held.recovered.abstention.is_some()
    }

    fn snapshot(&self) -> EntryId {
        self.truth.recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last)
    }

    fn step(&mut self, step: &Step) {
        self.before = (self.disk.operations().len(), self.held.prefixes(step));
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
        self.unwritten = false;
        self.held.apply(step);
        if !self.abstains() {
            self.truth.apply(step);
        }
    }

    fn entries(&self, after: EntryId, lengths: &[usize]) -> Vec<Entry> {
        let of = term(self.term.max(after.term.0));
        lengths.iter().zip(after.index.0 + 1..).map(|(length, at)| entry(of, index(at), *length)).collect()
    }

    /// A step of a server in order; of one that abstains, only the leader's log changes.
    fn step_or_truth(&mut self, step: &Step) {
        if self.abstains() { self.truth.apply(step) } else { self.step(step) }
    }

    #[expect(clippy::too_many_lines, reason = "one arm per move")]
    fn play(&mut self, next: &Move) {
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
                self.before = (self.disk.operations().len(), vec![self.held.clone()]);
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
                // On a full disk a lost mark is not made again before something is written.
                let mut spared = if self.full { vec!["mark"] } else { Vec::new() };
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

    fn restart(&mut self) {
        self.reopen(self.disk.image(), std::slice::from_ref(&self.held.clone()), false);
    }

    /// A moment in the last step, and what may be found then.
    fn broken_off(&self, back: usize) -> (usize, Vec<Model>) {
        let operations = self.disk.operations().len();
        let prefix = operations - back.min(operations - self.before.0.min(operations));
        if prefix == operations { (prefix, vec![self.held.clone()]) } else { (prefix, self.before.1.clone()) }
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
    fn note_recycled(&mut self) {
        let recycled =
            |done: &&Operation| matches!(done, Operation::Rename { to, .. } if to.starts_with("log-"));
        self.met.recycled += self.disk.operations().iter().filter(recycled).count();
    }

    fn reopen(&mut self, image: Image, allowed: &[Model], damaged: bool) {
        self.note_recycled();
        self.storage = None;
        self.disk = CrashDisk::new(image);
        self.disk.fill(self.full);
        self.start(allowed, damaged);
    }

    fn start(&mut self, allowed: &[Model], damaged: bool) {
        self.disk.prepares();
        let found = match open(&self.disk, self.segment_bytes) {
            Err(StorageError::Full(_)) if self.full => {
                (self.full, ()) = (false, self.disk.fill(false));
                open(&self.disk, self.segment_bytes)
            }
            found => found,
        };
        let found = found.unwrap_or_else(|error| panic!("{error}; allowed: {allowed:#?}"));
        self.before = (self.disk.operations().len(), vec![self.held.clone()]);
        // While it abstains, what a torn repair left may put the end of that off.
        let same = |model: &&Model| {
            let until = found.recovered.abstention;
            let put_off = model.recovered.abstention.is_some() && until > model.recovered.abstention;
            let until = if put_off { until } else { model.recovered.abstention };
            let recovered = Recovered { abstention: until, ..model.recovered.clone() };
            Model { recovered, ..(*model).clone() }.is(&found)
        };
        if let Some(model) = allowed.iter().find(same) {
            self.met.unfinished += usize::from(*model != self.held);
            self.held = model.clone();
            self.held.recovered.abstention = found.recovered.abstention;
            self.held.restart();
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
            self.weigh(&found, allowed);
        }
        if !self.abstains() {
            self.truth = self.held.clone();
        }
        self.unwritten = self.full;
        self.before.1 = vec![self.held.clone()];
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
        if recovered.abstention.is_none() {
            let complete = |model: &&Model| {
                // Of what goes before its base, the model knows only that it was committed.
                let from = start.index.max(model.base.index);
                let behind = |log: &[Entry]| {
                    log.iter().filter(|entry| entry.id.index > from).cloned().collect::<Vec<_>>()
                };
                let reaches =
                    start.index >= model.base.index || entries.len() as u64 >= from.since(start.index);
                model.recovered.abstention.is_none() && reaches && behind(entries) == behind(&model.log)
            };
            assert!(
                allowed.iter().any(|model| complete(&model)),
                "lost in silence: {recovered:?} {entries:?}, {allowed:#?}"
            );
            assert!(!recovered.damage.is_empty(), "in silence: {recovered:?}");
            self.met.mended += 1;
            self.held = Model { recovered: recovered.clone(), base: start, log: entries.clone() };
            self.held.recovered.damage.clear();
            return;
        }
        for model in allowed {
            let last = if model.recovered.abstention.is_some() { index(0) } else { model.last().index };
            assert!(recovered.abstention >= Some(last), "{recovered:?} {model:#?}");
        }
        assert!(
            // On a full disk it may not be durable yet, as nothing else is.
            self.unwritten || allowed.iter().any(|model| recovered.abstention >= model.recovered.abstention),
            "{recovered:?}, {allowed:#?}"
        );
        if !allowed.iter().any(|model| model.recovered.abstention.is_some()) {
            self.met.abstained += 1;
            assert!(!recovered.damage.is_empty(), "in silence: {recovered:?}");
            // What is not known to be kept by a leader is what was acknowledged.
            self.truth = allowed.last().unwrap().clone();
        }
        self.held = Model { recovered: recovered.clone(), base: start, log: entries.clone() };
        self.held.recovered.damage.clear();
    }

    /// At the end the leader repairs everything, and then all is as if nothing had been.
    fn ends(&mut self) {
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

/// False if there is nothing to damage. What can't be noticed if it comes together is kept apart: the two copies of the manifest, and
/// the mark and anything else.
fn inflict(image: &mut Image, damage: &Damage, spared: &mut Vec<&'static str>) -> bool {
    let mut names: Vec<String> = image.names();
    if names.iter().filter(|name| name.starts_with("manifest")).count() < 2 {
        // The other was lost, and there was no room for it since.
        spared.push("manifest");
    }
    names.retain(|name| !spared.iter().any(|spared| name.starts_with(spared)));
    let Some(name) = names.get(damage.file * names.len() / 1_000).cloned() else { return false };
    let used = image.file(&name).iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if used == 0 {
        return false;
    }
    let at = damage.at * used / 1_000;
    let before = image.clone();
    match damage.how {
        How::Flip(bit) => image.file_mut(&name)[at] ^= 1 << bit,
        How::Fill(length, fill) => image.file_mut(&name)[at..used.min(at + length)].fill(fill),
        How::Cut => image.file_mut(&name).truncate(at),
        How::Lose => image.remove(&name),
        How::Misdirect(other, from) => {
            let others = image.names();
            let from_name = others[other * others.len() / 1_000].clone();
            let from = (from * image.file(&from_name).len() / 1_000) / 512 * 512;
            let piece = image.file(&from_name)[from..].iter().copied().take(512).collect::<Vec<u8>>();
            let file = image.file_mut(&name);
            let at = at / 512 * 512;
            let end = file.len().min(at + piece.len());
            file[at..end].copy_from_slice(&piece[..end - at]);
        }
    }
    spared.extend(if name == "mark" { ["log", "snap", "manifest"].as_slice() } else { &["mark"] });
    if name.starts_with("manifest") {
        spared.push("manifest");
    }
    *image != before
}

/// What a run has met.
#[derive(Debug, Default)]
struct Met {
    abstained: usize,
    repaired: usize,
    mended: usize,
    unfinished: usize,
    recycled: usize,
}

fn check(segment_bytes: u64, moves: &[Move]) -> Met {
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
        unwritten: false,
        before: (0, vec![Model::default()]),
        met: Met::default(),
    };
    player.reopen(Image::default(), &[Model::default()], false);
    player.step(&identify());
    for next in moves {
        player.play(next);
    }
    player.ends();
    player.met
}

#[test]
fn nothing_is_lost_in_silence() {
    let met = RefCell::new(Met::default());
    let cases = std::env::var("PROPTEST_CASES").map_or(3_000, |cases| cases.parse().unwrap());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let run = |(segment_bytes, moves): (u64, Vec<Move>)| {
        let one = check(segment_bytes, &moves);
        let mut met = met.borrow_mut();
        met.abstained += one.abstained;
        met.repaired += one.repaired;
        met.mended += one.mended;
        met.unfinished += one.unfinished;
        met.recycled += one.recycled;
        Ok(())
    };
    let result = TestRunner::new(config).run(&(512..4_000u64, moves()), run);
    result.unwrap_or_else(|error| panic!("{error}"));
    let met = met.into_inner();
    println!("{met:?}");
    assert!(met.abstained.min(met.repaired).min(met.unfinished).min(met.recycled) > 500 && met.mended > 30);
}
