//! The names of the files.

use atomix_protocol::{EntryId, Index, Term};
use atomix_storage::StorageError;

/// The two copies of the manifest.
pub(crate) const MANIFESTS: [&str; 2] = ["manifest-0", "manifest-1"];
/// A segment's file that the log has no use for, kept to be the next one.
pub(crate) const SPARE: &str = "spare.seg";
/// A segment's file that is used only when there is no room for another (D5).
pub(crate) const RESERVE: &str = "reserve.seg";
/// How far the log was synced (D3).
pub(crate) const MARK: &str = "mark";
/// A snapshot that is being written, or finished and not published.
pub(crate) const UNPUBLISHED: &str = "snapshot.tmp";

/// A log segment's name.
pub(crate) fn segment(id: u64) -> String {
    format!("log-{id:016x}.seg")
}

/// A published snapshot's name.
pub(crate) fn snapshot(last: EntryId) -> String {
    format!("snapshot-{:016x}-{:016x}.snap", last.index.0, last.term.0)
}

/// The files of a directory, sorted out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Numbers and lengths of the segments, ascending.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Last entries and lengths of the published snapshots, ascending by index.
    pub(crate) snapshots: Vec<(EntryId, u64)>,
    /// Lengths of the manifest's copies.
    pub(crate) manifests: [Option<u64>; 2],
    /// Length of the spare segment.
    pub(crate) spare: Option<u64>,
    /// Length of the reserve.
    pub(crate) reserve: Option<u64>,
    /// Length of the mark file.
    pub(crate) mark: Option<u64>,
    /// Whether a snapshot was left unpublished.
    pub(crate) unpublished: bool,
}

impl Listing {
    /// Other files are nobody's business, unless they are named as if they were ours.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] if there is such a one.
    pub(crate) fn of(files: Vec<(String, u64)>) -> Result<Listing, StorageError> {
        let mut listing = Listing::default();
        for (name, length) in files {
            if name == MARK {
                listing.mark = Some(length);
            } else if let Some(copy) = MANIFESTS.iter().position(|manifest| *manifest == name) {
                listing.manifests[copy] = Some(length);
            } else if name == SPARE {
                listing.spare = Some(length);
            } else if name == RESERVE {
                listing.reserve = Some(length);
            } else if name == UNPUBLISHED {
                listing.unpublished = true;
            } else if let Some(id) = parse_segment(&name) {
                listing.segments.push((id, length));
            } else if let Some(last) = parse_snapshot(&name) {
                listing.snapshots.push((last, length));
            } else if name.ends_with(".seg") || name.ends_with(".snap") {
                return Err(StorageError::Foreign(format!(
                    "it holds {name}, which is named as if it were a server's, and is not"
                )));
            }
        }
        listing.segments.sort_unstable();
        listing.snapshots.sort_unstable_by_key(|(last, _)| (last.index, last.term));
        Ok(listing)
    }
}

/// Whether a file of that name is one of a server's.
pub(crate) fn is_ours(name: &str) -> bool {
    let fixed = [MARK, SPARE, RESERVE, UNPUBLISHED];
    fixed.contains(&name)
        || MANIFESTS.contains(&name)
        || parse_segment(name).is_some()
        || parse_snapshot(name).is_some()
}

fn parse_segment(name: &str) -> Option<u64> {
    number(name.strip_prefix("log-")?.strip_suffix(".seg")?)
}

fn parse_snapshot(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_prefix("snapshot-")?.strip_suffix(".snap")?.split_once('-')?;
    Some(EntryId::new(Term(number(term)?), Index(number(index)?)))
}

/// Exactly the way in which names are written, so that no two names mean the same file.
fn number(text: &str) -> Option<u64> {
    let number = u64::from_str_radix(text, 16).ok()?;
    (format!("{number:016x}") == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Result<Listing, StorageError> {
        Listing::of(names.iter().map(|name| ((*name).to_owned(), 1)).collect())
    }

    #[test]
    fn names_come_back_in_order() {
        let (older, newer) = (EntryId::new(Term(9), Index(5)), EntryId::new(Term(2), Index(0x10)));
        let names =
            [segment(0x10), segment(9), snapshot(newer), snapshot(older), MARK.into(), UNPUBLISHED.into()];
        let others = [MANIFESTS[1], SPARE, RESERVE, "lock", "notes.txt"];
        let names: Vec<&str> = names.iter().map(String::as_str).chain(others).collect();
        assert!(names.iter().all(|name| is_ours(name) || ["lock", "notes.txt"].contains(name)));
        let listing = listing(&names).unwrap();
        assert_eq!(listing.segments, [(9, 1), (0x10, 1)]);
        assert_eq!(listing.snapshots, [(older, 1), (newer, 1)]);
        assert_eq!((listing.mark, listing.unpublished), (Some(1), true));
        assert_eq!((listing.manifests, listing.spare, listing.reserve), ([None, Some(1)], Some(1), Some(1)));
    }

    #[test]
    fn files_that_are_not_ours() {
        assert_eq!(listing(&["lock", "log-1.txt", "README"]), Ok(Listing::default()));
        for name in
            ["other.seg", "log-1.seg", "log-000000000000000G.seg", "log-+000000000000001.seg", "x.snap"]
        {
            assert!(matches!(listing(&[name]), Err(StorageError::Foreign(_))), "{name}");
            assert!(!is_ours(name), "{name}");
        }
    }
}
