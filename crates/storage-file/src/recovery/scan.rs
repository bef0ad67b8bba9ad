//! How far whole batches reach.

use std::ops::Range;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Entry, EntryId, EntryKind, Index};
use atomix_storage::StorageError;
use bytes::Bytes;

use super::line::Segment;
use crate::catalog::Catalog;
use crate::format::{HEADER, Kind, RecordHeader, SegmentHeader};
use crate::window::{Read, Window};

/// Where the next batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) segment: u64,
    /// Keys the CRCs of the segment's records.
    pub(crate) seed: u32,
    /// How far the segment may be used.
    pub(crate) length: u64,
    pub(crate) offset: u64,
    /// CRC of the last record's header, or the seed.
    pub(crate) chain: u32,
    pub(crate) next_batch: u64,
}

impl Tail {
    /// Of a segment without a batch.
    pub(crate) fn begin(header: &SegmentHeader, length: u64) -> Tail {
        Tail {
            segment: header.segment,
            seed: header.seed,
            length,
            offset: HEADER as u64,
            chain: header.seed,
            next_batch: header.first_batch,
        }
    }
}

/// The whole batches of the log, from its beginning on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) catalog: Catalog,
    /// Behind the last of them; `None` if there is no segment.
    pub(crate) tail: Option<Tail>,
    /// How many segments of the line they reach into.
    pub(crate) reached: usize,
    /// The last entry that was handed out.
    handed: Index,
    /// Entries to be handed out that a later truncation may still take back.
    pub(crate) kept: Vec<Entry>,
    /// Bytes of the last one in the tail's segment, or of that segment's header if none is in it.
    pub(crate) last: Range<u64>,
}

/// What is to be done with the entries.
pub(crate) struct Wanted<'a> {
    /// The snapshot that they follow.
    pub(crate) start: EntryId,
    /// No truncation takes back what is at or before this index.
    pub(crate) lasting: Index,
    pub(crate) entry: &'a mut dyn FnMut(Entry),
}

/// Reads the line from its beginning on, as far as one batch follows the other. Hands out what follows the snapshot, or keeps it if it may
/// be taken back.
///
/// # Errors
/// If the files can't be read, or an entry is of a kind that this version does not know.
pub(crate) fn scan(
    line: &[Segment],
    wanted: &mut Wanted<'_>,
    read: &mut Read<'_>,
) -> Result<Scanned, StorageError> {
    let mut scanned = Scanned::default();
    let mut records = Vec::new();
    for (place, segment) in line.iter().enumerate() {
        let Some(header) = segment.header() else { break };
        if !scanned.enter(header, segment.length) {
            break;
        }
        // What lies behind that point was given up when the next segment was begun.
        let next = line.get(place + 1).and_then(Segment::header);
        let until = next.filter(|next| next.follows == segment.number).map_or(u64::MAX, |next| next.at);
        let mut window = Window::new(read, segment.number, segment.length);
        while scanned.tail.is_some_and(|tail| tail.offset < until)
            && scanned.batch(wanted, &mut window, &mut records)?
        {}
    }
    Ok(scanned)
}

impl Scanned {
    /// Goes on in the next segment, if it joins: its header was written after the sync of the last batch before it.
    fn enter(&mut self, header: &SegmentHeader, length: u64) -> bool {
        match &self.tail {
            None => self.catalog = Catalog::after(header.base),
            Some(tail) => {
                let joins =
                    (header.follows, header.at, header.seed) == (tail.segment, tail.offset, tail.chain);
                if !joins || header.first_batch < tail.next_batch || self.catalog.last() != header.base {
                    return false;
                }
            }
        }
        self.reached += 1;
        self.last = 0..HEADER as u64;
        self.tail = Some(Tail::begin(header, length));
        true
    }

    /// Reads one batch. False if no whole one is there that continues the log. `records` is memory to use again.
    fn batch(
        &mut self,
        wanted: &mut Wanted<'_>,
        window: &mut Window<'_, '_>,
        records: &mut Vec<(u64, RecordHeader, Bytes)>,
    ) -> Result<bool, StorageError> {
        let Some(mut tail) = self.tail else { return Ok(false) };
        // With the first batch the segment's header was written.
        let begin = if tail.offset == HEADER as u64 { 0 } else { tail.offset };
        records.clear();
        let mut last = self.catalog.last();
        loop {
            let at = tail.offset;
            let Some(mut record) = window.record(at, tail.seed)? else { return Ok(false) };
            if Mutant::B09.active() {
                record.header.belongs_to(&tail, last);
            }
            let header = record.header;
            if (header.batch, header.chain) != (tail.next_batch, tail.chain) {
                return Ok(false);
            }
            (tail.offset, tail.chain) = (record.end, record.chain);
            match header.kind {
                Kind::Trailer => {
                    let count = window.payload(at, header.length)?;
                    if *count != (records.len() as u64).to_le_bytes() || header.id != last {
                        return Ok(false);
                    }
                    break;
                }
                Kind::Entry if header.id.index != last.index.next() || header.id.term < last.term => {
                    return Ok(false);
                }
                Kind::Entry if EntryKind::from_number(header.entry_kind).is_none() => {
                    let text = format!("entry {} is of a kind that this version does not know", header.id);
                    return Err(StorageError::OtherVersion(text));
                }
                // It takes back what was to last: the manifest knows nothing of it.
                Kind::TruncateAfter if header.id.index < self.handed => return Ok(false),
                Kind::Entry | Kind::TruncateAfter => last = header.id,
            }
            let kept = header.kind == Kind::Entry && header.id.index > wanted.start.index;
            let payload = if kept { window.payload(at, header.length)? } else { Bytes::new() };
            records.push((at, header, payload));
        }
        for (at, header, payload) in records.drain(..) {
            if header.kind == Kind::TruncateAfter {
                self.truncate(header.id);
                continue;
            }
            if header.id.index > wanted.start.index
                && let Some(kind) = EntryKind::from_number(header.entry_kind)
                && (header.id.index != wanted.start.index.next() || self.holds(wanted.start))
            {
                let entry = Entry { id: header.id, time: header.time, kind, payload };
                self.take(entry, wanted);
            }
            self.catalog.append(header.segment, tail.seed, at, header.id);
        }
        self.last = begin..tail.offset;
        tail.next_batch += 1;
        self.tail = Some(tail);
        Ok(true)
    }

    fn holds(&self, id: EntryId) -> bool {
        self.catalog.id_at(id.index) == Some(id)
    }

    /// Hands an entry out, or keeps it. Not one that follows nothing: the log does not join the snapshot.
    fn take(&mut self, entry: Entry, wanted: &mut Wanted<'_>) {
        let before = self.kept.last().map_or(self.handed, |last| last.id.index).max(wanted.start.index);
        if entry.id.index != before.next() {
            return;
        }
        if entry.id.index <= wanted.lasting && self.kept.is_empty() {
            self.handed = entry.id.index;
            (wanted.entry)(entry);
        } else {
            self.kept.push(entry);
        }
    }

    fn truncate(&mut self, id: EntryId) {
        if !self.holds(id) {
            self.kept.clear();
        }
        let kept = self.kept.partition_point(|entry| entry.id.index <= id.index);
        self.kept.truncate(kept);
        self.catalog.truncate_after(id);
    }
}

impl RecordHeader {
    /// B09: as if the record had been written for the place where it is found.
    fn belongs_to(&mut self, tail: &Tail, last: EntryId) {
        (self.segment, self.batch, self.chain) = (tail.segment, tail.next_batch, tail.chain);
        match self.kind {
            Kind::Entry => self.id = EntryId::new(last.term.max(self.id.term), last.index.next()),
            Kind::Trailer => self.id = last,
            Kind::TruncateAfter => {}
        }
    }
}
