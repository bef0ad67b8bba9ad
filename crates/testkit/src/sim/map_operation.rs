//! What can be asked of a map, as bytes for the wire and as the plain thing it means.

use std::fmt;

use atomix_collections::map::op;
use atomix_protocol::envelope::OperationStatus;
use atomix_protocol::{Index, InstanceId, Sequence, codec};
use atomix_resource::Operation;
use atomix_resource::fencing::{Fenced, FencingToken};
use bytes::{BufMut, Bytes, BytesMut};

use super::operation::{envelope, reply};
use super::random::Random;
use super::settings::Settings;

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
    pub(super) fn entry(&self) -> op::Entry {
        op::Entry { value: self.value.clone(), version: self.version }
    }
}

/// A command of a map.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum MapCommand {
    Put(u64, Bytes),
    PutIfAbsent(u64, Bytes),
    Replace(u64, Bytes),
    ReplaceIf(u64, Index, Bytes),
    Remove(u64),
    RemoveIf(u64, Index),
    Clear,
    /// Written only if no later holder of the lock has been here.
    FencedPut(FencingToken, u64, Bytes),
    /// All keys, or one.
    Watch(Option<u64>),
    Unwatch(Sequence),
}

impl fmt::Debug for MapCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapCommand::Put(key, value) => write!(f, "put {key} {}B", value.len()),
            MapCommand::PutIfAbsent(key, value) => write!(f, "put_if_absent {key} {}B", value.len()),
            MapCommand::Replace(key, value) => write!(f, "replace {key} {}B", value.len()),
            MapCommand::ReplaceIf(key, version, value) => {
                write!(f, "replace_if {key}@{version} {}B", value.len())
            }
            MapCommand::Remove(key) => write!(f, "remove {key}"),
            MapCommand::RemoveIf(key, version) => write!(f, "remove_if {key}@{version}"),
            MapCommand::Clear => f.write_str("clear"),
            MapCommand::FencedPut(token, key, value) => {
                write!(f, "put {key} {}B as {} of {}", value.len(), token.token, token.lock.0)
            }
            MapCommand::Watch(key) => write!(f, "watch {key:?}"),
            MapCommand::Unwatch(watch) => write!(f, "unwatch {watch}"),
        }
    }
}

/// A query of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MapQuery {
    Get(u64),
    Contains(u64),
    Len,
    Entries,
}

pub(super) fn key_bytes(key: u64) -> Bytes {
    Bytes::copy_from_slice(&key.to_be_bytes())
}

/// A value unlike any other, if its tag is.
pub(super) fn value(random: &mut Random, settings: &Settings, tag: u64) -> Bytes {
    let size = random.below(settings.value_bytes) as usize;
    let mut value = BytesMut::with_capacity(8 + size);
    value.put_u64(tag);
    value.put_bytes(0, size);
    value.freeze()
}

impl MapCommand {
    /// Any that writes. `hint` is a version that may well be there. `None` for one in forty.
    pub(super) fn draw(
        random: &mut Random,
        settings: &Settings,
        tag: u64,
        hint: Index,
    ) -> Option<MapCommand> {
        let key = random.below(settings.keys);
        let value = value(random, settings, tag);
        let version = Index(hint.0.saturating_sub(random.below(8)));
        Some(match random.below(40) {
            0..=15 => MapCommand::Put(key, value),
            16..=21 => MapCommand::PutIfAbsent(key, value),
            22..=25 => MapCommand::Replace(key, value),
            26..=31 => MapCommand::ReplaceIf(key, version, value),
            32..=35 => MapCommand::Remove(key),
            36 | 37 => MapCommand::RemoveIf(key, version),
            38 => MapCommand::Clear,
            _ => return None,
        })
    }

    pub(super) fn encode(&self, instance: InstanceId) -> Bytes {
        match self.clone() {
            MapCommand::Put(key, value) => envelope(instance, &op::Put { key: key_bytes(key), value }),
            MapCommand::PutIfAbsent(key, value) => {
                envelope(instance, &op::PutIfAbsent { key: key_bytes(key), value })
            }
            MapCommand::Replace(key, value) => {
                envelope(instance, &op::Replace { key: key_bytes(key), value })
            }
            MapCommand::ReplaceIf(key, version, value) => {
                envelope(instance, &op::ReplaceIf { key: key_bytes(key), version, value })
            }
            MapCommand::Remove(key) => envelope(instance, &op::Remove { key: key_bytes(key) }),
            MapCommand::RemoveIf(key, version) => {
                envelope(instance, &op::RemoveIf { key: key_bytes(key), version })
            }
            MapCommand::Clear => envelope(instance, &op::Clear),
            MapCommand::FencedPut(token, key, value) => {
                envelope(instance, &Fenced { token, operation: op::Put { key: key_bytes(key), value } })
            }
            MapCommand::Watch(key) => envelope(instance, &op::Watch { scope: scope(key) }),
            MapCommand::Unwatch(watch) => envelope(instance, &op::Unwatch { watch }),
        }
    }

    pub(super) fn number(&self) -> u16 {
        match self {
            MapCommand::Put(..) => op::Put::NUMBER,
            MapCommand::PutIfAbsent(..) => op::PutIfAbsent::NUMBER,
            MapCommand::Replace(..) => op::Replace::NUMBER,
            MapCommand::ReplaceIf(..) => op::ReplaceIf::NUMBER,
            MapCommand::Remove(_) => op::Remove::NUMBER,
            MapCommand::RemoveIf(..) => op::RemoveIf::NUMBER,
            MapCommand::Clear => op::Clear::NUMBER,
            MapCommand::FencedPut(..) => Fenced::<op::Put>::NUMBER,
            MapCommand::Watch(_) => op::Watch::NUMBER,
            MapCommand::Unwatch(_) => op::Unwatch::NUMBER,
        }
    }

    /// The key that it writes; `None` for all or none.
    pub(super) fn key(&self) -> Option<u64> {
        match self {
            MapCommand::Put(key, _)
            | MapCommand::PutIfAbsent(key, _)
            | MapCommand::Replace(key, _)
            | MapCommand::ReplaceIf(key, ..)
            | MapCommand::Remove(key)
            | MapCommand::RemoveIf(key, _)
            | MapCommand::FencedPut(_, key, _) => Some(*key),
            MapCommand::Clear | MapCommand::Watch(_) | MapCommand::Unwatch(_) => None,
        }
    }

    /// What becomes of what its key held (`None` for no change), and the reply. Only of those that write one key.
    pub(super) fn effect(&self, before: Option<&Stored>, index: Index) -> (Option<Option<Stored>>, Bytes) {
        let entry = before.map(Stored::entry);
        let store = |value: &Bytes| Some(Some(Stored { value: value.clone(), version: index }));
        match self {
            MapCommand::Put(_, value) => (store(value), reply::<op::Put>(Ok(entry))),
            MapCommand::PutIfAbsent(_, value) => {
                let change = if before.is_none() { store(value) } else { None };
                (change, reply::<op::PutIfAbsent>(Ok(entry)))
            }
            MapCommand::Replace(_, value) => {
                let change = if before.is_some() { store(value) } else { None };
                (change, reply::<op::Replace>(entry))
            }
            MapCommand::ReplaceIf(_, version, value) => {
                let matches = before.is_some_and(|stored| stored.version == *version);
                (if matches { store(value) } else { None }, reply::<op::ReplaceIf>(matches))
            }
            MapCommand::Remove(_) => (before.map(|_| None), reply::<op::Remove>(entry)),
            MapCommand::RemoveIf(_, version) => {
                let matches = before.is_some_and(|stored| stored.version == *version);
                (if matches { Some(None) } else { None }, reply::<op::RemoveIf>(matches))
            }
            MapCommand::FencedPut(_, _, value) => (store(value), reply::<Fenced<op::Put>>(Ok(Ok(entry)))),
            MapCommand::Clear | MapCommand::Watch(_) | MapCommand::Unwatch(_) => {
                unreachable!("{self:?} writes no single key")
            }
        }
    }
}

pub(super) fn scope(key: Option<u64>) -> op::Scope {
    key.map_or(op::Scope::All, |key| op::Scope::Key(key_bytes(key)))
}

/// The reply to a body that is none.
pub(super) fn malformed() -> Bytes {
    codec::to_bytes(&OperationStatus::Malformed)
}

impl MapQuery {
    pub(super) fn draw(random: &mut Random, settings: &Settings) -> MapQuery {
        let key = random.below(settings.keys);
        match random.below(10) {
            0..=5 => MapQuery::Get(key),
            6 | 7 => MapQuery::Contains(key),
            8 => MapQuery::Len,
            _ => MapQuery::Entries,
        }
    }

    pub(super) fn encode(&self, instance: InstanceId) -> Bytes {
        match self {
            MapQuery::Get(key) => envelope(instance, &op::Get { key: key_bytes(*key) }),
            MapQuery::Contains(key) => envelope(instance, &op::ContainsKey { key: key_bytes(*key) }),
            MapQuery::Len => envelope(instance, &op::Len),
            MapQuery::Entries => envelope(instance, &op::Entries { after: None }),
        }
    }

    pub(super) fn number(&self) -> u16 {
        match self {
            MapQuery::Get(_) => op::Get::NUMBER,
            MapQuery::Contains(_) => op::ContainsKey::NUMBER,
            MapQuery::Len => op::Len::NUMBER,
            MapQuery::Entries => op::Entries::NUMBER,
        }
    }

    /// The answer, given what a key and what all keys held.
    pub(super) fn answer<'a>(
        &self,
        held: impl Fn(u64) -> Option<&'a Stored>,
        all: impl Fn() -> Vec<(u64, &'a Stored)>,
    ) -> Bytes {
        match self {
            MapQuery::Get(key) => reply::<op::Get>(held(*key).map(Stored::entry)),
            MapQuery::Contains(key) => reply::<op::ContainsKey>(held(*key).is_some()),
            MapQuery::Len => reply::<op::Len>(all().len() as u64),
            MapQuery::Entries => {
                let entries =
                    all().into_iter().map(|(key, stored)| (key_bytes(key), stored.entry())).collect();
                reply::<op::Entries>(op::Page { entries, more: false })
            }
        }
    }
}
