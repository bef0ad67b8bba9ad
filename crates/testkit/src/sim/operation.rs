//! What users do: commands and queries of a map, as bytes for the wire and as the plain thing they mean.

use std::fmt;

use atomix_collections::map::op;
use atomix_protocol::envelope::{
    Envelope, OpenReply, OpenResource, Operation as Header, OperationStatus, Sharing,
};
use atomix_protocol::{Index, InstanceId, codec};
use atomix_resource::Operation;
use bytes::{BufMut, Bytes, BytesMut};

use super::random::Random;
use super::settings::Settings;

const PATH: &str = "/sim/map";
const KIND: &str = "map";

/// What a key holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stored {
    value: Bytes,
    version: Index,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B@{}", self.value.len(), self.version)
    }
}

impl Stored {
    fn entry(&self) -> op::Entry {
        op::Entry { value: self.value.clone(), version: self.version }
    }
}

/// A command.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Command {
    Open,
    Put(u64, Bytes),
    PutIfAbsent(u64, Bytes),
    Replace(u64, Bytes),
    ReplaceIf(u64, Index, Bytes),
    Remove(u64),
    RemoveIf(u64, Index),
    Clear,
    /// Bytes that are no command at all (M2).
    Garbage(Bytes),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Open => f.write_str("open"),
            Command::Put(key, value) => write!(f, "put {key} {}B", value.len()),
            Command::PutIfAbsent(key, value) => write!(f, "put_if_absent {key} {}B", value.len()),
            Command::Replace(key, value) => write!(f, "replace {key} {}B", value.len()),
            Command::ReplaceIf(key, version, value) => {
                write!(f, "replace_if {key}@{version} {}B", value.len())
            }
            Command::Remove(key) => write!(f, "remove {key}"),
            Command::RemoveIf(key, version) => write!(f, "remove_if {key}@{version}"),
            Command::Clear => f.write_str("clear"),
            Command::Garbage(bytes) => write!(f, "garbage {}B", bytes.len()),
        }
    }
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query {
    Get(u64),
    Contains(u64),
    Len,
    Entries,
}

fn key_bytes(key: u64) -> Bytes {
    Bytes::copy_from_slice(&key.to_be_bytes())
}

fn envelope<O: Operation>(instance: InstanceId, operation: &O) -> Bytes {
    Envelope::Operation(Header { instance, number: O::NUMBER }, codec::to_bytes(operation)).encode()
}

/// The bytes of a reply, typed by the operation that it answers.
fn reply<O: Operation>(reply: O::Reply) -> Bytes {
    codec::to_bytes(&(OperationStatus::Ok, reply))
}

impl Command {
    /// Any of them. `tag` makes its value unlike any other; `hint` is a version that may well be there.
    pub(super) fn draw(random: &mut Random, settings: &Settings, tag: u64, hint: Index) -> Command {
        let key = random.below(settings.keys);
        let size = random.below(settings.value_bytes) as usize;
        let mut value = BytesMut::with_capacity(8 + size);
        value.put_u64(tag);
        value.put_bytes(0, size);
        let value = value.freeze();
        let version = Index(hint.0.saturating_sub(random.below(8)));
        match random.below(40) {
            0..=15 => Command::Put(key, value),
            16..=21 => Command::PutIfAbsent(key, value),
            22..=25 => Command::Replace(key, value),
            26..=31 => Command::ReplaceIf(key, version, value),
            32..=35 => Command::Remove(key),
            36 | 37 => Command::RemoveIf(key, version),
            38 => Command::Clear,
            _ => Command::Garbage(Bytes::copy_from_slice(&random.next().to_le_bytes())),
        }
    }

    /// The command's body.
    pub(super) fn encode(&self, instance: InstanceId) -> Bytes {
        match self.clone() {
            Command::Open => {
                let open = OpenResource {
                    path: PATH.into(),
                    kind: KIND.into(),
                    configuration: Bytes::new(),
                    sharing: Sharing::Shared,
                };
                Envelope::Open(open).encode()
            }
            Command::Put(key, value) => envelope(instance, &op::Put { key: key_bytes(key), value }),
            Command::PutIfAbsent(key, value) => {
                envelope(instance, &op::PutIfAbsent { key: key_bytes(key), value })
            }
            Command::Replace(key, value) => envelope(instance, &op::Replace { key: key_bytes(key), value }),
            Command::ReplaceIf(key, version, value) => {
                envelope(instance, &op::ReplaceIf { key: key_bytes(key), version, value })
            }
            Command::Remove(key) => envelope(instance, &op::Remove { key: key_bytes(key) }),
            Command::RemoveIf(key, version) => {
                envelope(instance, &op::RemoveIf { key: key_bytes(key), version })
            }
            Command::Clear => envelope(instance, &op::Clear),
            // Operation 1 exists; this is no body of it.
            Command::Garbage(bytes) => {
                Envelope::Operation(Header { instance, number: op::Put::NUMBER }, garbled(&bytes)).encode()
            }
        }
    }

    /// The key that it is about; `None` for all or none.
    pub(super) fn key(&self) -> Option<u64> {
        match self {
            Command::Put(key, _)
            | Command::PutIfAbsent(key, _)
            | Command::Replace(key, _)
            | Command::ReplaceIf(key, ..)
            | Command::Remove(key)
            | Command::RemoveIf(key, _) => Some(*key),
            Command::Open | Command::Clear | Command::Garbage(_) => None,
        }
    }

    /// The reply to an opening.
    pub(super) fn opened(instance: InstanceId) -> Bytes {
        codec::to_bytes(&OpenReply::Opened(instance))
    }

    /// The instance that an opening's reply names.
    pub(super) fn instance(body: &Bytes) -> Option<InstanceId> {
        match codec::from_bytes(body) {
            Ok(OpenReply::Opened(instance)) => Some(instance),
            _ => None,
        }
    }

    /// What becomes of what its key held (`None` for no change; for all keys if it has none), and the reply.
    pub(super) fn effect(&self, before: Option<&Stored>, index: Index) -> (Option<Option<Stored>>, Bytes) {
        let entry = before.map(Stored::entry);
        let store = |value: &Bytes| Some(Some(Stored { value: value.clone(), version: index }));
        match self {
            Command::Put(_, value) => (store(value), reply::<op::Put>(Ok(entry))),
            Command::PutIfAbsent(_, value) => {
                let change = if before.is_none() { store(value) } else { None };
                (change, reply::<op::PutIfAbsent>(Ok(entry)))
            }
            Command::Replace(_, value) => {
                let change = if before.is_some() { store(value) } else { None };
                (change, reply::<op::Replace>(entry))
            }
            Command::ReplaceIf(_, version, value) => {
                let matches = before.is_some_and(|stored| stored.version == *version);
                (if matches { store(value) } else { None }, reply::<op::ReplaceIf>(matches))
            }
            Command::Remove(_) => (before.map(|_| None), reply::<op::Remove>(entry)),
            Command::RemoveIf(_, version) => {
                let matches = before.is_some_and(|stored| stored.version == *version);
                (if matches { Some(None) } else { None }, reply::<op::RemoveIf>(matches))
            }
            Command::Clear => (Some(None), reply::<op::Clear>(())),
            Command::Garbage(_) => (None, codec::to_bytes(&OperationStatus::Malformed)),
            Command::Open => unreachable!("an opening is no operation of a map"),
        }
    }
}

/// A body that claims more bytes than it has.
fn garbled(bytes: &Bytes) -> Bytes {
    let mut body = BytesMut::with_capacity(bytes.len() + 1);
    body.put_u8(0x7F);
    body.put_slice(bytes);
    body.freeze()
}

impl Query {
    pub(super) fn draw(random: &mut Random, settings: &Settings) -> Query {
        let key = random.below(settings.keys);
        match random.below(10) {
            0..=5 => Query::Get(key),
            6 | 7 => Query::Contains(key),
            8 => Query::Len,
            _ => Query::Entries,
        }
    }

    pub(super) fn encode(&self, instance: InstanceId) -> Bytes {
        match self {
            Query::Get(key) => envelope(instance, &op::Get { key: key_bytes(*key) }),
            Query::Contains(key) => envelope(instance, &op::ContainsKey { key: key_bytes(*key) }),
            Query::Len => envelope(instance, &op::Len),
            Query::Entries => envelope(instance, &op::Entries { after: None }),
        }
    }

    /// The answer, given what a key and what all keys held.
    pub(super) fn answer<'a>(
        &self,
        held: impl Fn(u64) -> Option<&'a Stored>,
        all: impl Fn() -> Vec<(u64, &'a Stored)>,
    ) -> Bytes {
        match self {
            Query::Get(key) => reply::<op::Get>(held(*key).map(Stored::entry)),
            Query::Contains(key) => reply::<op::ContainsKey>(held(*key).is_some()),
            Query::Len => reply::<op::Len>(all().len() as u64),
            Query::Entries => {
                let entries =
                    all().into_iter().map(|(key, stored)| (key_bytes(key), stored.entry())).collect();
                reply::<op::Entries>(op::Page { entries, more: false })
            }
        }
    }
}
