//! `atomix log inspect`: what a data directory holds.

use atomix::inspect::{ManifestCopy, REACH_UNKNOWN, Report, SegmentFile, SnapshotFile};
use serde_json::{Value, json};

use super::{abstention_as_json, finding_as_json, open, place_as_json, unreadable};
use crate::args::LogDirectory;
use crate::exit::{Exit, Failure, say};
use crate::status::{kind_in_words, member_as_json};
use crate::table::Table;

pub(super) fn run(args: &LogDirectory) -> Result<u8, Failure> {
    let report = open(&args.directory)?.report().map_err(unreadable)?;
    if args.json {
        say!("{:#}", as_json(&report));
    } else {
        say!("{}", as_text(&report).trim_end());
    }
    Ok(Exit::Ok as u8)
}

fn generation(copy: ManifestCopy) -> Option<u64> {
    match copy {
        ManifestCopy::Whole(generation) => Some(generation),
        _ => None,
    }
}

fn as_json(report: &Report) -> Value {
    let manifests = report
        .manifests
        .iter()
        .map(|copy| json!({ "state": copy.to_string(), "generation": generation(*copy) }));
    let configuration = report.configuration.as_ref().map(|configuration| {
        json!({
            "cluster": configuration.cluster.to_string(),
            "index": configuration.index.0,
            "joint": configuration.outgoing_voters.is_some(),
            "members": configuration.members.iter().map(member_as_json).collect::<Vec<_>>(),
        })
    });
    json!({
        "row": report.row,
        "verdict": report.verdict.to_string(),
        "reason": report.reason,
        "next_start": report.next_start,
        "group": report.group.0,
        "incarnation": report.identity.map(|identity| identity.incarnation.to_string()),
        "server": report.server.map(|id| id.0),
        "term": report.hard_state.term.0,
        "voted_for": report.hard_state.voted_for.map(|id| id.0),
        "configuration": configuration,
        "abstention": abstention_as_json(report.abstention),
        "abstains": report.abstains_until.is_some(),
        "abstains_until": abstention_as_json(report.abstains_until),
        "manifests": manifests.collect::<Vec<_>>(),
        "log": {
            "base": { "index": report.log_base.index.0, "term": report.log_base.term.0 },
            "last": { "index": report.log_last.index.0, "term": report.log_last.term.0 },
        },
        "mark": report.mark.map(|mark| json!({
            "segment": mark.segment,
            "offset": mark.offset,
            "batch": mark.batch,
            "index": mark.last.index.0,
            "term": mark.last.term.0,
        })),
        "segments": report.segments.iter().map(segment_as_json).collect::<Vec<_>>(),
        "snapshots": report.snapshots.iter().map(snapshot_as_json).collect::<Vec<_>>(),
        "torn": report.torn.as_ref().map(place_as_json),
        "findings": report.findings.iter().map(finding_as_json).collect::<Vec<_>>(),
        "notes": report.notes,
    })
}

fn segment_as_json(segment: &SegmentFile) -> Value {
    json!({
        "file": segment.file,
        "number": segment.number,
        "part": segment.part.to_string(),
        "bytes": segment.bytes,
        "end": segment.end,
        "follows": segment.follows.map(|(number, at)| json!({ "number": number, "offset": at })),
        "first_batch": segment.batches.map(|(first, _)| first),
        "last_batch": segment.batches.map(|(_, last)| last),
        "first_index": segment.entries.map(|(first, _)| first.index.0),
        "last_index": segment.entries.map(|(_, last)| last.index.0),
    })
}

fn snapshot_as_json(snapshot: &SnapshotFile) -> Value {
    json!({
        "file": snapshot.file,
        "index": snapshot.last.index.0,
        "term": snapshot.last.term.0,
        "bytes": snapshot.bytes,
        "state": snapshot.state.to_string(),
    })
}

fn as_text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<14} {value}\n"));
    line("row", report.row.to_owned());
    line("reason", report.reason.clone());
    line("next start", report.next_start.clone());
    let incarnation = report.identity.map_or_else(|| "-".into(), |own| own.incarnation.to_string());
    let server = report.server.map_or_else(|| "no member yet".into(), |id| format!("server {id}"));
    line("identity", format!("{incarnation}, {server}, group {}", report.group));
    let vote =
        report.hard_state.voted_for.map_or_else(|| "no vote".into(), |id| format!("vote for server {id}"));
    line("term", format!("{}, {vote}", report.hard_state.term));
    if let Some(configuration) = &report.configuration {
        line("cluster", configuration.cluster.to_string());
        let members = configuration
            .members
            .iter()
            .map(|member| format!("{} {} {}", member.id, kind_in_words(member.kind), member.peer_address));
        let joint = if configuration.outgoing_voters.is_some() { " (a change is under way)" } else { "" };
        let members = members.collect::<Vec<_>>().join(", ");
        line("configuration", format!("of index {}{joint}: {members}", configuration.index));
    }
    if let Some(until) = report.abstains_until {
        let until = if until == REACH_UNKNOWN { "its whole log".into() } else { format!("index {until}") };
        line("abstains", format!("until {until} is back"));
    }
    for (number, copy) in report.manifests.iter().enumerate() {
        let generation = generation(*copy).map_or_else(String::new, |of| format!(", generation {of}"));
        line(&format!("manifest-{number}"), format!("{copy}{generation}"));
    }
    line("log", format!("behind {} through {}", report.log_base, report.log_last));
    if let Some(mark) = report.mark {
        let there = format!("segment {} at {}", mark.segment, mark.offset);
        line("synced to", format!("{there}: batch {}, entry {}", mark.batch, mark.last));
    }
    text.push_str(&format!("\n{}", files(report)));
    if !report.findings.is_empty() || !report.notes.is_empty() {
        text.push('\n');
    }
    report.findings.iter().for_each(|finding| text.push_str(&format!("wrong: {finding}\n")));
    report.notes.iter().for_each(|note| text.push_str(&format!("not wrong: {note}\n")));
    text
}

fn files(report: &Report) -> Table {
    let mut files = Table::new(["file", "part", "bytes", "end", "follows", "batches", "entries"]);
    let dash = || "-".to_owned();
    for segment in &report.segments {
        files.row([
            segment.file.clone(),
            segment.part.to_string(),
            segment.bytes.to_string(),
            segment.number.map_or_else(dash, |_| segment.end.to_string()),
            segment.follows.map_or_else(dash, |(number, at)| format!("{number} at {at}")),
            segment.batches.map_or_else(dash, |(first, last)| format!("{first} to {last}")),
            segment.entries.map_or_else(dash, |(first, last)| format!("{first} to {last}")),
        ]);
    }
    for snapshot in &report.snapshots {
        files.row([
            snapshot.file.clone(),
            format!("snapshot, {}", snapshot.state),
            snapshot.bytes.to_string(),
            dash(),
            dash(),
            dash(),
            format!("through {}", snapshot.last),
        ]);
    }
    files
}
