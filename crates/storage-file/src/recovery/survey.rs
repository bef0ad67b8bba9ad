//! Asks everything, reading only.

use atomix_protocol::{Entry, EntryId, Index, Term};
use atomix_storage::StorageError;

use super::ending::{Ending, ending};
use super::finding::{self, Finding};
use super::fit::fit;
use super::line::{Segment, heads, line};
use super::scan::{Scanned, Wanted, scan};
use super::verdict::{Facts, Fit, Format, Manifested, Verdict};
use crate::Disk;
use crate::format::{Decoded, MARK_BYTES, Mark, SegmentHeader};
use crate::log::{failed, first_seed};
use crate::manifest::{Copies, Manifest};
use crate::names::{self, Listing};
use crate::snapshot::Snapshots;
use crate::window::Read;

/// Behind every entry.
const BEYOND: EntryId = EntryId::new(Term(u64::MAX - 1), Index(u64::MAX - 1));

/// What a directory holds.
pub(crate) struct Survey {
    pub(crate) listing: Listing,
    pub(crate) copies: Copies,
    pub(crate) mark: Option<Mark>,
    pub(crate) segments: Vec<Segment>,
    /// The segments that make up the log, without those that only older snapshots need and that are damaged.
    pub(crate) line: Vec<Segment>,
    pub(crate) scanned: Scanned,
    pub(crate) ending: Ending,
    pub(crate) snapshots: Snapshots,
    pub(crate) facts: Facts,
    /// Name of the row that matches them.
    pub(crate) row: &'static str,
    pub(crate) verdict: Verdict,
    /// What the manifest says that no truncation takes back: all up to this index.
    pub(crate) lasting: Index,
    /// What is damaged, where, and what follows from it.
    pub(crate) findings: Vec<Finding>,
    /// How many of them decide nothing; behind those come the others.
    pub(crate) undeciding: usize,
}

impl Survey {
    /// Reads a directory. Hands out entries that follow the snapshot; those in [`Scanned::kept`] come behind them, if the log joins it.
    ///
    /// # Errors
    /// If the device refused, or files are named as if they were ours and are not.
    pub(crate) fn of(disk: &mut dyn Disk, entry: &mut dyn FnMut(Entry)) -> Result<Survey, StorageError> {
        Survey::read(disk, Some(entry))
    }

    /// The same without the entries, in memory that does not grow with the log. What it finds is the same as long as no truncation in the
    /// log takes back what is [`Survey::lasting`].
    ///
    /// # Errors
    /// As of [`Survey::of`].
    pub(crate) fn without_entries(disk: &mut dyn Disk) -> Result<Survey, StorageError> {
        Survey::read(disk, None)
    }

    fn read(disk: &mut dyn Disk, entry: Option<&mut dyn FnMut(Entry)>) -> Result<Survey, StorageError> {
        let listing = Listing::of(disk.list().map_err(failed("list", "the data directory"))?)?;
        let copies = Copies::read(disk, &listing)?;
        let manifest = copies.newest().map(|(_, manifest)| manifest.clone()).unwrap_or_default();
        let mark = read_mark(disk, &listing)?;
        let snapshots = Snapshots::recover(disk, &listing.snapshots)?;
        let usable = snapshots.newest().map(|meta| meta.last);
        let mut read = |segment, offset, buffer: &mut [u8]| {
            let name = names::segment(segment);
            disk.read_at(&name, offset, buffer).map_err(failed("read", &name))
        };
        let segments = heads(&listing.segments, &mut read)?;
        let mut line: Vec<Segment> = line(&segments).into_iter().map(|at| segments[at]).collect();
        let mut findings = finding::of_files(&copies, &listing, &snapshots);
        findings.extend(finding::of_headless(&segments, &line, &manifest));
        let newest = newest_of(&snapshots, &manifest);
        let format = format_of(&copies, &segments, &snapshots);
        // What can't be known before everything was read is kept until then.
        let certain = usable == newest && format == Format::Ours && copies.newest().is_some();
        let lasting = manifest.truncated.map_or(Index(u64::MAX), |(_, lowest)| lowest);
        let lasting = if certain { lasting } else { Index::ZERO };
        let (mut none, start) = (|_| (), usable.unwrap_or_default());
        let mut wanted = match entry {
            Some(entry) => Wanted { start, lasting, entry },
            // Behind everything: nothing is to be handed out, nor kept until it may be.
            None => Wanted { start: BEYOND, lasting, entry: &mut none },
        };
        let scanned = scan_needed(&mut line, start, &mut wanted, &mut findings, &mut read)?;
        let first_seed = |segment| first_seed(manifest.identity, segment);
        let ending = ending(&segments, &line, &scanned, mark, &manifest, &first_seed, &mut read)?;
        let facts = Facts {
            format,
            manifest: match (copies.newest(), copies.is_unborn()) {
                (Some(_), _) => Manifested::Whole,
                (None, true) => Manifested::Unborn,
                (None, false) => Manifested::Lost,
            },
            // A segment without a head may have been prepared for a log that was never begun.
            files: segments.iter().any(|segment| segment.header().is_some())
                || !listing.snapshots.is_empty()
                || mark.is_some(),
            known: ending.known,
            behind: ending.behind,
            fit: fit(&scanned.catalog, usable, newest),
        };
        let (row, verdict) = facts.decide();
        let mut survey = Survey {
            listing,
            copies,
            mark,
            segments,
            line,
            scanned,
            ending,
            snapshots,
            facts,
            row,
            verdict,
            lasting,
            undeciding: findings.len(),
            findings,
        };
        survey.findings.extend(finding::of_log(&survey));
        Ok(survey)
    }

    /// What the manifest says; the beginning of everything if there is none.
    pub(crate) fn manifest(&self) -> Manifest {
        self.copies.newest().map(|(_, manifest)| manifest.clone()).unwrap_or_default()
    }

    /// The newest snapshot of which anything says that there was one.
    pub(crate) fn newest_snapshot(&self) -> Option<EntryId> {
        newest_of(&self.snapshots, &self.manifest())
    }

    /// The newest snapshot that verifies.
    pub(crate) fn usable_snapshot(&self) -> EntryId {
        self.snapshots.newest().map_or(EntryId::ZERO, |meta| meta.last)
    }

    /// Whether nothing goes into the segment where the log ends any more, nor under a number that anything behind that may have had.
    pub(crate) fn is_log_damaged(&self) -> bool {
        self.verdict == Verdict::Abstain && self.facts.is_log_damaged()
    }

    /// Whether the log begins anew behind the snapshot, since nothing whole leads to what it holds.
    pub(crate) fn is_anew(&self) -> bool {
        self.is_log_damaged() && self.facts.fit == Fit::Gap
    }

    /// Whether the log is emptied, and goes on behind a snapshot that was installed.
    pub(crate) fn is_apart(&self) -> bool {
        self.facts.fit == Fit::Apart && self.verdict != Verdict::Fresh
    }

    /// Numbers of the segments that have lost their heads.
    pub(crate) fn headless(&self) -> impl Iterator<Item = u64> + '_ {
        finding::headless(&self.segments, &self.line, &self.manifest())
    }

    /// The index until which the server has to abstain (D4): the highest that may have been acknowledged, or what was known before.
    pub(crate) fn abstention(&self) -> Option<Index> {
        let missing = (self.verdict == Verdict::Abstain).then(|| {
            let snapshot = self.newest_snapshot().map_or(Index::ZERO, |last| last.index);
            self.ending.reach.max(self.scanned.catalog.last().index).max(snapshot)
        });
        self.manifest().abstention.into_iter().chain(missing).max()
    }

    /// What is damaged, for the status of a server that starts. How far it has come with what makes it abstain, it says itself.
    pub(crate) fn damage(&self) -> Vec<String> {
        let (harmless, log) = self.findings.split_at(self.undeciding);
        harmless.iter().map(ToString::to_string).chain(log.iter().map(Finding::found)).collect()
    }

    /// Why the directory can't be used, if it can't.
    pub(crate) fn refusal(&self) -> Option<StorageError> {
        match self.verdict {
            Verdict::Foreign => Some(StorageError::OtherVersion(foreign(self))),
            Verdict::Lost => Some(StorageError::Corrupt(finding::LOST.into())),
            Verdict::Fresh | Verdict::Serve | Verdict::Truncate | Verdict::Abstain => None,
        }
    }
}

fn newest_of(snapshots: &Snapshots, manifest: &Manifest) -> Option<EntryId> {
    snapshots.newest_file().max_by_index(manifest.snapshot)
}

trait MaxByIndex {
    fn max_by_index(self, other: Self) -> Self;
}

impl MaxByIndex for Option<EntryId> {
    fn max_by_index(self, other: Self) -> Self {
        self.into_iter().chain(other).max_by_key(|id| (id.index, id.term))
    }
}

fn format_of(copies: &Copies, segments: &[Segment], snapshots: &Snapshots) -> Format {
    let foreign = copies.is_foreign()
        || segments.iter().any(|segment| segment.head == Decoded::Foreign)
        || snapshots.foreign().is_some();
    if foreign { Format::Foreign } else { Format::Ours }
}

fn foreign(survey: &Survey) -> String {
    let name = finding::foreign_files(survey).next().unwrap_or_default();
    format!("{name} {}", finding::FOREIGN)
}

/// Reads the log from where it is whole up to the snapshot that is `wanted`: what lies before that is not needed, and dropped from the
/// line.
fn scan_needed(
    line: &mut Vec<Segment>,
    start: EntryId,
    wanted: &mut Wanted<'_>,
    findings: &mut Vec<Finding>,
    read: &mut Read<'_>,
) -> Result<Scanned, StorageError> {
    loop {
        let scanned = scan(line, wanted, read)?;
        // Behind the damage, the log may go on from something that the snapshot covers.
        let covers = |header: &SegmentHeader| start.index > Index::ZERO && header.base.index <= start.index;
        if !line.get(scanned.reached).and_then(Segment::header).is_some_and(covers) {
            return Ok(scanned);
        }
        findings.extend(scanned.tail.map(finding::of_covered));
        line.drain(..scanned.reached);
    }
}

fn read_mark(disk: &mut dyn Disk, listing: &Listing) -> Result<Option<Mark>, StorageError> {
    if listing.mark.is_none() {
        return Ok(None);
    }
    let mut bytes = [0; MARK_BYTES as usize];
    let read = disk.read_at(names::MARK, 0, &mut bytes).map_err(failed("read", names::MARK))?;
    Ok(Mark::newest(&bytes[..read]))
}
