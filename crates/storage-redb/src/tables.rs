//! The tables, and values as bytes. Every value ends with, or for an entry holds, a CRC-32C that knows its key: a value that is found under
//! another key than it was written for is damaged.

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{ClusterTime, Entry, EntryId, EntryKind, Index, Term, codec};
use atomix_storage::StorageError;
use bytes::Bytes;
use redb::TableDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Fields by name.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Entries by index.
pub(crate) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Published snapshots by index and term.
pub(crate) const SNAPSHOTS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("snapshots");
/// Their bytes, and those of the one being written, by generation and number of the piece.
pub(crate) const PIECES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("pieces");

/// Version of all this. Invariant: its place in the table never changes, whatever else does.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Names in [`META`].
pub(crate) const FORMAT: &str = "format";
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const HARD_STATE: &str = "hard state";
pub(crate) const CONFIGURATION: &str = "configuration";
pub(crate) const ABSTENTION: &str = "abstention";
/// The entry right before the first of [`LOG`].
pub(crate) const BASE: &str = "base";

/// Bytes of a snapshot in one piece. With its key it fits into sixteen of redb's pages, which come in powers of two.
pub(crate) const PIECE_BYTES: usize = 60 << 10;

const CRC_BYTES: usize = 4;
/// Before an entry's payload: term, time, kind, CRC.
const ENTRY_HEADER: usize = 8 + 8 + 1 + CRC_BYTES;

/// A published snapshot: what it is, and under which number its pieces are.
pub(crate) type Shelved = (SnapshotMeta, u64);

/// What a value's CRC knows of its key.
pub(crate) fn key_of(first: u64, second: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_le_bytes());
    key[8..].copy_from_slice(&second.to_le_bytes());
    key
}

/// Bytes with their CRC.
pub(crate) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    [value, &crc.to_le_bytes()].concat()
}

/// The bytes, if they are what was sealed under that key.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, crc) = sealed.split_last_chunk::<CRC_BYTES>()?;
    (crc32c::crc32c_append(crc32c::crc32c(key), value) == u32::from_le_bytes(*crc)).then_some(value)
}

pub(crate) fn encode<T: Serialize>(key: &[u8], value: &T) -> Vec<u8> {
    seal(key, &codec::to_bytes(value))
}

pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], sealed: &[u8]) -> Option<T> {
    codec::from_bytes(unseal(key, sealed)?).ok()
}

/// An entry as a value. The index is the key.
pub(crate) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(ENTRY_HEADER + entry.payload.len());
    out.extend_from_slice(&entry.id.term.0.to_le_bytes());
    out.extend_from_slice(&entry.time.0.to_le_bytes());
    out.push(entry.kind as u8);
    let crc = entry_crc(entry.id.index, out, &entry.payload);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&entry.payload);
}

/// The entry at an index; `None` if the value is damaged.
///
/// # Errors
/// If it is of a kind that this version does not know.
pub(crate) fn decode_entry(index: Index, value: &[u8]) -> Result<Option<Entry>, StorageError> {
    let Some((header, payload)) = value.split_first_chunk::<ENTRY_HEADER>() else { return Ok(None) };
    let (fields, crc) = header.split_at(ENTRY_HEADER - CRC_BYTES);
    if entry_crc(index, fields, payload).to_le_bytes() != crc {
        return Ok(None);
    }
    let Some(kind) = EntryKind::from_number(fields[16]) else {
        return Err(StorageError::OtherVersion(format!("entry {index} is of an unknown kind")));
    };
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&fields[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    Ok(Some(Entry {
        id: EntryId::new(Term(number(0)), index),
        time: ClusterTime(number(8)),
        kind,
        payload: Bytes::copy_from_slice(payload),
    }))
}

fn entry_crc(index: Index, fields: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&index.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, fields), payload)
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{HardState, Identity, Incarnation, ServerId};

    use super::*;

    fn entry() -> Entry {
        Entry {
            id: EntryId::new(Term(3), Index(7)),
            time: ClusterTime(500),
            kind: EntryKind::Session,
            payload: Bytes::from_static(b"put"),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Files that were written by this version must be readable by later ones.
    #[test]
    fn values_as_bytes_stay_what_they_are() {
        let mut value = Vec::new();
        encode_entry(&entry(), &mut value);
        assert_eq!(hex(&value), "0300000000000000f4010000000000000391fba67a707574");
        let identity = Identity { incarnation: Incarnation(0xA70_0001) };
        assert_eq!(hex(&encode(IDENTITY.as_bytes(), &identity)), "8180c05390d93211");
        let hard_state = HardState { term: Term(9), voted_for: Some(ServerId(2)) };
        assert_eq!(hex(&encode(HARD_STATE.as_bytes(), &hard_state)), "0901022d9265a2");
        assert_eq!(hex(&seal(&key_of(1, 2), b"piece")), "7069656365e6165fab");
        assert_eq!(hex(&seal(FORMAT.as_bytes(), &FORMAT_VERSION.to_le_bytes())), "010000003308890b");
    }

    #[test]
    fn an_entry_that_was_changed_or_lies_elsewhere_is_damaged() {
        let mut value = Vec::new();
        encode_entry(&entry(), &mut value);
        assert_eq!(decode_entry(Index(7), &value), Ok(Some(entry())));
        assert_eq!(decode_entry(Index(8), &value), Ok(None), "another index");
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut flipped = value.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(decode_entry(Index(7), &flipped), Ok(None), "bit {bit} of byte {at}");
            }
            assert_eq!(decode_entry(Index(7), &value[..at]), Ok(None), "cut at {at}");
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_not_damage() {
        let mut fields = vec![0; 16];
        fields.push(77);
        let crc = entry_crc(Index(7), &fields, b"");
        fields.extend_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode_entry(Index(7), &fields), Err(StorageError::OtherVersion(_))));
    }

    #[test]
    fn a_sealed_value_belongs_to_its_key() {
        let sealed = seal(b"key", b"value");
        assert_eq!(unseal(b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(b"kez", &sealed), None);
        assert_eq!(unseal(b"key", &sealed[1..]), None);
        assert_eq!(unseal(b"key", b"abc"), None);
    }
}
