//! Reading segments record by record, over a callback.

use std::mem;

use atomix_storage::StorageError;
use bytes::{Bytes, BytesMut};

use crate::format::{ALIGNMENT, HEADER, RecordHeader, SEGMENT_AT, record_bytes};

/// What one read asks for.
const WINDOW: usize = 256 << 10;
static ZEROS: [u8; WINDOW] = [0; WINDOW];

/// Reads bytes of a segment at an offset; fewer than asked for only at the end of the file.
pub(crate) type Read<'a> = dyn FnMut(u64, u64, &mut [u8]) -> Result<usize, StorageError> + 'a;

/// A piece of one segment in memory, so that reading record by record does not read byte by byte.
pub(crate) struct Window<'a, 'b> {
    read: &'a mut Read<'b>,
    pub(crate) segment: u64,
    /// What one read asks for.
    ahead: usize,
    start: u64,
    /// What the file holds from `start` on. Payloads are pieces of it, not copies.
    held: Bytes,
    /// What was held before.
    former: Bytes,
}

/// A record that is whole.
pub(crate) struct Record {
    pub(crate) header: RecordHeader,
    /// What the next record's chain is.
    pub(crate) chain: u32,
    /// Where the next record begins.
    pub(crate) end: u64,
}

impl<'a, 'b> Window<'a, 'b> {
    /// `expected` is about how many bytes will be read in all.
    pub(crate) fn new(read: &'a mut Read<'b>, segment: u64, expected: u64) -> Self {
        let ahead = usize::try_from(expected).unwrap_or(WINDOW).clamp(HEADER, WINDOW);
        Window { read, segment, ahead, start: 0, held: Bytes::new(), former: Bytes::new() }
    }

    /// `length` bytes at `offset`; `None` if the file ends before. Memory is taken for bytes that are there, not for a length
    /// that damaged bytes claim.
    pub(crate) fn bytes(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, StorageError> {
        match self.place(offset, length) {
            Some(at) => Ok(Some(&self.held[at..at + length])),
            None => {
                self.load(offset, length)?;
                Ok(self.held.get(..length))
            }
        }
    }

    /// Where bytes lie in what is held, if they do.
    fn place(&self, offset: u64, length: usize) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        (at.checked_add(length)? <= self.held.len()).then_some(at)
    }

    /// Reads from `offset` on until `length` bytes are held, or the file ends.
    fn load(&mut self, offset: u64, length: usize) -> Result<(), StorageError> {
        // Memory that no payload is a piece of any more is used again: it need not be cleared, and is still in the processor's cache. What
        // was held last is not free yet: a batch goes on behind it.
        let free = mem::replace(&mut self.former, mem::take(&mut self.held));
        let mut data = free.try_into_mut().unwrap_or_else(|_| BytesMut::zeroed(self.ahead));
        let mut filled = 0;
        loop {
            data.resize(filled + self.ahead, 0);
            let got = (self.read)(self.segment, offset + filled as u64, &mut data[filled..])?;
            filled += got;
            if got < self.ahead || filled >= length {
                break;
            }
        }
        data.truncate(filled);
        (self.start, self.held) = (offset, data.freeze());
        Ok(())
    }

    /// The bytes from `offset` on, as many as one read yields; none at the end of the file.
    pub(crate) fn chunk(&mut self, offset: u64) -> Result<&[u8], StorageError> {
        self.load(offset, 0)?;
        Ok(&self.held)
    }

    /// Whether all the bytes that were read last are zero: most of a segment is, and comparing is faster than searching.
    pub(crate) fn is_zero(&self) -> bool {
        self.held.chunks(WINDOW).all(|piece| piece == &ZEROS[..piece.len()])
    }

    /// Where, in what was read last, a record of a segment could begin, counted from its beginning: those that end beyond it among them.
    pub(crate) fn resembling(&self, segment: u64) -> impl Iterator<Item = u64> + '_ {
        let wanted = segment.to_le_bytes();
        let here = &self.held;
        (0..here.len()).step_by(ALIGNMENT as usize).filter_map(move |at| {
            let named = here.get(at + SEGMENT_AT..at + SEGMENT_AT + 8).is_none_or(|named| named == wanted);
            named.then_some(at as u64)
        })
    }

    /// The 64 bytes at `offset`.
    pub(crate) fn header(&mut self, offset: u64) -> Result<Option<&[u8; HEADER]>, StorageError> {
        Ok(self.bytes(offset, HEADER)?.and_then(|bytes| bytes.first_chunk()))
    }

    /// The record at `offset`, if one is there whole: both its CRCs hold.
    // Inlined into its callers: a record that is returned is copied twice, and that took a tenth of a recovery's time.
    #[inline(always)]
    pub(crate) fn record(&mut self, offset: u64, seed: u32) -> Result<Option<Record>, StorageError> {
        let segment = self.segment;
        let Some(bytes) = self.header(offset)? else { return Ok(None) };
        let Some((header, chain)) = RecordHeader::decode(bytes, segment, seed) else { return Ok(None) };
        let payload = self.bytes(offset + HEADER as u64, header.length as usize)?;
        let whole = payload.is_some_and(|payload| crc32c::crc32c(payload) == header.payload_crc);
        Ok(whole.then(|| Record { header, chain, end: offset + record_bytes(header.length.into()) }))
    }

    /// The payload of the record at `offset`, of that length.
    pub(crate) fn payload(&mut self, offset: u64, length: u32) -> Result<Bytes, StorageError> {
        let (offset, length) = (offset + HEADER as u64, length as usize);
        if self.place(offset, length).is_none() {
            self.load(offset, length)?;
        }
        let piece = self.place(offset, length).map(|at| self.held.slice(at..at + length));
        piece.ok_or_else(|| StorageError::Corrupt(format!("log segment {} became shorter", self.segment)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_no_more() {
        let file: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
        let mut reads = 0;
        let mut read = |_, offset: u64, buffer: &mut [u8]| {
            reads += 1;
            let from = file.len().min(offset as usize);
            let length = buffer.len().min(file.len() - from);
            buffer[..length].copy_from_slice(&file[from..from + length]);
            Ok(length)
        };
        let mut window = Window::new(&mut read, 1, u64::MAX);
        for at in (0..300_000).step_by(100) {
            assert_eq!(window.bytes(at as u64, 100).unwrap(), Some(&file[at..at + 100]));
        }
        assert_eq!(window.bytes(999_990, 10).unwrap(), Some(&file[999_990..]));
        assert_eq!(window.bytes(999_991, 10).unwrap(), None);
        assert_eq!(window.bytes(2_000_000, 1).unwrap(), None);
        assert_eq!(window.bytes(0, 700_000).unwrap(), Some(&file[..700_000]), "longer than a window");
        assert_eq!(window.bytes(5, usize::MAX).unwrap(), None);
        assert_eq!(window.chunk(999_000).unwrap(), &file[999_000..]);
        assert_eq!(window.chunk(1_000_000).unwrap(), &[] as &[u8]);
        let kept: Vec<Bytes> =
            (0..900_000).step_by(1_000).map(|at| window.payload(at, 500).unwrap()).collect();
        for (piece, at) in kept.iter().zip((HEADER..).step_by(1_000)) {
            assert_eq!(piece, &file[at..at + 500], "pieces last while memory is used again");
        }
        assert!(reads < 25, "{reads} reads");
    }
}
