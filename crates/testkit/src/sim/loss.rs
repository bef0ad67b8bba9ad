//! What a crash leaves of a disk.

use std::collections::BTreeSet;

use super::disk::{Image, Inode, Open, Operation, Recorded, SimDisk};
use super::random::Random;

pub(super) const SECTOR: usize = 512;

/// How the machine went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The process was killed: what the system had taken stays.
    Process,
    /// The power went: what was not synced goes in part.
    Power,
}

/// How bad a loss of power is for what was not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wear {
    /// Writes are torn (D2).
    pub(super) tearing: bool,
    /// New files whose content was not synced show what their blocks held before (D3).
    pub(super) recycling: bool,
}

/// What a crash did to the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Operations that were dropped.
    pub(super) dropped: u64,
    /// Writes that were torn.
    pub(super) torn: u64,
    /// Files that show old blocks.
    pub(super) recycled: u64,
    /// Jobs that were cut in the middle.
    pub(super) cut: u64,
}

impl SimDisk {
    /// What the next start finds.
    pub(super) fn crash(&self, loss: Loss, wear: Wear, random: &mut Random) -> Damage {
        let mut image = self.image.lock();
        let mut damage = Damage::default();
        let open = std::mem::take(&mut image.open);
        for open in &open {
            image.cut(open, random, &mut damage);
        }
        image.settle_all();
        let prepared = image.take_prepared();
        if loss == Loss::Power {
            image.lose(wear, random, &mut damage);
        }
        if let Some((name, length)) = prepared {
            image.leave_prepared(name, length, random);
        }
        image.current = None;
        image.failing = None;
        image.decay.stray = None;
        image.make_durable(loss);
        damage
    }
}

impl Image {
    /// A job under way ends after a drawn operation: what comes behind never happened.
    fn cut(&mut self, open: &Open, random: &mut Random, damage: &mut Damage) {
        let may_miss = |recorded: &Recorded| recorded.job == Some(open.job) && recorded.number > open.floor;
        let count = self.pending.iter().filter(|recorded| may_miss(recorded)).count() as u64;
        let keep = random.below(count + 1);
        damage.cut += u64::from(keep < count);
        let mut place = 0;
        let happened: Vec<bool> = self
            .pending
            .iter()
            .map(|recorded| {
                if !may_miss(recorded) {
                    return true;
                }
                place += 1;
                place <= keep
            })
            .collect();
        for at in (0..happened.len()).rev().filter(|at| !happened[*at]) {
            self.undo(at);
        }
        let mut happened = happened.into_iter();
        self.pending.retain(|_| happened.next().unwrap_or(true));
        self.rebuild_names();
    }

    fn undo(&mut self, at: usize) {
        match &self.pending[at].operation {
            Operation::Write { inode, offset, before, length_before, .. } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.put(*offset, before);
                    file.set_length(*length_before);
                }
            }
            Operation::Allocate { inode, .. } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.set_length(0);
                }
            }
            _ => {}
        }
    }

    fn rebuild_names(&mut self) {
        self.names = self.durable_names.clone();
        for recorded in &self.pending {
            recorded.operation.apply_name(&mut self.names);
        }
    }

    /// The power goes: of everything pending a drawn subset survives.
    fn lose(&mut self, wear: Wear, random: &mut Random, damage: &mut Damage) {
        // Some cuts come before anything was written back, some after everything was.
        let keep = random.pick(&[0.0, 0.5, 0.5, 0.9, 1.0]).unwrap_or(0.5);
        let of_mark = self.pending.iter().filter(|recorded| self.is_steady(&recorded.operation));
        let steady: BTreeSet<u64> = of_mark.map(|recorded| recorded.number).collect();
        for at in (0..self.pending.len()).rev() {
            self.undo(at);
        }
        self.names = self.durable_names.clone();
        if wear.recycling && random.chance(0.5) {
            damage.recycled += self.recycle(random);
        }
        for recorded in std::mem::take(&mut self.pending) {
            if !random.chance(keep) && !steady.contains(&recorded.number) {
                damage.dropped += 1;
                if wear.tearing {
                    self.tear(&recorded.operation, random, damage);
                }
                continue;
            }
            self.redo(&recorded.operation);
            recorded.operation.apply_name(&mut self.names);
        }
    }

    /// The blocks of files that are not synced yet hold what other files had there.
    fn recycle(&mut self, random: &mut Random) -> u64 {
        let new = |recorded: &Recorded| match &recorded.operation {
            Operation::Allocate { inode, length } => Some((*inode, *length)),
            _ => None,
        };
        let new: Vec<(Inode, u64)> = self.pending.iter().filter_map(new).collect();
        let old: Vec<Inode> =
            self.files.keys().copied().filter(|at| new.iter().all(|(new, _)| new != at)).collect();
        let mut count = 0;
        for (inode, length) in new {
            let Some(donor) = random.pick(&old).and_then(|donor| self.files.get(&donor)) else { continue };
            let mut data = donor.data[..donor.data.len().min(length as usize)].to_vec();
            // But for the first block, which is written last: what holds another file's beginning was misdirected.
            let first = data.len().min(SECTOR);
            data[..first].fill(0);
            if let Some(file) = self.files.get_mut(&inode).filter(|_| !data.is_empty()) {
                file.data = data;
                file.length = length;
                count += 1;
            }
        }
        count
    }

    fn redo(&mut self, operation: &Operation) {
        match operation {
            Operation::Allocate { inode, length } => {
                let file = self.files.entry(*inode).or_default();
                file.length = file.length.max(*length);
            }
            Operation::Write { inode, offset, data, .. } => {
                self.files.entry(*inode).or_default().put(*offset, data)
            }
            _ => {}
        }
    }

    /// Half of what is lost is lost in part.
    fn tear(&mut self, operation: &Operation, random: &mut Random, damage: &mut Damage) {
        if random.chance(0.5) {
            return;
        }
        match operation {
            Operation::Allocate { inode, length } => {
                let length = random.below(*length + 1);
                self.redo(&Operation::Allocate { inode: *inode, length });
            }
            Operation::Write { inode, offset, data, .. } => {
                damage.torn += 1;
                let file = self.files.entry(*inode).or_default();
                if random.chance(0.5) {
                    let cut = random.below(data.len() as u64 + 1) as usize;
                    file.put(*offset, &data[..cut]);
                    return;
                }
                for (start, sector) in sectors(*offset, data) {
                    if random.chance(0.5) {
                        file.put(start, sector);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn take_prepared(&mut self) -> Option<(String, u64)> {
        let mut prepared = None;
        self.pending.retain(|recorded| match &recorded.operation {
            Operation::Prepare { name, length } => {
                prepared = Some((name.clone(), *length));
                false
            }
            _ => true,
        });
        prepared
    }

    /// What was to be made in time is there, in part, or not.
    fn leave_prepared(&mut self, name: String, length: u64, random: &mut Random) {
        if !self.names.contains_key(&name) && random.chance(0.5) && self.has_room(length) {
            let inode = self.create(if random.chance(0.5) { length } else { random.below(length + 1) });
            self.names.insert(name, inode);
        }
    }

    fn make_durable(&mut self, loss: Loss) {
        // What a failed sync left behind is still in the system's memory, and nowhere else.
        self.pending.retain(|recorded| recorded.clean && loss == Loss::Process);
        self.durable_names = self.names.clone();
        self.drop_unnamed();
    }
}

/// The sectors that a write touches, each with where it begins.
fn sectors(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let head = (SECTOR - (offset % SECTOR as u64) as usize).min(data.len());
    let (first, rest) = data.split_at(head);
    let rest = rest.chunks(SECTOR).enumerate();
    std::iter::once((offset, first)).chain(rest.map(move |(n, s)| (offset + (head + n * SECTOR) as u64, s)))
}

#[cfg(test)]
mod tests {
    use atomix_storage_file::Disk;

    use super::super::disk::Call;
    use super::*;

    fn read(disk: &mut SimDisk, name: &str) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 8];
        let length = disk.read_at(name, 0, &mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    /// What a file may hold after a power cut, over many draws.
    fn outcomes(tearing: bool, prepare: impl Fn(&mut SimDisk)) -> BTreeSet<Option<Vec<u8>>> {
        let one = |seed| {
            let mut disk = SimDisk::default();
            prepare(&mut disk);
            let wear = Wear { tearing, recycling: false };
            disk.crash(Loss::Power, wear, &mut Random::of(seed));
            read(&mut disk, "a")
        };
        (0..200).map(one).collect()
    }

    fn make(disk: &mut SimDisk) {
        disk.allocate("a", 4).unwrap();
        disk.write_at("a", 0, &[b"old!"]).unwrap();
        disk.sync("a").unwrap();
        disk.sync_dir().unwrap();
    }

    #[test]
    fn what_was_synced_survives() {
        assert_eq!(outcomes(true, make), BTreeSet::from([Some(b"old!".to_vec())]));
    }

    #[test]
    fn a_name_needs_a_sync_of_its_own() {
        let found = outcomes(false, |disk| {
            disk.allocate("a", 4).unwrap();
            disk.sync("a").unwrap();
        });
        assert_eq!(found, BTreeSet::from([None, Some(vec![0; 4])]));
    }

    #[test]
    fn a_write_that_was_not_synced_is_kept_dropped_or_torn() {
        let write = |disk: &mut SimDisk| {
            make(disk);
            disk.write_at("a", 0, &[b"new?"]).unwrap();
        };
        let whole = [Some(b"old!".to_vec()), Some(b"new?".to_vec())];
        assert_eq!(outcomes(false, write), BTreeSet::from(whole.clone()));
        let torn = outcomes(true, write);
        assert!(
            torn.is_superset(&BTreeSet::from(whole)) && torn.contains(&Some(b"ned!".to_vec())),
            "{torn:?}"
        );
    }

    #[test]
    fn a_job_under_way_is_cut_between_two_operations() {
        // The second write follows the sync of the first: it can't be there without it.
        let found = outcomes(false, |disk| {
            make(disk);
            disk.begin(1);
            disk.write_at("a", 0, &[b"1"]).unwrap();
            disk.sync("a").unwrap();
            disk.write_at("a", 1, &[b"2"]).unwrap();
            disk.end();
        });
        let expected = [b"old!", b"1ld!", b"12d!"].map(|bytes| Some(bytes.to_vec()));
        assert_eq!(found, BTreeSet::from(expected));
    }

    #[test]
    fn a_job_that_is_done_is_synced() {
        let found = outcomes(true, |disk| {
            make(disk);
            disk.begin(1);
            disk.write_at("a", 0, &[b"new?"]).unwrap();
            disk.sync("a").unwrap();
            disk.end();
            disk.complete(1);
        });
        assert_eq!(found, BTreeSet::from([Some(b"new?".to_vec())]));
    }

    #[test]
    fn a_killed_process_loses_nothing_that_the_system_had() {
        let mut disk = SimDisk::default();
        make(&mut disk);
        disk.rename("a", "b").unwrap();
        disk.write_at("b", 0, &[b"new?"]).unwrap();
        disk.crash(Loss::Process, Wear::default(), &mut Random::of(1));
        assert_eq!((read(&mut disk, "a"), read(&mut disk, "b")), (None, Some(b"new?".to_vec())));
    }

    #[test]
    fn what_a_failed_sync_left_behind_is_read_but_never_synced() {
        let found: BTreeSet<Option<Vec<u8>>> = (0..200)
            .map(|seed| {
                let mut disk = SimDisk::default();
                make(&mut disk);
                disk.write_at("a", 0, &[b"new?"]).unwrap();
                disk.fail_next(Some(Call::Sync));
                disk.sync("a").unwrap_err();
                assert!(disk.has_failed());
                let random = &mut Random::of(seed);
                disk.crash(Loss::Process, Wear::default(), random);
                assert_eq!(read(&mut disk, "a"), Some(b"new?".to_vec()), "from the system's memory");
                // A sync does not write it, but what is written over it.
                disk.write_at("a", 2, &[b"X"]).unwrap();
                disk.sync("a").unwrap();
                disk.crash(Loss::Power, Wear::default(), random);
                read(&mut disk, "a")
            })
            .collect();
        assert_eq!(found, BTreeSet::from([Some(b"olX!".to_vec()), Some(b"neX?".to_vec())]));
    }

    #[test]
    fn a_new_file_may_show_what_its_blocks_held() {
        let found: BTreeSet<Option<Vec<u8>>> = (0..200)
            .map(|seed| {
                let mut disk = SimDisk::default();
                disk.allocate("b", 1_024).unwrap();
                disk.write_at("b", 600, &[b"old!"]).unwrap();
                disk.sync("b").unwrap();
                disk.sync_dir().unwrap();
                disk.allocate("a", 1_024).unwrap();
                disk.write_at("a", 600, &[b"X"]).unwrap();
                let wear = Wear { tearing: false, recycling: true };
                disk.crash(Loss::Power, wear, &mut Random::of(seed));
                let mut bytes = [0; 4];
                disk.read_at("a", 600, &mut bytes).ok().map(|length| bytes[..length].to_vec())
            })
            .collect();
        assert!(found.contains(&Some(b"Xld!".to_vec())), "{found:?}");
    }
}
