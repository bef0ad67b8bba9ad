//! Whatever consensus asks for, in any order, with restarts and crashes between: what is found is what a plain list holds.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use atomix_protocol::{EntryId, WriteBatch};
use atomix_storage::Storage;
use crash_disk::workload::{
    Model, Step, abstain, append, configure, entry, id, identify, index, replace, run, term, vote,
};
use crash_disk::{CrashDisk, Fate, Image, open};
use proptest::collection::vec;
use proptest::prelude::*;

/// A step in terms of what the log looks like when its turn comes.
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
    Vote,
    Configure,
    Abstain(bool),
    /// Takes a snapshot at this many thousandths of the log.
    Snapshot(usize),
    /// Installs a snapshot from beyond the log, and crashes before the truncation or not.
    Install {
        ahead: u64,
        truncate: bool,
    },
    Compact,
    Read {
        from: u64,
        room: u64,
    },
    Restart,
    /// Loses power; each bit pair is the fate of an operation that was not synced.
    Crash(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let lengths = || vec(prop_oneof![Just(0), 1..80usize, 300..900usize], 1..5);
    let one = prop_oneof![
        6 => (0..2u64, lengths()).prop_map(|(raise, lengths)| Move::Append { raise, lengths }),
        2 => (0..1_000usize, lengths()).prop_map(|(keep, lengths)| Move::Truncate { keep, lengths }),
        1 => Just(Move::Vote),
        1 => Just(Move::Configure),
        1 => any::<bool>().prop_map(Move::Abstain),
        2 => (0..1_000usize).prop_map(Move::Snapshot),
        1 => (1..9u64, any::<bool>()).prop_map(|(ahead, truncate)| Move::Install { ahead, truncate }),
        2 => Just(Move::Compact),
        3 => (0..30u64, 0..2_000u64).prop_map(|(from, room)| Move::Read { from, room }),
        2 => Just(Move::Restart),
        2 => any::<u64>().prop_map(Move::Crash),
    ];
    vec(one, 1..40)
}

struct Player {
    disk: CrashDisk,
    storage: Option<atomix_storage_file::FileStorage>,
    segment_bytes: u64,
    model: Model,
    term: u64,
}

impl Player {
    fn snapshot(&self) -> EntryId {
        self.model.recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last)
    }

    fn step(&mut self, step: Step) {
        run(self.storage.as_mut().unwrap(), &step).unwrap();
        self.model.apply(&step);
    }

    fn entries(&self, after: EntryId, lengths: &[usize]) -> Vec<atomix_protocol::Entry> {
        let of = term(self.term.max(after.term.0));
        lengths.iter().zip(after.index.0 + 1..).map(|(length, at)| entry(of, index(at), *length)).collect()
    }

    fn play(&mut self, next: &Move) {
        match next {
            Move::Append { raise, lengths } => {
                self.term += raise;
                self.step(append(self.entries(self.model.last(), lengths)));
            }
            Move::Truncate { keep, lengths } => {
                // Consensus never truncates what a snapshot covers.
                let from = self.snapshot().index.0.max(self.model.base.index.0);
                let to = from + (self.model.last().index.0.saturating_sub(from)) * *keep as u64 / 1_000;
                self.term += 1;
                if let Some(kept) = self.model.id_at(index(to)) {
                    self.step(replace(kept, self.entries(kept, lengths)));
                }
            }
            Move::Vote => self.step(vote(term(self.term))),
            Move::Configure => self.step(configure(self.model.last().index)),
            Move::Abstain(set) => self.step(abstain(set.then_some(self.model.last().index))),
            Move::Snapshot(at) => {
                let from = self.snapshot().index.0;
                let to = from + (self.model.last().index.0.saturating_sub(from)) * *at as u64 / 1_000;
                if let Some(last) = self.model.id_at(index(to)).filter(|last| last.index.0 > 0) {
                    self.step(Step::Publish(last));
                }
            }
            Move::Install { ahead, truncate } => {
                self.term += 1;
                let last = id(term(self.term), index(self.model.last().index.0 + ahead));
                self.step(Step::Publish(last));
                if *truncate {
                    let truncate_after = Some(last);
                    self.step(Step::Write(WriteBatch { truncate_after, ..WriteBatch::default() }));
                } else {
                    self.reopen(self.disk.image());
                }
            }
            Move::Compact => self.step(Step::Compact(self.snapshot().index)),
            Move::Read { from, room } => self.read(*from, *room),
            Move::Restart => self.reopen(self.disk.image()),
            Move::Crash(fates) => {
                let fate = |number: usize| match fates >> (number % 32 * 2) & 3 {
                    0 => Fate::Kept,
                    1 => Fate::Dropped,
                    2 => Fate::FirstSectors(1),
                    _ => Fate::FirstBytes(40),
                };
                self.reopen(self.disk.crash(self.disk.operations().len(), fate));
            }
        }
    }

    fn read(&mut self, from: u64, room: u64) {
        let from = index(self.snapshot().index.0 + from);
        let read =
            self.storage.as_mut().unwrap().reader().unwrap().entries(from, index(u64::MAX), room).unwrap();
        let wanted: Vec<_> = self.model.log.iter().filter(|entry| entry.id.index >= from).cloned().collect();
        let held = wanted.first().is_some_and(|entry| entry.id.index == from);
        match read {
            Some(read) => assert!(!read.is_empty() && wanted.starts_with(&read), "{read:?}, not {wanted:?}"),
            None => assert!(!held || from <= self.snapshot().index, "{from} is not there"),
        }
    }

    fn reopen(&mut self, image: Image) {
        self.storage = None;
        self.disk = CrashDisk::new(image);
        let found = open(&self.disk, self.segment_bytes).unwrap();
        assert!(
            self.model.is(&found),
            "found {:?} {:?}\nnot {:?} {:?}",
            found.recovered,
            found.entries,
            self.model.recovered,
            self.model.handed_out()
        );
        self.model.restart();
        self.storage = Some(found.storage);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_was_written(segment_bytes in 512..6_000u64, moves in moves()) {
        let mut player = Player {
            disk: CrashDisk::new(Image::default()),
            storage: None,
            segment_bytes,
            model: Model::default(),
            term: 1,
        };
        player.reopen(Image::default());
        player.step(identify());
        for next in &moves {
            player.play(next);
        }
        player.reopen(player.disk.image());
    }
}
