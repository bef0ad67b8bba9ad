//! Users' keys and values: typed at the handle, opaque bytes everywhere else.

use atomix_resource::ResourceError;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes of a key or value: its postcard form.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, ResourceError> {
    postcard::to_allocvec(value).map(Bytes::from).map_err(|_| ResourceError::Unencodable)
}

/// Reads a key or value back; all bytes must be used.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ResourceError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(ResourceError::Undecodable),
    }
}
