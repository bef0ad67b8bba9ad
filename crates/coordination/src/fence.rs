//! The side that is guarded: refuses whoever comes with an old token.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::token::Token;

/// The first word of a fence's file.
const MAGIC: &str = "atomix-fence-1";
/// The length of such a file.
const FILE_BYTES: usize = MAGIC.len() + 2 * 17 + 1;

/// Keeps the greatest token that it has seen of one lock, and refuses every smaller one.
///
/// A guard can only say that its grant counts now; between that and the effect of what its holder does, any time may pass. Whatever
/// has a fence of its own, and asks it for every request, can't be damaged by a former holder: once a later one has been here, the
/// former is refused.
///
/// The check and the effect belong together: keep a fence where what it guards is kept, behind the same lock or in the same task, so
/// that no other request gets in between. Tokens of different locks do not compare: one fence for each lock.
#[doc = example!(r#"
let mut fence = Fence::in_memory();
let paused = lock.acquire().await?.token(); // dropped at once
let present = lock.acquire().await?;

fence.check(present.token())?;
fence.check(present.token())?;
let refused = fence.check(paused).unwrap_err();
assert_eq!(refused, FenceError::Stale { token: paused, greatest: present.token() });
"#)]
#[derive(Debug)]
pub struct Fence {
    greatest: Token,
    file: Option<FenceFile>,
}

/// Why a request is not to be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FenceError {
    /// A later holder of the lock has been here.
    #[error("token {token} is out of date: a holder with token {greatest} has been here")]
    Stale {
        /// The token.
        token: Token,
        /// The greatest seen.
        greatest: Token,
    },
    /// Somebody has this fence open already.
    #[error("the fence in {0} is in use")]
    InUse(PathBuf),
    /// The file is not what a fence writes. It is left as it is.
    #[error("{0} is not the file of a fence, or was damaged")]
    Damaged(PathBuf),
    /// The file can't be read, or not be written durably. After a failed write nothing passes until the fence is opened again: it
    /// is unknown what the disk would remember.
    #[error("the fence in {path} can't be used: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
}

#[derive(Debug)]
struct FenceFile {
    path: PathBuf,
    folder: PathBuf,
    /// Nobody else has the fence open as long as this is. A file beside the fence's own, which is replaced with every write.
    _exclusive: File,
    /// Why nothing passes any more.
    failed: Option<String>,
}

impl Fence {
    /// A fence that forgets when the process ends: for what is in the process's memory too.
    #[must_use]
    pub fn in_memory() -> Self {
        Fence { greatest: Token::NONE, file: None }
    }

    /// A fence that remembers, in a file at `path`; a new one if there is none. A token that has passed is durable before
    /// [`Fence::check`] returns. Whoever removes the file makes the fence forget.
    ///
    /// One process at a time has it open; a file `path` with `.lock` appended sees to that, and stays.
    #[doc = example!(r#"
# let directory = std::env::temp_dir().join(format!("atomix-fence-example-{}", std::process::id()));
# std::fs::create_dir_all(&directory)?;
let path = directory.join("backups");
Fence::in_file(&path)?.check(Token::from(12))?;

let mut reopened = Fence::in_file(&path)?;
assert!(reopened.check(Token::from(11)).is_err());
# std::fs::remove_dir_all(&directory)?;
"#)]
    /// # Errors
    /// [`FenceError::InUse`]; [`FenceError::Damaged`]; [`FenceError::Unusable`].
    pub fn in_file(path: impl AsRef<Path>) -> Result<Self, FenceError> {
        let path = path.as_ref();
        let unusable = |error: io::Error| unusable(path, &error);
        // From here on a change of the working directory makes no difference.
        let absolute = std::path::absolute(path).map_err(unusable)?;
        let Some(folder) = absolute.parent().filter(|_| absolute.file_name().is_some()) else {
            return Err(unusable(io::ErrorKind::IsADirectory.into()));
        };
        let folder = folder.to_owned();
        let exclusive = open_private(OpenOptions::new().write(true).create(true), &beside(&absolute, "lock"))
            .map_err(unusable)?;
        match exclusive.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FenceError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let greatest = match read(&absolute) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| FenceError::Damaged(path.to_owned()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Token::NONE,
            Err(error) => return Err(unusable(error)),
        };
        let file = FenceFile { path: absolute, folder, _exclusive: exclusive, failed: None };
        Ok(Fence { greatest, file: Some(file) })
    }

    /// Lets a token pass, and from then on none that is smaller. The same one may pass many times.
    #[doc = example!(r#"
let guard = lock.acquire().await?;
let mut fence = Fence::in_memory();
fence.check(guard.token())?; // and now do what the holder has asked for
"#)]
    /// # Errors
    /// [`FenceError::Stale`]; of a fence in a file also [`FenceError::Unusable`]. The request is not to be carried out then.
    pub fn check(&mut self, token: Token) -> Result<(), FenceError> {
        if let Some(file) = &self.file
            && let Some(reason) = &file.failed
        {
            return Err(FenceError::Unusable { path: file.path.clone(), reason: reason.clone() });
        }
        if token < self.greatest {
            return Err(FenceError::Stale { token, greatest: self.greatest });
        }
        if token > self.greatest {
            if let Some(file) = &mut self.file {
                file.write(token)?;
            }
            self.greatest = token;
        }
        Ok(())
    }

    /// The greatest token that has passed; `None` before the first.
    #[must_use]
    pub fn greatest(&self) -> Option<Token> {
        (self.greatest > Token::NONE).then_some(self.greatest)
    }
}

impl FenceFile {
    fn write(&mut self, token: Token) -> Result<(), FenceError> {
        self.replace(token).map_err(|error| {
            self.failed = Some(error.to_string());
            unusable(&self.path, &error)
        })
    }

    /// The file is always whole: a crash leaves the old one or the new one.
    fn replace(&self, token: Token) -> io::Result<()> {
        let new = beside(&self.path, "new");
        match std::fs::remove_file(&new) {
            // Left behind by a crash.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = open_private(OpenOptions::new().write(true).create_new(true), &new)?;
        file.write_all(encode(token).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        sync_folder(&self.folder)
    }
}

/// The token and its complement: no other file of this length, and no damage to a digit, reads as one.
fn encode(token: Token) -> String {
    let token = u64::from(token);
    format!("{MAGIC} {token:016x} {:016x}\n", !token)
}

fn decode(bytes: &[u8]) -> Option<Token> {
    let text = std::str::from_utf8(bytes).ok()?;
    let token = Token::from(u64::from_str_radix(text.split(' ').nth(1)?, 16).ok()?);
    (encode(token) == text).then_some(token)
}

/// As much of a file as tells whether it is a fence's.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// A file that only its owner may read and write.
fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

/// The rename is durable. Elsewhere than on Unix a folder can't be opened, and needs no sync.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn unusable(path: &Path, error: &dyn fmt::Display) -> FenceError {
    FenceError::Unusable { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(token: u64) -> Token {
        Token::from(token)
    }

    fn check(fence: &mut Fence) {
        assert_eq!(fence.greatest(), None);
        for passes in [5, 5, 9, 9, 10] {
            assert_eq!(fence.check(token(passes)), Ok(()));
        }
        let stale = FenceError::Stale { token: token(9), greatest: token(10) };
        assert_eq!(fence.check(token(9)), Err(stale));
        assert_eq!((fence.check(token(10)), fence.greatest()), (Ok(()), Some(token(10))));
    }

    #[test]
    fn nothing_passes_behind_a_greater_token() {
        check(&mut Fence::in_memory());
        let folder = tempfile::tempdir().unwrap();
        check(&mut Fence::in_file(folder.path().join("fence")).unwrap());
    }

    #[test]
    fn a_fence_in_a_file_remembers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fence");
        Fence::in_file(&path).unwrap().check(token(300)).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "atomix-fence-1 000000000000012c fffffffffffffed3\n"
        );
        // A crash in the middle of the next write.
        std::fs::write(folder.path().join("fence.new"), "atomix-fe").unwrap();
        let mut fence = Fence::in_file(&path).unwrap();
        assert_eq!(fence.greatest(), Some(token(300)));
        assert!(fence.check(token(299)).is_err());
        fence.check(token(301)).unwrap();
        drop(fence);
        assert_eq!(Fence::in_file(&path).unwrap().greatest(), Some(token(301)));
    }

    #[cfg(unix)]
    #[test]
    fn the_files_are_the_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fence");
        let mut fence = Fence::in_file(&path).unwrap();
        fence.check(token(1)).unwrap();
        for path in [&path, &beside(&path, "lock")] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
    }

    #[test]
    fn a_second_one_on_the_same_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fence");
        let mut fence = Fence::in_file(&path).unwrap();
        fence.check(token(1)).unwrap();
        assert_eq!(Fence::in_file(&path).unwrap_err(), FenceError::InUse(path.clone()));
        fence.check(token(2)).unwrap();
        assert_eq!(Fence::in_file(&path).unwrap_err(), FenceError::InUse(path.clone()));
        drop(fence);
        assert_eq!(Fence::in_file(&path).unwrap().greatest(), Some(token(2)));
    }

    #[test]
    fn what_a_fence_never_wrote_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fence");
        let whole = encode(token(300));
        let mut damaged: Vec<Vec<u8>> =
            (0..whole.len()).map(|end| whole.as_bytes()[..end].to_vec()).collect();
        damaged.extend((0..whole.len()).map(|place| {
            let mut bytes = whole.clone().into_bytes();
            bytes[place] ^= 1;
            bytes
        }));
        damaged.extend([
            whole.to_uppercase().into_bytes(),
            format!("{whole}\n").into_bytes(),
            vec![0xff; 49],
        ]);
        for bytes in damaged {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Fence::in_file(&path).unwrap_err(), FenceError::Damaged(path.clone()), "{bytes:?}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn after_a_failed_write_nothing_passes_until_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fence");
        let mut fence = Fence::in_file(&path).unwrap();
        fence.check(token(1)).unwrap();
        // What is in the way of the next write, and then no longer.
        let obstacle = beside(&path, "new");
        std::fs::create_dir(&obstacle).unwrap();
        assert!(matches!(fence.check(token(2)), Err(FenceError::Unusable { .. })));
        std::fs::remove_dir(&obstacle).unwrap();
        for refused in [1, 2, 3] {
            assert!(matches!(fence.check(token(refused)), Err(FenceError::Unusable { .. })));
        }
        drop(fence);
        let mut fence = Fence::in_file(&path).unwrap();
        assert_eq!((fence.greatest(), fence.check(token(2))), (Some(token(1)), Ok(())));
    }

    #[test]
    fn a_fence_needs_a_place_for_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("nowhere/fence");
        assert!(matches!(Fence::in_file(nowhere), Err(FenceError::Unusable { .. })));
        assert!(matches!(Fence::in_file("/"), Err(FenceError::Unusable { .. })));
        let occupied = folder.path().join("folder");
        std::fs::create_dir(&occupied).unwrap();
        assert!(matches!(Fence::in_file(occupied), Err(FenceError::Unusable { .. })));
    }
}
