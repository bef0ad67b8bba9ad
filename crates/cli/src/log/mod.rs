//! `atomix log`: what the data directory of a stopped server holds, and what is wrong with it. Changes nothing.

mod dump;
mod inspect;
mod verify;

use std::path::Path;

use atomix::inspect::{Finding, Inspection, Place, REACH_UNKNOWN};
use atomix::{DirectoryProblem, Error, Index};
use serde_json::{Value, json};

use crate::args::Log;
use crate::exit::{Exit, Failure};

/// Runs the command; its exit code.
///
/// # Errors
/// If the directory is in use, can't be read, or is none.
pub fn run(command: &Log) -> Result<u8, Failure> {
    match command {
        Log::Verify(args) => verify::run(args),
        Log::Inspect(args) => inspect::run(args),
        Log::Dump(args) => dump::run(args),
    }
}

fn open(directory: &Path) -> Result<Inspection, Failure> {
    atomix::inspect::directory(directory).map_err(unreadable)
}

fn unreadable(error: Error) -> Failure {
    let advice = match &error {
        Error::DataDirectory { problem: DirectoryProblem::InUse, .. } => "stop its server first",
        Error::DataDirectory { problem: DirectoryProblem::Foreign, .. } => "name the --data-dir of a server",
        Error::DataDirectory { problem: DirectoryProblem::OtherVersion, .. } => {
            "ask the version that wrote it"
        }
        Error::DataDirectory { problem: DirectoryProblem::Failing, .. } => {
            "look at its disk, and at the rights to what is in it"
        }
        _ => "name a directory that is there and can be read",
    };
    Failure::new(Exit::DataDirectory, format!("{error}; {advice}"))
}

fn finding_as_json(finding: &Finding) -> Value {
    json!({
        "file": finding.file,
        "offset": finding.offset,
        "what": finding.what,
        "follows": finding.follows,
    })
}

/// Until when a server abstains, for programs: null where it does not, and where nobody knows how far what it lost had reached.
fn abstention_as_json(until: Option<Index>) -> Value {
    json!(until.filter(|until| *until != REACH_UNKNOWN).map(|index| index.0))
}

fn place_as_json(place: &Place) -> Value {
    json!({ "file": place.file, "offset": place.offset })
}
