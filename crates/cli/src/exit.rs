//! How a command ends: exit codes that scripts can rely on, and one line that says what to do.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use atomix::{DirectoryProblem, Error, LockError, MapError, NotDone, ResourceError};

/// The exit codes (docs/protocol.md, N).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done: the cluster, the resource or the system said no. Nothing was changed, but for
    /// `member add`, which says how far it came.
    Refused = 1,
    /// Called wrongly.
    Usage = 2,
    /// No server was reached, or none that knows a leader, in time.
    Unreachable = 3,
    /// It may have been done, or may yet be.
    OutcomeUnknown = 4,
    /// A lock was lost while it was held.
    LockLost = 5,
    /// The data directory is foreign, unwritable, in use or corrupt, or its disk failed.
    DataDirectory = 6,
    /// Another live process uses this server's identity.
    DuplicateIdentity = 7,
    /// Ended by a signal.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Writes a line to standard output, as `println!` does, and ends the process if that can't be done: quietly if whoever read it reads
/// no more, else with [`Exit::Refused`] and the reason. What the command has done is done, and its session ends by its timeout.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::exit::print(format_args!($($line)*))
    };
}
pub(crate) use say;

/// See [`say`].
pub(crate) fn print(line: fmt::Arguments<'_>) {
    let Err(error) = writeln!(io::stdout(), "{line}") else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(Exit::Ok as i32);
    }
    eprintln!("atomix: can't write to standard output: {error}");
    std::process::exit(Exit::Refused as i32);
}

/// Why a command did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened and what to do, in one line.
    pub message: String,
}

impl Failure {
    /// A failure.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, advice) = match &error {
            Error::Settings(_) => (Exit::Usage, "see `atomix --help`"),
            Error::DataDirectory { path, problem, .. } => {
                return Failure::new(Exit::DataDirectory, format!("{error}; {}", advice(path, *problem)));
            }
            Error::DuplicateIdentity(_) => (
                Exit::DuplicateIdentity,
                "stop the other process, or give this server an empty directory of its own",
            ),
            Error::CannotListen { .. } => {
                (Exit::Refused, "is another process listening there? choose another --listen")
            }
            Error::Unreachable { .. } => (
                Exit::Unreachable,
                "is a majority of the servers running? check --cluster, and see `atomix status`",
            ),
            Error::DiskFailed(_) => (Exit::DataDirectory, "mend the disk, then start it again"),
            Error::Stopped(_) => (Exit::DataDirectory, "mend the cause, then start it again"),
            Error::Storage(_) => (Exit::DataDirectory, "mend the cause, then start it again"),
            Error::SessionEnded => (Exit::OutcomeUnknown, UNKNOWN),
            Error::Resource(error) => resource(error),
            Error::Refused(_) => (Exit::Refused, "nothing was changed"),
            _ => (Exit::Refused, "see the log"),
        };
        Failure::new(exit, format!("{error}; {advice}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::new(Exit::Refused, error.to_string())
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        Error::from(error).into()
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        Error::from(error).into()
    }
}

const UNKNOWN: &str = "look whether it was done, then try again";

fn resource(error: &ResourceError) -> (Exit, &'static str) {
    match error {
        error if error.is_unknown() => (Exit::OutcomeUnknown, UNKNOWN),
        ResourceError::BadPath(_) => (Exit::Refused, "a path is `/` and names, as in /users"),
        ResourceError::WrongKind { .. } => (Exit::Refused, "choose another path"),
        ResourceError::Undecodable => (Exit::Refused, "this map holds other types than strings"),
        ResourceError::NotDone(NotDone::TimedOut) => {
            (Exit::Unreachable, "is a majority of the servers running?")
        }
        ResourceError::NotDone(NotDone::TooLarge) => {
            (Exit::Refused, "a key and its value may have 1 MiB together: store less in one")
        }
        ResourceError::NotDone(NotDone::Full) => (
            Exit::Refused,
            "nothing was changed; make room on the servers' disks, and they take commands again by themselves",
        ),
        ResourceError::InUse(_) => (Exit::Refused, "--force revokes what it has granted first"),
        ResourceError::NotDone(_) => (Exit::Refused, "try again"),
        _ => (Exit::Refused, "nothing was changed"),
    }
}

/// What to do about a data directory.
fn advice(path: &Path, problem: DirectoryProblem) -> String {
    let path = path.display();
    match problem {
        DirectoryProblem::InUse => "stop that one, or choose another --data-dir".into(),
        DirectoryProblem::Unusable => "choose a --data-dir that can be created and written".into(),
        DirectoryProblem::Failing => {
            "look at its disk, and at the rights to what is in it, then start it again".into()
        }
        DirectoryProblem::Corrupt => format!(
            "`atomix log verify {path}` says what is wrong; move it away, and start with an empty one and --join: that is taken in as a new member. If this was the only voter, restore a backup"
        ),
        DirectoryProblem::Irreparable => format!(
            "`atomix log verify {path}` says what is wrong; restore it from a backup, or begin a new cluster with an empty one"
        ),
        DirectoryProblem::Foreign => {
            "move what is not a server's out of it, or choose another --data-dir".into()
        }
        DirectoryProblem::OtherVersion => {
            "start the version that wrote it; or start with an empty one and --join, which is taken in as a new member".into()
        }
        DirectoryProblem::OtherCluster => "check --data-dir, and --bootstrap or --join".into(),
        _ => "choose another --data-dir".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: Error, exit: Exit) {
        let failure = Failure::from(error);
        assert_eq!(failure.exit, exit, "{failure}");
        assert!(!failure.message.contains('\n'), "{failure}");
    }

    #[test]
    fn errors_have_their_codes() {
        let directory = |problem| Error::DataDirectory { path: "d".into(), problem, reason: "r".into() };
        check(Error::Settings("s".into()), Exit::Usage);
        check(directory(DirectoryProblem::InUse), Exit::DataDirectory);
        check(directory(DirectoryProblem::Foreign), Exit::DataDirectory);
        check(Error::DuplicateIdentity("d".into()), Exit::DuplicateIdentity);
        check(Error::DiskFailed("d".into()), Exit::DataDirectory);
        check(Error::Unreachable { tried: vec!["a:1".into()], reason: "r".into() }, Exit::Unreachable);
        check(Error::SessionEnded, Exit::OutcomeUnknown);
        check(ResourceError::Unknown("r".into()).into(), Exit::OutcomeUnknown);
        check(ResourceError::BadPath("p".into()).into(), Exit::Refused);
        check(ResourceError::InUse("/p".into()).into(), Exit::Refused);
        check(LockError::QueueFull.into(), Exit::Refused);
    }

    /// What is to be done about a data directory hangs on why it can't be used; it is said once.
    #[test]
    fn each_problem_of_a_data_directory_has_advice_of_its_own() {
        for (problem, words, wrong) in [
            (DirectoryProblem::InUse, &["in use", "stop"][..], &["empty"][..]),
            (DirectoryProblem::Unusable, &["created and written"], &["empty"]),
            (DirectoryProblem::Failing, &["disk", "rights", "start it again"], &["choose", "empty"]),
            (DirectoryProblem::Corrupt, &["`atomix log verify d/1`", "an empty one and --join"], &[]),
            (DirectoryProblem::Irreparable, &["`atomix log verify d/1`", "backup", "empty"], &["--join"]),
            (DirectoryProblem::Foreign, &["move", "out of it"], &["cluster", "version", "empty"]),
            (DirectoryProblem::OtherVersion, &["start the version that wrote it", "--join"], &["cluster"]),
            (DirectoryProblem::OtherCluster, &["of another cluster", "--bootstrap"], &["version", "empty"]),
        ] {
            let failure =
                Failure::from(Error::DataDirectory { path: "d/1".into(), problem, reason: "r".into() });
            assert_eq!(failure.exit, Exit::DataDirectory);
            let said = &failure.message;
            assert!(words.iter().all(|word| said.contains(word)), "{words:?} in {said}");
            assert!(!wrong.iter().any(|word| said.contains(word)), "{wrong:?} in {said}");
            assert!(said.matches("empty").count() <= 1, "{said}");
        }
    }
}
