//! How state becomes bytes and back (M4): named, versioned, length-prefixed parts, written as a stream.
//!
//! Only the length of a part is counted beforehand, so that a large state is never held twice in memory.

use std::io::{self, BufWriter, Write};

use atomix_protocol::codec::{self, take_part};
use atomix_session::RestoreError;
use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One part, read back.
pub(crate) struct Part {
    name: String,
    version: u16,
    body: Bytes,
}

/// Writes a part: its length, its name and version, and what `body` writes; that is called twice and must write the same both times.
pub(crate) fn write_part(
    out: &mut dyn Write,
    name: &str,
    version: u16,
    body: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let header = codec::to_bytes(&(name, version));
    let mut length = Counter(header.len() as u64);
    body(&mut length)?;
    out.write_all(&length.0.to_le_bytes())?;
    out.write_all(&header)?;
    body(out)
}

/// Takes the next part.
pub(crate) fn read_part(bytes: &mut Bytes) -> Result<Part, RestoreError> {
    let part = take_part(bytes).map_err(|error| RestoreError(format!("part: {error}")))?;
    let ((name, version), body) = codec::take_from_bytes::<(String, u16)>(&part)
        .map_err(|error| RestoreError(format!("header of a part: {error}")))?;
    Ok(Part { name, version, body })
}

impl Part {
    /// The version and body of a part that must have this name.
    pub(crate) fn named(self, name: &str) -> Result<(u16, Bytes), RestoreError> {
        if self.name != name {
            return Err(RestoreError(format!("part {:?} where {name:?} belongs", self.name)));
        }
        Ok((self.version, self.body))
    }
}

/// Writes a value in its postcard form.
pub(crate) fn write_value<T: Serialize + ?Sized>(value: &T, out: &mut dyn Write) -> io::Result<()> {
    let mut sink = Sink { out: BufWriter::new(out), failed: None };
    match postcard::serialize_with_flavor(value, &mut sink) {
        Ok(()) => sink.out.flush(),
        Err(error) => Err(sink.failed.unwrap_or_else(|| io::Error::other(error.to_string()))),
    }
}

/// Reads a value that must fill `bytes` and be written exactly as they are: so what no replica would ever write is refused.
pub(crate) fn read_exact<T: Serialize + DeserializeOwned>(bytes: &Bytes) -> Result<T, &'static str> {
    let value: T = codec::from_bytes(bytes).map_err(|_| "does not decode")?;
    let mut rest = Expected(bytes);
    match write_value(&value, &mut rest) {
        Ok(()) if rest.0.is_empty() => Ok(value),
        _ => Err("is not written the way it would be"),
    }
}

/// Counts.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fails at the first byte that differs from what is expected.
struct Expected<'a>(&'a [u8]);

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where postcard writes: it knows no I/O errors, so the first is kept aside.
struct Sink<'a> {
    out: BufWriter<&'a mut dyn Write>,
    failed: Option<io::Error>,
}

impl Flavor for &mut Sink<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.out.write_all(bytes).map_err(|error| {
            self.failed = Some(error);
            postcard::Error::SerializeBufferFull
        })
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, version: u16, body: &[u8]) -> Bytes {
        let mut out = Vec::new();
        write_part(&mut out, name, version, &|out| out.write_all(body)).unwrap();
        Bytes::from(out)
    }

    #[test]
    fn golden_bytes_of_a_part() {
        let bytes = part("ab", 3, &[7, 8, 9]);
        assert_eq!(bytes[..], [7, 0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 3, 7, 8, 9]);
        let mut rest = bytes;
        let (version, body) = read_part(&mut rest).unwrap().named("ab").unwrap();
        assert_eq!((version, &body[..], rest.len()), (3, &[7, 8, 9][..], 0));
    }

    #[test]
    fn a_part_cut_anywhere_or_misnamed_is_refused() {
        let whole = part("ab", 3, &[]);
        for end in 0..whole.len() {
            assert!(read_part(&mut whole.slice(..end)).is_err(), "cut at {end}");
        }
        assert!(read_part(&mut whole.clone()).unwrap().named("b").is_err());
    }

    #[test]
    fn only_the_one_form_of_a_value_is_read() {
        assert_eq!(read_exact::<u64>(&Bytes::from_static(&[5])), Ok(5));
        assert!(
            read_exact::<u64>(&Bytes::from_static(&[0x85, 0x00])).is_err(),
            "a longer form of the same number"
        );
        assert!(read_exact::<u64>(&Bytes::from_static(&[5, 0])).is_err(), "left-over bytes");
        assert!(read_exact::<u64>(&Bytes::new()).is_err());
    }

    #[test]
    fn a_failing_writer_is_reported() {
        let error = write_value(&[0u8; 100][..], &mut Expected(&[1])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
