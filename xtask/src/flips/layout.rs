//! What each byte of a data directory is, read independently of the code that wrote it, and what must come of it if one of its bits flips.
//!
//! The reading is strict: a directory that a server has left in peace must be whole in every byte that decides anything, so each look is a
//! check as well.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::log::{self, Contents, LogFile};
use super::snapshots::{self, SnapshotFile};

/// Length of every header.
pub(super) const HEADER: usize = 64;
/// Length of each of the two slots of the mark.
const SLOT: usize = 512;

/// The files of a directory, in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Reads all files of a directory.
    pub(super) fn of(directory: &Path) -> io::Result<Image> {
        let mut files = BTreeMap::new();
        for item in std::fs::read_dir(directory)? {
            let item = item?;
            files.insert(item.file_name().to_string_lossy().into_owned(), std::fs::read(item.path())?);
        }
        Ok(Image { files })
    }

    /// Writes all files to a new directory.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        self.files.iter().try_for_each(|(name, bytes)| std::fs::write(directory.join(name), bytes))
    }
}

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    ManifestHeader,
    ManifestPayload,
    SegmentHeader,
    RecordHeader,
    Payload,
    TrailerHeader,
    TrailerCount,
    SnapshotHeader,
    SnapshotData,
    SnapshotDescription,
    /// Of the snapshot before the newest.
    OlderSnapshot,
    /// The newer of the two marks. What it says is that the log was synced so far; where the log is whole, that is nothing new.
    NewerMark,
    OlderMark,
    /// Zeros between a payload and the next record.
    Alignment,
    /// Behind the end of what a file holds.
    Unused,
    /// A segment that is prepared, spare or in reserve.
    UnusedSegment,
}

impl Class {
    /// Whether a flip can be told from what was written: all but what nobody reads.
    pub(super) fn means_something(self) -> bool {
        !matches!(self, Class::Alignment | Class::Unused | Class::UnusedSegment)
    }
}

/// What must come of a flipped bit when a server starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Nothing: the byte means nothing, or is one that a start has no need of.
    None,
    /// It is said, and nothing is missing: another copy, an older snapshot with the log behind it, or a newer snapshot has it.
    Mended,
    /// It is said, and the server abstains until what may be missing has come back.
    Abstains,
}

/// Where the log stands to the snapshot that a start begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Before,
    Behind,
    /// In the last batch of all.
    Last,
    /// It is no part of the log.
    Neither,
}

/// Bytes that have everything in common.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) file: String,
    pub(super) bytes: Range<usize>,
    pub(super) class: Class,
    pub(super) side: Side,
    pub(super) effect: Effect,
}

/// A directory, understood.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) parts: Vec<Part>,
    pub(super) log: Vec<LogFile>,
    /// What the log holds in the end.
    pub(super) contents: Contents,
    /// Ascending.
    pub(super) snapshots: Vec<SnapshotFile>,
    /// Files that the next start must name, with the reason: a newest snapshot that was damaged stays until another takes its place.
    pub(super) known_damage: Vec<String>,
    /// Files of which a start has no need and that are damaged since an earlier flip. Nothing of them is flipped again: that could mend them.
    pub(super) quiet_damage: Vec<String>,
}

impl Layout {
    /// Reads a directory that a server has left in peace.
    ///
    /// # Errors
    /// What is damaged that should not be.
    pub(super) fn of(image: &Image) -> Result<Layout, String> {
        let snapshots = snapshots::read(image)?;
        let log = log::read(image)?;
        let contents = log::contents(&log)?;
        let usable = snapshots.iter().rposition(|snapshot| snapshot.whole);
        let from = usable.map_or(0, |usable| usable + 1);
        let known_damage = snapshots[from..].iter().map(|snapshot| snapshot.name.clone()).collect();
        let older = snapshots[..usable.unwrap_or(0)].iter().filter(|snapshot| !snapshot.whole);
        let quiet_damage = older.map(|snapshot| snapshot.name.clone()).collect();
        let mut layout = Layout { parts: Vec::new(), log, contents, snapshots, known_damage, quiet_damage };
        if layout.gap(0, usable) {
            return Err("the log does not reach back to a whole snapshot".into());
        }
        let mut parts = Vec::new();
        layout.manifests(image, &mut parts)?;
        layout.mark(image, &mut parts);
        layout.of_snapshots(usable, &mut parts);
        layout.of_log(usable, &mut parts);
        for (name, bytes) in image.files.iter().filter(|(name, _)| name.ends_with(".seg")) {
            if layout.log.iter().all(|file| file.name != *name) {
                parts.push(part(name, 0..bytes.len(), Class::UnusedSegment, Effect::None));
            }
        }
        parts.retain(|part: &Part| !part.bytes.is_empty());
        layout.parts = parts;
        Ok(layout)
    }

    /// The highest index of which anything says that it was acknowledged here.
    pub(super) fn last(&self) -> u64 {
        self.contents.last().0.max(self.snapshots.last().map_or(0, |snapshot| snapshot.index))
    }

    /// How many records and snapshots are whole.
    pub(super) fn held(&self) -> usize {
        let records: usize = self.log.iter().map(|file| file.records.len()).sum();
        records + self.snapshots.iter().filter(|snapshot| snapshot.whole).count()
    }

    /// The part that a byte belongs to.
    pub(super) fn part_at(&self, file: &str, at: usize) -> Option<&Part> {
        self.parts.iter().find(|part| part.file == file && part.bytes.contains(&at))
    }

    /// Whether entries are missing between the snapshot that is begun with and the log from a file on, or what a newer snapshot
    /// held is not there.
    fn gap(&self, from: usize, usable: Option<usize>) -> bool {
        // What joins as a whole does so from any file on.
        let Ok(contents) = log::contents(&self.log[from..]) else { return true };
        let start = usable.map_or((0, 0), |usable| self.snapshots[usable].id());
        let newest = self.snapshots.last().map_or((0, 0), SnapshotFile::id);
        if newest.0 > start.0 {
            !(contents.holds(start) && contents.holds(newest))
        } else {
            !contents.holds(start) && contents.base.0 > start.0
        }
    }

    fn manifests(&self, image: &Image, parts: &mut Vec<Part>) -> Result<(), String> {
        let mut generations = Vec::new();
        for name in ["manifest-0", "manifest-1"] {
            let bytes = image.files.get(name).ok_or(format!("{name} is missing"))?;
            let header = header(bytes, 0, *b"ATOMIXMF").ok_or(format!("{name}: its header fails"))?;
            let end = HEADER + u32_at(header, 24) as usize;
            let payload = bytes.get(HEADER..end).ok_or(format!("{name} is too short"))?;
            if crc32c::crc32c(payload) != u32_at(header, 28) {
                return Err(format!("{name}: its payload fails"));
            }
            generations.push(u64_at(header, 16));
            parts.push(part(name, 0..HEADER, Class::ManifestHeader, Effect::Mended));
            parts.push(part(name, HEADER..end, Class::ManifestPayload, Effect::Mended));
            parts.push(part(name, end..bytes.len(), Class::Unused, Effect::None));
        }
        if generations[0] != generations[1] {
            return Err(format!("the manifests are of generations {generations:?}"));
        }
        Ok(())
    }

    fn mark(&mut self, image: &Image, parts: &mut Vec<Part>) {
        let Some(bytes) = image.files.get("mark") else { return };
        let batch = |at| header(bytes, at, *b"ATOMIXMK").map(|header| u64_at(header, 32));
        let newer = usize::from(batch(SLOT) > batch(0));
        for slot in [0, 1] {
            let class = if slot == newer { Class::NewerMark } else { Class::OlderMark };
            let at = slot * SLOT;
            let written = bytes.iter().skip(at).take(HEADER).any(|byte| *byte != 0);
            if written && batch(at).is_none() {
                self.quiet_damage.push("mark".into());
            } else {
                parts.push(part("mark", at..at + HEADER, class, Effect::None));
            }
            parts.push(part("mark", at + HEADER..at + SLOT, Class::Unused, Effect::None));
        }
    }

    fn of_snapshots(&self, usable: Option<usize>, parts: &mut Vec<Part>) {
        for (at, snapshot) in self.snapshots.iter().enumerate() {
            let name = &snapshot.name;
            if Some(at) < usable && snapshot.whole {
                parts.push(part(name, 0..snapshot.length, Class::OlderSnapshot, Effect::None));
            }
            if Some(at) != usable {
                continue;
            }
            let older = self.snapshots[..at].iter().rposition(|older| older.whole);
            let effect = if self.gap(0, older) { Effect::Abstains } else { Effect::Mended };
            let data = HEADER..HEADER + snapshot.size;
            parts.push(part(name, 0..HEADER, Class::SnapshotHeader, effect));
            parts.push(part(name, data.end..snapshot.length, Class::SnapshotDescription, effect));
            parts.push(part(name, data, Class::SnapshotData, effect));
        }
    }

    fn of_log(&self, usable: Option<usize>, parts: &mut Vec<Part>) {
        let snapshot = usable.map_or(0, |usable| self.snapshots[usable].index);
        for (place, file) in self.log.iter().enumerate() {
            // Behind the damage the log goes on from something that the snapshot covers.
            let covered = self.log.get(place + 1).is_some_and(|next| next.base.0 <= snapshot);
            let effect =
                if covered && !self.gap(place + 1, usable) { Effect::Mended } else { Effect::Abstains };
            let batch = file.records.last().map(|record| record.batch);
            let mut push = |bytes, class, side, effect| {
                parts.push(Part { file: file.name.clone(), bytes, class, side, effect });
            };
            push(0..HEADER, Class::SegmentHeader, side(file.base.0, snapshot), effect);
            for record in &file.records {
                let last = place + 1 == self.log.len() && Some(record.batch) == batch;
                let side = if last { Side::Last } else { side(record.index, snapshot) };
                let (header, payload) = if record.is_trailer() {
                    (Class::TrailerHeader, Class::TrailerCount)
                } else {
                    (Class::RecordHeader, Class::Payload)
                };
                let begin = record.at + HEADER;
                push(record.at..begin, header, side, effect);
                push(begin..begin + record.length, payload, side, effect);
                push(begin + record.length..record.end(), Class::Alignment, side, Effect::None);
            }
            push(file.end..file.length, Class::Unused, Side::Neither, Effect::None);
        }
    }
}

fn side(index: u64, snapshot: u64) -> Side {
    if index <= snapshot { Side::Before } else { Side::Behind }
}

fn part(file: &str, bytes: Range<usize>, class: Class, effect: Effect) -> Part {
    Part { file: file.into(), bytes, class, side: Side::Neither, effect }
}

/// The 64 bytes at an offset, if they are a header of ours with that magic.
pub(super) fn header(bytes: &[u8], at: usize, magic: [u8; 8]) -> Option<&[u8]> {
    let header = bytes.get(at..at + HEADER)?;
    let ours = header[..8] == magic && header[8..16] == [2, 0, 1, 0, 0, 0, 0, 0];
    (ours && u32_at(header, 60) == crc32c::crc32c(&header[..60])).then_some(header)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |field| u32::from_le_bytes(*field))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |field| u64::from_le_bytes(*field))
}

#[cfg(test)]
pub(super) mod tests {
    use atomix_protocol::peer::SnapshotMeta;
    use atomix_protocol::{
        ClusterTime, Configuration, Entry, EntryId, EntryKind, Identity, Incarnation, Index, Term, WriteBatch,
    };
    use atomix_storage::Storage as _;
    use atomix_storage_file::{FileOptions, FileStorage, FolderDisk};

    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId::new(Term(term), Index(index))
    }

    fn entry(term: u64, index: u64) -> Entry {
        let payload = vec![index as u8; 30 + index as usize].into();
        Entry { id: id(term, index), time: ClusterTime(index), kind: EntryKind::NoOp, payload }
    }

    fn batch(truncate_after: Option<EntryId>, entries: Vec<Entry>) -> WriteBatch {
        WriteBatch { truncate_after, entries, ..WriteBatch::default() }
    }

    fn publish(storage: &mut FileStorage, last: EntryId) {
        let mut writer = storage.snapshot_writer().expect("a writer");
        writer.begin(last).and_then(|()| writer.write(b"the state")).expect("written");
        let (size, checksum) = writer.written();
        let (time, configuration) = (ClusterTime(7), Configuration::default());
        let meta = SnapshotMeta { last, time, configuration, size, checksum };
        writer.finish(&meta).and_then(|()| storage.publish(&meta)).expect("published");
    }

    /// Several segments, a truncation, two snapshots.
    pub(in crate::flips) fn written() -> Image {
        let folder = tempfile::tempdir().expect("a directory");
        let disk = FolderDisk::open(folder.path()).expect("opened");
        let mut storage =
            FileStorage::open(Box::new(disk), FileOptions { segment_bytes: 1 << 10 }).expect("opened");
        storage.recover(&mut |_| {}).expect("empty");
        let identity = Some(Identity { incarnation: Incarnation(9) });
        storage.write(&WriteBatch { identity, ..WriteBatch::default() }).expect("written");
        for index in 1..=12 {
            storage.write(&batch(None, vec![entry(1, index)])).expect("written");
        }
        storage.write(&batch(Some(id(1, 10)), vec![entry(2, 11), entry(2, 12)])).expect("written");
        publish(&mut storage, id(1, 4));
        publish(&mut storage, id(1, 9));
        storage.write(&batch(None, vec![entry(2, 13)])).expect("written");
        drop(storage);
        Image::of(folder.path()).expect("read")
    }

    #[test]
    fn a_directory_is_understood_to_its_last_byte() {
        let image = written();
        let layout = Layout::of(&image).expect("whole");
        let entries: Vec<_> = layout.contents.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        let wanted: Vec<_> = (1..=13).map(|index| (index, if index > 10 { 2 } else { 1 })).collect();
        assert_eq!((entries, layout.last()), (wanted, 13));
        assert!(layout.log.len() > 2 && layout.snapshots.len() == 2, "{layout:?}");
        for (name, bytes) in image.files.iter().filter(|(name, _)| *name != "lock") {
            for at in 0..bytes.len() {
                let parts = layout.parts.iter().filter(|part| part.file == *name && part.bytes.contains(&at));
                assert_eq!(parts.count(), 1, "{name} at {at}");
            }
        }
        let sides = [Side::Before, Side::Behind, Side::Last];
        assert!(sides.iter().all(|side| layout.parts.iter().any(|part| part.side == *side)));
    }

    /// What is looked at decides something: a flip in it is seen here as well.
    #[test]
    fn no_flip_of_what_matters_is_overlooked() {
        let image = written();
        let layout = Layout::of(&image).expect("whole");
        for part in layout.parts.iter().filter(|part| part.effect != Effect::None) {
            for at in [part.bytes.start, part.bytes.end - 1] {
                let mut flipped = image.clone();
                let byte = flipped.files.get_mut(&part.file).and_then(|bytes| bytes.get_mut(at));
                *byte.expect("there") ^= 0x10;
                let found = Layout::of(&flipped);
                let seen = found.is_err_and(|words| !words.is_empty());
                let newest = part.file.ends_with(".snap");
                // A lost head or end of the newest segment looks like a shorter log.
                let newest_segment = layout.log.last().is_some_and(|file| file.name == part.file);
                assert!(seen || newest || newest_segment, "{part:?} at {at}");
            }
        }
    }
}
