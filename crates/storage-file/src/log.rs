//! The log's writing side: appends batches, rolls to the next segment, deletes old ones (D2).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::{EntryId, GroupId, Identity, Index, WriteBatch};
use atomix_storage::StorageError;
use parking_lot::Mutex;

use crate::batch::{Encoded, Place, batch_bytes, entry_bytes};
use crate::catalog::Catalog;
use crate::format::{HEADER, MARK_BYTES, Mark, SegmentHeader};
use crate::recovery::{Survey, Tail};
use crate::stock::Stock;
use crate::{Disk, FileOptions, names};

/// Zeros are written over a torn batch in pieces of this length.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The log's writing side.
pub(crate) struct Log {
    stock: Stock,
    catalog: Arc<Mutex<Catalog>>,
    /// `None` if the next batch begins the log, or begins it anew.
    tail: Option<Tail>,
    /// What the next segment is numbered, and the next batch if it begins the log.
    next: (u64, u64),
    /// Numbers and lengths of the segments that make up the log, ascending.
    segments: VecDeque<(u64, u64)>,
    /// Those that were damaged, and are kept until what they held is back (D4).
    given_up: Vec<(u64, u64)>,
    /// A truncation for which there was no room: it goes with the next entries.
    owed: Option<EntryId>,
    /// Whether the mark file exists.
    marked: bool,
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

/// What keys the first segment of a log, or of one that begins anew: not a constant, so that no client knows it.
pub(crate) fn first_seed(identity: Option<Identity>, segment: u64) -> u32 {
    let identity = identity.map_or([0; 16], |identity| identity.incarnation.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&identity), &segment.to_le_bytes())
}

impl Log {
    /// Goes on where the log ends, after what a torn batch left was removed.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn resume(
        disk: &mut dyn Disk,
        options: &FileOptions,
        survey: &Survey,
    ) -> Result<Log, StorageError> {
        let stock = Stock::resume(disk, options, &survey.listing)?;
        let (damaged, anew) = (survey.is_log_damaged(), survey.is_anew());
        let catalog =
            if anew { Catalog::after(survey.usable_snapshot()) } else { survey.scanned.catalog.clone() };
        let mut tail = survey.scanned.tail.filter(|_| !anew);
        if let Some(tail) = tail.as_mut().filter(|_| damaged) {
            // Nothing goes into a damaged segment any more, nor under a number that anything behind the damage may have had.
            (tail.length, tail.next_batch) = (tail.offset, survey.ending.batches + 1);
        }
        let reached = if anew { 0 } else { survey.scanned.reached };
        let segments: VecDeque<(u64, u64)> =
            survey.line[..reached].iter().map(|segment| (segment.number, segment.length)).collect();
        let dead = |number: &u64| !damaged && survey.ending.headless.contains(number);
        let others = survey.segments.iter().map(|segment| (segment.number, segment.length));
        let others = others.filter(|(number, _)| !segments.iter().any(|(held, _)| held == number));
        let (dead, given_up): (Vec<_>, Vec<_>) = others.partition(|(number, _)| dead(number));
        let last = given_up.iter().chain(&segments).map(|(number, _)| *number).max().unwrap_or(0);
        let mut log = Log {
            stock,
            catalog: Arc::new(Mutex::new(catalog)),
            tail,
            next: (last.max(survey.manifest().segment) + 1, survey.ending.batches + 1),
            segments,
            given_up,
            owed: None,
            marked: survey.listing.mark.is_some(),
            scratch: Vec::new(),
        };
        for (number, length) in dead {
            // The next segment may get this number again. Were it this file too, a torn batch could be completed by what is left of another.
            if survey.ending.left_in.contains(&number) {
                log.stock.discard(disk, number)?;
            } else {
                log.stock.retire(disk, number, length)?;
            }
        }
        if !damaged {
            log.repair(disk, survey)?;
        }
        if log.tail.is_none() {
            log.stock.prepare(disk, log.next.0);
        }
        Ok(log)
    }

    /// Makes the files what recovery took them for. May be broken off anywhere: the next recovery decides the same again.
    fn repair(&mut self, disk: &mut dyn Disk, survey: &Survey) -> Result<(), StorageError> {
        let Some(mut tail) = self.tail else { return Ok(()) };
        let name = names::segment(tail.segment);
        let last = survey.scanned.last.clone();
        let marked = survey.mark.is_some_and(|mark| mark.batch + 1 == tail.next_batch);
        // A header without a batch behind it is in no mark.
        let unsure = !marked || last.end == HEADER as u64;
        if unsure {
            // A sync that failed may have left these bytes in the system's cache only, and marked as if they were on the disk: a sync
            // alone would not write them. Writing the same bytes again can't tear anything.
            let mut bytes = vec![0; usize::try_from(last.end - last.start).unwrap_or(usize::MAX)];
            disk.read_at(&name, last.start, &mut bytes).map_err(failed("read", &name))?;
            disk.write_at(&name, last.start, &[&bytes]).map_err(failed("write", &name))?;
        }
        if Mutant::B07.active() {
            tail.offset = tail.offset.max(survey.ending.remains);
            self.tail = Some(tail);
            return Ok(());
        }
        // The next batch has the torn one's number and goes over what it left, and may be shorter. What stays behind it would not be
        // taken for valid, since its chain leads elsewhere; that no record lies behind the end makes it certain twice.
        let mut at = tail.offset;
        let remains = survey.ending.remains;
        while at < remains {
            let piece = usize::try_from(remains - at).unwrap_or(usize::MAX).min(ZEROS.len());
            disk.write_at(&name, at, &[&ZEROS[..piece]]).map_err(failed("write", &name))?;
            at += piece as u64;
        }
        if unsure || remains > tail.offset {
            disk.sync(&name).map_err(failed("sync", &name))?;
            let last = self.catalog.lock().last();
            match self.ensure_mark(disk) {
                // What it says is not needed.
                Err(StorageError::Full(_)) => return Ok(()),
                result => result?,
            }
            self.mark(disk, last)?;
        }
        Ok(())
    }

    /// Takes the log for truncated, though there was no room to say so.
    pub(crate) fn owe(&mut self, id: EntryId) {
        self.catalog.lock().truncate_after(id);
        self.owed = Some(id);
    }

    /// A batch, with the truncation that is owed, if entries are to follow it.
    pub(crate) fn with_owed<'a>(&self, batch: &'a WriteBatch) -> Cow<'a, WriteBatch> {
        match self.owed {
            Some(id) if batch.truncate_after.is_none() && !batch.entries.is_empty() => {
                Cow::Owned(WriteBatch { truncate_after: Some(id), ..batch.clone() })
            }
            _ => Cow::Borrowed(batch),
        }
    }

    pub(crate) fn catalog(&self) -> &Arc<Mutex<Catalog>> {
        &self.catalog
    }

    /// The newest segment, and the log's last entry when it began; zeros if there is none.
    pub(crate) fn newest_segment(&self) -> (u64, Index) {
        let Some(tail) = self.tail else { return (0, Index::ZERO) };
        (tail.segment, self.catalog.lock().last_until(tail.segment - 1).index)
    }

    /// The number of the oldest segment; zero if there is none.
    pub(crate) fn oldest_segment(&self) -> u64 {
        self.segments.front().map_or(0, |(oldest, _)| *oldest)
    }

    /// What the next segment will be numbered.
    pub(crate) fn next_segment(&self) -> u64 {
        self.next.0
    }

    /// See [`Stock::fill_reserve`].
    pub(crate) fn fill_reserve(&mut self, disk: &mut dyn Disk) -> Result<bool, StorageError> {
        self.stock.fill_reserve(disk)
    }

    /// What was damaged is back: its files go.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn drop_given_up(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        if self.given_up.is_empty() {
            return Ok(());
        }
        for (segment, length) in std::mem::take(&mut self.given_up) {
            self.stock.retire(disk, segment, length)?;
        }
        disk.sync_dir().map_err(failed("sync", "the data directory"))
    }

    /// Appends a batch: one write, one sync, and the mark.
    ///
    /// # Errors
    /// [`StorageError::Full`] if there is no room for a new segment: nothing was written. Else it is not known what was.
    ///
    /// # Panics
    /// If the batch does not continue the log: consensus and storage disagree about what is durable.
    pub(crate) fn write(
        &mut self,
        disk: &mut dyn Disk,
        identity: Option<Identity>,
        batch: &WriteBatch,
    ) -> Result<(), StorageError> {
        let last = self.check(batch);
        let bytes = batch_bytes(batch);
        self.ensure_mark(disk)?;
        let (tail, front) = match self.tail {
            Some(tail) if tail.offset + bytes <= tail.length => (tail, None),
            _ => self.roll(disk, identity, bytes)?,
        };
        let place = Place { segment: tail.segment, seed: tail.seed, batch: tail.next_batch };
        let front_bytes = front.as_ref().map_or(&[][..], |header| &header[..]);
        let scratch = std::mem::take(&mut self.scratch);
        let encoded = Encoded::new(place, tail.chain, front_bytes, batch, last, scratch);
        let name = names::segment(tail.segment);
        let at = tail.offset - front_bytes.len() as u64;
        disk.write_at(&name, at, &encoded.parts()).map_err(failed("write", &name))?;
        if let Err(error) = disk.sync(&name) {
            let again = if Mutant::B10.active() { disk.sync(&name) } else { Err(error) };
            again.map_err(failed("sync", &name))?;
        }
        if front.is_some() {
            self.segments.push_back((tail.segment, tail.length));
        }
        let first_entry = tail.offset + encoded.entries_at;
        self.tail = Some(Tail {
            offset: tail.offset + encoded.length(),
            chain: encoded.chain(),
            next_batch: tail.next_batch + 1,
            ..tail
        });
        self.scratch = encoded.into_scratch();
        self.owed = self.owed.filter(|_| batch.truncate_after.is_none());
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
        identity: Option<Identity>,
        bytes: u64,
    ) -> Result<(Tail, Option<[u8; HEADER]>), StorageError> {
        let (segment, first_batch) = self.next;
        let header = SegmentHeader {
            segment,
            follows: self.tail.map_or(0, |tail| tail.segment),
            at: self.tail.map_or(0, |tail| tail.offset),
            first_batch: self.tail.map_or(first_batch, |tail| tail.next_batch),
            base: self.catalog.lock().last(),
            seed: self.tail.map_or_else(|| first_seed(identity, segment), |tail| tail.chain),
        };
        let length = self.stock.begin(disk, segment, HEADER as u64 + bytes)?;
        // Before anything is in it: a file that is used again would, should its new name be lost, hold this batch as a spare one, and
        // come back with it when the number is given again.
        if !Mutant::B06.active() {
            disk.sync_dir().map_err(failed("sync", "the data directory"))?;
        }
        self.next.0 = segment + 1;
        Ok((Tail::begin(&header, length), Some(header.encode())))
    }

    /// The batch is durable: readers may see it.
    fn accept(&mut self, batch: &WriteBatch, place: Place, first_entry: u64) {
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
            self.stock.prepare(disk, self.next.0);
        }
        Ok(())
    }

    /// Takes the oldest segments away as long as all their entries are at or before `through`. Not while damaged ones are kept: what
    /// follows what is said by the numbers between.
    ///
    /// # Errors
    /// If the device refused.
    pub(crate) fn compact(&mut self, disk: &mut dyn Disk, through: Index) -> Result<(), StorageError> {
        while self.given_up.is_empty()
            && let [(oldest, length), _, ..] = self.segments.make_contiguous()[..]
        {
            let mut catalog = self.catalog.lock();
            if catalog.last_until(oldest).index > through {
                break;
            }
            catalog.drop_until(oldest);
            drop(catalog);
            self.stock.retire(disk, oldest, length)?;
            // One by one: of several removals, a crash could undo any, and leave a hole in the row of segments.
            disk.sync_dir().map_err(failed("sync", "the data directory"))?;
            self.segments.pop_front();
        }
        Ok(())
    }
}
