//! Whatever consensus may ask for, in any order, with restarts between: what is found is what plain lists hold.

use std::collections::BTreeMap;

use atomix_protocol::{Entry, EntryId, HardState, Index, ServerId, WriteBatch};
use atomix_storage::{SnapshotWriter, StorageReader};
use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use super::model::Model;
use super::{Place, Server, configuration, describe, entry, finish_snapshot, id, identity, index, term};

/// Histories, and steps of each.
const HISTORIES: u64 = 8;
const STEPS: usize = 75;

pub(super) fn histories(fresh: &mut dyn FnMut() -> Place) {
    for seed in 0..HISTORIES {
        let mut history = History::new(Server::start(fresh()), seed);
        for step in 0..STEPS {
            eprintln!("storage: history {seed}, step {step}");
            history.step();
        }
        history.restart();
    }
}

/// A server, what it must hold, and what it may hold.
struct History {
    server: Server,
    /// Gone while it restarts.
    sides: Option<Sides>,
    model: Model,
    /// What was ever published.
    published: BTreeMap<EntryId, Bytes>,
    /// Up to here entries may be gone.
    compacted: Index,
    random: Xoshiro256PlusPlus,
}

struct Sides {
    reader: Box<dyn StorageReader>,
    writer: Box<dyn SnapshotWriter>,
}

impl Sides {
    fn of(server: &mut Server) -> Option<Sides> {
        Some(Sides { reader: server.reader(), writer: server.writer() })
    }
}

impl History {
    fn new(mut server: Server, seed: u64) -> Self {
        let sides = Sides::of(&mut server);
        History {
            server,
            sides,
            model: Model::default(),
            published: BTreeMap::new(),
            compacted: Index::ZERO,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    fn sides(&mut self) -> &mut Sides {
        self.sides.as_mut().expect("it runs")
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random.next_u64() % below
    }

    fn step(&mut self) {
        match self.draw(12) {
            0..=3 => self.append(),
            4 => self.replace(),
            5 => self.fields(),
            6 => self.snapshot(),
            7 => self.install(),
            8 => self.compact(),
            9 => self.abandon(),
            10 => self.restart(),
            _ => {}
        }
        self.read_log();
        self.read_snapshots();
    }

    fn write(&mut self, batch: &WriteBatch) {
        self.server.storage().write(batch).expect("writes");
        self.model.write(batch);
    }

    /// Entries behind this one, of its term or later ones.
    fn entries_after(&mut self, last: EntryId) -> Vec<Entry> {
        let mut of = last.term.0.max(1);
        let count = self.draw(6);
        (1..=count)
            .map(|at| {
                of += u64::from(self.draw(5) == 0);
                let entry = entry(term(of), index(last.index.0 + at));
                let length = [0, 1, 63, 64, 4_096, 70_000][self.draw(6) as usize];
                let filled = Bytes::from(vec![at as u8; length]);
                if self.draw(4) == 0 { Entry { payload: filled, ..entry } } else { entry }
            })
            .collect()
    }

    fn append(&mut self) {
        let entries = self.entries_after(self.model.last());
        self.write(&WriteBatch { entries, ..WriteBatch::default() });
    }

    /// Another leader's entries in place of some that did not commit.
    fn replace(&mut self) {
        let (start, last) = (self.model.start(), self.model.last());
        let kept = index(start.index.0 + self.draw(last.index.0 - start.index.0 + 1));
        let kept = self.model.id_at(kept).expect("the log has it");
        let entries = self.entries_after(id(term(last.term.0 + 1), kept.index));
        self.write(&WriteBatch { truncate_after: Some(kept), entries, ..WriteBatch::default() });
    }

    fn fields(&mut self) {
        let mut batch = WriteBatch::default();
        if self.draw(2) == 0 {
            batch.identity = Some(identity());
        }
        if self.draw(2) == 0 {
            batch.configuration = Some(configuration(self.draw(1_000)));
        }
        if self.draw(2) == 0 {
            batch.abstention = Some((self.draw(2) == 0).then_some(index(self.draw(100))));
        }
        if self.draw(2) == 0 {
            let voted_for = (self.draw(2) == 0).then_some(ServerId(self.draw(5)));
            batch.hard_state = Some(HardState { term: term(self.draw(1_000)), voted_for });
        }
        if self.draw(2) == 0 {
            batch.entries = self.entries_after(self.model.last());
        }
        self.write(&batch);
    }

    fn publish(&mut self, last: EntryId) {
        let length = [0, 1, 999, 61_440, 200_000][self.draw(5) as usize];
        let seed = self.draw(256);
        let data: Vec<u8> = (0..length).map(|at: u64| (at * 31 + seed) as u8).collect();
        let meta = finish_snapshot(&mut *self.sides().writer, last, &data);
        self.server.storage().publish(&meta).expect("publishes");
        self.model.publish(&meta);
        self.published.insert(last, data.into());
    }

    /// Of a state that the log has led to.
    fn snapshot(&mut self) {
        let (start, last) = (self.model.start(), self.model.last());
        let at = index(start.index.0 + self.draw(last.index.0 - start.index.0 + 1));
        if let Some(last) = self.model.id_at(at).filter(|last| *last != EntryId::ZERO) {
            self.publish(last);
        }
    }

    /// Of a leader that is ahead, or of another opinion.
    fn install(&mut self) {
        let start = self.model.start();
        let of = self.model.last().term.0 + 1;
        let at = self.draw(self.model.last().index.0 - start.index.0 + 5) + start.index.0 + 1;
        let last = id(term(of), index(at));
        self.publish(last);
        self.compacted = last.index;
        if self.draw(3) == 0 {
            self.restart();
        } else {
            let entries = self.entries_after(last);
            self.write(&WriteBatch { truncate_after: Some(last), entries, ..WriteBatch::default() });
        }
    }

    fn compact(&mut self) {
        let through = index(self.draw(self.model.last().index.0 + 2));
        self.server.storage().compact(through).expect("compacts");
        self.compacted = self.compacted.max(through.min(self.model.start().index));
    }

    /// A snapshot that does not get far, or is refused.
    fn abandon(&mut self) {
        let last = id(term(9_999), index(self.draw(9_999)));
        let (bytes, refused) = (vec![7; self.draw(100_000) as usize], self.draw(2) == 0);
        let writer = &mut self.sides().writer;
        writer.begin(last).expect("begins");
        writer.write(&bytes).expect("takes bytes");
        if refused {
            writer.finish(&describe(last, b"something else")).expect_err("does not verify");
        }
    }

    fn restart(&mut self) {
        self.sides = None;
        self.server.restart();
        self.sides = Sides::of(&mut self.server);
        assert_eq!(self.server.entries, self.model.recover());
        assert_eq!(self.server.recovered, self.model.recovered);
    }

    fn read_log(&mut self) {
        let last = self.model.last().index.0;
        let from = index(self.draw(last + 3));
        let through = index(self.draw(last + 3));
        let found = self.sides().reader.entries(from, through, u64::MAX).expect("reads");
        let there = self.model.entries(from, through);
        // What was compacted may be there still, all of it.
        let maybe_gone = from <= self.compacted;
        match found {
            None => assert!(there.is_empty() || maybe_gone, "{from} to {through}"),
            Some(found) if maybe_gone => {
                let known = found.iter().filter(|entry| entry.id.index > self.compacted);
                let wanted = there.iter().filter(|entry| entry.id.index > self.compacted);
                assert!(known.eq(wanted), "{from} to {through}: {found:?}");
            }
            Some(found) => assert_eq!(found, there, "{from} to {through}"),
        }
    }

    fn read_snapshots(&mut self) {
        let newest = self.model.start();
        let Some(Sides { reader, .. }) = &mut self.sides else { return };
        for (last, data) in &self.published {
            let found = reader.snapshot(*last, 0, usize::MAX).expect("reads");
            assert!(found.is_some() || *last != newest, "the newest is there");
            assert!(found.is_none_or(|found| data.starts_with(&found)), "{last} is what was written");
        }
    }
}
