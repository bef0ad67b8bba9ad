//! `atomix log verify`: whether anything is wrong.

use atomix::inspect::{Part, Report, Verdict};
use serde_json::json;

use super::{abstention_as_json, finding_as_json, open, place_as_json, unreadable};
use crate::args::LogDirectory;
use crate::exit::{Exit, Failure, say};

pub(super) fn run(args: &LogDirectory) -> Result<u8, Failure> {
    let report = open(&args.directory)?.report().map_err(unreadable)?;
    let sound = report.findings.is_empty();
    if args.json {
        let findings: Vec<_> = report.findings.iter().map(finding_as_json).collect();
        say!(
            "{:#}",
            json!({
                "sound": sound,
                "row": report.row,
                "verdict": report.verdict.to_string(),
                "next_start": report.next_start,
                "abstains": report.abstains_until.is_some(),
                "abstains_until": abstention_as_json(report.abstains_until),
                "torn": report.torn.as_ref().map(place_as_json),
                "findings": findings,
                "notes": report.notes,
            })
        );
    } else {
        report.findings.iter().for_each(|finding| say!("{finding}"));
        if sound {
            say!("{}", in_one_line(&report));
        }
        report.notes.iter().for_each(|note| say!("not wrong: {note}"));
    }
    Ok(if sound { Exit::Ok } else { Exit::DataDirectory } as u8)
}

fn in_one_line(report: &Report) -> String {
    if report.verdict == Verdict::Fresh {
        return "nothing is wrong: nothing was begun here, and a server that starts with it is a new one"
            .into();
    }
    let segments = report.segments.iter().filter(|segment| segment.part == Part::Log).count();
    let entries = if report.log_last.index > report.log_base.index {
        format!("entries {} to {}", report.log_base.index.next(), report.log_last.index)
    } else {
        "no entries".into()
    };
    let counted = |count, of| if count == 1 { format!("1 {of}") } else { format!("{count} {of}s") };
    let (segments, snapshots) = (counted(segments, "segment"), counted(report.snapshots.len(), "snapshot"));
    format!("nothing is wrong: {entries} in {segments}, {snapshots}")
}
