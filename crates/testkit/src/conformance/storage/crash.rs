//! What a crash may leave.

use atomix_protocol::{Entry, HardState, Index, ServerId, WriteBatch};
use atomix_storage::{Recovered, SnapshotWriter, Storage};

use super::model::Model;
use super::{Place, configuration, entries, finish_snapshot, id, identity, index, term};

/// A place that remembers what was done to its device, so that a crash can be played at any moment of it.
pub trait Recorded {
    /// Opens it, as a process does that starts.
    fn open(&mut self) -> Box<dyn Storage>;

    /// From here on, what is done to the device is watched; what was done before is durable.
    fn watch(&mut self);

    /// Every state, or very many, in which a crash since [`Recorded::watch`] may have left the device: at each operation on it, with what was
    /// not synced kept, lost and torn.
    fn crashes(&mut self, at: Moment, state: &mut dyn FnMut(Place));
}

/// When a crash happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At any time since the watch began.
    During,
    /// Now: everything asked for has returned.
    After,
}

/// Runs the part of the suite that is about crashes. `fresh` yields an empty place. How many crashes were played.
///
/// # Panics
/// If the storage breaks the contract; the message says how.
pub fn crashes(fresh: &mut dyn FnMut() -> Box<dyn Recorded>) -> u64 {
    let mut played = 0;
    for (name, before, change) in cases() {
        eprintln!("storage: a crash: {name}");
        let mut place = fresh();
        let from_the_start = before.is_empty();
        if from_the_start {
            place.watch();
        }
        let mut storage = place.open();
        let mut model = Model::default();
        storage.recover(&mut |_| {}).expect("recovers");
        let mut writer = storage.snapshot_writer().expect("a snapshot writer");
        for step in before {
            step.run(&mut *storage, &mut *writer, &mut model);
        }
        let mut allowed = vec![model.clone()];
        if !from_the_start {
            place.watch();
        }
        for step in change {
            let states = step.run(&mut *storage, &mut *writer, &mut model);
            allowed.extend(states);
        }
        place.crashes(Moment::During, &mut |place| {
            played += 1;
            check(place, &allowed, Moment::During);
        });
        place.crashes(Moment::After, &mut |place| {
            played += 1;
            check(place, &[model.clone()], Moment::After);
        });
    }
    played
}

/// What a server finds after a crash is one of these, and stays it.
fn check(mut place: Place, allowed: &[Model], at: Moment) {
    let first = recover(&mut place);
    let fits = allowed.iter().any(|model| {
        let mut model = model.clone();
        let entries = model.recover();
        (&model.recovered, &entries) == (&first.0, &first.1)
    });
    assert!(fits, "{at:?}: found {first:?}; allowed is one of {allowed:#?}");
    assert_eq!(recover(&mut place), first, "{at:?}: another start finds the same");
}

fn recover(place: &mut Place) -> (Recovered, Vec<Entry>) {
    let mut entries = Vec::new();
    let mut recovered = place().recover(&mut |entry| entries.push(entry)).expect("recovers after a crash");
    // What a crash tore may look like damage that could be made good: a word too many does no harm, an abstention too many would.
    recovered.damage.clear();
    (recovered, entries)
}

/// Something that is asked of a storage.
enum Step {
    Write(WriteBatch),
    /// Writes a snapshot that ends there, of so many bytes.
    Finish(u64, usize),
    /// The same, and publishes it.
    Publish(u64, usize),
    Compact(u64),
}

impl Step {
    /// Does it. The states in which a crash meanwhile may leave the place.
    fn run(
        &self,
        storage: &mut dyn Storage,
        writer: &mut dyn SnapshotWriter,
        model: &mut Model,
    ) -> Vec<Model> {
        match self {
            Step::Write(batch) => {
                let states = model.prefixes(batch);
                storage.write(batch).expect("writes");
                model.write(batch);
                return states;
            }
            Step::Finish(at, length) => {
                finish_snapshot(writer, id(term(1), index(*at)), &vec![*at as u8; *length]);
            }
            Step::Publish(at, length) => {
                let meta = finish_snapshot(writer, id(term(1), index(*at)), &vec![*at as u8; *length]);
                storage.publish(&meta).expect("publishes");
                model.publish(&meta);
            }
            Step::Compact(through) => storage.compact(Index(*through)).expect("compacts"),
        }
        vec![model.clone()]
    }
}

/// What is done before, and what a crash happens in.
type Case = (&'static str, Vec<Step>, Vec<Step>);

fn cases() -> Vec<Case> {
    let empty = WriteBatch::default();
    let identify = || Step::Write(WriteBatch { identity: Some(identity()), ..empty.clone() });
    let append = |from, through| {
        Step::Write(WriteBatch { entries: entries(term(1), from..=through), ..empty.clone() })
    };
    let vote = |of| HardState { term: term(of), voted_for: Some(ServerId(of)) };
    let whole = WriteBatch {
        identity: Some(identity()),
        configuration: Some(configuration(1)),
        abstention: Some(Some(index(9))),
        hard_state: Some(vote(1)),
        entries: entries(term(1), 1..=3),
        ..empty.clone()
    };
    let replacing = WriteBatch {
        configuration: Some(configuration(2)),
        abstention: Some(None),
        hard_state: Some(vote(3)),
        truncate_after: Some(id(term(1), index(4))),
        entries: entries(term(3), 5..=9),
        ..empty.clone()
    };
    let installing = WriteBatch {
        truncate_after: Some(id(term(1), index(20))),
        entries: entries(term(3), 21..=22),
        ..empty.clone()
    };
    vec![
        ("in the first start", vec![], vec![]),
        ("in the first batch", vec![], vec![Step::Write(whole)]),
        ("in a batch of one entry", vec![identify(), append(1, 6)], vec![append(7, 7)]),
        ("in one batch after another", vec![identify()], vec![append(1, 3), append(4, 4), append(5, 9)]),
        ("in a batch that replaces entries", vec![identify(), append(1, 9)], vec![Step::Write(replacing)]),
        ("while a snapshot is written", vec![identify(), append(1, 9)], vec![Step::Finish(5, 90_000)]),
        ("while a snapshot is published", vec![identify(), append(1, 9)], vec![Step::Publish(5, 9_000)]),
        (
            "while the third snapshot is published",
            vec![identify(), append(1, 9), Step::Publish(3, 9_000), Step::Publish(5, 9_000)],
            vec![Step::Publish(7, 100), append(10, 12)],
        ),
        (
            "while the log is compacted",
            vec![identify(), append(1, 30), Step::Publish(10, 9), append(31, 60), Step::Publish(50, 9)],
            vec![Step::Compact(50), append(61, 62)],
        ),
        (
            "while a snapshot is installed",
            vec![identify(), append(1, 9)],
            vec![Step::Publish(20, 9_000), Step::Write(installing), Step::Compact(20)],
        ),
    ]
}
