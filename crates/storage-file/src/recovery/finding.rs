//! What is wrong, in words for operators.

use std::fmt;

use atomix_protocol::durable::REACH_UNKNOWN;

use super::line::Segment;
use super::scan::Tail;
use super::survey::Survey;
use super::verdict::{Fit, Verdict};
use crate::format::Decoded;
use crate::manifest::{Copies, Copy, Manifest};
use crate::names::{self, Listing};
use crate::snapshot::Snapshots;

/// Why a directory without identity can't be used.
pub(super) const LOST: &str = "\
    identity, term and vote are lost (neither manifest-0 nor manifest-1 is whole), and with them the right to take part";
/// What is said of a file that is whole and can't be read.
pub(crate) const FOREIGN: &str = "was written by another version, in a format that this one does not read";

/// Something wrong, where, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file, if it is one.
    pub file: Option<String>,
    /// Where in it.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What follows from it.
    pub follows: String,
}

impl Finding {
    /// About a whole file.
    pub(crate) fn of(
        file: impl Into<String>,
        what: impl Into<String>,
        follows: impl Into<String>,
    ) -> Finding {
        Finding { file: Some(file.into()), offset: None, what: what.into(), follows: follows.into() }
    }

    /// About a place in a file.
    pub(crate) fn at(self, offset: u64) -> Finding {
        Finding { offset: Some(offset), ..self }
    }

    /// What is wrong and where, without what follows.
    pub(crate) fn found(&self) -> String {
        match (&self.file, self.offset) {
            (Some(file), Some(offset)) => format!("{file} at {offset}: {}", self.what),
            (Some(file), None) => format!("{file}: {}", self.what),
            (None, _) => self.what.clone(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found(), self.follows)
    }
}

/// What is damaged apart from the log.
pub(super) fn of_files(copies: &Copies, listing: &Listing, snapshots: &Snapshots) -> Vec<Finding> {
    let mut findings = Vec::new();
    let other = "the other copy is whole, and takes its place at a start";
    for (copy, name) in copies.0.iter().zip(names::MANIFESTS).filter(|_| copies.newest().is_some()) {
        match copy {
            Copy::Damaged => findings.push(Finding::of(name, "does not verify", other)),
            Copy::Missing => findings.push(Finding::of(name, "is missing", other)),
            Copy::Foreign | Copy::Whole(..) => {}
        }
    }
    let usable = snapshots.newest().map(|meta| meta.last);
    let instead = match usable {
        Some(usable) => format!("the newest that is whole reaches {usable}"),
        None => "no other is whole".to_owned(),
    };
    let named = copies.newest().and_then(|(_, manifest)| manifest.snapshot);
    let lost = named.filter(|named| !listing.snapshots.iter().any(|(last, _)| last == named));
    findings.extend(lost.map(|last| Finding::of(names::snapshot(last), "is missing", instead.clone())));
    let damaged = snapshots.damaged().iter();
    findings
        .extend(damaged.map(|last| Finding::of(names::snapshot(*last), "does not verify", instead.clone())));
    findings
}

/// The segments that have lost their heads. One that was made for what will come never had any, and has a greater number.
pub(super) fn of_headless(
    segments: &[Segment],
    line: &[Segment],
    manifest: &Manifest,
) -> impl Iterator<Item = Finding> {
    headless(segments, line, manifest).map(|segment| {
        Finding::of(names::segment(segment), "has lost its head", "what it holds is part of no log any more")
    })
}

/// Numbers of the segments that have lost their heads.
pub(super) fn headless<'a>(
    segments: &'a [Segment],
    line: &[Segment],
    manifest: &Manifest,
) -> impl Iterator<Item = u64> + use<'a> {
    let begun = line.last().map_or(0, |segment| segment.number).max(manifest.segment);
    let lost = move |segment: &&Segment| segment.head == Decoded::Invalid && segment.number <= begun;
    segments.iter().filter(lost).map(|segment| segment.number)
}

/// The log is damaged where only older snapshots need it.
pub(super) fn of_covered(tail: Tail) -> Finding {
    let what = format!("batch {} fails", tail.next_batch);
    let follows = "a snapshot covers it: nothing is lost, and it goes at a start";
    Finding::of(names::segment(tail.segment), what, follows).at(tail.offset)
}

/// Names of the files that are whole and can't be read.
pub(super) fn foreign_files(survey: &Survey) -> impl Iterator<Item = String> + use<'_> {
    let manifests = survey.copies.0.iter().zip(names::MANIFESTS);
    let manifests = manifests.filter(|(copy, _)| **copy == Copy::Foreign).map(|(_, name)| name.to_owned());
    let segments = survey.segments.iter().filter(|segment| segment.head == Decoded::Foreign);
    let segments = segments.map(|segment| names::segment(segment.number));
    manifests.chain(segments).chain(survey.snapshots.foreign().map(names::snapshot))
}

/// What makes the server abstain, or refuse.
pub(super) fn of_log(survey: &Survey) -> Vec<Finding> {
    match survey.verdict {
        Verdict::Fresh | Verdict::Serve | Verdict::Truncate => Vec::new(),
        Verdict::Foreign => {
            foreign_files(survey).map(|name| Finding::of(name, FOREIGN, "no server starts with it")).collect()
        }
        Verdict::Lost => {
            let follows =
                "no server starts with this directory any more: an empty one joins the cluster as a new member"
                    .to_owned();
            vec![Finding { file: None, offset: None, what: LOST.into(), follows }]
        }
        Verdict::Abstain => of_missing(survey),
    }
}

fn of_missing(survey: &Survey) -> Vec<Finding> {
    let until = match survey.abstention() {
        Some(REACH_UNKNOWN) | None => "until a leader has given it its whole log again".to_owned(),
        Some(until) => format!("until a leader has given it again what there was up to index {until}"),
    };
    let follows = format!("the server abstains {until}");
    let mut findings = Vec::new();
    let scanned = &survey.scanned;
    if !survey.ending.words.is_empty() {
        let what = survey.ending.words.clone();
        findings.push(match scanned.tail {
            Some(tail) => Finding::of(names::segment(tail.segment), what, follows.clone()).at(tail.offset),
            None => Finding {
                file: None,
                offset: None,
                what: format!("the log: {what}"),
                follows: follows.clone(),
            },
        });
    }
    let (base, last) = (scanned.catalog.base(), scanned.catalog.last());
    let (start, newest) = (survey.usable_snapshot(), survey.newest_snapshot().unwrap_or_default());
    let what = match survey.facts.fit {
        Fit::Joined | Fit::Apart => return findings,
        Fit::Short => {
            format!("the log ends with {last}: a snapshot reached {newest}, and is damaged or lost")
        }
        Fit::Gap if base.index > start.index => {
            format!(
                "the log begins behind {base}, and ends with {last}: nothing whole leads from {start} to it"
            )
        }
        Fit::Gap => format!(
            "a snapshot reached {newest}, and is damaged or lost: nothing whole leads to it from {start}"
        ),
    };
    let file = scanned.tail.map(|tail| {
        // Where the log begins, or where it ends.
        let begin = survey.line.first().filter(|_| survey.facts.fit == Fit::Gap);
        names::segment(begin.map_or(tail.segment, |segment| segment.number))
    });
    findings.push(Finding { file, offset: None, what, follows });
    findings
}
