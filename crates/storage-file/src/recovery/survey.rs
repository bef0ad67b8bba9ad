//! Asks everything, reading only.

use atomix_protocol::{Entry, EntryId, Index};
use atomix_storage::StorageError;

use super::ending::{Ending, ending};
use super::fit::fit;
use super::line::{Segment, heads, line};
use super::scan::{Scanned, Wanted, scan};
use super::verdict::{Facts, Fit, Format, Manifested, Verdict};
use crate::Disk;
use crate::format::{Decoded, MARK_BYTES, Mark, SegmentHeader};
use crate::log::{failed, first_seed};
use crate::manifest::{Copies, Copy, Manifest};
use crate::names::{self, Listing};
use crate::snapshot::Snapshots;
use crate::window::Read;

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
    pub(crate) verdict: Verdict,
    /// What is damaged, and where, in plain words.
    pub(crate) damage: Vec<String>,
}

impl Survey {
    /// Reads a directory. Hands out entries that follow the snapshot; those in [`Scanned::kept`] come behind them, if the log joins it.
    ///
    /// # Errors
    /// If the device refused, or files are named as if they were ours and are not.
    pub(crate) fn of(disk: &mut dyn Disk, entry: &mut dyn FnMut(Entry)) -> Result<Survey, StorageError> {
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
        let mut damage = described(&copies, &listing, &snapshots);
        damage.extend(beheaded(&segments, &line, &manifest));
        let newest = newest_of(&snapshots, &manifest);
        let format = format_of(&copies, &segments, &snapshots);
        // What can't be known before everything was read is kept until then.
        let certain = usable == newest && format == Format::Ours && copies.newest().is_some();
        let lasting = manifest.truncated.map_or(Index(u64::MAX), |(_, lowest)| lowest);
        let lasting = if certain { lasting } else { Index::ZERO };
        let mut wanted = Wanted { start: usable.unwrap_or_default(), lasting, entry };
        let scanned = scan_needed(&mut line, &mut wanted, &mut damage, &mut read)?;
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
        let (_, verdict) = facts.decide();
        if verdict == Verdict::Abstain && !ending.words.is_empty() {
            damage.push(ending.words.clone());
        }
        if verdict == Verdict::Abstain && facts.fit == Fit::Gap {
            let (base, last) = (scanned.catalog.base(), scanned.catalog.last());
            let start = usable.unwrap_or(EntryId::ZERO);
            damage.push(format!(
                "the log holds what follows {base}, through {last}: nothing whole leads from {start} to it"
            ));
        }
        if verdict == Verdict::Abstain && facts.fit == Fit::Short {
            let (last, newest) = (scanned.catalog.last(), newest.unwrap_or_default());
            damage.push(format!(
                "the log ends with {last}: a snapshot reached {newest}, and is damaged or lost"
            ));
        }
        Ok(Survey {
            listing,
            copies,
            mark,
            segments,
            line,
            scanned,
            ending,
            snapshots,
            facts,
            verdict,
            damage,
        })
    }

    /// What the manifest says; the beginning of everything if there is none.
    pub(crate) fn manifest(&self) -> Manifest {
        self.copies.newest().map(|(_, manifest)| manifest.clone()).unwrap_or_default()
    }

    /// The newest snapshot of which anything says that there was one.
    pub(crate) fn newest_snapshot(&self) -> Option<EntryId> {
        newest_of(&self.snapshots, &self.manifest())
    }

    /// Why the directory can't be used, if it can't.
    pub(crate) fn refusal(&self) -> Option<StorageError> {
        match self.verdict {
            Verdict::Foreign => Some(StorageError::Foreign(foreign(self))),
            Verdict::Lost => Some(StorageError::Corrupt(
                "identity, term and vote are lost (neither manifest-0 nor manifest-1 is whole): this directory has no vote any more; \
                 start with an empty one, as a new member of the cluster"
                    .into(),
            )),
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
    let segment = survey.segments.iter().find(|segment| segment.head == Decoded::Foreign);
    let segment = segment.map(|segment| names::segment(segment.number));
    let manifest = survey.copies.0.iter().position(|copy| *copy == Copy::Foreign);
    let manifest = manifest.map(|copy| names::MANIFESTS[copy].to_owned());
    let snapshot = survey.snapshots.foreign().map(names::snapshot);
    let name = manifest.or(segment).or(snapshot).unwrap_or_default();
    format!("{name} was written by another version, or for another group")
}

/// Reads the log from where it is whole up to the snapshot that is `wanted`: what lies before that is not needed, and dropped from the
/// line.
fn scan_needed(
    line: &mut Vec<Segment>,
    wanted: &mut Wanted<'_>,
    damage: &mut Vec<String>,
    read: &mut Read<'_>,
) -> Result<Scanned, StorageError> {
    loop {
        let scanned = scan(line, wanted, read)?;
        // Behind the damage, the log may go on from something that the snapshot covers.
        let start = wanted.start;
        let covers = |header: &SegmentHeader| start.index > Index::ZERO && header.base.index <= start.index;
        if !line.get(scanned.reached).and_then(Segment::header).is_some_and(covers) {
            return Ok(scanned);
        }
        let (segment, at) = scanned.tail.map_or((0, 0), |tail| (tail.segment, tail.offset));
        damage.push(format!("log segment {segment} at {at} is damaged; a snapshot covers it"));
        line.drain(..scanned.reached);
    }
}

/// The segments that have lost their heads. One that was made for what will come never had any, and has a greater number.
fn beheaded<'a>(
    segments: &'a [Segment],
    line: &[Segment],
    manifest: &Manifest,
) -> impl Iterator<Item = String> + use<'a> {
    let begun = line.last().map_or(0, |segment| segment.number).max(manifest.segment);
    let beheaded =
        segments.iter().filter(move |segment| segment.header().is_none() && segment.number <= begun);
    beheaded.map(|segment| format!("{} has lost its head", names::segment(segment.number)))
}

/// What is damaged apart from the log.
fn described(copies: &Copies, listing: &Listing, snapshots: &Snapshots) -> Vec<String> {
    let mut damage = Vec::new();
    for (copy, name) in copies.0.iter().zip(names::MANIFESTS) {
        match copy {
            Copy::Damaged if copies.newest().is_some() => {
                damage.push(format!("{name} does not verify; the other copy is whole"));
            }
            Copy::Missing if copies.newest().is_some() => {
                damage.push(format!("{name} is missing; the other copy is whole"));
            }
            _ => {}
        }
    }
    let named = copies.newest().and_then(|(_, manifest)| manifest.snapshot);
    let lost = named.filter(|named| !listing.snapshots.iter().any(|(last, _)| last == named));
    damage.extend(lost.map(|last| format!("{} is missing", names::snapshot(last))));
    damage
        .extend(snapshots.damaged().iter().map(|last| format!("{} does not verify", names::snapshot(*last))));
    damage
}

fn read_mark(disk: &mut dyn Disk, listing: &Listing) -> Result<Option<Mark>, StorageError> {
    if listing.mark.is_none() {
        return Ok(None);
    }
    let mut bytes = [0; MARK_BYTES as usize];
    let read = disk.read_at(names::MARK, 0, &mut bytes).map_err(failed("read", names::MARK))?;
    Ok(Mark::newest(&bytes[..read]))
}
