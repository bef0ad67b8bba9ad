//! What the log's files mean after whatever happened to them (D3): a pure function of their bytes.
//!
//! A batch counts as a whole or not at all: one without its trailer was never acknowledged, and none of it is handed out (the
//! shortest prefix that D1 allows). Since a batch is written only after the sync of the one before, at most the last batch can be
//! unfinished. So a batch that fails is **torn** if nothing says that a sync followed it, and **corrupt** if something does: the
//! mark, or any record of a later batch. No directory of the files is kept anywhere: numbers and chains of the segments say what
//! belongs together, and a segment that is missing is seen by its neighbours, the snapshot or the mark.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::Range;

use atomix_protocol::{DecodeError, EntryId, EntryKind, codec};
use atomix_storage::{Recovered, StorageError};

use crate::catalog::Catalog;
use crate::format::{ALIGNMENT, Decoded, HEADER, Kind, Mark, RecordHeader, SegmentHeader};
use crate::window::{Read, Window};

/// Where the next batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) segment: u64,
    /// Keys the CRCs of the segment's records.
    pub(crate) seed: u32,
    /// Length of the file.
    pub(crate) length: u64,
    pub(crate) offset: u64,
    /// CRC of the last record's header, or the seed.
    pub(crate) chain: u32,
    pub(crate) next_batch: u64,
    /// No batch is in this segment yet: the first one repeats what older segments say.
    pub(crate) empty: bool,
}

/// What has to be done to the files before anything is built on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repair {
    /// Bytes of the tail's segment that hold a batch of which no mark says that it was synced.
    pub(crate) unsure: Range<u64>,
    /// Bytes of the tail's segment, behind its last batch, that a torn batch left.
    pub(crate) torn: Range<u64>,
    /// A segment that never came to be.
    pub(crate) dead: Option<u64>,
}

/// What the log says.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Without the snapshot, which the log does not know.
    pub(crate) recovered: Recovered,
    pub(crate) catalog: Catalog,
    /// `None` if there is no log.
    pub(crate) tail: Option<Tail>,
    pub(crate) repair: Repair,
}

/// Reads the whole log. `segments` are numbers and lengths, ascending.
///
/// # Errors
/// If the log is damaged, foreign or can't be read.
pub(crate) fn scan(
    segments: &[(u64, u64)],
    mark: Option<Mark>,
    read: &mut Read<'_>,
) -> Result<Scanned, StorageError> {
    if let Some(pair) = segments.windows(2).find(|pair| pair[0].0 + 1 != pair[1].0) {
        return Err(corrupt(format!("log segment {} is missing", pair[0].0 + 1)));
    }
    let mut scanned = Scanned::default();
    let mut headless = segments.len();
    for (position, (segment, length)) in segments.iter().enumerate() {
        let mut window = Window::new(read, *segment, *length);
        let header = window.header(0)?.map_or(Decoded::Invalid, SegmentHeader::decode);
        match header {
            Decoded::Valid(header) => scanned.enter(*segment, &header, *length)?,
            Decoded::Foreign => {
                let text =
                    format!("log segment {segment} was written by a newer version or for another group");
                return Err(StorageError::Foreign(text));
            }
            Decoded::Invalid => {
                headless = position;
                break;
            }
        }
        while scanned.batch(&mut window)? {}
    }
    scanned.judge(&segments[headless..], mark, read)?;
    Ok(scanned)
}

impl Scanned {
    /// Goes on in the next segment. Its header says where the one before ended: it was written after the sync of that one's last batch.
    fn enter(&mut self, segment: u64, header: &SegmentHeader, length: u64) -> Result<(), StorageError> {
        if header.segment != segment {
            return Err(corrupt(format!(
                "the file of log segment {segment} holds segment {}",
                header.segment
            )));
        }
        match &self.tail {
            None => self.catalog = Catalog::after(header.base),
            Some(tail) if (tail.next_batch, tail.chain) != (header.first_batch, header.seed) => {
                let (at, batch) = (tail.offset, tail.next_batch);
                let text = format!(
                    "log segment {} at {at}: batch {batch} fails before segment {segment}",
                    tail.segment
                );
                return Err(corrupt(text));
            }
            Some(_) if self.catalog.last() != header.base => {
                let (held, base) = (self.catalog.last(), header.base);
                return Err(corrupt(format!(
                    "log segment {segment} follows {base}, the one before ends with {held}"
                )));
            }
            Some(_) => {}
        }
        self.repair.unsure = 0..HEADER as u64;
        self.tail = Some(Tail {
            segment,
            seed: header.seed,
            length,
            offset: HEADER as u64,
            chain: header.seed,
            next_batch: header.first_batch,
            empty: true,
        });
        Ok(())
    }

    /// Reads one batch. False if no whole one is there.
    fn batch(&mut self, window: &mut Window<'_, '_>) -> Result<bool, StorageError> {
        let Some(mut tail) = self.tail else { return Ok(false) };
        let begin = tail.offset;
        let mut records = Vec::new();
        loop {
            let at = tail.offset;
            let Some(record) = window.record(at, tail.seed)? else { return Ok(false) };
            if (record.header.batch, record.header.chain) != (tail.next_batch, tail.chain) {
                return Ok(false);
            }
            (tail.offset, tail.chain) = (record.end, record.chain);
            if record.header.kind == Kind::Trailer {
                let count = window.payload(at, record.header.length)?;
                if *count != (records.len() as u64).to_le_bytes() {
                    return Ok(false);
                }
                self.apply(&records, &record.header, window)?;
                break;
            }
            records.push((at, record.header));
        }
        self.repair.unsure = if tail.empty { 0 } else { begin }..tail.offset;
        tail.next_batch += 1;
        tail.empty = false;
        self.tail = Some(tail);
        Ok(true)
    }

    fn apply(
        &mut self,
        records: &[(u64, RecordHeader)],
        trailer: &RecordHeader,
        window: &mut Window<'_, '_>,
    ) -> Result<(), StorageError> {
        for (at, header) in records {
            let payload = match header.kind {
                Kind::Entry => {
                    self.entry(*at, header)?;
                    continue;
                }
                _ => window.payload(*at, header.length)?,
            };
            let foreign = |error| undecodable(header, error);
            let recovered = &mut self.recovered;
            match header.kind {
                Kind::Identity => recovered.identity = Some(codec::from_bytes(&payload).map_err(foreign)?),
                Kind::Configuration => {
                    recovered.configuration = Some(codec::from_bytes(&payload).map_err(foreign)?)
                }
                Kind::Abstention => recovered.abstention = codec::from_bytes(&payload).map_err(foreign)?,
                Kind::HardState => recovered.hard_state = codec::from_bytes(&payload).map_err(foreign)?,
                Kind::TruncateAfter => self.catalog.truncate_after(header.id),
                Kind::Entry | Kind::Trailer => unreachable!("handled above"),
            }
        }
        let last = self.catalog.last();
        if trailer.id != last {
            let (segment, batch) = (trailer.segment, trailer.batch);
            let text = format!(
                "log segment {segment}: batch {batch} ends with {last}, its trailer says {}",
                trailer.id
            );
            return Err(corrupt(text));
        }
        Ok(())
    }

    fn entry(&mut self, at: u64, header: &RecordHeader) -> Result<(), StorageError> {
        let (segment, seed) = (header.segment, self.tail.map_or(0, |tail| tail.seed));
        if EntryKind::from_number(header.entry_kind).is_none() {
            let text = format!("entry {} is of a kind that this version does not know", header.id);
            return Err(StorageError::Foreign(text));
        }
        let last = self.catalog.last();
        if header.id.index != last.index.next() || header.id.term < last.term {
            return Err(corrupt(format!("log segment {segment} at {at}: entry {} after {last}", header.id)));
        }
        self.catalog.append(segment, seed, at, header.id);
        Ok(())
    }

    /// Decides whether what comes after the last whole batch is torn or corrupt. `headless` are the segments whose headers fail.
    fn judge(
        &mut self,
        headless: &[(u64, u64)],
        mark: Option<Mark>,
        read: &mut Read<'_>,
    ) -> Result<(), StorageError> {
        let (segment, at) = self.tail.map_or((1, 0), |tail| (tail.segment, tail.offset));
        let failing = self.tail.map_or(1, |tail| tail.next_batch);
        if let Some(mark) = mark.filter(|mark| mark.batch >= failing) {
            return Err(corrupt(format!(
                "log segment {segment} at {at}: batch {failing} fails, but everything up to segment {} at {}, batch {}, entry {} was synced",
                mark.segment, mark.offset, mark.batch, mark.last
            )));
        }
        // Only the last file can lack its header: it is the one that was being made. The first segment ever has number 1.
        if let Some((first, _)) =
            headless.first().filter(|(first, _)| headless.len() > 1 || self.tail.is_none() && *first != 1)
        {
            return Err(corrupt(format!("log segment {first} has no valid header")));
        }
        let mut later = None;
        if let Some(tail) = self.tail {
            let rest = search(
                &mut Window::new(read, tail.segment, tail.length.saturating_sub(tail.offset)),
                tail.offset,
                Some(tail.seed),
                failing,
            )?;
            self.repair.torn = tail.offset..rest.dirty.max(tail.offset);
            later = rest.later.map(|found| (tail.segment, found));
        }
        // The seed that the next segment would have had. Nothing is known of the very first one's: the looks of a record must do, which no
        // client can feign, since its first batch holds nothing of theirs.
        let seed = self.tail.map(|tail| tail.chain);
        if let Some((dead, length)) = headless.first() {
            let found = search(&mut Window::new(read, *dead, *length), 0, seed, failing)?;
            later = later.or(found.later.map(|found| (*dead, found)));
            self.repair.dead = Some(*dead);
        }
        if let Some((later, (offset, batch))) = later {
            return Err(corrupt(format!(
                "log segment {segment} at {at}: batch {failing} fails, but segment {later} at {offset} holds a record of batch {batch}"
            )));
        }
        // A header that is followed by another segment's is in `unsure` no more: that one was written after its sync.
        if mark.is_some_and(|mark| mark.batch + 1 == failing && self.tail.is_some_and(|tail| !tail.empty)) {
            self.repair.unsure = 0..0;
        }
        Ok(())
    }
}

/// What a search found behind the last whole batch.
struct Found {
    /// Offset and number of a record of a batch later than the failing one.
    later: Option<(u64, u64)>,
    /// Where the zeros begin that reach to the end.
    dirty: u64,
}

/// Searches for records of a batch later than `failing`. Without a seed, what looks like one is one.
fn search(
    window: &mut Window<'_, '_>,
    from: u64,
    seed: Option<u32>,
    failing: u64,
) -> Result<Found, StorageError> {
    let segment = window.segment;
    let mut found = Found { later: None, dirty: from };
    let mut at = from;
    loop {
        let length = window.chunk(at)?.len() as u64;
        let end = at + length;
        if length == 0 {
            return Ok(found);
        }
        if window.is_zero() {
            at = end;
            continue;
        }
        if let Some(last) = window.chunk(at)?.iter().rposition(|byte| *byte != 0) {
            found.dirty = at + last as u64 + 1;
            // A header that begins among the zeros at the end is none: its first bytes are not zero.
            while found.later.is_none() && at < found.dirty {
                let header = window.header(at)?.and_then(|bytes| match seed {
                    Some(seed) => RecordHeader::decode(bytes, segment, seed).map(|(header, _)| header),
                    None => RecordHeader::resembling(bytes, segment),
                });
                found.later = header.filter(|header| header.batch > failing).map(|header| (at, header.batch));
                at += ALIGNMENT;
            }
        }
        at = end;
    }
}

/// The record's checksum holds: whoever wrote it means something else by it.
fn undecodable(header: &RecordHeader, error: DecodeError) -> StorageError {
    let (segment, batch) = (header.segment, header.batch);
    StorageError::Foreign(format!(
        "log segment {segment}, batch {batch}: {:?} record is {error}",
        header.kind
    ))
}

fn corrupt(text: String) -> StorageError {
    StorageError::Corrupt(text)
}

/// How the log goes on after the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    /// The log holds the snapshot's last entry, or begins right after it.
    Joined,
    /// The log conflicts with the snapshot or does not reach it: a crash came between publishing an installed snapshot and
    /// truncating the log. It is empty, and goes on after the snapshot.
    Reset(EntryId),
}

/// Decides how log and snapshot belong together. `usable` is the newest snapshot that verifies, `newest` the newest there is.
///
/// # Errors
/// If entries are missing between them.
pub(crate) fn join(
    catalog: &Catalog,
    usable: Option<EntryId>,
    newest: Option<EntryId>,
) -> Result<Joint, StorageError> {
    let start = usable.unwrap_or(EntryId::ZERO);
    let holds = |id: EntryId| catalog.id_at(id.index) == Some(id);
    if let Some(newest) = newest.filter(|newest| Some(*newest) != usable)
        && !(holds(start) && holds(newest))
    {
        return Err(corrupt(format!(
            "snapshot {newest} does not verify, and the log does not cover it from {start} on"
        )));
    }
    if holds(start) {
        Ok(Joint::Joined)
    } else if catalog.base().index > start.index {
        Err(corrupt(format!("the log begins after {}, the snapshot ends with {start}", catalog.base())))
    } else {
        Ok(Joint::Reset(start))
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{ClusterTime, Entry, Identity, Incarnation, Index, Term, WriteBatch};
    use bytes::Bytes;

    use super::*;
    use crate::batch::{Encoded, Place, Preface};

    const SEED: u32 = 77;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId::new(Term(term), Index(index))
    }

    fn entry(term: u64, index: u64) -> Entry {
        let payload = Bytes::from_static(b"thirteen byte");
        Entry { id: id(term, index), time: ClusterTime(5), kind: EntryKind::Session, payload }
    }

    /// Segment 1 with three batches, zeros behind: an identity, entries 1 and 2, entry 3. And where each batch ends.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        segment_with(3, 0)
    }

    /// The same; the third batch says that it is number `third`, and its chain is off by `error`.
    fn segment_with(third: u64, error: u32) -> (Vec<u8>, Vec<usize>) {
        let header = SegmentHeader { segment: 1, first_batch: 1, base: EntryId::ZERO, seed: SEED };
        let identity = Some(Identity { incarnation: Incarnation(1) });
        let batches = [
            (WriteBatch { identity, ..WriteBatch::default() }, EntryId::ZERO),
            (WriteBatch { entries: vec![entry(1, 1), entry(1, 2)], ..WriteBatch::default() }, id(1, 2)),
            (WriteBatch { entries: vec![entry(2, 3)], ..WriteBatch::default() }, id(2, 3)),
        ];
        let (mut bytes, mut ends, mut chain) = (header.encode().to_vec(), Vec::new(), SEED);
        for (number, (batch, last)) in [1, 2, third].into_iter().zip(&batches) {
            if ends.len() == 2 {
                chain ^= error;
            }
            let place = Place { segment: 1, seed: SEED, batch: number };
            let preface = Preface::of(batch);
            let encoded = Encoded::new(place, chain, &[], &preface, &batch.entries, *last, Vec::new());
            chain = encoded.chain();
            assert_eq!(encoded.length(), preface.batch_bytes(&batch.entries));
            bytes.extend(encoded.parts().concat());
            ends.push(bytes.len());
        }
        bytes.resize(2_000, 0);
        (bytes, ends)
    }

    fn mark(batch: u64) -> Option<Mark> {
        Some(Mark { segment: 1, offset: 0, batch, last: EntryId::ZERO })
    }

    fn scan_one(bytes: &[u8], mark: Option<Mark>) -> Result<Scanned, String> {
        let mut read = |_, offset: u64, buffer: &mut [u8]| {
            let from = bytes.len().min(offset as usize);
            let length = buffer.len().min(bytes.len() - from);
            buffer[..length].copy_from_slice(&bytes[from..from + length]);
            Ok(length)
        };
        scan(&[(1, bytes.len() as u64)], mark, &mut read).map_err(|error| error.to_string())
    }

    #[test]
    fn a_clean_end() {
        let (bytes, ends) = segment();
        let end = ends[2] as u64;
        for (mark, unsure) in [(mark(3), 0..0), (mark(2), ends[1] as u64..end), (None, ends[1] as u64..end)] {
            let scanned = scan_one(&bytes, mark).unwrap();
            let tail = scanned.tail.unwrap();
            assert_eq!((tail.offset, tail.next_batch, tail.empty), (end, 4, false));
            assert_eq!(scanned.repair, Repair { unsure, torn: end..end, dead: None });
            assert_eq!((scanned.catalog.base(), scanned.catalog.last()), (EntryId::ZERO, id(2, 3)));
            assert_eq!(scanned.recovered.identity, Some(Identity { incarnation: Incarnation(1) }));
        }
    }

    #[test]
    fn a_torn_batch_goes_as_a_whole() {
        let (bytes, ends) = segment();
        for at in ends[1]..ends[2] {
            let mut torn = bytes.clone();
            torn[at] ^= 0xFF;
            let Ok(scanned) = scan_one(&torn, mark(2)) else { panic!("torn at {at}") };
            if scanned.catalog.last() == id(2, 3) {
                // The zeros that align it.
                continue;
            }
            assert_eq!(scanned.catalog.last(), id(1, 2), "torn at {at}");
            assert_eq!(scanned.tail.unwrap().offset, ends[1] as u64);
            assert_eq!(scanned.repair.torn.start, ends[1] as u64);
            assert!(torn[scanned.repair.torn.end as usize..].iter().all(|byte| *byte == 0), "torn at {at}");
        }
    }

    #[test]
    fn a_batch_belongs_behind_the_one_before() {
        for (third, error, text) in [(3, 1, "another chain"), (2, 0, "an earlier number")] {
            let (bytes, ends) = segment_with(third, error);
            let scanned = scan_one(&bytes, mark(2)).unwrap();
            assert_eq!(scanned.tail.unwrap().offset, ends[1] as u64, "{text}");
            assert!(!scanned.repair.torn.is_empty(), "{text}");
        }
        let refused = scan_one(&segment_with(4, 0).0, mark(2)).unwrap_err();
        assert!(refused.contains("holds a record of batch 4"), "a later number: {refused}");
    }

    #[test]
    fn corruption_names_its_place() {
        let (bytes, ends) = segment();
        let (second, third) = (ends[0], ends[1]);
        let cases = [
            (
                third,
                mark(3),
                format!("segment 1 at {third}: batch 3 fails, but everything up to segment 1 at 0, batch 3"),
            ),
            (
                second,
                mark(1),
                format!(
                    "segment 1 at {second}: batch 2 fails, but segment 1 at {third} holds a record of batch 3"
                ),
            ),
            (second, mark(2), format!("segment 1 at {second}: batch 2 fails, but everything up to")),
            (0, None, "segment 1 at 0: batch 1 fails, but segment 1 at".to_owned()),
            (0, mark(1), "segment 1 at 0: batch 1 fails, but everything up to".to_owned()),
        ];
        for (at, mark, wanted) in cases {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let refused = scan_one(&damaged, mark).unwrap_err();
            assert!(refused.contains(&wanted), "{refused}\nnot {wanted}");
        }
    }

    #[test]
    fn a_segment_that_never_came_to_be() {
        for bytes in [vec![0; 500], Vec::new(), vec![0xEE; 500]] {
            let scanned = scan_one(&bytes, None).unwrap();
            assert_eq!(scanned.tail, None);
            assert_eq!(scanned.repair.dead, Some(1));
        }
    }

    #[test]
    fn log_and_snapshot() {
        // The log holds entries 4@1 and 5@2, right behind 3@1.
        let mut catalog = Catalog::after(id(1, 3));
        catalog.append(1, 0, 64, id(1, 4));
        catalog.append(1, 0, 164, id(2, 5));
        let joined = Ok(Joint::Joined);
        let reset = |id| Ok(Joint::Reset(id));
        let cases = [
            (Some(id(1, 3)), Some(id(1, 3)), joined.clone()),
            (Some(id(2, 5)), Some(id(2, 5)), joined.clone()),
            (Some(id(3, 5)), Some(id(3, 5)), reset(id(3, 5))),
            (Some(id(2, 6)), Some(id(2, 6)), reset(id(2, 6))),
            (Some(id(2, 3)), Some(id(2, 3)), reset(id(2, 3))),
            (Some(id(1, 4)), Some(id(2, 5)), joined),
        ];
        for (usable, newest, wanted) in cases {
            assert_eq!(join(&catalog, usable, newest), wanted, "{usable:?} {newest:?}");
        }
        let missing = [
            (None, None),
            (Some(id(1, 2)), Some(id(1, 2))),
            (Some(id(1, 4)), Some(id(3, 5))),
            (Some(id(1, 4)), Some(id(2, 6))),
            (Some(id(1, 2)), Some(id(1, 4))),
            (None, Some(id(1, 4))),
        ];
        for (usable, newest) in missing {
            let joint = join(&catalog, usable, newest);
            assert!(matches!(joint, Err(StorageError::Corrupt(_))), "{usable:?} {newest:?}: {joint:?}");
        }
    }
}
