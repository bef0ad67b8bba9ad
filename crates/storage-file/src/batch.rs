//! A batch as bytes: its records, then a trailer (D2). Payloads of entries are not copied.

use atomix_protocol::{ClusterTime, Entry, EntryId, Index, WriteBatch, codec};
use atomix_storage::Recovered;

use crate::format::{ALIGNMENT, HEADER, Kind, RecordHeader, record_bytes};

/// What every record of a batch has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) seed: u32,
    pub(crate) batch: u64,
}

/// The records of a batch before its entries, encoded, in the order of D1.
#[derive(Debug, Default)]
pub(crate) struct Preface {
    records: Vec<(Kind, EntryId, Vec<u8>)>,
}

impl Preface {
    /// What the batch itself says.
    pub(crate) fn of(batch: &WriteBatch) -> Preface {
        let mut preface = Preface::default();
        let mut put = |kind, id, payload: &[u8]| preface.records.push((kind, id, payload.to_vec()));
        if let Some(identity) = &batch.identity {
            put(Kind::Identity, EntryId::ZERO, &codec::to_bytes(identity));
        }
        if let Some(configuration) = &batch.configuration {
            put(Kind::Configuration, EntryId::ZERO, &codec::to_bytes(configuration));
        }
        if let Some(abstention) = &batch.abstention {
            put(Kind::Abstention, EntryId::ZERO, &codec::to_bytes::<Option<Index>>(abstention));
        }
        if let Some(hard_state) = &batch.hard_state {
            put(Kind::HardState, EntryId::ZERO, &codec::to_bytes(hard_state));
        }
        if let Some(id) = batch.truncate_after {
            put(Kind::TruncateAfter, id, &[]);
        }
        preface
    }

    /// The same, and what was said before and still holds: the first batch of a segment, so that older ones can go.
    pub(crate) fn full(batch: &WriteBatch, known: &Recovered) -> Preface {
        Preface::of(&WriteBatch {
            identity: batch.identity.or(known.identity),
            configuration: batch.configuration.clone().or_else(|| known.configuration.clone()),
            abstention: batch.abstention.or(known.abstention.map(Some)),
            hard_state: batch.hard_state.or(Some(known.hard_state)),
            truncate_after: batch.truncate_after,
            ..WriteBatch::default()
        })
    }

    /// Length of a batch of these records and those entries.
    pub(crate) fn batch_bytes(&self, entries: &[Entry]) -> u64 {
        let trailer = record_bytes(8);
        let records: u64 =
            self.records.iter().map(|(_, _, payload)| record_bytes(payload.len() as u64)).sum();
        records + entries.iter().map(entry_bytes).sum::<u64>() + trailer
    }
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
        preface: &Preface,
        entries: &'a [Entry],
        last: EntryId,
        mut scratch: Vec<u8>,
    ) -> Encoded<'a> {
        scratch.clear();
        scratch.extend_from_slice(front);
        let payloads = Vec::with_capacity(entries.len());
        let mut encoded =
            Encoded { own: scratch, payloads, place, chain, count: 0, length: 0, entries_at: 0 };
        for (kind, id, payload) in &preface.records {
            encoded.record(*kind, 0, *id, ClusterTime::ZERO, payload);
            encoded.own.extend_from_slice(payload);
            encoded.align(payload.len());
        }
        encoded.entries_at = encoded.length;
        for entry in entries {
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
