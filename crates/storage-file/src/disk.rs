//! What the log needs of a disk: one flat directory of named files.

use std::io;

/// One flat directory. The real one is a folder; the simulator's keeps what was not synced apart, so that a crash can take it.
///
/// Names are plain file names. All calls are synchronous; no call is retried after an error. A handle from [`Disk::fork`] may
/// be used by another thread beside this one.
pub trait Disk: Send {
    /// Names and lengths of all files, in any order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// Creates a file of that length, filled with zeros that are really written, so that later syncs need no new space. An existing file of that name is
    /// replaced. Neither the content nor the name is durable before `sync` and `sync_dir`.
    ///
    /// # Errors
    /// What the system says.
    fn allocate(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Creates a file of that length for which room is set aside, filled with zeros that need not be written yet: it may be slow to
    /// write to. Else like [`Disk::allocate`], which does as well.
    ///
    /// # Errors
    /// What the system says.
    fn set_aside(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.allocate(name, length)
    }

    /// A hint that `allocate` will be called with these arguments later: a disk may make the file meanwhile, beside the
    /// caller, so that `allocate` need not. What it made may be found after a crash: complete, in part, or not at all.
    fn prepare(&mut self, name: &str, length: u64) {
        let _ = (name, length);
    }

    /// Reads at most `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the system says; `NotFound` if there is no such file.
    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes the parts one after the other from `offset` on, in one call to the system where possible, extending the file if need be. Not durable before `sync`.
    ///
    /// # Errors
    /// What the system says; `NotFound` if there is no such file.
    fn write_at(&mut self, name: &str, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Makes the content of a file durable (`fdatasync`).
    ///
    /// # Errors
    /// What the system says: nothing written since the last sync may be trusted then.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Makes names durable: creations, renames, removals.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Renames, replacing an existing `to`.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says; `NotFound` if there is no such file.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Another handle to the same directory, for another thread.
    ///
    /// # Errors
    /// What the system says.
    fn fork(&self) -> io::Result<Box<dyn Disk>>;
}
