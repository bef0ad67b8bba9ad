//! The layout of a frame, and cutting frames out of what arrived.
//!
//! ```text
//! magic    u32 LE   tells a stranger's bytes, and a stream that lost its place, at once
//! length   u32 LE   of the payload
//! crc      u32 LE   CRC-32C of the payload: TCP's own checksum lets one damaged segment in some millions pass
//! payload
//! ```

use atomix_transport::TransportError;
use bytes::{Buf, Bytes, BytesMut};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 12;

/// Reads as `AtxF`.
const MAGIC: u32 = u32::from_le_bytes(*b"AtxF");

/// What goes in front of a payload, whose length the caller has checked.
pub(crate) fn header(payload: &[u8]) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(payload.len()).expect("the limit of a frame fits in its length field");
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    header
}

/// What the front of a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// A whole frame: its payload, which shares the buffer's memory. It was taken out.
    Frame(Bytes),
    /// The beginning of one that is whole once the buffer holds that many bytes.
    Incomplete(usize),
}

/// Takes the first frame out of what arrived. Judges the header as soon as it is there, before anything more is kept.
pub(crate) fn take(buffer: &mut BytesMut, limit: usize) -> Result<Front, TransportError> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Front::Incomplete(HEADER_BYTES));
    };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if word(0) != MAGIC {
        return Err(TransportError::BadFrame(format!("it begins with {:02x?}", &header[..4])));
    }
    let length = word(4) as usize;
    if length > limit {
        return Err(TransportError::BadFrame(format!(
            "its length of {length} bytes is above the limit of {limit}"
        )));
    }
    let Some(payload) = rest.get(..length) else {
        return Ok(Front::Incomplete(HEADER_BYTES + length));
    };
    if crc32c::crc32c(payload) != word(8) {
        return Err(TransportError::BadFrame(format!("the checksum of its {length} bytes does not match")));
    }
    buffer.advance(HEADER_BYTES);
    Ok(Front::Frame(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    fn bytes(payload: &[u8]) -> Vec<u8> {
        [&header(payload)[..], payload].concat()
    }

    fn check(bytes: &[u8]) -> Result<Front, TransportError> {
        take(&mut BytesMut::from(bytes), LIMIT)
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(bytes(b"123456789"), b"AtxF\x09\0\0\0\x83\x92\x06\xe3123456789");
        assert_eq!(bytes(b""), b"AtxF\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn frames_are_taken_one_by_one() {
        let mut buffer = BytesMut::from(&[bytes(b"one"), bytes(b""), bytes(b"three")].concat()[..]);
        for expected in [&b"one"[..], b"", b"three"] {
            assert_eq!(take(&mut buffer, LIMIT), Ok(Front::Frame(Bytes::copy_from_slice(expected))));
        }
        assert_eq!(take(&mut buffer, LIMIT), Ok(Front::Incomplete(HEADER_BYTES)));
    }

    #[test]
    fn the_beginning_of_a_frame_waits() {
        let whole = bytes(b"payload");
        for length in 0..whole.len() {
            let wanted = if length < HEADER_BYTES { HEADER_BYTES } else { whole.len() };
            assert_eq!(check(&whole[..length]), Ok(Front::Incomplete(wanted)), "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let bad = |bytes: &[u8], why: &str| match check(bytes) {
            Err(TransportError::BadFrame(reason)) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        };
        bad(b"GET / HTTP/1.1\r\n", "begins with");
        bad(&bytes(&[0; LIMIT + 1])[..HEADER_BYTES], "above the limit");
        let whole = bytes(b"payload");
        for bit in 0..8 * whole.len() {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A damaged length may also ask for more than there is.
            let taken = check(&damaged);
            assert!(!matches!(taken, Ok(Front::Frame(_))), "bit {bit}: {taken:?}");
        }
    }

    #[test]
    fn a_payload_shares_the_buffer() {
        let mut buffer = BytesMut::from(&bytes(b"payload")[..]);
        let place = buffer[HEADER_BYTES..].as_ptr();
        let Ok(Front::Frame(payload)) = take(&mut buffer, LIMIT) else { panic!("a whole frame") };
        assert_eq!(payload.as_ptr(), place);
    }
}
