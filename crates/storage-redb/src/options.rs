//! What can be chosen about the database.

/// What can be chosen about the database. A directory may be opened with other options than it was written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    /// Memory for pages, read and to be written.
    pub cache_bytes: usize,
    /// Room that is kept for what must be written on a full disk (D5); zero for none.
    pub reserve_bytes: u64,
}

impl Default for RedbOptions {
    fn default() -> Self {
        RedbOptions { cache_bytes: 64 << 20, reserve_bytes: 16 << 20 }
    }
}
