//! The snapshots, as far as their bytes go.

use atomix_protocol::codec;
use atomix_protocol::peer::SnapshotMeta;

use super::layout::{HEADER, Image, header, u32_at, u64_at};

/// A published snapshot.
#[derive(Clone, Debug)]
pub(super) struct SnapshotFile {
    pub(super) name: String,
    pub(super) index: u64,
    term: u64,
    pub(super) length: usize,
    /// Of its data.
    pub(super) size: usize,
    pub(super) whole: bool,
}

impl SnapshotFile {
    pub(super) fn id(&self) -> (u64, u64) {
        (self.index, self.term)
    }
}

/// All of them, ascending.
///
/// # Errors
/// If a name is none.
pub(super) fn read(image: &Image) -> Result<Vec<SnapshotFile>, String> {
    let mut snapshots = Vec::new();
    for (name, bytes) in image.files.iter().filter(|(name, _)| name.ends_with(".snap")) {
        let numbers = name.strip_prefix("snapshot-").and_then(|rest| rest.strip_suffix(".snap"));
        let numbers = numbers.and_then(|rest| rest.split_once('-'));
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let id = numbers.and_then(|(index, term)| Some((hex(index)?, hex(term)?)));
        let (index, term) = id.ok_or(format!("{name} is no name of a snapshot"))?;
        let size = whole(bytes, (index, term));
        let (length, whole) = (bytes.len(), size.is_some());
        snapshots.push(SnapshotFile {
            name: name.clone(),
            index,
            term,
            length,
            size: size.unwrap_or(0),
            whole,
        });
    }
    snapshots.sort_by_key(SnapshotFile::id);
    Ok(snapshots)
}

/// Length of its data, if all of it is what it says.
fn whole(bytes: &[u8], id: (u64, u64)) -> Option<usize> {
    let head = header(bytes, 0, *b"ATOMIXSN")?;
    let size = usize::try_from(u64_at(head, 16)).ok()?;
    let description = bytes.get(HEADER.checked_add(size)?..)?;
    if description.len() != u32_at(head, 24) as usize || crc32c::crc32c(description) != u32_at(head, 28) {
        return None;
    }
    let meta: SnapshotMeta = codec::from_bytes(description).ok()?;
    let said = (meta.last.index.0, meta.last.term.0) == id && meta.size == size as u64;
    (said && crc32c::crc32c(&bytes[HEADER..HEADER + size]) == meta.checksum).then_some(size)
}
