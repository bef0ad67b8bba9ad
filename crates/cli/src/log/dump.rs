//! `atomix log dump`: the records of a log.

use atomix::Index;
use atomix::inspect::Record;
use serde_json::{Value, json};

use super::{open, unreadable};
use crate::args::LogDump;
use crate::exit::{Exit, Failure, say};

/// How many bytes of a payload are shown.
const SHOWN: usize = 16;

pub(super) fn run(args: &LogDump) -> Result<u8, Failure> {
    let mut inspection = open(&args.directory)?;
    let mut each = |record: Record| {
        if args.json {
            say!("{}", as_json(&record));
        } else {
            say!("{}", as_text(&record));
        }
    };
    inspection.records(Index(args.from), Index(args.to), &mut each).map_err(unreadable)?;
    Ok(Exit::Ok as u8)
}

/// The first bytes of a payload in hexadecimal; `None` if it does not verify.
fn beginning(record: &Record) -> Option<String> {
    let payload = record.payload.as_ref()?;
    let shown: String = payload.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    Some(if payload.len() > SHOWN { format!("{shown}...") } else { shown })
}

fn as_json(record: &Record) -> Value {
    json!({
        "index": record.id.index.0,
        "term": record.id.term.0,
        "kind": record.kind.to_string(),
        "standing": record.standing.to_string(),
        "time_ms": record.time.0,
        "length": record.length,
        "whole": record.payload.is_some(),
        "payload": beginning(record),
        "batch": record.batch,
        "file": &*record.file,
        "offset": record.offset,
    })
}

fn as_text(record: &Record) -> String {
    let payload = match beginning(record) {
        Some(payload) if payload.is_empty() => "-".into(),
        Some(payload) => payload,
        None => "damaged".into(),
    };
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{payload}\t{}\t{}\t{}",
        record.id.index,
        record.id.term,
        record.kind,
        record.standing,
        record.time.0,
        record.length,
        record.batch,
        record.file,
        record.offset
    )
}
