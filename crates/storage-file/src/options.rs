//! What can be chosen about the files.

use atomix_protocol::limits;

/// What can be chosen about the files. A directory may be opened with other options than it was written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Length of a log segment. A batch that is longer gets a segment of its own length.
    pub segment_bytes: u64,
}

impl FileOptions {
    /// Shortest log segment.
    pub const SEGMENT_BYTES_MIN: u64 = 512;
}

impl Default for FileOptions {
    fn default() -> Self {
        FileOptions { segment_bytes: limits::SEGMENT_BYTES }
    }
}
