//! The bytes of the files (D2): headers of manifests, segments, records and marks. All numbers are little-endian.
//!
//! Three things keep their places in every version of the format, so that an older program can tell *newer* from *damaged*: the
//! magic, the version behind it, and the CRC in the last four of the first 64 bytes.

use atomix_protocol::mutant::Mutant;
use atomix_protocol::{ClusterTime, EntryId, GroupId, Index, Term};

/// The version written, and the only one read.
pub(crate) const VERSION: u16 = 2;
/// The only checksum algorithm there is: CRC-32C.
pub(crate) const CRC_32C: u8 = 1;
/// Length of every header: of a manifest's copy, a segment, a record, a mark and a snapshot.
pub(crate) const HEADER: usize = 64;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;
/// A mark file: two slots in sectors of their own, written in turn, so that a torn mark leaves the one before.
pub(crate) const MARK_BYTES: u64 = 1024;

const MANIFEST_MAGIC: [u8; 8] = *b"ATOMIXMF";
const LOG_MAGIC: [u8; 8] = *b"ATOMIXLG";
const MARK_MAGIC: [u8; 8] = *b"ATOMIXMK";
/// Where a record's header has the number of its segment.
pub(crate) const SEGMENT_AT: usize = 16;
/// Where the CRC of a header lies.
const CRC_AT: usize = HEADER - 4;

/// Writes the fields of a header one after the other.
pub(crate) struct Fields {
    bytes: [u8; HEADER],
    at: usize,
}

impl Fields {
    pub(crate) fn new() -> Self {
        Fields { bytes: [0; HEADER], at: 0 }
    }

    pub(crate) fn put<const N: usize>(mut self, field: [u8; N]) -> Self {
        self.bytes[self.at..self.at + N].copy_from_slice(&field);
        self.at += N;
        self
    }

    /// Adds the CRC, which begins with `key`.
    pub(crate) fn seal(mut self, key: u32) -> [u8; HEADER] {
        let crc = crc32c::crc32c_append(key, &self.bytes[..CRC_AT]);
        self.bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// The `N` bytes of a header at an offset.
pub(crate) fn field<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

fn u32_at(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes(field(header, at))
}

fn u64_at(header: &[u8; HEADER], at: usize) -> u64 {
    u64::from_le_bytes(field(header, at))
}

/// Whether a header's CRC holds.
pub(crate) fn is_sealed(header: &[u8; HEADER], key: u32) -> bool {
    u32_at(header, CRC_AT) == crc32c::crc32c_append(key, &header[..CRC_AT])
}

/// What the first 64 bytes of a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded<T> {
    /// Whole, and of this version.
    Valid(T),
    /// Whole, but of another version, of another checksum algorithm, or of another group.
    Foreign,
    /// Neither.
    Invalid,
}

impl<T> Decoded<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Decoded<U> {
        match self {
            Decoded::Valid(value) => Decoded::Valid(change(value)),
            Decoded::Foreign => Decoded::Foreign,
            Decoded::Invalid => Decoded::Invalid,
        }
    }
}

/// Magic, version and checksum algorithm, common to all files.
pub(crate) fn preamble(magic: [u8; 8]) -> Fields {
    Fields::new()
        .put(magic)
        .put(VERSION.to_le_bytes())
        .put([CRC_32C, 0])
        .put(GroupId::DEFAULT.0.to_le_bytes())
}

/// Checks what [`preamble`] and [`Fields::seal`] wrote.
pub(crate) fn check_preamble(header: &[u8; HEADER], magic: [u8; 8]) -> Decoded<()> {
    if header[..8] != magic || !is_sealed(header, 0) {
        return Decoded::Invalid;
    }
    let version = u16::from_le_bytes(field(header, 8));
    let known = version == VERSION && header[10] == CRC_32C && u32_at(header, 12) == GroupId::DEFAULT.0;
    if known { Decoded::Valid(()) } else { Decoded::Foreign }
}

/// The first 64 bytes of a manifest's copy; its payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ManifestHeader {
    /// One more with each change: the greater of two whole copies counts.
    pub(crate) generation: u64,
    pub(crate) length: u32,
    pub(crate) payload_crc: u32,
}

impl ManifestHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        preamble(MANIFEST_MAGIC)
            .put(self.generation.to_le_bytes())
            .put(self.length.to_le_bytes())
            .put(self.payload_crc.to_le_bytes())
            .seal(0)
    }

    pub(crate) fn decode(header: &[u8; HEADER]) -> Decoded<ManifestHeader> {
        check_preamble(header, MANIFEST_MAGIC).map(|()| ManifestHeader {
            generation: u64_at(header, 16),
            length: u32_at(header, 24),
            payload_crc: u32_at(header, 28),
        })
    }
}

/// The first 64 bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Its number, as in its name. Greater than that of the segment it follows.
    pub(crate) segment: u64,
    /// The segment that it follows; zero if the log begins here. Those between were damaged and given up (D3).
    pub(crate) follows: u64,
    /// Where the last batch ends in the segment that it follows: what lies behind was given up, or was never used.
    pub(crate) at: u64,
    /// Number of its first batch. Invariant: greater than that of any batch before.
    pub(crate) first_batch: u64,
    /// The log's last entry when the segment began.
    pub(crate) base: EntryId,
    /// What the chain begins with: what it came to at `at`.
    pub(crate) seed: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let skipped = if self.follows == 0 { u32::MAX } else { narrow(self.segment - 1 - self.follows) };
        preamble(LOG_MAGIC)
            .put(self.segment.to_le_bytes())
            .put(self.first_batch.to_le_bytes())
            .put(self.base.index.0.to_le_bytes())
            .put(self.base.term.0.to_le_bytes())
            .put(self.seed.to_le_bytes())
            .put(skipped.to_le_bytes())
            .put(narrow(self.at / ALIGNMENT).to_le_bytes())
            .seal(0)
    }

    pub(crate) fn decode(header: &[u8; HEADER]) -> Decoded<SegmentHeader> {
        check_preamble(header, LOG_MAGIC).map(|()| {
            let (segment, skipped) = (u64_at(header, 16), u32_at(header, 52));
            let follows = segment.saturating_sub(1).saturating_sub(skipped.into());
            SegmentHeader {
                segment,
                follows: if skipped == u32::MAX { 0 } else { follows },
                at: u64::from(u32_at(header, 56)) * ALIGNMENT,
                first_batch: u64_at(header, 24),
                base: EntryId::new(Term(u64_at(header, 40)), Index(u64_at(header, 32))),
                seed: u32_at(header, 48),
            }
        })
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("segments are shorter than 32 GiB, and fewer than 4 billion are given up")
}

/// What a record is. Zero is none, so that zeros are never a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The log ends with the entry of this record's index and term.
    TruncateAfter = 1,
    /// An entry; the payload is its payload.
    Entry = 2,
    /// Ends a batch; the payload is how many records it has, the index and term are those of the log's last entry.
    Trailer = 3,
}

impl Kind {
    fn from_number(number: u8) -> Option<Kind> {
        [Kind::TruncateAfter, Kind::Entry, Kind::Trailer].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The first 64 bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Length of the payload, without the zeros that align the next record.
    pub(crate) length: u32,
    pub(crate) kind: Kind,
    /// Number of the entry's kind; zero for other records.
    pub(crate) entry_kind: u8,
    pub(crate) payload_crc: u32,
    pub(crate) segment: u64,
    pub(crate) batch: u64,
    pub(crate) id: EntryId,
    pub(crate) time: ClusterTime,
    /// The CRC of the header before, which covers that record whole; the segment's seed in its first record.
    pub(crate) chain: u32,
}

impl RecordHeader {
    /// The bytes, and what the next record's `chain` is.
    ///
    /// The CRC is keyed with the segment's seed, which no client knows: a payload that looks like a record is not one.
    pub(crate) fn encode(&self, seed: u32) -> ([u8; HEADER], u32) {
        let bytes = Fields::new()
            .put(self.length.to_le_bytes())
            .put([self.kind as u8, self.entry_kind, 0, 0])
            .put(GroupId::DEFAULT.0.to_le_bytes())
            .put(self.payload_crc.to_le_bytes())
            .put(self.segment.to_le_bytes())
            .put(self.batch.to_le_bytes())
            .put(self.id.index.0.to_le_bytes())
            .put(self.id.term.0.to_le_bytes())
            .put(self.time.0.to_le_bytes())
            .put(self.chain.to_le_bytes())
            .seal(key(seed));
        (bytes, u32_at(&bytes, CRC_AT))
    }

    /// The header, and what the next record's `chain` is. `None` if it is none of that segment.
    // See `Window::record`.
    #[inline(always)]
    pub(crate) fn decode(bytes: &[u8; HEADER], segment: u64, seed: u32) -> Option<(RecordHeader, u32)> {
        // Cheapest first: a search for records tries this at many places.
        let elsewhere = u64_at(bytes, SEGMENT_AT) != segment && !Mutant::B09.active();
        if elsewhere || u32_at(bytes, 8) != GroupId::DEFAULT.0 || bytes[6..8] != [0, 0] {
            return None;
        }
        let kind = Kind::from_number(bytes[4]).filter(|_| is_sealed(bytes, key(seed)))?;
        let header = RecordHeader {
            length: u32_at(bytes, 0),
            kind,
            entry_kind: bytes[5],
            payload_crc: u32_at(bytes, 12),
            segment,
            batch: u64_at(bytes, 24),
            id: EntryId::new(Term(u64_at(bytes, 40)), Index(u64_at(bytes, 32))),
            time: ClusterTime(u64_at(bytes, 48)),
            chain: u32_at(bytes, 56),
        };
        Some((header, u32_at(bytes, CRC_AT)))
    }
}

/// What keys a segment's CRCs.
fn key(seed: u32) -> u32 {
    if Mutant::B09.active() { 0 } else { seed }
}

/// Bytes of a record with a payload of that length, the aligning zeros included.
pub(crate) const fn record_bytes(payload: u64) -> u64 {
    HEADER as u64 + payload.next_multiple_of(ALIGNMENT)
}

/// How far the log was synced (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) segment: u64,
    /// Where the batch ends in it.
    pub(crate) offset: u64,
    pub(crate) batch: u64,
    /// The log's last entry then.
    pub(crate) last: EntryId,
}

impl Mark {
    /// Where in the mark file this one goes.
    pub(crate) const fn slot(&self) -> u64 {
        (self.batch % 2) * (MARK_BYTES / 2)
    }

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        preamble(MARK_MAGIC)
            .put(self.segment.to_le_bytes())
            .put(self.offset.to_le_bytes())
            .put(self.batch.to_le_bytes())
            .put(self.last.index.0.to_le_bytes())
            .put(self.last.term.0.to_le_bytes())
            .seal(0)
    }

    fn decode(header: &[u8; HEADER]) -> Option<Mark> {
        let Decoded::Valid(()) = check_preamble(header, MARK_MAGIC) else { return None };
        Some(Mark {
            segment: u64_at(header, 16),
            offset: u64_at(header, 24),
            batch: u64_at(header, 32),
            last: EntryId::new(Term(u64_at(header, 48)), Index(u64_at(header, 40))),
        })
    }

    /// The newer of the two marks in a mark file. One that does not decode was torn: it was never synced.
    pub(crate) fn newest(file: &[u8]) -> Option<Mark> {
        let slots = file.chunks((MARK_BYTES / 2) as usize).filter_map(|slot| slot.first_chunk());
        slots.filter_map(Mark::decode).max_by_key(|mark| mark.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment_header() -> SegmentHeader {
        SegmentHeader {
            segment: 7,
            follows: 4,
            at: 4_096,
            first_batch: 9,
            base: EntryId::new(Term(3), Index(11)),
            seed: 0x0102_0304,
        }
    }

    fn record(kind: Kind) -> RecordHeader {
        RecordHeader {
            length: 5,
            kind,
            entry_kind: 3,
            payload_crc: 0xA1B2_C3D4,
            segment: 7,
            batch: 9,
            id: EntryId::new(Term(4), Index(12)),
            time: ClusterTime(1_000),
            chain: 0x0102_0304,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes() {
        let manifest = ManifestHeader { generation: 3, length: 70, payload_crc: 0xA1B2_C3D4 };
        assert_eq!(hex(&manifest.encode()), GOLDEN_MANIFEST);
        assert_eq!(hex(&segment_header().encode()), GOLDEN_SEGMENT);
        assert_eq!(hex(&record(Kind::Entry).encode(0x0102_0304).0), GOLDEN_RECORD);
        let mark = Mark { segment: 7, offset: 4_096, batch: 9, last: EntryId::new(Term(4), Index(12)) };
        assert_eq!(hex(&mark.encode()), GOLDEN_MARK);
    }

    const GOLDEN_MANIFEST: &str = "41544f4d49584d460200010000000000030000000000000046000000d4c3b2a10000000000000000000000000000000000000000000000000000000014f2c0e2";
    const GOLDEN_SEGMENT: &str = "41544f4d49584c470200010000000000070000000000000009000000000000000b000000000000000300000000000000040302010200000000020000cf82af93";
    const GOLDEN_RECORD: &str = "050000000203000000000000d4c3b2a1070000000000000009000000000000000c000000000000000400000000000000e80300000000000004030201a14a78d2";
    const GOLDEN_MARK: &str = "41544f4d49584d4b02000100000000000700000000000000001000000000000009000000000000000c0000000000000004000000000000000000000065ac5b24";

    #[test]
    fn headers_come_back() {
        let header = segment_header();
        for follows in [0, 1, 4, 6] {
            let header = SegmentHeader { follows, ..header };
            assert_eq!(SegmentHeader::decode(&header.encode()), Decoded::Valid(header));
        }
        let header = ManifestHeader { generation: 3, length: 70, payload_crc: 9 };
        assert_eq!(ManifestHeader::decode(&header.encode()), Decoded::Valid(header));
        for number in 1..=3 {
            let header = record(Kind::from_number(number).unwrap());
            let (bytes, chain) = header.encode(5);
            assert_eq!(RecordHeader::decode(&bytes, 7, 5), Some((header, chain)));
        }
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        let (segment, (record, _)) = (segment_header().encode(), record(Kind::Entry).encode(5));
        for bit in 0..HEADER * 8 {
            let flip = |mut bytes: [u8; HEADER]| {
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            };
            assert_eq!(SegmentHeader::decode(&flip(segment)), Decoded::Invalid, "bit {bit}");
            assert_eq!(RecordHeader::decode(&flip(record), 7, 5), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_belongs_to_its_segment_only() {
        let (bytes, _) = record(Kind::Entry).encode(5);
        assert_eq!(RecordHeader::decode(&bytes, 8, 5), None, "another segment");
        assert_eq!(RecordHeader::decode(&bytes, 7, 6), None, "another seed");
        assert_eq!(RecordHeader::decode(&[0; HEADER], 0, 0), None, "zeros");
        assert_eq!(Kind::from_number(0), None);
    }

    #[test]
    fn other_versions_and_other_algorithms_and_groups_are_foreign() {
        for (at, value) in [(8, 3), (8, 1), (10, 2), (12, 1)] {
            let mut bytes = segment_header().encode();
            bytes[at] = value;
            let crc = crc32c::crc32c(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(SegmentHeader::decode(&bytes), Decoded::Foreign);
        }
    }

    #[test]
    fn the_newer_mark_that_is_whole_counts() {
        let mark = |batch| Mark { segment: 1, offset: 64 * batch, batch, last: EntryId::ZERO };
        let mut file = vec![0; MARK_BYTES as usize];
        assert_eq!(Mark::newest(&file), None);
        for batch in [4, 5, 6] {
            let at = mark(batch).slot() as usize;
            file[at..at + HEADER].copy_from_slice(&mark(batch).encode());
            assert_eq!(Mark::newest(&file), Some(mark(batch)));
        }
        file[20] ^= 1;
        assert_eq!(Mark::newest(&file), Some(mark(5)), "the torn one leaves the one before");
        assert_eq!(Mark::newest(&file[..40]), None, "shorter than a slot");
    }
}
