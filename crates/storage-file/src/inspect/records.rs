//! Every record that can be found in the segments, whether or not it is part of the log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use atomix_protocol::{ClusterTime, EntryId, EntryKind, Index};
use atomix_storage::StorageError;
use bytes::Bytes;

use crate::catalog::Catalog;
use crate::format::{ALIGNMENT, Decoded, HEADER, Kind, RecordHeader, record_bytes};
use crate::log::{failed, first_seed};
use crate::recovery::{Segment, Survey, Verdict};
use crate::window::Window;
use crate::{Disk, names};

/// A record whose header is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Name of the segment's file.
    pub file: Arc<str>,
    /// Where in it the record begins.
    pub offset: u64,
    /// The batch that it belongs to.
    pub batch: u64,
    /// What it is.
    pub kind: RecordKind,
    /// The entry; for a truncation and a trailer the log's last entry then.
    pub id: EntryId,
    /// Cluster time of the entry.
    pub time: ClusterTime,
    /// Length of the payload.
    pub length: u32,
    /// The payload; `None` if it does not verify.
    pub payload: Option<Bytes>,
    /// Whether it counts.
    pub standing: Standing,
}

impl Record {
    /// Where the next one begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + record_bytes(self.length.into())
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordKind {
    /// An entry.
    Entry(EntryKind),
    /// An entry of a kind that this version does not know, by its number.
    UnknownEntry(u8),
    /// The log ends with the entry named from here on.
    TruncateAfter,
    /// Ends a batch.
    Trailer,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordKind::Entry(EntryKind::NoOp) => "no-op",
            RecordKind::Entry(EntryKind::Configuration) => "configuration",
            RecordKind::Entry(EntryKind::Session) => "session",
            RecordKind::UnknownEntry(number) => return write!(f, "kind-{number}"),
            RecordKind::TruncateAfter => "truncate-after",
            RecordKind::Trailer => "trailer",
        })
    }
}

/// Whether a record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It does.
    Served,
    /// A later truncation took it back, or a snapshot that was installed took its place.
    Replaced,
    /// Its batch was broken off by a crash, and goes at the next start.
    Torn,
    /// It lies behind damage, or in a segment that was given up, or no server starts here.
    NotServed,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Served => "served",
            Standing::Replaced => "replaced",
            Standing::Torn => "torn",
            Standing::NotServed => "not served",
        })
    }
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holds {
    /// Where the last record ends.
    pub(super) end: u64,
    /// The first and the last batch.
    pub(super) batches: Option<(u64, u64)>,
    /// The first and the last entry, in the order in which they lie there.
    pub(super) entries: Option<(EntryId, EntryId)>,
}

/// What each segment holds, and the lowest index that a truncation in the log leaves.
pub(super) fn summary(
    disk: &mut dyn Disk,
    survey: &Survey,
) -> Result<(BTreeMap<u64, Holds>, Option<Index>), StorageError> {
    let (mut all, mut lowest): (BTreeMap<u64, Holds>, _) = (BTreeMap::new(), None);
    let served = served(survey);
    for segment in &survey.segments {
        let mut holds = Holds { end: segment.header().map_or(0, |_| HEADER as u64), ..Holds::default() };
        walk_segment(disk, survey, &served, segment, &mut |record| {
            holds.end = holds.end.max(record.end());
            let (first, last) = holds.batches.unwrap_or((record.batch, record.batch));
            holds.batches = Some((first.min(record.batch), last.max(record.batch)));
            match record.kind {
                RecordKind::Entry(_) | RecordKind::UnknownEntry(_) => {
                    holds.entries = Some((holds.entries.map_or(record.id, |(first, _)| first), record.id));
                }
                RecordKind::TruncateAfter if record.standing == Standing::Served => {
                    lowest =
                        Some(lowest.map_or(record.id.index, |lowest: Index| lowest.min(record.id.index)));
                }
                RecordKind::TruncateAfter | RecordKind::Trailer => {}
            }
        })?;
        all.insert(segment.number, holds);
    }
    Ok((all, lowest))
}

/// Hands over every record, by segment and offset.
pub(super) fn walk(
    disk: &mut dyn Disk,
    survey: &Survey,
    each: &mut dyn FnMut(Record),
) -> Result<(), StorageError> {
    let served = served(survey);
    survey.segments.iter().try_for_each(|segment| walk_segment(disk, survey, &served, segment, each))
}

/// What of the log is used by a server that starts here.
pub(super) fn served(survey: &Survey) -> Catalog {
    if !is_used(survey) || survey.is_apart() {
        Catalog::after(survey.usable_snapshot())
    } else {
        survey.scanned.catalog.clone()
    }
}

/// Whether a server that starts here goes on with the log that was found.
fn is_used(survey: &Survey) -> bool {
    let starts = matches!(survey.verdict, Verdict::Serve | Verdict::Truncate | Verdict::Abstain);
    starts && !survey.is_anew()
}

/// Where the whole batches end that are part of the log, in a segment.
fn limit(survey: &Survey, segment: &Segment) -> u64 {
    let reached = if is_used(survey) { survey.scanned.reached } else { 0 };
    let line = &survey.line[..reached];
    let Some(place) = line.iter().position(|held| held.number == segment.number) else { return 0 };
    match line.get(place + 1).and_then(Segment::header) {
        Some(next) => next.at,
        None => survey.scanned.tail.map_or(0, |tail| tail.offset),
    }
}

fn walk_segment(
    disk: &mut dyn Disk,
    survey: &Survey,
    served: &Catalog,
    segment: &Segment,
    each: &mut dyn FnMut(Record),
) -> Result<(), StorageError> {
    let seed = match segment.head {
        Decoded::Foreign => return Ok(()),
        Decoded::Valid(header) => header.seed,
        // The one that it must have had, if it follows what is whole.
        Decoded::Invalid => survey
            .scanned
            .tail
            .map_or_else(|| first_seed(survey.manifest().identity, segment.number), |tail| tail.chain),
    };
    let (limit, file) = (limit(survey, segment), Arc::<str>::from(names::segment(segment.number)));
    let mut read = |number, offset, buffer: &mut [u8]| {
        let name = names::segment(number);
        disk.read_at(&name, offset, buffer).map_err(failed("read", &name))
    };
    let mut window = Window::new(&mut read, segment.number, segment.length);
    let mut at = HEADER as u64;
    loop {
        let found = window.header(at)?.and_then(|bytes| RecordHeader::decode(bytes, segment.number, seed));
        let Some((header, _)) = found else {
            match next(&mut window, at + ALIGNMENT, seed)? {
                Some(next) => at = next,
                None => return Ok(()),
            }
            continue;
        };
        let whole = window.record(at, seed)?.is_some();
        let record = Record {
            file: file.clone(),
            offset: at,
            batch: header.batch,
            kind: kind(&header),
            id: header.id,
            time: header.time,
            length: header.length,
            payload: if whole { Some(window.payload(at, header.length)?) } else { None },
            standing: standing(survey, served, &header, at, limit),
        };
        at = record.end();
        each(record);
    }
}

fn kind(header: &RecordHeader) -> RecordKind {
    match header.kind {
        Kind::Entry => EntryKind::from_number(header.entry_kind)
            .map_or(RecordKind::UnknownEntry(header.entry_kind), RecordKind::Entry),
        Kind::TruncateAfter => RecordKind::TruncateAfter,
        Kind::Trailer => RecordKind::Trailer,
    }
}

/// Where the next record begins that has a whole header, from an offset on.
fn next(window: &mut Window<'_, '_>, from: u64, seed: u32) -> Result<Option<u64>, StorageError> {
    let segment = window.segment;
    let mut at = from;
    loop {
        let length = window.chunk(at)?.len() as u64;
        if length == 0 {
            return Ok(None);
        }
        if !window.is_zero() {
            let places: Vec<u64> = window.resembling(segment).map(|offset| at + offset).collect();
            for place in places {
                let header = window.header(place)?;
                if header.and_then(|bytes| RecordHeader::decode(bytes, segment, seed)).is_some() {
                    return Ok(Some(place));
                }
            }
        }
        at = (at + length).next_multiple_of(ALIGNMENT);
    }
}

fn standing(survey: &Survey, served: &Catalog, header: &RecordHeader, at: u64, limit: u64) -> Standing {
    if at < limit {
        // Of an entry that was written, taken back and written again, only the last one is where the catalog says.
        let there = served.locate(header.id.index);
        let holds = served.id_at(header.id.index) == Some(header.id)
            && there.is_some_and(|there| there.segment == header.segment && there.offset <= at);
        return if header.kind != Kind::Entry || holds { Standing::Served } else { Standing::Replaced };
    }
    let failing = survey.scanned.tail.map_or(1, |tail| tail.next_batch);
    let behind = survey.scanned.tail.is_some_and(|tail| tail.segment == header.segment)
        || survey.ending.left_in.contains(&header.segment);
    if survey.verdict == Verdict::Truncate && behind && header.batch == failing {
        Standing::Torn
    } else {
        Standing::NotServed
    }
}
