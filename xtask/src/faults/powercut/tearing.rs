//! Batches of which a part is on the disk when the power goes.
//!
//! A disk writes a request sector by sector, and may have written any of them when its power goes. What the servers had handed to the system,
//! and not synced, is looked at right before the cut, and some sectors of the last batch are put where they belong on the disk right after it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use atomix_protocol::Index;
use atomix_storage::StorageError;
use atomix_storage_file::inspect::{Inspection, Part, Report};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use crate::faults::disk::Disk;

const SECTOR: u64 = 512;

/// A sector: where it is on the disk, and what was to be written there.
type Sector = (u64, Vec<u8>);

/// Some sectors of the last batch of a log, and not all.
pub(super) fn half(directory: &Path, random: &mut Xoshiro256PlusPlus) -> Result<Vec<Sector>, String> {
    let Some((file, begin, end)) = last_batch(directory)? else { return Ok(Vec::new()) };
    let path = directory.join(file);
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let sectors: Vec<u64> = (begin / SECTOR..end.div_ceil(SECTOR)).collect();
    if sectors.len() < 2 {
        return Ok(Vec::new());
    }
    let places = places(&path)?;
    let first = random.random_range(1..sectors.len());
    let written: Vec<u64> = match random.random_range(0..4) {
        0 => sectors[..first].to_vec(),
        1 => sectors[first..].to_vec(),
        2 => sectors.iter().copied().filter(|sector| *sector != sectors[first]).collect(),
        _ => sectors.iter().copied().filter(|_| random.random_bool(0.5)).collect(),
    };
    let sector = |sector: u64| {
        let at = usize::try_from(sector * SECTOR).ok()?;
        let bytes = bytes.get(at..at + SECTOR as usize)?;
        let (begin, place) = places.range(..=sector).next_back()?;
        Some(((place + sector - begin) * SECTOR, bytes.to_vec()))
    };
    Ok(written.into_iter().filter_map(sector).collect())
}

/// Puts sectors where they belong, on a disk that is not mounted.
pub(super) fn put(disk: &Disk, sectors: &[Sector]) -> Result<(), String> {
    sectors.iter().try_for_each(|(place, bytes)| disk.put(*place, bytes))
}

/// Whether the next start finds a batch that is not whole.
pub(super) fn is_torn(directory: &Path) -> Result<bool, String> {
    Ok(looked_at(directory, |report, _| Ok(report.torn.is_some()))?.unwrap_or(false))
}

/// The segment of a log's last batch, and where in it that begins and ends.
fn last_batch(directory: &Path) -> Result<Option<(String, u64, u64)>, String> {
    let found = looked_at(directory, |report, inspection| {
        let newest = report.segments.into_iter().rfind(|file| file.part == Part::Log);
        let Some(newest) = newest else { return Ok(None) };
        let mut last = None;
        inspection.records(Index(0), Index(u64::MAX), &mut |record| {
            if *record.file == *newest.file && last.is_none_or(|(batch, _)| batch < record.batch) {
                last = Some((record.batch, record.offset));
            }
        })?;
        Ok(last.map(|(_, begin)| (newest.file, begin, newest.end)))
    });
    Ok(found?.flatten())
}

/// Looks at a directory; `None` if there is nothing of a server yet.
fn looked_at<T>(
    directory: &Path,
    look: impl FnOnce(Report, &mut Inspection) -> Result<T, StorageError>,
) -> Result<Option<T>, String> {
    let looked = Inspection::of_directory(directory).and_then(|mut inspection| {
        let report = inspection.report()?;
        look(report, &mut inspection)
    });
    match looked {
        Ok(found) => Ok(Some(found)),
        // The power went before anything of it was synced.
        Err(StorageError::Foreign(_) | StorageError::Unusable(_)) => Ok(None),
        Err(error) => Err(format!("{}: {error}", directory.display())),
    }
}

/// Where the sectors of a file are on the disk: for the first of each run of them.
fn places(file: &Path) -> Result<BTreeMap<u64, u64>, String> {
    let said = Command::new("filefrag").args(["-e", "-b512"]).arg(file).output();
    let said = said.map_err(|error| format!("filefrag: {error}"))?;
    let places = runs(&String::from_utf8_lossy(&said.stdout));
    if places.is_empty() { Err(format!("filefrag does not know {}", file.display())) } else { Ok(places) }
}

/// The runs in what filefrag says: `   0:        0..     127:     272384..    272511:    128:             last,eof`.
fn runs(said: &str) -> BTreeMap<u64, u64> {
    let runs = said.lines().filter_map(|line| {
        let mut columns = line.split(':');
        columns.next()?.trim().parse::<u64>().ok()?;
        let mut begin = || columns.next()?.split_once("..")?.0.trim().parse().ok();
        Some((begin()?, begin()?))
    });
    runs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_a_file_are_read() {
        let said = "\
Filesystem type is: ef53
File size of log is 65536 (128 blocks of 512 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..      63:     272384..    272447:     64:
   1:       64..     127:     300000..    300063:     64:     272448: last,eof
log: 2 extents found
";
        assert_eq!(runs(said), [(0, 272_384), (64, 300_000)].into());
    }
}
