//! What a batch puts into the log, as bytes: its records, then a trailer (D2). Payloads of entries are not copied.

use atomix_protocol::{ClusterTime, Entry, EntryId, WriteBatch};

use crate::format::{ALIGNMENT, HEADER, Kind, RecordHeader, record_bytes};

/// What every record of a batch has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) seed: u32,
    pub(crate) batch: u64,
}

/// Length of what a batch puts into the log.
pub(crate) fn batch_bytes(batch: &WriteBatch) -> u64 {
    let truncation = if batch.truncate_after.is_some() { record_bytes(0) } else { 0 };
    truncation + batch.entries.iter().map(entry_bytes).sum::<u64>() + record_bytes(8)
}

/// Length of an entry's record.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    record_bytes(entry.payload.len() as u64)
}

/// A batch's bytes: pieces of its own, and the payloads of entries where they lie.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    own: Vec<u8>,
    /// Payloads, each with the length of `own` that goes before it.
    payloads: Vec<(usize, &'a [u8])>,
    place: Place,
    chain: u32,
    count: u64,
    /// Length so far.
    length: u64,
    /// Where the first entry's record begins, counted from the batch's first record.
    pub(crate) entries_at: u64,
}

impl<'a> Encoded<'a> {
    /// `front` goes before the batch: a segment's header, or nothing. `scratch` is memory to use again.
    pub(crate) fn new(
        place: Place,
        chain: u32,
        front: &[u8],
        batch: &'a WriteBatch,
        last: EntryId,
        mut scratch: Vec<u8>,
    ) -> Encoded<'a> {
        scratch.clear();
        scratch.extend_from_slice(front);
        let payloads = Vec::with_capacity(batch.entries.len());
        let mut encoded =
            Encoded { own: scratch, payloads, place, chain, count: 0, length: 0, entries_at: 0 };
        if let Some(id) = batch.truncate_after {
            encoded.record(Kind::TruncateAfter, 0, id, ClusterTime::ZERO, &[]);
        }
        encoded.entries_at = encoded.length;
        for entry in &batch.entries {
            encoded.record(Kind::Entry, entry.kind as u8, entry.id, entry.time, &entry.payload);
            encoded.payloads.push((encoded.own.len(), &entry.payload));
            encoded.align(entry.payload.len());
        }
        let count = encoded.count.to_le_bytes();
        encoded.record(Kind::Trailer, 0, last, ClusterTime::ZERO, &count);
        encoded.own.extend_from_slice(&count);
        encoded
    }

    fn record(&mut self, kind: Kind, entry_kind: u8, id: EntryId, time: ClusterTime, payload: &[u8]) {
        let header = RecordHeader {
            length: u32::try_from(payload.len()).expect("payloads are bounded far below 4 GiB"),
            kind,
            entry_kind,
            payload_crc: crc32c::crc32c(payload),
            segment: self.place.segment,
            batch: self.place.batch,
            id,
            time,
            chain: self.chain,
        };
        let bytes: [u8; HEADER];
        (bytes, self.chain) = header.encode(self.place.seed);
        self.own.extend_from_slice(&bytes);
        self.length += record_bytes(payload.len() as u64);
        self.count += 1;
    }

    fn align(&mut self, payload: usize) {
        let filled = payload.next_multiple_of(ALIGNMENT as usize);
        self.own.resize(self.own.len() + filled - payload, 0);
    }

    /// The bytes in order.
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(self.payloads.len() * 2 + 1);
        let mut from = 0;
        for (until, payload) in &self.payloads {
            parts.push(&self.own[from..*until]);
            parts.push(*payload);
            from = *until;
        }
        parts.push(&self.own[from..]);
        parts
    }

    /// The last record's CRC, which the next batch chains to.
    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    /// Length of the batch, without what goes before it.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The memory, to use again.
    pub(crate) fn into_scratch(self) -> Vec<u8> {
        self.own
    }
}
