//! Which segments belong together.
//!
//! Each names the one that it follows. From the newest back, that is the log. Segments beside it were damaged and given up: the one that
//! took their place names the one before them.

use atomix_storage::StorageError;

use crate::format::{Decoded, SegmentHeader};
use crate::window::{Read, Window};

/// A segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// As its name says.
    pub(crate) number: u64,
    pub(crate) length: u64,
    /// What its first bytes are. Those of another segment are invalid: a file that was used again and not begun, or a misdirected write.
    pub(crate) head: Decoded<SegmentHeader>,
}

impl Segment {
    pub(crate) fn header(&self) -> Option<&SegmentHeader> {
        match &self.head {
            Decoded::Valid(header) => Some(header),
            _ => None,
        }
    }
}

/// Reads the heads of all segments. `files` are numbers and lengths, ascending.
///
/// # Errors
/// If they can't be read.
pub(crate) fn heads(files: &[(u64, u64)], read: &mut Read<'_>) -> Result<Vec<Segment>, StorageError> {
    let mut segments = Vec::with_capacity(files.len());
    for (number, length) in files {
        let mut window = Window::new(read, *number, 0);
        let head = match window.header(0)?.map_or(Decoded::Invalid, SegmentHeader::decode) {
            Decoded::Valid(header) if header.segment != *number => Decoded::Invalid,
            head => head,
        };
        segments.push(Segment { number: *number, length: *length, head });
    }
    Ok(segments)
}

/// The segments that make up the log, ascending, as places in `segments`. Whether they really join is for the scan to say.
pub(crate) fn line(segments: &[Segment]) -> Vec<usize> {
    let mut line: Vec<usize> = Vec::new();
    let mut before = segments.len();
    let mut limit = u64::MAX;
    // Where the one that is followed is gone or has lost its head, the nearest before it shows that something is missing.
    while let Some((at, header)) = segments[..before]
        .iter()
        .enumerate()
        .rev()
        .find_map(|(at, segment)| Some((at, segment.header().filter(|_| segment.number <= limit)?)))
    {
        line.push(at);
        if header.follows == 0 {
            break;
        }
        (before, limit) = (at, header.follows);
    }
    line.reverse();
    line
}

#[cfg(test)]
mod tests {
    use atomix_protocol::EntryId;

    use super::*;

    /// Number, and which one it follows; `None` for one without a head.
    fn segment(number: u64, follows: Option<u64>) -> Segment {
        let header = |follows| SegmentHeader {
            segment: number,
            follows,
            at: 64,
            first_batch: number,
            base: EntryId::ZERO,
            seed: 0,
        };
        let head = follows.map_or(Decoded::Invalid, |follows| Decoded::Valid(header(follows)));
        Segment { number, length: 100, head }
    }

    #[test]
    fn from_the_newest_back() {
        type Described<'a> = &'a [(u64, Option<u64>)];
        let cases: [(Described<'_>, &[u64]); 9] = [
            (&[], &[]),
            (&[(1, None)], &[]),
            (&[(1, Some(0)), (2, Some(1)), (3, Some(2))], &[1, 2, 3]),
            (&[(5, Some(4)), (6, Some(5))], &[5, 6]),
            (&[(1, Some(0)), (2, Some(1)), (3, None)], &[1, 2]),
            (&[(1, Some(0)), (2, Some(1)), (3, Some(2)), (4, Some(1))], &[1, 4]),
            (&[(1, Some(0)), (2, Some(1)), (3, Some(0))], &[3]),
            (&[(1, Some(0)), (3, Some(2))], &[1, 3]),
            (&[(1, Some(0)), (2, None), (3, Some(2))], &[1, 3]),
        ];
        for (segments, wanted) in cases {
            let segments: Vec<Segment> =
                segments.iter().map(|(number, follows)| segment(*number, *follows)).collect();
            let found: Vec<u64> = line(&segments).into_iter().map(|at| segments[at].number).collect();
            assert_eq!(found, wanted, "{segments:?}");
        }
    }
}
