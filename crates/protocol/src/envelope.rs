//! How a command or a query names its resource (M1). Bodies stay opaque below the `resource` crate.

use alloc::string::String;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::ids::{InstanceId, ResourceId};

/// The body of a session's command or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Opens a resource by path, creating it if need be. The reply is an [`OpenReply`].
    Open(OpenResource),
    /// One operation of an open resource.
    Operation(Operation, Bytes),
    /// Deletes the resource at a path. A command; the reply is a [`DeleteReply`].
    Delete(DeleteResource),
    /// Asks which kind of resource lives at a path. A query; the answer is its kind, an `Option<String>`.
    Exists(String),
}

/// Opens a resource (M1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenResource {
    /// Where the resource lives: `/` and names, at most [`limits::PATH_BYTES`](crate::limits::PATH_BYTES).
    pub path: String,
    /// What it is, by the name that its state machine registered.
    pub kind: String,
    /// Configuration of the kind; empty for its defaults. Decides at creation only.
    pub configuration: Bytes,
    /// Which instance is wanted.
    pub sharing: Sharing,
}

/// Deletes a resource (M1, L3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteResource {
    /// Where it lives.
    pub path: String,
    /// Also if it is in use: what it granted is revoked first.
    pub force: bool,
}

/// The reply to [`DeleteResource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeleteReply {
    /// It is gone. Handles that have it open are told so with their next operation.
    Deleted,
    /// There was none.
    NotThere,
    /// It is in use, and nothing was forced.
    InUse,
    /// It is being revoked, and goes as soon as its holder has let go, or the holder's session has ended.
    Revoking,
}

/// Which instance [`OpenResource`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// The one that this session already has at the path, if any.
    Shared,
    /// A new one.
    Own,
}

/// The reply to [`OpenResource`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenReply {
    /// Open.
    Opened {
        /// This session's opening of it.
        instance: InstanceId,
        /// The resource itself.
        resource: ResourceId,
    },
    /// The path holds a resource of another kind, named here.
    WrongKind(String),
    /// No server knows the kind.
    UnknownKind,
    /// The path is malformed or too long.
    BadPath,
    /// The configuration is malformed.
    BadConfiguration,
}

/// Names one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The instance.
    pub instance: InstanceId,
    /// The operation's number within its kind.
    pub number: u16,
}

/// How the reply to an [`Operation`] begins; the resource's own reply follows on success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationStatus {
    /// The resource's own reply follows.
    Ok,
    /// No such instance in this session.
    UnknownInstance,
    /// The resource was deleted (M1).
    Deleted,
    /// The kind has no such operation at the committed level (M2).
    UnknownOperation,
    /// The body does not decode (M2).
    Malformed,
}

const OPEN: u8 = 1;
const OPERATION: u8 = 2;
const DELETE: u8 = 3;
const EXISTS: u8 = 4;

impl Envelope {
    /// The bytes of a command's or query's body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Envelope::Open(open) => codec::tagged(OPEN, open, &[]),
            Envelope::Operation(operation, body) => codec::tagged(OPERATION, operation, body),
            Envelope::Delete(delete) => codec::tagged(DELETE, delete, &[]),
            Envelope::Exists(path) => codec::tagged(EXISTS, path, &[]),
        }
    }

    /// The bytes of an [`Envelope::Operation`] whose body is a value, encoded in one go; `None` if the value refuses to be encoded.
    #[must_use]
    pub fn encode_operation<T: Serialize + ?Sized>(operation: &Operation, body: &T) -> Option<Bytes> {
        let out = alloc::vec![OPERATION];
        let out = postcard::to_extend(operation, out).ok()?;
        postcard::to_extend(body, out).ok().map(Bytes::from)
    }

    /// Reads it back. An operation's body shares `bytes`.
    ///
    /// # Errors
    /// If the bytes are not an envelope.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (tag, rest) = codec::split_tag(bytes)?;
        match tag {
            OPEN => codec::from_bytes(&rest).map(Envelope::Open),
            OPERATION => {
                let (operation, body) = codec::take_from_bytes(&rest)?;
                Ok(Envelope::Operation(operation, body))
            }
            DELETE => codec::from_bytes(&rest).map(Envelope::Delete),
            EXISTS => codec::from_bytes(&rest).map(Envelope::Exists),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }

    /// Whose operation the bytes of an envelope are; `None` for what belongs to no instance.
    #[must_use]
    pub fn instance(bytes: &Bytes) -> Option<InstanceId> {
        let (_, rest) = codec::split_tag(bytes).ok().filter(|(tag, _)| *tag == OPERATION)?;
        codec::take_from_bytes::<Operation>(&rest).ok().map(|(operation, _)| operation.instance)
    }
}
