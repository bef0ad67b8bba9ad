//! Writes that land elsewhere, or nowhere, or not as a whole, though the disk says that all is well.

use super::decay::Part;
use super::disk::{Image, Inode, SimDisk};
use super::loss::SECTOR;
use super::random::Random;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It lands at another place, and not where it was meant.
    Elsewhere,
    /// It lands nowhere.
    Nowhere,
    /// A sector of it lands nowhere.
    InPart,
}

/// A write that will go wrong: the next one to a file of that kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stray {
    pub(super) part: Part,
    pub(super) way: Way,
    pub(super) seed: u64,
}

impl SimDisk {
    /// The next write of that kind goes wrong, or none does.
    pub(super) fn stray_next(&self, stray: Option<Stray>) {
        let mut image = self.image.lock();
        // Of the two copies of the manifest one at most; and what lands elsewhere may land in the log.
        let spoilt = image.decay.manifest.is_some();
        let (manifest, log) = (stray.filter(|stray| stray.part == Part::Manifest), image.may_harm(Part::Log));
        image.decay.stray = stray.filter(|_| log && (manifest.is_none() || !spoilt));
    }

    /// What became of a write that went wrong since the last look.
    pub(super) fn take_strayed(&self) -> Option<String> {
        self.image.lock().decay.strayed.take()
    }
}

impl Image {
    /// Where and what a write really writes, if this is the one that goes wrong: at the place meant what was there before.
    pub(super) fn astray(
        &mut self,
        name: &str,
        inode: Inode,
        offset: u64,
        data: &mut Vec<u8>,
    ) -> Option<(Inode, u64, Vec<u8>)> {
        let part = Part::of(name);
        let stray = self.decay.stray.take_if(|stray| part == Some(stray.part) && !data.is_empty())?;
        let random = &mut Random::of(stray.seed);
        let mut old = self.files.get(&inode)?.bytes(offset, data.len());
        old.resize(data.len(), 0);
        self.harm(name, stray.part);
        self.decay.strayed = Some(format!("{:?} instead of {name} at {offset}", stray.way));
        if stray.way == Way::InPart {
            let sectors = data.len().div_ceil(SECTOR) as u64;
            let from = random.below(sectors) as usize * SECTOR;
            let to = (from + SECTOR).min(data.len());
            data[from..to].copy_from_slice(&old[from..to]);
            return None;
        }
        self.harm("", Part::Log);
        let meant = std::mem::replace(data, old);
        if stray.way == Way::Nowhere {
            return None;
        }
        // Not over the vote or the mark: they would be a second thing that goes wrong.
        let mut places: Vec<Inode> = self.names_of(Part::Log).map(|(_, inode)| inode).collect();
        places.extend(self.names_of(Part::Snapshot).map(|(_, inode)| inode));
        let place =
            if random.chance(0.5) && places.contains(&inode) { inode } else { random.pick(&places)? };
        let length = self.files.get(&place)?.data.len();
        let sectors = length.div_ceil(SECTOR) as u64;
        let at = random.below(sectors.max(1)) * SECTOR as u64;
        if (place, at) == (inode, offset) {
            return None;
        }
        let mut landed = meant;
        landed.truncate(length.saturating_sub(at as usize));
        Some((place, at, landed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use atomix_storage_file::Disk;

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

    fn read(disk: &SimDisk, name: &str) -> Vec<u8> {
        let mut bytes = vec![0; 2_048];
        disk.clone().read_at(name, 0, &mut bytes).unwrap();
        bytes
    }

    /// What a synced write of eights over the first file leaves, however it goes wrong.
    fn written(way: Way) -> BTreeSet<(usize, usize, usize)> {
        let one = |seed| {
            let mut disk = disk();
            disk.stray_next(Some(Stray { part: Part::Log, way, seed }));
            disk.write_at("log-1.seg", 0, &[&[8; 1_024]]).unwrap();
            disk.sync("log-1.seg").unwrap();
            assert!(disk.take_strayed().is_some());
            let (first, second) = (read(&disk, "log-1.seg"), read(&disk, "log-2.seg"));
            let eights = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 8).count();
            // The next write is as any other.
            disk.write_at("log-1.seg", 0, &[&[9; 1_024]]).unwrap();
            assert!(read(&disk, "log-1.seg").starts_with(&[9; 1_024]));
            (eights(&first[..1_024]), eights(&first[1_024..]), eights(&second))
        };
        (0..200).map(one).collect()
    }

    #[test]
    fn a_write_lands_nowhere_elsewhere_or_in_part() {
        assert_eq!(written(Way::Nowhere), BTreeSet::from([(0, 0, 0)]));
        assert_eq!(written(Way::InPart), BTreeSet::from([(512, 0, 0)]));
        let elsewhere = written(Way::Elsewhere);
        assert!(elsewhere.contains(&(0, 0, 1_024)) && elsewhere.contains(&(0, 1_024, 0)), "{elsewhere:?}");
        assert!(elsewhere.contains(&(0, 0, 512)), "at the end there is less room");
    }
}
