//! What lies behind the last whole batch, and what is known to have been there.

use atomix_protocol::Index;
use atomix_protocol::durable::REACH_UNKNOWN;
use atomix_protocol::mutant::Mutant;
use atomix_storage::StorageError;

use super::line::Segment;
use super::scan::Scanned;
use super::verdict::{Behind, Known};
use crate::format::{ALIGNMENT, Mark, RecordHeader, record_bytes};
use crate::manifest::Manifest;
use crate::names;
use crate::window::{Read, Window};

/// How the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) known: Known,
    pub(crate) behind: Behind,
    /// Where what the failing batch left behind ends in the tail's segment.
    pub(crate) remains: u64,
    /// The highest index of which anything says that it was in the log.
    pub(crate) reach: Index,
    /// The highest batch number that was seen anywhere.
    pub(crate) batches: u64,
    /// Segments behind the tail's whose heads fail: the log does not reach into them.
    pub(crate) headless: Vec<u64>,
    /// Segments behind the tail's that hold records of the failing batch.
    pub(crate) left_in: Vec<u64>,
    /// What fails behind the last whole batch, and why that is no torn end; empty if it is clean or torn.
    pub(crate) words: String,
}

/// Looks behind what was scanned, for anything that says that a sync followed (D3).
///
/// # Errors
/// If the files can't be read.
pub(crate) fn ending(
    segments: &[Segment],
    line: &[Segment],
    scanned: &Scanned,
    mark: Option<Mark>,
    manifest: &Manifest,
    first_seed: &dyn Fn(u64) -> u32,
    read: &mut Read<'_>,
) -> Result<Ending, StorageError> {
    let (segment, at) = scanned.tail.map_or((0, 0), |tail| (tail.segment, tail.offset));
    let failing = scanned.tail.map_or(1, |tail| tail.next_batch);
    let mut search = Search::new(segment, failing, at);
    if let Some(tail) = scanned.tail {
        search.file(&mut Window::new(read, segment, tail.length.saturating_sub(at)), at, tail.seed)?;
    }
    let mut headless = Vec::new();
    for behind in segments.iter().filter(|behind| behind.number > segment) {
        // Of a segment that lost its head, the seed that it must have had.
        let seed = scanned.tail.map_or_else(|| first_seed(behind.number), |tail| tail.chain);
        let seed = behind.header().map_or(seed, |header| header.seed);
        if behind.header().is_none() {
            headless.push(behind.number);
        }
        search.file(&mut Window::new(read, behind.number, behind.length), 0, seed)?;
    }
    let not_joined = &line[scanned.reached..];
    for header in not_joined.iter().filter_map(Segment::header) {
        search.reach = search.reach.max(header.base.index);
        search.batches = search.batches.max(header.first_batch);
    }
    // Of a log without any segment nothing can fail.
    let fails =
        if scanned.tail.is_some() { format!("batch {failing} fails") } else { "it is not there".into() };
    // C12: by its index, as if the log never became shorter.
    let longer = |mark: &Mark| Mutant::C12.active() && mark.last.index > scanned.catalog.last().index;
    let synced = mark.filter(|mark| mark.batch >= failing || longer(mark));
    let newest = segments.iter().find(|segment| segment.number == manifest.segment);
    let lost = manifest.segment > segment && newest.and_then(Segment::header).is_none();
    let (known, behind, words) = if let Some(mark) = synced {
        let (there, offset, batch, last) = (mark.segment, mark.offset, mark.batch, mark.last);
        let there = names::segment(there);
        let text =
            format!("{fails}, but the log was synced to {there} at {offset}: batch {batch}, entry {last}");
        (Known::Batch, search.behind(not_joined), text)
    } else if lost {
        let text =
            format!("{fails}, and {} is missing or has lost its head", names::segment(manifest.segment));
        (Known::Segment, search.behind(not_joined), text)
    } else if let Some(next) = not_joined.first() {
        (Known::Nothing, Behind::Later, format!("{fails} before {}", names::segment(next.number)))
    } else if let Some((there, offset, batch)) = search.later {
        let there = names::segment(there);
        let text = format!("{fails}, but {there} at {offset} holds a record of batch {batch}");
        (Known::Nothing, Behind::Later, text)
    } else {
        (Known::Nothing, search.behind(not_joined), String::new())
    };
    let marked = mark.map_or((Index::ZERO, 0), |mark| (mark.last.index, mark.batch));
    Ok(Ending {
        known,
        behind,
        remains: search.remains,
        // How far a segment reached that is gone is known by nobody: its mark was never synced. Then as far as any leader's log does.
        reach: if lost { REACH_UNKNOWN } else { search.reach.max(marked.0).max(manifest.segment_base) },
        batches: search.batches.max(marked.1).max(failing - 1),
        headless,
        left_in: search.left_in,
        words,
    })
}

/// Looks for records in what is not part of the log.
struct Search {
    /// Segment of the tail.
    tail: u64,
    failing: u64,
    /// Where the last whole batch ends in the tail's segment.
    at: u64,
    /// Segment, offset and number of a record of a batch later than the failing one.
    later: Option<(u64, u64, u64)>,
    /// What the failing batch left ends here in the tail's segment.
    remains: u64,
    /// Other segments in which it left something.
    left_in: Vec<u64>,
    reach: Index,
    batches: u64,
}

impl Search {
    fn new(tail: u64, failing: u64, at: u64) -> Self {
        let (left_in, reach) = (Vec::new(), Index::ZERO);
        Search { tail, failing, later: None, at, remains: at, left_in, reach, batches: 0 }
    }

    fn behind(&self, not_joined: &[Segment]) -> Behind {
        if self.later.is_some() || !not_joined.is_empty() {
            Behind::Later
        } else if self.remains > self.at || !self.left_in.is_empty() {
            Behind::Remains
        } else {
            Behind::Nothing
        }
    }

    /// Searches a file from an offset on.
    fn file(&mut self, window: &mut Window<'_, '_>, from: u64, seed: u32) -> Result<(), StorageError> {
        let segment = window.segment;
        let mut at = from;
        let mut places = Vec::new();
        loop {
            let length = window.chunk(at)?.len() as u64;
            if length == 0 {
                return Ok(());
            }
            if !window.is_zero() {
                places.clear();
                places.extend(window.resembling(segment).map(|offset| at + offset));
                for place in &places {
                    let header =
                        window.header(*place)?.and_then(|bytes| RecordHeader::decode(bytes, segment, seed));
                    if let Some((header, _)) = header {
                        self.found(segment, *place, &header);
                    }
                }
            }
            at = (at + length).next_multiple_of(ALIGNMENT);
        }
    }

    fn found(&mut self, segment: u64, at: u64, header: &RecordHeader) {
        self.reach = self.reach.max(header.id.index);
        self.batches = self.batches.max(header.batch);
        if header.batch > self.failing {
            self.later = self.later.or(Some((segment, at, header.batch)));
        }
        if header.batch == self.failing && segment == self.tail {
            self.remains = self.remains.max(at + record_bytes(header.length.into()));
        } else if header.batch == self.failing && self.left_in.last() != Some(&segment) {
            self.left_in.push(segment);
        }
    }
}
