//! Opens images, compares what is found, and counts.

use std::collections::BTreeSet;

use atomix_protocol::Entry;

use crate::acts::{SEGMENT, found};
use crate::crash_disk::workload::Model;
use crate::crash_disk::{CrashDisk, Image, Opened, open};
use crate::images::Seen;

/// What was tried, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) operations: usize,
    /// Images of a power cut, each as often as a combination of fates makes it.
    pub(crate) drawn: usize,
    /// The same, each once for every workload and moment: those that were opened.
    pub(crate) images: usize,
    /// The same, each once.
    pub(crate) all: Seen,
    /// Images of a crash in the recovery of another, or after a killed process was started again; each once for what went before.
    pub(crate) second: usize,
    pub(crate) lost: usize,
    pub(crate) invented: usize,
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Tally) {
        self.operations += other.operations;
        self.drawn += other.drawn;
        self.images += other.images;
        self.all.extend(other.all);
        self.second += other.second;
        self.lost += other.lost;
        self.invented += other.invented;
        self.wrong.extend(other.wrong);
    }

    /// Opens an image. The model is what it holds now, if that may be.
    pub(crate) fn check(
        &mut self,
        image: Image,
        allowed: &[Model],
        text: &dyn Fn() -> String,
    ) -> Option<(CrashDisk, Opened, Model)> {
        self.check_disk(CrashDisk::new(image), allowed, text)
    }

    pub(crate) fn check_disk(
        &mut self,
        disk: CrashDisk,
        allowed: &[Model],
        text: &dyn Fn() -> String,
    ) -> Option<(CrashDisk, Opened, Model)> {
        let opened = match open(&disk, SEGMENT) {
            Ok(opened) => opened,
            Err(error) => {
                self.wrong.push(format!("{}: {error}", text()));
                return None;
            }
        };
        if disk.image().names().iter().any(|name| name == "snapshot.tmp") {
            self.wrong.push(format!("{}: half a snapshot stays", text()));
        }
        if let Some(model) = allowed.iter().find(|model| found(model, &opened)) {
            let mut model = model.clone();
            model.recovered.abstention = opened.recovered.abstention;
            model.restart();
            return Some((disk, opened, model));
        }
        let keys =
            |entries: &[Entry]| entries.iter().map(|entry| format!("{entry:?}")).collect::<BTreeSet<_>>();
        let there = keys(&opened.entries);
        let models: Vec<_> = allowed.iter().map(|model| keys(&model.handed_out())).collect();
        self.lost += models[0]
            .iter()
            .filter(|key| models.iter().all(|held| held.contains(*key)) && !there.contains(*key))
            .count();
        self.invented += there.iter().filter(|key| !models.iter().any(|held| held.contains(*key))).count();
        self.wrong.push(format!(
            "{}: found {:?} {:?}, not one of {allowed:#?}",
            text(),
            opened.recovered,
            opened.entries
        ));
        None
    }
}
