//! What goes wrong with a disk beside crashes: bytes that turn into others, files that are gone, writes that end up elsewhere or
//! nowhere, and no room.
//!
//! What harms a disk also lets the mark of it reach the platter, now and at the next loss of power: harm within the same
//! write-back as a power cut can't be told from a torn write (D3), and is not drawn.

use std::io;

use super::disk::{Image, Inode, Operation, SimDisk};
use super::random::Random;
use super::strays::Stray;

/// A copy of the manifest: its header, and where that says how long what follows is.
const MANIFEST_HEADER: usize = 64;
const MANIFEST_LENGTH_AT: u64 = 24;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Log,
    Snapshot,
    /// One of the two copies of what holds identity, vote and term.
    Manifest,
    /// How far the log was synced.
    Mark,
}

/// What becomes of bytes at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// One bit flips.
    Bit,
    /// A sector holds zeros.
    Zeros,
    /// A sector holds anything.
    Noise,
}

/// When something goes bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// While the process is down.
    Down,
    /// Under its feet: it notices with its next start at the latest.
    Running,
    /// Right before it reads for another server.
    Read,
}

/// Which of several files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Middle,
    Last,
}

/// What is wrong with a disk.
#[derive(Debug, Default)]
pub(super) struct Decay {
    pub(super) stray: Option<Stray>,
    /// What became of the last one.
    pub(super) strayed: Option<String>,
    /// Something was harmed, and no start has looked at it since.
    harmed: bool,
    /// The copy of the manifest that may be bad: another one must not be.
    pub(super) manifest: Option<String>,
    /// The mark may be bad: the end of the log must not be, for nothing else tells it from a torn one.
    mark: bool,
    /// What the log holds may be bad: the mark must not be.
    log: bool,
    /// Most bytes of all files.
    quota: Option<u64>,
    /// Something found no room.
    refused: bool,
}

impl Part {
    /// What a name says.
    pub(super) fn of(name: &str) -> Option<Part> {
        if name.starts_with("log-") {
            Some(Part::Log)
        } else if name.starts_with("snapshot") {
            Some(Part::Snapshot)
        } else if name.starts_with("manifest") {
            Some(Part::Manifest)
        } else if name == "mark" {
            Some(Part::Mark)
        } else {
            None
        }
    }
}

impl SimDisk {
    /// What was written of the mark so far reaches the platter, and what will be until a start has looked.
    pub(super) fn let_marks_settle(&self) {
        let mut image = self.image.lock();
        image.decay.harmed = true;
        image.settle_marks();
    }

    /// Bytes of some file of that kind turn into others. What was done, if there is such a file.
    pub(super) fn rot(&self, part: Part, harm: Harm, random: &mut Random) -> Option<String> {
        let mut image = self.image.lock();
        if !image.may_harm(part) {
            return None;
        }
        let name = image.victim(part, random)?;
        image.harm(&name, part);
        let inode = *image.names.get(&name)?;
        let file = image.files.get_mut(&inode)?;
        Some(format!("{harm:?} in {name} at {:?}", file.rot(harm, random)?))
    }

    /// All copies of the manifest go bad.
    pub(super) fn rot_manifest(&self, harm: Harm, random: &mut Random) -> Option<String> {
        let mut image = self.image.lock();
        let mut done = String::new();
        for (name, inode) in image.names_of(Part::Manifest) {
            let file = image.files.get_mut(&inode)?;
            // Of so little a bit is enough, if it is not one behind the end.
            file.data.truncate(file.length as usize);
            let at = file.rot(harm, random)?;
            done.push_str(&format!("{harm:?} in {name} at {at:?}; "));
        }
        image.decay.harmed = true;
        (!done.is_empty()).then_some(done)
    }

    /// A file of that kind is gone, its name with it.
    pub(super) fn lose(&self, part: Part, which: Which, random: &mut Random) -> Option<String> {
        let mut image = self.image.lock();
        // That a segment is missing is seen without the mark.
        if part == Part::Mark && !image.may_harm(part) {
            return None;
        }
        let name = match part {
            Part::Manifest => image.victim(part, random)?,
            _ => {
                let all: Vec<String> = image.names_of(part).map(|(name, _)| name).collect();
                let at = match which {
                    Which::First => 0,
                    Which::Middle => all.len() / 2,
                    Which::Last => all.len().checked_sub(1)?,
                };
                all.get(at)?.clone()
            }
        };
        image.harm(&name, part);
        image.names.remove(&name);
        image.durable_names.remove(&name);
        image.pending.retain(|recorded| match &recorded.operation {
            Operation::Link { name: to, .. } | Operation::Rename { to, .. } => *to != name,
            _ => true,
        });
        image.drop_unnamed();
        Some(format!("{name} is gone"))
    }

    /// A start has looked at everything, and mended what it could.
    pub(super) fn looked_over(&self) {
        // Without room for it a copy of the manifest may be missing still.
        let mended = self.has_whole_manifest();
        let decay = &mut self.image.lock().decay;
        (decay.harmed, decay.mark, decay.log) = (false, false, false);
        if mended {
            decay.manifest = None;
        }
    }

    /// Whether both copies of the manifest are there, with the same in them.
    pub(super) fn has_whole_manifest(&self) -> bool {
        self.image.lock().manifests_agree()
    }

    /// From here on there is room for so many bytes more, or for everything.
    pub(super) fn limit(&self, more: Option<u64>) {
        let mut image = self.image.lock();
        let quota = more.map(|more| image.used() + more);
        image.decay.quota = quota;
    }

    /// Whether there is a limit to what finds room.
    pub(super) fn is_limited(&self) -> bool {
        self.image.lock().decay.quota.is_some()
    }

    /// Whether something has found no room since the last look.
    pub(super) fn take_refused(&self) -> bool {
        std::mem::take(&mut self.image.lock().decay.refused)
    }
}

impl Image {
    pub(super) fn names_of(&self, part: Part) -> impl Iterator<Item = (String, Inode)> + use<> {
        let of: Vec<(String, Inode)> = self
            .names
            .iter()
            .filter(|(name, _)| Part::of(name) == Some(part))
            .map(|(name, inode)| (name.clone(), *inode))
            .collect();
        of.into_iter()
    }

    /// Whether both copies of the manifest are there, with the same in them.
    fn manifests_agree(&self) -> bool {
        let mut copies = self.names_of(Part::Manifest).filter_map(|(_, inode)| {
            let file = self.files.get(&inode)?;
            let length = file.bytes(MANIFEST_LENGTH_AT, 4).try_into().map_or(0, u32::from_le_bytes);
            // What lies behind was left by a longer one.
            Some(file.bytes(0, MANIFEST_HEADER + length as usize))
        });
        let (first, second) = (copies.next(), copies.next());
        first.is_some() && first == second
    }

    /// A file to be harmed: of the manifest always the same copy, until a start has looked.
    fn victim(&self, part: Part, random: &mut Random) -> Option<String> {
        if part == Part::Manifest && self.decay.manifest.is_none() && !self.manifests_agree() {
            // One may have been torn by the crash right now, and the other is all there is.
            return None;
        }
        let all: Vec<String> = self.names_of(part).map(|(name, _)| name).collect();
        let drawn = all.get(random.below(all.len() as u64) as usize)?;
        let spoilt = self.decay.manifest.as_ref().filter(|_| part == Part::Manifest);
        let named = spoilt.unwrap_or(drawn);
        all.contains(named).then(|| named.clone())
    }

    /// Whether harm of that kind could be told from what a power cut leaves, with all that was harmed before.
    pub(super) fn may_harm(&self, part: Part) -> bool {
        match part {
            Part::Mark => !self.decay.log,
            Part::Log => !self.decay.mark,
            Part::Snapshot | Part::Manifest => true,
        }
    }

    pub(super) fn harm(&mut self, name: &str, part: Part) {
        self.decay.harmed = true;
        self.decay.mark |= part == Part::Mark;
        self.decay.log |= part == Part::Log;
        if part == Part::Manifest {
            self.decay.manifest = Some(name.to_owned());
        }
        self.settle_marks();
    }

    /// Whether something pending is of a mark that is to reach the platter all the same.
    pub(super) fn is_steady(&self, operation: &Operation) -> bool {
        let mark = self.names.get("mark").filter(|_| self.decay.harmed);
        matches!(operation,
            Operation::Allocate { inode, .. } | Operation::Write { inode, .. } | Operation::Link { inode, .. }
            if Some(inode) == mark)
    }

    /// What was written of the mark is durable.
    fn settle_marks(&mut self) {
        let Some(mark) = self.names.get("mark").copied() else { return };
        let (decay, mut settled) = (&self.decay, false);
        self.pending.retain(|recorded| {
            let of_mark = matches!(recorded.operation,
                Operation::Allocate { inode, .. } | Operation::Write { inode, .. } | Operation::Link { inode, .. }
                if inode == mark);
            let settles = decay.harmed && of_mark && recorded.job.is_none() && !recorded.clean;
            settled |= settles && matches!(recorded.operation, Operation::Link { .. });
            !settles
        });
        if settled {
            self.durable_names.insert("mark".into(), mark);
        }
    }

    fn used(&self) -> u64 {
        let length = |inode: &Inode| self.files.get(inode).map_or(0, |file| file.length);
        self.names.values().map(length).sum()
    }

    fn room(&self) -> u64 {
        self.decay.quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.used()))
    }

    pub(super) fn has_room(&self, more: u64) -> bool {
        self.room() >= more
    }

    /// How many of so many bytes more find room. Less than all: somebody is refused.
    pub(super) fn room_for(&mut self, more: u64) -> u64 {
        self.decay.refused |= !self.has_room(more);
        self.room().min(more)
    }
}

/// No room for it.
pub(super) fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use atomix_storage_file::Disk;

    use super::super::loss::{Loss, SECTOR, Wear};
    use super::super::strays::Way;
    use super::*;

    /// A disk with two files of the log, synced, each full of its own byte.
    fn disk() -> SimDisk {
        let mut disk = SimDisk::default();
        for (name, byte) in [("log-1.seg", 1), ("log-2.seg", 2)] {
            disk.allocate(name, 2_048).unwrap();
            disk.write_at(name, 0, &[&[byte; 2_048]]).unwrap();
            disk.sync(name).unwrap();
        }
        disk.sync_dir().unwrap();
        disk
    }

    fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4_096];
        let length = disk.clone().read_at(name, 0, &mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    fn log(disk: &SimDisk) -> Vec<u8> {
        ["log-1.seg", "log-2.seg"].iter().flat_map(|name| read(disk, name).unwrap_or_default()).collect()
    }

    /// At how many places the log is other than it was.
    fn changed(disk: &SimDisk) -> usize {
        log(disk).iter().zip(log(&self::disk())).filter(|(now, before)| **now != *before).count()
    }

    #[test]
    fn what_rots_stays_so_over_a_power_cut() {
        for (harm, most) in [(Harm::Bit, 1), (Harm::Zeros, SECTOR), (Harm::Noise, SECTOR)] {
            for seed in 0..20 {
                let (disk, random) = (disk(), &mut Random::of(seed));
                assert!(disk.rot(Part::Log, harm, random).is_some());
                let harmed = log(&disk);
                assert!((1..=most).contains(&changed(&disk)), "{harm:?}");
                disk.crash(Loss::Power, Wear::default(), random);
                assert_eq!(log(&disk), harmed);
            }
        }
        assert_eq!(disk().rot(Part::Snapshot, Harm::Bit, &mut Random::of(1)), None, "there is none");
    }

    #[test]
    fn a_lost_file_is_lost_for_good() {
        for (which, left) in [(Which::First, "log-2.seg"), (Which::Last, "log-1.seg")] {
            let disk = disk();
            assert!(disk.lose(Part::Log, which, &mut Random::of(1)).is_some());
            disk.crash(Loss::Power, Wear::default(), &mut Random::of(1));
            let names: Vec<String> = disk.clone().list().unwrap().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, [left]);
        }
    }

    #[test]
    fn one_copy_of_the_manifest_is_left_alone() {
        let names = ["manifest-0", "manifest-1"];
        for seed in 0..20 {
            let mut disk = SimDisk::default();
            for name in names {
                disk.allocate(name, 64).unwrap();
                disk.write_at(name, 0, &[&[1; 64]]).unwrap();
            }
            assert!(disk.has_whole_manifest());
            for _ in 0..5 {
                disk.rot(Part::Manifest, Harm::Bit, &mut Random::of(seed));
            }
            disk.stray_next(Some(Stray { part: Part::Manifest, way: Way::Nowhere, seed }));
            let whole = || names.iter().filter(|name| read(&disk, name) == Some(vec![1; 64])).count();
            assert_eq!(whole(), 1);
            disk.clone().write_at(names[0], 0, &[&[1; 64]]).unwrap();
            disk.clone().write_at(names[1], 0, &[&[1; 64]]).unwrap();
            assert_eq!(whole(), 2, "no write went astray");
            disk.looked_over();
            disk.rot_manifest(Harm::Bit, &mut Random::of(seed));
            assert_eq!(whole(), 0);
        }
    }

    #[test]
    fn what_finds_no_room_is_refused_and_leaves_what_it_could() {
        let mut disk = disk();
        disk.limit(Some(1_000));
        assert!(disk.is_limited() && !disk.take_refused());
        disk.write_at("log-1.seg", 0, &[&[8; 2_048]]).unwrap();
        let error = disk.allocate("log-3.seg", 1_001).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(disk.take_refused());
        let error = disk.write_at("log-1.seg", 2_048, &[&[9; 3_000]]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&disk, "log-1.seg").unwrap().len(), 3_048);
        assert!(disk.allocate("log-3.seg", 1).is_err(), "what was begun takes room");
        disk.limit(None);
        disk.allocate("log-3.seg", 5_000).unwrap();
        disk.remove("log-3.seg").unwrap();
        disk.limit(Some(0));
        disk.remove("log-2.seg").unwrap();
        disk.allocate("log-3.seg", 2_048).unwrap();
    }

    #[test]
    fn a_mark_outlives_a_power_cut_where_something_was_harmed() {
        let kept = |harmed: bool| {
            let one = |seed| {
                let (mut disk, random) = (disk(), &mut Random::of(seed));
                disk.allocate("mark", 8).unwrap();
                if harmed {
                    disk.rot(Part::Log, Harm::Bit, random);
                }
                disk.write_at("mark", 0, &[b"far"]).unwrap();
                disk.crash(Loss::Power, Wear { tearing: true, recycling: true }, random);
                read(&disk, "mark").is_some_and(|mark| mark.starts_with(b"far"))
            };
            (0..50).map(one).collect::<BTreeSet<bool>>()
        };
        assert_eq!(kept(true), BTreeSet::from([true]));
        assert_eq!(kept(false), BTreeSet::from([false, true]));
    }
}
