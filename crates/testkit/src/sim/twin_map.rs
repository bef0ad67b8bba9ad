//! The twin of a map: what each key held behind each index, and who wants to be told.

use std::collections::BTreeMap;

use atomix_collections::map::op::{self, MapEvent};
use atomix_protocol::{Index, ResourceId, SessionId, codec};
use atomix_resource::fencing::{FenceRefusal, Fenced, FencingToken};
use bytes::Bytes;

use super::map_operation::{MapCommand, MapQuery, Stored, key_bytes};
use super::operation::reply;
use super::twin::{Applying, Who};

/// A map.
#[derive(Debug, Default)]
pub(super) struct MapTwin {
    values: BTreeMap<u64, Vec<(Index, Option<Stored>)>>,
    watches: BTreeMap<Who, Option<u64>>,
    /// The greatest token seen of each lock.
    fences: BTreeMap<ResourceId, Index>,
}

impl MapTwin {
    pub(super) fn apply(&mut self, cx: &mut Applying<'_>, who: Who, command: &MapCommand) -> Bytes {
        let index = cx.index;
        match command {
            MapCommand::Clear => {
                self.clear(cx);
                reply::<op::Clear>(())
            }
            MapCommand::Watch(key) => {
                self.watches.insert(who, *key);
                let held = key.and_then(|key| self.value(key, index)).map(Stored::entry);
                reply::<op::Watch>(Ok(held))
            }
            MapCommand::Unwatch(watch) => {
                self.watches.remove(&Who { sequence: *watch, ..who });
                reply::<op::Unwatch>(())
            }
            MapCommand::FencedPut(token, ..) => match self.pass(cx, *token) {
                Ok(()) => self.write(cx, command),
                Err(refusal) => reply::<Fenced<op::Put>>(Err(refusal)),
            },
            _ => self.write(cx, command),
        }
    }

    fn write(&mut self, cx: &mut Applying<'_>, command: &MapCommand) -> Bytes {
        let Some(number) = command.key() else { return Bytes::new() };
        let before = self.value(number, cx.index).cloned();
        let (after, answer) = command.effect(before.as_ref(), cx.index);
        let Some(after) = after else { return answer };
        let key = key_bytes(number);
        let event = match (before, after.as_ref()) {
            (None, Some(new)) => Some(MapEvent::Added { key, entry: new.entry() }),
            (Some(old), Some(new)) => Some(MapEvent::Updated { key, old: old.entry(), new: new.entry() }),
            (Some(old), None) => Some(MapEvent::Removed { key, old: old.entry() }),
            (None, None) => None,
        };
        self.values.entry(number).or_default().push((cx.index, after));
        if let Some(event) = event {
            let concerned =
                self.watches.iter().filter(|(_, about)| about.is_none_or(|about| about == number));
            cx.publish(concerned.map(|(who, _)| *who), codec::to_bytes(&event));
        }
        answer
    }

    fn clear(&mut self, cx: &mut Applying<'_>) {
        let held: Vec<u64> = self.entries(cx.index).map(|(key, _)| key).collect();
        if held.is_empty() {
            return;
        }
        let concerned =
            self.watches.iter().filter(|(_, about)| about.is_none_or(|about| held.contains(&about)));
        cx.publish(concerned.map(|(who, _)| *who), codec::to_bytes(&MapEvent::Cleared));
        for key in held {
            self.values.entry(key).or_default().push((cx.index, None));
        }
    }

    fn pass(&mut self, cx: &Applying<'_>, fencing: FencingToken) -> Result<(), FenceRefusal> {
        let FencingToken { lock, token } = fencing;
        if !cx.alive.contains(&lock) {
            return Err(FenceRefusal::NoSuchLock);
        }
        if token >= cx.index || token.0 <= lock.0 {
            return Err(FenceRefusal::NotAToken);
        }
        let greatest = self.fences.entry(lock).or_default();
        if token < *greatest {
            return Err(FenceRefusal::OutOfDate { token, greatest: *greatest });
        }
        *greatest = token;
        Ok(())
    }

    pub(super) fn session_ended(&mut self, session: SessionId) {
        self.watches.retain(|who, _| who.session != session);
    }

    pub(super) fn delete(&mut self, cx: &mut Applying<'_>) {
        cx.publish(self.watches.keys().copied(), codec::to_bytes(&MapEvent::Deleted));
        *cx.finished = true;
    }

    pub(super) fn watches(&self) -> usize {
        self.watches.len()
    }

    /// What a key held behind an index.
    fn value(&self, key: u64, index: Index) -> Option<&Stored> {
        let history = self.values.get(&key)?;
        let count = history.partition_point(|(at, _)| *at <= index);
        history.get(count.checked_sub(1)?)?.1.as_ref()
    }

    /// All that the map held behind an index.
    fn entries(&self, index: Index) -> impl Iterator<Item = (u64, &Stored)> + '_ {
        self.values.keys().filter_map(move |key| Some((*key, self.value(*key, index)?)))
    }

    /// What a query must answer behind an index.
    pub(super) fn answer(&self, query: &MapQuery, index: Index) -> Bytes {
        query.answer(|key| self.value(key, index), || self.entries(index).collect())
    }
}
