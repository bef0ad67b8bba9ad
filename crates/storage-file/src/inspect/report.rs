//! What a data directory holds, put together.

use std::collections::BTreeMap;
use std::fmt;

use atomix_protocol::{Configuration, EntryId, GroupId, HardState, Identity, Index, ServerId};
use atomix_storage::StorageError;

use super::checks;
use super::records::{self, Holds};
use crate::format::Decoded;
use crate::manifest::Copy;
use crate::recovery::{Finding, Segment, Survey, Verdict};
use crate::{Disk, names, snapshot};

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What a server does that starts with it.
    pub verdict: Verdict,
    /// Name of the row of the decision table that says so (docs/storage.md).
    pub row: &'static str,
    /// What made it that row, in plain words.
    pub reason: String,
    /// What a server does that starts with it, in plain words.
    pub next_start: String,
    /// The group that all files are of: none of another can be read.
    pub group: GroupId,
    /// `None` if it was never begun, or is lost.
    pub identity: Option<Identity>,
    /// The id of the server that this directory is of, if it is a member by the configuration.
    pub server: Option<ServerId>,
    /// Term and vote.
    pub hard_state: HardState,
    /// The newest one that was written beside the log.
    pub configuration: Option<Configuration>,
    /// Until which index the server abstains (D4), as it is written.
    pub abstention: Option<Index>,
    /// Until which index it will abstain once it is started.
    pub abstains_until: Option<Index>,
    /// `manifest-0` and `manifest-1`.
    pub manifests: [ManifestCopy; 2],
    /// The entry right before the first that is served from the log. All before are in a snapshot.
    pub log_base: EntryId,
    /// The last entry that is served from the log; [`Report::log_base`] if there is none.
    pub log_last: EntryId,
    /// How far the log is known to have been synced.
    pub mark: Option<Mark>,
    /// All segments' files, by number; then the spare one and the reserve.
    pub segments: Vec<SegmentFile>,
    /// All published snapshots, older ones first.
    pub snapshots: Vec<SnapshotFile>,
    /// Where a batch begins that a crash broke off. It is cut off at the next start, and that is no damage.
    pub torn: Option<Place>,
    /// What is wrong. Empty if nothing is.
    pub findings: Vec<Finding>,
    /// What is not wrong, and worth to be known.
    pub notes: Vec<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Its name.
    pub file: String,
    /// Where in it.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.file, self.offset)
    }
}

/// A copy of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestCopy {
    /// There is no such file.
    Missing,
    /// Its checksums fail.
    Damaged,
    /// Of another version of the format, or of another group.
    Foreign,
    /// Whole, and of this generation: one more with each change.
    Whole(u64),
}

impl fmt::Display for ManifestCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ManifestCopy::Missing => "missing",
            ManifestCopy::Damaged => "damaged",
            ManifestCopy::Foreign => "foreign",
            ManifestCopy::Whole(_) => "whole",
        })
    }
}

/// How far the log is known to have been synced (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mark {
    /// The segment.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// The batch that ends there.
    pub batch: u64,
    /// The log's last entry then.
    pub last: EntryId,
}

/// A segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentFile {
    /// Its name.
    pub file: String,
    /// Its number; `None` of the spare one and the reserve.
    pub number: Option<u64>,
    /// Its length.
    pub bytes: u64,
    /// Where the last record in it ends.
    pub end: u64,
    /// What part it has.
    pub part: Part,
    /// Number of the segment that it follows, and where it leaves it. `None` if the log begins with it, or its header is not whole.
    pub follows: Option<(u64, u64)>,
    /// The first and the last batch in it.
    pub batches: Option<(u64, u64)>,
    /// The first and the last entry in it, in the order in which they lie there.
    pub entries: Option<(EntryId, EntryId)>,
}

/// What part a segment's file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// It is part of the log.
    Log,
    /// It was part of the log, and damage lies before what it holds.
    BehindDamage,
    /// It was given up: it was damaged, or nothing whole leads to it, or a snapshot covers it and it was damaged.
    GivenUp,
    /// It has lost its header.
    Headless,
    /// It was made for batches to come. What a crash broke off may be in it.
    Prepared,
    /// Of another version of the format, or of another group.
    Foreign,
    /// The log needs it no more; it will be used again.
    Spare,
    /// Set aside for a full disk (D5).
    Reserve,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Log => "log",
            Part::BehindDamage => "behind damage",
            Part::GivenUp => "given up",
            Part::Headless => "headless",
            Part::Prepared => "prepared",
            Part::Foreign => "foreign",
            Part::Spare => "spare",
            Part::Reserve => "reserve",
        })
    }
}

/// A published snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// Its name.
    pub file: String,
    /// The last entry that is in it.
    pub last: EntryId,
    /// Length of the file.
    pub bytes: u64,
    /// Whether it is what it says.
    pub state: SnapshotState,
}

/// Whether a snapshot is what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotState {
    /// Its checksums hold.
    Whole,
    /// They do not.
    Damaged,
    /// Of another version of the format, or of another group.
    Foreign,
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SnapshotState::Whole => "whole",
            SnapshotState::Damaged => "damaged",
            SnapshotState::Foreign => "foreign",
        })
    }
}

impl Report {
    pub(super) fn new(
        disk: &mut dyn Disk,
        survey: &Survey,
        holds: &BTreeMap<u64, Holds>,
    ) -> Result<Report, StorageError> {
        let manifest = survey.manifest();
        let catalog = records::served(survey);
        let snapshots = snapshots(disk, survey)?;
        let segments = segments(survey, holds);
        let mut findings = survey.findings.clone();
        findings.extend(checks::snapshots(survey, &snapshots));
        findings.extend(checks::mark(disk, survey)?);
        findings.extend(checks::abstention(survey));
        let mark = survey.mark.map(|mark| Mark {
            segment: mark.segment,
            offset: mark.offset,
            batch: mark.batch,
            last: mark.last,
        });
        let member =
            manifest.identity.zip(manifest.configuration.as_ref()).and_then(|(own, configuration)| {
                configuration.member_by_incarnation(own.incarnation).map(|member| member.id)
            });
        Ok(Report {
            verdict: survey.verdict,
            row: survey.row,
            reason: checks::reason(survey),
            next_start: checks::next_start(survey),
            group: GroupId::DEFAULT,
            identity: manifest.identity,
            server: member,
            hard_state: manifest.hard_state,
            configuration: manifest.configuration,
            abstention: manifest.abstention,
            abstains_until: survey.abstention(),
            manifests: survey.copies.0.each_ref().map(copy),
            log_base: catalog.base(),
            log_last: catalog.last(),
            mark,
            notes: checks::notes(survey, &segments),
            segments,
            snapshots,
            torn: checks::torn(survey),
            findings,
        })
    }
}

fn copy(copy: &Copy) -> ManifestCopy {
    match copy {
        Copy::Missing => ManifestCopy::Missing,
        Copy::Damaged => ManifestCopy::Damaged,
        Copy::Foreign => ManifestCopy::Foreign,
        Copy::Whole(generation, _) => ManifestCopy::Whole(*generation),
    }
}

fn snapshots(disk: &mut dyn Disk, survey: &Survey) -> Result<Vec<SnapshotFile>, StorageError> {
    let mut snapshots = Vec::new();
    for (last, bytes) in survey.listing.snapshots.iter().copied() {
        let state = match snapshot::verify(disk, last, bytes)? {
            Decoded::Valid(_) => SnapshotState::Whole,
            Decoded::Invalid => SnapshotState::Damaged,
            Decoded::Foreign => SnapshotState::Foreign,
        };
        snapshots.push(SnapshotFile { file: names::snapshot(last), last, bytes, state });
    }
    Ok(snapshots)
}

fn segments(survey: &Survey, holds: &BTreeMap<u64, Holds>) -> Vec<SegmentFile> {
    let headless: Vec<u64> = survey.headless().collect();
    let log = survey.segments.iter().map(|segment| {
        let holds = holds.get(&segment.number).copied().unwrap_or_default();
        let follows = segment.header().filter(|header| header.follows > 0);
        SegmentFile {
            file: names::segment(segment.number),
            number: Some(segment.number),
            bytes: segment.length,
            end: holds.end,
            part: part(survey, &headless, segment),
            follows: follows.map(|header| (header.follows, header.at)),
            batches: holds.batches,
            entries: holds.entries,
        }
    });
    let beside = [
        (names::SPARE, survey.listing.spare, Part::Spare),
        (names::RESERVE, survey.listing.reserve, Part::Reserve),
    ];
    let beside = beside.into_iter().filter_map(|(name, bytes, part)| {
        let (file, bytes) = (name.to_owned(), bytes?);
        let (number, end, follows, batches, entries) = (None, 0, None, None, None);
        Some(SegmentFile { file, number, bytes, end, part, follows, batches, entries })
    });
    log.chain(beside).collect()
}

fn part(survey: &Survey, headless: &[u64], segment: &Segment) -> Part {
    let place = survey.line.iter().position(|held| held.number == segment.number);
    match (&segment.head, place) {
        (Decoded::Foreign, _) => Part::Foreign,
        (Decoded::Invalid, _) if headless.contains(&segment.number) => Part::Headless,
        (Decoded::Invalid, _) => Part::Prepared,
        (Decoded::Valid(_), Some(place)) if place >= survey.scanned.reached => Part::BehindDamage,
        (Decoded::Valid(_), Some(_)) if !survey.is_anew() => Part::Log,
        (Decoded::Valid(_), _) => Part::GivenUp,
    }
}
