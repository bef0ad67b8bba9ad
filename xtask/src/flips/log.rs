//! The segments of the log, as far as their bytes go.

use super::layout::{HEADER, Image, header, u32_at, u64_at};

/// Records begin at multiples of this.
const ALIGNMENT: usize = 8;
const TRUNCATION: u8 = 1;
const TRAILER: u8 = 3;

/// A segment that is part of the log.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) name: String,
    pub(super) number: u64,
    /// Index and term of the log's last entry when it began.
    pub(super) base: (u64, u64),
    /// The segment that it follows, zero if none, and where that ends.
    follows: (u64, usize),
    seed: u32,
    pub(super) records: Vec<Record>,
    /// Where the next record would begin.
    pub(super) end: usize,
    pub(super) length: usize,
}

impl LogFile {
    /// What lies behind was given up.
    fn cut(&mut self, end: usize) {
        self.records.retain(|record| record.end() <= end);
        self.end = self.records.last().map_or(HEADER, Record::end);
    }

    /// What the next record chains to.
    fn chain(&self) -> u32 {
        self.records.last().map_or(self.seed, |record| record.crc)
    }
}

/// A record that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) at: usize,
    /// Of its payload.
    pub(super) length: usize,
    kind: u8,
    pub(super) batch: u64,
    pub(super) index: u64,
    pub(super) term: u64,
    /// What the next record's chain is.
    crc: u32,
    /// What an entry is, apart from where it lies: kind, time, and its payload's checksum.
    pub(super) content: (u8, u64, u32),
}

impl Record {
    pub(super) fn is_trailer(&self) -> bool {
        self.kind == TRAILER
    }

    /// Index and term.
    fn id(&self) -> (u64, u64) {
        (self.index, self.term)
    }

    /// Where the next one begins.
    pub(super) fn end(&self) -> usize {
        self.at + HEADER + self.length.next_multiple_of(ALIGNMENT)
    }
}

/// The segments of the log, each right behind the one before.
///
/// # Errors
/// Where they do not join, or something is left of what was given up.
pub(super) fn read(image: &Image) -> Result<Vec<LogFile>, String> {
    let mut files: Vec<LogFile> = Vec::new();
    let mut headless = Vec::new();
    for (name, bytes) in &image.files {
        let number = name.strip_prefix("log-").and_then(|rest| rest.strip_suffix(".seg"));
        let Some(number) = number.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else { continue };
        match segment(name, number, bytes) {
            Some(file) => files.push(file),
            None => headless.push((number, name)),
        }
    }
    files.sort_by_key(|file| file.number);
    // One behind the newest was made for what will come.
    let newest = files.last().map_or(0, |file| file.number);
    if let Some((_, name)) = headless.iter().find(|(number, _)| *number < newest) {
        return Err(format!("{name} has lost its head"));
    }
    for at in 1..files.len() {
        let (number, end) = files[at].follows;
        files[at - 1].cut(end);
        let (before, file) = (&files[at - 1], &files[at]);
        if (number, end, file.seed) != (before.number, before.end, before.chain()) {
            let (name, wanted, found) = (&file.name, &before.name, before.end);
            return Err(format!(
                "{name} follows segment {number} at {end}, and {wanted} is whole through {found}"
            ));
        }
    }
    Ok(files)
}

/// What the log holds in the end, truncations applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// Index and term of what is right before the first entry.
    pub(super) base: (u64, u64),
    /// Ascending by index, without a hole.
    pub(super) entries: Vec<Record>,
}

impl Contents {
    pub(super) fn last(&self) -> (u64, u64) {
        self.entries.last().map_or(self.base, Record::id)
    }

    /// Whether the entry of that index and term is there, or right before the first.
    pub(super) fn holds(&self, id: (u64, u64)) -> bool {
        id == self.base || self.entries.iter().any(|entry| entry.id() == id)
    }

    fn truncate(&mut self, id: (u64, u64)) {
        if self.holds(id) {
            self.entries.retain(|entry| entry.index <= id.0);
        } else {
            *self = Contents { base: id, entries: Vec::new() };
        }
    }
}

/// What the log holds in the end.
///
/// # Errors
/// If indexes have a hole, or a batch lacks its trailer.
pub(super) fn contents(files: &[LogFile]) -> Result<Contents, String> {
    let base = files.first().map_or((0, 0), |file| file.base);
    let mut contents = Contents { base, entries: Vec::new() };
    for file in files {
        let last = contents.last();
        if file.base != last {
            return Err(format!("{} begins after {:?}, the log is at {last:?}", file.name, file.base));
        }
        for record in &file.records {
            let (id, last) = (record.id(), contents.last());
            let fits = match record.kind {
                TRAILER => id == last,
                TRUNCATION => true,
                _ => id.0 == last.0 + 1 && id.1 >= last.1,
            };
            if !fits {
                return Err(format!("{} at {}: {id:?} after {last:?}", file.name, record.at));
            }
            match record.kind {
                TRAILER => {}
                TRUNCATION => contents.truncate(id),
                _ => contents.entries.push(record.clone()),
            }
        }
        if file.records.last().is_some_and(|record| !record.is_trailer()) {
            return Err(format!("{}: its last batch has no end", file.name));
        }
    }
    Ok(contents)
}

/// A segment as far as its records are whole; `None` if it was never begun.
fn segment(name: &str, number: u64, bytes: &[u8]) -> Option<LogFile> {
    let head = header(bytes, 0, *b"ATOMIXLG").filter(|head| u64_at(head, 16) == number)?;
    let skipped = u32_at(head, 52);
    let follows = if skipped == u32::MAX { 0 } else { number - 1 - u64::from(skipped) };
    let seed = u32_at(head, 48);
    let mut file = LogFile {
        name: name.into(),
        number,
        base: (u64_at(head, 32), u64_at(head, 40)),
        follows: (follows, u32_at(head, 56) as usize * ALIGNMENT),
        seed,
        records: Vec::new(),
        end: HEADER,
        length: bytes.len(),
    };
    while let Some(record) = record(&file, bytes) {
        file.end = record.end();
        file.records.push(record);
    }
    Some(file)
}

/// The record behind those read so far.
fn record(file: &LogFile, bytes: &[u8]) -> Option<Record> {
    let head = bytes.get(file.end..file.end + HEADER)?;
    let crc = u32_at(head, 60);
    let sealed = crc == crc32c::crc32c_append(file.seed, &head[..60]);
    if !sealed || u64_at(head, 16) != file.number || u32_at(head, 56) != file.chain() {
        return None;
    }
    let (at, length) = (file.end, u32_at(head, 0) as usize);
    let payload = bytes.get(at + HEADER..at + HEADER + length)?;
    let payload_crc = u32_at(head, 12);
    if crc32c::crc32c(payload) != payload_crc {
        return None;
    }
    Some(Record {
        at,
        crc,
        length,
        kind: head[4],
        batch: u64_at(head, 24),
        index: u64_at(head, 32),
        term: u64_at(head, 40),
        content: (head[5], u64_at(head, 48), payload_crc),
    })
}
