//! Reading segments record by record, over a callback.

use atomix_storage::StorageError;
use bytes::Bytes;

use crate::format::{HEADER, RecordHeader, record_bytes};

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
    data: Vec<u8>,
    /// How many bytes of `data` are the file's.
    filled: usize,
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
        Window { read, segment, ahead, start: 0, data: Vec::new(), filled: 0 }
    }

    /// `length` bytes at `offset`; `None` if the file ends before. Memory is taken for bytes that are there, not for a length
    /// that damaged bytes claim.
    pub(crate) fn bytes(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, StorageError> {
        let held = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = held.filter(|at| at.checked_add(length).is_some_and(|end| end <= self.filled)) {
            return Ok(Some(&self.data[at..at + length]));
        }
        (self.start, self.filled) = (offset, 0);
        while self.filled < length && self.fill()? {}
        Ok(self.data[..self.filled].get(..length))
    }

    /// Reads on behind what is held. False at the end of the file.
    fn fill(&mut self) -> Result<bool, StorageError> {
        let wanted = self.filled + self.ahead;
        if self.data.len() < wanted {
            self.data.resize(wanted, 0);
        }
        let got =
            (self.read)(self.segment, self.start + self.filled as u64, &mut self.data[self.filled..wanted])?;
        self.filled += got;
        Ok(got == self.ahead)
    }

    /// The bytes from `offset` on, as many as one read yields; none at the end of the file.
    pub(crate) fn chunk(&mut self, offset: u64) -> Result<&[u8], StorageError> {
        (self.start, self.filled) = (offset, 0);
        self.fill()?;
        Ok(&self.data[..self.filled])
    }

    /// Whether all the bytes that were read last are zero: most of a segment is, and comparing is faster than searching.
    pub(crate) fn is_zero(&self) -> bool {
        self.data[..self.filled].chunks(WINDOW).all(|piece| piece == &ZEROS[..piece.len()])
    }

    /// The 64 bytes at `offset`.
    pub(crate) fn header(&mut self, offset: u64) -> Result<Option<&[u8; HEADER]>, StorageError> {
        Ok(self.bytes(offset, HEADER)?.and_then(|bytes| bytes.first_chunk()))
    }

    /// The record at `offset`, if one is there whole: both its CRCs hold.
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
        let bytes = self.bytes(offset + HEADER as u64, length as usize)?.map(Bytes::copy_from_slice);
        bytes.ok_or_else(|| StorageError::Corrupt(format!("log segment {} became shorter", self.segment)))
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
        assert!(reads < 20, "{reads} reads");
    }
}
