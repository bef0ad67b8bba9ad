//! What a workload does, and what may be found after each of its disk operations.

use std::ops::RangeInclusive;

use atomix_protocol::{Entry, WriteBatch};
use atomix_storage::{Recovered, Storage, StorageError};

use crate::crash_disk::workload::{Model, Step, entry, index, run, term, vote};
use crate::crash_disk::{CrashDisk, Image, Opened, open};

/// Most acts of a workload.
pub(crate) const ACTS: usize = 12;
/// Length of a segment. Most workloads need several.
pub(crate) const SEGMENT: u64 = 1_024;

/// One operation of a workload.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Do(Step),
    /// There is no room for it, and it changes nothing.
    Refused(Step),
    Restart,
    /// From here on there is room for no new file, or there is again.
    Fill(bool),
    HasRoom(bool),
}

/// What a directory holds at first, and what is found in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begin {
    pub(crate) image: Image,
    pub(crate) model: Model,
}

/// Acts in a row. The first of all is a start with what it begins with.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) begin: Begin,
    /// Whether the disk is full when it begins.
    pub(crate) full: bool,
    pub(crate) acts: Vec<Act>,
    /// Whether segments are made in the background.
    pub(crate) prepares: bool,
}

/// One that begins with an empty directory.
pub(crate) fn workload(name: &'static str, acts: Vec<Act>) -> Workload {
    Workload { name, begin: Begin::default(), full: false, acts, prepares: false }
}

pub(crate) fn steps(steps: impl IntoIterator<Item = Step>) -> Vec<Act> {
    steps.into_iter().map(Act::Do).collect()
}

pub(crate) fn entries(of: u64, indexes: RangeInclusive<u64>, length: usize) -> Vec<Entry> {
    indexes.map(|at| entry(term(of), index(at), length)).collect()
}

/// Vote and entries in one batch.
pub(crate) fn both(of: u64, indexes: RangeInclusive<u64>, length: usize) -> Step {
    let (Step::Write(voted), entries) = (vote(term(of)), entries(of, indexes, length)) else {
        unreachable!()
    };
    Step::Write(WriteBatch { entries, ..voted })
}

/// A disk after some steps.
pub(crate) fn after(begin: &Begin, steps: &[Step]) -> CrashDisk {
    let disk = CrashDisk::new(begin.image.clone());
    let mut opened = open(&disk, SEGMENT).unwrap();
    steps.iter().for_each(|step| run(&mut opened.storage, step).unwrap());
    disk
}

impl Begin {
    /// With a directory as it is, whatever befell it.
    pub(crate) fn with(image: Image) -> Begin {
        let Opened { recovered, entries, .. } = open(&CrashDisk::new(image.clone()), SEGMENT).unwrap();
        let base = recovered.snapshot.as_ref().map(|meta| meta.last).unwrap_or_default();
        let recovered = Recovered { damage: Vec::new(), ..recovered };
        Begin { image, model: Model { recovered, base, log: entries } }
    }
}

/// What may be found from a number of disk operations on.
struct State {
    operations: usize,
    /// Whether that is so right then only: an act has ended, and the next has not begun.
    settled: bool,
    allowed: Vec<Model>,
}

/// A workload that was run to its end.
pub(crate) struct Ran {
    pub(crate) disk: CrashDisk,
    states: Vec<State>,
}

pub(crate) fn ran(workload: &Workload) -> Ran {
    assert!(workload.acts.len() <= ACTS, "{}", workload.name);
    let Begin { image, mut model } = workload.begin.clone();
    let disk = CrashDisk::new(image);
    disk.fill(workload.full);
    if workload.prepares {
        disk.prepares();
    }
    let mut opened = open(&disk, SEGMENT).unwrap();
    assert!(found(&model, &opened), "{}: {:?}, not {model:?}", workload.name, opened.recovered);
    let mut states = vec![State { operations: 0, settled: false, allowed: vec![model.clone()] }];
    for act in &workload.acts {
        let before = disk.operations().len();
        states.push(State { operations: before, settled: true, allowed: vec![model.clone()] });
        let mut allowed = vec![model.clone()];
        match act {
            Act::Do(step) => {
                let done = run(&mut opened.storage, step);
                done.unwrap_or_else(|error| panic!("{}: {step:?}: {error}", workload.name));
                allowed = model.prefixes(step);
                model.apply(step);
            }
            Act::Refused(step) => {
                let refused = run(&mut opened.storage, step);
                let full = matches!(refused, Err(StorageError::Full(_)));
                assert!(full, "{}: {step:?}: {refused:?}", workload.name);
                // What is not log may be there already: it comes again, with the rest.
                allowed = model.prefixes(step);
                allowed.pop();
                model = allowed.last().unwrap().clone();
            }
            Act::Restart => {
                drop(opened);
                opened = open(&disk, SEGMENT).unwrap();
                assert!(found(&model, &opened), "{}: {:?}, not {model:?}", workload.name, opened.recovered);
                model.restart();
            }
            Act::Fill(full) => disk.fill(*full),
            Act::HasRoom(room) => assert_eq!(opened.storage.has_room().unwrap(), *room, "{}", workload.name),
        }
        states.push(State { operations: before, settled: false, allowed });
    }
    states.push(State { operations: disk.operations().len(), settled: true, allowed: vec![model] });
    Ran { disk, states }
}

/// Whether that is what was found. While a server abstains, what a torn repair left may put its end off.
pub(crate) fn found(model: &Model, found: &Opened) -> bool {
    let put_off =
        found.recovered.abstention > model.recovered.abstention && !found.recovered.damage.is_empty();
    let mut model = model.clone();
    if model.recovered.abstention.is_some() && put_off {
        model.recovered.abstention = found.recovered.abstention;
    }
    model.is(found)
}

impl Ran {
    /// What may be found after so many disk operations.
    pub(crate) fn allowed(&self, prefix: usize) -> &[Model] {
        let settled = self.states.iter().rfind(|state| state.settled && state.operations == prefix);
        let under_way = || self.states.iter().rfind(|state| !state.settled && state.operations < prefix);
        &settled.or_else(under_way).unwrap_or(&self.states[0]).allowed
    }
}
