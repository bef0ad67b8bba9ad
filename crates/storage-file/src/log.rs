//! The log's writing side: appends batches, rolls to the next segment, deletes old ones (D2).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use atomix_protocol::{EntryId, GroupId, Index, WriteBatch};
use atomix_storage::{Recovered, StorageError};
use parking_lot::Mutex;

use crate::batch::{Encoded, Place, Preface, entry_bytes};
use crate::catalog::Catalog;
use crate::format::{HEADER, MARK_BYTES, Mark, SegmentHeader};
use crate::names;
use crate::recovery::{Repair, Scanned, Tail};
use crate::{Disk, FileOptions};

/// Zeros are written over a torn batch in pieces of this length.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The log's writing side.
pub(crate) struct Log {
    options: FileOptions,
    /// What every new segment repeats.
    known: Recovered,
    catalog: Arc<Mutex<Catalog>>,
    /// `None` before the first write ever.
    tail: Option<Tail>,
    /// The segments there are, ascending.
    segments: VecDeque<u64>,
    /// Whether the mark file exists.
    marked: bool,
    /// Whether the disk was told of the next segment.
    prepared: bool,
    scratch: Vec<u8>,
}

/// What failed, in words that say which file.
pub(crate) fn failed(what: &str, name: &str) -> impl FnOnce(io::Error) -> StorageError {
    move |error| StorageError::Failed(format!("can't {what} {name}: {error}"))
}

/// The same, where nothing was changed yet and a full disk may get room again (D5).
pub(crate) fn failed_or_full(what: &str, name: &str) -> impl FnOnce(io::Error) -> StorageError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StorageError::Full(format!("can't {what} {name}: {error}"))
        }
        _ => failed(what, name)(error),
    }
}

impl Log {
    /// Goes on where recovery found the end, after it has repaired what it said.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn resume(
        disk: &mut dyn Disk,
        options: FileOptions,
        scanned: Scanned,
        segments: impl Iterator<Item = u64>,
        marked: bool,
    ) -> Result<Log, StorageError> {
        let Scanned { recovered, catalog, tail, repair } = scanned;
        let mut log = Log {
            options,
            known: recovered,
            catalog: Arc::new(Mutex::new(catalog)),
            tail,
            segments: segments.filter(|segment| Some(*segment) != repair.dead).collect(),
            marked,
            prepared: false,
            scratch: Vec::new(),
        };
        log.repair(disk, &repair)?;
        if log.tail.is_none() {
            log.prepare(disk, 1);
        }
        Ok(log)
    }

    /// Makes the files what recovery took them for. May be broken off anywhere: the next recovery decides the same again.
    fn repair(&mut self, disk: &mut dyn Disk, repair: &Repair) -> Result<(), StorageError> {
        if let Some(dead) = repair.dead {
            let name = names::segment(dead);
            disk.remove(&name).map_err(failed("remove", &name))?;
        }
        let Some(tail) = self.tail else { return Ok(()) };
        let name = names::segment(tail.segment);
        if !repair.unsure.is_empty() {
            // A sync that failed may have left these bytes in the system's cache only, and marked as if they were on the disk: a sync
            // alone would not write them. Writing the same bytes again can't tear anything.
            let mut bytes =
                vec![0; usize::try_from(repair.unsure.end - repair.unsure.start).unwrap_or(usize::MAX)];
            disk.read_at(&name, repair.unsure.start, &mut bytes).map_err(failed("read", &name))?;
            disk.write_at(&name, repair.unsure.start, &[&bytes]).map_err(failed("write", &name))?;
        }
        // The next batch has the torn one's number and goes over what it left, and may be shorter. Stale records behind it would not be
        // taken for valid, since their chain leads elsewhere; that nothing but zeros lies behind the end makes it certain twice.
        let mut at = repair.torn.start;
        while at < repair.torn.end {
            let piece = usize::try_from(repair.torn.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            disk.write_at(&name, at, &[&ZEROS[..piece]]).map_err(failed("write", &name))?;
            at += piece as u64;
        }
        if !repair.unsure.is_empty() || !repair.torn.is_empty() {
            disk.sync(&name).map_err(failed("sync", &name))?;
            let last = self.catalog.lock().last();
            self.ensure_mark(disk)?;
            self.mark(disk, last)?;
        }
        Ok(())
    }

    pub(crate) fn catalog(&self) -> &Arc<Mutex<Catalog>> {
        &self.catalog
    }

    pub(crate) fn known(&self) -> &Recovered {
        &self.known
    }

    /// Whether nothing was ever written.
    pub(crate) fn is_fresh(&self) -> bool {
        self.tail.is_none()
    }

    /// Appends a batch: one write, one sync, and the mark.
    ///
    /// # Errors
    /// [`StorageError::Full`] if there is no room for a new segment: nothing was written. Else it is not known what was.
    ///
    /// # Panics
    /// If the batch does not continue the log: consensus and storage disagree about what is durable.
    pub(crate) fn write(&mut self, disk: &mut dyn Disk, batch: &WriteBatch) -> Result<(), StorageError> {
        let last = self.check(batch);
        let mut preface = Preface::of(batch);
        self.ensure_mark(disk)?;
        let (tail, front) = match self.tail {
            // However long the batch is: of two segments without a batch, none would repeat what older ones say.
            Some(tail) if tail.empty => {
                preface = Preface::full(batch, &self.known);
                (tail, None)
            }
            Some(tail) if tail.offset + preface.batch_bytes(&batch.entries) <= tail.length => (tail, None),
            _ => {
                preface = Preface::full(batch, &self.known);
                self.roll(disk, batch, preface.batch_bytes(&batch.entries))?
            }
        };
        let place = Place { segment: tail.segment, seed: tail.seed, batch: tail.next_batch };
        let front_bytes = front.as_ref().map_or(&[][..], |header| &header[..]);
        let scratch = std::mem::take(&mut self.scratch);
        let encoded = Encoded::new(place, tail.chain, front_bytes, &preface, &batch.entries, last, scratch);
        let name = names::segment(tail.segment);
        let at = tail.offset - front_bytes.len() as u64;
        disk.write_at(&name, at, &encoded.parts()).map_err(failed("write", &name))?;
        disk.sync(&name).map_err(failed("sync", &name))?;
        if front.is_some() {
            disk.sync_dir().map_err(failed("sync", "the data directory"))?;
            self.segments.push_back(tail.segment);
            self.prepared = false;
        }
        let first_entry = tail.offset + encoded.entries_at;
        self.tail = Some(Tail {
            offset: tail.offset + encoded.length(),
            chain: encoded.chain(),
            next_batch: tail.next_batch + 1,
            empty: false,
            ..tail
        });
        self.scratch = encoded.into_scratch();
        self.accept(batch, place, first_entry);
        self.mark(disk, last)
    }

    /// The log's last entry after the batch.
    fn check(&self, batch: &WriteBatch) -> EntryId {
        assert_eq!(batch.group, GroupId::DEFAULT, "one storage holds one group");
        let mut last = batch.truncate_after.unwrap_or_else(|| self.catalog.lock().last());
        for entry in &batch.entries {
            let continues = entry.id.index == last.index.next() && entry.id.term >= last.term;
            assert!(continues, "a batch continues the log: {:?} after {last:?}", entry.id);
            last = entry.id;
        }
        last
    }

    /// A new segment, as it will be once its header, which is returned beside, was written with its first batch.
    fn roll(
        &mut self,
        disk: &mut dyn Disk,
        batch: &WriteBatch,
        bytes: u64,
    ) -> Result<(Tail, Option<[u8; HEADER]>), StorageError> {
        let (segment, first_batch, seed) = match self.tail {
            Some(tail) => (tail.segment + 1, tail.next_batch, tail.chain),
            // Not a constant: see [`RecordHeader::encode`](crate::format::RecordHeader::encode).
            None => (
                1,
                1,
                batch.identity.map_or(0, |identity| crc32c::crc32c(&identity.incarnation.0.to_le_bytes())),
            ),
        };
        let length = self.options.segment_bytes.max(HEADER as u64 + bytes);
        let name = names::segment(segment);
        disk.allocate(&name, length).map_err(failed_or_full("create", &name))?;
        let header = SegmentHeader { segment, first_batch, base: self.catalog.lock().last(), seed };
        let tail = Tail {
            segment,
            seed,
            length,
            offset: HEADER as u64,
            chain: seed,
            next_batch: first_batch,
            empty: true,
        };
        Ok((tail, Some(header.encode())))
    }

    /// The batch is durable: readers may see it.
    fn accept(&mut self, batch: &WriteBatch, place: Place, first_entry: u64) {
        self.known.identity = batch.identity.or(self.known.identity);
        if let Some(configuration) = &batch.configuration {
            self.known.configuration = Some(configuration.clone());
        }
        self.known.abstention = batch.abstention.unwrap_or(self.known.abstention);
        self.known.hard_state = batch.hard_state.unwrap_or(self.known.hard_state);
        let mut catalog = self.catalog.lock();
        if let Some(id) = batch.truncate_after {
            catalog.truncate_after(id);
        }
        let mut at = first_entry;
        for entry in &batch.entries {
            catalog.append(place.segment, place.seed, at, entry.id);
            at += entry_bytes(entry);
        }
    }

    fn ensure_mark(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        if !self.marked {
            disk.allocate(names::MARK, MARK_BYTES).map_err(failed_or_full("create", names::MARK))?;
            self.marked = true;
        }
        Ok(())
    }

    /// Notes how far the log was synced, and has the next segment made in time.
    fn mark(&mut self, disk: &mut dyn Disk, last: EntryId) -> Result<(), StorageError> {
        let Some(tail) = self.tail else { return Ok(()) };
        let mark = Mark { segment: tail.segment, offset: tail.offset, batch: tail.next_batch - 1, last };
        disk.write_at(names::MARK, mark.slot(), &[&mark.encode()]).map_err(failed("write", names::MARK))?;
        // Not right after the roll: a short-lived server would write a segment of zeros for nothing.
        if tail.offset > tail.length / 2 {
            self.prepare(disk, tail.segment + 1);
        }
        Ok(())
    }

    fn prepare(&mut self, disk: &mut dyn Disk, segment: u64) {
        if !self.prepared {
            self.prepared = true;
            disk.prepare(&names::segment(segment), self.options.segment_bytes);
        }
    }

    /// Deletes the oldest segments as long as all their entries are at or before `through`.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn compact(&mut self, disk: &mut dyn Disk, through: Index) -> Result<(), StorageError> {
        // A segment repeats what the older ones say with its first batch, not with its header.
        let Some(keep) = self.tail.map(|tail| tail.segment - u64::from(tail.empty)) else { return Ok(()) };
        while let Some(oldest) = self.segments.front().copied().filter(|oldest| *oldest < keep) {
            let mut catalog = self.catalog.lock();
            if catalog.last_until(oldest).index > through {
                break;
            }
            catalog.drop_until(oldest);
            drop(catalog);
            let name = names::segment(oldest);
            disk.remove(&name).map_err(failed("remove", &name))?;
            // One by one: of several removals, a crash could undo any, and leave a hole in the row of segments.
            disk.sync_dir().map_err(failed("sync", "the data directory"))?;
            self.segments.pop_front();
        }
        Ok(())
    }
}
