//! The replicated state of a map: deterministic, and nothing but what the commands say.

use std::ops::Bound;

use atomix_resource::{Answer, Apply, BadConfiguration, CommandContext, QueryContext, Resource, limits};
use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::op::{
    Clear, ContainsKey, Entries, Entry, Get, Len, MapOperations, MapRefusal, Page, Put, PutIfAbsent, Remove,
    RemoveIf, Replace, ReplaceIf,
};

/// A reply of [`Entries`] ends with the entry that passes this many bytes: with the largest entry still far below a frame.
const PAGE_BYTES: usize = 256 << 10;
/// What an entry counts for in a page beside key and value.
const ENTRY_BYTES: usize = 16;

/// Keys and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapState {
    /// By encoded key. Persistent, so that a snapshot costs nothing however large the map is.
    /// Invariant: keys and values own their bytes. Decoding copies them: a slice would keep the whole buffer alive in which its
    /// command arrived.
    #[serde(with = "atomix_resource::ordered")]
    entries: OrdMap<Bytes, Entry>,
}

impl Resource for MapState {
    const KIND: &'static str = "map";
    type Operations = MapOperations;
    type Configuration = ();

    fn create((): ()) -> Result<Self, BadConfiguration> {
        Ok(Self::default())
    }
}

impl MapState {
    fn set(&mut self, cx: &CommandContext<'_>, key: Bytes, value: Bytes) -> Option<Entry> {
        self.entries.insert(key, Entry { value, version: cx.index() })
    }
}

fn check(key: &Bytes) -> Result<(), MapRefusal> {
    if key.len() > limits::KEY_BYTES {
        return Err(MapRefusal::KeyTooLong);
    }
    Ok(())
}

impl Apply<Put> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, put: Put) -> Result<Option<Entry>, MapRefusal> {
        check(&put.key)?;
        Ok(self.set(cx, put.key, put.value))
    }
}

impl Apply<PutIfAbsent> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, put: PutIfAbsent) -> Result<Option<Entry>, MapRefusal> {
        check(&put.key)?;
        match self.entries.get(&put.key) {
            Some(held) => Ok(Some(held.clone())),
            None => Ok(self.set(cx, put.key, put.value)),
        }
    }
}

impl Apply<Replace> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, replace: Replace) -> Option<Entry> {
        match self.entries.contains_key(&replace.key) {
            true => self.set(cx, replace.key, replace.value),
            false => None,
        }
    }
}

impl Apply<ReplaceIf> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, replace: ReplaceIf) -> bool {
        let matches = self.entries.get(&replace.key).is_some_and(|held| held.version == replace.version);
        if matches {
            self.set(cx, replace.key, replace.value);
        }
        matches
    }
}

impl Apply<Remove> for MapState {
    fn apply(&mut self, _: &mut CommandContext<'_>, remove: Remove) -> Option<Entry> {
        self.entries.remove(&remove.key)
    }
}

impl Apply<RemoveIf> for MapState {
    fn apply(&mut self, _: &mut CommandContext<'_>, remove: RemoveIf) -> bool {
        let matches = self.entries.get(&remove.key).is_some_and(|held| held.version == remove.version);
        if matches {
            self.entries.remove(&remove.key);
        }
        matches
    }
}

impl Apply<Clear> for MapState {
    fn apply(&mut self, _: &mut CommandContext<'_>, Clear: Clear) {
        self.entries.clear();
    }
}

impl Answer<Get> for MapState {
    fn answer(&self, _: &QueryContext, get: Get) -> Option<Entry> {
        self.entries.get(&get.key).cloned()
    }
}

impl Answer<ContainsKey> for MapState {
    fn answer(&self, _: &QueryContext, contains: ContainsKey) -> bool {
        self.entries.contains_key(&contains.key)
    }
}

impl Answer<Len> for MapState {
    fn answer(&self, _: &QueryContext, Len: Len) -> u64 {
        self.entries.len() as u64
    }
}

impl Answer<Entries> for MapState {
    fn answer(&self, _: &QueryContext, Entries { after }: Entries) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.entries.range::<_, Bytes>((from, Bound::Unbounded));
        let mut page = Page { entries: Vec::new(), more: false };
        let mut bytes = 0;
        while bytes < PAGE_BYTES {
            let Some((key, entry)) = rest.next() else { return page };
            bytes += key.len() + entry.value.len() + ENTRY_BYTES;
            page.entries.push((key.clone(), entry.clone()));
        }
        page.more = rest.next().is_some();
        page
    }
}
