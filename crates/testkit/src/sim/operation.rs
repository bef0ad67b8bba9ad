//! What users ask: of which resource, as bytes for the wire, and as the plain thing it means.

use std::fmt;

use atomix_collections::map::MapState;
use atomix_coordination::lock::LockState;
use atomix_coordination::lock::op::{Acquire, Cancel, Inspect, Release, Wait};
use atomix_protocol::envelope::{
    DeleteReply, DeleteResource, Envelope, OpenReply, OpenResource, Operation as Header, OperationStatus,
    Sharing,
};
use atomix_protocol::{Index, InstanceId, ResourceId, Sequence, codec};
use atomix_resource::{Operation, Resource};
use bytes::{BufMut, Bytes, BytesMut};

use super::map_operation::{MapCommand, MapQuery, malformed};
use super::random::Random;

/// The number of a command that maps and locks have.
const FIRST: u16 = 1;

/// Where a resource lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The map.
    Map,
    /// A lock.
    Lock(u64),
}

impl Place {
    fn path(self) -> String {
        match self {
            Place::Map => "/sim/map".into(),
            Place::Lock(number) => format!("/sim/lock/{number}"),
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Place::Map => MapState::KIND,
            Place::Lock(_) => LockState::KIND,
        }
    }
}

/// A command.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Command {
    Open(Place),
    /// Deletes what is there; by force even if it is in use.
    Delete(Place, bool),
    Map(MapCommand),
    Lock(LockCommand),
    /// Bytes that are no command at all (M2).
    Garbage(Bytes),
}

/// A command of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockCommand {
    Acquire(Wait),
    Release(Index),
    Cancel(Sequence),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Open(place) => write!(f, "open {place:?}"),
            Command::Delete(place, force) => {
                write!(f, "delete {place:?}{}", if *force { " by force" } else { "" })
            }
            Command::Map(command) => command.fmt(f),
            Command::Lock(command) => command.fmt(f),
            Command::Garbage(bytes) => write!(f, "garbage {}B", bytes.len()),
        }
    }
}

pub(super) fn envelope<O: Operation>(instance: InstanceId, operation: &O) -> Bytes {
    Envelope::Operation(Header { instance, number: O::NUMBER }, codec::to_bytes(operation)).encode()
}

/// The bytes of a reply, typed by the operation that it answers.
pub(super) fn reply<O: Operation>(reply: O::Reply) -> Bytes {
    codec::to_bytes(&(OperationStatus::Ok, reply))
}

/// What a reply of that operation says; `None` if it says that it was refused.
pub(super) fn read_reply<O: Operation>(body: &Bytes) -> Option<O::Reply> {
    let (status, reply) = codec::from_bytes::<(OperationStatus, O::Reply)>(body).ok()?;
    (status == OperationStatus::Ok).then_some(reply)
}

/// Whether a reply says that the resource was deleted.
pub(super) fn says_deleted(body: &Bytes) -> bool {
    codec::from_bytes::<OperationStatus>(body) == Ok(OperationStatus::Deleted)
}

pub(super) fn deleted() -> Bytes {
    codec::to_bytes(&OperationStatus::Deleted)
}

pub(super) fn unknown_instance() -> Bytes {
    codec::to_bytes(&OperationStatus::UnknownInstance)
}

/// The reply to what may not be used yet (M3).
pub(super) fn unknown_operation() -> Bytes {
    codec::to_bytes(&OperationStatus::UnknownOperation)
}

/// The reply to an opening of what may not be created yet (M3).
pub(super) fn unknown_kind() -> Bytes {
    codec::to_bytes(&OpenReply::UnknownKind)
}

/// The reply to an opening.
pub(super) fn opened(instance: InstanceId, resource: ResourceId) -> Bytes {
    codec::to_bytes(&OpenReply::Opened { instance, resource })
}

/// What an opening's reply names.
pub(super) fn read_opened(body: &Bytes) -> Option<(InstanceId, ResourceId)> {
    match codec::from_bytes(body) {
        Ok(OpenReply::Opened { instance, resource }) => Some((instance, resource)),
        _ => None,
    }
}

/// The reply to a deletion.
pub(super) fn deletion(reply: DeleteReply) -> Bytes {
    codec::to_bytes(&reply)
}

impl Command {
    pub(super) fn garbage(random: &mut Random) -> Command {
        Command::Garbage(Bytes::copy_from_slice(&random.next().to_le_bytes()))
    }

    /// The command's body.
    pub(super) fn encode(&self, instance: InstanceId) -> Bytes {
        match self {
            Command::Open(place) => {
                let open = OpenResource {
                    path: place.path(),
                    kind: place.kind().into(),
                    configuration: Bytes::new(),
                    sharing: Sharing::Shared,
                };
                Envelope::Open(open).encode()
            }
            Command::Delete(place, force) => {
                Envelope::Delete(DeleteResource { path: place.path(), force: *force }).encode()
            }
            Command::Map(command) => command.encode(instance),
            Command::Lock(LockCommand::Acquire(wait)) => envelope(instance, &Acquire { wait: *wait }),
            Command::Lock(LockCommand::Release(token)) => envelope(instance, &Release { token: *token }),
            Command::Lock(LockCommand::Cancel(contender)) => {
                envelope(instance, &Cancel { contender: *contender })
            }
            Command::Garbage(bytes) => {
                Envelope::Operation(Header { instance, number: FIRST }, garbled(bytes)).encode()
            }
        }
    }

    /// The invariant that a wrong reply breaks.
    pub(super) fn invariant(&self) -> &'static str {
        if let Command::Lock(_) = self { "I12" } else { "I7" }
    }

    /// The number of what it asks of a resource.
    pub(super) fn number(&self) -> u16 {
        match self {
            Command::Open(_) | Command::Delete(..) => 0,
            Command::Map(command) => command.number(),
            Command::Lock(LockCommand::Acquire(_)) => Acquire::NUMBER,
            Command::Lock(LockCommand::Release(_)) => Release::NUMBER,
            Command::Lock(LockCommand::Cancel(_)) => Cancel::NUMBER,
            Command::Garbage(_) => FIRST,
        }
    }

    /// The reply if it is no command at all.
    pub(super) fn refusal(&self) -> Option<Bytes> {
        matches!(self, Command::Garbage(_)).then(malformed)
    }
}

/// The body of no command: neither a key of so many bytes nor a way to wait.
fn garbled(bytes: &Bytes) -> Bytes {
    let mut body = BytesMut::with_capacity(bytes.len() + 1);
    body.put_u8(0x7F);
    body.put_slice(bytes);
    body.freeze()
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query {
    Map(MapQuery),
    Inspect,
}

impl Query {
    pub(super) fn encode(&self, instance: InstanceId) -> Bytes {
        match self {
            Query::Map(query) => query.encode(instance),
            Query::Inspect => envelope(instance, &Inspect),
        }
    }

    pub(super) fn number(&self) -> u16 {
        match self {
            Query::Map(query) => query.number(),
            Query::Inspect => Inspect::NUMBER,
        }
    }

    /// The invariant that a wrong answer breaks.
    pub(super) fn invariant(&self) -> &'static str {
        if let Query::Inspect = self { "I12" } else { "I9" }
    }
}
