//! What recovery has no need to look at, and what it decides, in words.

use atomix_protocol::Index;
use atomix_protocol::durable::REACH_UNKNOWN;
use atomix_storage::StorageError;

use super::report::{Part, Place, SegmentFile, SnapshotFile, SnapshotState};
use crate::format::{self, HEADER, MARK_BYTES};
use crate::log::failed;
use crate::manifest::Copy;
use crate::recovery::{FOREIGN, Finding, Survey, Verdict};
use crate::{Disk, names};

/// Snapshots older than the newest that verifies: recovery leaves them alone.
pub(super) fn snapshots(survey: &Survey, snapshots: &[SnapshotFile]) -> Vec<Finding> {
    let newest = survey.usable_snapshot();
    let older = snapshots.iter().filter(|snapshot| snapshot.last.index < newest.index);
    let findings = older.filter_map(|snapshot| {
        let what = match snapshot.state {
            SnapshotState::Whole => return None,
            SnapshotState::Damaged => "does not verify",
            SnapshotState::Foreign => FOREIGN,
        };
        let follows = format!("nothing is lost as long as the one that reaches {newest} is whole");
        Some(Finding::of(&snapshot.file, what, follows))
    });
    findings.collect()
}

/// The slots of the mark, each on its own: recovery goes by what is whole of it.
pub(super) fn mark(disk: &mut dyn Disk, survey: &Survey) -> Result<Vec<Finding>, StorageError> {
    let mut findings = Vec::new();
    if survey.listing.mark.is_none() {
        return Ok(findings);
    }
    let follows = match survey.mark {
        Some(mark) => format!("the other one counts, of batch {}", mark.batch),
        None => "damage in the last batch would look like a torn end".to_owned(),
    };
    for slot in [0, MARK_BYTES / 2] {
        let mut bytes = [0; HEADER];
        let read = disk.read_at(names::MARK, slot, &mut bytes).map_err(failed("read", names::MARK))?;
        let written = bytes[..read].iter().any(|byte| *byte != 0);
        if written && format::Mark::newest(&bytes[..read]).is_none() {
            findings.push(Finding::of(names::MARK, "this slot does not verify", &follows).at(slot));
        }
    }
    Ok(findings)
}

/// Damage that was found at an earlier start, and is not repaired yet.
pub(super) fn abstention(survey: &Survey) -> Option<Finding> {
    let until = survey.manifest().abstention.filter(|_| survey.verdict != Verdict::Abstain)?;
    let what = format!(
        "an earlier start found damage: the server abstains until a leader has given it again {}",
        up_to(until)
    );
    let follows = "it says how far that has come once it runs again, in `atomix status`".to_owned();
    Some(Finding { file: None, offset: None, what, follows })
}

fn up_to(until: Index) -> String {
    if until == REACH_UNKNOWN {
        "its whole log".into()
    } else {
        format!("what there was up to index {until}")
    }
}

/// Where a batch begins that a crash broke off.
pub(super) fn torn(survey: &Survey) -> Option<Place> {
    if survey.verdict != Verdict::Truncate {
        return None;
    }
    // Behind the last whole batch, or in a segment that was to be the next and has no head yet.
    let behind = survey.scanned.tail.filter(|tail| survey.ending.remains > tail.offset);
    let behind = behind.map(|tail| (tail.segment, tail.offset));
    let (segment, offset) = behind.or(survey.ending.left_in.first().map(|segment| (*segment, 0)))?;
    Some(Place { file: names::segment(segment), offset })
}

/// Why the facts are those of the row that matches.
pub(super) fn reason(survey: &Survey) -> String {
    match survey.verdict {
        Verdict::Fresh => "no manifest was ever whole, and there is no log and no snapshot".into(),
        Verdict::Serve => "every batch of the log is whole, and log and snapshots belong together".into(),
        Verdict::Truncate => {
            let place = torn(survey).map(|place| place.to_string()).unwrap_or_default();
            let batch = survey.scanned.tail.map_or(1, |tail| tail.next_batch);
            format!("{place}: batch {batch} is not whole, and nothing says that it was ever synced")
        }
        Verdict::Foreign | Verdict::Lost | Verdict::Abstain => {
            survey.findings.get(survey.undeciding).map(Finding::found).unwrap_or_default()
        }
    }
}

/// What a server does that starts here.
pub(super) fn next_start(survey: &Survey) -> String {
    let abstains = |until| format!("has no vote until a leader has given it again {}", up_to(until));
    let mut does = match survey.verdict {
        Verdict::Foreign => return "refused: this version can't read it, and leaves it as it is".into(),
        Verdict::Lost => {
            return "refused: only an empty directory helps, with which it joins as a new member".into();
        }
        Verdict::Fresh => return "begins as a new server: nothing was ever acknowledged here".into(),
        Verdict::Serve => vec!["serves all that is here".to_owned()],
        Verdict::Truncate => {
            let place = torn(survey).map(|place| place.to_string()).unwrap_or_default();
            vec![format!("cuts off the torn batch, {place}"), "serves the rest".to_owned()]
        }
        Verdict::Abstain => vec!["serves what is whole, and leaves what is damaged as it is".to_owned()],
    };
    does.extend(survey.abstention().map(abstains));
    if survey.is_apart() {
        does.push(format!(
            "empties the log, which goes on behind the snapshot through {}",
            survey.usable_snapshot()
        ));
    }
    if !survey.copies.agree() {
        does.push("makes both copies of the manifest the same".into());
    }
    if survey.listing.unpublished {
        does.push(format!("removes {}", names::UNPUBLISHED));
    }
    does.join("; ")
}

/// What is as it may be.
pub(super) fn notes(survey: &Survey, segments: &[SegmentFile]) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(torn) = torn(survey) {
        notes.push(format!("{torn}: a crash broke a batch off, which is cut off at the next start"));
    }
    if let [Copy::Whole(first, _), Copy::Whole(second, _)] = &survey.copies.0
        && first != second
    {
        notes.push(format!(
            "manifest-0 is of generation {first}, manifest-1 of {second}: the newer one counts"
        ));
    }
    if survey.listing.unpublished {
        notes.push(format!(
            "{}: a snapshot that was not published; it goes at the next start",
            names::UNPUBLISHED
        ));
    }
    let starts = matches!(survey.verdict, Verdict::Serve | Verdict::Truncate | Verdict::Abstain);
    if starts && survey.mark.is_none() && survey.scanned.tail.is_some() {
        notes.push(
            "nothing says how far the log was synced: a crash can take the mark, and a start renews it"
                .into(),
        );
    }
    if starts && survey.abstention().is_none() {
        let given_up = segments.iter().filter(|segment| segment.part == Part::GivenUp);
        notes
            .extend(given_up.map(|segment| format!("{}: given up; it goes at the next start", segment.file)));
    }
    notes
}
